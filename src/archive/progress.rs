//! What a snapshot leaves behind while it is taken, so that another run may go on with it.
//!
//! The first object says which view is read; those that follow name the tables that are done. They
//! are put if absent and removed once the manifest is there, which alone makes a snapshot: until
//! then all of this is a hint. Who goes on must prove that it sees the same view, and must
//! check every file. `FORMAT.md` describes the fields.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::hash::Sha256;
use super::layout::SnapshotId;
use super::manifest::{ScriptFile, TableEntry};
use crate::gtid::GtidSet;
use crate::mysql::HostPort;
use crate::mysql::schema::Filter;

/// The version of these objects that this program writes, and the only one that it goes on from.
pub const PROGRESS_FORMAT: u32 = 2;

/// Which view a snapshot reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRecord {
    /// [`PROGRESS_FORMAT`].
    pub format: u32,
    /// The version of the program.
    pub tool_version: String,
    /// The snapshot's name.
    pub id: SnapshotId,
    /// When it was begun.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
    /// The server that is read.
    pub address: HostPort,
    /// Its UUID.
    pub server_uuid: Uuid,
    /// The server's numbers of the connections that read.
    pub connections: Vec<u32>,
    /// What the views hold.
    pub gtid_executed: GtidSet,
    /// A digest of the whole schema and the accounts.
    pub schema_sha256: Sha256,
    /// What was asked for.
    #[serde(default)]
    pub filter: Filter,
    /// The DDL, which is stored.
    pub schema: Vec<ScriptFile>,
    /// The accounts, which are stored.
    pub accounts: ScriptFile,
}

/// Tables that are done: all their files are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesRecord {
    /// As the manifest will name them.
    pub tables: Vec<TableEntry>,
}
