//! The load of a snapshot into an empty server.
//!
//! Order: what belongs to no schema, schemas and tables, the indexes of large tables dropped, rows,
//! those indexes built, statistics, accounts, histograms, routines, grants and views, triggers,
//! events, which schemas are read-only, and last `gtid_purged`. Nothing goes to the target's binlog.
//! The invariant: rows of a file are committed only after the file's SHA-256, size and rows were
//! found to be the manifest's, so a damaged or cut file never leaves rows behind (but in an engine
//! without transactions); and a target whose load did not end has no `gtid_purged`.
//!
//! Settings of the whole server that the load changes are put back as they were, whatever it ends
//! with; only the event scheduler stays off: the caller puts it back
//! ([`LoadReport::event_scheduler`]) once the replay is over. With a journal on the target ([`steps`])
//! a load that was killed can go on.

mod accounts;
mod analyze;
mod data;
mod error;
mod error_values;
mod fetch;
mod globals;
mod indexes;
pub(super) mod parts;
pub(super) mod preflight;
mod queue;
mod scripts;
mod session;
pub mod steps;
mod tables;
mod views;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::script::Script;
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::{MysqlError, ServerUrl, Session, TargetFacts, quote};
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::observe::phase::{Phase, PhaseClock};
use crate::storage::Storage;

use globals::Globals;
use scripts::ScriptRunner;
use steps::{Stage, Steps};
use tables::Tables;

pub use error::LoadError;
pub use globals::put_back;

/// Raw bytes of a table from which on its indexes wait for its rows (docs/PERFORMANCE.md).
pub const DEFER_INDEXES_FROM: u64 = 4 << 20;
/// Raw bytes of a snapshot from which on the redo log is switched off for its load. It begins to pay
/// at a quarter of that; but what it saves there is half a second, and its price is that the server
/// must not crash meanwhile.
pub const REDO_LOG_OFF_FROM: u64 = 64 << 20;
/// How long putting settings back may take after a failure.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Who is told how far a load is: rows sent, and rows in all.
pub type LoadObserver = Arc<dyn Fn(u64, u64) + Send + Sync>;
/// Who is told that a phase begins: `load`, and `index` once the rows are there.
pub type PhaseObserver = Arc<dyn Fn(&'static str) + Send + Sync>;

/// How to load.
#[derive(Clone)]
pub struct LoadOptions {
    /// Connections that load rows at once, and threads that build indexes.
    pub threads: usize,
    /// Leaves the redo log on. While it is off, a crash of the target makes it useless.
    pub keep_redo_log: bool,
    /// Raw bytes of a snapshot from which on switching it off pays.
    pub redo_log_off_from: u64,
    /// Raw bytes of a table from which on it pays to build its secondary indexes after its rows.
    pub defer_indexes_from: u64,
    /// Whether [`steps::DONE_TABLE`] is on the target, for this load to write down what is done.
    pub journal: bool,
    /// Whether what is loaded goes to the target's binlog.
    pub logged: bool,
    /// Whether to go on with what is written down there.
    pub resume: bool,
    /// Asks the load to stop.
    pub cancel: CancellationToken,
    /// Where the load tells how far it is.
    pub progress: LoadObserver,
    /// Where it tells what it begins.
    pub phase: PhaseObserver,
    /// Where a test may end the load.
    pub fail_points: FailPoints,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            keep_redo_log: false,
            redo_log_off_from: REDO_LOG_OFF_FROM,
            defer_indexes_from: DEFER_INDEXES_FROM,
            journal: false,
            logged: false,
            resume: false,
            cancel: CancellationToken::new(),
            progress: Arc::new(|_, _| {}),
            phase: Arc::new(|_| {}),
            fail_points: FailPoints::default(),
        }
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("threads", &self.threads)
            .field("keep_redo_log", &self.keep_redo_log)
            .field("defer_indexes_from", &self.defer_indexes_from)
            .field("journal", &self.journal)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}

/// What a load did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Tables loaded.
    pub tables: u64,
    /// Rows loaded, those of an earlier run that was gone on with among them.
    pub rows: u64,
    /// Bytes of rows before compression.
    pub raw_bytes: u64,
    /// Bytes of objects read for them by this run.
    pub stored_bytes: u64,
    /// Indexes that were built after the rows, by this run.
    pub indexes: u64,
    /// The target's `gtid_executed` at the end: the snapshot's set.
    pub gtid_executed: GtidSet,
    /// What `event_scheduler` was before it was switched off.
    pub event_scheduler: String,
    /// The phases with their times; `indexes` is that of building them.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl LoadReport {
    /// The seconds of a phase.
    #[must_use]
    pub fn seconds(&self, phase: &str) -> f64 {
        let of = self.phases.iter().filter(|of| of.phase == phase);
        of.map(|of| of.seconds).sum()
    }
}

/// The accounts of a snapshot, as the script that makes them.
///
/// # Errors
///
/// [`LoadError`] if it cannot be read or is damaged.
pub async fn accounts(storage: &dyn Storage, manifest: &Manifest) -> Result<Script, LoadError> {
    fetch::script(storage, &manifest.id, &manifest.accounts).await
}

/// Loads the snapshot into the empty server at `target`.
///
/// # Errors
///
/// [`LoadError`]; after [`LoadError::NotEmpty`] and its like nothing was changed, after any other
/// the target is unfinished: it must be wiped before another try, unless there is a journal to go
/// on with.
pub async fn load(
    target: &ServerUrl,
    storage: Arc<dyn Storage>,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<LoadReport, LoadError> {
    let mut control = session::open(target, options.logged).await?;
    let facts = TargetFacts::load(&mut control).await?;
    let steps = if options.journal || options.resume {
        Steps::open(&mut control).await?
    } else {
        Steps::in_memory()
    };
    preflight::check(&mut control, &facts, manifest, options).await?;
    let mut run = Run {
        target,
        storage,
        manifest,
        options,
        facts,
        steps,
        globals: Globals::default(),
        warnings: Vec::new(),
    };
    // Dropping the work closes its connections, which rolls back what is not committed.
    let outcome = tokio::select! {
        () = options.cancel.cancelled() => Err(LoadError::Cancelled),
        done = run.all(control) => done,
    };
    if outcome.is_err() {
        run.give_up().await;
    }
    outcome
}

/// A load with all that it works with.
struct Run<'a> {
    target: &'a ServerUrl,
    storage: Arc<dyn Storage>,
    manifest: &'a Manifest,
    options: &'a LoadOptions,
    facts: TargetFacts,
    steps: Steps,
    globals: Globals,
    warnings: Vec<String>,
}

impl Run<'_> {
    async fn all(&mut self, mut control: Session) -> Result<LoadReport, LoadError> {
        let (manifest, options) = (self.manifest, self.options);
        let mut phases = PhaseClock::start();
        if self.steps.has(Stage::Loaded) {
            return self.loaded_before(control, phases).await;
        }
        (options.phase)("load");
        self.globals
            .change(&mut control, &self.facts, manifest, options, &self.steps)
            .await?;
        // Every script is fetched and checked before the first statement runs.
        let scripts = fetch::scripts(&*self.storage, manifest).await?;
        let accounts = fetch::script(&*self.storage, &manifest.id, &manifest.accounts).await?;
        let (target, storage) = (self.target, Arc::clone(&self.storage));
        let steps = self.steps.clone();
        let tables = Tables::new(target, &storage, (manifest, &scripts), options, &steps);
        let kinds = [
            ScriptKind::Tablespaces,
            ScriptKind::SpatialReferenceSystems,
            ScriptKind::LoadableFunctions,
            ScriptKind::ResourceGroups,
            ScriptKind::Servers,
            ScriptKind::Databases,
            ScriptKind::Tables,
        ];
        let warnings = &mut self.warnings;
        tables.make(&mut control, &kinds, warnings).await?;
        phases.end("schema", 0);
        let loaded = tables.fill(&mut control).await?;
        self.warnings.extend(loaded.warnings);
        phases.end("data", loaded.stored_bytes);
        let built = tables.index(&mut control).await?;
        phases.end("indexes", 0);
        if !steps.has(Stage::Analyzed) {
            let told = analyze::analyze(target, manifest, options).await?;
            self.warnings.extend(told);
            steps.reach(&mut control, Stage::Analyzed).await?;
        }
        phases.end("statistics", 0);
        // What was changed without it goes to the disk now.
        self.globals.redo_on(&mut control, &steps).await?;
        phases.end("flush", 0);

        if !steps.has(Stage::Objects) {
            self.objects(&mut control, &scripts, &accounts).await?;
            options.fail_points.pass(FailPoint::LoadObjects);
            steps.reach(&mut control, Stage::Objects).await?;
        }
        let mut runner = self.runner(&mut control, &scripts);
        runner.kinds(&[ScriptKind::ReadOnly]).await?;
        phases.end("objects", 0);

        let wanted = &manifest.gtid_executed;
        let gtid_executed = set_gtids(&mut control, &self.facts, wanted).await?;
        options.fail_points.pass(FailPoint::LoadGtids);
        self.globals.put_back(&mut control, &steps).await?;
        steps.reach(&mut control, Stage::Loaded).await?;
        control.close().await;
        phases.end("gtids", 0);
        Ok(LoadReport {
            tables: manifest.tables.len() as u64,
            rows: loaded.rows,
            raw_bytes: loaded.raw_bytes,
            stored_bytes: loaded.stored_bytes,
            indexes: built,
            gtid_executed,
            event_scheduler: self.globals.event_scheduler.clone(),
            phases: phases.finish(),
            warnings: std::mem::take(&mut self.warnings),
        })
    }

    /// An earlier run came to the end of its load.
    async fn loaded_before(
        &mut self,
        mut control: Session,
        phases: PhaseClock,
    ) -> Result<LoadReport, LoadError> {
        let manifest = self.manifest;
        let gtid_executed = gtid_executed(&mut control).await?;
        self.globals.know(&self.facts, &self.steps);
        control.close().await;
        Ok(LoadReport {
            tables: manifest.tables.len() as u64,
            rows: manifest.totals.rows,
            raw_bytes: manifest.totals.raw_bytes,
            stored_bytes: 0,
            indexes: 0,
            gtid_executed,
            event_scheduler: self.globals.event_scheduler.clone(),
            phases: phases.finish(),
            warnings: Vec::new(),
        })
    }

    /// What is made around the rows.
    async fn objects(
        &mut self,
        control: &mut Session,
        scripts: &[(ScriptKind, Script)],
        accounts: &Script,
    ) -> Result<(), LoadError> {
        let mut accounts = accounts::Accounts::plan(control, accounts).await?;
        accounts.create_new(control).await?;
        let mut runner = self.runner(control, scripts);
        runner
            .kinds(&[ScriptKind::Histograms, ScriptKind::Routines])
            .await?;
        accounts.grant(runner.session).await?;
        runner.views(&mut accounts).await?;
        runner
            .kinds(&[ScriptKind::Triggers, ScriptKind::Events])
            .await?;
        accounts.finish(control).await?;
        self.warnings.append(&mut accounts.warnings);
        Ok(())
    }

    fn runner<'r>(
        &'r mut self,
        session: &'r mut Session,
        scripts: &'r [(ScriptKind, Script)],
    ) -> ScriptRunner<'r> {
        ScriptRunner {
            again: self.options.resume,
            session,
            scripts,
            warnings: &mut self.warnings,
        }
    }

    /// Puts the server's settings back after a failure, if it can be reached.
    async fn give_up(&self) {
        let putting_back = async {
            let mut session = Session::connect(self.target).await?;
            self.globals.give_up(&mut session, &self.steps).await?;
            session.close().await;
            Ok::<_, MysqlError>(())
        };
        match tokio::time::timeout(GIVE_UP, putting_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the settings of {} could not be put back",
                self.facts.server.address
            ),
            Err(_) => tracing::warn!(
                "putting the settings of {} back takes too long",
                self.facts.server.address
            ),
        }
    }
}

/// Makes the target's GTIDs the snapshot's; its own, of before the load, are forgotten.
async fn set_gtids(
    control: &mut Session,
    facts: &TargetFacts,
    wanted: &GtidSet,
) -> Result<GtidSet, LoadError> {
    let found = gtid_executed(control).await?;
    if found == *wanted {
        return Ok(found);
    }
    if !found.is_empty() {
        control
            .execute(facts.server.version.reset_binlogs_statement())
            .await?;
    }
    let text = wanted.to_string().replace(['\n', ' '], "");
    control
        .execute(format!("SET GLOBAL gtid_purged = {}", quote::string(&text)))
        .await?;
    let found = gtid_executed(control).await?;
    if found == *wanted {
        Ok(found)
    } else {
        Err(LoadError::OtherGtids {
            server: facts.server.address.to_string(),
            found,
            wanted: wanted.clone(),
        })
    }
}
