//! What is asked of a restore, what it tells meanwhile, and what it did.

use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::replay::{Advertise, ReplayKind, ReplayProgress};
use super::target::Target;
use super::verify::Verified;
use super::wait::Waiting;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::archive::repository::Repository;
use crate::gtid::GtidSet;
use crate::mysql::server_url::{HostPort, ServerUrl};
use crate::observe::fail_point::FailPoints;
use crate::observe::phase::Phase;

/// What is asked.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The state to restore; none only with `resume`, which goes on with whatever was begun.
    pub target: Option<Target>,
    /// The server to fill.
    pub server: ServerUrl,
    /// The snapshot to start from, if not the best one.
    pub snapshot: Option<SnapshotId>,
    /// The history, if not the newest one.
    pub branch: Option<BranchNumber>,
    /// Transactions to leave out.
    pub skip: GtidSet,
    /// How the log comes to the server.
    pub replay: ReplayKind,
    /// Whether to go on with what an earlier run began.
    pub resume: bool,
    /// The server whose content may be removed first: it must be the one of `server`.
    pub wipe: Option<HostPort>,
}

impl RestoreRequest {
    /// A request without any of the finer options.
    #[must_use]
    pub fn new(target: Target, server: ServerUrl) -> Self {
        Self {
            target: Some(target),
            server,
            snapshot: None,
            branch: None,
            skip: GtidSet::new(),
            replay: ReplayKind::default(),
            resume: false,
            wipe: None,
        }
    }
}

/// What is compared at the end, besides `gtid_executed` and the number of tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Nothing.
    #[default]
    Basic,
    /// The rows of every table that no replayed transaction changed, by their checksums.
    Checksums,
}

/// How to do it.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Connections that load at once, and appliers that replay at once.
    pub threads: u32,
    /// Where to listen for the server; none lets the system choose.
    pub listen: Option<SocketAddr>,
    /// The address under which the server reaches us; none takes the one that we reach it from.
    pub advertise: Option<Advertise>,
    /// Whether the restored server may take writes at once.
    pub open: bool,
    /// Whether the server's redo log stays on during the load, so that the load survives a crash
    /// of the server.
    pub keep_redo_log: bool,
    /// What is compared at the end.
    pub verify: Verify,
    /// Where a test may end the run.
    pub fail_points: FailPoints,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            listen: None,
            advertise: None,
            open: false,
            keep_redo_log: false,
            verify: Verify::default(),
            fail_points: FailPoints::default(),
        }
    }
}

/// What happens meanwhile.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RestoreEvent {
    /// A phase begins.
    Phase {
        /// Its name.
        phase: &'static str,
    },
    /// The archive does not hold the target yet.
    Waiting(Waiting),
    /// How far the load is.
    Load {
        /// Rows loaded.
        rows: u64,
        /// Rows in all.
        total_rows: u64,
    },
    /// How far the replay is.
    Replay(ReplayProgress),
}

/// Who is told.
pub type Observer = Arc<dyn Fn(RestoreEvent) + Send + Sync>;

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The archive.
    pub archive: String,
    /// What was asked.
    pub target: Target,
    /// `host:port` of the restored server.
    pub server: String,
    /// Its `server_uuid`.
    pub server_uuid: Uuid,
    /// Its version.
    pub server_version: String,
    /// When the restore began, by our clock; of one that was gone on with, its first run.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
    /// When it ended, by our clock.
    #[serde(with = "crate::clock::micros")]
    pub finished: DateTime<Utc>,
    /// Whether it went on with what an earlier run had begun; the phases are of the last run only.
    pub resumed: bool,
    /// Whether the server was emptied first.
    pub wiped: bool,
    /// The history.
    pub branch: BranchNumber,
    /// The snapshot that was loaded.
    pub snapshot: SnapshotId,
    /// Its rows.
    pub rows: u64,
    /// Its bytes, before compression.
    pub load_bytes: u64,
    /// Transactions that were replayed.
    pub transactions: u64,
    /// Bytes of binlog that hold them.
    pub replay_bytes: u64,
    /// How the log came to the server.
    pub replay: ReplayKind,
    /// Transactions that were left out by name.
    pub skipped: GtidSet,
    /// `gtid_executed` of the restored server, which is the plan's.
    pub gtid_executed: GtidSet,
    /// Tables on the restored server.
    pub tables: u64,
    /// How many there had to be; none if the log holds statements that may have changed that.
    pub expected_tables: Option<u64>,
    /// What was compared besides.
    pub verified: Option<Verified>,
    /// Whether the server takes writes.
    pub open: bool,
    /// The statements that let it take writes, unless it does.
    pub open_with: Vec<String>,
    /// What took how long.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Where the archive keeps this report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// Puts a report into the archive: under which key, or what is to be told of a store that does not
/// take it. That makes no restore undone.
pub(super) async fn keep(
    repository: &Repository,
    finished: DateTime<Utc>,
    report: &(impl Serialize + Sync),
) -> Result<String, String> {
    let random = Uuid::new_v4().as_fields().0;
    let kept = repository.put_restore(finished, random, report).await;
    kept.map_err(|error| {
        format!(
            "the report could not be kept in the archive: {}",
            crate::error::with_causes(&error)
        )
    })
}
