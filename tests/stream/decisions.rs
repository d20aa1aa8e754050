//! Histories that a person has to decide on: what the operator reads, and what a decision does.

use anyhow::{Context as _, Result, bail, ensure};
use quillback::gtid::GtidSet;
use quillback_harness::ledger::fixed;
use quillback_harness::{Ledger, Server};

use crate::audit::audit;
use crate::gtid_executed;
use crate::place::{LIMIT, Place};

/// Purges every binlog file but one that holds nothing yet; gives what is gone.
pub(crate) async fn purge(server: &Server) -> Result<GtidSet> {
    server.exec("FLUSH BINARY LOGS").await?;
    let last = newest_binlog(server).await?;
    server
        .exec(&format!("PURGE BINARY LOGS TO '{last}'"))
        .await?;
    let purged: String = server.one("SELECT @@GLOBAL.gtid_purged").await?;
    Ok(purged.parse()?)
}

/// The name of the file that is being written.
pub(crate) async fn newest_binlog(server: &Server) -> Result<String> {
    let files: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await?;
    let (last, ..) = files.into_iter().next_back().context("a file")?;
    Ok(last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_has_purged_what_the_archive_lacks_is_refused() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let place = Place::folder().await?;
    let streamer = place.stream(&servers, &["--flush-interval", "200ms"])?;
    streamer.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    ledger.wait_acknowledged(30, LIMIT).await?;
    streamer.stop().await?.is(0);
    audit_prefix(&place).await?;
    let held = place.chain().await?.end().context("a chain")?;
    ledger.wait_acknowledged(30, LIMIT).await?;
    ledger.stop().await;
    let lost = purge(&server).await?.subtract(&held);
    ensure!(!lost.is_empty());

    for arguments in [
        &["stream"][..],
        &["stream", "--once"],
        &["stream", "--dry-run"],
    ] {
        let ended = place
            .run(&servers, &[&["--json"], arguments].concat())
            .await?;
        ended.is(21);
        ensure!(
            ended.err
                == format!(
                    "error: {} has purged transactions that the archive lacks: {lost:#}\n  \
                     try: a server that still has them (--server); else quillback snapshot, and then \
                     stream --accept-gap '{lost:#}', which records for ever that they are lost\n",
                    server.address()
                ),
            "{}",
            ended.err
        );
    }
    // Nothing of that took the archive from anybody.
    ensure!(
        place
            .repository
            .newest_epoch(None)
            .await?
            .map(|epoch| epoch.0)
            == Some(1)
    );
    Ok(())
}

/// The same transactions on both, and then one GTID with two meanings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lacks_what_the_archive_holds_is_refused() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let place = Place::folder().await?;
    let streamer = place.stream(&servers, &["--flush-interval", "200ms"])?;
    streamer.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    ledger.wait_acknowledged(30, LIMIT).await?;
    ledger.stop().await;
    let executed = gtid_executed(&server).await?;
    place.wait_holds(&streamer, &executed).await?;
    streamer.stop().await?.is(0);
    audit(&place.repository, &ledger).await?;

    // Another server, as after a restore that stopped short.
    let restored = Server::start().await?;
    let ended = place.run(&[restored.url()], &["--json", "stream"]).await?;
    ended.is(23);
    ensure!(
        ended.err
            == format!(
                "error: the archive holds transactions that {} does not have: {executed:#}\n  \
                 try: the right server (--server), or one that has them; else, if the cluster goes on \
                 without them, stream --new-branch '{executed:#}', which starts a new history and \
                 leaves them in the old one\n",
                restored.address()
            ),
        "{}",
        ended.err
    );
    Ok(())
}

async fn audit_prefix(place: &Place) -> Result<()> {
    let chain = place.chain().await?;
    if chain.problems.is_empty() {
        return Ok(());
    }
    bail!("{:?}", chain.problems)
}
