//! The end is checked, and told: tables, rows, settings, the report.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::restore::target::Target;
use quillback::restore::{self, RestoreError, RestoreOptions, RestoreRequest, Verify};
use quillback::storage::list_all;
use quillback_harness::Server;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Archive, exec_all, executed, on_primary, request, snapshot, stream_once, url,
};

async fn run(
    archive: &Archive,
    request: RestoreRequest,
    observer: restore::Observer,
) -> Result<restore::RestoreReport, RestoreError> {
    let prepared = restore::prepare(archive.repository.clone(), request).await?;
    let options = RestoreOptions {
        verify: Verify::Checksums,
        ..RestoreOptions::default()
    };
    restore::run(prepared, options, observer, CancellationToken::new()).await
}

fn silent() -> restore::Observer {
    Arc::new(|_| {})
}

const SCHEMA: &[&str] = &[
    "CREATE DATABASE d",
    "CREATE TABLE d.still (id INT PRIMARY KEY, v DOUBLE, t TIMESTAMP(6), j JSON, b BLOB, c CHAR(9))",
    "INSERT INTO d.still VALUES (1, 0.1, '2026-03-29 02:30:00.000001', '{\"a\": [1, 2.5]}', X'00FF0A09', 'ä'), \
     (2, -0.0, NULL, 'null', NULL, '')",
    "CREATE TABLE d.parent (id INT PRIMARY KEY)",
    "CREATE TABLE d.child (id INT PRIMARY KEY, parent INT, \
     FOREIGN KEY (parent) REFERENCES d.parent (id) ON DELETE SET NULL)",
    "INSERT INTO d.parent VALUES (1), (2)",
    "INSERT INTO d.child VALUES (1, 1), (2, 2)",
    "CREATE TABLE d.busy (id INT PRIMARY KEY)",
    "INSERT INTO d.busy VALUES (1)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_replay_left_alone_are_compared() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, SCHEMA).await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "INSERT INTO d.busy VALUES (2)",
            "DELETE FROM d.parent WHERE id = 1",
        ],
    )
    .await?;
    stream_once(&archive.repository, &source).await?;

    let server = Server::start().await?;
    let report = run(&archive, request(Target::Latest, &server), silent()).await?;
    let verified = report.verified.clone().context("nothing was compared")?;
    // The child is changed by the cascade, which is in no binlog before 9.6.
    assert_eq!((verified.equal, verified.rows, verified.changed), (1, 2, 3));
    assert_eq!((report.tables, report.expected_tables), (4, Some(4)));

    // The report is kept, and is what was told.
    let repository = &archive.repository;
    let key = report.kept.clone().context("it was not kept")?;
    let kept = repository.storage().get(&key).await?;
    let kept: serde_json::Value = serde_json::from_slice(&kept)?;
    assert_eq!(kept["server"], server.address());
    assert_eq!(kept["transactions"], 2);
    let phases: Vec<&str> = kept["phases"]
        .as_array()
        .context("no phases")?
        .iter()
        .filter_map(|phase| phase["phase"].as_str())
        .filter(|phase| *phase != "index")
        .collect();
    assert_eq!(phases, ["plan", "load", "replay", "check"]);
    let objects = list_all(&**repository.storage(), "restores/", None).await?;
    assert_eq!(objects.len(), 1);
    Ok(())
}

/// Somebody who does something on the server when all is there and nothing is checked.
fn at_the_check(server: &Arc<Server>, statements: &'static [&'static str]) -> restore::Observer {
    let server = Arc::clone(server);
    Arc::new(move |event| {
        let restore::RestoreEvent::Phase { phase: "check" } = event else {
            return;
        };
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current()
                .block_on(exec_all(&server, statements))
                .expect("root may");
        });
    })
}

/// Somebody writes into the server meanwhile, in ways that GTIDs do not tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_changed_is_found() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, SCHEMA).await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(&source, &["INSERT INTO d.busy VALUES (2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    const UPDATED: &[&str] = &[
        "SET sql_log_bin = 0",
        "UPDATE d.still SET c = 'other' WHERE id = 2",
    ];
    const ADDED: &[&str] = &["SET sql_log_bin = 0", "CREATE TABLE d.surplus (id INT)"];
    const DROPPED: &[&str] = &["SET sql_log_bin = 0", "DROP TABLE d.still"];
    for (statements, word) in [
        (UPDATED, "d.still"),
        (ADDED, "d.surplus"),
        (DROPPED, "missing d.still"),
    ] {
        let server = Arc::new(Server::start().await?);
        let observer = at_the_check(&server, statements);
        let error = run(&archive, request(Target::Latest, &server), observer)
            .await
            .expect_err("it is not what was restored");
        assert_eq!(error.class(), Class::Integrity, "{error}");
        let text = format!("{:#}", anyhow::Error::from(error));
        ensure!(text.contains(word), "{text}");
        // It is marked as unfinished.
        let plain = restore::prepare(archive.repository.clone(), request(Target::Latest, &server))
            .await
            .expect_err("it is unfinished");
        ensure!(plain.to_string().contains("unfinished"), "{plain}");
        let read_only: bool = server.one("SELECT @@GLOBAL.super_read_only").await?;
        ensure!(read_only, "it takes writes");
    }
    Ok(())
}

/// A transaction of somebody else during the restore is more than what was planned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_too_many_is_found() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, SCHEMA).await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    let server = Arc::new(Server::start().await?);
    let observer = at_the_check(&server, &["INSERT INTO d.busy VALUES (77)"]);
    let error = run(&archive, request(Target::Latest, &server), observer)
        .await
        .expect_err("it has one more");
    assert_eq!(error.class(), Class::Integrity, "{error}");
    let uuid = server.uuid().await?;
    let text = format!("{:#}", anyhow::Error::from(error));
    ensure!(text.contains(&uuid), "{text}");
    ensure!(executed(&server).await?.count() > 0, "it is there");
    Ok(())
}
