//! What a stream tells while it runs, and what it did.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use crate::gtid::GtidSet;

/// What happens while streaming.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StreamEvent {
    /// The archive is ours.
    Claimed {
        /// The claim's number.
        epoch: u64,
        /// The history.
        branch: u32,
        /// What the archive holds already.
        start: GtidSet,
        /// What was accepted as lost with this claim.
        #[serde(skip_serializing_if = "GtidSet::is_empty")]
        accepted_gap: GtidSet,
        /// Up to which moment the archive is complete already.
        #[serde(with = "crate::clock::micros_option")]
        complete_to: Option<DateTime<Utc>>,
    },
    /// Another streamer has the archive, and this one waits for its end.
    Standby {
        /// The other's claim.
        epoch: u64,
        /// Its host.
        host: String,
        /// Its process there.
        process: u32,
    },
    /// What an earlier run had left in the spool is in the archive.
    Recovered {
        /// The folder.
        folder: std::path::PathBuf,
        /// Transactions that the archive did not have.
        transactions: u64,
        /// Whether all of it could be used and nothing is left there.
        complete: bool,
    },
    /// A server is being followed.
    Following {
        /// `host:port`.
        server: String,
        /// Its `server_uuid`.
        uuid: Uuid,
        /// Its version.
        version: String,
    },
    /// Something that a person should know.
    Warning {
        /// The text.
        message: String,
    },
    /// A segment is durable.
    Segment {
        /// Its key.
        key: String,
        /// Its transactions.
        transactions: u64,
        /// Bytes of binlog.
        raw_bytes: u64,
        /// Bytes in the store.
        stored_bytes: u64,
        /// Its newest commit.
        #[serde(with = "crate::clock::micros_option")]
        last_commit: Option<DateTime<Utc>>,
        /// Up to which moment the archive is complete now.
        #[serde(with = "crate::clock::micros_option")]
        complete_to: Option<DateTime<Utc>>,
        /// Seconds from its newest commit to durability.
        lag_seconds: Option<f64>,
        /// Bytes that still wait on disk.
        spooled_bytes: u64,
    },
    /// The store fails; the stream goes on as long as there is room for what it receives.
    StoreFailing {
        /// Why.
        reason: String,
        /// When the next try is made, in seconds.
        retry_seconds: f64,
        /// Segments that wait.
        waiting: usize,
        /// Bytes of them on disk.
        spooled_bytes: u64,
    },
    /// A segment waits on disk.
    Spooled {
        /// Bytes on disk.
        spooled_bytes: u64,
    },
    /// How long the source keeps what the archive does not have yet.
    PurgeHeadroom {
        /// Seconds, at least; none if the source purges nothing for its age.
        seconds: Option<f64>,
        /// Bytes of binlog that the stream has not received.
        waiting_bytes: u64,
        /// Seconds that the stream needs to catch up at its present speed; none if it has
        /// nothing to catch up with or cannot tell.
        catch_up_seconds: Option<f64>,
    },
    /// Small segments were made into large ones.
    Compacted {
        /// Segments that are gone.
        replaced: u64,
        /// Segments that stand for them.
        made: u64,
        /// Segments that the log has now.
        segments: u64,
    },
    /// The source was lost or is not the right one any more.
    Interrupted {
        /// Why.
        reason: String,
        /// When the next try is made, in seconds.
        retry_seconds: f64,
    },
    /// The stream's loop goes round; said every [`HEARTBEAT`], whatever it waits for.
    Alive,
}

/// How often a stream says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// Does something that may take long, and says meanwhile that the stream lives.
pub(super) async fn beating<T>(observer: &Observer, work: impl Future<Output = T>) -> T {
    let mut beats = heartbeats();
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = beats.tick() => observer(StreamEvent::Alive),
        }
    }
}

/// Ticks when it is time for [`StreamEvent::Alive`].
pub(super) fn heartbeats() -> Interval {
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEnd {
    /// It was stopped before it had the archive.
    #[default]
    Unclaimed,
    /// It was stopped; all that it had received whole is archived.
    Stopped,
    /// With `once`: all that the source had when it was first asked is archived.
    CaughtUp,
}

/// What a stream did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StreamReport {
    /// How it ended.
    pub ended: StreamEnd,
    /// The claim's number.
    pub epoch: u64,
    /// The history.
    pub branch: u32,
    /// Segments put.
    pub segments: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Bytes of binlog in them.
    pub raw_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Every GTID that the archive holds now, or that was before it began.
    pub gtid_set: GtidSet,
    /// Up to which moment of the source's clock the archive is complete.
    #[serde(with = "crate::clock::micros_option")]
    pub complete_to: Option<DateTime<Utc>>,
    /// The newest commit that was archived.
    #[serde(with = "crate::clock::micros_option")]
    pub last_commit: Option<DateTime<Utc>>,
}

/// Who is told what happens.
pub type Observer = Arc<dyn Fn(StreamEvent) + Send + Sync>;

/// What a stream would do.
#[derive(Debug, Clone, Serialize)]
pub struct StreamPlan {
    /// `host:port` of the source.
    pub server: String,
    /// Its `server_uuid`.
    pub uuid: Uuid,
    /// Its version.
    pub version: String,
    /// How it is tied to others.
    pub topology: String,
    /// The history that would be written to.
    pub branch: u32,
    /// The claim that would be made.
    pub epoch: u64,
    /// Every GTID that the archive holds, or that was before it began.
    pub start: GtidSet,
    /// What would be accepted as lost.
    #[serde(skip_serializing_if = "GtidSet::is_empty")]
    pub accepted_gap: GtidSet,
    /// What a new history would leave behind; none if the history goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<GtidSet>,
    /// The newest history, if it would be given up for an older one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_up: Option<u32>,
}
