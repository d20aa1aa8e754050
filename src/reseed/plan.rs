//! The plan of a reseed: who becomes primary, who is filled and how, what is lost. Pure.
//!
//! The steps are computed from what the servers are now; run again after a crash, it leaves out what
//! is done.

use serde::Serialize;
use uuid::Uuid;

use super::checks::{self, Other, Servers};
use super::metadata::{self, Change, Metadata, NewGroup, Place, Removal, Repair};
use super::state::{ServerState, Stack};
use super::step::{Action, PlannedBranch, Ready, RecoveryAccount, Step};
use crate::archive::layout::BranchNumber;
use crate::gtid::GtidSet;
use crate::mysql::server_url::HostPort;
use crate::mysql::topology::Role;
use crate::mysql::version::ServerVersion;
use crate::restore::checks::Reason;

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
        let metadata = match of_metadata(inputs, branch.group, &addresses) {
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

/// What is done about InnoDB Cluster's metadata.
#[derive(Debug, Default)]
struct OfMetadata {
    what: String,
    statements: Vec<String>,
    notes: Vec<String>,
}

fn of_metadata(
    inputs: &Inputs<'_>,
    name: Uuid,
    addresses: &[String],
) -> Result<OfMetadata, Reason> {
    let Some(metadata) = inputs.metadata else {
        return Ok(OfMetadata::default());
    };
    let all = std::iter::once(inputs.primary).chain(inputs.members);
    let group = NewGroup {
        name,
        members: all
            .zip(addresses)
            .map(|(state, local)| state.as_member(local))
            .collect(),
        recovery_account: Some(metadata::RecoveryAccount {
            user: inputs.account.user.clone(),
            host: "%".to_owned(),
        }),
        view_change_uuid: None,
    };
    Ok(match inputs.wishes.metadata {
        MetadataWish::Keep => OfMetadata {
            notes: vec![
                "InnoDB Cluster's metadata stay those of the old group (--metadata keep): no Router lets anybody \
                 through by them"
                    .to_owned(),
            ],
            ..OfMetadata::default()
        },
        MetadataWish::Drop => {
            let removal = Removal::compute(metadata, Some(&group), None);
            OfMetadata {
                what: "removes InnoDB Cluster's metadata".to_owned(),
                statements: vec![removal.statement],
                notes: vec![format!("for an InnoDB Cluster again, in MySQL Shell: {}", removal.adopt)],
            }
        }
        MetadataWish::Repair => {
            let repair = Repair::compute(metadata, &group, Change::Formed, None).map_err(|error| {
                checks::refused(
                    format!("{}: {error}", inputs.primary.facts.address),
                    "--metadata drop, which removes them, so that MySQL Shell can adopt the group; or --metadata \
                     keep",
                )
            })?;
            OfMetadata {
                what: format!("makes the metadata of the cluster {} match the group", repair.cluster),
                statements: repair.transaction().into_iter().map(ToOwned::to_owned).collect(),
                notes: repair.notes.iter().map(ToString::to_string).collect(),
            }
        }
    })
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
    for address in &inputs.wishes.gone {
        notes.push(format!(
            "{address} is taken for gone: if it comes back, it must not take writes"
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

/// What the steps are made from.
struct Steps<'a> {
    plan: &'a ReseedPlan,
    inputs: &'a Inputs<'a>,
    servers: Servers<'a>,
    seeds: String,
    metadata: Vec<String>,
    metadata_what: String,
}

impl Steps<'_> {
    fn all(&self, addresses: &[String]) -> Vec<Step> {
        let mut steps = self.fence();
        let branch = &self.plan.branch;
        let verb = if branch.recorded {
            "goes on with"
        } else {
            "begins"
        };
        steps.push(Step::new(
            None,
            format!(
                "{verb} branch {}: {} of branch {} stay behind",
                branch.number.0,
                checks::transactions(&branch.lost),
                branch.parent.0
            ),
            Action::Record(branch.clone()),
        ));
        let primary = self.inputs.primary;
        let at = &primary.facts.address;
        let clones = self.plan.members.iter().any(|m| m.fill == Fill::Clone);
        let local = addresses.first().map_or("", String::as_str);
        let ready = self.ready(primary, local, clones);
        if self.servers.has_joined(primary) {
            let what = "renews the recovery account's password";
            let action = Action::Credentials {
                ready,
                primary: true,
            };
            steps.push(Step::new(Some(at), what, action));
        } else {
            let what = "makes it ready for the group";
            steps.push(Step::new(Some(at), what, Action::Ready(ready)));
            let what = format!("starts the group {} on it", self.plan.group);
            steps.push(Step::new(Some(at), what, Action::Bootstrap));
        }
        steps.push(Step::new(
            Some(at),
            "lets it take writes",
            Action::Open {
                statements: self.opening(),
            },
        ));
        if !self.metadata.is_empty() {
            let statements = self.metadata.clone();
            steps.push(Step::new(
                Some(at),
                self.metadata_what.clone(),
                Action::Metadata { statements },
            ));
        }
        let members = self.inputs.members.iter().zip(&self.plan.members);
        for ((state, planned), local) in members.zip(addresses.iter().skip(1)) {
            self.member(state, planned, local, &mut steps);
        }
        steps.push(Step::new(
            Some(at),
            "looks whether every member is ONLINE with the same transactions",
            Action::Check,
        ));
        steps
    }

    /// Who must not take writes any more, and who leaves the old group.
    fn fence(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_stranger = |state: &&ServerState| !self.servers.has_joined(state);
        let others = self.inputs.others.iter().filter_map(|other| match other {
            Other::Reached(state) => Some(&**state),
            Other::Silent { .. } => None,
        });
        let others: Vec<&ServerState> = others.filter(is_stranger).collect();
        let members: Vec<&ServerState> = self.inputs.members.iter().filter(is_stranger).collect();
        for (state, lasting) in others
            .iter()
            .map(|state| (state, true))
            .chain(members.iter().map(|state| (state, false)))
        {
            // One that is left out must not wake up as a server that can be written to.
            let dangerous = checks::endangers(&self.servers, state);
            if dangerous || lasting && state.is_in_group() {
                steps.push(Step::new(
                    Some(&state.facts.address),
                    "keeps writers away from the old history",
                    Action::Fence { lasting },
                ));
            }
        }
        // The primary last, so that nobody else is made one.
        let mut in_group: Vec<&ServerState> =
            others.into_iter().chain(members.iter().copied()).collect();
        in_group.retain(|state| state.is_in_group());
        in_group.sort_by_key(|state| state.own().is_some_and(|own| own.role == Role::Primary));
        for state in in_group {
            let at = &state.facts.address;
            steps.push(Step::new(
                Some(at),
                "takes it out of the old group",
                Action::Leave,
            ));
        }
        for state in members {
            let set = checks::missing(self.inputs.primary, state);
            if !set.is_empty() {
                let at = &state.facts.address;
                let what = format!(
                    "puts the list of its {} that are lost into the archive",
                    checks::transactions(&set)
                );
                steps.push(Step::new(Some(at), what, Action::List { set }));
            }
        }
        steps
    }

    fn member(
        &self,
        state: &ServerState,
        planned: &PlannedMember,
        local: &str,
        steps: &mut Vec<Step>,
    ) {
        let at = &state.facts.address;
        let donor = &self.inputs.primary.known_as;
        let ready = self.ready(state, local, planned.fill == Fill::Clone);
        let prepare = Step::new(
            Some(at),
            "makes it ready for the group",
            Action::Ready(ready.clone()),
        );
        match planned.fill {
            Fill::Joined => {
                let what = "gives it the recovery account's new password";
                let action = Action::Credentials {
                    ready,
                    primary: false,
                };
                steps.push(Step::new(Some(at), what, action));
            }
            Fill::Incremental => steps.push(prepare),
            Fill::Clone => {
                steps.push(prepare);
                steps.push(Step::new(
                    Some(at),
                    format!("replaces all that it holds by a copy of {donor}"),
                    Action::Clone {
                        donor: donor.clone(),
                        user: self.inputs.account.user.clone(),
                    },
                ));
            }
            Fill::Archive => {
                let branch = &self.plan.branch;
                steps.push(Step::new(
                    Some(at),
                    "empties it and fills it from the archive",
                    Action::Load {
                        set: branch.fork.clone(),
                        branch: branch.parent,
                    },
                ));
                steps.push(prepare);
            }
        }
        steps.push(Step::new(Some(at), "joins the group", Action::Join));
    }

    fn ready(&self, state: &ServerState, local: &str, clones: bool) -> Ready {
        let version = &state.facts.version;
        let mut plugins = Vec::new();
        if !state.has_group_plugin {
            plugins.push(("group_replication", "group_replication.so"));
        }
        if clones && !state.has_clone_plugin {
            plugins.push(("clone", "mysql_clone.so"));
        }
        Ready {
            version: version.clone(),
            group: self.plan.group,
            local_address: local.to_owned(),
            seeds: self.seeds.clone(),
            stack: version.at_least(8, 0, 27).then_some(self.plan.stack),
            plugins,
            channels: state
                .channels
                .iter()
                .filter(|channel| !channel.is_cluster_set())
                .map(|channel| channel.name.clone())
                .collect(),
            leftovers: state.leftovers.statements(Place::Primary),
            account: self.inputs.account.clone(),
        }
    }

    /// What lets the new primary take writes, the way it did before it was restored.
    fn opening(&self) -> Vec<String> {
        let mut statements = vec![
            "SET GLOBAL super_read_only = OFF".to_owned(),
            "SET GLOBAL read_only = OFF".to_owned(),
        ];
        for statement in &self.inputs.past.open_with {
            if !statements.contains(statement) {
                statements.push(statement.clone());
            }
        }
        statements
    }
}
