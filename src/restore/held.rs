//! A connection that writes to the target, known to the next run by the user-level lock that it holds.
//!
//! Where a network is cut without either side hearing of it, the server keeps such a connection for
//! hours, with its transaction, its locks and the GTID that it was at. Whoever goes on ends it: only
//! one that holds the lock, and only of its own account, for which no privilege is needed. Those that
//! load are many and hold none: `load` knows them by their program's name.

use std::time::Duration;

use crate::mysql::error::MysqlError;
use crate::mysql::session::Session;

/// How long the connection of an earlier run may take to end: its transaction is taken back first.
const END_LIMIT: Duration = Duration::from_secs(600);
/// `ER_NO_SUCH_THREAD`.
const NO_SUCH_THREAD: u16 = 1094;

/// Makes `session` the one that holds the lock `name` (at most 64 characters); the one of an earlier
/// run is ended. Returns when what that one had begun has been taken back.
///
/// # Errors
///
/// What the server refuses; [`MysqlError::TimedOut`] if another account holds the lock, or the end
/// takes too long. The session's own timeout must leave room for that.
pub(super) async fn take(session: &mut Session, name: &str) -> Result<(), MysqlError> {
    let held: Option<u64> = session
        .query_first(format!(
            "SELECT ID FROM information_schema.PROCESSLIST \
             WHERE ID = IS_USED_LOCK('{name}') AND ID <> CONNECTION_ID() \
             AND CONCAT(USER, '@') = LEFT(USER(), CHAR_LENGTH(USER) + 1)"
        ))
        .await?;
    if let Some(id) = held {
        end(session, id).await?;
    }
    // A connection gives its locks back behind the end of its transaction.
    let limit = END_LIMIT.as_secs();
    let has_it: Option<bool> = session
        .query_one(format!("SELECT GET_LOCK('{name}', {limit})"))
        .await?;
    if has_it == Some(true) {
        return Ok(());
    }
    Err(MysqlError::TimedOut {
        action: "waiting for another run to end".to_owned(),
        limit: END_LIMIT,
    }
    .at(session.address()))
}

/// Ends a connection that an earlier run left open, unless it has ended by itself.
///
/// # Errors
///
/// What the server refuses.
pub(super) async fn end(session: &mut Session, id: u64) -> Result<(), MysqlError> {
    match session.execute(format!("KILL CONNECTION {id}")).await {
        Err(error) if error.code() == Some(NO_SUCH_THREAD) => {}
        other => {
            other?;
            tracing::info!(id, "ended a connection that an earlier run left open");
        }
    }
    Ok(())
}
