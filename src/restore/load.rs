//! The load of a snapshot into an empty server.
//!
//! Order: what belongs to no schema, schemas and tables, rows, accounts, histograms, routines, grants
//! and views, triggers, events, which schemas are read-only, and last `gtid_purged`. Nothing goes to the
//! target's binlog. The invariant: rows of a file are committed only after the file's SHA-256, size
//! and rows were found to be the manifest's, so a damaged or cut file never leaves rows behind (but
//! in an engine without transactions); and a target whose load did not end has no `gtid_purged`.
//!
//! The event scheduler is switched off and stays off: the caller puts it back
//! ([`LoadReport::event_scheduler`]) once the replay is over.

mod accounts;
mod data;
mod error;
mod error_values;
mod fetch;
mod preflight;
mod scripts;
mod session;
mod views;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::script::Script;
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::{ServerUrl, Session, TargetFacts, quote};
use crate::observe::fail_point::FailPoints;
use crate::observe::phase::{Phase, PhaseClock};
use crate::storage::Storage;

use scripts::ScriptRunner;

pub use error::LoadError;

/// What a server may be sent at most: a row of the source may be as large.
const PACKET_BYTES: u64 = 1 << 30;

/// Who is told how far a load is: rows sent, and rows in all.
pub type LoadObserver = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to load.
#[derive(Clone)]
pub struct LoadOptions {
    /// Connections that load rows at once.
    pub threads: usize,
    /// Asks the load to stop.
    pub cancel: CancellationToken,
    /// Where the load tells how far it is.
    pub progress: LoadObserver,
    /// Whether an earlier run may have done some of it: then the server need not be empty, and the
    /// journal's table of steps says what is done.
    pub resume: bool,
    /// Whether the server's redo log stays on.
    pub keep_redo_log: bool,
    /// Where a test may end the run.
    pub fail_points: FailPoints,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            cancel: CancellationToken::new(),
            progress: Arc::new(|_, _| {}),
            resume: false,
            keep_redo_log: false,
            fail_points: FailPoints::default(),
        }
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// What a load did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Tables loaded.
    pub tables: u64,
    /// Rows loaded.
    pub rows: u64,
    /// Bytes of rows before compression.
    pub raw_bytes: u64,
    /// Bytes of objects read for them.
    pub stored_bytes: u64,
    /// The target's `gtid_executed` at the end: the snapshot's set.
    pub gtid_executed: GtidSet,
    /// What `event_scheduler` was before it was switched off.
    pub event_scheduler: String,
    /// The phases with their times.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub warnings: Vec<String>,
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
/// the target is unfinished and must be wiped before another try.
pub async fn load(
    target: &ServerUrl,
    storage: Arc<dyn Storage>,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<LoadReport, LoadError> {
    // Dropping the work closes its connections, which rolls back what is not committed.
    tokio::select! {
        () = options.cancel.cancelled() => Err(LoadError::Cancelled),
        done = run(target, storage, manifest, options) => done,
    }
}

async fn run(
    target: &ServerUrl,
    storage: Arc<dyn Storage>,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<LoadReport, LoadError> {
    let mut phases = PhaseClock::start();
    let mut control = Session::connect(target).await?;
    control.set_timeout(None);
    let facts = TargetFacts::load(&mut control).await?;
    preflight::check(&mut control, &facts, manifest, options.resume).await?;
    let mut warnings = Vec::new();
    quiet(&mut control, &facts).await?;
    session::prepare(&mut control).await?;
    // Every script is fetched and checked before the first statement runs.
    let scripts = fetch::scripts(&*storage, manifest).await?;
    let accounts = fetch::script(&*storage, &manifest.id, &manifest.accounts).await?;
    let mut run = ScriptRunner {
        session: &mut control,
        scripts: &scripts,
        warnings: &mut warnings,
    };
    run.kinds(&[
        ScriptKind::Tablespaces,
        ScriptKind::SpatialReferenceSystems,
        ScriptKind::LoadableFunctions,
        ScriptKind::ResourceGroups,
        ScriptKind::Servers,
        ScriptKind::Databases,
        ScriptKind::Tables,
    ])
    .await?;
    phases.end("schema", 0);

    let loaded = data::load(target, &storage, manifest, options).await?;
    warnings.extend(loaded.warnings);
    phases.end("data", loaded.raw_bytes);

    let mut accounts = accounts::Accounts::plan(&mut control, &accounts).await?;
    accounts.create_new(&mut control).await?;
    let mut run = ScriptRunner {
        session: &mut control,
        scripts: &scripts,
        warnings: &mut warnings,
    };
    run.kinds(&[ScriptKind::Histograms, ScriptKind::Routines])
        .await?;
    accounts.grant(run.session).await?;
    run.views(&mut accounts).await?;
    run.kinds(&[ScriptKind::Triggers, ScriptKind::Events])
        .await?;
    accounts.finish(&mut control).await?;
    warnings.append(&mut accounts.warnings);
    let mut run = ScriptRunner {
        session: &mut control,
        scripts: &scripts,
        warnings: &mut warnings,
    };
    run.kinds(&[ScriptKind::ReadOnly]).await?;
    phases.end("objects", 0);

    let gtid_executed = set_gtids(&mut control, &facts, &manifest.gtid_executed).await?;
    if !facts.server.local_infile {
        control.execute("SET GLOBAL local_infile = OFF").await?;
    }
    let packet = facts.server.max_allowed_packet;
    if packet < PACKET_BYTES {
        control
            .execute(format!("SET GLOBAL max_allowed_packet = {packet}"))
            .await?;
    }
    control.close().await;
    phases.end("gtids", 0);
    Ok(LoadReport {
        tables: manifest.tables.len() as u64,
        rows: loaded.rows,
        raw_bytes: loaded.raw_bytes,
        stored_bytes: loaded.stored_bytes,
        gtid_executed,
        event_scheduler: facts.server.event_scheduler,
        phases: phases.finish(),
        warnings,
    })
}

/// Keeps events from running on half a database, and opens the door for LOAD DATA LOCAL and for
/// rows of any size.
async fn quiet(control: &mut Session, facts: &TargetFacts) -> Result<(), LoadError> {
    if facts.server.event_scheduler == "ON" {
        control.execute("SET GLOBAL event_scheduler = OFF").await?;
    }
    if !facts.server.local_infile {
        control.execute("SET GLOBAL local_infile = ON").await?;
    }
    if facts.server.max_allowed_packet < PACKET_BYTES {
        control
            .execute(format!("SET GLOBAL max_allowed_packet = {PACKET_BYTES}"))
            .await?;
    }
    Ok(())
}

/// Makes the target's GTIDs the snapshot's; its own, of before the load, are forgotten.
async fn set_gtids(
    control: &mut Session,
    facts: &TargetFacts,
    wanted: &GtidSet,
) -> Result<GtidSet, LoadError> {
    if !gtid_executed(control).await?.is_empty() {
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
