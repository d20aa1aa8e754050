//! Which server is followed: a replica that was made the source, and a secondary on demand.

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::{primary_of, writable_of};
use quillback_harness::{Ledger, Replicas, Server, Trio};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::gtid_executed;
use crate::place::{LIMIT, Place};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_goes_on_from_the_replica_that_was_promoted() -> Result<()> {
    let servers = Replicas::start(2).await?;
    let place = Place::folder().await?;
    let streamer = place.stream(&servers.urls(), &["--flush-interval", "200ms"])?;
    ensure!(streamer.following().await? == servers.source().address());
    let mut ledger = Ledger::start(writable_of(servers.urls())).await?;
    ledger.wait_acknowledged(100, LIMIT).await?;
    {
        // Without semi-sync only what the replicas have survives the source.
        let _paused = ledger.pause().await;
        servers.wait_caught_up().await?;
        servers.source().kill9().await?;
    }
    let chosen = &servers.replicas()[1];
    servers.promote(chosen).await?;
    ensure!(streamer.following().await? == chosen.address());
    ledger.wait_acknowledged(100, LIMIT).await?;
    ledger.stop().await;
    place
        .wait_holds(&streamer, &gtid_executed(chosen).await?)
        .await?;
    streamer.stop().await?.is(0);
    audit(&place.repository, &ledger).await?;
    check_by_hand(&place.repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_is_followed_as_long_as_it_is_one() -> Result<()> {
    let trio = Trio::start().await?;
    let place = Place::folder().await?;
    let flags = ["--from", "secondary", "--flush-interval", "500ms"];
    let streamer = place.stream(&trio.urls(), &flags)?;
    let mut followed = secondary(&trio, &streamer.following().await?).await?;
    let mut ledger = Ledger::start(primary_of(trio.finder())).await?;
    ledger.wait_acknowledged(50, LIMIT).await?;

    // It becomes the primary.
    trio.set_primary(followed).await?;
    followed = secondary(&trio, &streamer.following().await?).await?;
    ledger.wait_acknowledged(50, LIMIT).await?;

    // It dies.
    followed.kill9().await?;
    let next = secondary(&trio, &streamer.following().await?).await?;
    ensure!(next.port() != followed.port());
    ledger.wait_acknowledged(50, LIMIT).await?;
    trio.rejoin(followed, 3).await?;

    // Its primary dies: it may be the next one, and then the other is followed.
    let primary = trio.primary().await?;
    primary.kill9().await?;
    trio.wait_failover(primary).await?;
    trio.rejoin(primary, 3).await?;
    ledger.wait_acknowledged(50, LIMIT).await?;
    ledger.stop().await;
    let executed = gtid_executed(trio.primary().await?).await?;
    place.wait_holds(&streamer, &executed).await?;
    streamer.stop().await?.is(0);
    audit(&place.repository, &ledger).await?;
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// The member of this address, which must be a secondary.
async fn secondary<'a>(trio: &'a Trio, address: &str) -> Result<&'a Server> {
    let secondaries = trio.secondaries().await?;
    let found = secondaries
        .into_iter()
        .find(|server| server.address() == address);
    found.with_context(|| format!("{address} is followed, which is no secondary"))
}
