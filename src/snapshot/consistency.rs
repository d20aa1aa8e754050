//! Several connections that all see one GTID set.
//!
//! `gtid_executed` is not atomic with visibility: a commit is first visible and then added to the
//! set, and between the two its GTID is *owned*. So the lock-free way reads `gtid_executed` and then
//! `gtid_owned`, which must be empty; opens all read views; and reads `gtid_owned` (empty) and
//! then `gtid_executed` (unchanged) again. Whatever committed in between is caught by one of the
//! two: it is still owned, or it is in the set. On a busy replica no such moment may be found;
//! then FLUSH TABLES WITH READ LOCK holds commits up for as long as the views take to open,
//! with a small `lock_wait_timeout` and a bound on the attempts, since while it waits for a long
//! query it holds up every writer.
//!
//! DDL that waits for our own LOCK INSTANCE FOR BACKUP bars both ways: a replica's has its GTID, and
//! any has the global metadata lock in part. It must be let by first.
//!
//! A prepared XA transaction breaks both: its GTID is in the set while its rows are in no view.
//! It is waited for, within a bound, and looked for inside the proof (see [`xa`]).
//!
//! Afterwards each connection stands behind a savepoint: going back to it gives the metadata locks
//! of the tables back that were read since, and keeps the view, so that DDL need not wait for a
//! table that is done.

mod backup_lock;
pub mod holders;
mod xa;

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::archive::manifest::ConsistencyMethod;
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::wire::{WireConnection, WireError, WireOptions};
use crate::mysql::{MysqlError, ServerFacts, ServerUrl, Session};

use super::error::SnapshotError;
use super::plan::SnapshotPlan;
use holders::{Holder, long_statements, waiting_for_backup_lock};
use xa::XaWait;

pub(super) use backup_lock::BackupLock;

/// How the connections come to one GTID set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Without a lock if a quiet moment is found, else with a short one.
    Auto,
    /// Never with a lock.
    None,
    /// At once with a short lock.
    Flush,
}

/// Lock-free attempts before a lock is taken.
const TRIES_AUTO: u32 = 20;
/// Lock-free attempts if no lock may be taken.
const TRIES_NONE: u32 = 400;
/// The pause between two lock-free attempts.
const PAUSE: Duration = Duration::from_millis(25);
/// `lock_wait_timeout` of FLUSH TABLES WITH READ LOCK, in seconds.
const FLUSH_WAIT: u64 = 2;
/// Attempts at FLUSH TABLES WITH READ LOCK.
const FLUSH_TRIES: u32 = 15;
/// The pause between two of them, for the writers that were held up.
const FLUSH_PAUSE: Duration = Duration::from_secs(2);
/// A statement that has run for so many seconds is not expected to end at once; behind it the
/// lock would hold up all others in vain.
const LONG_STATEMENT: u64 = FLUSH_WAIT;
/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// Where a connection stands before it reads a table.
const SAVEPOINT: &str = "SAVEPOINT quillback";
/// Gives the metadata locks of a table back that was read, and keeps the view.
pub(super) const RELEASE_TABLE: &str = "ROLLBACK TO SAVEPOINT quillback";

/// Connections with open read views of one GTID set.
#[derive(Debug)]
pub(super) struct ConsistentView {
    pub(super) readers: Vec<WireConnection>,
    pub(super) gtid_executed: GtidSet,
    pub(super) method: ConsistencyMethod,
    pub(super) attempts: u32,
    pub(super) global_lock_seconds: f64,
    pub(super) warnings: Vec<String>,
}

/// The way to views of one state; what it has cost adds up over several tries.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    url: &'a ServerUrl,
    threads: usize,
    lock: LockMode,
    performance_schema: bool,
    /// Whether to give up at once where DDL stands in the way that waits for our backup lock.
    pub(super) gives_way: bool,
    xa: XaWait,
    attempts: u32,
    /// For how long writes were held up, in vain too.
    seconds: f64,
}

impl<'a> Opening<'a> {
    pub(super) const fn new(url: &'a ServerUrl, plan: &SnapshotPlan, facts: &ServerFacts) -> Self {
        Self {
            url,
            threads: plan.threads,
            lock: plan.lock,
            performance_schema: facts.performance_schema,
            gives_way: false,
            xa: XaWait::begin(),
            attempts: 0,
            seconds: 0.0,
        }
    }

    /// Opens the views; `control` is an ordinary session on the same server. `None` if DDL that waits
    /// for the backup lock is in the way.
    pub(super) async fn open(
        &mut self,
        control: &mut Session,
    ) -> Result<Option<ConsistentView>, SnapshotError> {
        let mut readers = try_join_all((0..self.threads).map(|_| reader(self.url))).await?;
        let mut method = ConsistencyMethod::LockFree;
        let mut way = self.lock_free(control, &mut readers).await?;
        if matches!(way, Way::Closed) {
            if self.lock == LockMode::None {
                return Err(SnapshotError::NeverQuiet {
                    attempts: self.attempts,
                });
            }
            method = ConsistencyMethod::GlobalReadLock;
            way = self.under_lock(control, &mut readers).await?;
        }
        let Way::Opened(gtid_executed) = way else {
            return Ok(None);
        };
        execute_all(&mut readers, SAVEPOINT).await?;
        let mut warnings = Vec::new();
        if self.xa.blind {
            warnings.push(
                "prepared XA transactions cannot be seen without XA_RECOVER_ADMIN or PROCESS"
                    .to_owned(),
            );
        }
        Ok(Some(ConsistentView {
            readers,
            gtid_executed,
            method,
            attempts: self.attempts,
            global_lock_seconds: self.seconds,
            warnings,
        }))
    }

    async fn lock_free(
        &mut self,
        control: &mut Session,
        readers: &mut [WireConnection],
    ) -> Result<Way, SnapshotError> {
        let tries = match self.lock {
            LockMode::Auto => TRIES_AUTO,
            LockMode::None => TRIES_NONE,
            LockMode::Flush => 0,
        };
        let mut tried = 0;
        while tried < tries {
            let pause = match attempt(control, readers, &mut self.xa).await? {
                Attempt::Opened(set) => {
                    self.attempts += 1;
                    return Ok(Way::Opened(set));
                }
                Attempt::Busy => {
                    self.attempts += 1;
                    tried += 1;
                    PAUSE
                }
                Attempt::Prepared => xa::PAUSE,
            };
            execute_all(readers, "ROLLBACK").await?;
            if tried.is_multiple_of(TRIES_AUTO) && self.is_ddl_in_the_way(control).await? {
                return Ok(Way::DdlWaits);
            }
            tokio::time::sleep(pause).await;
        }
        Ok(Way::Closed)
    }

    async fn under_lock(
        &mut self,
        control: &mut Session,
        readers: &mut [WireConnection],
    ) -> Result<Way, SnapshotError> {
        control
            .execute(format!("SET SESSION lock_wait_timeout = {FLUSH_WAIT}"))
            .await?;
        let mut moved = false;
        let mut holders: Vec<Holder> = Vec::new();
        let mut tried = 0;
        while tried < FLUSH_TRIES {
            // It holds the global lock in part, and waits for us: behind it writers would wait in vain.
            if self.is_ddl_in_the_way(control).await? {
                return Ok(Way::DdlWaits);
            }
            self.attempts += 1;
            tried += 1;
            let busy = long_statements(control, LONG_STATEMENT).await;
            if !busy.is_empty() {
                tracing::info!(attempt = self.attempts, "a long statement is in the way");
                holders = busy;
                tokio::time::sleep(FLUSH_PAUSE).await;
                continue;
            }
            let since = Instant::now();
            if let Err(error) = flush(self.url, control).await {
                self.seconds += since.elapsed().as_secs_f64();
                if error.code() != Some(LOCK_WAIT_TIMEOUT) {
                    return Err(error.into());
                }
                tracing::info!(attempt = self.attempts, "the global read lock is busy");
                let now = long_statements(control, 0).await;
                if !now.is_empty() {
                    holders = now;
                }
                tokio::time::sleep(FLUSH_PAUSE).await;
                continue;
            }
            let opened = locked(control, readers, &mut self.xa).await;
            control.execute("UNLOCK TABLES").await?;
            self.seconds += since.elapsed().as_secs_f64();
            let pause = match opened? {
                Attempt::Opened(set) => return Ok(Way::Opened(set)),
                Attempt::Busy => {
                    moved = true;
                    PAUSE
                }
                Attempt::Prepared => {
                    self.attempts -= 1;
                    tried -= 1;
                    xa::PAUSE
                }
            };
            execute_all(readers, "ROLLBACK").await?;
            tokio::time::sleep(pause).await;
        }
        Err(if moved && holders.is_empty() {
            SnapshotError::MovedUnderLock
        } else {
            SnapshotError::LockBusy {
                lock: "FLUSH TABLES WITH READ LOCK",
                attempts: FLUSH_TRIES,
                seconds: FLUSH_WAIT,
                holders,
            }
        })
    }

    async fn is_ddl_in_the_way(&self, control: &mut Session) -> Result<bool, MysqlError> {
        if !self.gives_way {
            return Ok(false);
        }
        let waiting = waiting_for_backup_lock(control, self.performance_schema).await?;
        Ok(!waiting.is_empty())
    }
}

/// Where a way has led.
enum Way {
    Opened(GtidSet),
    /// To nothing, as often as it was tried.
    Closed,
    /// To DDL that waits for the backup lock.
    DdlWaits,
}

async fn reader(url: &ServerUrl) -> Result<WireConnection, WireError> {
    let mut reader = WireConnection::connect(url, &WireOptions::default()).await?;
    // Long write timeouts, since a slow store holds the server's rows back; values as bytes, in
    // UTC, whatever the server's own settings are.
    reader
        .execute(
            "SET SESSION net_write_timeout = 3600, net_read_timeout = 3600, wait_timeout = 86400, \
             max_execution_time = 0, sql_mode = '', time_zone = '+00:00', \
             character_set_results = binary, transaction_isolation = 'REPEATABLE-READ'",
        )
        .await?;
    Ok(reader)
}

async fn execute_all(readers: &mut [WireConnection], sql: &str) -> Result<(), WireError> {
    try_join_all(readers.iter_mut().map(|reader| reader.execute(sql))).await?;
    Ok(())
}

const START: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// What came of an attempt.
enum Attempt {
    Opened(GtidSet),
    /// A transaction was in commit.
    Busy,
    /// An XA transaction is prepared.
    Prepared,
}

/// One lock-free attempt; the order of the questions is the proof.
async fn attempt(
    control: &mut Session,
    readers: &mut [WireConnection],
    xa: &mut XaWait,
) -> Result<Attempt, SnapshotError> {
    let before = gtid_executed(control).await?;
    if is_any_owned(control).await? {
        return Ok(Attempt::Busy);
    }
    if xa.is_any_prepared(control).await? {
        return Ok(Attempt::Prepared);
    }
    execute_all(readers, START).await?;
    if is_any_owned(control).await? {
        return Ok(Attempt::Busy);
    }
    let after = gtid_executed(control).await?;
    Ok(if before == after {
        Attempt::Opened(after)
    } else {
        Attempt::Busy
    })
}

async fn is_any_owned(control: &mut Session) -> Result<bool, MysqlError> {
    let owned: String = control.query_one("SELECT @@GLOBAL.gtid_owned").await?;
    Ok(!owned.is_empty())
}

/// Opens the views while commits are held up.
async fn locked(
    control: &mut Session,
    readers: &mut [WireConnection],
    xa: &mut XaWait,
) -> Result<Attempt, SnapshotError> {
    let before = gtid_executed(control).await?;
    if xa.is_any_prepared(control).await? {
        return Ok(Attempt::Prepared);
    }
    execute_all(readers, START).await?;
    let after = gtid_executed(control).await?;
    Ok(if before == after {
        Attempt::Opened(after)
    } else {
        Attempt::Busy
    })
}

/// Asks for the lock; if the server does not honour its own bound, the connection is killed, for a
/// lock that is still being waited for holds up every writer.
async fn flush(url: &ServerUrl, control: &mut Session) -> Result<(), MysqlError> {
    let connection = control.connection_id();
    control.set_timeout(Some(Duration::from_secs(FLUSH_WAIT + 5)));
    let flushed = control.execute("FLUSH TABLES WITH READ LOCK").await;
    control.set_timeout(Some(crate::mysql::session::QUERY_TIMEOUT));
    match flushed {
        Ok(_) => Ok(()),
        Err(error) => {
            if error.is_connection_lost() {
                let mut killer = Session::connect(url).await?;
                killer.execute(format!("KILL {connection}")).await?;
                killer.close().await;
            }
            Err(error)
        }
    }
}
