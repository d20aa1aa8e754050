//! Who is in a lock's way, and whom our locks hold up. Only looked at: nobody is ever killed.
//!
//! Only connections of clients count. The threads of replication and of a group run for as long as
//! the server does and hold no lock that matters here. Of a statement nothing is told but its
//! connection, since its text may hold a secret.

use std::fmt;

use crate::mysql::{MysqlError, Session};

/// A connection that holds what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number, as `KILL` takes it.
    pub connection: Option<u64>,
    /// `user@host`.
    pub user: String,
    /// For how long its statement has run, in seconds.
    pub seconds: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connection {
            Some(connection) => write!(f, "connection {connection}")?,
            None => f.write_str("a thread")?,
        }
        if !self.user.is_empty() {
            write!(f, " of {}", self.user)?;
        }
        write!(f, " for {} s", self.seconds)
    }
}

type Row = (Option<u64>, String, Option<u64>);

const COLUMNS: &str = "t.PROCESSLIST_ID, \
     CONCAT_WS('@', t.PROCESSLIST_USER, t.PROCESSLIST_HOST), t.PROCESSLIST_TIME";

/// Statements that have run for at least so many seconds and have tables open: FLUSH TABLES WITH
/// READ LOCK would wait for them, and everybody else for it.
pub(super) async fn long_statements(session: &mut Session, seconds: u64) -> Vec<Holder> {
    ask(
        session,
        &format!(
            "SELECT {COLUMNS} FROM performance_schema.threads t \
             WHERE t.TYPE = 'FOREGROUND' AND t.NAME LIKE '%one_connection' \
             AND t.PROCESSLIST_COMMAND IN ('Query', 'Execute') \
             AND t.PROCESSLIST_ID <> CONNECTION_ID() AND t.PROCESSLIST_TIME >= {seconds} \
             AND EXISTS (SELECT 1 FROM performance_schema.metadata_locks l \
             WHERE l.OWNER_THREAD_ID = t.THREAD_ID AND l.OBJECT_TYPE = 'TABLE' \
             AND l.OBJECT_SCHEMA <> 'performance_schema' AND l.LOCK_STATUS = 'GRANTED') \
             ORDER BY t.PROCESSLIST_TIME DESC LIMIT 3"
        ),
    )
    .await
}

/// Who runs DDL, for which LOCK INSTANCE FOR BACKUP waits.
pub(super) async fn running_ddl(session: &mut Session) -> Vec<Holder> {
    ask(
        session,
        &format!(
            "SELECT {COLUMNS} FROM performance_schema.metadata_locks l \
             JOIN performance_schema.threads t ON t.THREAD_ID = l.OWNER_THREAD_ID \
             WHERE l.OBJECT_TYPE = 'BACKUP LOCK' AND l.LOCK_STATUS = 'GRANTED' \
             AND l.LOCK_TYPE = 'INTENTION_EXCLUSIVE' ORDER BY t.PROCESSLIST_TIME DESC LIMIT 3"
        ),
    )
    .await
}

/// The answer only makes an error clearer: without it, the error is told all the same.
async fn ask(session: &mut Session, sql: &str) -> Vec<Holder> {
    match session.query::<Row>(sql).await {
        Ok(rows) => rows
            .into_iter()
            .map(|(connection, user, seconds)| Holder {
                connection,
                user,
                seconds: seconds.unwrap_or_default(),
            })
            .collect(),
        Err(error) => {
            tracing::debug!(%error, "who holds the lock is not known");
            Vec::new()
        }
    }
}

/// The threads whose DDL waits for the backup lock, replicated DDL among them. A server without
/// its performance schema is asked for its processes instead.
///
/// # Errors
///
/// What the question fails with.
pub(in crate::snapshot) async fn waiting_for_backup_lock(
    session: &mut Session,
    performance_schema: bool,
) -> Result<Vec<u64>, MysqlError> {
    // LOCK INSTANCE FOR BACKUP itself waits in the same state, for DDL that runs.
    session
        .query(match performance_schema {
            true => {
                "SELECT THREAD_ID FROM performance_schema.threads \
                 WHERE PROCESSLIST_STATE = 'Waiting for backup lock' \
                 AND COALESCE(PROCESSLIST_INFO, '') NOT LIKE 'LOCK INSTANCE%'"
            }
            false => {
                "SELECT ID FROM information_schema.PROCESSLIST \
                 WHERE STATE = 'Waiting for backup lock' \
                 AND COALESCE(INFO, '') NOT LIKE 'LOCK INSTANCE%'"
            }
        })
        .await
}

/// A thread whose DDL waits for a table that one of our connections reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::snapshot) struct TableWait {
    pub(in crate::snapshot) thread: u64,
    pub(in crate::snapshot) table: String,
}

/// The threads whose DDL waits for tables that these connections read.
///
/// # Errors
///
/// What the question fails with.
pub(in crate::snapshot) async fn waiting_for_tables(
    session: &mut Session,
    connections: &[u32],
) -> Result<Vec<TableWait>, MysqlError> {
    if connections.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = connections.iter().map(ToString::to_string).collect();
    let rows: Vec<(u64, String)> = session
        .query(format!(
            "SELECT DISTINCT p.OWNER_THREAD_ID, CONCAT_WS('.', p.OBJECT_SCHEMA, p.OBJECT_NAME) \
             FROM performance_schema.metadata_locks p \
             JOIN performance_schema.metadata_locks g ON g.OBJECT_TYPE = p.OBJECT_TYPE \
             AND g.OBJECT_SCHEMA = p.OBJECT_SCHEMA AND g.OBJECT_NAME = p.OBJECT_NAME \
             JOIN performance_schema.threads t ON t.THREAD_ID = g.OWNER_THREAD_ID \
             WHERE p.OBJECT_TYPE = 'TABLE' AND p.LOCK_STATUS = 'PENDING' \
             AND p.LOCK_TYPE = 'EXCLUSIVE' AND g.LOCK_STATUS = 'GRANTED' \
             AND t.PROCESSLIST_ID IN ({})",
            ids.join(", ")
        ))
        .await?;
    Ok(rows
        .into_iter()
        .map(|(thread, table)| TableWait { thread, table })
        .collect())
}
