//! Thousands of made-up histories of whole streamers, each from a seed.
//!
//! The real [`run_from`](super::run_from) runs on several hosts at once against a made-up cluster
//! (real binlog bytes; elections with and without loss, purges, crashes, broken and hanging dumps)
//! and a store in memory that is far away (late effects, lost replies, outages, pages that are no
//! picture of one moment). Streamers are killed at any moment and at every fail point, frozen,
//! stopped, and started again; they compact while others read. Now and then a restored server takes the place of all of
//! them, as a reseed does. An operator answers a refusal with the decision that
//! it names. Time is simulated, one thread runs it all, and chance comes from the seed: the same seed is
//! the same history, line by line.
//!
//! What is held against it is [`model`]: the archive is a beginning of what the cluster committed,
//! in its order and byte for byte, each transaction once; what was told to be durable or was
//! acknowledged stays; no gap or fork that nobody decided; `complete_to` lacks nothing; and when the faults
//! cease, the archive comes to hold all that the cluster holds.
//!
//! Left out because no streamer can see it: a group that lost transactions, gives their GTIDs again,
//! and is led by a member whose binlog no longer has the first of the new ones.
//!
//! Not covered: `prune` (which does not exist yet), the spool on disk, segments so large that they
//! are packed in threads, and clocks of servers that differ from each other.
//!
//! `QUILLBACK_SIMULATION_SEED=S` runs the history of one seed and prints it if it fails,
//! `QUILLBACK_SIMULATION_SECONDS=N` runs new ones for so long.

mod cluster;
mod history;
mod model;
mod picture;
mod source;
mod store;
mod streamer;
mod world;

use std::time::{Duration, Instant};

use history::{Outcome, run};

/// How many histories each run of the tests makes.
const HISTORIES: u64 = 100;
/// The last lines of a failure's record that are shown.
const SHOWN: usize = 200;

/// Runs a seed's history and fails with its record if something is not as it must be.
fn check(seed: u64) -> Outcome {
    let outcome = run(seed);
    if let Some(failure) = &outcome.failure {
        let all = std::env::var_os("QUILLBACK_SIMULATION_SEED").is_some();
        let hidden = match all {
            true => 0,
            false => outcome.trace.len().saturating_sub(SHOWN),
        };
        panic!(
            "seed {seed}: {failure}\n\n... {hidden} lines before\n{}\n\nseed {seed}: {failure}\nto run it again: \
             QUILLBACK_SIMULATION_SEED={seed} cargo test --lib stream::simulation",
            outcome.trace[hidden..].join("\n"),
        );
    }
    outcome
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn histories_keep_every_transaction() {
    if let Some(seed) = number_from("QUILLBACK_SIMULATION_SEED") {
        check(seed);
        return;
    }
    let Some(seconds) = number_from("QUILLBACK_SIMULATION_SECONDS") else {
        let (mut archived, mut reseeds) = (0, 0);
        for outcome in (1..=HISTORIES).map(check) {
            archived += outcome.transactions;
            let lines = outcome.trace.iter();
            reseeds += lines.filter(|line| line.contains("reseed: ")).count();
        }
        assert!(archived > 0, "nothing was ever committed");
        assert!(reseeds > 0, "no cluster was ever replaced");
        return;
    };
    let (begun, span) = (Instant::now(), Duration::from_secs(seconds));
    let mut histories = 0_u64;
    while begun.elapsed() < span {
        check(rand::random::<u64>() >> 16);
        histories += 1;
    }
    let line = format!("{histories} histories in {seconds} s\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("is said");
}

#[test]
fn a_seed_is_a_history() {
    for seed in 1_000..1_006 {
        let (once, again) = (run(seed), run(seed));
        let differs = once.trace.iter().zip(&again.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(once.fingerprint, again.fingerprint, "seed {seed}");
    }
}
