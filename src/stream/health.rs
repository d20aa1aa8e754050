//! How a stream stands, gathered from what it tells.
//!
//! One [`Health`] is told every event and answers the probes, the scraper, the service manager and
//! the line of progress, so that all of them say the same. It does no IO and holds nothing up. What
//! is not known is left out rather than told as zero.

mod metrics;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::report::{HEARTBEAT, StreamEvent};
use crate::clock::Clock;
use crate::observe::endpoint::Probes;

/// A stream that has not said for so long that it lives hangs: many times [`HEARTBEAT`].
pub const LIVE_LIMIT: Duration = Duration::from_secs(60);
/// A store may fail for so long before the stream is not ready any more: most failures are over
/// sooner, and what waits is in memory or in the spool.
pub const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// Speeds are those of so long a time.
const SPEED_SPAN: Duration = Duration::from_secs(10);
/// Bounds of the lag in seconds, around the usual flush intervals.
const LAG_BOUNDS: [f64; 13] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// What a stream is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// It looks at the servers and the archive.
    Starting,
    /// It waits for another streamer's end.
    StandingBy {
        /// The other's claim.
        epoch: u64,
        /// The other's host.
        host: String,
    },
    /// It has the archive and follows nobody yet; what an earlier run has left is archived first.
    Claimed,
    /// It follows a server.
    Following {
        /// `host:port`.
        server: String,
        /// The server's version.
        version: String,
    },
    /// It has lost its server and looks for the next.
    Interrupted {
        /// Why.
        reason: String,
    },
    /// It was told to end and stores what it has received.
    Stopping,
}

impl Doing {
    /// The names of all states, as the metrics have them.
    pub const NAMES: [&'static str; 6] = [
        "starting",
        "standby",
        "claimed",
        "following",
        "interrupted",
        "stopping",
    ];

    /// The state's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting => Self::NAMES[0],
            Self::StandingBy { .. } => Self::NAMES[1],
            Self::Claimed => Self::NAMES[2],
            Self::Following { .. } => Self::NAMES[3],
            Self::Interrupted { .. } => Self::NAMES[4],
            Self::Stopping => Self::NAMES[5],
        }
    }
}

/// What the archive holds beside this stream's own work; read from it now and then.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArchiveFacts {
    /// The oldest state that can be restored.
    pub restorable_from: Option<DateTime<Utc>>,
    /// Whether the log leads from some snapshot to its end, so that every moment up to
    /// `complete_to` can be restored.
    pub connected: bool,
    /// The end of the newest snapshot.
    pub last_snapshot: Option<DateTime<Utc>>,
    /// Holes that nobody has accepted.
    pub gaps: u64,
    /// Holes that somebody has accepted.
    pub accepted_gaps: u64,
}

/// The source's purge, when it was last asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Purge {
    asked: Instant,
    /// Infinite if nothing is purged for its age.
    seconds: f64,
    waiting_bytes: u64,
    catch_up_seconds: Option<f64>,
}

impl Purge {
    /// The bound as it is now: while nobody answers it comes nearer.
    fn seconds_now(&self) -> f64 {
        (self.seconds - self.asked.elapsed().as_secs_f64()).max(0.0)
    }
}

/// What can be said in numbers.
#[derive(Debug, Clone)]
struct State {
    doing: Doing,
    alive: Instant,
    epoch: Option<u64>,
    branch: Option<u32>,
    segments: u64,
    transactions: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    recovered: u64,
    lag: Histogram,
    last_lag: Option<f64>,
    durable: Option<(Instant, DateTime<Utc>)>,
    last_commit: Option<DateTime<Utc>>,
    complete_to: Option<DateTime<Utc>>,
    purge: Option<Purge>,
    spooled_bytes: u64,
    waiting_segments: usize,
    store_failures: u64,
    /// Since when the store fails, and why.
    store_failing: Option<(Instant, String)>,
    interruptions: u64,
    warnings: u64,
    compactions: u64,
    compacted_segments: u64,
    log_segments: Option<u64>,
    archive: Option<ArchiveFacts>,
    /// Transactions and bytes at earlier moments, the oldest first.
    past: Vec<(Instant, u64, u64)>,
}

/// Numbers for a line of progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What it is doing.
    pub doing: Doing,
    /// Transactions archived.
    pub transactions: u64,
    /// Segments put.
    pub segments: u64,
    /// Their bytes in the store.
    pub stored_bytes: u64,
    /// Transactions archived a second, lately.
    pub transactions_per_second: f64,
    /// Bytes of binlog archived a second, lately.
    pub bytes_per_second: f64,
    /// Seconds from the newest commit of the last segment that had one to its durability.
    pub lag_seconds: Option<f64>,
    /// Up to which moment the archive is complete.
    pub complete_to: Option<DateTime<Utc>>,
    /// Bytes that wait on disk.
    pub spooled_bytes: u64,
    /// Since how many seconds the store fails, if it does.
    pub store_failing_seconds: Option<f64>,
}

/// How a stream stands.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    clock: std::sync::Arc<dyn Clock>,
}

impl Health {
    /// A stream that has said nothing yet.
    #[must_use]
    pub fn new(clock: std::sync::Arc<dyn Clock>) -> Self {
        Self {
            state: Mutex::new(State {
                doing: Doing::Starting,
                alive: Instant::now(),
                epoch: None,
                branch: None,
                segments: 0,
                transactions: 0,
                raw_bytes: 0,
                stored_bytes: 0,
                recovered: 0,
                lag: Histogram::new(LAG_BOUNDS),
                last_lag: None,
                durable: None,
                last_commit: None,
                complete_to: None,
                purge: None,
                spooled_bytes: 0,
                waiting_segments: 0,
                store_failures: 0,
                store_failing: None,
                interruptions: 0,
                warnings: 0,
                compactions: 0,
                compacted_segments: 0,
                log_segments: None,
                archive: None,
                past: Vec::new(),
            }),
            clock,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers are whole after every step, also if a thread died between two.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the stream tells.
    pub fn observe(&self, event: &StreamEvent) {
        let now = self.clock.now();
        self.state().observe(event, now);
    }

    /// It was told to end.
    pub fn stopping(&self) {
        self.state().doing = Doing::Stopping;
    }

    /// What the archive was found to hold.
    pub fn archive_is(&self, facts: ArchiveFacts) {
        self.state().archive = Some(facts);
    }

    /// How it stands, for people.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.state().summary()
    }
}

impl State {
    fn observe(&mut self, event: &StreamEvent, now: DateTime<Utc>) {
        // Whatever is told shows that the loop goes round.
        self.alive = Instant::now();
        match event {
            StreamEvent::Standby { epoch, host, .. } => self.turn(Doing::StandingBy {
                epoch: *epoch,
                host: host.clone(),
            }),
            StreamEvent::Claimed {
                epoch,
                branch,
                complete_to,
                ..
            } => {
                self.epoch = Some(*epoch);
                self.branch = Some(*branch);
                self.complete_to = *complete_to;
                self.turn(Doing::Claimed);
            }
            StreamEvent::Following {
                server, version, ..
            } => self.turn(Doing::Following {
                server: server.clone(),
                version: version.clone(),
            }),
            StreamEvent::Interrupted { reason, .. } => {
                self.interruptions += 1;
                self.turn(Doing::Interrupted {
                    reason: reason.clone(),
                });
            }
            StreamEvent::Segment {
                transactions,
                raw_bytes,
                stored_bytes,
                last_commit,
                complete_to,
                lag_seconds,
                spooled_bytes,
                ..
            } => {
                self.segments += 1;
                self.transactions += transactions;
                self.raw_bytes += raw_bytes;
                self.stored_bytes += stored_bytes;
                self.last_commit = self.last_commit.max(*last_commit);
                // As the archive's own reader has it: a transaction vouches for what was before.
                let vouched = last_commit.map(|commit| commit - TimeDelta::microseconds(1));
                self.complete_to = self.complete_to.max(*complete_to).max(vouched);
                self.durable = Some((self.alive, now));
                self.spooled_bytes = *spooled_bytes;
                self.store_failing = None;
                self.waiting_segments = 0;
                if let Some(lag) = lag_seconds {
                    self.lag.observe(*lag);
                    self.last_lag = Some(*lag);
                }
            }
            StreamEvent::StoreFailing {
                reason,
                waiting,
                spooled_bytes,
                ..
            } => {
                self.store_failures += 1;
                self.waiting_segments = *waiting;
                self.spooled_bytes = *spooled_bytes;
                let since = self.store_failing.as_ref().map(|(since, _)| *since);
                self.store_failing = Some((since.unwrap_or(self.alive), reason.clone()));
            }
            StreamEvent::Spooled { spooled_bytes } => self.spooled_bytes = *spooled_bytes,
            StreamEvent::PurgeHeadroom {
                seconds,
                waiting_bytes,
                catch_up_seconds,
            } => {
                self.purge = Some(Purge {
                    asked: self.alive,
                    seconds: seconds.unwrap_or(f64::INFINITY),
                    waiting_bytes: *waiting_bytes,
                    catch_up_seconds: *catch_up_seconds,
                });
            }
            StreamEvent::Compacted {
                replaced, segments, ..
            } => {
                self.compactions += 1;
                self.compacted_segments += replaced;
                self.log_segments = Some(*segments);
            }
            StreamEvent::Recovered { transactions, .. } => self.recovered += transactions,
            StreamEvent::Warning { .. } => self.warnings += 1,
            StreamEvent::Alive => {}
        }
        self.remember();
    }

    /// The end is the last word: what is still told then is not a new beginning.
    fn turn(&mut self, doing: Doing) {
        if self.doing != Doing::Stopping {
            self.doing = doing;
        }
    }

    /// Notes how far it has come, once in a while, for the speed.
    fn remember(&mut self) {
        let due = self
            .past
            .last()
            .is_none_or(|(at, ..)| self.alive - *at >= HEARTBEAT / 2);
        if due {
            self.past
                .push((self.alive, self.transactions, self.raw_bytes));
            let alive = self.alive;
            // One from before the span stays, so that the whole span is covered.
            let old = self
                .past
                .iter()
                .take_while(|(at, ..)| alive - *at > SPEED_SPAN)
                .count();
            self.past.drain(..old.saturating_sub(1));
        }
    }

    fn summary(&self) -> Summary {
        let (transactions_per_second, bytes_per_second) = match self.past.first() {
            Some((at, transactions, bytes)) => {
                let seconds = at.elapsed().as_secs_f64().max(1.0);
                (
                    (self.transactions - transactions) as f64 / seconds,
                    (self.raw_bytes - bytes) as f64 / seconds,
                )
            }
            None => (0.0, 0.0),
        };
        Summary {
            doing: self.doing.clone(),
            transactions: self.transactions,
            segments: self.segments,
            stored_bytes: self.stored_bytes,
            transactions_per_second,
            bytes_per_second,
            lag_seconds: self.last_lag,
            complete_to: self.complete_to,
            spooled_bytes: self.spooled_bytes,
            store_failing_seconds: self
                .store_failing
                .as_ref()
                .map(|(since, _)| since.elapsed().as_secs_f64()),
        }
    }

    fn live(&self) -> Result<String, String> {
        let silent = self.alive.elapsed();
        if silent < LIVE_LIMIT {
            Ok(self.doing.name().to_owned())
        } else {
            let (name, seconds) = (self.doing.name(), silent.as_secs());
            Err(format!(
                "{name}, and without a sign of life for {seconds} s"
            ))
        }
    }

    fn ready(&self) -> Result<String, String> {
        self.live()?;
        match &self.doing {
            Doing::Starting => return Err("starting: nothing is followed yet".to_owned()),
            Doing::Claimed => {
                return Err("claimed: what an earlier run has left is archived first".to_owned());
            }
            Doing::Stopping => return Err("stopping".to_owned()),
            Doing::Interrupted { reason } => return Err(format!("interrupted: {reason}")),
            Doing::StandingBy { .. } | Doing::Following { .. } => {}
        }
        if let Some((since, reason)) = &self.store_failing
            && since.elapsed() >= STORE_PATIENCE
        {
            let seconds = since.elapsed().as_secs();
            return Err(format!("the store has failed for {seconds} s: {reason}"));
        }
        Ok(match &self.doing {
            Doing::StandingBy { epoch, host } => {
                format!("standing by for epoch {epoch} on {host}")
            }
            Doing::Following { server, .. } => format!("following {server}"),
            other => other.name().to_owned(),
        })
    }
}

impl Probes for Health {
    fn metrics(&self) -> String {
        let state = self.state().clone();
        metrics::page(state)
    }

    fn live(&self) -> Result<String, String> {
        self.state().live()
    }

    fn ready(&self) -> Result<String, String> {
        self.state().ready()
    }
}

#[cfg(test)]
mod tests;
