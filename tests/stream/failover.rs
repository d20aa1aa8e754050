//! A group whose primary dies while it is being followed.

use std::time::Duration;

use anyhow::{Result, ensure};
use quillback::archive::layout::BranchNumber;
use quillback::archive::repository::Repository;
use quillback::gtid::GtidSet;
use quillback_harness::Trio;

use crate::by_hand::check_by_hand;
use crate::writes::{self, Writer};
use crate::{Running, archived, gtid_executed, new_archive, once};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_follows_a_failover_without_losing_a_commit() -> Result<()> {
    let trio = Trio::start().await?;
    let servers = trio.urls();
    let repository = new_archive().await?;
    once(&repository, &servers).await?;
    let old = trio.primary().await?;
    writes::prepare(old).await?;
    let running = Running::start(&repository, &servers)?;
    let writer = Writer::start("failover", servers.clone());
    writer.wait_for(200).await?;
    old.kill9().await?;
    let new = trio.wait_failover(old).await?;
    writer.wait_for(200).await?;
    // And back, in peace: the old one returns and is made the primary again.
    trio.rejoin(old, 3).await?;
    trio.set_primary(old).await?;
    writer.wait_for(100).await?;
    let marks = writer.stop().await?;

    let executed = gtid_executed(old).await?.union(&gtid_executed(new).await?);
    wait_until_archived(&repository, &running, &executed).await?;
    let report = running.stop().await?;
    ensure!(report.gtid_set == executed, "{:#}", report.gtid_set);

    check_marks(&repository, &marks).await?;
    let chain = repository.chain(BranchNumber(1)).await?;
    let sources: std::collections::BTreeSet<_> = chain
        .segments
        .iter()
        .filter_map(|segment| segment.index.source.as_ref().map(|source| source.uuid))
        .collect();
    ensure!(sources.len() >= 2, "only one server was followed");
    check_by_hand(&repository).await?;
    Ok(())
}

/// A primary that hangs keeps its connections open and says nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_leaves_a_primary_that_hangs() -> Result<()> {
    let trio = Trio::start().await?;
    let servers = trio.urls();
    let repository = new_archive().await?;
    once(&repository, &servers).await?;
    let old = trio.primary().await?;
    writes::prepare(old).await?;
    let running = Running::start(&repository, &servers)?;
    let writer = Writer::start("pause", servers.clone());
    writer.wait_for(100).await?;
    old.pause()?;
    let new = trio.wait_failover(old).await?;
    writer.wait_for(100).await?;
    let marks = writer.stop().await?;
    let executed = gtid_executed(new).await?;
    let outcome = wait_until_archived(&repository, &running, &executed).await;
    old.resume()?;
    outcome?;
    // The one that comes back is not followed as if it were the primary.
    new.exec("INSERT INTO shop.page (mark) VALUES ('after')")
        .await?;
    let executed = gtid_executed(new).await?;
    wait_until_archived(&repository, &running, &executed).await?;
    running.stop().await?;
    check_marks(&repository, &marks).await
}

async fn wait_until_archived(
    repository: &Repository,
    running: &Running,
    executed: &GtidSet,
) -> Result<()> {
    quillback_harness::until("the archive", Duration::from_secs(90), async || {
        ensure!(!running.task.is_finished(), "the stream has ended");
        let chain = repository.chain(BranchNumber(1)).await?;
        let end = chain.end().unwrap_or_default();
        let missing = executed.subtract(&end);
        ensure!(missing.is_empty(), "{missing:#} is missing");
        Ok(Some(()))
    })
    .await
}

/// Every acknowledged write is in exactly one transaction of the archive.
async fn check_marks(repository: &Repository, marks: &[String]) -> Result<()> {
    let transactions = archived(repository).await?;
    ensure!(transactions.len() >= marks.len());
    for mark in marks {
        let holding = transactions
            .iter()
            .filter(|(_, bytes)| memchr::memmem::find(bytes, mark.as_bytes()).is_some());
        ensure!(holding.count() == 1, "{mark} is not there exactly once");
    }
    Ok(())
}
