//! Finds the server that takes the writes, from all servers that are known.
//!
//! A group says itself who its primary is; from a replica cluster of a ClusterSet the way leads on
//! to the source of its channel, until a group follows nobody. In plain replication nobody says
//! it: every known server is asked, and the source is the one that replicates from nobody and can
//! be written to. The invariant: two servers that could both be meant are an error and never a
//! choice, since to follow the wrong one would fork the history.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Class, Classified};
use crate::gtid::GtidSet;

use super::discover::{assemble, discover, login_for};
use super::error::MysqlError;
use super::replicas::Channel;
use super::server_url::{HostPort, ServerUrl};
use super::session::Session;
use super::topology::{Member, Role, Topology, TopologyKind};
use super::tree::{Tree, walk};

/// ClusterSets are one level deep; a longer way is a ring that the addresses do not show.
const LEVELS_MAX: usize = 8;

/// The primary and those around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPrimary {
    /// The primary.
    pub member: Member,
    /// The cluster that it leads.
    pub topology: Topology,
    /// Whether it refuses writes at present: it has no source, the others follow it, and nobody
    /// else takes writes. There is nothing to lose in following it.
    pub read_only: bool,
    /// The replica clusters by which it was reached, the asked one first.
    pub through: Vec<Topology>,
}

impl FoundPrimary {
    /// Every server that was met on the way.
    pub fn met(&self) -> impl Iterator<Item = &HostPort> {
        let members = self.topology.members.iter();
        let passed = self.through.iter().flat_map(|topology| &topology.members);
        members.chain(passed).map(|member| &member.address)
    }
}

/// Why there is no primary to follow.
#[derive(Debug, thiserror::Error)]
pub enum PrimaryError {
    /// No server answers, or one refused a question.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// Nobody takes writes now; an election or a promotion may be under way.
    #[error("no server takes the writes: {}", Joined(reasons))]
    NoPrimary {
        /// What each known server is instead.
        reasons: Vec<String>,
    },
    /// Several servers take writes and none of them follows another.
    #[error(
        "{} all take writes and none follows another: make the one that is not the source \
         read-only, or its replica",
        Joined(servers)
    )]
    SplitBrain {
        /// Their addresses.
        servers: Vec<HostPort>,
    },
    /// The clusters of a ClusterSet follow each other in a ring.
    #[error("the clusters follow each other in a ring: {}", Joined(path))]
    Ring {
        /// The sources in the order in which they were met.
        path: Vec<HostPort>,
    },
    /// The primary cluster of a ClusterSet does not answer.
    #[error("the replica cluster of {from} follows {source_address}, which could not be asked")]
    PrimaryCluster {
        /// The server by which the replica cluster was found.
        from: HostPort,
        /// The source of its channel.
        source_address: HostPort,
        /// What happened there.
        #[source]
        source: MysqlError,
    },
}

impl Classified for PrimaryError {
    fn class(&self) -> Class {
        match self {
            Self::Mysql(error) | Self::PrimaryCluster { source: error, .. } => error.class(),
            Self::NoPrimary { .. } => Class::Transient,
            Self::SplitBrain { .. } | Self::Ring { .. } => Class::Refused,
        }
    }
}

/// Finds the primary through any of the given servers.
///
/// `servers` shall be those that were named and those that were met before: in plain replication
/// each of them is asked, so that a promoted replica is found and an old source that is back and
/// writable is noticed.
///
/// # Errors
///
/// [`PrimaryError`].
pub async fn find_primary(servers: &[ServerUrl]) -> Result<FoundPrimary, PrimaryError> {
    let mut topology = discover(servers).await?;
    let mut through: Vec<Topology> = Vec::new();
    let mut path: Vec<HostPort> = Vec::new();
    let Some(first) = servers.iter().find(|url| url.address() == topology.asked) else {
        return Err(MysqlError::protocol("no server was given").into());
    };
    while let Some(source) = topology.follows.clone() {
        path.push(source.clone());
        // The members of a cluster that was passed are met again only in a ring.
        let seen = through
            .iter()
            .chain([&topology])
            .any(|passed| passed.members.iter().any(|member| member.address == source));
        if seen || path.len() > LEVELS_MAX {
            return Err(PrimaryError::Ring { path });
        }
        let upward = match discover(&[login_for(&source, first, servers)]).await {
            Ok(upward) => upward,
            Err(error) => {
                return Err(PrimaryError::PrimaryCluster {
                    from: topology.asked,
                    source_address: source,
                    source: error,
                });
            }
        };
        through.push(std::mem::replace(&mut topology, upward));
    }
    if !through.is_empty() {
        topology.kind = TopologyKind::ClusterSet;
    }
    let choice = if topology.kind.is_group() {
        let choice = in_group(&topology)?;
        let passed: Vec<&Topology> = through.iter().chain([&topology]).collect();
        if let Some(rival) = rival_group(&choice, &passed, servers).await? {
            return Ok(rival);
        }
        choice
    } else {
        let starts: Vec<HostPort> = servers.iter().map(ServerUrl::address).collect();
        let tree = walk(&starts, first, servers).await?;
        let chosen = in_tree(&Standing::of(&tree), &tree.unreachable)?;
        topology = assemble(topology.asked, tree);
        chosen
    };
    let member = topology
        .members
        .iter()
        .find(|member| member.address == choice.address)
        .cloned();
    match member {
        Some(member) => Ok(FoundPrimary {
            member,
            topology,
            read_only: choice.read_only,
            through,
        }),
        None => Err(MysqlError::protocol("the primary is no member").into()),
    }
}

/// How long a promotion may take between one statement and the next.
const SETTLING: Duration = Duration::from_secs(1);

/// [`find_primary`], which looks a second time where it sees two primaries: the servers are asked
/// one after the other, and a promotion may have happened in between.
///
/// # Errors
///
/// As [`find_primary`].
pub async fn find_settled_primary(servers: &[ServerUrl]) -> Result<FoundPrimary, PrimaryError> {
    match find_primary(servers).await {
        Err(PrimaryError::SplitBrain { .. }) => {
            tokio::time::sleep(SETTLING).await;
            find_primary(servers).await
        }
        found => found,
    }
}

/// What was chosen.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    address: HostPort,
    read_only: bool,
}

fn in_group(topology: &Topology) -> Result<Chosen, PrimaryError> {
    if !topology.has_majority() {
        let reasons = topology.notes.clone();
        return Err(PrimaryError::NoPrimary { reasons });
    }
    match topology.primary() {
        Some(primary) => Ok(Chosen {
            address: primary.address.clone(),
            read_only: false,
        }),
        None => Err(PrimaryError::NoPrimary {
            reasons: topology
                .members
                .iter()
                .map(|member| {
                    let role = match member.role {
                        Role::Primary => "primary",
                        Role::Secondary => "secondary",
                        Role::Unknown => "member",
                    };
                    format!("{} is a {role} that is {}", member.address, member.state)
                })
                .collect(),
        }),
    }
}

/// Another group among `servers` that follows nobody and takes writes, as after an emergency
/// failover of a ClusterSet of which the old primary cluster does not know. It is the one to
/// follow if the chosen one has been fenced.
async fn rival_group(
    chosen: &Chosen,
    passed: &[&Topology],
    servers: &[ServerUrl],
) -> Result<Option<FoundPrimary>, PrimaryError> {
    let mut met: Vec<HostPort> = passed
        .iter()
        .flat_map(|topology| topology.members.iter().map(|member| member.address.clone()))
        .collect();
    for url in servers {
        if met.contains(&url.address()) {
            continue;
        }
        // Whoever does not answer is not asked; nor does one who left its group count.
        let Ok(mut topology) = discover(std::slice::from_ref(url)).await else {
            continue;
        };
        met.extend(topology.members.iter().map(|member| member.address.clone()));
        if !topology.kind.is_group() || topology.follows.is_some() {
            continue;
        }
        let Ok(rival) = in_group(&topology) else {
            continue;
        };
        let takes_writes =
            async |address: &HostPort| is_writable(&login_for(address, url, servers)).await;
        if !takes_writes(&rival.address).await.unwrap_or(false) {
            continue;
        }
        if takes_writes(&chosen.address).await? {
            return Err(PrimaryError::SplitBrain {
                servers: vec![chosen.address.clone(), rival.address],
            });
        }
        topology.kind = TopologyKind::ClusterSet;
        let member = topology.primary().cloned();
        return Ok(member.map(|member| FoundPrimary {
            member,
            topology,
            read_only: false,
            through: passed.iter().copied().cloned().collect(),
        }));
    }
    Ok(None)
}

async fn is_writable(url: &ServerUrl) -> Result<bool, MysqlError> {
    let mut session = Session::connect(url).await?;
    let refuses: bool = session.query_one("SELECT @@GLOBAL.super_read_only").await?;
    session.close().await;
    Ok(!refuses)
}

/// What counts of a server of a tree.
#[derive(Debug, Clone)]
struct Standing {
    address: HostPort,
    uuid: Uuid,
    writable: bool,
    left_group: bool,
    executed: GtidSet,
    channels: Vec<Channel>,
}

impl Standing {
    fn of(tree: &Tree) -> Vec<Self> {
        let visits = tree.visits.values();
        visits
            .map(|visit| Self {
                address: visit.address.clone(),
                uuid: visit.facts.server_uuid,
                writable: visit.is_writable(),
                left_group: visit.left_group,
                executed: visit.facts.gtid_executed.clone(),
                channels: visit.channels.clone(),
            })
            .collect()
    }

    /// Whether it takes writes beside `source`: it stopped to replicate, and has transactions that
    /// the source lacks. A replica that runs is no second source, even where it can be written to.
    fn went_its_own_way(&self, source: &Self) -> bool {
        let stopped = !self.channels.is_empty() && self.channels.iter().all(|c| !c.running);
        self.writable && stopped && !self.executed.is_subset(&source.executed)
    }

    fn says(&self) -> String {
        let Some(channel) = self.channels.first() else {
            if self.left_group && !self.writable {
                return format!("{} has left its group", self.address);
            }
            let word = if self.writable {
                "writable"
            } else {
                "read-only"
            };
            return format!("{} is {word} and has no source", self.address);
        };
        let runs = if channel.running { "" } else { " (stopped)" };
        let advice = if self.writable && !channel.running {
            "; it is writable: if it was promoted, it needs RESET REPLICA ALL"
        } else {
            ""
        };
        format!(
            "{} replicates from {}{runs}{advice}",
            self.address, channel.source
        )
    }
}

/// The source among the servers of a tree.
fn in_tree(
    known: &[Standing],
    unreachable: &BTreeMap<HostPort, String>,
) -> Result<Chosen, PrimaryError> {
    let tops: Vec<&Standing> = known.iter().filter(|s| s.channels.is_empty()).collect();
    let writable: Vec<&Standing> = tops.iter().copied().filter(|top| top.writable).collect();
    let choose = |one: &Standing, read_only| Chosen {
        address: one.address.clone(),
        read_only,
    };
    match (writable.as_slice(), tops.as_slice()) {
        ([source], _) => {
            let mut rivals = known
                .iter()
                .filter(|s| s.went_its_own_way(source))
                .peekable();
            if rivals.peek().is_none() {
                return Ok(choose(source, false));
            }
            let all = std::iter::once(*source).chain(rivals);
            Err(PrimaryError::SplitBrain {
                servers: all.map(|one| one.address.clone()).collect(),
            })
        }
        // Whoever could not be asked may be the new source; and a group goes on without those who
        // left it.
        ([], [top]) if unreachable.is_empty() && !top.left_group && all_follow(known, top) => {
            Ok(choose(top, true))
        }
        ([], []) if unreachable.is_empty() => {
            // Two that follow each other: the one that can be written to, if it is one.
            let mut writable = known.iter().filter(|one| one.writable);
            match (writable.next(), writable.next()) {
                (Some(one), None) => Ok(choose(one, false)),
                _ => Err(nobody(known, unreachable)),
            }
        }
        ([], _) => Err(nobody(known, unreachable)),
        (several, _) => Err(PrimaryError::SplitBrain {
            servers: several.iter().map(|one| one.address.clone()).collect(),
        }),
    }
}

/// Whether every server has `top` at the end of its way up.
fn all_follow(known: &[Standing], top: &Standing) -> bool {
    let source_of = |one: &Standing| {
        let channel = one.channels.first()?;
        known.iter().find(|other| match channel.source_uuid {
            Some(uuid) => other.uuid == uuid,
            None => other.address == channel.source,
        })
    };
    known.iter().all(|one| {
        let way = std::iter::successors(Some(one), |at| source_of(at));
        // A ring never ends: nobody is further from the top than there are servers.
        way.take(known.len()).any(|at| at.uuid == top.uuid)
    })
}

fn nobody(known: &[Standing], unreachable: &BTreeMap<HostPort, String>) -> PrimaryError {
    let silent = unreachable
        .iter()
        .map(|(address, why)| format!("{address} could not be asked: {why}"));
    PrimaryError::NoPrimary {
        reasons: known.iter().map(Standing::says).chain(silent).collect(),
    }
}

/// Values with commas between.
struct Joined<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            value.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "00000000-0000-0000-0000-00000000000";

    /// A server by words: its digit, `rw` or `ro`, `+` if it has a transaction that nobody else has,
    /// `left` if it left a group, and `<` with the digit of its source, with `!` if that stopped.
    fn standing(text: &str) -> Standing {
        let mut words = text.split(' ');
        let digit = words.next().expect("a digit");
        let writable = words.next() == Some("rw");
        let (mut gtids, mut channels) = (format!("{UUID}0:1-9"), Vec::new());
        let mut left_group = false;
        for word in words {
            if word == "+" {
                gtids = format!("{gtids},{UUID}{digit}:1");
            } else if word == "left" {
                left_group = true;
            } else if let Some(source) = word.strip_prefix('<') {
                let at = source.trim_end_matches('!');
                channels.push(Channel {
                    name: String::new(),
                    source: HostPort::new(at, 3306),
                    source_uuid: None,
                    running: at == source,
                });
            }
        }
        Standing {
            address: HostPort::new(digit, 3306),
            uuid: format!("{UUID}{digit}").parse().expect("a UUID"),
            writable,
            left_group,
            executed: gtids.parse().expect("a set"),
            channels,
        }
    }

    fn outcome(servers: &[&str], unreachable: &[&str]) -> String {
        let known: Vec<_> = servers.iter().map(|text| standing(text)).collect();
        let silent = unreachable
            .iter()
            .map(|host| (HostPort::new(*host, 3306), "timeout".to_owned()))
            .collect();
        match in_tree(&known, &silent) {
            Ok(chosen) if chosen.read_only => format!("{} (ro)", chosen.address.host),
            Ok(chosen) => chosen.address.host,
            Err(PrimaryError::SplitBrain { servers }) => {
                let hosts: Vec<_> = servers.iter().map(|at| at.host.as_str()).collect();
                format!("split {}", hosts.join(" "))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_source_is_the_one_that_is_writable_and_no_replica() {
        for (servers, unreachable, expected) in [
            (&["1 rw"][..], &[][..], "1"),
            (&["1 rw", "2 ro <1", "3 ro <1"], &[], "1"),
            (&["1 rw", "2 ro <1"], &["3"], "1"),
            // Replicas that nobody protects are no sources, running or not, unless they wrote.
            (&["1 rw", "2 rw <1 +"], &[], "1"),
            (&["1 rw", "2 rw <1!"], &[], "1"),
            (&["1 rw", "2 rw <1! +"], &[], "split 1 2"),
            (&["1 rw", "2 ro <1! +"], &[], "1"),
            // 2 was promoted; the old one is gone, read-only, its replica, or writable again.
            (&["2 rw", "3 ro <2"], &["1"], "2"),
            (&["1 ro", "2 rw", "3 ro <2"], &[], "2"),
            (&["1 ro <2", "2 rw"], &[], "2"),
            (&["1 rw", "2 rw", "3 ro <2"], &[], "split 1 2"),
            // Nobody can be written to: no harm in the only one that all others follow.
            (&["1 ro"], &[], "1 (ro)"),
            (&["1 rw left"], &[], "1"),
            (&["1 ro", "2 ro <1", "3 ro <2!"], &[], "1 (ro)"),
            // A pair that follows each other.
            (&["1 rw <2", "2 ro <1"], &[], "1"),
        ] {
            assert_eq!(outcome(servers, unreachable), expected, "{servers:?}");
        }
    }

    #[test]
    fn where_nobody_is_clearly_the_source_everybody_is_named() {
        for (servers, unreachable, words) in [
            (
                &["2 rw <1!", "3 ro <1!"][..],
                &["1"][..],
                "2:3306 replicates from 1:3306 (stopped); it is writable: if it was promoted, it \
                 needs RESET REPLICA ALL, 3:3306 replicates from 1:3306 (stopped), 1:3306 could \
                 not be asked: timeout",
            ),
            (
                &["1 ro"],
                &["2"],
                "1:3306 is read-only and has no source, 2:3306 could not be asked: timeout",
            ),
            (&["1 ro left"], &[], "1:3306 has left its group"),
            (
                &["1 ro", "2 ro"],
                &[],
                "1:3306 is read-only and has no source, 2:3306 is read-only and has no source",
            ),
            (
                &["1 rw <2", "2 rw <1"],
                &[],
                "1:3306 replicates from 2:3306, 2:3306 replicates from 1:3306",
            ),
            (
                &["1 ro", "2 ro <3", "3 ro <2"],
                &[],
                "1:3306 is read-only and has no source, 2:3306 replicates from 3:3306, 3:3306 \
                 replicates from 2:3306",
            ),
        ] {
            let said = outcome(servers, unreachable);
            let expected = format!("no server takes the writes: {words}");
            assert_eq!(said, expected, "{servers:?}");
        }
    }
}
