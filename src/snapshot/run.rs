//! Carries a plan out: views, schema, rows, and at the very end the manifest.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive::layout::{self, SnapshotId};
use crate::archive::manifest::{
    Consistency, DdlGuard, Manifest, ManifestFormat, ScriptFile, SnapshotServer, TableEntry, Totals,
};
use crate::archive::progress::{PROGRESS_FORMAT, ViewRecord};
use crate::clock::Clock;
use crate::gtid::GtidSet;
use crate::mysql::schema::{self, Schema, Table};
use crate::mysql::wire::WireConnection;
use crate::mysql::{HostPort, ServerFacts, ServerUrl, Session};
use crate::observe::phase::{Phase, PhaseClock};
use crate::storage::{Storage, StorageError};

use super::consistency::ConsistentView;
use super::ddl::{self, KindScript};
use super::error::SnapshotError;
use super::history;
use super::opening::{Beginning, Opened};
use super::options::SnapshotSource;
use super::plan::SnapshotPlan;
pub use super::progress::SnapshotProgress;
use super::progress::Stage;
use super::resume::{self, Journal, ResumePlan, ResumeReport, Seen, TakenOver};
use super::tables::read_tables;
use super::warnings;
use super::watch::ddl_log::Scope;
use super::watch::{Asking, Watch};
use super::write::put_script;

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
    /// What came of the wish to go on with an unfinished snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeReport>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Takes the snapshot that the plan describes, from the server that `source` reaches.
///
/// # Errors
///
/// [`SnapshotError`]; the archive then holds no snapshot of this name.
pub async fn run(
    plan: &SnapshotPlan,
    source: &SnapshotSource,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    progress: Arc<SnapshotProgress>,
    cancel: &CancellationToken,
) -> Result<SnapshotReport, SnapshotError> {
    // Dropping the work closes its connections, and with them every lock and every upload.
    tokio::select! {
        () = cancel.cancelled() => Err(SnapshotError::Cancelled),
        done = take(plan, source, storage, clock, progress) => done,
    }
}

async fn take(
    plan: &SnapshotPlan,
    source: &SnapshotSource,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    progress: Arc<SnapshotProgress>,
) -> Result<SnapshotReport, SnapshotError> {
    let started = clock.now();
    let mut phases = PhaseClock::start();
    let url = &source.url;
    let mut control = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut control).await?;
    if facts.server_uuid != plan.server_uuid {
        return Err(SnapshotError::AnotherServer {
            server: facts.address.to_string(),
            found: facts.server_uuid.to_string(),
            planned: plan.server_uuid.to_string(),
        });
    }
    let (mut watch, asking) = Watch::begin(plan, url, &facts).await?;
    let scope = OnceLock::new();
    let reading = Reading {
        plan,
        url,
        facts: &facts,
        started,
        scope: &scope,
        asking,
        storage: &storage,
        progress: &progress,
        phases: &mut phases,
    };
    let read = tokio::select! {
        read = reading.run(control) => read,
        error = watch.run(&scope) => Err(error),
    };
    let read = match (read, scope.get()) {
        (Ok(read), Some(scope)) => {
            watch.see_all(scope).await?;
            read
        }
        (Ok(_), None) => return Err(SnapshotError::Task("there is no view".to_owned())),
        (Err(error), Some(scope)) if error.is_changed_table() => {
            // The statement that did it tells more than what the server says of the table.
            watch.see_all(scope).await?;
            return Err(error);
        }
        (Err(error), _) => return Err(error),
    };
    let mut again = Session::connect(url).await?;
    let after = schema::load(&mut again, &plan.filter).await?;
    again.close().await;
    if let Some(what) = watch.difference(&read.schema, &after) {
        return Err(SnapshotError::SchemaChanged { what });
    }
    let not_confirmed = history::confirm(plan, source, &read.view.gtid_executed).await?;
    let watched = watch.end().await;

    let mut warnings = plan.warnings.clone();
    warnings.extend(read.view.warnings);
    warnings.extend(warnings::of_schema(plan, &read.schema));
    warnings.extend(watched.warnings);
    warnings.extend(not_confirmed);
    let consistency = Consistency {
        method: read.view.method,
        attempts: read.view.attempts,
        global_lock_seconds: read.view.global_lock_seconds,
        backup_lock: watched.guards.contains(&DdlGuard::BackupLock),
        backup_lock_seconds: watched.backup_lock_seconds,
        ddl_wait_seconds: watched.ddl_wait_seconds,
        ddl_let_by: watched.let_by,
        ddl_guards: watched.guards,
    };
    let (mut schema_files, accounts) = read.scripts;
    let set = &read.view.gtid_executed;
    put_by_hand(&read.id, &read.tables, set, &mut schema_files, &*storage).await?;
    let manifest = Manifest {
        format: ManifestFormat::CURRENT,
        id: read.id,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started: read.started,
        finished: clock.now(),
        server: server_of(&facts, plan),
        gtid_executed: read.view.gtid_executed,
        consistency,
        threads: plan.threads,
        filter: plan.filter.clone(),
        totals: totals(&schema_files, &accounts, &read.tables),
        schema: schema_files,
        accounts,
        tables: read.tables,
        warnings,
        needs: ddl::needs(&read.schema),
        information: read.schema.information,
    };
    put_manifest(&manifest, &*storage).await?;
    read.journal.remove().await;
    phases.end("commit", 0);
    Ok(SnapshotReport {
        id: manifest.id,
        server: manifest.server.address,
        reasons: plan.reasons.clone(),
        gtid_executed: manifest.gtid_executed,
        consistency: manifest.consistency,
        totals: manifest.totals,
        phases: phases.finish(),
        resume: read.resume,
        warnings: manifest.warnings,
    })
}

/// What was read and stored.
struct Read {
    id: SnapshotId,
    started: DateTime<Utc>,
    schema: Schema,
    view: ConsistentView,
    scripts: (Vec<ScriptFile>, ScriptFile),
    tables: Vec<TableEntry>,
    journal: Arc<Journal>,
    resume: Option<ResumeReport>,
}

/// Reads schema and rows, while [`Watch`] looks after it.
struct Reading<'a> {
    plan: &'a SnapshotPlan,
    url: &'a ServerUrl,
    facts: &'a ServerFacts,
    started: DateTime<Utc>,
    /// Set once the views are open.
    scope: &'a OnceLock<Scope>,
    asking: Asking,
    storage: &'a Arc<dyn Storage>,
    progress: &'a Arc<SnapshotProgress>,
    phases: &'a mut PhaseClock,
}

impl Reading<'_> {
    async fn run(self, mut control: Session) -> Result<Read, SnapshotError> {
        let plan = self.plan;
        let beginning = Beginning {
            plan,
            url: self.url,
            facts: self.facts,
            asking: &self.asking,
            progress: self.progress,
        };
        let Opened { schema, view } = beginning.open(&mut control, self.phases).await?;
        let (taken, resume) = self.take_over(&mut control, &schema, &view).await?;
        control.close().await;
        tracing::info!(gtid_executed = %view.gtid_executed, method = %view.method, "the view is open");
        let tables = schema.tables.iter();
        // It is set here only.
        let _ = self.scope.set(Scope {
            view: view.gtid_executed.clone(),
            tables: tables
                .map(|table| (table.database.clone(), table.name.clone()))
                .collect(),
            filter: plan.filter.clone(),
            fold_case: self.facts.lower_case_table_names != 0,
            connections: view
                .readers
                .iter()
                .map(WireConnection::connection_id)
                .collect(),
        });
        self.phases.end("lock", 0);

        let (id, started) = match &taken {
            Some(taken) => (taken.id.clone(), taken.started),
            None => (plan.id.clone(), self.started),
        };
        let plan = &SnapshotPlan { id, ..plan.clone() };
        let journal = Arc::new(Journal::begin(self.storage, &plan.id, taken.as_ref()));
        let (scripts, done) = match taken {
            Some(taken) => (taken.scripts, taken.tables),
            None => {
                let scripts = put_scripts(plan, &schema, &**self.storage).await?;
                let record = self.record(plan, &schema, &view, &scripts);
                journal.put_view(&record).await?;
                (scripts, Vec::new())
            }
        };
        let is_done = |table: &Table| {
            done.iter()
                .any(|done| done.database == table.database && done.name == table.name)
        };
        for table in &done {
            self.progress.skip(&table.display_name());
        }
        let rest = Schema {
            tables: schema
                .tables
                .iter()
                .filter(|table| !is_done(table))
                .cloned()
                .collect(),
            ..schema.clone()
        };
        self.progress.enter(Stage::Rows);
        let (mut tables, view) =
            read_tables(plan, &rest, view, self.storage, self.progress, &journal).await?;
        tables.extend(done);
        tables.sort_by(|a, b| (&a.database, &a.name).cmp(&(&b.database, &b.name)));
        self.progress.enter(Stage::End);
        self.phases.end("data", self.progress.raw_bytes());
        Ok(Read {
            id: plan.id.clone(),
            started,
            schema,
            view,
            scripts,
            tables,
            journal,
            resume,
        })
    }

    /// What a dead run has left, if this one sees the same; and what is to be told of it.
    async fn take_over(
        &self,
        control: &mut Session,
        schema: &Schema,
        view: &ConsistentView,
    ) -> Result<(Option<TakenOver>, Option<ResumeReport>), SnapshotError> {
        let id = match &self.plan.resume {
            None => return Ok((None, None)),
            Some(ResumePlan::Anew(why)) => {
                return Ok((None, Some(ResumeReport::Anew(why.clone()))));
            }
            Some(ResumePlan::From(id)) => id,
        };
        let seen = Seen {
            gtid_executed: &view.gtid_executed,
            schema,
        };
        Ok(
            match resume::take_over(&**self.storage, control, id, &seen).await? {
                Ok(taken) => {
                    let report = taken.report();
                    (Some(taken), Some(report))
                }
                Err(why) => (None, Some(ResumeReport::Anew(why))),
            },
        )
    }

    fn record(
        &self,
        plan: &SnapshotPlan,
        schema: &Schema,
        view: &ConsistentView,
        (schema_files, accounts): &(Vec<ScriptFile>, ScriptFile),
    ) -> ViewRecord {
        ViewRecord {
            format: PROGRESS_FORMAT,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            id: plan.id.clone(),
            started: self.started,
            address: plan.server.clone(),
            server_uuid: plan.server_uuid,
            connections: view
                .readers
                .iter()
                .map(WireConnection::connection_id)
                .collect(),
            gtid_executed: view.gtid_executed.clone(),
            schema_sha256: resume::schema_digest(schema),
            filter: plan.filter.clone(),
            schema: schema_files.clone(),
            accounts: accounts.clone(),
        }
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
    let (scripts, accounts) = (ddl::scripts(schema), ddl::accounts(schema));
    let put =
        async |script: &KindScript, key: String| put_script(storage, &plan.id, &key, script).await;
    // There are fewer than twenty, and each waits for the store.
    let files = try_join_all(scripts.iter().map(|script| {
        let key = layout::snapshot_schema(&plan.id, script.kind.file_name());
        put(script, key)
    }));
    try_join(files, put(&accounts, layout::snapshot_accounts(&plan.id))).await
}

/// Stores what is known only once the rows are, and puts it in its place among the others.
async fn put_by_hand(
    id: &SnapshotId,
    tables: &[TableEntry],
    gtid_executed: &GtidSet,
    files: &mut Vec<ScriptFile>,
    storage: &dyn Storage,
) -> Result<(), SnapshotError> {
    for script in ddl::by_hand(tables, gtid_executed) {
        let key = layout::snapshot_schema(id, script.kind.file_name());
        let put = put_script(storage, id, &key, &script).await;
        files.push(match put {
            // A run that died at its very end, and that this one has gone on with, left it there. Nothing
            // names it, and whoever restores by hand runs every script that is there.
            Err(SnapshotError::Storage(StorageError::AlreadyExists { .. })) => {
                storage.delete(&key).await?;
                put_script(storage, id, &key, &script).await?
            }
            put => put?,
        });
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
