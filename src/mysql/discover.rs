//! Finds a whole topology from any one of its members.
//!
//! A group tells all of its members itself. Plain replication is walked: from a replica up to its
//! source by the performance schema, from a source down to its replicas by SHOW REPLICAS, which
//! needs `report_host` (and `report_port`) on them; replicas that tell no address and are not
//! among the given servers become a note. Every statement here is a read.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use crate::error::{Class, Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::mysql::wire::dump::STREAMER_HOST;

use super::error::MysqlError;
use super::facts::ServerFacts;
use super::server_url::{HostPort, ServerUrl};
use super::session::Session;
use super::topology::{Member, MemberState, Role, Topology, TopologyKind};
use super::version::ServerVersion;

/// Replication trees larger than this are cut, with a note.
const MEMBERS_MAX: usize = 64;

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
                // A group takes seconds to notice what we have just seen.
                for member in &mut topology.members {
                    if silent.contains(&member.address) {
                        member.state = MemberState::Unreachable;
                    }
                }
                if authoritative {
                    return Ok(topology);
                }
                notes.push(format!("{} has left its group", url.address()));
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

async fn discover_from(
    url: &ServerUrl,
    servers: &[ServerUrl],
) -> Result<(Topology, bool), MysqlError> {
    let mut session = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut session).await?;
    let members = group_members(&mut session).await?;
    session.close().await;
    let mine = members
        .iter()
        .find(|member| member.uuid == Some(facts.server_uuid))
        .map(|member| member.state);
    match mine {
        None | Some(MemberState::Offline) => Ok((walk(url, servers).await?, mine.is_none())),
        Some(state) => {
            let authoritative = matches!(state, MemberState::Online | MemberState::Recovering);
            let topology = Topology {
                kind: TopologyKind::GroupReplication,
                asked: url.address(),
                members: sorted(members),
                notes: Vec::new(),
            };
            Ok((topology, authoritative))
        }
    }
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
async fn group_members(session: &mut Session) -> Result<Vec<Member>, MysqlError> {
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

/// What one server says of its place in a replication tree.
struct Visit {
    address: HostPort,
    facts: ServerFacts,
    sources: Vec<(HostPort, bool)>,
    replicas: Vec<(Option<HostPort>, Uuid)>,
    note: Option<String>,
}

async fn visit(url: &ServerUrl) -> Result<Visit, MysqlError> {
    let mut session = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut session).await?;
    let sources: Vec<(String, u16, String, Option<String>)> = session
        .query(
            "SELECT c.HOST, c.PORT, s.SERVICE_STATE, a.SERVICE_STATE \
             FROM performance_schema.replication_connection_configuration c \
             JOIN performance_schema.replication_connection_status s USING (CHANNEL_NAME) \
             LEFT JOIN performance_schema.replication_applier_status a USING (CHANNEL_NAME) \
             WHERE c.HOST <> '' AND c.CHANNEL_NAME NOT LIKE 'group\\_replication\\_%'",
        )
        .await?;
    let (replicas, note) = match replicas_of(&mut session, &facts.version).await {
        Ok(replicas) => (replicas, None),
        Err(error) if error.class() == Class::Authentication => {
            let note = format!(
                "replicas of {} are not known: {}",
                url.address(),
                with_causes(&error)
            );
            (Vec::new(), Some(note))
        }
        Err(error) => return Err(error),
    };
    session.close().await;
    Ok(Visit {
        note,
        address: url.address(),
        facts,
        sources: sources
            .into_iter()
            .map(|(host, port, receiver, applier)| {
                let running = receiver == "ON" && applier.as_deref() == Some("ON");
                (HostPort::new(host, port), running)
            })
            .collect(),
        replicas,
    })
}

async fn replicas_of(
    session: &mut Session,
    version: &ServerVersion,
) -> Result<Vec<(Option<HostPort>, Uuid)>, MysqlError> {
    let rows: Vec<(u32, String, u16, u32, String)> =
        session.query(version.show_replicas_statement()).await?;
    Ok(rows
        .into_iter()
        // A streamer is no server.
        .filter(|(_, host, port, _, _)| !(host == STREAMER_HOST && *port == 0))
        .filter_map(|(_, host, port, _, uuid)| {
            let address = (!host.is_empty()).then(|| HostPort::new(host, port));
            Some((address, Uuid::try_parse(&uuid).ok()?))
        })
        .collect())
}

/// Walks a replication tree, or finds that there is none.
async fn walk(first: &ServerUrl, servers: &[ServerUrl]) -> Result<Topology, MysqlError> {
    let mut visits: BTreeMap<Uuid, Visit> = BTreeMap::new();
    let mut unreachable: BTreeMap<HostPort, String> = BTreeMap::new();
    let mut unaddressed: Vec<Uuid> = Vec::new();
    let mut notes = Vec::new();
    let mut queue: VecDeque<HostPort> = [first.address()].into();
    let mut seen: Vec<HostPort> = vec![first.address()];
    while let Some(address) = queue.pop_front() {
        if visits.len() + unreachable.len() >= MEMBERS_MAX {
            notes.push(format!(
                "only the first {MEMBERS_MAX} servers were looked at"
            ));
            break;
        }
        let found = match visit(&login_for(&address, first, servers)).await {
            Ok(found) => found,
            Err(error) if address == first.address() => return Err(error),
            Err(error) => {
                unreachable.insert(address, with_causes(&error));
                continue;
            }
        };
        let addressed = found
            .replicas
            .iter()
            .filter_map(|(address, _)| address.clone());
        let next = found
            .sources
            .iter()
            .map(|(source, _)| source.clone())
            .chain(addressed);
        for next in next {
            if !seen.contains(&next) {
                seen.push(next.clone());
                queue.push_back(next);
            }
        }
        let silent = found
            .replicas
            .iter()
            .filter(|(address, _)| address.is_none());
        unaddressed.extend(silent.map(|(_, uuid)| *uuid));
        notes.extend(found.note.clone());
        visits.entry(found.facts.server_uuid).or_insert(found);
        if queue.is_empty() && unaddressed.iter().any(|uuid| !visits.contains_key(uuid)) {
            // A replica without report_host may be one of the other given servers.
            for url in servers {
                if !seen.contains(&url.address()) {
                    seen.push(url.address());
                    queue.push_back(url.address());
                }
            }
        }
    }
    for uuid in unaddressed.iter().filter(|uuid| !visits.contains_key(uuid)) {
        notes.push(format!(
            "replica {uuid} tells no address (report_host is not set on it) and was left out"
        ));
    }
    notes.extend(
        unreachable
            .iter()
            .map(|(address, why)| format!("{address} could not be asked: {why}")),
    );
    Ok(assemble(first.address(), &visits, unreachable, notes))
}

fn assemble(
    asked: HostPort,
    visits: &BTreeMap<Uuid, Visit>,
    unreachable: BTreeMap<HostPort, String>,
    notes: Vec<String>,
) -> Topology {
    let top: Option<&GtidSet> = visits
        .values()
        .find(|visit| visit.sources.is_empty())
        .map(|visit| &visit.facts.gtid_executed);
    let mut members: Vec<Member> = visits
        .values()
        .map(|visit| {
            let replica = !visit.sources.is_empty();
            let running = visit.sources.iter().all(|(_, running)| *running);
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
        notes,
    }
}

fn sorted(mut members: Vec<Member>) -> Vec<Member> {
    members.sort_by(|a, b| a.address.cmp(&b.address));
    members
}
