//! Both kinds of replay lead to what the source was, on servers of many settings.

use anyhow::{Context as _, Result, ensure};
use quillback::archive::repository::Repository;
use quillback::gtid::GtidSet;
use quillback::restore::RestoreRequest;
use quillback::restore::replay::{ReplayError, ReplayKind};
use quillback::restore::target::Target;
use quillback_harness::sinpluma::SinPluma;
use quillback_harness::{Server, ServerOptions, checksum};
use tokio::sync::OnceCell;

use crate::replay_support::{How, KINDS, Log, Replaying, no_trace, settings};
use crate::story::{ODDITIES, story};
use crate::support::{
    assert_restored, exec_all, gtids_of, on_primary, only, request, restore, snapshot, state, url,
};

/// What a log may hold besides [`ODDITIES`].
const MORE: &[&str] = &[
    "CREATE DATABASE more",
    "USE more",
    // Columns that are computed, hidden, or of odd types.
    "CREATE TABLE computed (id INT PRIMARY KEY AUTO_INCREMENT, a INT, \
     twice INT AS (a * 2) VIRTUAL, thrice INT AS (a * 3) STORED, hidden INT INVISIBLE DEFAULT 7, \
     KEY (twice))",
    "INSERT INTO computed (a) VALUES (1), (2), (NULL)",
    "UPDATE computed SET a = 5 WHERE id = 1",
    "CREATE TABLE kinds (id INT PRIMARY KEY, e ENUM('a','ż'), s SET('x','y'), b BIT(9), \
     y YEAR, t TIME(6), dt DATETIME(3), ts TIMESTAMP(6) NULL, d DECIMAL(30,9), f FLOAT, \
     g GEOMETRY, j JSON, vb VARBINARY(9), c CHAR(3) CHARACTER SET latin2)",
    "INSERT INTO kinds VALUES (1, 'ż', 'x,y', b'101', 2026, '-12:34:56.789012', \
     '2026-11-20 14:30:00.123', '2026-11-20 14:30:00.123456', -123456789.000000001, 1.5, \
     ST_GeomFromText('POINT(1 2)'), '{\"a\": [1, 2, {\"b\": null}]}', x'00ff', 'łąk')",
    "SET SESSION binlog_row_value_options = PARTIAL_JSON",
    "UPDATE kinds SET j = JSON_SET(j, '$.a[0]', 9)",
    "SET SESSION binlog_row_value_options = ''",
    // Sessions unlike the server's.
    "SET NAMES latin1",
    "CREATE TABLE spoken (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(50) CHARACTER SET utf8mb4) COMMENT 'latin'",
    "SET SESSION binlog_format = STATEMENT",
    "INSERT INTO spoken (a) VALUES ('plain')",
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+05:30', timestamp = 1700000000.123456",
    "INSERT INTO spoken (a) VALUES (NOW(6)), (CURRENT_TIME(3))",
    "SET SESSION timestamp = DEFAULT, time_zone = SYSTEM",
    "SET SESSION auto_increment_increment = 10, auto_increment_offset = 3",
    "INSERT INTO spoken (a) VALUES ('ten'), ('twenty')",
    "SET SESSION auto_increment_increment = 1, auto_increment_offset = 1",
    "SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
    "INSERT INTO \"spoken\" (a) VALUES ('back\\slash')",
    "SET SESSION sql_mode = DEFAULT",
    "SET @i = -7, @u = 18446744073709551615, @r = -1.25e-3, @d = -123.4500, \
     @s = _latin2 x'b3' COLLATE latin2_general_ci, @b = x'00ff', @`ż``` = 'ś'",
    "INSERT INTO spoken (a) VALUES (@i), (@u), (@r), (@d), (@s), (HEX(@b)), (@`ż```)",
    "SET SESSION lc_time_names = 'pl_PL'",
    "INSERT INTO spoken (a) VALUES (DATE_FORMAT('2026-11-20', '%M %W'))",
    "SET SESSION lc_time_names = 'en_US'",
    "CREATE TEMPORARY TABLE for_now (a VARCHAR(50)) SELECT 'from a temporary table' AS a",
    "INSERT INTO spoken (a) SELECT a FROM for_now",
    "DROP TEMPORARY TABLE for_now",
    "SET SESSION foreign_key_checks = 0",
    "CREATE TABLE orphan (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES not_yet (id))",
    "INSERT INTO orphan VALUES (1, 99)",
    "SET SESSION foreign_key_checks = 1",
    "SET SESSION binlog_format = ROW",
    "SET SESSION foreign_key_checks = 0",
    "INSERT INTO orphan VALUES (2, 98)",
    "SET SESSION foreign_key_checks = 1",
    // Names that are not ASCII, and a schema that comes back.
    "CREATE DATABASE `zażółć``` CHARACTER SET latin2",
    "USE `zażółć```",
    "CREATE TABLE `tęcza` (a VARCHAR(20))",
    "INSERT INTO `tęcza` VALUES ('łuk')",
    "DROP DATABASE `zażółć```",
    "CREATE DATABASE `zażółć``` CHARACTER SET utf8mb4",
    "USE `zażółć```",
    "CREATE TABLE `tęcza` (a VARCHAR(20))",
    "INSERT INTO `tęcza` VALUES ('łuk'), ('😀')",
    "USE more",
    // One event larger than a frame, and many rows.
    "CREATE TABLE large (id INT PRIMARY KEY AUTO_INCREMENT, a LONGBLOB)",
    "INSERT INTO large (a) VALUES (REPEAT(x'0102', 9 << 20))",
    "INSERT INTO large (a) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
     SELECT REPEAT(SHA2(i, 256), 100) FROM n",
    "UPDATE large SET a = CONCAT(a, 'x') WHERE id > 1",
    // XA in which there is nothing, and two at a time.
    "XA START 'empty'",
    "XA END 'empty'",
    "XA PREPARE 'empty'",
    "XA COMMIT 'empty'",
    "CREATE OR REPLACE VIEW more.seen AS SELECT id, a FROM more.spoken",
    "GRANT SELECT ON more.* TO ann@'%'",
    "SET PASSWORD FOR ann@'%' = 'ann-secret'",
    "ALTER TABLE computed ADD COLUMN late INT DEFAULT 3, ALGORITHM = INSTANT",
    "ALTER TABLE spoken PARTITION BY HASH (id) PARTITIONS 3",
    "INSERT INTO spoken (id) VALUES (997), (998)",
    "ALTER TABLE spoken TRUNCATE PARTITION p1",
];

/// All kinds of transactions, in the archive.
async fn odd() -> Result<&'static Log> {
    static ODD: OnceCell<Log> = OnceCell::const_new();
    ODD.get_or_try_init(|| {
        Log::write(ServerOptions::new(), async |server, _| {
            let mut conn = server.conn().await?;
            let mut pluma = SinPluma::create(&mut conn, 1).await?;
            exec_all(server, ODDITIES).await?;
            for _ in 0..5 {
                pluma.write_some(&mut conn).await?;
            }
            exec_all(server, MORE).await?;
            for compressed in ["ON", "OFF"] {
                let setting = format!("SET SESSION binlog_transaction_compression = {compressed}");
                mysql_async::prelude::Queryable::query_drop(&mut conn, setting).await?;
                for _ in 0..5 {
                    pluma.write_some(&mut conn).await?;
                }
            }
            conn.disconnect().await?;
            Ok(())
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_kinds_lead_to_the_same_state() -> Result<()> {
    let log = odd().await?;
    let mut conn = log.source.conn().await?;
    let mut expected = checksum::schema_fingerprint(&mut conn).await?;
    conn.disconnect().await?;
    // An event that came by replication does not run; one that was made by a statement does.
    let is_event = |name: &String| name.contains("never");
    expected.retain(|name, _| !is_event(name));
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        log.replay(&target, kind).await?;
        let mut conn = target.conn().await?;
        let mut found = checksum::schema_fingerprint(&mut conn).await?;
        conn.disconnect().await?;
        found.retain(|name, _| !is_event(name));
        for (name, definition) in &expected {
            assert_eq!(found.get(name), Some(definition), "{kind:?}: {name}");
        }
        assert_eq!(found.len(), expected.len(), "{kind:?}");
        let accounts: Vec<String> = target
            .query("SELECT CONCAT(User, Host, authentication_string) FROM mysql.user WHERE User IN ('ann', 'reader') ORDER BY 1")
            .await?;
        let at_source: Vec<String> = log
            .source
            .query("SELECT CONCAT(User, Host, authentication_string) FROM mysql.user WHERE User IN ('ann', 'reader') ORDER BY 1")
            .await?;
        assert_eq!(accounts, at_source, "{kind:?}");
        // Again: there is nothing left to do.
        log.replay(&target, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_restore_by_sql_is_the_source() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let asked = RestoreRequest {
        snapshot: Some(story.first_snapshot.clone()),
        replay: ReplayKind::Sql,
        ..request(Target::Latest, &server)
    };
    let report = restore(&story.archive.repository, asked).await?;
    assert_restored(&server, &report, &story.end).await?;
    story.check_ledger(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_transaction_was_committed_first_is_kept() -> Result<()> {
    let log = odd().await?;
    let original = async |repository: &Repository| -> Result<Vec<_>> {
        let chain = crate::support::chain(repository).await?;
        let mut times = Vec::new();
        for segment in &chain.segments {
            for line in repository.read_transactions(segment).await? {
                times.push((line.gtid.to_string(), line.original_time));
            }
        }
        times.sort();
        Ok(times)
    };
    let expected = original(&log.archive.repository).await?;
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        // An archive of what the target writes while it replays.
        let archive = crate::support::Archive::new().await?;
        snapshot(&archive.repository, &[url(&target)], &on_primary()).await?;
        log.replay(&target, kind).await?;
        crate::support::stream_once(&archive.repository, &target).await?;
        let found = original(&archive.repository).await?;
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "{kind:?}");
        }
        assert_eq!(expected.len(), found.len(), "{kind:?}");
    }
    Ok(())
}

/// Settings of a target that stand in the way of replication, or change it.
const SETTINGS: &[&[&str]] = &[
    &[
        "replicate-ignore-db=odd",
        "replicate-wild-ignore-table=more.%",
        "replicate-rewrite-db=sinpluma->other",
        "skip_replica_start=ON",
        "sync_relay_log=1",
        "replica_preserve_commit_order=OFF",
        "replica_parallel_workers=1",
    ],
    &[
        "log_replica_updates=OFF",
        "read_only=ON",
        "event_scheduler=ON",
        "binlog_format=MIXED",
        "sql_require_primary_key=ON",
        "character_set_server=latin1",
        "default_time_zone=+09:00",
        "auto_increment_increment=7",
        "auto_increment_offset=3",
        "max_allowed_packet=1M",
        "gtid_executed_compression_period=10",
    ],
    &[
        "skip-log-bin",
        "sql_mode=ANSI",
        "lower_case_table_names=0",
        "explicit_defaults_for_timestamp=OFF",
        "relay_log_recovery=ON",
        "binlog_rows_query_log_events=ON",
    ],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_of_the_target_change_nothing() -> Result<()> {
    let log = odd().await?;
    for lines in SETTINGS {
        for kind in KINDS {
            let options = lines
                .iter()
                .fold(ServerOptions::new(), |options, line| options.line(*line));
            let target = log.target(options).await?;
            log.replay(&target, kind)
                .await
                .with_context(|| format!("with {lines:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_checksums_is_replayed_by_both() -> Result<()> {
    let log = Log::write(
        ServerOptions::new().line("binlog_checksum=NONE"),
        async |server, _| {
            exec_all(
                server,
                &[
                    "CREATE DATABASE d",
                    "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)",
                    "INSERT INTO d.t VALUES (1, 'plain')",
                    "SET GLOBAL binlog_checksum = CRC32",
                    "INSERT INTO d.t VALUES (2, 'with')",
                    "UPDATE d.t SET a = 'changed'",
                    "SET GLOBAL binlog_checksum = NONE",
                    "INSERT INTO d.t VALUES (3, 'without')",
                ],
            )
            .await
        },
    )
    .await?;
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        log.replay(&target, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_cannot_be_applied_is_told_with_what_it_is() -> Result<()> {
    let mut gtid = None;
    let log = Log::write(ServerOptions::new(), async |server, _| {
        exec_all(
            server,
            &[
                "CREATE DATABASE d",
                "CREATE TABLE d.t (id INT PRIMARY KEY)",
                "INSERT INTO d.t VALUES (1)",
            ],
        )
        .await?;
        let inserted = gtids_of(server, &["INSERT INTO gate.keeper VALUES (7)"]).await?;
        gtid = Some(only(&inserted));
        exec_all(server, &["INSERT INTO d.t VALUES (2)"]).await
    })
    .await?;
    let gtid = gtid.expect("it was made");
    for kind in KINDS {
        let target = log.target(ServerOptions::new()).await?;
        let before = settings(&target).await?;
        exec_all(
            &target,
            &[
                "SET SESSION sql_log_bin = 0",
                "INSERT INTO gate.keeper VALUES (7)",
            ],
        )
        .await?;
        let error = Replaying::start(&log, &target, kind, How::default())
            .join()
            .await
            .expect_err("the row is there");
        let ReplayError::Applier {
            code, transaction, ..
        } = &error
        else {
            panic!("{kind:?}: {error}");
        };
        assert_eq!(*code, 1062, "{kind:?}: {error}");
        let transaction = transaction.as_deref().expect("it is named");
        assert_eq!(transaction.gtid, gtid, "{kind:?}");
        let text = error.to_string();
        for part in [gtid.to_string().as_str(), "insert gate.keeper", "server_id"] {
            ensure!(text.contains(part), "{kind:?}: {part} is not in {text}");
        }
        no_trace(&target).await?;
        assert_eq!(settings(&target).await?, before, "{kind:?}");
        // With the cause gone it goes on where it was.
        exec_all(
            &target,
            &["SET SESSION sql_log_bin = 0", "DELETE FROM gate.keeper"],
        )
        .await?;
        log.replay(&target, kind).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sql_cannot_say_is_refused_by_name() -> Result<()> {
    let mut set = GtidSet::new();
    let may_read_files = ServerOptions::new().line("secure_file_priv=");
    let log = Log::write(may_read_files, async |server, _| {
        exec_all(
            server,
            &["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"],
        )
        .await?;
        let file = server.data_dir().join("rows.txt");
        std::fs::write(&file, "1\n2\n")?;
        let load = format!("LOAD DATA INFILE '{}' INTO TABLE d.t", file.display());
        set = gtids_of(server, &["SET SESSION binlog_format = STATEMENT", &load]).await?;
        Ok(())
    })
    .await?;
    let target = log.target(ServerOptions::new()).await?;
    let error = Replaying::start(&log, &target, ReplayKind::Sql, How::default())
        .join()
        .await
        .expect_err("it is a file");
    let ReplayError::NotInSql { gtid, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*gtid, only(&set));
    // By replication it can be had.
    log.replay(&target, ReplayKind::Replication).await?;
    assert_eq!(state(&target).await?, log.end);
    Ok(())
}
