//! A restore that is interrupted anywhere, and gone on with: it ends equal to one that was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::mysql::ServerUrl;
use quillback::observe::fail_point::{FailPoint, FailPoints};
use quillback::restore::target::Target;
use quillback::restore::{self, RestoreError, RestoreOptions, RestoreReport, RestoreRequest};
use quillback_harness::checksum;
use quillback_harness::{Proxy, Server, ServerOptions, until};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::program;
use crate::support::{
    Archive, LIMIT, State, assert_restored, assert_tidy, begun, exec_all, on_primary, request,
    snapshot, state, stream_once, url,
};

/// A snapshot with a little of everything, and a log behind it with rows and DDL.
struct World {
    archive: Archive,
    end: State,
}

async fn world() -> Result<&'static World> {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_try_init(|| async {
            let source = Server::start().await?;
            exec_all(
                &source,
                &[
                    "CREATE DATABASE shop",
                    "CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(64), \
                     price DECIMAL(8, 2), KEY by_name (name), KEY by_price (price, name))",
                    "INSERT INTO shop.item (name, price) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL \
                     SELECT i + 1 FROM n WHERE i < 900) SELECT SHA2(i, 256), i / 7 FROM n",
                    "CREATE TABLE shop.line (id INT PRIMARY KEY, item INT, \
                     FOREIGN KEY (item) REFERENCES shop.item (id) ON DELETE CASCADE)",
                    "INSERT INTO shop.line SELECT id, id FROM shop.item",
                    // Its full-text key waits for the rows, however few they are.
                    "CREATE TABLE shop.words (FTS_DOC_ID BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                     t TEXT, UNIQUE KEY FTS_DOC_ID_INDEX (FTS_DOC_ID), FULLTEXT KEY by_word (t))",
                    "INSERT INTO shop.words (t) SELECT CONCAT(name, ' common') FROM shop.item",
                    "CREATE TABLE shop.empty (id INT PRIMARY KEY)",
                    "CREATE DATABASE other",
                    "CREATE TABLE other.t (id INT PRIMARY KEY, v JSON)",
                    "INSERT INTO other.t VALUES (1, '{\"a\": 1}'), (2, NULL)",
                    "CREATE USER ann IDENTIFIED BY 'ann-for-tests'",
                    "GRANT SELECT ON shop.* TO ann",
                    "CREATE DEFINER = ann VIEW shop.dear AS SELECT id FROM shop.item WHERE price > 10",
                    "CREATE PROCEDURE shop.tidy() DELETE FROM shop.empty",
                    "CREATE TRIGGER shop.noted AFTER INSERT ON shop.empty FOR EACH ROW SET @x = 1",
                    "CREATE EVENT shop.never ON SCHEDULE EVERY 1 YEAR DISABLE DO SET @x = 2",
                ],
            )
            .await?;
            let archive = Archive::new().await?;
            snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
            for n in 0..40 {
                let insert = format!("INSERT INTO other.t VALUES ({}, NULL)", n + 10);
                exec_all(&source, &[&insert]).await?;
            }
            exec_all(
                &source,
                &[
                    "UPDATE shop.item SET price = price + 1 WHERE id % 3 = 0",
                    "ALTER TABLE shop.item ADD COLUMN note VARCHAR(20) DEFAULT 'x'",
                    "DELETE FROM shop.item WHERE id % 10 = 0",
                    "CREATE TABLE shop.late (id INT PRIMARY KEY)",
                    "INSERT INTO shop.late VALUES (1), (2)",
                    "DROP TABLE shop.empty",
                ],
            )
            .await?;
            stream_once(&archive.repository, &source).await?;
            let end = state(&source).await?;
            Ok::<_, anyhow::Error>(World { archive, end })
        })
        .await
}

/// Fails unless the server is as one whose restore was never interrupted.
async fn assert_whole(server: &Server, world: &World) -> Result<()> {
    let schemas: u64 = server
        .one(
            "SELECT COUNT(*) FROM information_schema.SCHEMATA \
             WHERE SCHEMA_NAME = 'quillback_restore'",
        )
        .await?;
    ensure!(schemas == 0, "its journal is still there");
    exec_all(
        server,
        &[
            "SET GLOBAL super_read_only = OFF",
            "SET GLOBAL read_only = OFF",
            "SET GLOBAL event_scheduler = ON",
        ],
    )
    .await?;
    let found = state(server).await?;
    ensure!(found.set == world.end.set, "{:#}", found.set);
    let differences = checksum::differences(&world.end.tables, &found.tables);
    ensure!(differences.is_empty(), "{differences:?}");
    let settings: (bool, u64, u64) = server
        .one(
            "SELECT @@GLOBAL.local_infile, @@GLOBAL.max_allowed_packet, \
             @@GLOBAL.replica_parallel_workers",
        )
        .await?;
    let fresh = Server::start().await?;
    let expected: (bool, u64, u64) = fresh
        .one(
            "SELECT @@GLOBAL.local_infile, @@GLOBAL.max_allowed_packet, \
             @@GLOBAL.replica_parallel_workers",
        )
        .await?;
    ensure!(settings == expected, "settings are left: {settings:?}");
    let redo: String = server
        .one(
            "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
             WHERE VARIABLE_NAME = 'Innodb_redo_log_enabled'",
        )
        .await?;
    ensure!(redo == "ON", "the redo log is off");
    let objects: (u64, u64, u64, u64) = server
        .one(
            "SELECT (SELECT COUNT(*) FROM mysql.user WHERE User = 'ann'), \
             (SELECT COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'shop'), \
             (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'shop'), \
             (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = 'shop' \
              AND INDEX_NAME LIKE 'by\\_%')",
        )
        .await?;
    ensure!(objects == (1, 1, 1, 4), "objects are missing: {objects:?}");
    assert_tidy(server).await
}

/// We die at every point, and the next run goes on. Each round empties what the one before left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_dies_at_any_point_is_gone_on_with() -> Result<()> {
    let world = world().await?;
    let server = Server::start().await?;
    let wipe = server.address();
    let begin = ["--until", "latest", "--wipe", &wipe];
    for point in FailPoint::RESTORE {
        let round = async {
            let armed = [("QUILLBACK_FAIL_POINT", point.name())];
            let said = program::restore(&world.archive, &server, &begin, &armed).await?;
            said.aborted()?;
            if *point != FailPoint::Finished {
                // It is told from a whole one, and not begun anew by accident.
                let plain = program::restore(&world.archive, &server, &["--until", "latest"], &[]);
                let plain = plain.await?;
                plain.ended(&[23])?;
                ensure!(plain.err().contains("it is unfinished"), "{}", plain.err());
                let resumed = program::restore(&world.archive, &server, &["--resume"], &[]).await?;
                resumed.ended(&[0, 3])?;
            }
            let again = program::restore(&world.archive, &server, &["--resume"], &[]).await?;
            again.ended(&[23])?;
            ensure!(
                again.err().contains("nothing to go on with"),
                "{}",
                again.err()
            );
            assert_whole(&server, world).await
        };
        round
            .await
            .with_context(|| format!("at {}", point.name()))?;
    }
    Ok(())
}

/// Several deaths in one restore, the last of them in the replay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_again_and_again_ends_all_the_same() -> Result<()> {
    let world = world().await?;
    let server = Server::start().await?;
    let until = ["--until", "latest"];
    let die = |arguments: &'static [&'static str], armed: &'static str| {
        let server = &server;
        async move {
            let env = [("QUILLBACK_FAIL_POINT", armed)];
            let said = program::restore(&world.archive, server, arguments, &env).await?;
            said.aborted().context(armed)
        }
    };
    die(&["--until", "latest"], "begun").await?;
    die(&["--resume"], "begun").await?;
    die(&["--resume", "--until", "latest"], "loaded").await?;
    die(&["--resume"], "replaying").await?;
    die(&["--resume"], "checked").await?;
    // Not another one, and not another's.
    let other = ["--resume", "--until", "2020-01-01T00:00:00Z"];
    let said = program::restore(&world.archive, &server, &other, &[]).await?;
    said.ended(&[23])?;
    ensure!(said.err().contains("another restore"), "{}", said.err());
    let copy = Archive::new().await?;
    let said = program::restore(&copy, &server, &["--resume"], &[]).await?;
    ensure!(said.code() != Some(0), "{}", said.out());
    let said = program::restore(&world.archive, &server, &until, &[]).await?;
    said.ended(&[23])?;
    let said = program::restore(&world.archive, &server, &["--resume", "--json"], &[]).await?;
    said.ended(&[0, 3])?;
    let report: serde_json::Value = serde_json::from_str(&said.out())?;
    ensure!(report["resumed"] == true, "{report}");
    assert_whole(&server, world).await
}

/// Restores, and does something once a point is passed.
async fn disturbed(
    world: &World,
    request: RestoreRequest,
    point: FailPoint,
    disturb: impl Fn() + Send + Sync + 'static,
) -> Result<RestoreReport, RestoreError> {
    let prepared = restore::prepare(world.archive.repository.clone(), request).await?;
    let done = AtomicBool::new(false);
    let options = RestoreOptions {
        keep_redo_log: true,
        fail_points: FailPoints::new(move |passed| {
            if passed == point && !done.swap(true, Ordering::Relaxed) {
                disturb();
            }
        }),
        ..RestoreOptions::default()
    };
    restore::run(
        prepared,
        options,
        Arc::new(|_| {}),
        CancellationToken::new(),
    )
    .await
}

fn resume(server: ServerUrl) -> RestoreRequest {
    RestoreRequest {
        target: None,
        resume: true,
        ..RestoreRequest::new(Target::Latest, server)
    }
}

/// The server dies in the middle, with its redo log on, and is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_meanwhile_is_gone_on_with() -> Result<()> {
    let world = world().await?;
    for point in [
        FailPoint::Begun,
        FailPoint::LoadPrepared,
        FailPoint::LoadSent,
        FailPoint::LoadCommitted,
        FailPoint::LoadIndexed,
        FailPoint::LoadObjects,
        FailPoint::LoadGtids,
        FailPoint::Replaying,
        FailPoint::Checked,
    ] {
        let round = async {
            let server = Arc::new(Server::start().await?);
            let victim = Arc::clone(&server);
            let is_dead = Arc::new(AtomicBool::new(false));
            let dead = Arc::clone(&is_dead);
            let kill = move || {
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current()
                        .block_on(victim.kill9())
                        .expect("it was alive");
                });
                dead.store(true, Ordering::Relaxed);
            };
            let asked = request(Target::Latest, &server);
            let error = disturbed(world, asked, point, kill)
                .await
                .expect_err("its server is dead");
            ensure!(
                matches!(error, RestoreError::Unfinished { .. }),
                "{error:?}"
            );
            // Its connections are gone before it is.
            until("the server to be dead", LIMIT, async || {
                Ok(is_dead.load(Ordering::Relaxed).then_some(()))
            })
            .await?;
            server.start_again().await?;
            let asked = resume(url(&server));
            let prepared = restore::prepare(world.archive.repository.clone(), asked).await?;
            ensure!(prepared.plan.resume.is_some(), "{:?}", prepared.plan);
            let report = restore::run(
                prepared,
                RestoreOptions::default(),
                Arc::new(|_| {}),
                CancellationToken::new(),
            )
            .await?;
            assert_restored(&server, &report, &world.end).await?;
            assert_whole(&server, world).await
        };
        round
            .await
            .with_context(|| format!("at {}", point.name()))?;
    }
    Ok(())
}

/// The network between us and the server is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_network_is_gone_on_with() -> Result<()> {
    let world = world().await?;
    for point in [
        FailPoint::Begun,
        FailPoint::LoadSchema,
        FailPoint::LoadSent,
        FailPoint::LoadCommitted,
        FailPoint::LoadIndexed,
        FailPoint::LoadObjects,
        FailPoint::Loaded,
        FailPoint::Replaying,
        FailPoint::Checked,
    ] {
        let round = async {
            let server = Server::start().await?;
            let proxy = Arc::new(Proxy::start(&server.address()).await?);
            let through: ServerUrl = proxy.url(&server.url()).parse()?;
            let wire = Arc::clone(&proxy);
            let cut = move || {
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(wire.cut());
                });
            };
            let asked = RestoreRequest::new(Target::Latest, through.clone());
            let error = disturbed(world, asked, point, cut)
                .await
                .expect_err("nobody reaches the server");
            ensure!(error.class() == Class::Transient, "{error:?}");
            proxy.restore().await;
            crate::support::restore(&world.archive.repository, resume(through)).await?;
            assert_whole(&server, world).await
        };
        round
            .await
            .with_context(|| format!("at {}", point.name()))?;
    }
    Ok(())
}

/// An archive that went on meanwhile changes nothing of what was begun as "latest".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_stays_what_it_was() -> Result<()> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (1)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let then = state(&source).await?;
    let server = Server::start_with(ServerOptions::new()).await?;
    let armed = [("QUILLBACK_FAIL_POINT", "loaded")];
    let until = ["--until", "latest"];
    program::restore(&archive, &server, &until, &armed)
        .await?
        .aborted()?;
    exec_all(&source, &["INSERT INTO d.t VALUES (2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let arguments = ["--until", "latest", "--resume"];
    let said = program::restore(&archive, &server, &arguments, &[]).await?;
    said.ended(&[0, 3])?;
    let found = state(&server).await?;
    assert_eq!(found.set, then.set);
    let rows: Vec<u32> = server.query("SELECT id FROM d.t").await?;
    assert_eq!(rows, [1]);
    Ok(())
}
