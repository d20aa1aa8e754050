//! What a stream is asked to do.

use std::time::Duration;

use serde::Serialize;

use super::spool::SpoolOptions;
use crate::archive::layout::BranchNumber;
use crate::gtid::GtidSet;
use crate::observe::fail_point::FailPoints;

/// Which server to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowFrom {
    /// The one that takes the writes.
    Primary,
    /// One that follows it.
    Secondary,
}

/// When a semi-synchronous source is told that a transaction is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SemiSync {
    /// Never: the source does not wait for us.
    Off,
    /// When its segment is durable in the archive.
    Archive,
    /// When its events are synced to the spool on this host's disk.
    Spool,
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
    /// How many blocks are packed at the same time.
    pub threads: usize,
    /// The name of this host, for the claim.
    pub host: String,
    /// Whether to wait while another streamer has the archive, instead of giving up.
    pub standby: bool,
    /// A streamer that shows no sign of life for so long is taken for gone.
    pub takeover_after: Duration,
    /// Transactions that the source has purged and that may be missing from now on.
    pub accept_gap: Option<GtidSet>,
    /// Transactions of the archive that the source lacks and that a new history may leave behind.
    pub new_branch: Option<GtidSet>,
    /// An older history that goes on after all: what a reseed has begun since is given up.
    pub back_to: Option<BranchNumber>,
    /// When the source is told that a transaction is safe.
    pub semi_sync: SemiSync,
    /// Where segments wait while the store is away; none: in memory only, two of them.
    pub spool: Option<SpoolOptions>,
    /// Segments older than this are made into larger ones; none: never.
    pub compact_after: Option<Duration>,
    /// Where tests make the run die.
    pub fail_points: FailPoints,
    /// What the random part of pauses is made from; none: from the machine.
    pub jitter_seed: Option<u64>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            from: FollowFrom::Primary,
            once: false,
            flush_interval: Duration::from_secs(2),
            segment_bytes: 64 << 20,
            idle_interval: Duration::from_secs(60),
            level: 1,
            threads: 2,
            host: String::new(),
            standby: false,
            takeover_after: Duration::from_secs(90),
            accept_gap: None,
            new_branch: None,
            back_to: None,
            semi_sync: SemiSync::Off,
            spool: None,
            compact_after: Some(Duration::from_secs(600)),
            fail_points: FailPoints::default(),
            jitter_seed: None,
        }
    }
}
