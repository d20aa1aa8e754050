//! Transactions larger than a segment, and streams that die in the middle of one.

use anyhow::{Result, ensure};
use quillback::restore::target::Target;
use quillback::stream::StreamOptions;
use quillback_harness::{Proxy, Server, until};

use crate::support::{
    Archive, LIMIT, Streaming, assert_restored, chain, exec_all, on_primary, request, restore,
    snapshot, state, stream_once, stream_options, url, wait_archived,
};

const LARGE: &str = "INSERT INTO d.t (pad) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 990) \
     SELECT CONCAT(RANDOM_BYTES(1024), RANDOM_BYTES(1024), RANDOM_BYTES(1024), RANDOM_BYTES(1024)) FROM n";

async fn source() -> Result<Server> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, pad BLOB)",
        ],
    )
    .await?;
    Ok(source)
}

/// Whether the log ends inside a transaction, after at least `parts` parts of it.
async fn dangling(archive: &Archive, parts: usize) -> Result<bool> {
    let chain = chain(&archive.repository).await?;
    let open = chain
        .segments
        .iter()
        .rev()
        .take_while(|s| s.index.part.as_ref().is_some_and(|part| part.unfinished));
    Ok(open.count() >= parts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_died_inside_a_transaction_is_gone_on_from() -> Result<()> {
    let source = source().await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    // The network is so slow that the transaction is under way for long.
    let proxy = Proxy::start(&source.address()).await?;
    for round in 0..2 {
        exec_all(&source, &["INSERT INTO d.t (pad) VALUES ('small')", LARGE]).await?;
        proxy.throttle(Some(1 << 20));
        let through = proxy.url(&source.url()).parse()?;
        let streaming = Streaming::start(&archive.repository, vec![through], stream_options());
        until("parts of the transaction", LIMIT, async || {
            Ok(dangling(&archive, 2 + round).await?.then_some(()))
        })
        .await?;
        streaming.kill().await;
        ensure!(dangling(&archive, 1).await?, "the log ends inside");

        // What is whole is restorable meanwhile.
        let end = chain(&archive.repository).await?.end().unwrap_or_default();
        ensure!(end != state(&source).await?.set);
    }
    let server = Server::start().await?;
    let report = restore(&archive.repository, request(Target::Latest, &server)).await?;
    let rows: u64 = server.one("SELECT COUNT(*) FROM d.t").await?;
    // The second round went on from before the first one's large transaction.
    ensure!(rows % 991 <= 2, "{rows} rows, {report:?}");
    drop(server);

    stream_once(&archive.repository, &source).await?;
    let end = state(&source).await?;
    let chain = chain(&archive.repository).await?;
    assert_eq!(chain.problems, []);
    assert_eq!(chain.end(), Some(end.set.clone()));
    let server = Server::start().await?;
    let report = restore(&archive.repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &end).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_broke_inside_a_transaction_is_made_anew() -> Result<()> {
    let source = source().await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    let proxy = Proxy::start(&source.address()).await?;
    proxy.throttle(Some(1 << 20));
    let through = proxy.url(&source.url()).parse()?;
    let options = StreamOptions {
        segment_bytes: 512 << 10,
        ..stream_options()
    };
    let streaming = Streaming::start(&archive.repository, vec![through], options);
    exec_all(&source, &["INSERT INTO d.t (pad) VALUES ('small')", LARGE]).await?;
    until("parts of the transaction", LIMIT, async || {
        Ok(dangling(&archive, 2).await?.then_some(()))
    })
    .await?;
    proxy.reset_connections().await;
    proxy.throttle(None);
    exec_all(&source, &["INSERT INTO d.t (pad) VALUES ('behind')"]).await?;
    let end = state(&source).await?;
    wait_archived(&archive.repository, &end.set).await?;
    let report = streaming.stop().await?;
    assert_eq!(report.gtid_set, end.set);
    assert_eq!(report.epoch, 1, "it is still the same claim");
    let chain = chain(&archive.repository).await?;
    assert_eq!(chain.problems, []);
    let server = Server::start().await?;
    let report = restore(&archive.repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &end).await
}
