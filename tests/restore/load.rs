//! The load alone: indexes that wait for the rows, several files of one table, settings that are put
//! back, going on after a kill of the target.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::manifest::Manifest;
use quillback::error::{Class, Classified as _};
use quillback::mysql::ServerUrl;
use quillback::mysql::wire::{WireConnection, WireOptions};
use quillback::observe::fail_point::{FailPoint, FailPoints};
use quillback::restore::load::steps::JOURNAL_SCHEMA;
use quillback::restore::load::{self, LoadError, LoadOptions};
use quillback::snapshot::SnapshotOptions;
use quillback::storage::{MemoryStorage, Storage};
use quillback_harness::{Proxy, Server, ServerOptions, until};

use crate::support::{LIMIT, exec_all, make, on_primary, snapshot, state, url};

/// Tables of all the kinds whose indexes may not simply go: with foreign keys to and from them, with
/// a counter that is not the primary key, without a primary key, with full-text keys on documents
/// that the user numbers, with large numbers between them.
const TABLES: &[&str] = &[
    "CREATE DATABASE d",
    "USE d",
    "CREATE TABLE digits (n INT PRIMARY KEY)",
    "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
    "CREATE TABLE numbers (n INT PRIMARY KEY)",
    "INSERT INTO numbers SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n FROM digits a, digits b, digits c, digits d",
    "CREATE TABLE parent (id INT PRIMARY KEY, code INT NOT NULL, name VARCHAR(40), UNIQUE KEY u_name (name), UNIQUE KEY u_code (code), \
     KEY k (name(5) DESC, code))",
    "INSERT INTO parent SELECT n, n * 3, CONCAT('p', n) FROM numbers",
    "CREATE TABLE child (id INT PRIMARY KEY AUTO_INCREMENT, code INT, a INT, b CHAR(60), c INT, KEY k_a (a), KEY k_code (code), \
     KEY k_b (b), UNIQUE KEY u (a, id), KEY hidden (c) INVISIBLE, CONSTRAINT to_parent FOREIGN KEY (code) REFERENCES parent (code) ON DELETE CASCADE)",
    "INSERT INTO child (code, a, b, c) SELECT n * 3, n % 77, SHA2(n, 224), -n FROM numbers",
    "CREATE TABLE counted (a INT, n INT AUTO_INCREMENT, b INT, PRIMARY KEY (a), KEY by_b (b), KEY by_n (n), KEY by_b_a (b, a))",
    "INSERT INTO counted (a, b) SELECT n, n % 10 FROM numbers",
    "CREATE TABLE no_primary (a INT NOT NULL, b INT, c INT, UNIQUE KEY (a), UNIQUE KEY (b), KEY (c), KEY (b, c))",
    "INSERT INTO no_primary SELECT n, -n, n % 3 FROM numbers",
    "CREATE TABLE words (FTS_DOC_ID BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, t TEXT, u VARCHAR(80), PRIMARY KEY (FTS_DOC_ID), \
     UNIQUE KEY FTS_DOC_ID_INDEX (FTS_DOC_ID), KEY (u), FULLTEXT KEY f_t (t), FULLTEXT KEY f_tu (t, u)) DEFAULT CHARSET = utf8mb4",
    // Far apart: InnoDB refuses such numbers where the key is there already.
    "INSERT INTO words (t, u) SELECT CONCAT('word', n, ' common'), CONCAT('other', n % 5) FROM numbers",
    "UPDATE words SET FTS_DOC_ID = FTS_DOC_ID + 60000 WHERE FTS_DOC_ID = 10000",
    "CREATE TABLE plain_words (id INT PRIMARY KEY, t TEXT, a INT, KEY (a), FULLTEXT KEY (t)) DEFAULT CHARSET = utf8mb4",
    "INSERT INTO plain_words SELECT n, CONCAT('text', n, ' same'), n % 9 FROM numbers",
    "CREATE TABLE parts (a INT, b INT, c INT, PRIMARY KEY (a, b), UNIQUE KEY u (b, a), KEY (c)) PARTITION BY HASH (b) PARTITIONS 3",
    "INSERT INTO parts SELECT n, n + 1, n % 5 FROM numbers",
    "CREATE TABLE documents (id INT PRIMARY KEY, j JSON, a INT, v INT AS (a + 1) VIRTUAL, KEY (v), KEY members ((CAST(j AS UNSIGNED ARRAY))), \
     KEY computed ((a * 2), a), KEY (a))",
    "INSERT INTO documents (id, j, a) SELECT n, JSON_ARRAY(n, n + 1), n FROM numbers",
    "CREATE TABLE shapes (id INT PRIMARY KEY, g POINT NOT NULL SRID 0, a INT, KEY (a), SPATIAL KEY (g), KEY (a, id))",
    "INSERT INTO shapes SELECT n, Point(n, -n), n % 4 FROM numbers",
];

/// Each table's `SHOW CREATE TABLE`.
async fn creates(server: &Server) -> Result<Vec<(String, String)>> {
    let names: Vec<String> = server
        .query(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' ORDER BY 1",
        )
        .await?;
    let mut creates = Vec::new();
    for name in names {
        creates.push(server.one(&format!("SHOW CREATE TABLE d.{name}")).await?);
    }
    Ok(creates)
}

async fn taken(server: &Server, options: &SnapshotOptions) -> Result<(Arc<dyn Storage>, Manifest)> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = make(Arc::clone(&storage)).await?;
    let report = snapshot(&repository, &[url(server)], options).await?;
    let manifests = repository.snapshots().await?;
    let manifest = manifests.into_iter().find(|of| of.id == report.id);
    Ok((storage, manifest.context("the snapshot is there")?))
}

/// In many files.
fn in_pieces() -> SnapshotOptions {
    SnapshotOptions {
        file_bytes: 40_000,
        chunk_rows: Some(1_000),
        ..on_primary()
    }
}

fn as_if_large() -> LoadOptions {
    LoadOptions {
        redo_log_off_from: 0,
        defer_indexes_from: 0,
        ..LoadOptions::default()
    }
}

async fn journal(server: &Server) -> Result<()> {
    exec_all(
        server,
        &[
            "SET sql_log_bin = 0",
            &format!("CREATE DATABASE {JOURNAL_SCHEMA}"),
            &format!(
                "CREATE TABLE {JOURNAL_SCHEMA}.done (step VARBINARY(512) PRIMARY KEY, at TIMESTAMP(6) NOT NULL)"
            ),
        ],
    )
    .await
}

type Settings = (bool, u64, u64, String, String);

async fn settings(server: &Server) -> Result<Settings> {
    server
        .one(
            "SELECT @@GLOBAL.local_infile, @@GLOBAL.max_allowed_packet, @@GLOBAL.innodb_flush_log_at_trx_commit, \
             @@GLOBAL.event_scheduler, (SELECT VARIABLE_VALUE FROM performance_schema.global_status \
             WHERE VARIABLE_NAME = 'Innodb_redo_log_enabled')",
        )
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_that_wait_come_back_as_they_were() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, TABLES).await?;
    let (storage, manifest) = taken(&source, &in_pieces()).await?;
    let files: usize = manifest.tables.iter().map(|table| table.files.len()).sum();
    ensure!(files > 60, "only {files} files");
    let target = Server::start().await?;
    let before = settings(&target).await?;
    let seen = Arc::new(AtomicBool::new(false));
    let options = LoadOptions {
        phase: {
            let seen = Arc::clone(&seen);
            Arc::new(move |phase| seen.store(phase == "index", Ordering::Relaxed))
        },
        ..as_if_large()
    };
    let report = load::load(&url(&target), Arc::clone(&storage), &manifest, &options).await?;
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(report.rows, manifest.totals.rows);
    assert!(report.seconds("indexes") > 0.0, "{report:?}");
    assert!(seen.load(Ordering::Relaxed), "nobody was told of indexes");
    // u and hidden of child, by_b_a of counted, (c) and (b, c) of no_primary ...
    assert!(report.indexes >= 15, "{report:?}");
    assert_eq!(creates(&source).await?, creates(&target).await?);
    assert_eq!(state(&source).await?.tables, state(&target).await?.tables);
    for (question, expected) in [
        (
            "SELECT COUNT(*) FROM d.words WHERE MATCH (t) AGAINST ('word77')",
            1,
        ),
        (
            "SELECT COUNT(*) FROM d.words WHERE MATCH (t) AGAINST ('+common' IN BOOLEAN MODE)",
            10_000,
        ),
        (
            "SELECT COUNT(*) FROM d.words WHERE MATCH (t, u) AGAINST ('+other3' IN BOOLEAN MODE)",
            2_000,
        ),
        (
            "SELECT COUNT(*) FROM d.plain_words WHERE MATCH (t) AGAINST ('+text9999' IN BOOLEAN MODE)",
            1,
        ),
        (
            "SELECT COUNT(*) FROM d.documents WHERE 500 MEMBER OF (j)",
            2,
        ),
    ] {
        assert_eq!(target.one::<u64>(question).await?, expected, "{question}");
    }
    let checked: Vec<(String, String, String, String)> = target
        .query("CHECK TABLE d.parent, d.child, d.counted, d.no_primary, d.words, d.plain_words, d.parts, d.documents, d.shapes EXTENDED")
        .await?;
    assert!(checked.iter().all(|(.., text)| text == "OK"), "{checked:?}");
    // The optimizer knows what it has.
    let counted: Vec<(String, u64)> = target
        .query("SELECT table_name, n_rows FROM mysql.innodb_table_stats WHERE database_name = 'd' AND table_name IN ('child', 'counted')")
        .await?;
    assert_eq!(counted.len(), 2);
    assert!(
        counted
            .iter()
            .all(|(_, rows)| (9_000..11_000).contains(rows)),
        "{counted:?}"
    );
    // What the server is like is as before, but for events, which wait for the caller.
    let after = settings(&target).await?;
    assert_eq!((after.0, after.1, after.2), (before.0, before.1, before.2));
    assert_eq!((after.3.as_str(), after.4.as_str()), ("OFF", "ON"));
    assert_eq!(report.event_scheduler, before.3);

    // Where nothing is large nothing waits, except what else could not be loaded in pieces.
    let target = Server::start().await?;
    let options = LoadOptions::default();
    let report = load::load(&url(&target), storage, &manifest, &options).await?;
    assert_eq!(report.indexes, 3, "those of words: {report:?}");
    assert_eq!(creates(&source).await?, creates(&target).await?);
    assert_eq!(state(&source).await?.tables, state(&target).await?.tables);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_put_back_whatever_a_load_ends_with() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, &TABLES[..8]).await?;
    let (storage, manifest) = taken(&source, &in_pieces()).await?;
    let options = ServerOptions::new()
        .line("local_infile=OFF")
        .line("max_allowed_packet=8M")
        .line("innodb_flush_log_at_trx_commit=2");
    let target = Server::start_with(options).await?;
    let before = settings(&target).await?;
    assert_eq!((before.0, before.1, before.2), (false, 8 << 20, 2));
    let mut wrong = manifest.clone();
    wrong.tables[0].row_checksum = Default::default();
    let error = load::load(&url(&target), Arc::clone(&storage), &wrong, &as_if_large())
        .await
        .expect_err("another checksum");
    assert_eq!(error.class(), Class::Integrity, "{error:?}");
    assert_eq!(settings(&target).await?, before);
    target.exec("DROP DATABASE d").await?;

    // A load that is asked to stop; the journal knows what events were.
    journal(&target).await?;
    let options = LoadOptions {
        journal: true,
        ..as_if_large()
    };
    let options = LoadOptions {
        progress: {
            let cancel = options.cancel.clone();
            Arc::new(move |_, _| cancel.cancel())
        },
        ..options
    };
    let error = load::load(&url(&target), Arc::clone(&storage), &manifest, &options)
        .await
        .expect_err("it was asked to stop");
    assert!(matches!(error, LoadError::Cancelled), "{error:?}");
    let stopped = settings(&target).await?;
    assert_eq!(stopped.3, "OFF");
    assert_eq!(
        (stopped.0, stopped.1, stopped.2, &stopped.4),
        (before.0, before.1, before.2, &before.4)
    );
    let mut session = quillback::mysql::Session::connect(&url(&target)).await?;
    load::put_back(&mut session).await?;
    session.close().await;
    assert_eq!(settings(&target).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_killed_is_gone_on_with() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, TABLES).await?;
    let (storage, manifest) = taken(&source, &in_pieces()).await?;
    let manifest = Arc::new(manifest);
    let target = Arc::new(Server::start().await?);
    journal(&target).await?;
    for (n, point) in [
        FailPoint::LoadSent,
        FailPoint::LoadCommitted,
        FailPoint::LoadIndexed,
    ]
    .into_iter()
    .enumerate()
    {
        let reached = Arc::new(AtomicBool::new(false));
        let options = LoadOptions {
            journal: true,
            resume: n > 0,
            keep_redo_log: true,
            fail_points: {
                let reached = Arc::clone(&reached);
                FailPoints::new(move |passed| {
                    if passed == point && !reached.swap(true, Ordering::Relaxed) {
                        // Time enough for the kill.
                        std::thread::sleep(Duration::from_millis(400));
                    }
                })
            },
            ..as_if_large()
        };
        let (url, storage, manifest) = (url(&target), Arc::clone(&storage), Arc::clone(&manifest));
        let loading =
            tokio::spawn(async move { load::load(&url, storage, &manifest, &options).await });
        until("the point", LIMIT, async || {
            Ok(reached.load(Ordering::Relaxed).then_some(()))
        })
        .await?;
        target.kill9().await?;
        let error = loading.await?.expect_err("the target was killed");
        assert!(error.class().is_transient(), "{point:?}: {error:?}");
        target.start_again().await?;
    }
    let options = LoadOptions {
        journal: true,
        resume: true,
        ..as_if_large()
    };
    let report = load::load(&url(&target), storage, &manifest, &options).await?;
    assert_eq!(report.rows, manifest.totals.rows);
    target
        .exec(&format!("DROP DATABASE {JOURNAL_SCHEMA}"))
        .await?;
    assert_eq!(creates(&source).await?, creates(&target).await?);
    assert_eq!(state(&source).await?.tables, state(&target).await?.tables);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_a_cut_network_left_open_are_ended() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, &TABLES[..8]).await?;
    let (storage, manifest) = taken(&source, &in_pieces()).await?;
    let options = ServerOptions::new().account("other", "other-for-tests", &["SELECT ON *.*"]);
    let target = Server::start_with(options).await?;
    journal(&target).await?;
    // Neither another account's connections nor other ones of the same account are ended, nor those
    // of another restore.
    let others: ServerUrl = target.url_for("other", "other-for-tests").parse()?;
    let as_loader = WireOptions {
        program_name: "quillback load".to_owned(),
        ..WireOptions::default()
    };
    let mut anothers = WireConnection::connect(&others, &as_loader).await?;
    let mut own = WireConnection::connect(&url(&target), &WireOptions::default()).await?;
    let of_tables = WireOptions {
        program_name: "quillback load --tables".to_owned(),
        ..WireOptions::default()
    };
    let mut of_tables = WireConnection::connect(&url(&target), &of_tables).await?;
    let proxy = Proxy::start(&target.address()).await?;
    let through: ServerUrl = proxy.url(&target.url()).parse()?;
    let reached = Arc::new(AtomicBool::new(false));
    let options = LoadOptions {
        journal: true,
        threads: 1,
        fail_points: {
            let reached = Arc::clone(&reached);
            FailPoints::new(move |passed| {
                if passed == FailPoint::LoadSent && !reached.swap(true, Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(800));
                }
            })
        },
        ..as_if_large()
    };
    let loading = {
        let (storage, manifest) = (Arc::clone(&storage), manifest.clone());
        tokio::spawn(async move { load::load(&through, storage, &manifest, &options).await })
    };
    until("rows that are not committed", LIMIT, async || {
        Ok(reached.load(Ordering::Relaxed).then_some(()))
    })
    .await?;
    // Neither side hears of the other any more, and neither knows.
    proxy.black_hole().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let open: u64 = target
        .one("SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 0")
        .await?;
    ensure!(open > 0, "no transaction was left open");
    let options = LoadOptions {
        journal: true,
        resume: true,
        ..as_if_large()
    };
    let url = url(&target);
    let going_on = load::load(&url, storage, &manifest, &options);
    let report = tokio::time::timeout(LIMIT, going_on)
        .await
        .context("it waits for the dead")??;
    assert_eq!(report.rows, manifest.totals.rows);
    for connection in [&mut anothers, &mut own, &mut of_tables] {
        let answer = connection.query_text("SELECT 'here'").await?;
        assert_eq!(answer.as_deref(), Some("here"));
    }
    loading.abort();
    let _ = loading.await;
    target
        .exec(&format!("DROP DATABASE {JOURNAL_SCHEMA}"))
        .await?;
    assert_eq!(state(&source).await?.tables, state(&target).await?.tables);
    Ok(())
}
