//! What is asked of a restore, what it tells meanwhile, and what it did.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use super::replay::ReplayProgress;
use super::target::Target;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::gtid::GtidSet;
use crate::mysql::server_url::ServerUrl;
use crate::observe::phase::Phase;

/// What is asked.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The state to restore.
    pub target: Target,
    /// The server to fill.
    pub server: ServerUrl,
    /// The snapshot to start from, if not the best one.
    pub snapshot: Option<SnapshotId>,
    /// The history, if not the newest one.
    pub branch: Option<BranchNumber>,
    /// Transactions to leave out.
    pub skip: GtidSet,
}

/// How to do it.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Connections that load at once, and appliers that replay at once.
    pub threads: u32,
    /// Where to listen for the server; none lets the system choose.
    pub listen: Option<SocketAddr>,
    /// The address under which the server reaches us; none takes the one that we reach it from.
    pub advertise: Option<IpAddr>,
    /// Whether the restored server may take writes at once.
    pub open: bool,
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
    /// What was asked.
    pub target: Target,
    /// `host:port` of the restored server.
    pub server: String,
    /// The snapshot that was loaded.
    pub snapshot: SnapshotId,
    /// Its rows.
    pub rows: u64,
    /// Transactions that were replayed.
    pub transactions: u64,
    /// `gtid_executed` of the restored server, which is the plan's.
    pub gtid_executed: GtidSet,
    /// Tables on the restored server.
    pub tables: u64,
    /// Whether the server takes writes.
    pub open: bool,
    /// The statements that let it take writes, unless it does.
    pub open_with: Vec<String>,
    /// What took how long.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub notes: Vec<String>,
}
