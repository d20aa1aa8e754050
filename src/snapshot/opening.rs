//! The beginning of a snapshot: the schema, and views of the state that has it.
//!
//! The invariant: nothing changed the schema between its reading and the views but what the
//! [watch](super::watch) sees. So whoever is let by before the views are open has the schema read
//! again.

use super::consistency::{ConsistentView, Opening};
use super::error::SnapshotError;
use super::plan::SnapshotPlan;
use super::progress::{SnapshotProgress, Stage};
use super::selection::refuse_other_engines;
use super::watch::Asking;
use crate::mysql::schema::{self, Schema};
use crate::mysql::{ServerFacts, ServerUrl, Session};
use crate::observe::phase::PhaseClock;

/// How often DDL is let by before the views are open; each time it costs a look at the schema.
const LET_BY_MOST: u32 = 10;

/// What is read, and the views to read it by.
pub(super) struct Opened {
    pub(super) schema: Schema,
    pub(super) view: ConsistentView,
}

/// What a beginning needs.
pub(super) struct Beginning<'a> {
    pub(super) plan: &'a SnapshotPlan,
    pub(super) url: &'a ServerUrl,
    pub(super) facts: &'a ServerFacts,
    pub(super) asking: &'a Asking,
    pub(super) progress: &'a SnapshotProgress,
}

impl Beginning<'_> {
    /// Reads the schema and opens the views.
    ///
    /// # Errors
    ///
    /// What stands in the way of it.
    pub(super) async fn open(
        &self,
        control: &mut Session,
        phases: &mut PhaseClock,
    ) -> Result<Opened, SnapshotError> {
        let plan = self.plan;
        let mut opening = Opening::new(self.url, plan, self.facts);
        let mut let_by = 0;
        loop {
            let mut reader = Session::connect(self.url).await?;
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
            if let_by == 0 {
                phases.end("schema", 0);
                self.progress.enter(Stage::View);
            }
            opening.gives_way = plan.backup_lock && let_by < LET_BY_MOST;
            if let Some(view) = opening.open(control).await? {
                schema::refresh_auto_increments(&mut reader, &mut schema).await?;
                reader.close().await;
                return Ok(Opened { schema, view });
            }
            reader.close().await;
            tracing::info!("DDL waits for the backup lock, and the views for it: it is let by");
            let_by = match self.asking.let_ddl_by().await {
                true => let_by + 1,
                // Somebody else's lock is in its way.
                false => LET_BY_MOST,
            };
        }
    }
}
