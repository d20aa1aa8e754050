//! Carries a plan out: views, schema, rows, and at the very end the manifest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive::layout::{self, SnapshotId};
use crate::archive::manifest::{
    Consistency, Manifest, ManifestFormat, ScriptFile, SnapshotServer, TableEntry, Totals,
};
use crate::clock::Clock;
use crate::gtid::GtidSet;
use crate::mysql::schema::{self, Schema};
use crate::mysql::{HostPort, ServerFacts, ServerUrl, Session};
use crate::observe::phase::{Phase, PhaseClock};
use crate::storage::Storage;

use super::changes;
use super::consistency::{self, ConsistentView};
use super::ddl;
use super::error::SnapshotError;
use super::plan::SnapshotPlan;
use super::selection::refuse_other_engines;
use super::tables::read_tables;
use super::warnings;
use super::write::put_script;

/// `lock_wait_timeout` of LOCK INSTANCE FOR BACKUP, in seconds: DDL that runs now may end first.
const BACKUP_LOCK_WAIT: u64 = 30;
/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// How far a running snapshot is; read it at any time.
#[derive(Debug, Default)]
pub struct SnapshotProgress {
    rows: AtomicU64,
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    tables: AtomicU64,
}

impl SnapshotProgress {
    pub(super) fn add(&self, rows: u64, raw_bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.raw_bytes.fetch_add(raw_bytes, Ordering::Relaxed);
    }

    pub(super) fn add_stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One more part of a table is done.
    pub(super) fn add_chunk(&self) {
        self.tables.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows read so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes of rows before compression so far.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes.load(Ordering::Relaxed)
    }

    /// Bytes handed to the store so far.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Parts of tables that are done.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }
}

/// What a snapshot did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// The snapshot's name.
    pub id: SnapshotId,
    /// The server that was read.
    pub server: HostPort,
    /// Why it was that server.
    pub reasons: Vec<String>,
    /// The transactions that the snapshot holds.
    pub gtid_executed: GtidSet,
    /// How all connections came to see them.
    pub consistency: Consistency,
    /// Sums over all files.
    pub totals: Totals,
    /// The phases with their times.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Takes the snapshot that the plan describes, from the server at `url`.
///
/// # Errors
///
/// [`SnapshotError`]; the archive then holds no snapshot of this name.
pub async fn run(
    plan: &SnapshotPlan,
    url: &ServerUrl,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    progress: Arc<SnapshotProgress>,
    cancel: &CancellationToken,
) -> Result<SnapshotReport, SnapshotError> {
    // Dropping the work closes its connections, and with them every lock and every upload.
    tokio::select! {
        () = cancel.cancelled() => Err(SnapshotError::Cancelled),
        done = take(plan, url, storage, clock, progress) => done,
    }
}

async fn take(
    plan: &SnapshotPlan,
    url: &ServerUrl,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    progress: Arc<SnapshotProgress>,
) -> Result<SnapshotReport, SnapshotError> {
    let started = clock.now();
    let mut phases = PhaseClock::start();
    let mut control = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut control).await?;
    if facts.server_uuid != plan.server_uuid {
        return Err(SnapshotError::AnotherServer {
            server: facts.address.to_string(),
            found: facts.server_uuid.to_string(),
            planned: plan.server_uuid.to_string(),
        });
    }
    let backup_lock = match plan.backup_lock {
        true => Some(BackupLock::take(url).await?),
        false => None,
    };
    let mut reader = Session::connect(url).await?;
    let mut schema = schema::load(&mut reader, &plan.filter).await?;
    if !plan.allow_non_innodb {
        refuse_other_engines(schema.tables.iter().map(|table| {
            (
                table.database.as_str(),
                table.name.as_str(),
                table.engine.as_str(),
            )
        }))?;
    }
    phases.end("schema", 0);

    let view = consistency::open(url, &mut control, plan.threads, plan.lock).await?;
    control.close().await;
    schema::refresh_auto_increments(&mut reader, &mut schema).await?;
    tracing::info!(gtid_executed = %view.gtid_executed, method = %view.method, "the view is open");
    phases.end("lock", 0);

    let mut warnings = plan.warnings.clone();
    warnings.extend(view.warnings.iter().cloned());
    warnings.extend(warnings::of_schema(plan, &schema));
    let scripts = put_scripts(plan, &schema, &*storage).await?;
    let (tables, view) = read_tables(plan, &schema, view, &storage, &progress).await?;
    phases.end("data", progress.raw_bytes());

    let after = schema::load(&mut reader, &plan.filter).await?;
    reader.close().await;
    if let Some(what) = changes::difference(&schema, &after) {
        return Err(SnapshotError::SchemaChanged { what });
    }
    let consistency = Consistency {
        method: view.method,
        attempts: view.attempts,
        global_lock_seconds: view.global_lock_seconds,
        backup_lock: backup_lock.is_some(),
        backup_lock_seconds: match backup_lock {
            Some(lock) => lock.release().await,
            None => 0.0,
        },
    };
    let (mut schema_files, accounts) = scripts;
    put_by_hand(plan, &tables, &view, &mut schema_files, &*storage).await?;
    let manifest = Manifest {
        format: ManifestFormat::CURRENT,
        id: plan.id.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        finished: clock.now(),
        server: server_of(&facts, plan),
        gtid_executed: view.gtid_executed,
        consistency,
        threads: plan.threads,
        filter: plan.filter.clone(),
        totals: totals(&schema_files, &accounts, &tables),
        schema: schema_files,
        accounts,
        tables,
        warnings,
        needs: ddl::needs(&schema),
        information: schema.information,
    };
    put_manifest(&manifest, &*storage).await?;
    phases.end("commit", 0);
    Ok(SnapshotReport {
        id: manifest.id,
        server: manifest.server.address,
        reasons: plan.reasons.clone(),
        gtid_executed: manifest.gtid_executed,
        consistency: manifest.consistency,
        totals: manifest.totals,
        phases: phases.finish(),
        warnings: manifest.warnings,
    })
}

/// LOCK INSTANCE FOR BACKUP on a connection of its own.
struct BackupLock {
    session: Session,
    since: Instant,
}

impl BackupLock {
    async fn take(url: &ServerUrl) -> Result<Self, SnapshotError> {
        let mut session = Session::connect(url).await?;
        session
            .execute(format!(
                "SET SESSION lock_wait_timeout = {BACKUP_LOCK_WAIT}, wait_timeout = 604800"
            ))
            .await?;
        match session.execute("LOCK INSTANCE FOR BACKUP").await {
            Ok(_) => Ok(Self {
                session,
                since: Instant::now(),
            }),
            Err(error) if error.code() == Some(LOCK_WAIT_TIMEOUT) => Err(SnapshotError::LockBusy {
                lock: "LOCK INSTANCE FOR BACKUP",
                attempts: 1,
                seconds: BACKUP_LOCK_WAIT,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the lock back and tells for how many seconds it was held.
    async fn release(self) -> f64 {
        self.session.close().await;
        self.since.elapsed().as_secs_f64()
    }
}

fn server_of(facts: &ServerFacts, plan: &SnapshotPlan) -> SnapshotServer {
    SnapshotServer {
        address: facts.address.clone(),
        server_uuid: facts.server_uuid,
        server_id: facts.server_id,
        version: facts.version.clone(),
        role: plan.role,
        lower_case_table_names: facts.lower_case_table_names,
        character_set_server: facts.character_set_server.clone(),
        collation_server: facts.collation_server.clone(),
    }
}

async fn put_scripts(
    plan: &SnapshotPlan,
    schema: &Schema,
    storage: &dyn Storage,
) -> Result<(Vec<ScriptFile>, ScriptFile), SnapshotError> {
    let mut files = Vec::new();
    for script in ddl::scripts(schema) {
        let key = layout::snapshot_schema(&plan.id, script.kind.file_name());
        files.push(put_script(storage, &plan.id, &key, &script).await?);
    }
    let key = layout::snapshot_accounts(&plan.id);
    let accounts = put_script(storage, &plan.id, &key, &ddl::accounts(schema)).await?;
    Ok((files, accounts))
}

/// Stores what is known only once the rows are, and puts it in its place among the others.
async fn put_by_hand(
    plan: &SnapshotPlan,
    tables: &[TableEntry],
    view: &ConsistentView,
    files: &mut Vec<ScriptFile>,
    storage: &dyn Storage,
) -> Result<(), SnapshotError> {
    for script in ddl::by_hand(tables, &view.gtid_executed) {
        let key = layout::snapshot_schema(&plan.id, script.kind.file_name());
        files.push(put_script(storage, &plan.id, &key, &script).await?);
    }
    files.sort_by_key(|file| file.kind.file_name());
    Ok(())
}

fn totals(schema: &[ScriptFile], accounts: &ScriptFile, tables: &[TableEntry]) -> Totals {
    let mut totals = Totals::default();
    for script in schema.iter().chain([accounts]) {
        totals.add(&script.file);
    }
    for table in tables {
        totals.tables += 1;
        totals.rows += table.rows;
        for file in &table.files {
            totals.add(&file.file);
        }
    }
    totals
}

async fn put_manifest(manifest: &Manifest, storage: &dyn Storage) -> Result<(), SnapshotError> {
    let mut json = serde_json::to_vec_pretty(manifest).map_err(SnapshotError::Json)?;
    json.push(b'\n');
    let key = layout::snapshot_manifest(&manifest.id);
    storage.put_if_absent(&key, Bytes::from(json)).await?;
    Ok(())
}
