//! The tables of a load with their rows and indexes, in the order that both kinds of load have: made,
//! freed of the indexes that wait, filled, given these indexes. What is done already is not done again.

use std::sync::Arc;

use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::script::Script;
use crate::mysql::{ServerUrl, Session};
use crate::observe::fail_point::FailPoint;
use crate::storage::Storage;

use super::error::LoadError;
use super::indexes::Indexes;
use super::scripts::ScriptRunner;
use super::steps::{Stage, Steps};
use super::{LoadOptions, data};

/// The tables of a load.
pub(super) struct Tables<'a> {
    target: &'a ServerUrl,
    storage: &'a Arc<dyn Storage>,
    manifest: &'a Manifest,
    scripts: &'a [(ScriptKind, Script)],
    options: &'a LoadOptions,
    steps: &'a Steps,
    indexes: Indexes<'a>,
}

impl<'a> Tables<'a> {
    /// Those of a manifest, which the scripts make.
    pub(super) fn new(
        target: &'a ServerUrl,
        storage: &'a Arc<dyn Storage>,
        (manifest, scripts): (&'a Manifest, &'a [(ScriptKind, Script)]),
        options: &'a LoadOptions,
        steps: &'a Steps,
    ) -> Self {
        Self {
            target,
            storage,
            manifest,
            scripts,
            options,
            steps,
            indexes: Indexes::new(target, manifest, scripts, options, steps),
        }
    }

    /// Makes them, and what of the scripts comes before them.
    pub(super) async fn make(
        &self,
        control: &mut Session,
        kinds: &[ScriptKind],
        warnings: &mut Vec<String>,
    ) -> Result<(), LoadError> {
        if !self.steps.has(Stage::Schema) {
            let mut runner = ScriptRunner {
                again: self.options.resume,
                session: control,
                scripts: self.scripts,
                warnings,
            };
            runner.kinds(kinds).await?;
            self.options.fail_points.pass(FailPoint::LoadSchema);
            self.steps.reach(control, Stage::Schema).await?;
        }
        if !self.steps.has(Stage::Prepared) {
            self.indexes.prepare().await?;
            self.steps.reach(control, Stage::Prepared).await?;
        }
        Ok(())
    }

    /// Loads their rows.
    pub(super) async fn fill(&self, control: &mut Session) -> Result<data::Loaded, LoadError> {
        if self.steps.has(Stage::Rows) {
            return Ok(data::Loaded {
                rows: self.manifest.totals.rows,
                raw_bytes: self.manifest.totals.raw_bytes,
                ..data::Loaded::default()
            });
        }
        let files = data::Files {
            storage: self.storage,
            manifest: self.manifest,
            scripts: self.scripts,
        };
        let loaded = data::load(self.target, control, &files, self.options, self.steps).await?;
        self.steps.reach(control, Stage::Rows).await?;
        Ok(loaded)
    }

    /// Builds the indexes that waited, and returns how many that were.
    pub(super) async fn index(&self, control: &mut Session) -> Result<u64, LoadError> {
        if self.steps.has(Stage::Indexes) {
            return Ok(0);
        }
        (self.options.phase)("index");
        let built = self.indexes.build().await?;
        self.steps.reach(control, Stage::Indexes).await?;
        Ok(built)
    }
}
