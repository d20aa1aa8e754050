//! A target that cannot be had: refused with the code of its reason, on a server that is not
//! touched, and with offers that are good. Each is fed back as it was printed.

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use quillback::archive::catalog::StoredSegment;
use quillback::archive::segment::IndexedTransaction;
use quillback::clock::rfc3339;
use quillback::gtid::GtidSet;
use quillback::stream::StreamOptions;
use quillback_harness::{Replicas, Server, ServerOptions};

use crate::program;
use crate::support::{
    Archive, Streaming, begun, begun_on, chain, exec_all, executed, full, on_primary, snapshot,
    state, stream_once, stream_options, url,
};

/// The offers that a refusal prints, as words of a command line.
fn printed(said: &str) -> Vec<Vec<String>> {
    let Some((_, hint)) = said.split_once("try: ") else {
        return Vec::new();
    };
    let is_target =
        |word: &str| word.starts_with("--until") || word == "--before-gtid" || word == "--branch";
    let mut offers: Vec<Vec<String>> = Vec::new();
    for line in hint.lines() {
        let words = words_of(line);
        let mut at = 0;
        let mut offer = Vec::new();
        while let Some(pair) = words.get(at..at + 2) {
            if !is_target(&pair[0]) {
                break;
            }
            let value = pair[1].trim_end_matches(',').to_owned();
            let goes_on = pair[0] == "--branch";
            offer.extend([pair[0].clone(), value]);
            if !goes_on {
                offers.push(std::mem::take(&mut offer));
            }
            at += 2;
        }
    }
    offers
}

/// The words of a line, as a shell divides them.
fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            letter => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn what_is_printed_is_read_as_a_shell_reads_it() {
    let one = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let said = "error: no\n  try: --until latest, --until 2026-01-01T00:00:00Z, or --wait, which waits\n       \
                --branch 1 --until-gtid 'a:1-2, b:3'  (the same)\n       or without --until\n";
    assert_eq!(
        printed(said),
        [
            one(&["--until", "latest"]),
            one(&["--until", "2026-01-01T00:00:00Z"]),
            one(&["--branch", "1", "--until-gtid", "a:1-2, b:3"]),
        ]
    );
}

/// All of a server that a restore could change.
async fn fingerprint(server: &Server) -> Result<impl PartialEq + std::fmt::Debug + use<>> {
    let state = state(server).await?;
    let accounts: Vec<(String, String)> = server
        .query("SELECT User, Host FROM mysql.user ORDER BY 1, 2")
        .await?;
    let schemas: Vec<String> = server
        .query("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY 1")
        .await?;
    let variables: Vec<(String, String)> = server.query("SHOW GLOBAL VARIABLES").await?;
    let binlogs: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await?;
    Ok((
        state.set,
        state.tables,
        accounts,
        schemas,
        variables,
        binlogs,
    ))
}

/// Asks for what cannot be had, and then for everything that is offered instead. Returns the
/// offers.
async fn refused(
    archive: &Archive,
    server: &Server,
    asked: &[&str],
    code: i32,
) -> Result<Vec<Vec<String>>> {
    let before = fingerprint(server).await?;
    let said = program::restore(archive, server, asked, &[]).await?;
    said.ended(&[code]).with_context(|| format!("{asked:?}"))?;
    ensure!(said.out().is_empty(), "{}", said.out());
    let offers = printed(&said.err());
    for offer in &offers {
        let mut words: Vec<&str> = offer.iter().map(String::as_str).collect();
        words.push("--dry-run");
        let tried = program::restore(archive, server, &words, &[]).await?;
        tried
            .ended(&[0])
            .with_context(|| format!("{asked:?} said {}", said.err()))?;
    }
    ensure!(
        fingerprint(server).await? == before,
        "{asked:?}: it was touched"
    );
    Ok(offers)
}

fn first_words(offers: &[Vec<String>]) -> Vec<&str> {
    offers.iter().map(|offer| offer[0].as_str()).collect()
}

/// A snapshot, a log of a segment for each of five rows, and a snapshot behind the third of them.
struct World {
    archive: Archive,
    long_before: DateTime<Utc>,
}

async fn world() -> Result<World> {
    let long_before = Utc::now() - TimeDelta::hours(1);
    let (source, archive) = begun(ServerOptions::new()).await?;
    for row in 1..=5 {
        let insert = format!("INSERT INTO d.t VALUES ({row})");
        exec_all(&source, &[&insert]).await?;
        stream_once(&archive.repository, &source).await?;
        if row == 3 {
            snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
        }
    }
    Ok(World {
        archive,
        long_before,
    })
}

async fn line(archive: &Archive, segment: &StoredSegment) -> Result<IndexedTransaction> {
    let lines = archive.repository.read_transactions(segment).await?;
    lines.into_iter().next().context("it holds one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_the_window() -> Result<()> {
    let World {
        archive,
        long_before,
    } = world().await?;
    let server = Server::start().await?;
    let early = rfc3339(long_before);
    let offers = refused(&archive, &server, &["--until", &early], 20).await?;
    assert_eq!(first_words(&offers), ["--until"], "the first state");

    let end = chain(&archive.repository).await?.complete_to();
    let end = end.context("it is complete")?;
    let beyond = rfc3339(end + TimeDelta::microseconds(1));
    let offers = refused(&archive, &server, &["--until", &beyond], 20).await?;
    let end = rfc3339(end);
    let both = [["--until", end.as_str()], ["--until", "latest"]];
    assert_eq!(offers, both);

    // Transactions that are none of this archive, or not yet.
    let held = chain(&archive.repository).await?.held();
    let newest = held.iter().last().context("it holds some")?;
    let next: GtidSet = newest
        .to_string()
        .rsplit_once(':')
        .map(|(uuid, number)| {
            let number: u64 = number.parse().unwrap_or_default();
            format!("{uuid}:{}", number + 7)
        })
        .context("a GTID")?
        .parse()?;
    let unknown = format!("{next:#}");
    for asked in [["--until-gtid", &unknown], ["--before-gtid", &unknown]] {
        let offers = refused(&archive, &server, &asked, 20).await?;
        assert_eq!(offers, [["--until", "latest"]]);
    }
    let stranger = "deadbeef-0000-4000-8000-000000000001:1";
    let offers = refused(&archive, &server, &["--until-gtid", stranger], 20).await?;
    assert_eq!(offers, [[""; 0]; 0]);

    // A snapshot that is too young for it.
    let second = archive.repository.snapshots().await?.remove(1);
    let chain = chain(&archive.repository).await?;
    let first = line(&archive, full(&chain)[0]).await?.gtid.to_string();
    let asked = ["--before-gtid", &first, "--snapshot", second.id.as_str()];
    let said = program::restore(&archive, &server, &asked, &[]).await?;
    said.ended(&[20])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_hole() -> Result<()> {
    let World { archive, .. } = world().await?;
    let server = Server::start().await?;
    let chain = chain(&archive.repository).await?;
    let full = full(&chain);
    ensure!(full.len() == 5, "{} segments", full.len());
    for at in 0..4 {
        let copy = archive.copy().await?;
        std::fs::remove_file(copy.file(&full[at].name.key()))?;
        let missing = line(&archive, full[at]).await?;
        let behind = line(&archive, full[at + 1]).await?;
        let inside = rfc3339(missing.time + (behind.time - missing.time) / 2);
        let gtid = missing.gtid.to_string();
        // In the hole; and at the transaction that is missing.
        // The snapshot behind the third row bridges the first three holes.
        let expected = if at < 3 { 2 } else { 1 };
        let offers = refused(&copy, &server, &["--until", &inside], 21).await?;
        assert_eq!(offers.len(), expected, "hole {at}: {offers:?}");
        // Behind the first transaction it is a moment, not a snapshot of long ago.
        let nearest = if at > 0 { "--until" } else { "--until-gtid" };
        assert_eq!(first_words(&offers)[0], nearest, "hole {at}: {offers:?}");
        if at > 0 {
            let asked = ["--before-gtid", gtid.as_str()];
            let offers = refused(&copy, &server, &asked, 21).await?;
            assert_eq!(offers.len(), expected, "hole {at}: {offers:?}");
        }
        if at == 3 {
            let asked = ["--until-gtid", gtid.as_str()];
            let offers = refused(&copy, &server, &asked, 21).await?;
            assert_eq!(offers.len(), expected, "hole {at}: {offers:?}");
            // All that is behind it is out of reach, too.
            let offers = refused(&copy, &server, &["--until", "latest"], 21).await?;
            assert_eq!(offers.len(), expected, "hole {at}: {offers:?}");
        } else {
            // What lies behind the next snapshot is not concerned.
            let asked = ["--until", "latest", "--dry-run"];
            let said = program::restore(&copy, &server, &asked, &[]).await?;
            said.ended(&[0])?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_or_cut_short() -> Result<()> {
    let World { archive, .. } = world().await?;
    let server = Server::start().await?;
    let chain = chain(&archive.repository).await?;
    let key = full(&chain)[2].name.key();
    let whole = std::fs::read(archive.file(&key))?;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (what, bytes) in [
        ("its index flipped", flipped(100)),
        ("empty", Vec::new()),
        ("half of it", whole[..whole.len() / 2].to_vec()),
    ] {
        let copy = archive.copy().await?;
        let path = copy.file(&key);
        std::fs::remove_file(&path)?;
        std::fs::write(&path, bytes)?;
        refused(&copy, &server, &["--until", "latest"], 22)
            .await
            .context(what)?;
    }
    // A snapshot's manifest, and the file of accounts, which a plan reads.
    let manifest = archive.repository.snapshots().await?.remove(1);
    let accounts = manifest.accounts.file.key.to_string();
    for name in ["manifest.json", accounts.as_str()] {
        let copy = archive.copy().await?;
        let path = copy.file(&format!("snapshots/{}/{name}", manifest.id));
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&path)?;
        std::fs::write(&path, bytes)?;
        refused(&copy, &server, &["--until", "latest"], 22)
            .await
            .context(name.to_owned())?;
    }
    Ok(())
}

/// What a failover lost is in the history that still has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_another_branch() -> Result<()> {
    let servers = Replicas::start(1).await?;
    let (source, replica) = (servers.source(), &servers.replicas()[0]);
    let archive = begun_on(source).await?;
    exec_all(source, &["INSERT INTO d.t VALUES (1)"]).await?;
    servers.wait_caught_up().await?;
    replica.exec("STOP REPLICA").await?;
    let shared = executed(source).await?;
    exec_all(source, &["INSERT INTO d.t VALUES (2)"]).await?;
    let lost = executed(source).await?.subtract(&shared);
    stream_once(&archive.repository, source).await?;
    servers.promote(replica).await?;
    exec_all(replica, &["INSERT INTO d.t VALUES (3)"]).await?;
    let options = StreamOptions {
        once: true,
        new_branch: Some(lost.clone()),
        ..stream_options()
    };
    Streaming::start(&archive.repository, vec![url(replica)], options)
        .join()
        .await?;

    let server = Server::start().await?;
    let lost = format!("{lost:#}");
    for asked in ["--until-gtid", "--before-gtid"] {
        let offers = refused(&archive, &server, &[asked, &lost], 20).await?;
        assert_eq!(
            first_words(&offers),
            ["--until-gtid", "--branch"],
            "{offers:?}"
        );
        assert_eq!(offers[1], ["--branch", "1", asked, &lost]);
    }
    let unknown = ["--until", "latest", "--branch", "9"];
    refused(&archive, &server, &unknown, 20).await?;
    Ok(())
}
