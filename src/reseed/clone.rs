//! Making a server a copy of another by MySQL's clone plugin, and waiting for its restart.
//!
//! A server that is supervised restarts by itself; another one ends, and is started by the
//! operator's command or by the operator. What a clone came to the server tells itself, in
//! `performance_schema.clone_status`, also after the restart.

use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::error::ReseedError;
use super::report::{Observer, ReseedEvent, ReseedOptions};
use super::step::clone_statements;
use crate::mysql::error::MysqlError;
use crate::mysql::server_url::{HostPort, ServerUrl};
use crate::mysql::session::Session;

/// `ER_RESTART_SERVER_FAILED`: nobody would start the server again, so it ends after the clone.
const NO_SUPERVISOR: u16 = 3707;
/// How often somebody looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a server may take to say something, while it restarts.
const GREETING: Duration = Duration::from_secs(5);

/// The clone of one server.
#[derive(Debug)]
pub(super) struct Cloning<'a> {
    /// The recipient.
    pub(super) server: &'a ServerUrl,
    /// The same with the login of the donor, whose accounts it has afterwards.
    pub(super) afterwards: &'a ServerUrl,
    /// The donor, as the recipient reaches it.
    pub(super) donor: &'a HostPort,
    pub(super) user: &'a str,
    pub(super) password: &'a str,
    pub(super) options: &'a ReseedOptions,
    pub(super) cancel: &'a CancellationToken,
}

impl Cloning<'_> {
    /// Clones, and returns when the server answers again with the donor's data.
    pub(super) async fn run(&self, observer: &Observer) -> Result<(), ReseedError> {
        let mut session = Session::connect(self.server).await?;
        let [donors, clone] = clone_statements(self.donor, self.user, self.password);
        session.execute(donors).await?;
        let begun: String = session.query_one("SELECT CAST(NOW(3) AS CHAR)").await?;
        session.set_timeout(None);
        let outcome = {
            let cloning = session.execute(clone);
            tokio::pin!(cloning);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut cloning => break outcome,
                    () = self.cancel.cancelled() => return Err(ReseedError::Cancelled),
                    () = tokio::time::sleep(LOOK) => self.tell(observer).await,
                }
            }
        };
        let supervised = match outcome {
            Ok(_) => true,
            Err(error) if error.code() == Some(NO_SUPERVISOR) => false,
            // The restart may come before the answer.
            Err(error) if error.is_connection_lost() => true,
            Err(error) => return Err(self.failed(crate::error::with_causes(&error))),
        };
        drop(session);
        if !supervised {
            self.start_again(observer).await?;
        }
        self.wait(observer, &begun).await
    }

    fn failed(&self, reason: String) -> ReseedError {
        ReseedError::Clone {
            server: self.server.address(),
            donor: self.donor.clone(),
            reason,
        }
    }

    /// How far it is; a question that fails is not worth an error.
    async fn tell(&self, observer: &Observer) {
        let asked = async {
            let mut session = Session::connect_within(self.server, GREETING).await?;
            let row: Option<(String, u64, u64)> = session
                .query_first(
                    "SELECT STAGE, COALESCE(DATA, 0), COALESCE(ESTIMATE, 0) \
                     FROM performance_schema.clone_progress WHERE STATE = 'In Progress'",
                )
                .await?;
            session.close().await;
            Ok::<_, MysqlError>(row)
        };
        if let Ok(Some((stage, bytes, total_bytes))) = asked.await {
            observer(ReseedEvent::Clone {
                stage,
                bytes,
                total_bytes,
            });
        }
    }

    /// Has the server started by the operator's command, or asks the operator.
    async fn start_again(&self, observer: &Observer) -> Result<(), ReseedError> {
        let at = self.server.address();
        let Some(command) = &self.options.restart_command else {
            observer(ReseedEvent::Restart {
                server: at.to_string(),
            });
            return Ok(());
        };
        let failed = |reason: String| ReseedError::RestartCommand {
            server: at.clone(),
            reason,
        };
        let status = Command::new("/bin/sh")
            .args(["-c", command])
            .env("QUILLBACK_HOST", &at.host)
            .env("QUILLBACK_PORT", at.port.to_string())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .status();
        let status = tokio::select! {
            status = status => status.map_err(|error| failed(error.to_string()))?,
            () = self.cancel.cancelled() => return Err(ReseedError::Cancelled),
        };
        if !status.success() {
            return Err(failed(status.to_string()));
        }
        Ok(())
    }

    /// Waits until the server answers and says that the clone is complete.
    async fn wait(&self, observer: &Observer, begun: &str) -> Result<(), ReseedError> {
        let mut since = Instant::now();
        loop {
            let last = match self.state(begun).await {
                Ok(State::Completed) => return Ok(()),
                Ok(State::Running) => {
                    since = Instant::now();
                    None
                }
                Ok(State::Unknown) => None,
                Err(Outcome::Failed(reason)) => return Err(self.failed(reason)),
                Err(Outcome::Away(error)) => Some(error),
            };
            if since.elapsed() >= self.options.restart_limit {
                let limit = self.options.restart_limit;
                let source = last.unwrap_or(MysqlError::TimedOut {
                    action: "the clone".to_owned(),
                    limit,
                });
                return Err(ReseedError::NotRestarted {
                    server: self.server.address(),
                    limit,
                    source,
                });
            }
            self.tell(observer).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.cancel.cancelled() => return Err(ReseedError::Cancelled),
            }
        }
    }

    async fn state(&self, begun: &str) -> Result<State, Outcome> {
        let mut session = Session::connect_within(self.afterwards, GREETING)
            .await
            .map_err(Outcome::Away)?;
        let status: Option<(String, u32, String)> = session
            .query_first(format!(
                "SELECT STATE, COALESCE(ERROR_NO, 0), COALESCE(ERROR_MESSAGE, '') \
                 FROM performance_schema.clone_status \
                 WHERE BEGIN_TIME >= CAST('{begun}' AS DATETIME(3)) - INTERVAL 1 SECOND"
            ))
            .await
            .map_err(Outcome::Away)?;
        session.close().await;
        match status {
            Some((state, ..)) if state == "Completed" => Ok(State::Completed),
            Some((state, ..)) if state == "In Progress" => Ok(State::Running),
            Some((state, number, message)) if state == "Failed" => {
                Err(Outcome::Failed(format!("error {number}: {message}")))
            }
            _ => Ok(State::Unknown),
        }
    }
}

enum State {
    Completed,
    Running,
    /// It says nothing of this clone: it has not restarted yet.
    Unknown,
}

enum Outcome {
    Failed(String),
    Away(MysqlError),
}
