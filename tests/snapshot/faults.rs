//! A snapshot that cannot end leaves no snapshot, no lock, and a store that the next one can use.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::{layout, orphans::orphans};
use quillback::error::{Class, Classified as _};
use quillback::snapshot::{SnapshotError, SnapshotOptions, SnapshotReport};
use quillback::storage::{
    Fault, FaultyStorage, Operation, Rule, S3Config, S3Credentials, S3Storage, Storage, list_all,
};
use quillback_harness::{Minio, Server, Trio, until};

use crate::gate::Gate;
use crate::support::{exec_all, manifest, manifests, memory, on_primary, snapshot, url};

const LIMIT: Duration = Duration::from_secs(60);

const TABLES: [&str; 6] = [
    "CREATE DATABASE d",
    "CREATE TABLE d.a (id INT PRIMARY KEY, c INT)",
    "CREATE TABLE d.b (id INT PRIMARY KEY, c INT)",
    "CREATE TABLE d.empty (id INT PRIMARY KEY)",
    "INSERT INTO d.a VALUES (1, 1), (2, 2)",
    "INSERT INTO d.b VALUES (1, 10), (2, 20)",
];

/// Waits until nobody holds a lock that a snapshot takes.
async fn wait_unlocked(server: &Server) -> Result<()> {
    until("the locks to be gone", LIMIT, async || {
        let locks: u64 = server
            .one(
                "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                 WHERE OBJECT_TYPE = 'BACKUP LOCK' OR LOCK_DURATION = 'EXPLICIT'",
            )
            .await?;
        Ok((locks == 0).then_some(()))
    })
    .await
}

/// Every file that a manifest names is there, with its size.
async fn is_whole(storage: &dyn Storage, report: &SnapshotReport) -> Result<()> {
    let manifest = manifest(storage, report).await?;
    let scripts = manifest.schema.iter().chain([&manifest.accounts]);
    let rows = manifest.tables.iter().flat_map(|table| &table.files);
    for file in scripts
        .map(|script| &script.file)
        .chain(rows.map(|file| &file.file))
    {
        let key = file.key.in_snapshot(&manifest.id);
        ensure!(storage.size(&key).await? == file.stored_bytes, "{key}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_any_step_leaves_no_half_snapshot() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let servers = [url(&server)];
    let (mut step, mut failed) = (0, 0);
    loop {
        let inner = memory();
        let mut outcomes = Vec::new();
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ErrorAfter] {
            let faulty = FaultyStorage::new(Arc::clone(&inner))
                .with(Rule::new(fault).on_effects().after(step).times(1));
            let storage: Arc<dyn Storage> = Arc::new(faulty);
            let before = manifests(&*inner).await?.len();
            let taken = snapshot(&servers, &on_primary(), &storage).await;
            let now = manifests(&*inner).await?.len();
            match &taken {
                Ok(report) => {
                    is_whole(&*inner, report).await?;
                    ensure!(now == before + 1, "step {step}, {fault:?}");
                }
                Err(error) => {
                    assert_eq!(error.class(), Class::Transient, "{error:?}");
                    failed += 1;
                    // The manifest itself may have come through although its reply was lost.
                    let calls = Fault::CrashBefore == fault;
                    ensure!(!(calls && now > before), "step {step}, {fault:?}");
                    wait_unlocked(&server).await?;
                }
            }
            outcomes.push(taken.is_ok());
        }
        // The same store serves the next run, and what the others left is told apart.
        let report = snapshot(&servers, &on_primary(), &inner).await?;
        is_whole(&*inner, &report).await?;
        let keys: Vec<String> = list_all(&*inner, layout::SNAPSHOTS, None)
            .await?
            .into_iter()
            .map(|object| object.key)
            .collect();
        let later = chrono::Utc::now() + chrono::TimeDelta::hours(48);
        let left = orphans(
            keys.iter().map(String::as_str),
            later,
            chrono::TimeDelta::hours(24),
        );
        for orphan in &left {
            let has = keys.contains(&layout::snapshot_manifest(&orphan.id));
            ensure!(orphan.finished == has, "{orphan:?}");
            ensure!(orphan.id != report.id, "{orphan:?}");
        }
        if outcomes.iter().all(|ok| *ok) {
            break;
        }
        step += 1;
    }
    ensure!(step >= 8 && failed >= 20, "{step} steps, {failed} failures");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_midway() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let minio = Minio::start().await?;
    minio.create_bucket("archive")?;
    let env = minio.env();
    let of = |name: &str| {
        env.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .context("MinIO has credentials")
    };
    let mut config = S3Config::new("archive", "");
    config.endpoint = Some(minio.endpoint());
    config.region = Some(of("AWS_REGION")?);
    config.credentials = Some(S3Credentials {
        access_key_id: of("AWS_ACCESS_KEY_ID")?,
        secret_access_key: of("AWS_SECRET_ACCESS_KEY")?,
    });
    let store: Arc<dyn Storage> = Arc::new(S3Storage::connect(config).await?);
    let gate = Gate::new(Arc::clone(&store), "data/d/b/");
    let storage: Arc<dyn Storage> = gate.clone();
    let servers = [url(&server)];
    let options = on_primary();
    let stopping = gate.meanwhile(async || minio.kill9().await);
    let (taken, stopped) = tokio::join!(snapshot(&servers, &options, &storage), stopping);
    stopped?;
    let error = taken.expect_err("the store is gone");
    assert_eq!(error.class(), Class::Transient, "{error:?}");
    wait_unlocked(&server).await?;
    minio.start_again().await?;
    assert!(manifests(&*store).await?.is_empty());
    let report = snapshot(&servers, &options, &store).await?;
    is_whole(&*store, &report).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secondary_that_is_read_dies_and_the_next_run_takes_the_other() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    exec_all(primary, &TABLES).await?;
    let executed = primary.gtid_executed().await?;
    for member in trio.members() {
        member.wait_for_gtids(&executed, LIMIT).await?;
    }
    let servers: Vec<_> = trio.members().iter().map(url).collect();
    let options = SnapshotOptions {
        allow_primary: false,
        ..on_primary()
    };
    let (facts, _) = quillback::snapshot::load_facts(&servers, &options).await?;
    let chosen = facts.choice.member.address.to_string();
    let read = trio
        .members()
        .iter()
        .find(|member| member.address() == chosen)
        .expect("one of the three");
    let inner = memory();
    let gate = Gate::new(Arc::clone(&inner), "data/d/b/");
    let storage: Arc<dyn Storage> = gate.clone();
    let killing = gate.meanwhile(async || read.kill9().await);
    let (taken, killed) = tokio::join!(snapshot(&servers, &options, &storage), killing);
    killed?;
    let error = taken.expect_err("its server is dead");
    assert_eq!(error.class(), Class::Transient, "{error:?}");
    assert!(manifests(&*inner).await?.is_empty());

    let report = snapshot(&servers, &options, &inner).await?;
    let second = report.server.to_string();
    ensure!(second != chosen && second != primary.address(), "{second}");
    is_whole(&*inner, &report).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_of_the_manifest_is_a_failure_that_harms_nobody() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let inner = memory();
    let faulty = FaultyStorage::new(Arc::clone(&inner)).with(
        Rule::new(Fault::ErrorAfter)
            .on(Operation::Put)
            .at("manifest.json"),
    );
    let storage: Arc<dyn Storage> = Arc::new(faulty);
    let error = snapshot(&[url(&server)], &on_primary(), &storage)
        .await
        .expect_err("nobody knows whether it is there");
    assert_eq!(error.class(), Class::Transient);
    // It is there, and whole.
    let keys = manifests(&*inner).await?;
    let id = layout::parse_snapshot_manifest(&keys[0]).context("a manifest")?;
    let bytes = inner.get(&keys[0]).await?;
    let manifest: quillback::archive::manifest::Manifest = serde_json::from_slice(&bytes)?;
    assert_eq!(manifest.id, id);
    for table in &manifest.tables {
        for file in &table.files {
            let key = file.file.key.in_snapshot(&id);
            assert_eq!(inner.size(&key).await?, file.file.stored_bytes);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_snapshots_at_once_do_not_meet() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let inner = memory();
    let gate = Gate::new(Arc::clone(&inner), "data/d/b/");
    let first: Arc<dyn Storage> = gate.clone();
    let servers = [url(&server)];
    let options = on_primary();
    // The second begins and ends while the first stands still with its locks and views.
    let second = gate.meanwhile(async || Ok(snapshot(&servers, &options, &inner).await?));
    let (one, two) = tokio::join!(snapshot(&servers, &options, &first), second);
    let (one, two) = (one?, two?);
    ensure!(one.id != two.id);
    for report in [&one, &two] {
        is_whole(&*inner, report).await?;
        assert!(report.consistency.backup_lock);
    }
    assert_eq!(manifests(&*inner).await?.len(), 2);
    wait_unlocked(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let inner = memory();
    let gate = Gate::new(Arc::clone(&inner), "data/d/b/");
    let storage: Arc<dyn Storage> = gate.clone();
    let servers = [url(&server)];
    let options = on_primary();
    let hanging = async {
        gate.reached().await?;
        // The gate stays shut: only the watch can end this.
        server.pause()
    };
    let (taken, hung) = tokio::join!(snapshot(&servers, &options, &storage), hanging);
    hung?;
    server.resume()?;
    let error = taken.expect_err("its server does not answer");
    ensure!(
        matches!(error, SnapshotError::Unanswered { .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Transient);
    assert!(manifests(&*inner).await?.is_empty());
    wait_unlocked(&server).await
}
