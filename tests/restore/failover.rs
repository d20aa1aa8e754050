//! A group whose primary dies while money moves and the stream runs.

use anyhow::{Result, ensure};
use quillback::gtid::GtidSet;
use quillback::restore::target::Target;
use quillback::snapshot::SnapshotOptions;
use quillback::stream::StreamEvent;
use quillback_harness::ledger::{Cut, primary_of};
use quillback_harness::{Ledger, Server, Trio};

use crate::support::{
    Archive, LIMIT, Streaming, assert_restored, chain, executed, request, restore, snapshot, state,
    stream_options, url, wait_archived,
};

/// How a primary goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// At once, with its connections.
    Killed,
    /// It stops where it is: connections stay open and say nothing more.
    Paused,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_transfer_is_lost_when_the_primary_dies() -> Result<()> {
    fail_over(Gone::Killed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_transfer_is_lost_when_the_primary_hangs() -> Result<()> {
    fail_over(Gone::Paused).await
}

async fn fail_over(how: Gone) -> Result<()> {
    let trio = Trio::start().await?;
    let mut ledger = Ledger::start(primary_of(trio.finder())).await?;
    let archive = Archive::new().await?;
    let repository = &archive.repository;
    // Any one member is enough to find the others.
    let first = trio.primary().await?;
    let known = trio.secondaries().await?;
    let streaming = Streaming::start(repository, vec![url(known[0])], stream_options());
    let report = snapshot(repository, &[url(known[0])], &SnapshotOptions::default()).await?;
    assert_ne!(report.server.to_string(), first.address());
    ledger.wait_acknowledged(30, LIMIT).await?;
    wait_archived(repository, &report.gtid_executed).await?;

    match how {
        Gone::Killed => first.kill9().await?,
        Gone::Paused => first.pause()?,
    }
    let second = trio.wait_failover(first).await?;
    ledger.wait_acknowledged(50, LIMIT).await?;
    let name = second.address();
    streaming
        .wait_for(
            "the new primary to be followed",
            |event| matches!(event, StreamEvent::Following { server, .. } if *server == name),
        )
        .await?;

    if how == Gone::Paused {
        first.resume()?;
    }
    ledger.stop().await;
    let end: GtidSet = executed(second).await?;
    wait_archived(repository, &end).await?;
    let end = state(second).await?;
    let report = streaming.stop().await?;
    ensure!(report.gtid_set.is_superset(&end.set), "{report:?}");
    let chain = chain(repository).await?;
    assert_eq!(chain.problems, []);
    let mut sources: Vec<_> = chain
        .segments
        .iter()
        .filter_map(|segment| segment.index.source.as_ref().map(|source| source.uuid))
        .collect();
    sources.dedup();
    assert_eq!(sources.len(), 2, "one turn from the old to the new primary");

    let server = Server::start().await?;
    let report = restore(repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &end).await?;
    let mut conn = server.conn().await?;
    let report = ledger.check(&mut conn, &Cut::Everything).await?;
    ensure!(report.present >= 80, "{report:?}");
    assert_eq!(report.sum, 50 * 1000);
    conn.disconnect().await?;
    Ok(())
}
