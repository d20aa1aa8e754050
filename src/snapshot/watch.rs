//! What is looked at while the rows are read: DDL, and the health of the server.
//!
//! Two things may go wrong beside the reading. DDL may change what is still to be read: the backup
//! lock keeps it away, and once that has been let go, or was never had, the binlog tells of it
//! ([`ddl_log`]). And the server may fall behind or out of its cluster, perhaps under our load
//! ([`health`]).
//! The invariant: between the first look at the schema and the last row there is no moment that
//! neither the lock nor the binlog covers, unless the manifest says so.
//!
//! The read views themselves need none of this to stay valid: whoever decides to go on in spite of
//! a server that lags has a sound snapshot still, if its transactions are the cluster's
//! ([`super::history`]).

pub(super) mod ddl_log;
mod health;
mod let_by;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::changes;
use super::consistency::BackupLock;
use super::consistency::holders::{waiting_for_backup_lock, waiting_for_tables};
use super::error::SnapshotError;
use super::plan::SnapshotPlan;
use crate::archive::manifest::DdlGuard;
use crate::error::with_causes;
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::schema::Schema;
use crate::mysql::{ServerFacts, ServerUrl, Session};
use ddl_log::{DdlLog, LogError, Scope};
use health::Health;
use let_by::Asked;

pub(super) use let_by::Asking;

/// How often somebody looks who waits for us.
const BEAT: Duration = Duration::from_secs(1);
/// Every so many beats the server's health is looked at too.
const HEALTH_BEATS: u32 = 5;
/// How long DDL has free way when it is let by, the first time; longer each time after.
const LET_BY: Duration = Duration::from_millis(250);
/// How long a small question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// A server that has answered nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the binlog may take to show what is committed already.
const LOG_LIMIT: Duration = Duration::from_secs(120);

/// What keeps DDL away or makes it seen.
#[derive(Debug)]
enum Guard {
    /// It waits until we are done.
    Locked(BackupLock),
    /// It goes by in the binlog.
    Following(Box<DdlLog>),
    /// Only what it leaves behind is seen, at the end.
    Comparing,
}

impl Guard {
    async fn advance(&mut self) -> Result<(), LogError> {
        match self {
            Self::Following(log) => log.advance().await,
            Self::Locked(_) | Self::Comparing => std::future::pending().await,
        }
    }

    const fn word(&self) -> DdlGuard {
        match self {
            Self::Locked(_) => DdlGuard::BackupLock,
            Self::Following(_) => DdlGuard::Binlog,
            Self::Comparing => DdlGuard::Comparison,
        }
    }
}

/// What comes next for a watch to do.
enum Turn {
    Beat,
    Advanced(Result<(), LogError>),
    Asked(oneshot::Sender<bool>),
}

/// What was seen, for the manifest.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) guards: Vec<DdlGuard>,
    pub(super) backup_lock_seconds: f64,
    pub(super) ddl_wait_seconds: f64,
    pub(super) let_by: u32,
    pub(super) warnings: Vec<String>,
}

/// Looks after a snapshot.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    plan: &'a SnapshotPlan,
    url: &'a ServerUrl,
    facts: &'a ServerFacts,
    eyes: Option<Session>,
    answered: Instant,
    beats: u32,
    guard: Guard,
    guards: Vec<DdlGuard>,
    asked: Asked,
    /// How often DDL was let by since somebody asked for it.
    let_by: u32,
    lock_seconds: f64,
    /// What was executed when the lock was last known to be held.
    safe: GtidSet,
    /// Since when which thread waits for us.
    waits: BTreeMap<u64, Instant>,
    longest_wait: Duration,
    /// Whether harmless DDL went by that came after the view.
    explained: bool,
    health: Health<'a>,
    warnings: Vec<String>,
}

impl<'a> Watch<'a> {
    /// Begins before the schema is looked at.
    ///
    /// # Errors
    ///
    /// The lock is not to be had, or a question fails.
    pub(super) async fn begin(
        plan: &'a SnapshotPlan,
        url: &'a ServerUrl,
        facts: &'a ServerFacts,
    ) -> Result<(Self, Asking), SnapshotError> {
        let mut eyes = Session::connect(url).await?;
        eyes.set_timeout(Some(QUESTION_LIMIT));
        let (asking, asked) = let_by::pair();
        let mut watch = Self {
            plan,
            url,
            facts,
            eyes: None,
            answered: Instant::now(),
            beats: 0,
            guard: Guard::Comparing,
            guards: Vec::new(),
            asked,
            let_by: 0,
            lock_seconds: 0.0,
            safe: GtidSet::new(),
            waits: BTreeMap::new(),
            longest_wait: Duration::ZERO,
            explained: false,
            health: Health::of(plan, facts),
            warnings: Vec::new(),
        };
        if plan.backup_lock {
            let mut lock = BackupLock::take(url).await?;
            watch.safe = lock.executed().await?;
            watch.set_guard(Guard::Locked(lock));
        } else {
            let executed = gtid_executed(&mut eyes).await?;
            watch.follow(executed).await;
        }
        watch.eyes = Some(eyes);
        Ok((watch, asking))
    }

    /// Looks until something is wrong. `scope` is set once the views are open.
    pub(super) async fn run(&mut self, scope: &OnceLock<Scope>) -> SnapshotError {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.turn(&mut beat, scope).await {
                return error;
            }
        }
    }

    async fn turn(
        &mut self,
        beat: &mut Interval,
        scope: &OnceLock<Scope>,
    ) -> Result<(), SnapshotError> {
        let turn = tokio::select! {
            _ = beat.tick() => Turn::Beat,
            advanced = self.guard.advance() => Turn::Advanced(advanced),
            reply = self.asked.next() => Turn::Asked(reply),
        };
        match turn {
            Turn::Advanced(Ok(())) => self.judge(scope.get()),
            Turn::Advanced(Err(error)) => {
                self.follow_again(&error).await;
                Ok(())
            }
            Turn::Asked(reply) => {
                let is_let_by = self.let_ddl_by().await?;
                // Who asked is there as long as this runs.
                let _ = reply.send(is_let_by);
                Ok(())
            }
            Turn::Beat => match self.look(scope.get()).await {
                Err(SnapshotError::Mysql(error)) if error.is_connection_lost() => {
                    tracing::info!(error = with_causes(&error), "the server did not answer");
                    self.eyes = None;
                    if self.answered.elapsed() > SILENCE {
                        return Err(SnapshotError::Unanswered {
                            server: self.plan.server.to_string(),
                            seconds: self.answered.elapsed().as_secs(),
                        });
                    }
                    Ok(())
                }
                looked => {
                    self.answered = Instant::now();
                    looked
                }
            },
        }
    }

    async fn look(&mut self, scope: Option<&Scope>) -> Result<(), SnapshotError> {
        let mut eyes = match self.eyes.take() {
            Some(eyes) => eyes,
            None => {
                let mut eyes = Session::connect_within(self.url, QUESTION_LIMIT).await?;
                eyes.set_timeout(Some(QUESTION_LIMIT));
                eyes
            }
        };
        self.look_who_waits(&mut eyes, scope).await?;
        self.beats += 1;
        if self.beats.is_multiple_of(HEALTH_BEATS) {
            self.look_at_lock().await;
            self.health.look(&mut eyes).await?;
        }
        self.eyes = Some(eyes);
        Ok(())
    }

    /// Whom we hold up, and whether it is too long.
    async fn look_who_waits(
        &mut self,
        eyes: &mut Session,
        scope: Option<&Scope>,
    ) -> Result<(), SnapshotError> {
        let bound = Duration::from_secs(self.plan.ddl_wait_seconds);
        if matches!(self.guard, Guard::Locked(_)) {
            let waiting = waiting_for_backup_lock(eyes, self.facts.performance_schema).await?;
            if self.note_waits(waiting.iter().copied()) >= bound {
                self.let_go().await;
            }
            return Ok(());
        }
        let Some(scope) = scope else {
            return Ok(());
        };
        let waiting = waiting_for_tables(eyes, &scope.connections).await?;
        let waited = self.note_waits(waiting.iter().map(|wait| wait.thread));
        match waiting.into_iter().next() {
            // It would break the snapshot as soon as it has its turn.
            Some(wait) if waited >= bound => Err(SnapshotError::GaveWay {
                table: wait.table,
                seconds: waited.as_secs(),
            }),
            _ => Ok(()),
        }
    }

    /// Notes who waits now, and gives the longest wait of them.
    fn note_waits(&mut self, waiting: impl Iterator<Item = u64>) -> Duration {
        let now = Instant::now();
        let before = std::mem::take(&mut self.waits);
        self.waits = waiting
            .map(|thread| (thread, before.get(&thread).copied().unwrap_or(now)))
            .collect();
        let longest = self.waits.values().min().map_or(Duration::ZERO, |since| {
            now.saturating_duration_since(*since)
        });
        self.longest_wait = self.longest_wait.max(longest);
        longest
    }

    /// Lets the backup lock go until the DDL that waits for it has had its turn. Nothing of what was
    /// seen before counts any more: who asks reads the schema again.
    async fn let_ddl_by(&mut self) -> Result<bool, SnapshotError> {
        if !matches!(self.guard, Guard::Locked(_)) {
            return Ok(false);
        }
        if let Some(eyes) = &mut self.eyes
            && let Ok(waiting) = waiting_for_backup_lock(eyes, self.facts.performance_schema).await
        {
            self.note_waits(waiting.into_iter());
        }
        if let Guard::Locked(lock) = std::mem::replace(&mut self.guard, Guard::Comparing) {
            self.lock_seconds += lock.release().await;
        }
        // Whoever has waited for it has it now. DDL seldom comes alone: each time more is let by.
        tokio::time::sleep(LET_BY.saturating_mul(1 << self.let_by.min(5))).await;
        // This waits until those who have it are done.
        let mut lock = BackupLock::take(self.url).await?;
        self.safe = lock.executed().await?;
        self.guard = Guard::Locked(lock);
        self.waits.clear();
        self.let_by += 1;
        Ok(true)
    }

    /// Lets the backup lock go; what comes from now on is followed in the binlog.
    async fn let_go(&mut self) {
        let Guard::Locked(mut lock) = std::mem::replace(&mut self.guard, Guard::Comparing) else {
            return;
        };
        tracing::info!("DDL has waited long enough: the backup lock is let go");
        // Read and followed while it is held still: nothing passes in between.
        let from = lock.executed().await.unwrap_or_else(|_| self.safe.clone());
        self.follow(from).await;
        self.lock_seconds += lock.release().await;
        self.waits.clear();
    }

    /// Whether the lock is held still: its connection may have been killed.
    async fn look_at_lock(&mut self) {
        let Guard::Locked(lock) = &mut self.guard else {
            return;
        };
        match lock.executed().await {
            Ok(executed) => self.safe = executed,
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "the backup lock is lost");
                self.lock_seconds += lock.seconds();
                self.guard = Guard::Comparing;
                self.follow(self.safe.clone()).await;
            }
        }
    }

    async fn follow(&mut self, from: GtidSet) {
        if !self.plan.follow_binlog {
            // The plan warns of it where there is no lock to begin with.
            if self.plan.backup_lock {
                self.warnings.push(
                    "LOCK INSTANCE FOR BACKUP was let go before the end, and the account may not \
                     read the binlog: DDL that was undone since would not have been noticed"
                        .to_owned(),
                );
            }
            self.set_guard(Guard::Comparing);
            return;
        }
        match DdlLog::start(self.url, from).await {
            Ok(log) => self.set_guard(Guard::Following(Box::new(log))),
            Err(error) => self.not_followed(&error),
        }
    }

    async fn follow_again(&mut self, error: &LogError) {
        tracing::info!(error = with_causes(error), "the binlog broke off");
        let Guard::Following(log) = &mut self.guard else {
            return;
        };
        // The server's own word will not change; a broken connection may.
        let again = match error {
            LogError::Wire(error) if error.server_code().is_none() => log.restart(self.url).await,
            LogError::Ended => log.restart(self.url).await,
            LogError::Wire(_) | LogError::Event(_) => {
                self.not_followed(error);
                return;
            }
        };
        if let Err(error) = again {
            self.not_followed(&error);
        }
    }

    fn not_followed(&mut self, error: &LogError) {
        self.warnings.push(format!(
            "DDL could not be followed in the binlog ({}): only what it left behind was seen",
            with_causes(error)
        ));
        self.set_guard(Guard::Comparing);
    }

    fn set_guard(&mut self, guard: Guard) {
        self.guard = guard;
        self.guards.push(self.guard.word());
    }

    /// Looks through what has gone by in the binlog.
    fn judge(&mut self, scope: Option<&Scope>) -> Result<(), SnapshotError> {
        let (Guard::Following(log), Some(scope)) = (&mut self.guard, scope) else {
            return Ok(());
        };
        for found in log.take_found() {
            if found.spoils(scope) {
                return Err(SnapshotError::Ddl {
                    object: found.object(),
                    gtid: found.gtid.to_string(),
                    verb: found.ddl.verb,
                });
            }
            self.explained |= !scope.view.contains(&found.gtid);
        }
        Ok(())
    }

    /// Looks through the rest of the binlog, once the last row has been read.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Ddl`].
    pub(super) async fn see_all(&mut self, scope: &Scope) -> Result<(), SnapshotError> {
        if !matches!(self.guard, Guard::Following(_)) {
            self.look_at_lock().await;
        }
        let until = match (&self.guard, self.eyes.take()) {
            (Guard::Following(_), Some(mut eyes)) => {
                let until = gtid_executed(&mut eyes).await?;
                self.eyes = Some(eyes);
                until
            }
            (Guard::Following(_), None) => {
                let mut eyes = Session::connect(self.url).await?;
                let until = gtid_executed(&mut eyes).await?;
                eyes.close().await;
                until
            }
            (Guard::Locked(_) | Guard::Comparing, eyes) => {
                self.eyes = eyes;
                return Ok(());
            }
        };
        let since = Instant::now();
        loop {
            self.judge(Some(scope))?;
            let Guard::Following(log) = &mut self.guard else {
                return Ok(());
            };
            if log.covers(&until) {
                return Ok(());
            }
            let left = LOG_LIMIT.saturating_sub(since.elapsed());
            match timeout(left, log.advance()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.follow_again(&error).await,
                Err(_) => {
                    return Err(SnapshotError::Unanswered {
                        server: self.plan.server.to_string(),
                        seconds: LOG_LIMIT.as_secs(),
                    });
                }
            }
        }
    }

    /// The first difference between two looks at the schema that is of weight, if there is any.
    pub(super) fn difference(&self, before: &Schema, after: &Schema) -> Option<String> {
        if !matches!(self.guard, Guard::Following(_)) {
            return changes::difference(before, after);
        }
        // What the binlog has shown to come after the view, or to be no table of the snapshot,
        // changes nothing in it. What it has not shown was not logged.
        let mut seen = after.clone();
        seen.tables.retain(|table| {
            before
                .tables
                .iter()
                .any(|old| old.database == table.database && old.name == table.name)
        });
        if self.explained {
            seen = Schema {
                tables: seen.tables,
                ..before.clone()
            };
        }
        changes::difference(before, &seen)
    }

    /// Gives everything back and tells what was seen.
    pub(super) async fn end(mut self) -> Watched {
        if let Guard::Locked(lock) = self.guard {
            self.lock_seconds += lock.release().await;
        }
        if let Some(eyes) = self.eyes.take() {
            eyes.close().await;
        }
        self.warnings.extend(self.health.warnings());
        Watched {
            guards: self.guards,
            backup_lock_seconds: self.lock_seconds,
            ddl_wait_seconds: self.longest_wait.as_secs_f64(),
            let_by: self.let_by,
            warnings: self.warnings,
        }
    }
}
