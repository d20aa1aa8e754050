//! A commit that has returned is in the archive, although its server died the moment after.

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::{LedgerOptions, fixed};
use quillback_harness::{Ledger, Minio, Proxy, Server, ServerOptions, until};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::decisions::newest_binlog;
use crate::place::{LIMIT, Place, Streamer};

/// In how many rounds the servers die. Each ends the commits of eight writers at whatever point they are.
const ROUNDS: usize = 12;

/// A source that lets no commit return before one replica has acknowledged it.
pub(crate) async fn source() -> Result<Server> {
    let lines = [
        "plugin_load_add=semisync_source.so",
        "rpl_semi_sync_source_enabled=ON",
        "rpl_semi_sync_source_wait_for_replica_count=1",
        "rpl_semi_sync_source_wait_point=AFTER_SYNC",
        "rpl_semi_sync_source_wait_no_replica=ON",
        "rpl_semi_sync_source_timeout=3600000",
    ];
    let options = lines
        .into_iter()
        .fold(ServerOptions::new(), ServerOptions::line);
    Server::start_with(options).await
}

fn writers() -> LedgerOptions {
    LedgerOptions {
        writers: 8,
        ..LedgerOptions::default()
    }
}

/// Waits until the source counts it among its semi-sync replicas.
pub(crate) async fn acknowledging(server: &Server, streamer: &Streamer) -> Result<()> {
    until("a semi-sync replica", LIMIT, async || {
        ensure!(streamer.is_alive(), "{}", streamer.stderr());
        let status: Vec<(String, String)> = server
            .query("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_clients'")
            .await?;
        Ok((status.first().is_some_and(|(_, count)| count != "0")).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_in_the_archive_when_the_source_dies() -> Result<()> {
    let server = source().await?;
    let servers = [server.url()];
    let place = Place::folder().await?;
    let stream = ["--flush-interval", "50ms", "--semi-sync", "archive"];
    let mut streamer = place.stream(&servers, &stream)?;
    acknowledging(&server, &streamer).await?;
    let mut ledger = Ledger::start_with(fixed(&server.url()), writers()).await?;
    for round in 0..ROUNDS {
        ledger.wait_acknowledged(25, LIMIT).await?;
        server.kill9().await?;
        // In every other round nobody is left who could make it good afterwards.
        if round % 2 == 0 {
            streamer.kill().await?;
        }
        {
            let _paused = ledger.pause().await;
            audit(&place.repository, &ledger)
                .await
                .with_context(|| format!("round {round}"))?;
        }
        server.start_again().await?;
        if round % 2 == 0 {
            streamer = place.take_over(&servers, &stream).await?;
        }
        acknowledging(&server, &streamer).await?;
    }
    ledger.wait_acknowledged(25, LIMIT).await?;
    ledger.stop().await;
    audit(&place.repository, &ledger).await?;
    streamer.stop().await?.is(0);
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// The store is away all the time, and the source forgets what it has sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_in_the_spool_when_the_source_dies() -> Result<()> {
    let minio = Minio::start().await?;
    let endpoint = minio.endpoint();
    let target = endpoint.strip_prefix("http://").context("an endpoint")?;
    let proxy = Proxy::start(target).await?;
    let place = Place::bucket(&minio, &proxy.url(&endpoint)).await?;
    let server = source().await?;
    let servers = [server.url()];
    let spool = place.path("spool").display().to_string();
    let stream = [
        "--flush-interval",
        "50ms",
        "--semi-sync",
        "spool",
        "--spool-dir",
        &spool,
    ];
    let mut streamer = place.stream(&servers, &stream)?;
    acknowledging(&server, &streamer).await?;
    let mut ledger = Ledger::start_with(fixed(&server.url()), writers()).await?;
    for round in 0..4 {
        ledger.wait_acknowledged(20, LIMIT).await?;
        proxy.cut().await;
        ledger.wait_acknowledged(100, LIMIT).await?;
        // What is in the files before this one has been acknowledged: a rotation waits for the commits under way.
        server.exec("FLUSH BINARY LOGS").await?;
        let kept = newest_binlog(&server).await?;
        ledger.wait_acknowledged(30, LIMIT).await?;
        server.kill9().await?;
        streamer.kill().await?;
        let paused = ledger.pause().await;
        server.start_again().await?;
        server
            .exec(&format!("PURGE BINARY LOGS TO '{kept}'"))
            .await?;
        proxy.restore().await;
        streamer = place.take_over(&servers, &stream).await?;
        acknowledging(&server, &streamer).await?;
        place
            .wait_holds(&streamer, &crate::gtid_executed(&server).await?)
            .await?;
        audit(&place.repository, &ledger)
            .await
            .with_context(|| format!("round {round}"))?;
        drop(paused);
    }
    ledger.stop().await;
    streamer.stop().await?.is(0);
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// A spool that is full makes the source wait, and nothing else: once the store is back, it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_while_the_spool_is_full() -> Result<()> {
    let minio = Minio::start().await?;
    let endpoint = minio.endpoint();
    let target = endpoint.strip_prefix("http://").context("an endpoint")?;
    let proxy = Proxy::start(target).await?;
    let place = Place::bucket(&minio, &proxy.url(&endpoint)).await?;
    let server = source().await?;
    let servers = [server.url()];
    let spool = place.path("spool").display().to_string();
    let stream = [
        "--flush-interval",
        "50ms",
        "--semi-sync",
        "spool",
        "--spool-size",
        "300KiB",
        "--spool-dir",
        &spool,
    ];
    let streamer = place.stream(&servers, &stream)?;
    acknowledging(&server, &streamer).await?;
    let mut ledger = Ledger::start_with(fixed(&server.url()), writers()).await?;
    for round in 0..2 {
        ledger.wait_acknowledged(50, LIMIT).await?;
        proxy.cut().await;
        let more = ledger
            .wait_acknowledged(20_000, std::time::Duration::from_secs(20))
            .await;
        ensure!(more.is_err(), "nothing waited in round {round}");
        proxy.restore().await;
        ledger
            .wait_acknowledged(500, LIMIT)
            .await
            .with_context(|| format!("round {round}: {}", streamer.stderr()))?;
    }
    ledger.stop().await;
    place
        .wait_holds(&streamer, &crate::gtid_executed(&server).await?)
        .await?;
    audit(&place.repository, &ledger).await?;
    streamer.stop().await?.is(0);
    let left: u64 = walk(&place.path("spool"))?;
    ensure!(left == 0, "{left} bytes are left in the spool");
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// Bytes of the files below a folder.
fn walk(folder: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => walk(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(bytes)
}

/// A run that cannot acknowledge takes the archive from nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_waits_for_nobody_is_refused_before_the_claim() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    let plugin = "the plugin is not there; it needs INSTALL PLUGIN";
    let switch = "it is switched off; it needs SET PERSIST rpl_semi_sync_source_enabled = ON";
    for reason in [plugin, switch] {
        for more in [None, Some("--dry-run")] {
            let mut arguments = vec!["stream", "--once", "--semi-sync", "archive"];
            arguments.extend(more);
            let ended = place.run(&servers, &arguments).await?;
            ended.is(23);
            ensure!(ended.err.contains(reason), "{}", ended.err);
            ensure!(place.repository.newest_epoch(None).await?.is_none());
        }
        if reason == plugin {
            let install = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'";
            server.exec(install).await?;
        }
    }
    Ok(())
}
