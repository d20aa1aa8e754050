//! LOCK INSTANCE FOR BACKUP on a connection of its own.
//!
//! It blocks DDL and nothing else; but DDL that a replica applies waits too, and with it all that
//! comes behind, so whoever holds it must be ready to let go.

use std::time::{Duration, Instant};

use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::{MysqlError, ServerUrl, Session};
use crate::snapshot::error::SnapshotError;

use super::LOCK_WAIT_TIMEOUT;
use super::holders::running_ddl;

/// `lock_wait_timeout` in seconds: DDL that runs now may end first.
const WAIT: u64 = 30;
/// How long the connection may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(10);

/// The lock, as long as this is alive.
#[derive(Debug)]
pub(in crate::snapshot) struct BackupLock {
    session: Session,
    since: Instant,
}

impl BackupLock {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::LockBusy`] if DDL ran for the whole wait.
    pub(in crate::snapshot) async fn take(url: &ServerUrl) -> Result<Self, SnapshotError> {
        let mut session = Session::connect(url).await?;
        session
            .execute(format!(
                "SET SESSION lock_wait_timeout = {WAIT}, wait_timeout = 604800"
            ))
            .await?;
        match session.execute("LOCK INSTANCE FOR BACKUP").await {
            Ok(_) => {
                session.set_timeout(Some(ANSWER));
                Ok(Self {
                    session,
                    since: Instant::now(),
                })
            }
            Err(error) if error.code() == Some(LOCK_WAIT_TIMEOUT) => {
                let holders = running_ddl(&mut session).await;
                Err(SnapshotError::LockBusy {
                    lock: "LOCK INSTANCE FOR BACKUP",
                    attempts: 1,
                    seconds: WAIT,
                    holders,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the server has executed while the lock is surely held.
    ///
    /// # Errors
    ///
    /// The connection is gone, and the lock with it.
    pub(in crate::snapshot) async fn executed(&mut self) -> Result<GtidSet, MysqlError> {
        gtid_executed(&mut self.session).await
    }

    /// For how many seconds it has been held.
    pub(in crate::snapshot) fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    /// Gives the lock back and tells for how many seconds it was held.
    pub(in crate::snapshot) async fn release(mut self) -> f64 {
        // A connection that is closed may hold it for a little longer; one that is broken does not.
        if let Err(error) = self.session.execute("UNLOCK INSTANCE").await {
            tracing::debug!(%error, "the backup lock ends with its connection");
        }
        let seconds = self.since.elapsed().as_secs_f64();
        self.session.close().await;
        seconds
    }
}
