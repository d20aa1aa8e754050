//! The load of some tables beside whatever is on the server: the same files and checks, into
//! schemas of its own, with nothing but the tables made.
//!
//! The caller gives a manifest and scripts whose names are those on the server already. What is done
//! is written down as in a load of a whole snapshot, and goes to the binlog: so the server's
//! replicas get it too.

use std::sync::Arc;

use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::script::Script;
use crate::mysql::ServerUrl;
use crate::observe::phase::PhaseClock;
use crate::storage::Storage;

use super::error::LoadError;
use super::scripts::ScriptRunner;
use super::steps::{Stage, Steps};
use super::tables::Tables;
use super::{LoadOptions, analyze, fetch, session};

/// The schema of the journal of a restore of tables. It goes to the binlog and so into archives: a
/// restore of the whole server that replays it has its own journal in another schema.
pub(in crate::restore) const TABLES_JOURNAL: &str = "quillback_restore_tables";

/// What was loaded.
#[derive(Debug, Clone, Default)]
pub(in crate::restore) struct TablesLoaded {
    /// Rows, those of an earlier run among them.
    pub(in crate::restore) rows: u64,
    /// Bytes of objects read for them by this run.
    pub(in crate::restore) stored_bytes: u64,
    /// How long building indexes took.
    pub(in crate::restore) index_seconds: f64,
    /// What a person should know.
    pub(in crate::restore) warnings: Vec<String>,
}

/// All scripts of a snapshot, fetched and checked.
///
/// # Errors
///
/// [`LoadError`] if one cannot be read or is damaged.
pub(in crate::restore) async fn scripts(
    storage: &dyn Storage,
    manifest: &Manifest,
) -> Result<Vec<(ScriptKind, Script)>, LoadError> {
    fetch::scripts(storage, manifest).await
}

/// Loads the tables of `manifest`, which `scripts` make.
///
/// # Errors
///
/// [`LoadError`]; what is done is written down, and can be gone on with.
pub(in crate::restore) async fn load_tables(
    target: &ServerUrl,
    storage: &Arc<dyn Storage>,
    manifest: &Manifest,
    scripts: &[(ScriptKind, Script)],
    options: &LoadOptions,
) -> Result<TablesLoaded, LoadError> {
    let work = load(target, storage, manifest, scripts, options);
    // Dropping the work closes its connections, which rolls back what is not committed.
    tokio::select! {
        () = options.cancel.cancelled() => Err(LoadError::Cancelled),
        done = work => done,
    }
}

async fn load(
    target: &ServerUrl,
    storage: &Arc<dyn Storage>,
    manifest: &Manifest,
    scripts: &[(ScriptKind, Script)],
    options: &LoadOptions,
) -> Result<TablesLoaded, LoadError> {
    let mut control = session::open(target, options.logged).await?;
    let steps = Steps::open_in(&mut control, TABLES_JOURNAL).await?;
    let mut warnings = Vec::new();
    let mut loaded = TablesLoaded {
        rows: manifest.totals.rows,
        ..TablesLoaded::default()
    };
    if steps.has(Stage::Loaded) {
        return Ok(loaded);
    }
    (options.phase)("load");
    let mut clock = PhaseClock::start();
    let tables = Tables::new(target, storage, (manifest, scripts), options, &steps);
    let kinds = [ScriptKind::Databases, ScriptKind::Tables];
    tables.make(&mut control, &kinds, &mut warnings).await?;
    let rows = tables.fill(&mut control).await?;
    loaded.stored_bytes = rows.stored_bytes;
    warnings.extend(rows.warnings);
    clock.end("load", 0);
    tables.index(&mut control).await?;
    clock.end("index", 0);
    if !steps.has(Stage::Analyzed) {
        warnings.extend(analyze::analyze(target, manifest, options).await?);
        let mut runner = ScriptRunner {
            again: options.resume,
            session: &mut control,
            scripts,
            warnings: &mut warnings,
        };
        runner.kinds(&[ScriptKind::Histograms]).await?;
        steps.reach(&mut control, Stage::Analyzed).await?;
    }
    steps.reach(&mut control, Stage::Loaded).await?;
    control.close().await;
    let phases = clock.finish();
    let index = phases.iter().find(|phase| phase.phase == "index");
    loaded.index_seconds = index.map_or(0.0, |phase| phase.seconds);
    loaded.warnings = warnings;
    Ok(loaded)
}
