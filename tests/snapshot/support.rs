//! What these tests share: taking a snapshot, loading it, reading a server without Quillback.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Row, Value};
use quillback::archive::layout;
use quillback::archive::manifest::Manifest;
use quillback::clock::{Clock as _, SystemClock};
use quillback::mysql::ServerUrl;
use quillback::restore::load::{LoadError, LoadOptions, LoadReport, load};
use quillback::snapshot::{
    SnapshotError, SnapshotOptions, SnapshotPlan, SnapshotProgress, SnapshotReport, load_facts,
};
use quillback::storage::{MemoryStorage, Storage, list_all};
use quillback_harness::Server;
use tokio_util::sync::CancellationToken;

/// The URL of a server of the harness.
pub(crate) fn url(server: &Server) -> ServerUrl {
    server.url().parse().expect("the harness gives good URLs")
}

/// An empty store.
pub(crate) fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

/// Options for a server without fellows.
pub(crate) fn on_primary() -> SnapshotOptions {
    SnapshotOptions {
        allow_primary: true,
        ..SnapshotOptions::default()
    }
}

/// Plans and takes a snapshot.
pub(crate) async fn snapshot(
    servers: &[ServerUrl],
    options: &SnapshotOptions,
    storage: &Arc<dyn Storage>,
) -> Result<SnapshotReport, SnapshotError> {
    let (facts, url) = load_facts(servers, options).await?;
    let random = u32::from_le_bytes(
        uuid::Uuid::new_v4().as_bytes()[..4]
            .try_into()
            .expect("four bytes"),
    );
    let plan = SnapshotPlan::compute(&facts, options, SystemClock.now(), random)?;
    quillback::snapshot::run(
        &plan,
        &url,
        Arc::clone(storage),
        Arc::new(SystemClock),
        Arc::new(SnapshotProgress::default()),
        &CancellationToken::new(),
    )
    .await
}

/// Reads a snapshot's manifest back from the store.
pub(crate) async fn manifest(storage: &dyn Storage, report: &SnapshotReport) -> Result<Manifest> {
    let bytes = storage.get(&layout::snapshot_manifest(&report.id)).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// What is done for the sake of large tables and snapshots is done for all of them here.
pub(crate) fn as_if_large() -> LoadOptions {
    LoadOptions {
        redo_log_off_from: 0,
        defer_indexes_from: 0,
        ..LoadOptions::default()
    }
}

/// Loads a snapshot into a server.
pub(crate) async fn load_into(
    target: &Server,
    storage: &Arc<dyn Storage>,
    manifest: &Manifest,
) -> Result<LoadReport, LoadError> {
    load(&url(target), Arc::clone(storage), manifest, &as_if_large()).await
}

/// Every manifest that is in the store.
pub(crate) async fn manifests(storage: &dyn Storage) -> Result<Vec<String>> {
    let objects = list_all(storage, layout::SNAPSHOTS, None).await?;
    Ok(objects
        .into_iter()
        .map(|object| object.key)
        .filter(|key| layout::parse_snapshot_manifest(key).is_some())
        .collect())
}

/// Runs statements one by one over one connection.
pub(crate) async fn exec_all(server: &Server, statements: &[&str]) -> Result<()> {
    let mut conn = server.conn().await?;
    conn.query_drop("SET NAMES utf8mb4").await?;
    for statement in statements {
        conn.query_drop(*statement)
            .await
            .with_context(|| format!("at {statement}"))?;
    }
    conn.disconnect().await?;
    Ok(())
}

/// Every row of an answer as raw values, sorted, over a connection that is not Quillback's.
pub(crate) async fn raw_rows(server: &Server, sql: &str) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut conn = server.conn().await?;
    conn.query_drop(
        "SET SESSION character_set_results = binary, time_zone = '+00:00', sql_mode = '', \
         information_schema_stats_expiry = 0",
    )
    .await?;
    let rows: Vec<Row> = conn.query(sql).await?;
    conn.disconnect().await?;
    let mut rows: Vec<Vec<Vec<u8>>> = rows
        .into_iter()
        .map(|row| {
            row.unwrap_raw()
                .into_iter()
                .map(|value| match value {
                    Some(Value::Bytes(bytes)) => [b"=", &bytes[..]].concat(),
                    Some(other) => format!("{other:?}").into_bytes(),
                    None => b"taken".to_vec(),
                })
                .collect()
        })
        .collect();
    rows.sort();
    Ok(rows)
}
