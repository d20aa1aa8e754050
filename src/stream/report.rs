//! What a stream is asked to do, what it tells meanwhile, and what it did.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::gtid::GtidSet;

/// Which server to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowFrom {
    /// The one that takes the writes.
    Primary,
    /// One that follows it.
    Secondary,
}

/// How to stream.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Which server to follow.
    pub from: FollowFrom,
    /// Whether to end when the source's present state is archived.
    pub once: bool,
    /// How long events may wait for their segment.
    pub flush_interval: Duration,
    /// How many bytes of binlog make a segment full.
    pub segment_bytes: usize,
    /// How often a quiet source is vouched for.
    pub idle_interval: Duration,
    /// zstd's level.
    pub level: i32,
    /// The name of this host, for the claim.
    pub host: String,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            from: FollowFrom::Primary,
            once: false,
            flush_interval: Duration::from_secs(2),
            segment_bytes: 64 << 20,
            idle_interval: Duration::from_secs(60),
            level: 3,
            host: String::new(),
        }
    }
}

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
    },
    /// The source was lost or is not the right one any more.
    Interrupted {
        /// Why.
        reason: String,
        /// When the next try is made, in seconds.
        retry_seconds: f64,
    },
}

/// What a stream did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StreamReport {
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
}
