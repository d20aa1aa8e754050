//! Twenty failovers of a group under load, with one streamer that stays up through all of them.
//!
//! The seed of a run is fixed, so that it can be told by its name; `QUILLBACK_TEST_SEED` takes another.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::{LedgerOptions, primary_of};
use quillback_harness::{Ledger, Random, Server, Trio};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::gtid_executed;
use crate::place::{LIMIT, Place, Streamer};

/// How the group loses its primary.
#[derive(Debug, Clone, Copy)]
enum Failover {
    /// SIGKILL; it is started again and rejoins.
    Kill,
    /// group_replication_set_as_primary.
    Elect,
    /// All three members are restarted, one after the other, each after it has handed on the primary's role.
    Restart,
}

use Failover::{Elect, Kill, Restart};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_failovers_lose_and_double_nothing() -> Result<()> {
    survive(1, [Kill, Kill, Kill, Elect, Elect, Elect, Restart]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_more_failovers_lose_and_double_nothing() -> Result<()> {
    survive(2, [Kill, Kill, Kill, Elect, Elect, Elect, Restart]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_six_of_twenty_failovers_lose_and_double_nothing() -> Result<()> {
    survive(3, [Kill, Kill, Kill, Elect, Elect, Restart]).await
}

async fn survive<const N: usize>(number: u64, mut failovers: [Failover; N]) -> Result<()> {
    let seed = match std::env::var("QUILLBACK_TEST_SEED") {
        Ok(seed) => seed.parse().context("QUILLBACK_TEST_SEED")?,
        Err(_) => 20_261_121,
    };
    let mut random = Random::new(seed + number);
    random.shuffle(&mut failovers);

    let trio = Trio::start().await?;
    let place = Place::folder().await?;
    let streamer = place.stream(&trio.urls(), &["--flush-interval", "500ms"])?;
    streamer.following().await?;
    let options = LedgerOptions {
        pause: Duration::from_millis(20),
        ..LedgerOptions::default()
    };
    let mut ledger = Ledger::start_with(primary_of(trio.finder()), options).await?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    for (round, failover) in failovers.into_iter().enumerate() {
        let done = async {
            fail(&trio, &mut random, failover).await?;
            ledger.wait_acknowledged(20, LIMIT).await?;
            check(&trio, &place, &streamer, &ledger).await
        };
        done.await.with_context(|| {
            format!("failover {round} of {failovers:?}, {failover:?}, with seed {seed}")
        })?;
    }
    ledger.stop().await;
    check(&trio, &place, &streamer, &ledger).await?;
    streamer.stop().await?.is(0);
    let chain = place.chain().await?;
    let epochs: Vec<_> = chain.segments.iter().map(|s| s.name.epoch.0).collect();
    ensure!(
        epochs.iter().all(|epoch| *epoch == 1),
        "one streamer did all of it: {epochs:?}"
    );
    check_by_hand(&place.repository).await?;
    Ok(())
}

async fn fail(trio: &Trio, random: &mut Random, failover: Failover) -> Result<()> {
    match failover {
        Kill => {
            let primary = trio.primary().await?;
            primary.kill9().await?;
            trio.wait_failover(primary).await?;
            trio.rejoin(primary, 3).await
        }
        Elect => {
            let secondaries = trio.secondaries().await?;
            let next = random.pick::<&Server>(&secondaries);
            trio.set_primary(next).await
        }
        Restart => {
            let mut members: Vec<&Server> = trio.members().iter().collect();
            random.shuffle(&mut members);
            for member in members {
                // As an operator does: a primary that is shut down amid commits waits a minute for those that nobody
                // certifies any more.
                if trio.primary().await?.port() == member.port() {
                    let secondaries = trio.secondaries().await?;
                    trio.set_primary(random.pick::<&Server>(&secondaries))
                        .await?;
                }
                member.stop().await?;
                trio.wait_online(2).await?;
                trio.rejoin(member, 3).await?;
            }
            Ok(())
        }
    }
}

/// While nothing is written: the archive holds what the primary does, and what the ledger was told.
async fn check(trio: &Trio, place: &Place, streamer: &Streamer, ledger: &Ledger) -> Result<()> {
    let _paused = ledger.pause().await;
    let executed = gtid_executed(trio.primary().await?).await?;
    place.wait_holds(streamer, &executed).await?;
    audit(&place.repository, ledger).await?;
    Ok(())
}
