//! Who belongs together, and which of them may carry the load of a snapshot.
//!
//! [`Topology`] is plain data: [`discover`](super::discover::discover) reads it from any one of
//! the members, and [`Topology::choose_secondary`] decides purely, with every reason told. The
//! invariant: a primary is never chosen unless the caller allows it by name.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Class, Classified};

use super::server_url::HostPort;
use super::version::ServerVersion;

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

/// The server that will carry the load, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The chosen member.
    pub member: Member,
    /// One sentence for the choice and one for each member that was passed over.
    pub reasons: Vec<String>,
}

/// Nobody can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// Only a primary is there, and it may not be used unless asked for by name.
    #[error(
        "no secondary can take the load ({}); the primary {primary} is used only with --allow-primary",
        reasons.join("; ")
    )]
    OnlyPrimary {
        /// The primary.
        primary: HostPort,
        /// Why each other member was passed over.
        reasons: Vec<String>,
    },
    /// Nothing works.
    #[error("no member can take the load: {}", reasons.join("; "))]
    NoMember {
        /// Why each member was passed over.
        reasons: Vec<String>,
    },
}

impl Classified for ChooseError {
    fn class(&self) -> Class {
        match self {
            Self::OnlyPrimary { .. } => Class::Refused,
            Self::NoMember { .. } => Class::Transient,
        }
    }
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

    /// The healthiest secondary: ONLINE, of the primary's version if any is, with the fewest
    /// transactions still to apply; ties go to the first address.
    ///
    /// With `allow_primary` the primary is taken when there is no such secondary. The primary of a
    /// replica cluster is taken then without asking: it takes no writes, and a snapshot stays
    /// within the cluster that was asked.
    ///
    /// # Errors
    ///
    /// [`ChooseError::OnlyPrimary`] when only the primary could be taken and may not be.
    pub fn choose_secondary(&self, allow_primary: bool) -> Result<Choice, ChooseError> {
        let primary = self.primary();
        let rank = |member: &Member| {
            let other_version = primary.is_some_and(|p| p.version != member.version);
            (
                other_version,
                member.queue.unwrap_or(u64::MAX),
                member.address.clone(),
            )
        };
        let best = self
            .members
            .iter()
            .filter(|member| member.is_online_secondary())
            .min_by_key(|member| rank(member));
        let passed_over = |chosen: Option<&Member>| -> Vec<String> {
            self.members
                .iter()
                .filter(|member| Some(*member) != chosen)
                .map(|member| format!("{} {}", member.address, why_not(member, chosen)))
                .collect()
        };
        if let Some(best) = best {
            let mut reasons = vec![format!(
                "{} is an ONLINE secondary {}",
                best.address,
                queue_words(best)
            )];
            reasons.extend(passed_over(Some(best)));
            return Ok(Choice {
                member: best.clone(),
                reasons,
            });
        }
        match primary {
            Some(primary) if allow_primary || self.follows.is_some() => {
                let permit = match self.follows {
                    Some(_) => "of a replica cluster, which takes no writes",
                    None => "which --allow-primary permits",
                };
                let mut reasons = vec![format!("{} is the primary, {permit}", primary.address)];
                reasons.extend(passed_over(Some(primary)));
                Ok(Choice {
                    member: primary.clone(),
                    reasons,
                })
            }
            Some(primary) => {
                let mut reasons = passed_over(Some(primary));
                if reasons.is_empty() {
                    reasons.push(format!("{} has no secondary", primary.address));
                }
                Err(ChooseError::OnlyPrimary {
                    primary: primary.address.clone(),
                    reasons,
                })
            }
            None => Err(ChooseError::NoMember {
                reasons: passed_over(None),
            }),
        }
    }
}

fn queue_words(member: &Member) -> String {
    match member.queue {
        Some(1) => "with 1 transaction to apply".to_owned(),
        Some(queue) => format!("with {queue} transactions to apply"),
        None => "whose queue is not known".to_owned(),
    }
}

fn why_not(member: &Member, chosen: Option<&Member>) -> String {
    match (member.state, member.role) {
        (MemberState::Online, Role::Primary) => "is the primary".to_owned(),
        (MemberState::Online, _) => match (&member.version, chosen) {
            (Some(version), Some(chosen)) if chosen.version.as_ref() != Some(version) => {
                format!("is an ONLINE secondary of version {version}")
            }
            _ => format!("is an ONLINE secondary {}", queue_words(member)),
        },
        (state, _) => format!("is {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, role: Role, state: MemberState, queue: Option<u64>) -> Member {
        Member {
            address: HostPort::new(name, 3306),
            uuid: None,
            role,
            state,
            version: ServerVersion::parse("8.4.6").ok(),
            queue,
        }
    }

    fn topology(members: Vec<Member>) -> Topology {
        Topology {
            kind: TopologyKind::GroupReplication,
            asked: HostPort::new("a", 3306),
            members,
            follows: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_secondary_with_the_smallest_queue_is_chosen_and_all_reasons_told() {
        let topology = topology(vec![
            member("a", Role::Primary, MemberState::Online, Some(0)),
            member("b", Role::Secondary, MemberState::Online, Some(7)),
            member("c", Role::Secondary, MemberState::Online, Some(1)),
            member("d", Role::Secondary, MemberState::Recovering, Some(0)),
            member("e", Role::Unknown, MemberState::Unreachable, None),
        ]);
        let choice = topology.choose_secondary(true).expect("there is one");
        assert_eq!(choice.member.address.host, "c");
        assert_eq!(
            choice.reasons,
            [
                "c:3306 is an ONLINE secondary with 1 transaction to apply",
                "a:3306 is the primary",
                "b:3306 is an ONLINE secondary with 7 transactions to apply",
                "d:3306 is RECOVERING",
                "e:3306 is UNREACHABLE",
            ]
        );
    }

    #[test]
    fn the_version_of_the_primary_comes_before_the_queue() {
        let mut newer = member("b", Role::Secondary, MemberState::Online, Some(0));
        newer.version = ServerVersion::parse("9.5.0").ok();
        let topology = topology(vec![
            member("a", Role::Primary, MemberState::Online, Some(0)),
            newer,
            member("c", Role::Secondary, MemberState::Online, Some(5)),
        ]);
        let choice = topology.choose_secondary(false).expect("there is one");
        assert_eq!(choice.member.address.host, "c");
        assert!(
            choice
                .reasons
                .contains(&"b:3306 is an ONLINE secondary of version 9.5.0".into())
        );
    }

    #[test]
    fn an_unknown_queue_comes_last_and_ties_go_to_the_first_address() {
        let topology = topology(vec![
            member("d", Role::Secondary, MemberState::Online, Some(3)),
            member("c", Role::Secondary, MemberState::Online, Some(3)),
            member("b", Role::Secondary, MemberState::Online, None),
        ]);
        let choice = topology.choose_secondary(false).expect("there is one");
        assert_eq!(choice.member.address.host, "c");
    }

    #[test]
    fn a_primary_is_taken_only_when_allowed() {
        let single = topology(vec![member("a", Role::Primary, MemberState::Online, None)]);
        let error = single.choose_secondary(false).expect_err("not allowed");
        assert_eq!(error.class(), Class::Refused);
        assert!(
            error.to_string().contains("a:3306 has no secondary"),
            "{error}"
        );
        assert!(error.to_string().contains("--allow-primary"), "{error}");
        let choice = single.choose_secondary(true).expect("allowed");
        assert_eq!(choice.member.role, Role::Primary);

        let broken = topology(vec![
            member("a", Role::Primary, MemberState::Online, None),
            member("b", Role::Secondary, MemberState::Error, None),
        ]);
        let error = broken.choose_secondary(false).expect_err("not allowed");
        assert!(error.to_string().contains("b:3306 is ERROR"), "{error}");
    }

    #[test]
    fn with_nobody_online_the_failure_may_pass() {
        let down = topology(vec![member(
            "a",
            Role::Unknown,
            MemberState::Unreachable,
            None,
        )]);
        let error = down.choose_secondary(true).expect_err("nobody");
        assert_eq!(error.class(), Class::Transient);
    }
}
