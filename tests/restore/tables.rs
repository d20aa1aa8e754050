//! Some tables alone, back to a transaction, beside whatever is on the server.

use anyhow::{Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::restore::target::Target;
use quillback_harness::{Server, ServerOptions};

use crate::support::{
    Archive, exec_all, executed, gtids_of, on_primary, only, snapshot, state, stream_once, url,
};
use crate::tables_support::{assert_nothing_left, bring_back, into, looks, plan, tables, truth};

/// A source with two schemas, a snapshot, and a log behind it.
async fn notes(options: ServerOptions) -> Result<(Server, Archive)> {
    let source = Server::start_with(options).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE notes",
            "CREATE TABLE notes.pages (id INT PRIMARY KEY AUTO_INCREMENT, title VARCHAR(80), \
             body TEXT, KEY by_title (title))",
            "INSERT INTO notes.pages (title, body) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL \
             SELECT i + 1 FROM n WHERE i < 500) SELECT CONCAT('page ', i), SHA2(i, 256) FROM n",
            "CREATE TABLE notes.other (id INT PRIMARY KEY, v INT)",
            "INSERT INTO notes.other VALUES (1, 1), (2, 2)",
            "CREATE DATABASE shop",
            "CREATE TABLE shop.pages (id INT PRIMARY KEY, v INT)",
            "INSERT INTO shop.pages VALUES (1, 10), (2, 20)",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "UPDATE notes.pages SET body = 'changed' WHERE id % 3 = 0",
            "DELETE FROM notes.pages WHERE id % 7 = 0",
            "UPDATE notes.pages p JOIN notes.other o ON p.id = o.id SET p.title = 'joined', o.v = 9",
            "INSERT INTO shop.pages VALUES (3, 30)",
            "ALTER TABLE notes.pages ADD COLUMN stars INT NOT NULL DEFAULT 5, ADD KEY by_stars (stars)",
            "UPDATE notes.pages SET stars = 1 WHERE id < 10",
        ],
    )
    .await?;
    Ok((source, archive))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_comes_back_on_the_live_source() -> Result<()> {
    let (source, archive) = notes(ServerOptions::default()).await?;
    let before = looks(&source, "notes", &["pages"]).await?;
    let dropped = only(&gtids_of(&source, &["DROP TABLE notes.pages"]).await?);
    exec_all(&source, &["INSERT INTO notes.other VALUES (7, 7)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let others = state(&source).await?.tables;

    let target = Target::BeforeGtid { gtid: dropped };
    let report = bring_back(&archive, tables(target.clone(), &source, &["notes.pages"])).await?;
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(looks(&source, "notes", &["pages"]).await?, before);
    assert_eq!(
        truth(&archive, target.clone(), "notes", &["pages"]).await?,
        before
    );
    let now = state(&source).await?.tables;
    for (name, sum) in &others {
        ensure!(now.get(name) == Some(sum), "{name} changed");
    }
    assert_eq!(now.len(), others.len() + 1);
    assert_nothing_left(&source).await?;

    // Once more: it is there, and nothing is overwritten.
    let again = plan(&archive, tables(target.clone(), &source, &["notes.pages"])).await;
    let error = again.expect_err("it is taken");
    assert_eq!(error.class(), Class::Refused);
    ensure!(error.to_string().contains("notes.pages already"), "{error}");

    // Into another schema while the live one stays.
    let request = into(target, &source, &["notes.pages"], "notes_before");
    bring_back(&archive, request).await?;
    assert_eq!(looks(&source, "notes_before", &["pages"]).await?, before);
    assert_eq!(looks(&source, "notes", &["pages"]).await?, before);
    assert_nothing_left(&source).await
}
