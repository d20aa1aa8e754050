//! Prepared XA transactions: their GTIDs count as executed while no view shows their rows.
//!
//! The question must be asked between the two readings of `gtid_executed` that have to be equal:
//! a transaction that was prepared before the first and ended before the question changes the
//! set, and so does one that is prepared after the question. Asked anywhere else, one that ends
//! just before goes unseen.

use std::time::{Duration, Instant};

use crate::error::{Class, Classified as _};
use crate::mysql::{MysqlError, Session};
use crate::snapshot::error::SnapshotError;

/// How long a prepared XA transaction is waited for.
const WAIT: Duration = Duration::from_secs(30);
/// The pause before the next look.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Waits for prepared XA transactions to end, within a bound.
#[derive(Debug)]
pub(super) struct XaWait {
    since: Option<Instant>,
    /// Whether the account may not know.
    pub(super) blind: bool,
}

impl XaWait {
    pub(super) const fn begin() -> Self {
        Self {
            since: None,
            blind: false,
        }
    }

    /// Whether any is prepared now.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::PreparedXa`] once the wait is over.
    pub(super) async fn is_any_prepared(
        &mut self,
        control: &mut Session,
    ) -> Result<bool, SnapshotError> {
        let count = match prepared(control).await? {
            Some(count) => count,
            None => {
                self.blind = true;
                0
            }
        };
        if count == 0 {
            return Ok(false);
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() > WAIT {
            return Err(SnapshotError::PreparedXa {
                count,
                seconds: WAIT.as_secs(),
            });
        }
        Ok(true)
    }
}

/// How many XA transactions are prepared; `None` if the account may not know.
async fn prepared(control: &mut Session) -> Result<Option<u64>, MysqlError> {
    match control.query::<mysql_async::Row>("XA RECOVER").await {
        Ok(rows) => return Ok(Some(rows.len() as u64)),
        Err(error) if error.class() == Class::Authentication => {}
        Err(error) => return Err(error),
    }
    // One that was prepared and detached belongs to no thread; one that was not is the current
    // one of its own.
    let seen = control
        .query_one::<u64>(
            "SELECT (SELECT COUNT(*) FROM information_schema.INNODB_TRX \
             WHERE trx_mysql_thread_id = 0) + \
             (SELECT COUNT(*) FROM performance_schema.events_transactions_current \
             WHERE STATE = 'ACTIVE' AND XA_STATE = 'PREPARED')",
        )
        .await;
    match seen {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.class() == Class::Authentication => Ok(None),
        Err(error) => Err(error),
    }
}
