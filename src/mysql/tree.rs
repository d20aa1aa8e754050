//! A replication tree, walked from some of its servers.
//!
//! From a replica the walk goes up to its sources, from a source down to its replicas, which needs
//! `report_host` (and `report_port`) on them. The servers that are known at a step are asked side by
//! side, so a dead one costs one time limit and not one each. Every statement here is a read.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::error::{Class, Classified as _, with_causes};

use super::discover::login_for;
use super::error::MysqlError;
use super::facts::ServerFacts;
use super::replicas::{Channel, channels, registered_dumps};
use super::server_url::{HostPort, ServerUrl};
use super::session::Session;

/// How a note begins that says that a server's replicas could not be asked for.
pub(super) const UNKNOWN_REPLICAS: &str = "replicas of";

/// Replication trees larger than this are cut, with a note.
const MEMBERS_MAX: usize = 64;

/// What one server says of its place in a replication tree.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) address: HostPort,
    pub(super) facts: ServerFacts,
    pub(super) channels: Vec<Channel>,
    /// Whether it was a member of a group and is not now.
    pub(super) left_group: bool,
    replicas: Vec<(Option<HostPort>, Uuid)>,
    note: Option<String>,
}

impl Visit {
    /// Whether it has no source.
    pub(super) const fn is_top(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether ordinary accounts can write there.
    pub(super) const fn is_writable(&self) -> bool {
        !self.facts.read_only && !self.facts.super_read_only
    }
}

/// The servers that a walk met.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) visits: BTreeMap<Uuid, Visit>,
    pub(super) unreachable: BTreeMap<HostPort, String>,
    pub(super) notes: Vec<String>,
}

/// Walks from `starts`; the other `servers` are asked only where a replica tells no address.
///
/// # Errors
///
/// The failure of the last of `starts`, if none of them answers.
pub(super) async fn walk(
    starts: &[HostPort],
    first: &ServerUrl,
    servers: &[ServerUrl],
) -> Result<Tree, MysqlError> {
    let mut tree = Tree::default();
    let mut unaddressed: Vec<Uuid> = Vec::new();
    let mut failure = None;
    let mut wave: Vec<HostPort> = Vec::new();
    let mut seen: Vec<HostPort> = Vec::new();
    meet(starts.iter().cloned(), &mut seen, &mut wave);
    while !wave.is_empty() {
        let room = MEMBERS_MAX.saturating_sub(tree.visits.len() + tree.unreachable.len());
        if wave.len() > room {
            wave.truncate(room);
            tree.notes.push(format!(
                "only the first {MEMBERS_MAX} servers were looked at"
            ));
        }
        let asked = std::mem::take(&mut wave);
        let answers = join_all(asked.into_iter().map(async |address| {
            let answer = visit(&login_for(&address, first, servers)).await;
            (address, answer)
        }));
        for (address, answer) in answers.await {
            let found = match answer {
                Ok(found) => found,
                Err(error) => {
                    tree.unreachable
                        .insert(address.clone(), with_causes(&error));
                    if starts.contains(&address) {
                        failure = Some(error);
                    }
                    continue;
                }
            };
            let sources = found.channels.iter().map(|channel| channel.source.clone());
            let replicas = found.replicas.iter().filter_map(|(at, _)| at.clone());
            meet(sources.chain(replicas), &mut seen, &mut wave);
            let silent = found.replicas.iter().filter(|(at, _)| at.is_none());
            unaddressed.extend(silent.map(|(_, uuid)| *uuid));
            tree.notes.extend(found.note.clone());
            tree.visits.entry(found.facts.server_uuid).or_insert(found);
        }
        if wave.is_empty() && unaddressed.iter().any(|id| !tree.visits.contains_key(id)) {
            // A replica without report_host may be one of the other given servers.
            meet(servers.iter().map(ServerUrl::address), &mut seen, &mut wave);
        }
    }
    if let (true, Some(error)) = (tree.visits.is_empty(), failure) {
        return Err(error);
    }
    for uuid in unaddressed {
        if !tree.visits.contains_key(&uuid) {
            tree.notes.push(format!(
                "replica {uuid} tells no address (report_host is not set on it) and was left out"
            ));
        }
    }
    tree.notes.extend(
        tree.unreachable
            .iter()
            .map(|(address, why)| format!("{address} could not be asked: {why}")),
    );
    Ok(tree)
}

/// Puts the addresses that are new into the next wave.
fn meet(
    addresses: impl Iterator<Item = HostPort>,
    seen: &mut Vec<HostPort>,
    wave: &mut Vec<HostPort>,
) {
    for address in addresses {
        if !seen.contains(&address) {
            seen.push(address.clone());
            wave.push(address);
        }
    }
}

async fn visit(url: &ServerUrl) -> Result<Visit, MysqlError> {
    let mut session = Session::connect(url).await?;
    let facts = ServerFacts::load(&mut session).await?;
    let channels = channels(&mut session, &facts.version).await?;
    let left_group: u64 = session
        .query_one(
            "SELECT COUNT(*) FROM performance_schema.replication_group_members \
             WHERE MEMBER_ID = @@GLOBAL.server_uuid AND MEMBER_STATE IN ('OFFLINE', 'ERROR')",
        )
        .await?;
    let (replicas, note) = match registered_dumps(&mut session, &facts.version).await {
        Ok(dumps) => (dumps, None),
        Err(error) if error.class() == Class::Authentication => {
            let note = format!(
                "{UNKNOWN_REPLICAS} {} are not known: {}",
                url.address(),
                with_causes(&error)
            );
            (Vec::new(), Some(note))
        }
        Err(error) => return Err(error),
    };
    session.close().await;
    Ok(Visit {
        address: url.address(),
        facts,
        channels,
        left_group: left_group > 0,
        replicas: replicas
            .into_iter()
            .filter(|dump| !dump.streamer)
            .map(|dump| (dump.address, dump.replica_uuid))
            .collect(),
        note,
    })
}
