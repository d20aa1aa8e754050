//! Waiting until the server has applied everything, and what may come between.

use std::time::{Duration, Instant};

use super::blame;
use super::channel::{self, CHANNEL};
use super::{ReplayError, ReplayJob, ReplayProgress};
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::restore::serve::Server;

/// How often the server is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// How often its threads and its relay logs are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the server may fail to reach us the first time.
const FIRST_CONTACT: Duration = Duration::from_secs(15);
/// How long it may fail to reach us again.
const LOST_CONTACT: Duration = Duration::from_secs(60);
/// How long somebody may keep the replication stopped.
const STOPPED: Duration = Duration::from_secs(600);
/// How long a server with everything and nothing to do may stay behind.
const IDLE: Duration = Duration::from_secs(30);
/// Relay logs may grow to this before we stop sending.
const RELAY_BYTES: u64 = 1 << 30;

/// Waits until the server has all of the job.
pub(super) async fn wait(
    job: &ReplayJob<'_>,
    session: &mut Session,
    server: &Server,
) -> Result<(), ReplayError> {
    let total = u64::try_from(job.set.count()).unwrap_or(u64::MAX);
    let mut watch = Watch {
        job,
        server,
        left: u128::MAX,
        moved: Instant::now(),
        looked: Instant::now(),
        stopped: None,
    };
    loop {
        let missing = job.set.subtract(&gtid_executed(session).await?);
        let left = missing.count();
        (job.progress)(ReplayProgress {
            applied: total.saturating_sub(u64::try_from(left).unwrap_or(u64::MAX)),
            total,
            sent_bytes: server.progress().bytes,
        });
        if missing.is_empty() {
            return Ok(());
        }
        if left != watch.left {
            (watch.left, watch.moved) = (left, Instant::now());
        }
        watch.look(session, &missing).await?;
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = job.cancel.cancelled() => return Err(ReplayError::Cancelled),
        }
    }
}

struct Watch<'a> {
    job: &'a ReplayJob<'a>,
    server: &'a Server,
    /// Transactions that were missing when the server was last asked.
    left: u128,
    /// When that last changed.
    moved: Instant,
    looked: Instant,
    /// Which thread somebody has stopped, and since when.
    stopped: Option<(&'static str, Instant)>,
}

impl Watch<'_> {
    /// Fails if there is a reason not to wait any longer.
    async fn look(&mut self, session: &mut Session, missing: &GtidSet) -> Result<(), ReplayError> {
        if let Some(failure) = self.server.progress().failure {
            return Err(ReplayError::Archive(failure));
        }
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        if let Err(error) = self.errors(session).await {
            // What the receiver complains of may be what we have just told it.
            return Err(match self.server.progress().failure {
                Some(failure) => ReplayError::Archive(failure),
                None => error,
            });
        }
        self.threads(session).await?;
        self.relay_logs(session).await?;
        let idle = self.moved.elapsed() > IDLE && self.stopped.is_none();
        // A single transaction may take long; only a server with nothing to do is stuck.
        if self.server.progress().complete && idle && is_idle(session).await? {
            return Err(ReplayError::Stuck {
                server: session.address().to_string(),
                missing: missing.clone(),
            });
        }
        Ok(())
    }

    /// Fails with the first error that a worker, the coordinator or the receiver reports.
    async fn errors(&self, session: &mut Session) -> Result<(), ReplayError> {
        let channel = quote::string(CHANNEL);
        // A worker that only stopped because another one did says so with these.
        let order = "LAST_ERROR_NUMBER IN (1756, 3030), LAST_ERROR_TIMESTAMP";
        for (thread, table) in [
            ("applier", "replication_applier_status_by_worker"),
            ("coordinator", "replication_applier_status_by_coordinator"),
        ] {
            let row: Option<(u32, String)> = session
                .query_first(format!(
                    "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE \
                     FROM performance_schema.{table} \
                     WHERE CHANNEL_NAME = {channel} AND LAST_ERROR_NUMBER <> 0 \
                     ORDER BY {order} LIMIT 1"
                ))
                .await?;
            if let Some((code, message)) = row {
                return Err(self.failed(session, thread, code, message).await);
            }
        }
        let row: Option<(u32, String, String)> = session
            .query_first(format!(
                "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, SERVICE_STATE \
                 FROM performance_schema.replication_connection_status \
                 WHERE CHANNEL_NAME = {channel}"
            ))
            .await?;
        let (code, message, state) = row.unwrap_or_default();
        let sent = self.server.progress();
        let tries_on = state != "OFF";
        if sent.connections == 0 {
            if self.moved.elapsed() < FIRST_CONTACT && tries_on {
                return Ok(());
            }
            let reason = match (sent.refused, code) {
                (Some(refused), _) => refused,
                (None, 0) => String::new(),
                (None, code) => format!("its error {code}: {message}"),
            };
            return Err(ReplayError::Unreachable {
                server: session.address().to_string(),
                address: self.server.address().to_owned(),
                seconds: self.moved.elapsed().as_secs(),
                reason,
            });
        }
        if code == 0 || (tries_on && self.moved.elapsed() < LOST_CONTACT) {
            return Ok(());
        }
        // A connection that was lost and found again keeps its error until the next event comes.
        if state == "ON" {
            return Ok(());
        }
        Err(self.failed(session, "receiver", code, message).await)
    }

    async fn failed(
        &self,
        session: &Session,
        thread: &str,
        code: u32,
        message: String,
    ) -> ReplayError {
        let job = self.job;
        let transaction = match blame::named(&message) {
            None => None,
            Some(gtid) => {
                let found = blame::look_up(job.repository, job.members, gtid).await;
                Some(Box::new(found))
            }
        };
        ReplayError::Applier {
            thread: thread.to_owned(),
            server: session.address().to_string(),
            code,
            message,
            transaction,
        }
    }

    /// Fails if somebody stopped a thread long ago.
    async fn threads(&mut self, session: &mut Session) -> Result<(), ReplayError> {
        let channel = quote::string(CHANNEL);
        let states: Option<(String, String)> = session
            .query_first(format!(
                "SELECT c.SERVICE_STATE, a.SERVICE_STATE \
                 FROM performance_schema.replication_connection_status c \
                 JOIN performance_schema.replication_applier_status a \
                 ON a.CHANNEL_NAME = c.CHANNEL_NAME WHERE c.CHANNEL_NAME = {channel}"
            ))
            .await?;
        let is_off = match states {
            Some((receiver, _)) if receiver == "OFF" => "receiver",
            Some((_, applier)) if applier == "OFF" => "applier",
            Some(_) => {
                self.stopped = None;
                return Ok(());
            }
            None => "channel",
        };
        match self.stopped {
            Some((thread, since)) if since.elapsed() > STOPPED => Err(ReplayError::Stopped {
                thread: thread.to_owned(),
                server: session.address().to_string(),
                seconds: since.elapsed().as_secs(),
            }),
            Some(_) => Ok(()),
            None => {
                tracing::warn!(
                    thread = is_off,
                    channel = CHANNEL,
                    "somebody stopped the replication; waiting for START REPLICA"
                );
                self.stopped = Some((is_off, Instant::now()));
                Ok(())
            }
        }
    }

    /// Stops sending while the server holds much that it has not applied.
    async fn relay_logs(&self, session: &mut Session) -> Result<(), ReplayError> {
        let relayed = channel::relayed(session, &self.job.facts.version).await?;
        let Some(relayed) = relayed else {
            return Ok(());
        };
        let mut much = relayed.bytes > RELAY_BYTES;
        if much {
            // With everything applied, the next transaction makes it let the old files go.
            let executed = gtid_executed(session).await?;
            much = !relayed.received.is_subset(&executed);
        }
        self.server.hold(much);
        Ok(())
    }
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
