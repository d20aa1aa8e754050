//! The order of a restore: plan, wipe, load, replay, check.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::checks::{self, ServerState, Wishes};
use super::end;
use super::error::RestoreError;
use super::journal::{Journal, JournalError, RunRecord, Stage};
use super::load::{self, LoadOptions};
use super::plan::{PlanError, RestorePlan};
use super::prepare::Prepared;
use super::replay::{self, ReplayJob, ReplayKind};
use super::report::{Observer, RestoreEvent, RestoreOptions, RestoreReport, Verify};
use super::{report, verify, wipe};
use crate::archive::manifest::Manifest;
use crate::archive::repository::Repository;
use crate::clock::{Clock as _, SystemClock};
use crate::mysql::error::MysqlError;
use crate::mysql::facts::TargetFacts;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::observe::fail_point::FailPoint;
use crate::observe::phase::{Phase, PhaseClock};

/// Does what was planned.
///
/// # Errors
///
/// [`RestoreError`]; [`RestoreError::Unfinished`] once the server has been touched. Such a server
/// is made read-only, if it can be reached; its journal says how far it came.
pub async fn run(
    prepared: Prepared,
    options: RestoreOptions,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<RestoreReport, RestoreError> {
    let mut session = Session::connect(&prepared.server).await?;
    let state = still_the_same(&mut session, &prepared).await?;
    let (server, address) = (
        prepared.server.clone(),
        prepared.plan.server.address.clone(),
    );
    let mut restore = Restore {
        plan: prepared.plan,
        manifest: prepared.manifest,
        repository: prepared.repository,
        server: prepared.server,
        clock: prepared.clock,
        facts: state.facts,
        session,
        options,
        observer,
        cancel,
    };
    match restore.fill(prepared.journal).await {
        Ok(report) => Ok(restore.keep(report).await),
        Err(error) => {
            mark_unfinished(&server).await;
            Err(RestoreError::Unfinished {
                server: address,
                source: Box::new(error),
            })
        }
    }
}

/// The plan was made a moment ago: the server must still be that one, in the same state.
async fn still_the_same(
    session: &mut Session,
    prepared: &Prepared,
) -> Result<ServerState, RestoreError> {
    let state = ServerState::load(session, &prepared.manifest).await?;
    let planned = &prepared.plan;
    let wiped = planned.wipe.is_some();
    let address = state.facts.server.address.clone();
    let wishes = Wishes {
        resume: planned.resume.is_some(),
        wipe: wiped.then_some(&address),
        handed_on: &prepared.handed_on,
    };
    let reasons = checks::check(&prepared.manifest, &state, &wishes);
    // Nothing may be removed that was not shown.
    let shown = planned.wipe.as_ref().is_none_or(|wipe| {
        let names: BTreeSet<&str> = wipe.schemas.iter().map(|s| s.schema.as_str()).collect();
        let mut now = state.contents.iter();
        now.all(|content| names.contains(content.schema.as_str()))
    });
    let same_journal = match (&prepared.journal, &state.journal) {
        (Some(planned), Some(now)) => planned.run == now.run,
        (Some(_), None) => false,
        (None, _) => true,
    };
    if state.facts.server.server_uuid != planned.server.uuid || !shown || !same_journal {
        return Err(RestoreError::AnotherServer {
            server: planned.server.address.clone(),
        });
    }
    if reasons.is_empty() {
        return Ok(state);
    }
    Err(PlanError::Server {
        server: planned.server.address.clone(),
        reasons,
    }
    .into())
}

/// Keeps writers away from a server that holds half of what was asked for.
async fn mark_unfinished(server: &ServerUrl) {
    let marked = async {
        let mut session = Session::connect(server).await?;
        // It waits for whoever is writing, and an applier may be for long; ordinary accounts are
        // kept out in any case, since the beginning.
        session.execute("SET SESSION lock_wait_timeout = 3").await?;
        session.execute("SET GLOBAL super_read_only = ON").await?;
        session.close().await;
        Ok::<_, MysqlError>(())
    };
    if let Err(error) = marked.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the unfinished server could not be made read-only"
        );
    }
}

/// What the load gave, by this run or an earlier one.
struct Loaded {
    notes: Vec<String>,
    /// Of the phase `load`, the part that built indexes.
    index_seconds: f64,
}

/// A restore that is being done.
struct Restore {
    plan: RestorePlan,
    manifest: Manifest,
    repository: Repository,
    server: ServerUrl,
    clock: PhaseClock,
    facts: TargetFacts,
    session: Session,
    options: RestoreOptions,
    observer: Observer,
    cancel: CancellationToken,
}

impl Restore {
    /// Wipe, load, replay and check.
    async fn fill(&mut self, begun: Option<Journal>) -> Result<RestoreReport, RestoreError> {
        // Ordinary accounts are kept out until the end; what an earlier try left on is lifted for us.
        for statement in [
            "SET GLOBAL super_read_only = OFF",
            "SET GLOBAL read_only = ON",
        ] {
            self.session.execute(statement).await?;
        }
        let resumed = begun.is_some();
        let mut journal = match begun {
            Some(journal) => {
                journal.go_on(&mut self.session).await?;
                self.drop_own_channel().await?;
                journal
            }
            None => {
                let stage = match self.plan.wipe {
                    Some(_) => Stage::Wipe,
                    None => Stage::Load,
                };
                self.give_up_earlier().await?;
                let record = self.record();
                Journal::begin(&mut self.session, record, stage).await?
            }
        };
        // A load that an earlier run did not even begin is none to go on with.
        let is_begun = resumed && journal.stage == Stage::Load;
        if journal.stage == Stage::Wipe {
            self.tell_phase("wipe");
            let version = self.facts.server.version.clone();
            wipe::run(&mut self.session, &version, &self.options.fail_points).await?;
            journal.reach(&mut self.session, Stage::Load).await?;
            self.clock.end("wipe", 0);
        }
        let mut loaded = Loaded {
            notes: journal.notes.clone(),
            index_seconds: 0.0,
        };
        if journal.stage == Stage::Load {
            self.options.fail_points.pass(FailPoint::Begun);
            loaded = self.load(is_begun).await?;
            journal
                .loaded(&mut self.session, loaded.notes.clone())
                .await?;
            self.options.fail_points.pass(FailPoint::Loaded);
        }
        if journal.stage == Stage::Replay {
            self.replay().await?;
            self.options.fail_points.pass(FailPoint::Replayed);
        }
        self.finish(journal, loaded, resumed).await
    }

    /// What an earlier restore that is given up changed is put back, before it is taken for the
    /// server's own.
    async fn give_up_earlier(&mut self) -> Result<(), RestoreError> {
        let earlier = match Journal::open(&mut self.session).await {
            Ok(Some(earlier)) => earlier,
            Ok(None) | Err(JournalError::Malformed(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        earlier.go_on(&mut self.session).await?;
        load::put_back(&mut self.session).await?;
        earlier.put_back(&mut self.session).await?;
        self.drop_own_channel().await?;
        if earlier.had_events() {
            self.session
                .execute("SET GLOBAL event_scheduler = ON")
                .await?;
        }
        Ok(())
    }

    fn record(&self) -> RunRecord {
        RunRecord {
            archive: self.repository.identity().archive,
            server_uuid: self.facts.server.server_uuid,
            target: self.plan.target.clone(),
            cut: self.plan.cut.set.clone(),
            result: self.plan.result.clone(),
            skip: self.plan.skipped.clone(),
            branch: self.plan.replay.branch,
            snapshot: self.plan.snapshot.id.clone(),
            replay: self.plan.replay.kind,
            quillback: env!("CARGO_PKG_VERSION").to_owned(),
            started: SystemClock.now(),
        }
    }

    fn tell_phase(&self, phase: &'static str) {
        (self.observer)(RestoreEvent::Phase { phase });
    }

    async fn load(&mut self, is_begun: bool) -> Result<Loaded, RestoreError> {
        let (observer, phases) = (Arc::clone(&self.observer), Arc::clone(&self.observer));
        let options = LoadOptions {
            threads: self.options.threads as usize,
            cancel: self.cancel.clone(),
            keep_redo_log: self.options.keep_redo_log,
            fail_points: self.options.fail_points.clone(),
            journal: true,
            resume: is_begun,
            progress: Arc::new(move |rows, total_rows| {
                observer(RestoreEvent::Load { rows, total_rows });
            }),
            phase: Arc::new(move |phase| phases(RestoreEvent::Phase { phase })),
            ..LoadOptions::default()
        };
        let storage = Arc::clone(self.repository.storage());
        let loaded = load::load(&self.server, storage, &self.manifest, &options).await?;
        self.clock.end("load", loaded.stored_bytes);
        Ok(Loaded {
            index_seconds: match loaded.indexes {
                0 => 0.0,
                _ => loaded.seconds("indexes"),
            },
            notes: loaded.warnings,
        })
    }

    async fn replay(&mut self) -> Result<(), RestoreError> {
        self.tell_phase("replay");
        if !self.plan.replay.set.is_empty() {
            self.replay_log().await?;
        }
        self.clock.end("replay", self.plan.replay.raw_bytes);
        Ok(())
    }

    /// Checks, and gives the server back.
    async fn finish(
        &mut self,
        mut journal: Journal,
        loaded: Loaded,
        resumed: bool,
    ) -> Result<RestoreReport, RestoreError> {
        self.tell_phase("check");
        journal.reach(&mut self.session, Stage::Check).await?;
        let tables: BTreeSet<String> = self
            .manifest
            .tables
            .iter()
            .map(crate::archive::manifest::TableEntry::display_name)
            .collect();
        let end = end::check(&mut self.session, &self.plan, &tables, journal.had_events()).await?;
        let verified = match self.options.verify {
            Verify::Basic => None,
            Verify::Checksums => Some(
                verify::checksums(
                    &self.server,
                    &self.repository,
                    &self.plan,
                    &self.manifest,
                    self.options.threads,
                    &self.cancel,
                )
                .await?,
            ),
        };
        self.options.fail_points.pass(FailPoint::Checked);
        journal.put_back(&mut self.session).await?;
        Journal::finish(&mut self.session).await?;
        self.options.fail_points.pass(FailPoint::Finished);
        let opening = opening_statements(&journal);
        let open = self.options.open;
        if open {
            for statement in &opening {
                self.session.execute(statement).await?;
            }
        } else {
            self.session
                .execute("SET GLOBAL super_read_only = ON")
                .await?;
        }
        self.clock.end("check", 0);
        let mut notes = self.plan.notes.clone();
        notes.extend(loaded.notes);
        notes.extend(end.notes);
        let plan = &self.plan;
        Ok(RestoreReport {
            archive: self.repository.storage().url(),
            target: plan.target.clone(),
            server: plan.server.address.clone(),
            server_uuid: plan.server.uuid,
            server_version: plan.server.version.clone(),
            started: journal.run.started,
            finished: SystemClock.now(),
            resumed,
            wiped: plan.wipe.is_some(),
            branch: plan.replay.branch,
            snapshot: plan.snapshot.id.clone(),
            rows: plan.snapshot.rows,
            load_bytes: plan.snapshot.raw_bytes,
            transactions: plan.replay.transactions,
            replay_bytes: plan.replay.raw_bytes,
            replay: plan.replay.kind,
            skipped: plan.skipped.clone(),
            gtid_executed: end.executed,
            tables: end.tables,
            expected_tables: end.expected_tables,
            verified,
            open,
            open_with: if open { Vec::new() } else { opening },
            phases: split_index(
                std::mem::take(&mut self.clock).finish(),
                loaded.index_seconds,
            ),
            notes,
            kept: None,
        })
    }

    /// Puts the report into the archive; a store that does not take it makes no restore undone.
    async fn keep(self, mut report: RestoreReport) -> RestoreReport {
        self.session.close().await;
        match report::keep(&self.repository, report.finished, &report).await {
            Ok(key) => report.kept = Some(key),
            Err(note) => report.notes.push(note),
        }
        report
    }

    /// What a replay that was cut off has left: it begins anew, from what the server has.
    async fn drop_own_channel(&mut self) -> Result<(), RestoreError> {
        let version = &self.facts.server.version;
        replay::drop_channel(&self.server, &mut self.session, version, &self.cancel).await?;
        Ok(())
    }

    async fn replay_log(&mut self) -> Result<(), RestoreError> {
        let plan = &self.plan.replay;
        let (observer, points) = (&self.observer, &self.options.fail_points);
        let told = AtomicBool::new(false);
        let progress = |progress: replay::ReplayProgress| {
            if progress.applied > 0 && !told.swap(true, Ordering::Relaxed) {
                points.pass(FailPoint::Replaying);
            }
            observer(RestoreEvent::Replay(progress));
        };
        let job = ReplayJob {
            repository: &self.repository,
            branch: plan.branch,
            members: &plan.members,
            set: &plan.set,
            server: &self.server,
            facts: &self.facts.server,
            workers: self.options.threads,
            listen: self.options.listen,
            advertise: self.options.advertise.as_ref(),
            progress: &progress,
            cancel: &self.cancel,
        };
        match plan.kind {
            ReplayKind::Replication => replay::by_replication(&job, &mut self.session).await?,
            ReplayKind::Sql => replay::by_sql(&job, &mut self.session).await?,
        }
        Ok(())
    }
}

/// The phases with `index` apart from `load`.
pub(super) fn split_index(phases: Vec<Phase>, index_seconds: f64) -> Vec<Phase> {
    let mut split = Vec::with_capacity(phases.len() + 1);
    for mut phase in phases {
        if phase.phase == "load" && index_seconds > 0.0 {
            phase.seconds = (phase.seconds - index_seconds).max(0.0);
            split.push(phase);
            split.push(Phase {
                phase: "index".to_owned(),
                seconds: index_seconds,
                bytes: 0,
            });
        } else {
            split.push(phase);
        }
    }
    split
}

/// What lets a restored server work: writes, and the event scheduler if it ran before.
fn opening_statements(journal: &Journal) -> Vec<String> {
    let mut statements = vec![
        "SET GLOBAL super_read_only = OFF".to_owned(),
        "SET GLOBAL read_only = OFF".to_owned(),
    ];
    if journal.had_events() {
        statements.push("SET GLOBAL event_scheduler = ON".to_owned());
    }
    statements
}
