//! Replay by replication: the server's own applier catches up from the archive.
//!
//! The server is pointed at [`super::serve`], its applier settings are loosened for the time of
//! the replay and put back afterwards, and it is watched until its `gtid_executed` is the set
//! that was asked for. An error of its receiver or applier ends the replay with the server's own
//! words and the transaction it was at.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::serve::Server;
use crate::archive::repository::ArchiveError;
use crate::config::Secret;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::gtid_executed;
use crate::mysql::quote;
use crate::mysql::session::Session;

/// The replication channel that a replay uses, and removes at its end.
pub const CHANNEL: &str = "quillback_restore";
/// How often the server is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// How long the server may fail to reach us before that is a failure.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The server refused a statement or broke off.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// The archive could not be read while it was played.
    #[error("the archive cannot be replayed: {0}")]
    Archive(std::sync::Arc<ArchiveError>),
    /// The server's receiver or applier stopped with an error.
    #[error("the {thread} of {server} stopped with error {code}: {message}")]
    Applier {
        /// Which thread.
        thread: String,
        /// `host:port`.
        server: String,
        /// MySQL's error number.
        code: u32,
        /// The server's text.
        message: String,
    },
    /// All was sent and the server stays behind.
    #[error("{server} has been sent everything and does not apply {missing:#}")]
    Stuck {
        /// `host:port`.
        server: String,
        /// What it lacks.
        missing: GtidSet,
    },
    /// The caller gave up.
    #[error("the replay was interrupted")]
    Cancelled,
}

impl Classified for ReplayError {
    fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Applier { .. } | Self::Stuck { .. } | Self::Cancelled => Class::Failure,
        }
    }
}

/// How the log comes to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayKind {
    /// The server replicates from us.
    #[default]
    Replication,
    /// Over an ordinary connection to the server.
    Sql,
}

/// How the server shall reach us.
#[derive(Debug, Clone)]
pub struct ReplaySource {
    /// Our address as the server sees it.
    pub address: SocketAddr,
    /// The account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Appliers that work at once.
    pub workers: u32,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReplayProgress {
    /// Transactions that were applied.
    pub applied: u64,
    /// Transactions in all.
    pub total: u64,
    /// Bytes of events that were sent.
    pub sent_bytes: u64,
}

/// Replays until the server has `wanted` (all of it, on top of what it has).
///
/// # Errors
///
/// [`ReplayError`]; the channel is removed and the settings are put back even then, unless the
/// server is gone.
pub async fn replay(
    session: &mut Session,
    server: &Server,
    source: &ReplaySource,
    wanted: &GtidSet,
    progress: &(dyn Fn(ReplayProgress) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<(), ReplayError> {
    let saved = tune(session, source.workers).await?;
    let outcome = attach_and_wait(session, server, source, wanted, progress, cancel).await;
    let detached = detach(session).await;
    let restored = put_back(session, &saved).await;
    outcome?;
    detached?;
    restored?;
    Ok(())
}

async fn attach_and_wait(
    session: &mut Session,
    server: &Server,
    source: &ReplaySource,
    wanted: &GtidSet,
    progress: &(dyn Fn(ReplayProgress) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<(), ReplayError> {
    let channel = quote::string(CHANNEL);
    session
        .execute(format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = {}, SOURCE_PORT = {}, \
             SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 0, SOURCE_CONNECT_RETRY = 1, \
             SOURCE_RETRY_COUNT = 60, SOURCE_HEARTBEAT_PERIOD = 10 FOR CHANNEL {channel}",
            quote::string(&source.address.ip().to_string()),
            source.address.port(),
        ))
        .await?;
    // Given here and not above, the login is kept in memory only.
    session
        .execute(format!(
            "START REPLICA USER = {} PASSWORD = {} FOR CHANNEL {channel}",
            quote::string(&source.user),
            quote::string(source.password.expose()),
        ))
        .await
        .map_err(MysqlError::without_text)?;
    let total = u64::try_from(wanted.count()).unwrap_or(u64::MAX);
    let mut last = wanted.count();
    let mut idle = Duration::ZERO;
    loop {
        let missing = wanted.subtract(&gtid_executed(session).await?);
        let left = missing.count();
        let sent = server.progress();
        progress(ReplayProgress {
            applied: total.saturating_sub(u64::try_from(left).unwrap_or(u64::MAX)),
            total,
            sent_bytes: sent.bytes,
        });
        if missing.is_empty() {
            return Ok(());
        }
        if let Some(failure) = sent.failure {
            return Err(ReplayError::Archive(failure));
        }
        if let Err(error) = fail_on_error(session, idle < PATIENCE).await {
            // What the receiver complains of may be what we have just told it.
            return Err(match server.progress().failure {
                Some(failure) => ReplayError::Archive(failure),
                None => error,
            });
        }
        idle = if left == last {
            idle + POLL
        } else {
            Duration::ZERO
        };
        last = left;
        // A single transaction may take long; only a server with nothing to do is stuck.
        if sent.complete && idle > Duration::from_secs(30) && is_idle(session).await? {
            return Err(ReplayError::Stuck {
                server: session.address().to_string(),
                missing,
            });
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = cancel.cancelled() => return Err(ReplayError::Cancelled),
        }
    }
}

/// Fails with the first error that the receiver, the coordinator or a worker reports.
///
/// A receiver that still tries to connect is an error only without patience.
async fn fail_on_error(session: &mut Session, patient: bool) -> Result<(), ReplayError> {
    let channel = quote::string(CHANNEL);
    for (thread, table) in [
        ("applier", "replication_applier_status_by_worker"),
        ("coordinator", "replication_applier_status_by_coordinator"),
        ("receiver", "replication_connection_status"),
    ] {
        let row: Option<(u32, String, String)> = session
            .query_first(format!(
                "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, SERVICE_STATE \
                 FROM performance_schema.{table} \
                 WHERE CHANNEL_NAME = {channel} AND LAST_ERROR_NUMBER <> 0 LIMIT 1"
            ))
            .await?;
        let tries_on = |state: &str| thread == "receiver" && state != "OFF";
        if let Some((code, message, state)) = row
            && !(patient && tries_on(&state))
        {
            return Err(ReplayError::Applier {
                thread: thread.to_owned(),
                server: session.address().to_string(),
                code,
                message,
            });
        }
    }
    Ok(())
}

/// Whether no worker applies anything.
async fn is_idle(session: &mut Session) -> Result<bool, ReplayError> {
    let busy: u64 = session
        .query_one(format!(
            "SELECT COUNT(*) FROM performance_schema.replication_applier_status_by_worker \
             WHERE CHANNEL_NAME = {} AND APPLYING_TRANSACTION <> ''",
            quote::string(CHANNEL)
        ))
        .await?;
    Ok(busy == 0)
}

/// Loosens the settings and returns what they were.
async fn tune(
    session: &mut Session,
    workers: u32,
) -> Result<Vec<(&'static str, String)>, ReplayError> {
    let mut saved = Vec::new();
    for (name, value) in [
        ("sync_binlog", 0),
        ("innodb_flush_log_at_trx_commit", 0),
        ("replica_parallel_workers", workers),
    ] {
        let before: String = session
            .query_one(format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)"))
            .await?;
        session
            .execute(format!("SET GLOBAL {name} = {value}"))
            .await?;
        saved.push((name, before));
    }
    Ok(saved)
}

async fn put_back(
    session: &mut Session,
    saved: &[(&'static str, String)],
) -> Result<(), ReplayError> {
    for (name, value) in saved {
        session
            .execute(format!("SET GLOBAL {name} = {value}"))
            .await?;
    }
    Ok(())
}

async fn detach(session: &mut Session) -> Result<(), ReplayError> {
    let channel = quote::string(CHANNEL);
    let configured: u64 = session
        .query_one(format!(
            "SELECT COUNT(*) FROM performance_schema.replication_connection_configuration \
             WHERE CHANNEL_NAME = {channel}"
        ))
        .await?;
    if configured > 0 {
        for statement in ["STOP REPLICA", "RESET REPLICA ALL"] {
            session
                .execute(format!("{statement} FOR CHANNEL {channel}"))
                .await?;
        }
    }
    Ok(())
}
