//! A source with plain replicas that dies, and the replica that is made the source.

use anyhow::{Result, ensure};
use quillback_harness::ledger::writable_of;
use quillback_harness::{Ledger, Replicas};

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
