//! The plan of a reseed: who becomes primary, who is filled and how, what is lost. Pure.
//!
//! The steps are computed from what the servers are now; run again after a crash, it leaves out what
//! is done.

mod metadata;
mod steps;

use serde::Serialize;
use uuid::Uuid;

use super::checks::{self, Other, Servers};
use super::metadata::Metadata;
use super::state::{ServerState, Stack};
use super::step::{PlannedBranch, RecoveryAccount, Step};
use crate::archive::layout::BranchNumber;
use crate::gtid::GtidSet;
use crate::mysql::server_url::HostPort;
use crate::mysql::version::ServerVersion;
use crate::restore::checks::Reason;

use metadata::OfMetadata;
use steps::Steps;

/// How members are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FillWish {
    /// What is needed: nothing but the log where that does, else a clone, else the archive.
    #[default]
    Auto,
    /// A copy of the new primary, whatever they hold.
    Clone,
    /// From the archive, without touching the new primary, whatever they hold.
    Archive,
}

/// What becomes of InnoDB Cluster's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataWish {
    /// They are made to match the group.
    #[default]
    Repair,
    /// They are removed; MySQL Shell can adopt the group.
    Drop,
    /// They stay as they were restored.
    Keep,
}

/// How one member is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// It is in the group already.
    Joined,
    /// The primary's binlog has all that it lacks.
    Incremental,
    /// It becomes a copy of the primary.
    Clone,
    /// It is emptied and filled from the archive.
    Archive,
}

/// What the operator allows and wants.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// How members are filled.
    pub fill: FillWish,
    /// Whether what is left of the old group is made read-only.
    pub fence: bool,
    /// Servers of the old group that do not answer and never will.
    pub gone: Vec<HostPort>,
    /// Servers whose transactions may be lost.
    pub discard: Vec<HostPort>,
    /// What becomes of InnoDB Cluster's metadata.
    pub metadata: MetadataWish,
}

/// What the archive says of the server's past.
#[derive(Debug, Clone)]
pub struct Past {
    /// The history that the server was restored from.
    pub parent: BranchNumber,
    /// All that this history holds.
    pub held: GtidSet,
    /// The number of a history that would be begun now.
    pub next: BranchNumber,
    /// What an earlier run has recorded.
    pub begun: Option<Begun>,
    /// The statements that let the restored server take writes.
    pub open_with: Vec<String>,
    /// Transactions that the server got after its restore under GTIDs that the old history has given to
    /// others.
    pub reused: GtidSet,
    /// What the report of the restore says, for the reason of the branch.
    pub restored: Option<String>,
}

/// A history that an earlier run has recorded for this server.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Its number.
    pub number: BranchNumber,
    /// The group's name.
    pub group: Uuid,
    /// What it shares with its parent.
    pub fork: GtidSet,
    /// What it lost.
    pub lost: GtidSet,
    /// Why.
    pub reason: String,
}

/// What a plan is computed from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The restored server.
    pub primary: &'a ServerState,
    /// The other servers of the new group.
    pub members: &'a [ServerState],
    /// Servers of the old group that are not among them.
    pub others: &'a [Other],
    /// What the operator allows.
    pub wishes: &'a Wishes,
    /// What the archive says.
    pub past: &'a Past,
    /// InnoDB Cluster's metadata on the restored server, if there are any.
    pub metadata: Option<&'a Metadata>,
    /// The account by which members catch up.
    pub account: &'a RecoveryAccount,
    /// A name for the group, if none was chosen yet.
    pub fresh: Uuid,
}

/// A member of the new group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMember {
    /// Where we reach it.
    pub address: HostPort,
    /// Its `server_uuid`.
    pub uuid: Uuid,
    /// Its version.
    pub version: ServerVersion,
    /// `group_replication_local_address`.
    pub local_address: String,
    /// How it is filled.
    pub fill: Fill,
    /// Why so.
    pub why: String,
    /// Its transactions that are lost.
    pub lost: GtidSet,
}

/// The new primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedPrimary {
    /// Where we reach it.
    pub address: HostPort,
    /// Where its group does.
    pub known_as: HostPort,
    /// Its `server_uuid`.
    pub uuid: Uuid,
    /// Its version.
    pub version: ServerVersion,
    /// Its transactions.
    pub gtid_executed: GtidSet,
}

/// A group, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReseedPlan {
    /// The restored server.
    pub primary: PlannedPrimary,
    /// The group's name.
    pub group: Uuid,
    /// What the members talk with.
    pub stack: Stack,
    /// The new history.
    pub branch: PlannedBranch,
    /// The other members.
    pub members: Vec<PlannedMember>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What is good to know and no reason to worry.
    pub remarks: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl ReseedPlan {
    /// Decides.
    ///
    /// # Errors
    ///
    /// Every reason why not.
    pub fn compute(inputs: &Inputs<'_>) -> Result<Self, Vec<Reason>> {
        let begun = inputs.past.begun.as_ref();
        let servers = Servers {
            primary: inputs.primary,
            members: inputs.members,
            others: inputs.others,
            group: begun.map(|begun| begun.group),
        };
        let mut reasons = checks::check(&servers, inputs.wishes);
        reasons.extend(checks::reused(inputs.primary, &inputs.past.reused));
        let branch = new_branch(inputs);
        let stack = stack(inputs);
        let mut addresses = Vec::new();
        for state in std::iter::once(inputs.primary).chain(inputs.members) {
            match local_address(state, stack) {
                Ok(address) => addresses.push(address),
                Err(reason) => reasons.push(reason),
            }
        }
        let metadata = match OfMetadata::compute(inputs, branch.group, &addresses) {
            Ok(metadata) => metadata,
            Err(reason) => {
                reasons.push(reason);
                OfMetadata::default()
            }
        };
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let mut members = Vec::new();
        for (state, local_address) in inputs.members.iter().zip(addresses.iter().skip(1)) {
            let (fill, why) = fill(&servers, state, inputs.wishes.fill, &branch.fork);
            members.push(PlannedMember {
                address: state.facts.address.clone(),
                uuid: state.facts.server_uuid,
                version: state.facts.version.clone(),
                local_address: local_address.clone(),
                fill,
                why,
                lost: match fill {
                    Fill::Joined => GtidSet::new(),
                    _ => checks::missing(inputs.primary, state),
                },
            });
        }
        let facts = &inputs.primary.facts;
        let mut plan = Self {
            primary: PlannedPrimary {
                address: facts.address.clone(),
                known_as: inputs.primary.known_as.clone(),
                uuid: facts.server_uuid,
                version: facts.version.clone(),
                gtid_executed: facts.gtid_executed.clone(),
            },
            group: branch.group,
            stack,
            branch,
            members,
            steps: Vec::new(),
            remarks: inputs
                .wishes
                .gone
                .iter()
                .map(|address| {
                    format!(
                        "{address} is taken for gone: if it comes back, it must not take writes"
                    )
                })
                .collect(),
            notes: notes(inputs).into_iter().chain(metadata.notes).collect(),
        };
        plan.steps = Steps {
            plan: &plan,
            inputs,
            servers,
            seeds: addresses.join(","),
            metadata: metadata.statements,
            metadata_what: metadata.what,
        }
        .all(&addresses);
        Ok(plan)
    }
}

fn new_branch(inputs: &Inputs<'_>) -> PlannedBranch {
    let past = inputs.past;
    let server = inputs.primary.facts.server_uuid;
    if let Some(begun) = &past.begun {
        return PlannedBranch {
            number: begun.number,
            parent: past.parent,
            fork: begun.fork.clone(),
            lost: begun.lost.clone(),
            group: begun.group,
            server,
            reason: begun.reason.clone(),
            recorded: true,
        };
    }
    let executed = &inputs.primary.facts.gtid_executed;
    let from = past
        .restored
        .as_deref()
        .unwrap_or("the state that it was found in");
    PlannedBranch {
        number: past.next,
        parent: past.parent,
        fork: past.held.intersect(executed),
        lost: past.held.subtract(executed),
        group: inputs.fresh,
        server,
        reason: format!("reseed from {}: {from}", inputs.primary.facts.address),
        recorded: false,
    }
}

/// The restored server's own choice if it has made one.
fn stack(inputs: &Inputs<'_>) -> Stack {
    let group = &inputs.primary.group;
    if !group.local_address.is_empty() {
        return group.stack.unwrap_or(Stack::XCom);
    }
    let all = std::iter::once(inputs.primary).chain(inputs.members);
    let knows = |state: &ServerState| state.facts.version.at_least(8, 0, 27);
    match all.into_iter().all(knows) {
        true => Stack::MySql,
        false => Stack::XCom,
    }
}

/// Where a member listens for its group: where it did, else where MySQL's own tools would put it.
fn local_address(state: &ServerState, stack: Stack) -> Result<String, Reason> {
    let known = &state.known_as;
    let own = format!("{}:{}", known.host, known.port);
    let was = &state.group.local_address;
    match stack {
        Stack::MySql => Ok(own),
        Stack::XCom if !was.is_empty() && *was != own => Ok(was.clone()),
        Stack::XCom => u16::try_from(u32::from(known.port) * 10 + 1)
            .map(|port| format!("{}:{port}", known.host))
            .map_err(|_| {
                checks::refused(
                    format!(
                        "{} names no address for its group, and its port times ten is no port",
                        state.facts.address
                    ),
                    "SET PERSIST group_replication_local_address = 'HOST:PORT' there, with a port that is free",
                )
            }),
    }
}

/// How a member is filled, and why so.
fn fill(
    servers: &Servers<'_>,
    member: &ServerState,
    wish: FillWish,
    fork: &GtidSet,
) -> (Fill, String) {
    let primary = &servers.primary.facts;
    let has = &member.facts.gtid_executed;
    if servers.has_joined(member) {
        return (Fill::Joined, "it is in the group already".to_owned());
    }
    let behind = has.is_subset(&primary.gtid_executed);
    let reachable = primary.gtid_purged.is_subset(has);
    let same = same_series(&primary.version, &member.facts.version);
    let why = if !behind {
        "it holds transactions that the new primary lacks"
    } else if !reachable {
        "the new primary's binlogs do not hold all that it lacks"
    } else {
        "it was asked for"
    };
    match wish {
        FillWish::Auto if behind && reachable && !member.unfinished => (
            Fill::Incremental,
            "the new primary's binlogs hold all that it lacks".to_owned(),
        ),
        FillWish::Archive if *has == *fork && reachable && !member.unfinished => (
            Fill::Incremental,
            "it holds what the archive would give it".to_owned(),
        ),
        FillWish::Archive => (Fill::Archive, why.to_owned()),
        FillWish::Auto | FillWish::Clone if same => (Fill::Clone, why.to_owned()),
        FillWish::Auto | FillWish::Clone => (
            Fill::Archive,
            format!("{why}, and MySQL clones only to the same version"),
        ),
    }
}

/// Whether one can be cloned from the other (MySQL manual, "Cloning Remote Data"): within a series
/// from 8.0.37 on, before that only the very same version.
fn same_series(donor: &ServerVersion, recipient: &ServerVersion) -> bool {
    let (a, b) = (donor.triple(), recipient.triple());
    let lenient = |version: &ServerVersion| version.at_least(8, 0, 37);
    a == b || (a.0, a.1) == (b.0, b.1) && lenient(donor) && lenient(recipient)
}

fn notes(inputs: &Inputs<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let unfit = &inputs.primary.unfit_tables;
    if !unfit.is_empty() {
        notes.push(format!(
            "a group lets nobody write to tables without a primary key or of another engine than InnoDB: {}",
            unfit.join(", ")
        ));
    }
    let reached = inputs.others.iter().filter_map(|other| match other {
        Other::Reached(state) => Some(state),
        Other::Silent { .. } => None,
    });
    for state in reached {
        notes.push(format!(
            "{} was of the old group and is left out; it keeps its data and is to stay read-only",
            state.facts.address
        ));
    }
    if inputs.past.restored.is_none() && inputs.past.begun.is_none() {
        notes.push(
            "the archive has no report of a restore to this server: that it holds a state of the archive \
             is taken from its gtid_executed alone"
                .to_owned(),
        );
    }
    notes
}
