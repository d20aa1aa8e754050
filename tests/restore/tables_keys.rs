//! Keys of tables that are restored alone: foreign keys without their parents, and what is not exact
//! then; indexes that wait for the rows.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use quillback::observe::fail_point::{FailPoint, FailPoints};
use quillback::restore::parts::{prepare_parts, run_parts};
use quillback::restore::target::Target;
use quillback::restore::{self, RestoreEvent, RestoreOptions};
use quillback_harness::{Server, ServerOptions};
use tokio_util::sync::CancellationToken;

use crate::support::{Archive, exec_all, on_primary, snapshot, stream_once, url};
use crate::tables_support::{assert_nothing_left, bring_back, into, looks, tables, truth};

/// Grandparent, parent and child with cascades; rows of the grandparent go.
async fn family(options: ServerOptions) -> Result<(Server, Archive)> {
    let source = Server::start_with(options).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "USE d",
            "CREATE TABLE shelf (id INT PRIMARY KEY)",
            "CREATE TABLE book (id INT PRIMARY KEY, shelf INT, CONSTRAINT on_shelf FOREIGN KEY \
             (shelf) REFERENCES shelf (id) ON DELETE CASCADE)",
            "CREATE TABLE page (id INT PRIMARY KEY, book INT, n INT, CONSTRAINT of_book FOREIGN KEY \
             (book) REFERENCES book (id) ON DELETE CASCADE ON UPDATE CASCADE)",
            "CREATE TABLE quiet (id INT PRIMARY KEY)",
            "CREATE TABLE child (id INT PRIMARY KEY, q INT, CONSTRAINT of_quiet FOREIGN KEY (q) \
             REFERENCES quiet (id) ON DELETE SET NULL)",
            "INSERT INTO shelf VALUES (1), (2)",
            "INSERT INTO book VALUES (1, 1), (2, 2), (3, 2)",
            "INSERT INTO page VALUES (1, 1, 0), (2, 2, 0), (3, 3, 0)",
            "INSERT INTO quiet VALUES (1)",
            "INSERT INTO child VALUES (1, 1)",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "USE d",
            "INSERT INTO page VALUES (4, 1, 0)",
            "UPDATE page SET book = 2 WHERE id = 4",
            "ALTER TABLE page ADD COLUMN late INT DEFAULT 3",
            "INSERT INTO child VALUES (2, 1)",
            "DELETE FROM shelf WHERE id = 1",
            "UPDATE page SET n = 1",
            "DELETE FROM page WHERE id = 3",
        ],
    )
    .await?;
    stream_once(&archive.repository, &source).await?;
    Ok((source, archive))
}

/// With and without cascades in the binlog.
async fn families() -> Result<[(bool, (Server, Archive)); 2]> {
    let native = ServerOptions::default().line("innodb_native_foreign_keys = ON");
    Ok([
        (true, family(ServerOptions::default()).await?),
        (false, family(native).await?),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_its_parent_is_left_out_and_can_be_put_back() -> Result<()> {
    let (source, archive) = family(ServerOptions::default()).await?;
    let request = into(Target::Latest, &source, &["d.child"], "before");
    let report = bring_back(&archive, request).await?;
    let note = report.notes.iter().find(|note| note.contains("of_quiet"));
    let note = note.expect("it is said");
    ensure!(report.notes.len() == 1, "{:?}", report.notes);
    let keys = "SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS \
                WHERE CONSTRAINT_SCHEMA = 'before'";
    assert_eq!(source.one::<u64>(keys).await?, 0);
    let (_, add) = note.split_once("puts it back: ").expect("the statement");
    exec_all(&source, &[add]).await?;
    assert_eq!(source.one::<u64>(keys).await?, 1);
    let rule: (String, String) = source
        .one(
            "SELECT DELETE_RULE, UNIQUE_CONSTRAINT_SCHEMA \
             FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = 'before'",
        )
        .await?;
    assert_eq!(rule, ("SET NULL".to_owned(), "d".to_owned()));
    assert_nothing_left(&source).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cascades_are_exact_or_the_line_that_would_be_is_said() -> Result<()> {
    for (logged, (source, archive)) in families().await? {
        let names = ["page"];
        let expected = looks(&source, "d", &["shelf", "book", "page"]).await?;
        let whole = truth(&archive, Target::Latest, "d", &["shelf", "book", "page"]).await?;
        assert_eq!(whole, expected, "logged: {logged}");
        // All of the family: exact, whoever cascades.
        let server = Server::start().await?;
        let family = tables(Target::Latest, &server, &["d.shelf", "d.book", "d.page"]);
        let report = bring_back(&archive, family).await?;
        assert_eq!(report.notes, Vec::<String>::new(), "logged: {logged}");
        assert_eq!(
            looks(&server, "d", &["shelf", "book", "page"]).await?,
            expected
        );
        // The child alone.
        let server = Server::start().await?;
        let report = bring_back(&archive, tables(Target::Latest, &server, &["d.page"])).await?;
        let notes = report.notes.join("\n");
        let is_said = notes.contains("d.page is not exact")
            && notes.contains("--tables d.page,d.book,d.shelf");
        ensure!(is_said != logged, "logged: {logged}: {notes}");
        let rows: Vec<(u32, u32)> = server.query("SELECT id, n FROM d.page ORDER BY id").await?;
        let here: Vec<(u32, u32)> = source.query("SELECT id, n FROM d.page ORDER BY id").await?;
        ensure!(
            (rows == here) == logged,
            "logged: {logged}: {rows:?} and {here:?}"
        );
        // One whose parent nobody touched is exact in any case.
        let server = Server::start().await?;
        let report = bring_back(&archive, tables(Target::Latest, &server, &["d.child"])).await?;
        ensure!(
            !report.notes.join("\n").contains("not exact"),
            "{:?}",
            report.notes
        );
        let _ = names;
    }
    Ok(())
}

/// A person sees that indexes are built while they are, not behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_building_of_indexes_is_told_when_it_begins() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            // Such an index waits for the rows, however few they are.
            "CREATE TABLE d.words (FTS_DOC_ID BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, t TEXT, \
             PRIMARY KEY (FTS_DOC_ID), UNIQUE KEY FTS_DOC_ID_INDEX (FTS_DOC_ID), \
             FULLTEXT KEY (t)) DEFAULT CHARSET = utf8mb4",
            "INSERT INTO d.words (t) VALUES ('one'), ('two'), ('three')",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    stream_once(&archive.repository, &source).await?;
    let before = looks(&source, "d", &["words"]).await?;
    let request = into(Target::Latest, &source, &["d.words"], "before");
    let prepared = prepare_parts(archive.repository.clone(), request).await?;

    let told: Arc<Mutex<Vec<&str>>> = Arc::default();
    let observer: restore::Observer = {
        let told = Arc::clone(&told);
        Arc::new(move |event| {
            if let RestoreEvent::Phase { phase } = event {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.push(phase);
            }
        })
    };
    let built = {
        let told = Arc::clone(&told);
        FailPoints::new(move |point| {
            if point == FailPoint::LoadIndexed {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.push("(one is built)");
            }
        })
    };
    let options = RestoreOptions {
        fail_points: built,
        ..RestoreOptions::default()
    };
    run_parts(prepared, options, observer, CancellationToken::new()).await?;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(told, ["load", "index", "(one is built)", "replay", "check"]);
    assert_eq!(looks(&source, "before", &["words"]).await?, before);
    Ok(())
}
