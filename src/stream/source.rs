//! Finding the server to follow, and refusing one that would break the history.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::cutter::SourcePosition;
use super::error::StreamError;
use super::report::FollowFrom;
use crate::clock::Clock;
use crate::gtid::GtidSet;
use crate::mysql::discover::{discover, login_for};
use crate::mysql::facts::{ServerFacts, binlog_status, gtid_executed};
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::mysql::topology::TopologyKind;

/// A source that does not answer a small question for so long is gone.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// How long a new primary may need to apply what its group has already agreed on.
const APPLY_GRACE: Duration = Duration::from_secs(60);

/// A server that can be followed.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) url: ServerUrl,
    pub(super) facts: ServerFacts,
    pub(super) kind: TopologyKind,
    /// For questions beside the dump.
    pub(super) session: Session,
}

/// Knows every server that was named or met.
#[derive(Debug)]
pub(super) struct Finder {
    servers: Vec<ServerUrl>,
    from: FollowFrom,
}

impl Finder {
    pub(super) const fn new(servers: Vec<ServerUrl>, from: FollowFrom) -> Self {
        Self { servers, from }
    }

    /// Finds the server to follow now, through any server that answers.
    pub(super) async fn find(&mut self) -> Result<Source, StreamError> {
        let topology = discover(&self.servers).await?;
        let login = login_for(&topology.asked, &self.servers[0], &self.servers);
        for member in &topology.members {
            if !self
                .servers
                .iter()
                .any(|known| known.address() == member.address)
            {
                self.servers.push(login.with_host_port(&member.address));
            }
        }
        let address = match self.from {
            FollowFrom::Primary => topology
                .primary()
                .map(|member| member.address.clone())
                .ok_or_else(|| StreamError::NoPrimary {
                    reason: format!(
                        "none of the {} members of the {} is an ONLINE primary",
                        topology.members.len(),
                        topology.kind
                    ),
                })?,
            FollowFrom::Secondary => topology
                .choose_secondary(false)
                .map(|choice| choice.member.address)
                .map_err(|error| StreamError::NoPrimary {
                    reason: error.to_string(),
                })?,
        };
        let url = login_for(&address, &self.servers[0], &self.servers);
        let mut session = Session::connect(&url).await?;
        // The dump waits while a question is open: a server that hangs must not hold it up.
        session.set_timeout(Some(QUESTION_LIMIT));
        let facts = ServerFacts::load(&mut session).await?;
        let source = Source {
            url,
            facts,
            kind: topology.kind,
            session,
        };
        source.check_settings()?;
        Ok(source)
    }
}

impl Source {
    /// `host:port`.
    pub(super) fn name(&self) -> String {
        self.url.address().to_string()
    }

    fn check_settings(&self) -> Result<(), StreamError> {
        let reason = if !self.facts.has_gtids() {
            format!("gtid_mode is {}, it must be ON", self.facts.gtid_mode)
        } else if !self.facts.log_bin {
            "log_bin is OFF: it writes no binlog".to_owned()
        } else if !self.facts.log_replica_updates && self.kind != TopologyKind::Single {
            "log_replica_updates is OFF: its binlog lacks what it applies from others".to_owned()
        } else {
            return Ok(());
        };
        Err(StreamError::Unsuitable {
            server: self.name(),
            reason,
        })
    }

    /// Fails if the server cannot go on from `have` without a hole or a fork.
    ///
    /// A primary that was just elected may still be applying what the old one sent: it is given
    /// time for that.
    pub(super) async fn check_history(
        &mut self,
        have: &GtidSet,
        clock: &dyn Clock,
    ) -> Result<(), StreamError> {
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(500);
        loop {
            let executed = gtid_executed(&mut self.session).await?;
            let missing = have.subtract(&executed);
            if missing.is_empty() {
                break;
            }
            if self.kind == TopologyKind::Single || waited >= APPLY_GRACE {
                return Err(StreamError::Fork {
                    server: self.name(),
                    missing,
                });
            }
            clock.sleep(step).await;
            waited += step;
        }
        // Read after gtid_executed: what is purged meanwhile shows here.
        let purged = ServerFacts::load(&mut self.session).await?.gtid_purged;
        let missing = purged.subtract(have);
        if missing.is_empty() {
            Ok(())
        } else {
            Err(StreamError::Gap {
                server: self.name(),
                missing,
            })
        }
    }

    /// The source's time, and then the end of its binlog.
    pub(super) async fn horizon(&mut self) -> Result<(DateTime<Utc>, SourcePosition), StreamError> {
        let time: String = self
            .session
            .query_one("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')")
            .await?;
        let time = DateTime::parse_from_rfc3339(&time)
            .map(|time| time.with_timezone(&Utc))
            .map_err(|error| StreamError::Unsuitable {
                server: self.name(),
                reason: format!("it tells the time as {time:?}: {error}"),
            })?;
        let status = binlog_status(&mut self.session, &self.facts.version)
            .await?
            .ok_or_else(|| StreamError::Unsuitable {
                server: self.name(),
                reason: "it writes no binlog".to_owned(),
            })?;
        Ok((
            time,
            SourcePosition {
                file: status.file,
                position: status.position,
            },
        ))
    }

    /// Whether the server is still what it was chosen for.
    pub(super) async fn is_still(&mut self, from: FollowFrom) -> Result<bool, StreamError> {
        if !self.kind.is_group() {
            return Ok(true);
        }
        let role: Option<(String, String)> = self
            .session
            .query_first(
                "SELECT MEMBER_STATE, MEMBER_ROLE \
                 FROM performance_schema.replication_group_members \
                 WHERE MEMBER_ID = @@GLOBAL.server_uuid",
            )
            .await?;
        let wanted = match from {
            FollowFrom::Primary => "PRIMARY",
            FollowFrom::Secondary => "SECONDARY",
        };
        Ok(role.is_some_and(|(state, role)| state == "ONLINE" && role == wanted))
    }
}
