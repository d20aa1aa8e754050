//! The load of the whole zoo is killed at one point after the other, and gone on with each time: it
//! must end as though nothing had happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail, ensure};
use quillback::observe::fail_point::{FailPoint, FailPoints};
use quillback::restore::load::steps::JOURNAL_SCHEMA;
use quillback::restore::load::{LoadOptions, LoadReport, load};
use quillback_harness::Server;

use super::compare::assert_same;
use super::{objects, values};
use crate::support::{
    as_if_large, exec_all, manifest, memory, on_primary, raw_rows, snapshot, url,
};

/// The points at which a run dies, and at which passing of each.
const KILLS: &[(FailPoint, u32)] = &[
    (FailPoint::LoadSchema, 1),
    (FailPoint::LoadPrepared, 1),
    (FailPoint::LoadPrepared, 2),
    (FailPoint::LoadSent, 1),
    (FailPoint::LoadSent, 7),
    (FailPoint::LoadCommitted, 1),
    (FailPoint::LoadCommitted, 4),
    (FailPoint::LoadIndexed, 1),
    (FailPoint::LoadIndexed, 2),
    (FailPoint::LoadObjects, 1),
    (FailPoint::LoadGtids, 1),
];

/// Panics, which ends a run as a kill does: nothing more is said to the server, and nothing put back.
fn dying(at: FailPoint, nth: u32) -> FailPoints {
    let passed = AtomicU32::new(0);
    FailPoints::new(move |point| {
        if point == at && passed.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            panic!("killed at {}", at.name());
        }
    })
}

const SETTINGS: &str = "SELECT @@GLOBAL.local_infile, @@GLOBAL.max_allowed_packet, @@GLOBAL.innodb_flush_log_at_trx_commit, \
     (SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Innodb_redo_log_enabled')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_killed_anywhere_ends_as_one_that_was_not() -> Result<()> {
    let source = Server::start().await?;
    values::fill(&source).await?;
    objects::fill(&source).await?;
    exec_all(
        &source,
        &[
            "CREATE TABLE zoo.myisam (id INT PRIMARY KEY, a INT, KEY (a)) ENGINE = MyISAM",
            "INSERT INTO zoo.myisam VALUES (1, 1), (2, 2)",
            "CREATE TABLE zoo.kept (id INT) ENGINE = ARCHIVE",
            "INSERT INTO zoo.kept VALUES (1), (1), (2)",
        ],
    )
    .await?;
    let storage = memory();
    let options = quillback::snapshot::SnapshotOptions {
        allow_non_innodb: true,
        file_bytes: 300,
        ..on_primary()
    };
    let report = snapshot(&[url(&source)], &options, &storage).await?;
    let manifest = Arc::new(manifest(&*storage, &report).await?);
    let files: usize = manifest.tables.iter().map(|table| table.files.len()).sum();
    ensure!(files > manifest.tables.len() / 2, "only {files} files");

    let target = Server::start().await?;
    let before = raw_rows(&target, SETTINGS).await?;
    exec_all(
        &target,
        &[
            "SET sql_log_bin = 0",
            &format!("CREATE DATABASE {JOURNAL_SCHEMA}"),
            &format!(
                "CREATE TABLE {JOURNAL_SCHEMA}.done (step VARBINARY(512) PRIMARY KEY, at TIMESTAMP(6) NOT NULL)"
            ),
        ],
    )
    .await?;
    let run = async |resume: bool, fail_points: FailPoints| -> Result<LoadReport> {
        let options = LoadOptions {
            journal: true,
            resume,
            fail_points,
            ..as_if_large()
        };
        let (url, storage, manifest) = (url(&target), Arc::clone(&storage), Arc::clone(&manifest));
        let load = async move { load(&url, storage, &manifest, &options).await };
        Ok(tokio::spawn(load).await??)
    };
    for (n, (point, nth)) in KILLS.iter().enumerate() {
        let died = run(n > 0, dying(*point, *nth)).await;
        let Err(error) = died else {
            bail!("it does not come to {} for the {nth}. time", point.name());
        };
        let panicked = error
            .downcast_ref::<tokio::task::JoinError>()
            .is_some_and(tokio::task::JoinError::is_panic);
        ensure!(panicked, "at {}: {error:?}", point.name());
    }
    let loaded = run(true, FailPoints::default()).await?;
    assert_eq!(loaded.rows, manifest.totals.rows);
    assert_eq!(loaded.event_scheduler, "ON");
    assert_eq!(raw_rows(&target, SETTINGS).await?, before);
    // Once more finds nothing to do, and still knows what the event scheduler was.
    let again = run(true, FailPoints::default()).await?;
    assert_eq!((again.rows, again.stored_bytes), (loaded.rows, 0));
    assert_eq!(again.event_scheduler, "ON");
    assert_eq!(target.gtid_executed().await?, source.gtid_executed().await?);
    exec_all(
        &target,
        &[
            "SET sql_log_bin = 0",
            &format!("DROP DATABASE {JOURNAL_SCHEMA}"),
        ],
    )
    .await?;
    let compared = assert_same(&source, &target, &["a_broken", "b_on_nobody"]).await?;
    assert_eq!(compared.tables, manifest.tables.len());
    Ok(())
}
