//! The primary, asked beside a source that is not the primary.
//!
//! A replica may lag by any time, and its own clock and binlog tell nothing of what it has not
//! received. So the primary is asked for its time, and then for what it had executed: once the
//! stream holds that, it holds every transaction that was committed there up to that time.
//!
//! `gtid_executed` alone would not do: a transaction takes its commit time in the flush stage and
//! enters the set only when it is committed in the engines, which with semi-synchronous
//! replication waits for others. But it owns its GTID before it takes the time
//! (`MYSQL_BIN_LOG::process_flush_stage_queue`, `sql/binlog.cc`): those that are owned behind the
//! moment are waited for.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::lookout::Lookout;
use crate::error::with_causes;
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::{ServerFacts, gtid_executed, pending, server_time};
use crate::mysql::primary::FoundPrimary;
use crate::mysql::role::{RoleNow, role_now};
use crate::mysql::session::Session;
use crate::mysql::topology::TopologyKind;
use crate::mysql::version::ServerVersion;

/// How often a transaction that is being committed is looked for again.
const COMMIT_TRIES: u32 = 20;
/// And after what time.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);
/// After a failure the primary is looked for again so soon.
const RETRY: Duration = Duration::from_secs(5);

/// The primary's word: all that it committed up to `time` is in `executed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) time: DateTime<Utc>,
    pub(super) executed: GtidSet,
}

/// Finds and asks the primary.
#[derive(Debug)]
pub(super) struct Beside {
    lookout: Lookout,
    primary: Option<Primary>,
    /// Why the primary was not found when it was last looked for.
    reason: String,
}

#[derive(Debug)]
struct Primary {
    uuid: Uuid,
    kind: TopologyKind,
    version: ServerVersion,
    session: Session,
}

impl Beside {
    pub(super) const fn new(lookout: Lookout) -> Self {
        Self {
            lookout,
            primary: None,
            reason: String::new(),
        }
    }

    /// Asks the primary; or says why it has no word to give now.
    pub(super) async fn ask(&mut self, limit: Duration) -> Result<Word, String> {
        if self.lookout.is_due() {
            self.look(limit).await;
        }
        let Some(primary) = &mut self.primary else {
            return Err(self.reason.clone());
        };
        match primary.ask().await {
            Ok(Ok(word)) => return Ok(word),
            // It is the right one and will tell another time.
            Ok(Err(Silence::Committing)) => {
                return Err(format!(
                    "{} is committing for a long time",
                    primary.session.address()
                ));
            }
            Ok(Err(Silence::Role(role))) => {
                self.reason = format!("{} is now {role}", primary.session.address());
            }
            Err(error) => self.reason = with_causes(&error),
        }
        self.primary = None;
        self.lookout.hurry(RETRY);
        Err(self.reason.clone())
    }

    async fn look(&mut self, limit: Duration) {
        let failed = match self.lookout.look().await {
            Err(error) => with_causes(&error),
            Ok(found) if found.read_only => {
                format!("{} takes no writes at present", found.member.address)
            }
            Ok(found) => {
                let known = self.primary.as_ref().map(|primary| primary.uuid);
                if known.is_some() && known == found.member.uuid {
                    return;
                }
                match self.connect(&found, limit).await {
                    Ok(primary) => {
                        self.primary = Some(primary);
                        return;
                    }
                    Err(error) => with_causes(&error),
                }
            }
        };
        self.reason = failed;
        self.primary = None;
        self.lookout.hurry(RETRY);
    }

    async fn connect(&self, found: &FoundPrimary, limit: Duration) -> Result<Primary, MysqlError> {
        let url = self.lookout.login(&found.member.address);
        let mut session = Session::connect(&url).await?;
        session.set_timeout(Some(limit));
        let facts = ServerFacts::load(&mut session).await?;
        Ok(Primary {
            uuid: facts.server_uuid,
            kind: found.topology.kind,
            version: facts.version,
            session,
        })
    }
}

/// Why a primary that answers gives no word.
enum Silence {
    Committing,
    Role(RoleNow),
}

impl Primary {
    async fn ask(&mut self) -> Result<Result<Word, Silence>, MysqlError> {
        let session = &mut self.session;
        let time = server_time(session).await?;
        let mut owned = pending(session).await?.owned;
        let mut tries = 0;
        while !owned.is_empty() {
            if tries == COMMIT_TRIES {
                return Ok(Err(Silence::Committing));
            }
            if tries > 0 {
                tokio::time::sleep(COMMIT_PAUSE).await;
            }
            tries += 1;
            owned = owned.intersect(&pending(session).await?.owned);
        }
        let executed = gtid_executed(session).await?;
        // Asked last: what it was no longer then, it may not have been before.
        let role = role_now(session, &self.version, self.kind).await?;
        Ok(if role == RoleNow::Primary {
            Ok(Word { time, executed })
        } else {
            Err(Silence::Role(role))
        })
    }
}
