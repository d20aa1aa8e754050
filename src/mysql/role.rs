//! What a server is at this moment: the small question beside a running dump.
//!
//! A stream asks every few seconds whether the server that it follows is still what it was chosen
//! for. The answer costs one or two statements that touch no data, and holds only for the moment
//! of asking: what a server lost since shows at the next question, or as a broken stream.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::MysqlError;
use super::replicas::channels;
use super::server_url::HostPort;
use super::session::Session;
use super::topology::{MemberState, TopologyKind};
use super::version::ServerVersion;

/// The role of a server now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum RoleNow {
    /// It takes the writes: a group's ONLINE primary (in a ClusterSet: of the primary cluster), or
    /// a server that replicates from nobody and is not read-only.
    Primary,
    /// It replicates from nobody and refuses writes: a promotion may be under way, or somebody
    /// works on it. Whether another server is the source now must be asked of the others.
    ReadOnly,
    /// A group's ONLINE secondary.
    Secondary,
    /// It has another server as its source, whether or not it follows it right now.
    Replica {
        /// The configured source.
        source: HostPort,
        /// Whether receiver and applier run.
        running: bool,
    },
    /// The primary of a group that is a replica cluster of a ClusterSet.
    ReplicaCluster {
        /// The source in the primary cluster.
        source: HostPort,
    },
    /// A member of a group that cannot be followed, or (OFFLINE) of none.
    OutOfGroup {
        /// Its state, as it sees itself.
        state: MemberState,
    },
    /// A member of a group that has lost the majority of the group: nothing it writes is agreed.
    NoMajority,
}

impl RoleNow {
    /// Whether it is the server that takes the writes.
    #[must_use]
    pub const fn is_primary(&self) -> bool {
        matches!(self, Self::Primary)
    }

    /// Whether it follows a primary, and works.
    #[must_use]
    pub const fn is_secondary(&self) -> bool {
        matches!(
            self,
            Self::Secondary | Self::Replica { running: true, .. } | Self::ReplicaCluster { .. }
        )
    }
}

impl fmt::Display for RoleNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("the primary"),
            Self::ReadOnly => f.write_str("read-only, with no source of its own"),
            Self::Secondary => f.write_str("a secondary"),
            Self::Replica { source, running } => {
                let word = if *running { "a" } else { "a stopped" };
                write!(f, "{word} replica of {source}")
            }
            Self::ReplicaCluster { source } => {
                write!(f, "the primary of a replica cluster that follows {source}")
            }
            Self::OutOfGroup { state } => write!(f, "{state} in its group"),
            Self::NoMajority => f.write_str("without the majority of its group"),
        }
    }
}

/// Asks a server for its role.
///
/// `kind` is what discovery found: it decides which question is asked. A group's members are
/// asked for the group, all others for their source and whether they are read-only.
///
/// # Errors
///
/// What a question fails with.
pub async fn role_now(
    session: &mut Session,
    version: &ServerVersion,
    kind: TopologyKind,
) -> Result<RoleNow, MysqlError> {
    if !kind.is_group() {
        let channel = channels(session, version).await?.into_iter().next();
        if let Some(channel) = channel {
            return Ok(RoleNow::Replica {
                source: channel.source,
                running: channel.running,
            });
        }
        let (read_only, super_read_only): (bool, bool) = session
            .query_one("SELECT @@GLOBAL.read_only, @@GLOBAL.super_read_only")
            .await?;
        return Ok(if read_only || super_read_only {
            RoleNow::ReadOnly
        } else {
            RoleNow::Primary
        });
    }
    let view: Vec<(String, String, bool)> = session
        .query(
            "SELECT MEMBER_STATE, MEMBER_ROLE, MEMBER_ID = @@GLOBAL.server_uuid \
             FROM performance_schema.replication_group_members",
        )
        .await?;
    let role = role_in_group(&view);
    if role != RoleNow::Primary {
        return Ok(role);
    }
    let upward = channels(session, version).await?;
    Ok(upward
        .into_iter()
        .find(|channel| channel.is_cluster_set())
        .map_or(RoleNow::Primary, |channel| RoleNow::ReplicaCluster {
            source: channel.source,
        }))
}

/// The role by a member's view of its group: state, role, and whether it is the member itself.
fn role_in_group(view: &[(String, String, bool)]) -> RoleNow {
    let state = |(state, _, _): &(String, String, bool)| MemberState::from_group(state);
    let Some(own) = view.iter().find(|(_, _, own)| *own) else {
        return RoleNow::OutOfGroup {
            state: MemberState::Offline,
        };
    };
    if state(own) != MemberState::Online {
        return RoleNow::OutOfGroup { state: state(own) };
    }
    let lost = view
        .iter()
        .filter(|member| state(member) == MemberState::Unreachable)
        .count();
    if lost * 2 >= view.len() {
        return RoleNow::NoMajority;
    }
    match own.1.as_str() {
        "PRIMARY" => RoleNow::Primary,
        _ => RoleNow::Secondary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_of_the_group_gives_the_role() {
        let primary = || RoleNow::Primary;
        let out = |state| RoleNow::OutOfGroup { state };
        for (view, role) in [
            (&["*ONLINE PRIMARY", "ONLINE SECONDARY"][..], primary()),
            (&["*ONLINE PRIMARY"], primary()),
            (
                &["*ONLINE PRIMARY", "UNREACHABLE -", "ONLINE SECONDARY"],
                primary(),
            ),
            (&["ONLINE PRIMARY", "*ONLINE SECONDARY"], RoleNow::Secondary),
            (
                &["*ONLINE PRIMARY", "UNREACHABLE -", "UNREACHABLE -"],
                RoleNow::NoMajority,
            ),
            // One of two is no majority either.
            (&["*ONLINE PRIMARY", "UNREACHABLE -"], RoleNow::NoMajority),
            (&["*ERROR -", "ONLINE PRIMARY"], out(MemberState::Error)),
            (
                &["*RECOVERING SECONDARY", "ONLINE PRIMARY"],
                out(MemberState::Recovering),
            ),
            (&["*OFFLINE -"], out(MemberState::Offline)),
            (&[], out(MemberState::Offline)),
        ] {
            let rows: Vec<_> = view
                .iter()
                .map(|member| {
                    let own = member.starts_with('*');
                    let words = member.trim_start_matches('*');
                    let (state, role) = words.split_once(' ').expect("two words");
                    (state.to_owned(), role.to_owned(), own)
                })
                .collect();
            assert_eq!(role_in_group(&rows), role, "{view:?}");
        }
    }
}
