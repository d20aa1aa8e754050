//! A group whose primary dies while money moves and the stream runs.

use anyhow::{Context as _, Result, ensure};
use quillback::archive::catalog::{Chain, StoredSegment};
use quillback::archive::repository::Repository;
use quillback::gtid::GtidSet;
use quillback::restore::prepare;
use quillback::restore::target::Target;
use quillback::snapshot::SnapshotOptions;
use quillback::stream::StreamEvent;
use quillback_harness::ledger::{Cut, primary_of};
use quillback_harness::{Ledger, Server, Trio};

use crate::support::{
    Archive, LIMIT, Streaming, assert_restored, chain, executed, full, request, restore, snapshot,
    state, stream_options, url, wait_archived,
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
    the_edge_is_told(repository, &chain, &server).await?;
    let report = restore(repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &end).await?;
    let mut conn = server.conn().await?;
    let report = ledger.check(&mut conn, &Cut::Everything).await?;
    ensure!(report.present >= 80, "{report:?}");
    assert_eq!(report.sum, 50 * 1000);
    conn.disconnect().await?;
    Ok(())
}

/// Between the last transaction of the old primary and the first one of the new the clock is another
/// one: the plan says so, and both ways to name the place lead to the same cut.
async fn the_edge_is_told(repository: &Repository, chain: &Chain, server: &Server) -> Result<()> {
    let full = full(chain);
    let source = |segment: &StoredSegment| segment.index.source.as_ref().map(|s| s.uuid);
    let at = full
        .windows(2)
        .position(|pair| source(pair[0]) != source(pair[1]))
        .context("no segment of the new primary")?;
    let (old, new) = (full[at], full[at + 1]);
    let last = repository.read_transactions(old).await?;
    let last = last.last().context("it is full")?;
    let first = repository.read_transactions(new).await?.remove(0);
    let gtid = first.gtid.clone();
    let asked = request(Target::BeforeGtid { gtid }, server);
    let plan = prepare(repository.clone(), asked).await?.plan;
    let edges = (plan.cut.last_in, plan.cut.first_out);
    let (Some(last_in), Some(first_out)) = edges else {
        anyhow::bail!("{edges:?}");
    };
    assert_eq!((&last_in.gtid, &first_out.gtid), (&last.gtid, &first.gtid));
    assert_eq!(
        (last_in.source, first_out.source),
        (source(old), source(new))
    );
    let told = |remark: &String| remark.contains("the source changed");
    ensure!(plan.remarks.iter().any(told), "{:?}", plan.remarks);
    let set = plan.result;
    let asked = request(Target::UntilGtid { set: set.clone() }, server);
    let same = prepare(repository.clone(), asked).await?.plan;
    assert_eq!(same.result, set);
    if first.time > last.time {
        let moment = last.time;
        let asked = request(Target::Until { moment }, server);
        let by_time = prepare(repository.clone(), asked).await?.plan;
        assert_eq!(by_time.result, set);
    }
    Ok(())
}
