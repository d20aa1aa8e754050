//! Who belongs together, and which of them may carry the load of a snapshot.
//!
//! [`Topology`] is plain data: [`discover`](super::discover::discover) reads it from any one of
//! the members, and [`Topology::choose`] decides purely, with every reason told. The invariant: a
//! primary is never chosen unless the caller allows it by name.

mod choose;

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::server_url::HostPort;
use super::version::ServerVersion;

pub use choose::{Choice, ChooseError, Rule};

/// How the members are tied together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopologyKind {
    /// One server, no fellows.
    Single,
    /// A source with replicas.
    Replication,
    /// Group Replication, as in InnoDB Cluster.
    GroupReplication,
    /// A group that belongs to an InnoDB ClusterSet, as its primary cluster or as one that
    /// follows it.
    ClusterSet,
}

impl TopologyKind {
    /// Whether the members are those of a group.
    #[must_use]
    pub const fn is_group(self) -> bool {
        matches!(self, Self::GroupReplication | Self::ClusterSet)
    }
}

impl fmt::Display for TopologyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single server",
            Self::Replication => "source with replicas",
            Self::GroupReplication => "Group Replication",
            Self::ClusterSet => "group of a ClusterSet",
        })
    }
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes the writes: a group's primary, a source that replicates from nobody, a single server.
    Primary,
    /// Follows: a group's secondary, a replica.
    Secondary,
    /// Not known, since the member did not answer.
    Unknown,
}

/// Whether a member works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Works, and if it is a secondary, follows.
    Online,
    /// Catching up before it joins the group.
    Recovering,
    /// A replica whose receiver or applier does not run.
    Stopped,
    /// Not in the group any more.
    Offline,
    /// Left the group after a failure.
    Error,
    /// Does not answer: a group's members have lost it, or in a tree we cannot reach it.
    Unreachable,
    /// Does not answer us, though its group is in touch with it.
    Silent,
}

impl MemberState {
    /// Reads `MEMBER_STATE` of `performance_schema.replication_group_members`.
    #[must_use]
    pub fn from_group(text: &str) -> Self {
        match text {
            "ONLINE" => Self::Online,
            "RECOVERING" => Self::Recovering,
            "OFFLINE" => Self::Offline,
            "ERROR" => Self::Error,
            _ => Self::Unreachable,
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "ONLINE",
            Self::Recovering => "RECOVERING",
            Self::Stopped => "STOPPED",
            Self::Offline => "OFFLINE",
            Self::Error => "ERROR",
            Self::Unreachable => "UNREACHABLE",
            Self::Silent => "SILENT",
        })
    }
}

/// One server of a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it listens, as its fellows know it.
    pub address: HostPort,
    /// Its UUID, if it is known.
    pub uuid: Option<Uuid>,
    /// What it does.
    pub role: Role,
    /// Whether it works.
    pub state: MemberState,
    /// Its version, if it is known.
    pub version: Option<ServerVersion>,
    /// Transactions that it has yet to apply: a group member's applier queue, or what a replica
    /// lacks of its source's GTIDs.
    pub queue: Option<u64>,
}

impl Member {
    /// Whether this is a secondary that works.
    #[must_use]
    pub fn is_online_secondary(&self) -> bool {
        self.role == Role::Secondary && self.state == MemberState::Online
    }
}

/// The servers that hold one history together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// How they are tied together.
    pub kind: TopologyKind,
    /// The server that was asked.
    pub asked: HostPort,
    /// All of them, in the order of their addresses.
    pub members: Vec<Member>,
    /// The source in the primary cluster, if these are a replica cluster of a ClusterSet. Their
    /// primary takes no writes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<HostPort>,
    /// What could not be learnt, for a person to read.
    pub notes: Vec<String>,
}

impl Topology {
    /// The member that takes the writes, if one is known and works.
    #[must_use]
    pub fn primary(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.role == Role::Primary && member.state == MemberState::Online)
    }

    /// Whether more than half of a group's members, as this view knows them, are in touch with
    /// each other; which of them we can reach does not matter. The members of a tree need no
    /// majority.
    #[must_use]
    pub fn has_majority(&self) -> bool {
        let lost = self
            .members
            .iter()
            .filter(|member| member.state == MemberState::Unreachable)
            .count();
        !self.kind.is_group() || lost * 2 < self.members.len()
    }

    /// The member with this UUID.
    #[must_use]
    pub fn member(&self, uuid: Uuid) -> Option<&Member> {
        self.members.iter().find(|member| member.uuid == Some(uuid))
    }
}
