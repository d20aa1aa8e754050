//! What is asked of a restore of tables, and what it did.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::journal::PlacedTable;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::gtid::GtidSet;
use crate::mysql::schema::Pattern;
use crate::mysql::server_url::ServerUrl;
use crate::observe::phase::Phase;
use crate::restore::target::{Cut, Target};
use crate::restore::verify::Verified;

/// What is asked.
#[derive(Debug, Clone)]
pub struct PartsRequest {
    /// The state to restore; none only with `resume`.
    pub target: Option<Target>,
    /// The server to restore to.
    pub server: ServerUrl,
    /// The snapshot to start from, if not the best one.
    pub snapshot: Option<SnapshotId>,
    /// The history, if not the newest one.
    pub branch: Option<BranchNumber>,
    /// Transactions to leave out.
    pub skip: GtidSet,
    /// Which tables.
    pub tables: Vec<Pattern>,
    /// The schema that they go into, if not their own.
    pub into: Option<String>,
    /// Whether to go on with what an earlier run began.
    pub resume: bool,
}

/// A table of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTable {
    /// Its names.
    #[serde(flatten)]
    pub place: PlacedTable,
    /// Its rows in the snapshot; none if the log makes it.
    pub rows: Option<u64>,
    /// Their bytes, before compression.
    pub raw_bytes: u64,
    /// Transactions of the log that changed its rows or itself.
    pub transactions: u64,
}

/// A restore of tables, decided.
#[derive(Debug, Clone, Serialize)]
pub struct PartsPlan {
    /// What was asked.
    pub target: Target,
    /// What it resolves to.
    pub cut: Cut,
    /// Transactions that are left out by name.
    pub skipped: GtidSet,
    /// The history.
    pub branch: BranchNumber,
    /// The snapshot to load from.
    pub snapshot: SnapshotId,
    /// The tables.
    pub tables: Vec<PlannedTable>,
    /// Tables that are followed besides, since others came out of them.
    pub besides: Vec<String>,
    /// Rows to load.
    pub rows: u64,
    /// Bytes of them, before compression.
    pub raw_bytes: u64,
    /// Bytes of them in the store.
    pub stored_bytes: u64,
    /// Transactions of the log that concern the tables.
    pub transactions: u64,
    /// Segments that hold them.
    pub segments: u64,
    /// Bytes of those segments in the store.
    pub segment_bytes: u64,
    /// `host:port` of the server.
    pub server: String,
    /// Its UUID.
    pub server_uuid: Uuid,
    /// Its version.
    pub server_version: String,
    /// Schemas that are made for them.
    pub new_schemas: Vec<String>,
    /// When what is gone on with was begun.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "crate::clock::micros_option"
    )]
    pub resumes: Option<DateTime<Utc>>,
    /// Seconds that it may take.
    pub expected_seconds: f64,
    /// What is good to know and no reason to worry.
    pub remarks: Vec<String>,
    /// What a person should know: above all what is not exact.
    pub notes: Vec<String>,
}

/// A table that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredTable {
    /// Its names.
    #[serde(flatten)]
    pub place: PlacedTable,
    /// Its rows when it got its name.
    pub rows: u64,
}

/// What a restore of tables did.
#[derive(Debug, Clone, Serialize)]
pub struct PartsReport {
    /// What kind of restore it was.
    pub kind: &'static str,
    /// The archive.
    pub archive: String,
    /// What was asked.
    pub target: Target,
    /// The set of the cut.
    pub cut: GtidSet,
    /// `host:port` of the server.
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
    /// Whether it went on with what an earlier run had begun.
    pub resumed: bool,
    /// The history.
    pub branch: BranchNumber,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The tables.
    pub tables: Vec<RestoredTable>,
    /// Rows that came out of the snapshot.
    pub rows_loaded: u64,
    /// Transactions of the log that were applied to the tables.
    pub transactions_applied: u64,
    /// Transactions that were left out by name.
    pub skipped: GtidSet,
    /// What was compared besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What took how long.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Where the archive keeps this report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}
