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
//! A prepared XA transaction breaks both: its GTID is in the set while its rows are in no view.
//! It is waited for, within a bound.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::archive::manifest::ConsistencyMethod;
use crate::error::{Class, Classified as _};
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::wire::{WireConnection, WireError, WireOptions};
use crate::mysql::{MysqlError, ServerUrl, Session};

use super::error::SnapshotError;

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
/// How long a prepared XA transaction is waited for.
const XA_WAIT: Duration = Duration::from_secs(30);
/// `ER_LOCK_WAIT_TIMEOUT`.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

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

/// Opens `threads` read views; `control` is an ordinary session on the same server.
pub(super) async fn open(
    url: &ServerUrl,
    control: &mut Session,
    threads: usize,
    lock: LockMode,
) -> Result<ConsistentView, SnapshotError> {
    let mut readers = try_join_all((0..threads).map(|_| reader(url))).await?;
    let mut warnings = Vec::new();
    let mut attempts = 0;
    let tries = match lock {
        LockMode::Auto => TRIES_AUTO,
        LockMode::None => TRIES_NONE,
        LockMode::Flush => 0,
    };
    let mut xa = XaWait::begin();
    while attempts < tries {
        attempts += 1;
        if let Some(gtid_executed) = attempt(control, &mut readers).await? {
            if xa.is_clear(control, &mut warnings).await? {
                return Ok(ConsistentView {
                    readers,
                    gtid_executed,
                    method: ConsistencyMethod::LockFree,
                    attempts,
                    global_lock_seconds: 0.0,
                    warnings,
                });
            }
            attempts -= 1;
        }
        execute_all(&mut readers, "ROLLBACK").await?;
        tokio::time::sleep(PAUSE).await;
    }
    if lock == LockMode::None {
        return Err(SnapshotError::NeverQuiet { attempts });
    }
    let mut global_lock_seconds = 0.0;
    loop {
        let opened = open_locked(url, control, &mut readers, &mut attempts).await?;
        global_lock_seconds += opened.seconds;
        if xa.is_clear(control, &mut warnings).await? {
            return Ok(ConsistentView {
                readers,
                gtid_executed: opened.gtid_executed,
                method: ConsistencyMethod::GlobalReadLock,
                attempts,
                global_lock_seconds,
                warnings,
            });
        }
        execute_all(&mut readers, "ROLLBACK").await?;
    }
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

/// One lock-free attempt; the order of the questions is the proof.
async fn attempt(
    control: &mut Session,
    readers: &mut [WireConnection],
) -> Result<Option<GtidSet>, SnapshotError> {
    let before = gtid_executed(control).await?;
    if is_any_owned(control).await? {
        return Ok(None);
    }
    execute_all(readers, START).await?;
    if is_any_owned(control).await? {
        return Ok(None);
    }
    let after = gtid_executed(control).await?;
    Ok((before == after).then_some(after))
}

async fn is_any_owned(control: &mut Session) -> Result<bool, MysqlError> {
    let owned: String = control.query_one("SELECT @@GLOBAL.gtid_owned").await?;
    Ok(!owned.is_empty())
}

struct Locked {
    gtid_executed: GtidSet,
    seconds: f64,
}

async fn open_locked(
    url: &ServerUrl,
    control: &mut Session,
    readers: &mut [WireConnection],
    attempts: &mut u32,
) -> Result<Locked, SnapshotError> {
    control
        .execute(format!("SET SESSION lock_wait_timeout = {FLUSH_WAIT}"))
        .await?;
    let mut seconds = 0.0;
    for flush_attempt in 1..=FLUSH_TRIES {
        *attempts += 1;
        let since = Instant::now();
        let flushed = flush(url, control).await;
        if let Err(error) = flushed {
            seconds += since.elapsed().as_secs_f64();
            if error.code() != Some(LOCK_WAIT_TIMEOUT) {
                return Err(error.into());
            }
            tracing::info!(attempt = flush_attempt, "the global read lock is busy");
            tokio::time::sleep(FLUSH_PAUSE).await;
            continue;
        }
        let opened = async {
            let before = gtid_executed(control).await?;
            execute_all(readers, START).await?;
            let after = gtid_executed(control).await?;
            Ok::<_, SnapshotError>((before, after))
        }
        .await;
        control.execute("UNLOCK TABLES").await?;
        seconds += since.elapsed().as_secs_f64();
        let (before, after) = opened?;
        if before != after {
            return Err(SnapshotError::MovedUnderLock);
        }
        return Ok(Locked {
            gtid_executed: after,
            seconds,
        });
    }
    Err(SnapshotError::LockBusy {
        lock: "FLUSH TABLES WITH READ LOCK",
        attempts: FLUSH_TRIES,
        seconds: FLUSH_WAIT,
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

/// Waiting for prepared XA transactions to end.
struct XaWait {
    since: Instant,
    warned: bool,
}

impl XaWait {
    fn begin() -> Self {
        Self {
            since: Instant::now(),
            warned: false,
        }
    }

    /// Whether no XA transaction is prepared; after a pause `false`, and an error once the wait
    /// is over.
    async fn is_clear(
        &mut self,
        control: &mut Session,
        warnings: &mut Vec<String>,
    ) -> Result<bool, SnapshotError> {
        let count = match prepared_xa(control).await? {
            Some(0) => return Ok(true),
            Some(count) => count,
            None => {
                if !std::mem::replace(&mut self.warned, true) {
                    warnings.push(
                        "prepared XA transactions cannot be seen without XA_RECOVER_ADMIN or \
                         PROCESS"
                            .to_owned(),
                    );
                }
                return Ok(true);
            }
        };
        if self.since.elapsed() > XA_WAIT {
            return Err(SnapshotError::PreparedXa {
                count,
                seconds: XA_WAIT.as_secs(),
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(false)
    }
}

/// How many XA transactions are prepared; `None` if the account may not know.
async fn prepared_xa(control: &mut Session) -> Result<Option<u64>, MysqlError> {
    match control.query::<mysql_async::Row>("XA RECOVER").await {
        Ok(rows) => return Ok(Some(rows.len() as u64)),
        Err(error) if error.class() == Class::Authentication => {}
        Err(error) => return Err(error),
    }
    // A transaction that was prepared and detached belongs to no thread.
    let detached = control
        .query_one::<u64>(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = 0",
        )
        .await;
    match detached {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.class() == Class::Authentication => Ok(None),
        Err(error) => Err(error),
    }
}
