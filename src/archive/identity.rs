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
    /// `group_replication_group_name` of the group that it goes on in, if a reseed began it for a
    /// group. No other history has transactions under this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Uuid>,
    /// `server_uuid` of the restored server that it goes on from, if a reseed began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Uuid>,
    /// When it was started.
    #[serde(with = "crate::clock::micros")]
    pub created: DateTime<Utc>,
}

impl Branch {
    /// Whether a reseed began it: it goes on in a certain group, or from a certain server.
    #[must_use]
    pub const fn is_reseed(&self) -> bool {
        self.group.is_some() || self.server.is_some()
    }
}

/// The newest history on the way from `branch` up to its first parent that a reseed began.
#[must_use]
pub fn last_reseed(branches: &[Branch], branch: BranchNumber) -> Option<&Branch> {
    let find = |number: BranchNumber| branches.iter().find(|branch| branch.branch == number);
    std::iter::successors(find(branch), |branch| {
        // A parent is older; anything else would go round in circles.
        find(branch.parent.filter(|parent| *parent < branch.branch)?)
    })
    .find(|branch| branch.is_reseed())
}

/// The reseed by which the newest history was parted from `own`, an older one.
#[must_use]
pub fn reseed_since(branches: &[Branch], own: BranchNumber) -> Option<&Branch> {
    let newest = branches.iter().map(|branch| branch.branch).max()?;
    last_reseed(branches, newest).filter(|reseed| reseed.branch > own)
}

/// A history that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBranch {
    /// The history that it comes from.
    pub parent: BranchNumber,
    /// The GTID set that it shares with its parent.
    pub fork: GtidSet,
    /// What the parent's log holds beyond that.
    pub lost: GtidSet,
    /// Why it is started.
    pub reason: String,
    /// The name of the group that it goes on in, for a reseed.
    pub group: Option<Uuid>,
    /// The server that it goes on from, for a reseed.
    pub server: Option<Uuid>,
}

impl NewBranch {
    /// A history that begins where a server lacks something.
    #[must_use]
    pub fn failover(
        parent: BranchNumber,
        fork: GtidSet,
        lost: GtidSet,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            parent,
            fork,
            lost,
            reason: reason.into(),
            group: None,
            server: None,
        }
    }

    /// Whether `branch` is what was decided here, in other words perhaps.
    #[must_use]
    pub fn is(&self, branch: &Branch) -> bool {
        branch.parent == Some(self.parent)
            && branch.fork == self.fork
            && branch.lost == self.lost
            && branch.group == self.group
            && branch.server == self.server
    }

    pub(super) fn numbered(self, branch: BranchNumber, created: DateTime<Utc>) -> Branch {
        Branch {
            branch,
            parent: Some(self.parent),
            fork: self.fork,
            lost: self.lost,
            reason: self.reason,
            group: self.group,
            server: self.server,
            created,
        }
    }
}

/// `epochs/N.json`: one streamer's claim on the archive, or a fence that ends those before it.
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
    /// Whether no streamer stands behind it: it only ends the claims before it, in the name of who
    /// began its history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fence: bool,
    /// What was accepted as lost with this claim: purged by the source, in no segment.
    #[serde(default, skip_serializing_if = "GtidSet::is_empty")]
    pub accepted_gap: GtidSet,
    /// When it claimed.
    #[serde(with = "crate::clock::micros")]
    pub claimed: DateTime<Utc>,
}
