//! The small JSON objects that say what an archive is and who wrote it: identity, histories,
//! claims.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::layout::{BranchNumber, Epoch};
use crate::gtid::GtidSet;

/// The archive format that this version writes and the newest that it reads.
pub const ARCHIVE_FORMAT: u32 = 1;

/// `quillback.json`: what makes a folder an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The archive's format.
    pub format: u32,
    /// A random name, so that two archives are never taken for one.
    pub archive: Uuid,
    /// When it was made.
    #[serde(with = "crate::clock::micros")]
    pub created: DateTime<Utc>,
    /// The Quillback that made it.
    pub quillback: String,
}

/// `branches/N.json`: one unbroken history of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its number.
    pub branch: BranchNumber,
    /// The history that it came from; none for the first.
    pub parent: Option<BranchNumber>,
    /// The GTID set that it shares with its parent.
    pub fork: GtidSet,
    /// What the parent's log held beyond that: transactions that this history does not have.
    #[serde(default, skip_serializing_if = "GtidSet::is_empty")]
    pub lost: GtidSet,
    /// Why it was started.
    pub reason: String,
    /// When it was started.
    #[serde(with = "crate::clock::micros")]
    pub created: DateTime<Utc>,
}

/// `epochs/N.json`: one streamer's claim on the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its number; a greater one ends all smaller ones.
    pub epoch: Epoch,
    /// The history that it writes to.
    pub branch: BranchNumber,
    /// `server_uuid` of the source at the start.
    pub source: Uuid,
    /// The address of the source at the start.
    pub address: String,
    /// The archive's GTID set at the start.
    pub start: GtidSet,
    /// The host that the streamer runs on.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// The UUID under which its dump is registered at the source, which tells whether it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_uuid: Option<Uuid>,
    /// What was accepted as lost with this claim: purged by the source, in no segment.
    #[serde(default, skip_serializing_if = "GtidSet::is_empty")]
    pub accepted_gap: GtidSet,
    /// When it claimed.
    #[serde(with = "crate::clock::micros")]
    pub claimed: DateTime<Utc>,
}

/// `epochs/N.released.json`: the clean end of a claim's streamer, so that the next one need not
/// wait to see whether it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The claim's number.
    pub epoch: Epoch,
    /// When its streamer ended.
    #[serde(with = "crate::clock::micros")]
    pub released: DateTime<Utc>,
}
