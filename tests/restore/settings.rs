//! Other ways to run a source, another store.

use std::sync::Arc;

use anyhow::{Result, ensure};
use quillback::mysql::binlog::Checksum;
use quillback::restore::replay::ReplayKind;
use quillback::restore::target::Target;
use quillback::restore::{RestoreRequest, prepare};
use quillback::storage::{S3Config, S3Credentials, S3Storage};
use quillback_harness::{Minio, Server, ServerOptions};

use crate::support::{
    Streaming, assert_restored, begun, chain, exec_all, make, on_primary, request, restore,
    snapshot, state, stream_once, stream_options, url, wait_archived,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_checksums() -> Result<()> {
    let options = ServerOptions::new().line("binlog_checksum=NONE");
    let (source, archive) = begun(options).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (1), (2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    // Changed under way: the setting takes hold with the next file, in the same stream.
    let streaming = Streaming::start(&archive.repository, vec![url(&source)], stream_options());
    for (checksum, row) in [("CRC32", 3), ("NONE", 4), ("CRC32", 5)] {
        exec_all(
            &source,
            &[
                &format!("SET GLOBAL binlog_checksum = {checksum}"),
                &format!("INSERT INTO d.t VALUES ({row})"),
            ],
        )
        .await?;
        let now = state(&source).await?;
        wait_archived(&archive.repository, &now.set).await?;
    }
    let end = state(&source).await?;
    streaming.stop().await?;
    let chain = chain(&archive.repository).await?;
    for checksum in [Checksum::None, Checksum::Crc32] {
        let is = |segment: &&quillback::archive::catalog::StoredSegment| {
            segment.index.checksum == checksum && segment.index.transactions > 0
        };
        ensure!(chain.segments.iter().any(|s| is(&s)), "{checksum:?}");
    }
    let server = Server::start().await?;
    let report = restore(&archive.repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &end).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_in_a_bucket() -> Result<()> {
    let minio = Minio::start().await?;
    minio.create_bucket("backups")?;
    let env: std::collections::HashMap<String, String> = minio.env().into_iter().collect();
    let storage = S3Storage::connect(S3Config {
        endpoint: Some(minio.endpoint()),
        region: Some("us-east-1".to_owned()),
        credentials: Some(S3Credentials {
            access_key_id: env["AWS_ACCESS_KEY_ID"].clone(),
            secret_access_key: env["AWS_SECRET_ACCESS_KEY"].clone(),
        }),
        ..S3Config::new("backups", "cluster/one")
    })
    .await?;
    let repository = make(Arc::new(storage)).await?;
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, pad BLOB)",
            "INSERT INTO d.t (pad) VALUES ('in the snapshot')",
        ],
    )
    .await?;
    snapshot(&repository, &[url(&source)], &on_primary()).await?;
    let streaming = Streaming::start(&repository, vec![url(&source)], stream_options());
    exec_all(
        &source,
        &[
            "INSERT INTO d.t (pad) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
             SELECT RANDOM_BYTES(1000) FROM n",
            "ALTER TABLE d.t ADD COLUMN more INT DEFAULT 1",
        ],
    )
    .await?;
    let end = state(&source).await?;
    wait_archived(&repository, &end.set).await?;
    // The store is away for a while: that is lag, not a failure.
    minio.kill9().await?;
    exec_all(&source, &["INSERT INTO d.t (pad) VALUES ('meanwhile')"]).await?;
    minio.start_again().await?;
    let end = state(&source).await?;
    wait_archived(&repository, &end.set).await?;
    streaming.stop().await?;
    let server = Server::start().await?;
    let report = restore(&repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &end).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_the_number_of_the_source_gets_its_events() -> Result<()> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (1), (2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let end = state(&source).await?;
    let id = source.server_id();
    drop(source);
    for kind in [ReplayKind::Replication, ReplayKind::Sql] {
        let server = Server::start_with(ServerOptions::new().server_id(id)).await?;
        let asked = RestoreRequest {
            replay: kind,
            ..request(Target::Latest, &server)
        };
        let plan = prepare(archive.repository.clone(), asked.clone())
            .await?
            .plan;
        let told = plan
            .remarks
            .iter()
            .any(|remark| remark.contains("server_id"));
        assert_eq!(told, kind == ReplayKind::Replication, "{:?}", plan.remarks);
        let report = restore(&archive.repository, asked).await?;
        assert_restored(&server, &report, &end).await?;
        assert_eq!(server.one::<u32>("SELECT @@GLOBAL.server_id").await?, id);
    }
    Ok(())
}
