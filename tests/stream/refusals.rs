//! Histories that must not be mended in silence.

use anyhow::{Result, bail, ensure};
use quillback::archive::layout::{BranchNumber, Epoch};
use quillback::error::{Class, Classified as _};
use quillback::stream::StreamError;
use quillback_harness::Server;

use crate::{gtid_executed, new_archive, once, writes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_the_source_has_purged_are_a_gap() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let repository = new_archive().await?;
    writes::prepare(&server).await?;
    once(&repository, &servers).await?;
    let before = gtid_executed(&server).await?;
    server
        .exec("INSERT INTO shop.page (mark) VALUES ('lost')")
        .await?;
    let lost = gtid_executed(&server).await?.subtract(&before);
    server.exec("FLUSH BINARY LOGS").await?;
    let last: (String, u64, String) = server
        .query("SHOW BINARY LOGS")
        .await?
        .pop()
        .unwrap_or_default();
    server
        .exec(&format!("PURGE BINARY LOGS TO '{}'", last.0))
        .await?;
    server
        .exec("INSERT INTO shop.page (mark) VALUES ('there')")
        .await?;
    let claims = repository.newest_epoch(None).await?;
    for _ in 0..2 {
        let refused = once(&repository, &servers).await;
        let Err(error) = refused else {
            bail!("a gap went unnoticed: {refused:?}");
        };
        ensure!(error.class() == Class::Gap, "{error}");
        let StreamError::Gap { missing, .. } = error else {
            bail!("not a gap: {error}");
        };
        ensure!(missing == lost, "{missing:#} is not {lost:#}");
    }
    // A run that is refused takes the archive from nobody.
    ensure!(repository.newest_epoch(None).await? == claims);
    ensure!(claims == Some(Epoch(1)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lacks_what_is_archived_is_a_fork() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let repository = new_archive().await?;
    writes::prepare(&server).await?;
    once(&repository, &servers).await?;
    let archived = repository.chain(BranchNumber(1)).await?.end();
    let version: String = server.one("SELECT VERSION()").await?;
    let reset = if version.starts_with("8.0.") {
        "RESET MASTER"
    } else {
        "RESET BINARY LOGS AND GTIDS"
    };
    server.exec(reset).await?;
    let refused = once(&repository, &servers).await;
    let Err(StreamError::Fork { missing, .. }) = refused else {
        bail!("a fork went unnoticed: {refused:?}");
    };
    ensure!(Some(missing) == archived);
    Ok(())
}
