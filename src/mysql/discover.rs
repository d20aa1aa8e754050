//! Finds a whole topology from any one of its members.
//!
//! A group tells all of its members itself; plain replication is walked (see `tree`). What comes
//! out is the cluster of the servers that were asked: a snapshot stays within it. If that cluster
//! is a replica cluster of a ClusterSet, the topology names where its channel leads, and
//! [`find_primary`](super::primary::find_primary) goes on from there. Every statement here is a
//! read.

use uuid::Uuid;

use crate::error::with_causes;
use crate::gtid::GtidSet;

use super::error::MysqlError;
use super::facts::ServerFacts;
use super::replicas::channels;
use super::server_url::{HostPort, ServerUrl};
use super::session::Session;
use super::topology::{Member, MemberState, Role, Topology, TopologyKind};
use super::tree::{Tree, walk};
use super::version::ServerVersion;

/// Finds the topology from the first of the given servers that answers.
///
/// In a group, a member that works is preferred over one that has left it, since only the former
/// knows the group's present members.
///
/// # Errors
///
/// The failure of the last server if none answers, or of a question that was refused.
pub async fn discover(servers: &[ServerUrl]) -> Result<Topology, MysqlError> {
    let mut fallback: Option<Topology> = None;
    let mut failure: Option<MysqlError> = None;
    let mut notes = Vec::new();
    let mut silent: Vec<HostPort> = Vec::new();
    for url in servers {
        match discover_from(url, servers).await {
            Ok((mut topology, authoritative)) => {
                topology.notes.splice(0..0, notes.clone());
                mark_silent(&mut topology, &silent);
                if authoritative {
                    return Ok(topology);
                }
                if topology.has_majority() {
                    notes.push(format!("{} has left its group", url.address()));
                }
                fallback.get_or_insert(topology);
            }
            Err(error) => {
                notes.push(format!(
                    "{} could not be asked: {}",
                    url.address(),
                    with_causes(&error)
                ));
                if error.is_connection_lost() {
                    silent.push(url.address());
                }
                failure = Some(error);
            }
        }
    }
    match (fallback, failure) {
        (Some(topology), _) => Ok(topology),
        (None, Some(error)) => Err(error),
        (None, None) => Err(MysqlError::protocol("no server was given")),
    }
}

/// How to reach a member: as it was given, else with the login of the `first` server.
#[must_use]
pub fn login_for(address: &HostPort, first: &ServerUrl, servers: &[ServerUrl]) -> ServerUrl {
    servers
        .iter()
        .find(|url| url.address() == *address)
        .cloned()
        .unwrap_or_else(|| first.with_host_port(address))
}

/// Notes who does not answer us, so that nobody chooses them. The group may take seconds to notice
/// what we have just seen; or it is only we who cannot reach them, and it has lost nobody.
fn mark_silent(topology: &mut Topology, silent: &[HostPort]) {
    for member in &mut topology.members {
        if silent.contains(&member.address) && member.state != MemberState::Unreachable {
            member.state = MemberState::Silent;
        }
    }
}

async fn discover_from(
    url: &ServerUrl,
    servers: &[ServerUrl],
) -> Result<(Topology, bool), MysqlError> {
    let mut session = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut session).await?;
    let members = group_members(&mut session).await?;
    let mine = members
        .iter()
        .find(|member| member.uuid == Some(facts.server_uuid))
        .map(|member| member.state);
    let state = match mine {
        None | Some(MemberState::Offline) => {
            session.close().await;
            let tree = walk(&[url.address()], url, servers).await?;
            return Ok((assemble(url.address(), tree), mine.is_none()));
        }
        Some(state) => state,
    };
    let authoritative = matches!(state, MemberState::Online | MemberState::Recovering);
    let mut topology = Topology {
        kind: TopologyKind::GroupReplication,
        asked: url.address(),
        members: sorted(members),
        follows: None,
        notes: Vec::new(),
    };
    let own = upward_of(&mut session, &facts.version).await?;
    let in_set = knows_cluster_set(&mut session).await;
    session.close().await;
    // Every member of a replica cluster may have the channel; the primary's word counts, since a
    // member that was away keeps what the others have dropped.
    topology.follows = match topology.primary().map(|primary| primary.address.clone()) {
        Some(primary) if primary != url.address() => {
            match upward_of_server(&login_for(&primary, url, servers)).await {
                Ok(upward) => upward,
                Err(error) => {
                    topology.notes.push(format!(
                        "the primary {primary} could not be asked: {}",
                        with_causes(&error)
                    ));
                    own
                }
            }
        }
        _ => own,
    };
    if in_set || topology.follows.is_some() {
        topology.kind = TopologyKind::ClusterSet;
    }
    if authoritative && !topology.has_majority() {
        let address = url.address();
        let note = format!("{address} does not see the majority of its group");
        topology.notes.push(note);
    }
    let authoritative = authoritative && topology.has_majority();
    Ok((topology, authoritative))
}

async fn upward_of_server(url: &ServerUrl) -> Result<Option<HostPort>, MysqlError> {
    let mut session = Session::connect(url).await?;
    let version: String = session.query_one("SELECT @@GLOBAL.version").await?;
    let version = ServerVersion::parse(&version).map_err(|error| error.at(&url.address()))?;
    let upward = upward_of(&mut session, &version).await?;
    session.close().await;
    Ok(upward)
}

/// The source in the primary cluster, if this server is in a replica cluster.
async fn upward_of(
    session: &mut Session,
    version: &ServerVersion,
) -> Result<Option<HostPort>, MysqlError> {
    let channels = channels(session, version).await?;
    Ok(channels
        .into_iter()
        .find(|channel| channel.is_cluster_set())
        .map(|channel| channel.source))
}

/// Whether the metadata of InnoDB Cluster tell of a ClusterSet. Without the privilege to read them
/// the answer is no, and a primary cluster looks as any group: nothing else depends on it.
async fn knows_cluster_set(session: &mut Session) -> bool {
    let count: Result<u64, _> = session
        .query_one("SELECT COUNT(*) FROM mysql_innodb_cluster_metadata.clustersets")
        .await;
    count.is_ok_and(|count| count > 0)
}

type GroupRow = (
    String,
    String,
    Option<u16>,
    String,
    String,
    String,
    Option<u64>,
);

/// The members as this server sees them; empty if it has never been in a group.
pub(crate) async fn group_members(session: &mut Session) -> Result<Vec<Member>, MysqlError> {
    let rows: Vec<GroupRow> = session
        .query(
            "SELECT m.MEMBER_ID, m.MEMBER_HOST, m.MEMBER_PORT, m.MEMBER_STATE, m.MEMBER_ROLE, \
             m.MEMBER_VERSION, s.COUNT_TRANSACTIONS_REMOTE_IN_APPLIER_QUEUE \
             FROM performance_schema.replication_group_members m \
             LEFT JOIN performance_schema.replication_group_member_stats s \
             ON s.CHANNEL_NAME = m.CHANNEL_NAME AND s.MEMBER_ID = m.MEMBER_ID \
             WHERE m.MEMBER_ID <> '' ORDER BY m.MEMBER_HOST, m.MEMBER_PORT",
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|(id, host, port, state, role, version, queue)| Member {
            address: HostPort::new(host, port.unwrap_or_default()),
            uuid: Uuid::try_parse(&id).ok(),
            role: match role.as_str() {
                "PRIMARY" => Role::Primary,
                "SECONDARY" => Role::Secondary,
                _ => Role::Unknown,
            },
            state: MemberState::from_group(&state),
            version: ServerVersion::parse(&version).ok(),
            queue,
        })
        .collect())
}

/// The topology of a tree.
pub(super) fn assemble(asked: HostPort, tree: Tree) -> Topology {
    let Tree {
        visits,
        unreachable,
        notes,
    } = tree;
    let top: Option<&GtidSet> = visits
        .values()
        .find(|visit| visit.is_top())
        .map(|visit| &visit.facts.gtid_executed);
    let mut members: Vec<Member> = visits
        .values()
        .map(|visit| {
            let replica = !visit.is_top();
            let running = visit.channels.iter().all(|channel| channel.running);
            Member {
                address: visit.address.clone(),
                uuid: Some(visit.facts.server_uuid),
                role: if replica {
                    Role::Secondary
                } else {
                    Role::Primary
                },
                state: if running {
                    MemberState::Online
                } else {
                    MemberState::Stopped
                },
                version: Some(visit.facts.version.clone()),
                queue: top.filter(|_| replica).map(|top| {
                    let missing = top.subtract(&visit.facts.gtid_executed).count();
                    u64::try_from(missing).unwrap_or(u64::MAX)
                }),
            }
        })
        .collect();
    members.extend(unreachable.into_keys().map(|address| Member {
        address,
        uuid: None,
        role: Role::Unknown,
        state: MemberState::Unreachable,
        version: None,
        queue: None,
    }));
    Topology {
        kind: if members.len() > 1 {
            TopologyKind::Replication
        } else {
            TopologyKind::Single
        },
        asked,
        members: sorted(members),
        follows: None,
        notes,
    }
}

fn sorted(mut members: Vec<Member>) -> Vec<Member> {
    members.sort_by(|a, b| a.address.cmp(&b.address));
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_we_cannot_reach_the_group_has_not_lost() {
        let states = [
            (MemberState::Online, Role::Primary),
            (MemberState::Online, Role::Secondary),
            (MemberState::Online, Role::Secondary),
        ];
        let group = |states: &[(MemberState, Role)]| Topology {
            kind: TopologyKind::GroupReplication,
            asked: HostPort::new("0", 3306),
            members: states
                .iter()
                .enumerate()
                .map(|(digit, (state, role))| Member {
                    address: HostPort::new(digit.to_string(), 3306),
                    uuid: None,
                    role: *role,
                    state: *state,
                    version: None,
                    queue: None,
                })
                .collect(),
            follows: None,
            notes: Vec::new(),
        };
        let others = [HostPort::new("1", 3306), HostPort::new("2", 3306)];
        let mut healthy = group(&states);
        mark_silent(&mut healthy, &others);
        assert!(healthy.has_majority(), "{healthy:?}");
        assert!(healthy.primary().is_some());
        let error = healthy.choose_secondary(false).expect_err("none answers");
        assert!(error.to_string().contains("1:3306 is SILENT"), "{error}");
        // The member that answers has lost the others: it is they who may go on.
        let lost = (MemberState::Unreachable, Role::Unknown);
        let mut minority = group(&[states[0], lost, lost]);
        mark_silent(&mut minority, &others);
        assert!(!minority.has_majority(), "{minority:?}");
        // A primary that does not answer is none to follow.
        mark_silent(&mut healthy, &[HostPort::new("0", 3306)]);
        assert!(healthy.primary().is_none());
    }
}
