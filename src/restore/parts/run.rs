//! The order of a restore of tables: load, replay, look, give them their names, make their triggers,
//! tidy up.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::checks::PartsState;
use super::choose::Held;
use super::error::PartsError;
use super::journal::{PartsJournal, PartsStage, give_up};
use super::place;
use super::prepare::PreparedParts;
use super::replay::{self, Around, Replayed};
use super::report::{PartsReport, RestoredTable};
use super::staged::staged;
use super::triggers;
use crate::clock::{Clock as _, SystemClock};
use crate::mysql::ddl::statement::TableName;
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::mysql::wire::{WireConnection, WireOptions};
use crate::observe::fail_point::FailPoint;
use crate::restore::error::RestoreError;
use crate::restore::held;
use crate::restore::load::LoadOptions;
use crate::restore::load::parts::{TablesLoaded, load_tables};
use crate::restore::plan::PlanError;
use crate::restore::report::keep;
use crate::restore::verify::{self, Verified};
use crate::restore::{Observer, RestoreEvent, RestoreOptions, Verify};

/// Does what was planned.
///
/// # Errors
///
/// [`RestoreError`]; [`PartsError::Unfinished`] once something was begun.
pub async fn run_parts(
    prepared: PreparedParts,
    options: RestoreOptions,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<PartsReport, RestoreError> {
    let mut session = Session::connect(&prepared.server).await?;
    session.set_timeout(None);
    let state = PartsState::load(&mut session, &prepared.record.tables).await?;
    let journal = match &prepared.journal {
        Some(_) => PartsJournal::open(&mut session).await?,
        None => None,
    };
    let is_same = state.facts.server.server_uuid == prepared.plan.server_uuid
        && journal.is_some() == prepared.journal.is_some();
    if !is_same {
        return Err(RestoreError::AnotherServer {
            server: prepared.plan.server.clone(),
        });
    }
    let reasons = state.check(&prepared.wanted(journal.as_ref()));
    if !reasons.is_empty() {
        return Err(PlanError::Server {
            server: prepared.plan.server.clone(),
            reasons,
        }
        .into());
    }
    let (server, statements) = (prepared.plan.server.clone(), give_up(&prepared.record));
    let mut restore = Run {
        prepared,
        session,
        state,
        options,
        observer,
        cancel,
    };
    match restore.fill(journal).await {
        Ok(report) => Ok(restore.keep(report).await),
        Err(error) => {
            restore.close_the_door().await;
            Err(PartsError::Unfinished {
                server,
                give_up: statements,
                source: Box::new(error),
            }
            .into())
        }
    }
}

/// The lock of the connection that replays.
const HELD: &str = "quillback restore --tables";

struct Run {
    prepared: PreparedParts,
    session: Session,
    state: PartsState,
    options: RestoreOptions,
    observer: Observer,
    cancel: CancellationToken,
}

impl Run {
    async fn fill(&mut self, begun: Option<PartsJournal>) -> Result<PartsReport, RestoreError> {
        let resumed = begun.is_some();
        let mut journal = match begun {
            Some(journal) => journal,
            None => {
                let record = self.prepared.record.clone();
                PartsJournal::begin(&mut self.session, record).await?
            }
        };
        self.options.fail_points.pass(FailPoint::Begun);
        let mut loaded = TablesLoaded::default();
        if journal.stage == PartsStage::Load {
            loaded = self.load(resumed).await?;
            journal.notes.extend(loaded.warnings.iter().cloned());
            journal.reach(&mut self.session, PartsStage::Replay).await?;
            self.options.fail_points.pass(FailPoint::Loaded);
        }
        let mut replayed = Replayed {
            transactions: journal.position,
        };
        if journal.stage == PartsStage::Replay {
            self.tell("replay");
            let around = Around {
                observer: &self.observer,
                cancel: &self.cancel,
                fail_points: &self.options.fail_points,
            };
            let mut session = Session::connect(&self.prepared.server).await?;
            session.set_timeout(None);
            tokio::select! {
                held = held::take(&mut session, HELD) => held?,
                () = self.cancel.cancelled() => return Err(PartsError::Cancelled.into()),
            }
            // Only now has what an earlier run's connection was at come to its end.
            if let Some(now) = PartsJournal::open(&mut session).await? {
                journal = now;
            }
            let facts = &self.state.facts.server;
            replayed = replay::replay(&self.prepared, session, &journal, facts, around).await?;
            if let Some(now) = PartsJournal::open(&mut self.session).await? {
                journal.notes = now.notes;
            }
            self.prepared
                .clock
                .end("replay", self.prepared.plan.segment_bytes);
            self.options.fail_points.pass(FailPoint::Replayed);
        }
        self.tell("check");
        let (mut tables, mut verified) = (Vec::new(), None);
        if journal.stage <= PartsStage::Replay {
            tables = place::count(&mut self.session, &self.prepared).await?;
            verified = self.verify().await?;
            self.options.fail_points.pass(FailPoint::Checked);
        }
        if journal.stage < PartsStage::Placed {
            let points = self.options.fail_points.clone();
            place::place(&mut self.session, &self.prepared, &mut journal, &points).await?;
        }
        self.finish(journal, (tables, verified), (loaded, replayed), resumed)
            .await
    }

    fn tell(&self, phase: &'static str) {
        (self.observer)(RestoreEvent::Phase { phase });
    }

    async fn load(&mut self, resumed: bool) -> Result<TablesLoaded, RestoreError> {
        let (observer, phases) = (Arc::clone(&self.observer), Arc::clone(&self.observer));
        let options = LoadOptions {
            threads: self.options.threads as usize,
            cancel: self.cancel.clone(),
            keep_redo_log: true,
            fail_points: self.options.fail_points.clone(),
            journal: true,
            logged: true,
            resume: resumed,
            progress: Arc::new(move |rows, total_rows| {
                observer(RestoreEvent::Load { rows, total_rows });
            }),
            phase: Arc::new(move |phase| phases(RestoreEvent::Phase { phase })),
            ..LoadOptions::default()
        };
        let tables = staged(&Held::of(&self.prepared), &self.prepared.chosen)?;
        let is_shut = !self.state.facts.server.local_infile;
        if is_shut {
            self.session.execute("SET GLOBAL local_infile = ON").await?;
        }
        let storage = self.prepared.repository.storage();
        let (manifest, scripts) = (&tables.manifest, &tables.scripts);
        let server = &self.prepared.server;
        let loaded = load_tables(server, storage, manifest, scripts, &options).await?;
        self.close_the_door().await;
        self.prepared.clock.end("load", loaded.stored_bytes);
        Ok(loaded)
    }

    /// Switches `local_infile` off again, if it was.
    async fn close_the_door(&mut self) {
        if !self.prepared.record.local_infile_was_off {
            return;
        }
        let shut = "SET GLOBAL local_infile = OFF";
        if self.session.execute(shut).await.is_ok() {
            return;
        }
        let again = async {
            let mut session = Session::connect(&self.prepared.server).await?;
            session.execute(shut).await?;
            session.close().await;
            Ok::<_, MysqlError>(())
        };
        if let Err(error) = again.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "local_infile could not be switched off again"
            );
        }
    }

    /// Compares the rows of tables that the replay left alone with what the snapshot recorded.
    async fn verify(&mut self) -> Result<Option<Verified>, RestoreError> {
        if self.options.verify == Verify::Basic {
            return Ok(None);
        }
        let prepared = &self.prepared;
        let mut verified = Verified {
            equal: 0,
            rows: 0,
            changed: 0,
            uncertain: 0,
        };
        let mut different = Vec::new();
        let options = WireOptions::default();
        let mut connection = WireConnection::connect(&prepared.server, &options).await?;
        connection.execute(verify::SETTINGS).await?;
        for table in &prepared.record.tables {
            let name = &table.table;
            let entry = prepared.manifest.table(&name.database, &name.table);
            let Some(entry) = entry.filter(|_| prepared.untouched.contains(name)) else {
                verified.changed += 1;
                continue;
            };
            if entry.engine.is_some() {
                verified.uncertain += 1;
                continue;
            }
            let TableName { database, table } = place::staged_name(&prepared.chosen, table);
            let mut staged = entry.clone();
            (staged.database, staged.name) = (database, table);
            let hash = prepared.manifest.format.row_hash();
            let (rows, checksum) = verify::sum(&mut connection, &staged, hash).await?;
            if (rows, checksum) == (entry.rows, entry.row_checksum) {
                verified.equal += 1;
                verified.rows += rows;
            } else {
                different.push(entry.display_name());
            }
        }
        match different.is_empty() {
            true => Ok(Some(verified)),
            false => Err(RestoreError::WrongRows {
                server: prepared.plan.server.clone(),
                tables: different,
            }),
        }
    }

    /// Makes the triggers, looks whether all have their names, and removes what was only for the way.
    async fn finish(
        &mut self,
        journal: PartsJournal,
        (tables, verified): (Vec<RestoredTable>, Option<Verified>),
        (loaded, replayed): (TablesLoaded, Replayed),
        resumed: bool,
    ) -> Result<PartsReport, RestoreError> {
        let mut notes = self.prepared.plan.notes.clone();
        notes.extend(journal.notes.iter().cloned());
        if self.prepared.record.into.is_none() {
            notes.extend(triggers::make(&mut self.session, &self.prepared).await?);
        }
        let tables = self.placed(tables).await?;
        for schema in self.prepared.chosen.schemas.values() {
            let drop = format!("DROP DATABASE IF EXISTS {}", quote::identifier(schema));
            self.session.execute(drop).await?;
        }
        PartsJournal::finish(&mut self.session).await?;
        self.options.fail_points.pass(FailPoint::Finished);
        self.prepared.clock.end("check", 0);
        let plan = &self.prepared.plan;
        Ok(PartsReport {
            kind: "tables",
            archive: self.prepared.repository.storage().url(),
            target: plan.target.clone(),
            cut: plan.cut.set.clone(),
            server: plan.server.clone(),
            server_uuid: plan.server_uuid,
            server_version: plan.server_version.clone(),
            started: journal.run.started,
            finished: SystemClock.now(),
            resumed,
            branch: plan.branch,
            snapshot: plan.snapshot.clone(),
            tables,
            rows_loaded: loaded.rows,
            transactions_applied: replayed.transactions,
            skipped: plan.skipped.clone(),
            verified,
            phases: crate::restore::run::split_index(
                std::mem::take(&mut self.prepared.clock).finish(),
                loaded.index_seconds,
            ),
            notes,
            kept: None,
        })
    }

    /// Fails unless each table has its name; those that an earlier run has counted are counted again.
    async fn placed(
        &mut self,
        counted: Vec<RestoredTable>,
    ) -> Result<Vec<RestoredTable>, RestoreError> {
        let mut missing = Vec::new();
        let mut found = Vec::new();
        let known: BTreeSet<String> = counted.iter().map(|t| t.place.to.to_string()).collect();
        for table in &self.prepared.record.tables {
            let name = quote::qualified(&table.to.database, &table.to.table);
            let is_known = known.contains(&table.to.to_string());
            let sql = match is_known {
                true => format!("SELECT COUNT(*) FROM (SELECT 1 FROM {name} LIMIT 1) t"),
                false => format!("SELECT COUNT(*) FROM {name}"),
            };
            match self.session.query_one::<u64>(sql).await {
                Ok(rows) if !is_known => found.push(RestoredTable {
                    place: table.clone(),
                    rows,
                }),
                Ok(_) => {}
                Err(error) if matches!(error.code(), Some(1049 | 1146)) => {
                    missing.push(table.to.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !missing.is_empty() {
            return Err(PartsError::Missing {
                server: self.prepared.plan.server.clone(),
                missing,
            }
            .into());
        }
        Ok(counted.into_iter().chain(found).collect())
    }

    /// Puts the report into the archive; a store that does not take it makes no restore undone.
    async fn keep(self, mut report: PartsReport) -> PartsReport {
        self.session.close().await;
        match keep(&self.prepared.repository, report.finished, &report).await {
            Ok(key) => report.kept = Some(key),
            Err(note) => report.notes.push(note),
        }
        report
    }
}
