//! Every reason why servers cannot become a group, found without IO.
//!
//! All are told at once. What would let two histories take writes at the same time is among them:
//! a server of the old group that can still be written to, one that cannot be asked, one that holds
//! what the new primary lacks.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::plan::Wishes;
use super::state::ServerState;
use crate::error::Class;
use crate::gtid::GtidSet;
use crate::mysql::server_url::HostPort;
use crate::restore::checks::Reason;

/// A server that belongs, or belonged, to the group of one that was named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Other {
    /// It answered.
    Reached(Box<ServerState>),
    /// It did not.
    Silent {
        /// Its address, as its fellows know it.
        address: HostPort,
        /// What happened.
        why: String,
    },
}

pub(super) fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Reason {
    Reason {
        what: what.into(),
        remedy: remedy.into(),
        class: Class::Refused,
    }
}

/// What the checks look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Servers<'a> {
    pub(super) primary: &'a ServerState,
    pub(super) members: &'a [ServerState],
    pub(super) others: &'a [Other],
    /// The name of the new group, if an earlier run has recorded it.
    pub(super) group: Option<Uuid>,
}

impl Servers<'_> {
    /// Whether it works in the new group, or is on its way into it.
    pub(super) fn has_joined(&self, state: &ServerState) -> bool {
        state.is_in_group() && self.group.is_some() && state.group.name == self.group
    }
}

/// Everything that speaks against it.
pub(super) fn check(servers: &Servers<'_>, wishes: &Wishes) -> Vec<Reason> {
    let mut reasons = Vec::new();
    check_primary(servers, &mut reasons);
    for state in std::iter::once(servers.primary).chain(servers.members) {
        check_settings(state, servers.primary, &mut reasons);
    }
    check_identities(servers, &mut reasons);
    for member in servers.members {
        check_member(servers, member, wishes, &mut reasons);
    }
    for other in servers.others {
        check_other(servers, other, wishes, &mut reasons);
    }
    reasons
}

/// A server that was restored in place has its old `server_uuid`: what is written to it before it is in
/// a group gets the numbers of what was lost.
pub(super) fn reused(primary: &ServerState, reused: &GtidSet) -> Option<Reason> {
    let at = &primary.facts.address;
    (!reused.is_empty()).then(|| {
        refused(
            format!(
                "{at} was written to after its restore, and the old history has other transactions of the same \
                 GTIDs: {reused:#}"
            ),
            format!("the restore once more (--wipe {at}), and nothing written to it before the reseed"),
        )
    })
}

fn check_primary(servers: &Servers<'_>, reasons: &mut Vec<Reason>) {
    let primary = servers.primary;
    let at = &primary.facts.address;
    if primary.unfinished {
        reasons.push(refused(
            format!("{at} holds a restore that was not finished"),
            format!("quillback restore --resume --to {at}"),
        ));
    }
    if primary.is_in_group() && !servers.has_joined(primary) {
        let group = primary
            .group
            .name
            .map_or_else(String::new, |name| format!(" {name}"));
        reasons.push(refused(
            format!("{at} is in a group that runs{group}"),
            format!("STOP GROUP_REPLICATION on {at}, if that group is to end; to add a server to it, --member alone"),
        ));
    }
    if servers.has_joined(primary)
        && !servers
            .group
            .is_some_and(|group| primary.is_primary_of(group))
    {
        reasons.push(refused(
            format!("{at} is in the new group and not its primary"),
            "quillback reseed --server ANY-MEMBER --member SERVER, which adds what is missing to a group that runs",
        ));
    }
    let formed: Vec<String> = servers
        .members
        .iter()
        .filter(|member| !servers.has_joined(primary) && servers.has_joined(member))
        .map(|member| member.facts.address.to_string())
        .collect();
    if !formed.is_empty() {
        reasons.push(refused(
            format!(
                "the new group runs already at {}, without {at}",
                formed.join(", ")
            ),
            format!(
                "quillback reseed --server {} --member {at}, which adds it",
                formed[0]
            ),
        ));
    }
}

/// What Group Replication demands of each member (MySQL manual, "Group Replication Requirements").
fn check_settings(state: &ServerState, primary: &ServerState, reasons: &mut Vec<Reason>) {
    let facts = &state.facts;
    let at = &facts.address;
    let wants = [
        (
            facts.has_gtids(),
            "gtid_mode",
            facts.gtid_mode.as_str(),
            "ON",
        ),
        (
            state.gtid_consistent,
            "enforce_gtid_consistency",
            "not ON",
            "ON",
        ),
        (facts.log_bin, "log_bin", "OFF", "ON"),
        (
            facts.log_replica_updates,
            "log_replica_updates",
            "OFF",
            "ON",
        ),
        (
            facts.binlog_format == "ROW",
            "binlog_format",
            facts.binlog_format.as_str(),
            "ROW",
        ),
        (facts.performance_schema, "performance_schema", "OFF", "ON"),
        (
            facts.server_id != 0,
            "server_id",
            "0",
            "a number of its own",
        ),
    ];
    for (holds, name, is, shall) in wants {
        if !holds {
            reasons.push(refused(
                format!("{name} of {at} is {is}, and a group demands {shall}"),
                format!("{name}={shall} in its my.cnf, and a restart"),
            ));
        }
    }
    if facts.lower_case_table_names != primary.facts.lower_case_table_names {
        reasons.push(refused(
            format!(
                "lower_case_table_names of {at} is {}, that of {} is {}",
                facts.lower_case_table_names,
                primary.facts.address,
                primary.facts.lower_case_table_names
            ),
            "a server that was initialised with the same value",
        ));
    }
    if facts.version.triple() < primary.facts.version.triple() {
        reasons.push(refused(
            format!(
                "{at} has MySQL {}, which is older than {} of the new primary",
                facts.version, primary.facts.version
            ),
            "the same version on it, or the older server as --primary",
        ));
    }
    let lacks: Vec<String> = state
        .lacks
        .iter()
        .filter(|need| need.is_required())
        .map(|need| format!("{} ON {}", need.privilege, need.on))
        .collect();
    if !lacks.is_empty() {
        reasons.push(Reason {
            what: format!(
                "the account {} at {at} lacks {}",
                state.account,
                lacks.join(", ")
            ),
            remedy:
                "quillback grants --for reseed, which prints all that is needed, with the reasons"
                    .to_owned(),
            class: Class::Authentication,
        });
    }
    for channel in state.channels.iter().filter(|channel| channel.running) {
        reasons.push(refused(
            format!(
                "{at} replicates from {} (channel '{}')",
                channel.source, channel.name
            ),
            format!(
                "STOP REPLICA FOR CHANNEL '{}' on {at}, if that is to end",
                channel.name
            ),
        ));
    }
}

/// No two may be one server, or take each other's events for their own.
fn check_identities(servers: &Servers<'_>, reasons: &mut Vec<Reason>) {
    let mut uuids: BTreeMap<Uuid, &HostPort> = BTreeMap::new();
    let mut ids: BTreeMap<u32, &HostPort> = BTreeMap::new();
    for state in std::iter::once(servers.primary).chain(servers.members) {
        let at = &state.facts.address;
        if let Some(first) = uuids.insert(state.facts.server_uuid, at) {
            reasons.push(refused(
                format!("{first} and {at} have the same server_uuid"),
                "each server once; of one that was copied with its data directory, remove auto.cnf and restart",
            ));
            continue;
        }
        if let Some(first) = ids.insert(state.facts.server_id, at) {
            reasons.push(refused(
                format!(
                    "{first} and {at} have the same server_id {}",
                    state.facts.server_id
                ),
                format!("SET PERSIST server_id = a number of its own, on {at}"),
            ));
        }
    }
}

fn check_member(
    servers: &Servers<'_>,
    member: &ServerState,
    wishes: &Wishes,
    reasons: &mut Vec<Reason>,
) {
    if servers.has_joined(member) {
        return;
    }
    let at = &member.facts.address;
    check_life(servers, member, wishes, reasons);
    let missing = missing(servers.primary, member);
    if !missing.is_empty() && !wishes.discard.contains(at) {
        reasons.push(refused(
            format!(
                "{at} holds {} that {} does not have: {missing:#}",
                transactions(&missing),
                servers.primary.facts.address
            ),
            format!(
                "--discard-transactions-of {at}, if they are to be lost; the archive keeps their list, and \
                 before that quillback stream --once --server {at} may archive them"
            ),
        ));
    }
}

/// What is left of the old group must be still.
fn check_life(
    servers: &Servers<'_>,
    state: &ServerState,
    wishes: &Wishes,
    reasons: &mut Vec<Reason>,
) {
    if wishes.fence {
        return;
    }
    let at = &state.facts.address;
    // Each of them may become the old group's primary once another one leaves.
    if let Some(own) = state.own().filter(|_| state.is_in_group()) {
        reasons.push(refused(
            format!("{at} is {} in the old group", own.state),
            "--fence, which makes the old group's servers read-only and takes them out of it; or STOP \
             GROUP_REPLICATION and SET GLOBAL super_read_only = ON on each of them",
        ));
    } else if endangers(servers, state) {
        reasons.push(refused(
            format!("{at} is of the old history and takes writes"),
            format!(
                "--fence, which makes it read-only; or SET GLOBAL super_read_only = ON on {at}"
            ),
        ));
    }
}

fn check_other(servers: &Servers<'_>, other: &Other, wishes: &Wishes, reasons: &mut Vec<Reason>) {
    match other {
        Other::Reached(state) if servers.has_joined(state) => {}
        Other::Reached(state) => check_life(servers, state, wishes, reasons),
        Other::Silent { address, why } => {
            if !wishes.gone.contains(address) {
                reasons.push(refused(
                    format!(
                        "{address} was of the old group and cannot be asked, so nobody knows whether it takes \
                         writes: {why}"
                    ),
                    format!(
                        "--gone {address}, if it is switched off, or no application can reach it"
                    ),
                ));
            }
        }
    }
}

/// Whether a server can be written to and has a past in common with the new primary. One that has
/// none is merely new; one that has the new group's name, or a restore that is not finished, is what an
/// earlier run was at, and so may be one that has nothing of its own and takes nothing from ordinary
/// accounts.
pub(super) fn endangers(servers: &Servers<'_>, state: &ServerState) -> bool {
    let primary = servers.primary;
    let executed = &state.facts.gtid_executed;
    let ours = servers.group.is_some() && state.group.name == servers.group;
    let quiet = state.facts.read_only && missing(primary, state).is_empty();
    let shared = !executed.is_disjoint(&primary.facts.gtid_executed);
    state.takes_writes() && shared && !ours && !quiet && !state.unfinished
}

/// What a server has and the new primary has not.
pub(super) fn missing(primary: &ServerState, member: &ServerState) -> GtidSet {
    member
        .facts
        .gtid_executed
        .subtract(&primary.facts.gtid_executed)
}

/// How many transactions a set is, in words.
pub(super) fn transactions(set: &GtidSet) -> String {
    match set.count() {
        1 => "1 transaction".to_owned(),
        count => format!("{count} transactions"),
    }
}
