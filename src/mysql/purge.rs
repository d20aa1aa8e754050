//! How long a source keeps what the archive does not have yet.
//!
//! A server drops whole binlog files, oldest first: by age at a rotation, at a flush and at its
//! start; by size where it knows `binlog_space_limit` (Percona Server); and at any time when
//! somebody says PURGE BINARY LOGS, which nobody can foresee. It never drops the file that a
//! connected dump is reading, nor a later one, so the numbers here matter while the stream is
//! away or held up.
//!
//! SQL does not tell how much room is left on the server's disk. What can be had is the sum of the
//! binlogs and, where there is one, its limit.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::error::with_causes;
use crate::gtid::GtidSet;

use super::error::MysqlError;
use super::facts::{ServerFacts, server_time};
use super::server_url::{HostPort, ServerUrl};
use super::session::Session;

/// A binlog file of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its length in bytes at the time of the question.
    pub bytes: u64,
}

/// What decides when a server purges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeFacts {
    /// The server's clock, in UTC.
    pub time: DateTime<Utc>,
    /// The age in seconds beyond which files are dropped; `None` if none is for its age
    /// (`binlog_expire_logs_seconds` is 0, or `binlog_expire_logs_auto_purge` is OFF).
    pub expire_seconds: Option<u64>,
    /// The files that are there, in their order; the last one is being written.
    pub binlog_files: Vec<BinlogFile>,
    /// The bytes that all files together may have, where the server has such a limit.
    pub space_limit: Option<u64>,
    /// The size in bytes at which a file is ended.
    pub max_binlog_size: u64,
}

/// How near the purge is, in the source's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headroom {
    /// No file is dropped for its age.
    Unlimited,
    /// What is next to be read stays for at least so long. Zero means that the next rotation may
    /// drop it.
    AtLeast(TimeDelta),
}

impl Headroom {
    /// Seconds, at least zero; infinite where nothing is dropped for its age.
    #[must_use]
    pub fn seconds(self) -> f64 {
        match self {
            Self::Unlimited => f64::INFINITY,
            Self::AtLeast(time) => time.as_seconds_f64(),
        }
    }
}

impl PurgeFacts {
    /// Asks a server. Needs REPLICATION CLIENT.
    ///
    /// # Errors
    ///
    /// What a question fails with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let time = server_time(session).await?;
        let variables: Vec<(String, String)> = session
            .query(
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', \
                 'binlog_expire_logs_auto_purge', 'expire_logs_days', 'binlog_space_limit', \
                 'max_binlog_size')",
            )
            .await?;
        // The columns behind the size came with encryption, in 8.0.14.
        let rows: Vec<mysql_async::Row> = session.query("SHOW BINARY LOGS").await?;
        let binlog_files = rows
            .iter()
            .map(|row| {
                let name = row.get_opt(0).and_then(Result::ok);
                let bytes = row.get_opt(1).and_then(Result::ok);
                Some(BinlogFile {
                    name: name?,
                    bytes: bytes?,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                MysqlError::protocol("the list of binlogs is malformed").at(session.address())
            })?;
        let text = |name: &str| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
        Ok(Self {
            time,
            expire_seconds: expiry(
                number("binlog_expire_logs_seconds"),
                number("expire_logs_days"),
                text("binlog_expire_logs_auto_purge") == Some("OFF"),
            ),
            binlog_files,
            space_limit: number("binlog_space_limit").filter(|limit| *limit > 0),
            max_binlog_size: number("max_binlog_size").unwrap_or(1 << 30),
        })
    }

    /// How long the next event that the archive lacks stays on the server, at `now` of the
    /// server's clock.
    ///
    /// `last_received` is the commit time *on this server* (the immediate one) of the last event
    /// that was received, and `newer_waiting` whether the server has newer ones. The result is a
    /// bound and errs to the safe side: files are dropped by the time of their last write, which
    /// is not asked for, and no event of a file is later than that. The true time is longer by up to
    /// the span of one file, and by what passes until the next rotation. With nothing waiting, the
    /// next event is not written yet and will have the full time. With an unknown last event and
    /// newer ones waiting nothing is promised. A clock of the server that was set makes all of this
    /// wrong by as much.
    #[must_use]
    pub fn headroom(
        &self,
        now: DateTime<Utc>,
        last_received: Option<DateTime<Utc>>,
        newer_waiting: bool,
    ) -> Headroom {
        let Some(expire) = self.expire_seconds else {
            return Headroom::Unlimited;
        };
        let expire = i64::try_from(expire)
            .ok()
            .and_then(TimeDelta::try_seconds)
            .unwrap_or(TimeDelta::MAX);
        let passed = match (newer_waiting, last_received) {
            (false, _) => TimeDelta::zero(),
            (true, Some(last)) => (now - last).max(TimeDelta::zero()),
            (true, None) => return Headroom::AtLeast(TimeDelta::zero()),
        };
        let left = expire.checked_sub(&passed).unwrap_or(TimeDelta::zero());
        Headroom::AtLeast(left.max(TimeDelta::zero()))
    }

    /// The bytes of all binlogs, exact at the time of the question.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.binlog_files.iter().map(|file| file.bytes).sum()
    }

    /// The bytes from a position of a file to the end of the binlog, exact at the time of the
    /// question; `None` if the file is not there. Divided by the rate at which the stream reads
    /// faster than the server writes, it is the time to catch up, which the headroom must exceed.
    #[must_use]
    pub fn waiting_bytes(&self, file: &str, position: u64) -> Option<u64> {
        let mut files = self.binlog_files.iter().skip_while(|f| f.name != file);
        let first = files.next()?.bytes.saturating_sub(position);
        Some(first + files.map(|file| file.bytes).sum::<u64>())
    }

    /// The bytes that may still be written before the server drops its oldest file for the limit
    /// of the space; `None` without such a limit. A lower bound: the file that is being written
    /// ends at about `max_binlog_size`, and only whole files go.
    #[must_use]
    pub fn space_left(&self) -> Option<u64> {
        self.space_limit
            .map(|limit| limit.saturating_sub(self.stored_bytes()))
    }
}

/// The age beyond which files are dropped, by the variables that the server has. A version that
/// knows none of them purges by its default, 30 days.
fn expiry(seconds: Option<u64>, days: Option<u64>, switched_off: bool) -> Option<u64> {
    if switched_off {
        return None;
    }
    match (seconds, days) {
        // MySQL 8.0 knows both; the server refuses to have both set.
        (Some(0), Some(days)) if days > 0 => Some(days * 86_400),
        (Some(0), _) => None,
        (Some(seconds), _) => Some(seconds),
        (None, _) => Some(2_592_000),
    }
}

/// What other servers have of the transactions, as each of them tells it.
#[derive(Debug, Default)]
pub struct Survey {
    answers: Vec<(HostPort, Result<ServerFacts, String>)>,
}

/// What a server is to send, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What it must still have in its binlogs.
    pub missing: &'a GtidSet,
    /// What the receiver has: the server may have purged nothing else.
    pub held: &'a GtidSet,
    /// What the primary has executed, asked for after the survey: the server may have nothing
    /// else, since all that it has beyond `held` would come with it.
    pub executed: &'a GtidSet,
}

/// Which members still have transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    /// Those that can send all of them, and nothing that is not the primary's.
    pub holders: Vec<HostPort>,
    /// The others, each with the reason.
    pub others: Vec<(HostPort, String)>,
}

impl Survey {
    /// Asks every given server, side by side.
    pub async fn of(servers: &[ServerUrl]) -> Self {
        let answers = join_all(servers.iter().map(async |url| {
            let answer = facts_of(url).await.map_err(|error| with_causes(&error));
            (url.address(), answer)
        }));
        Self {
            answers: answers.await,
        }
    }

    /// Which of them can send what is wanted. It is so at the moment of asking: a dump that is
    /// started at once tells for sure.
    #[must_use]
    pub fn holders(&self, wanted: Wanted<'_>) -> Holders {
        let mut found = Holders::default();
        for (address, answer) in &self.answers {
            let why_not = match answer {
                Ok(facts) => why_not(facts, wanted),
                Err(reason) => Some(reason.clone()),
            };
            match why_not {
                None => found.holders.push(address.clone()),
                Some(reason) => found.others.push((address.clone(), reason)),
            }
        }
        found
    }
}

async fn facts_of(url: &ServerUrl) -> Result<ServerFacts, MysqlError> {
    let mut session = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut session).await?;
    session.close().await;
    Ok(facts)
}

/// Why a server cannot send what is wanted.
fn why_not(facts: &ServerFacts, wanted: Wanted<'_>) -> Option<String> {
    if !facts.log_bin {
        return Some("it writes no binlog".to_owned());
    }
    let lacks = wanted.missing.subtract(&facts.gtid_executed);
    if !lacks.is_empty() {
        return Some(format!("it never had {lacks:#}"));
    }
    let purged = facts.gtid_purged.subtract(wanted.held);
    if !purged.is_empty() {
        return Some(format!("it has purged {purged:#}"));
    }
    let errant = facts.gtid_executed.subtract(wanted.executed);
    if !errant.is_empty() {
        return Some(format!(
            "it has {errant:#}, which the primary does not have"
        ));
    }
    if !facts.log_replica_updates {
        return Some("log_replica_updates is OFF".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(expire_seconds: Option<u64>) -> PurgeFacts {
        let file = |name: &str, bytes| BinlogFile {
            name: name.to_owned(),
            bytes,
        };
        PurgeFacts {
            time: DateTime::UNIX_EPOCH,
            expire_seconds,
            binlog_files: vec![file("b.9", 1_000), file("b.10", 500), file("b.11", 200)],
            space_limit: Some(2_000),
            max_binlog_size: 1_000,
        }
    }

    #[test]
    fn headroom_shrinks_only_while_something_waits() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(10);
        let ago = |seconds| Some(now - TimeDelta::seconds(seconds));
        for (expire, last, waiting, expected) in [
            (Some(100), ago(30), true, 70.0),
            (Some(100), ago(30), false, 100.0),
            (Some(100), None, false, 100.0),
            (Some(100), None, true, 0.0),
            (Some(100), ago(101), true, 0.0),
            // The event's clock ran ahead.
            (Some(100), ago(-5), true, 100.0),
            (None, ago(30), true, f64::INFINITY),
            (
                Some(u64::MAX),
                ago(0),
                true,
                TimeDelta::MAX.as_seconds_f64(),
            ),
        ] {
            let headroom = facts(expire).headroom(now, last, waiting);
            assert_eq!(
                headroom.seconds(),
                expected,
                "{expire:?} {last:?} {waiting}"
            );
        }
    }

    #[test]
    fn bytes_are_counted_from_the_position_on() {
        let facts = facts(None);
        assert_eq!(facts.stored_bytes(), 1_700);
        assert_eq!(facts.space_left(), Some(300));
        assert_eq!(facts.waiting_bytes("b.9", 400), Some(1_300));
        assert_eq!(facts.waiting_bytes("b.11", 200), Some(0));
        // Written since the list was made.
        assert_eq!(facts.waiting_bytes("b.11", 300), Some(0));
        assert_eq!(facts.waiting_bytes("b.8", 4), None);
    }

    #[test]
    fn either_variable_may_set_the_age() {
        for (seconds, days, off, expected) in [
            (Some(2_592_000), None, false, Some(2_592_000)),
            (Some(2_592_000), None, true, None),
            (Some(0), None, false, None),
            (Some(0), Some(0), false, None),
            (Some(0), Some(2), false, Some(172_800)),
            (None, None, false, Some(2_592_000)),
        ] {
            assert_eq!(expiry(seconds, days, off), expected);
        }
    }
}
