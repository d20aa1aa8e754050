//! A group whose primary dies while it is being followed.

use std::time::Duration;

use anyhow::{Result, ensure};
use quillback::archive::layout::BranchNumber;
use quillback_harness::Trio;

use crate::writes::{self, Writer};
use crate::{Running, archived, check_by_hand, gtid_executed, new_archive, once};

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
    quillback_harness::until("the archive", Duration::from_secs(90), async || {
        ensure!(!running.task.is_finished(), "the stream has ended");
        let end = repository
            .chain(BranchNumber(1))
            .await?
            .end()
            .unwrap_or_default();
        ensure!(
            end.is_superset(&executed),
            "{:#} is missing",
            executed.subtract(&end)
        );
        Ok(Some(()))
    })
    .await?;
    let report = running.stop().await?;
    ensure!(report.gtid_set == executed, "{:#}", report.gtid_set);

    let transactions = archived(&repository).await?;
    ensure!(transactions.len() >= marks.len());
    for mark in &marks {
        let holding = transactions
            .iter()
            .filter(|(_, bytes)| memchr::memmem::find(bytes, mark.as_bytes()).is_some());
        ensure!(holding.count() == 1, "{mark} is not there exactly once");
    }
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
