//! The steps of a plan.

use super::{Fill, Inputs, PlannedMember, ReseedPlan};
use crate::mysql::topology::Role;
use crate::reseed::checks::{self, Other, Servers};
use crate::reseed::metadata::Place;
use crate::reseed::state::ServerState;
use crate::reseed::step::{Action, Ready, Step};

/// What the steps are made from.
pub(super) struct Steps<'a> {
    pub(super) plan: &'a ReseedPlan,
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) servers: Servers<'a>,
    pub(super) seeds: String,
    pub(super) metadata: Vec<String>,
    pub(super) metadata_what: String,
}

impl Steps<'_> {
    /// All of them, in order; `addresses` are the members' own for the group, the primary's first.
    pub(super) fn all(&self, addresses: &[String]) -> Vec<Step> {
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
