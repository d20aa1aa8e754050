//! From a request to a plan: asks archive and server, changes nothing.

pub(super) mod asked;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::checks::{self, Reason, ServerState, WantedRun};
use super::error::RestoreError;
use super::estimate::{self, Earlier, Rates};
use super::journal::{Journal, JournalError};
use super::load;
use super::plan::{Inputs, Onto, PlanError, RestorePlan, Way, find_way};
use super::report::RestoreRequest;
use super::skipped;
use super::target::nearest::{Candidates, Nearest, NoWay, Offer, candidates};
use super::target::{self, Cut, Lines, Lookup, SnapshotSet, Target, TargetError};
use crate::archive::catalog::Problem;
use crate::archive::history::History;
use crate::archive::identity::Branch;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::archive::manifest::Manifest;
use crate::archive::marks::MarkName;
use crate::archive::repository::Repository;
use crate::archive::script::account_of;
use crate::error::Class;
use crate::mysql::grants::GlobalPrivileges;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::observe::phase::PhaseClock;

use asked::Asked;

/// How many lists of transactions are read at once.
const READERS: usize = 8;

/// A plan with what the run needs besides.
#[derive(Debug)]
pub struct Prepared {
    /// The plan, as it is shown.
    pub plan: RestorePlan,
    pub(super) manifest: Manifest,
    pub(super) repository: Repository,
    pub(super) server: ServerUrl,
    pub(super) handed_on: BTreeSet<String>,
    pub(super) journal: Option<Journal>,
    pub(super) clock: PhaseClock,
}

/// Resolves the target, asks the server for its facts and plans. Nothing is changed.
///
/// # Errors
///
/// [`RestoreError`]: all that can be refused is refused here.
pub async fn prepare(
    repository: Repository,
    request: RestoreRequest,
) -> Result<Prepared, RestoreError> {
    let mut clock = PhaseClock::start();
    let begun = match request.resume {
        true => begun(&request.server).await?,
        false => None,
    };
    let asked = Asked::new(&request, begun.as_ref())?;
    let archive = Archive::read(&repository, &asked).await?;
    let rates = rates(&repository).await;
    let (cut, way) = match archive.way(&asked.target, &rates).await {
        Ok(found) => found,
        Err(error) => return Err(archive.with_nearest(&asked, &rates, error).await),
    };
    let manifest = way.manifest.clone();
    let accounts = load::accounts(&**repository.storage(), &manifest).await?;
    let handed_on = handed_on(accounts.statements());
    let mut session = Session::connect(&request.server).await?;
    let state = server_state(&mut session, &manifest).await?;
    session.close().await;
    let inputs = archive.inputs(&rates);
    let onto = Onto {
        state: &state,
        resume: request.resume,
        wipe: request.wipe.as_ref(),
        handed_on: &handed_on,
        replay: request.replay,
    };
    let mut remarks = Vec::new();
    if !way.skipped.is_empty() {
        remarks = skipped::consequences(&repository, &archive.history, &way).await?;
    }
    let mut plan = RestorePlan::compute(asked.shown.clone(), cut, way, &inputs, &onto)?;
    plan.notes.extend(remarks);
    if let Some(journal) = state.journal.as_ref().filter(|_| request.resume) {
        same_run(&repository, &plan, journal)?;
    }
    clock.end("plan", 0);
    Ok(Prepared {
        plan,
        manifest,
        repository,
        server: request.server,
        handed_on,
        journal: state.journal.filter(|_| request.resume),
        clock,
    })
}

/// The target that a mark stands for, and its history.
///
/// # Errors
///
/// [`RestoreError::NoMark`]; what reading fails with.
pub async fn mark_target(
    repository: &Repository,
    name: &MarkName,
) -> Result<(Target, BranchNumber), RestoreError> {
    match repository.mark(name).await? {
        Some(mark) => {
            let branch = mark.branch;
            Ok((mark.into(), branch))
        }
        None => {
            let marks = repository.marks().await?;
            Err(RestoreError::NoMark {
                name: name.clone(),
                marks: marks.into_iter().map(|mark| mark.name).collect(),
            })
        }
    }
}

/// The journal of what was begun on a server.
async fn begun(server: &ServerUrl) -> Result<Option<Journal>, RestoreError> {
    let mut session = Session::connect(server).await?;
    let journal = match Journal::open(&mut session).await {
        // The checks refuse it, with all else that they find.
        Err(JournalError::Malformed(_)) => None,
        journal => journal?,
    };
    session.close().await;
    Ok(journal)
}

/// Asks the server, but for an account that may not even see that: then only this is refused.
async fn server_state(
    session: &mut Session,
    manifest: &Manifest,
) -> Result<ServerState, RestoreError> {
    let privileges = GlobalPrivileges::load(session).await?;
    let lacks: Vec<&str> = ["SELECT", "PROCESS"]
        .into_iter()
        .filter(|name| !privileges.has(name))
        .collect();
    if lacks.is_empty() {
        return Ok(ServerState::load(session, manifest).await?);
    }
    let reasons = vec![Reason {
        what: format!(
            "its account {} lacks {} ON *.*, without which nobody can see whether it will do",
            privileges.account(),
            lacks.join(", ")
        ),
        remedy: "quillback grants --for restore, which prints all that is needed, with the reasons"
            .to_owned(),
        class: Class::Authentication,
    }];
    Err(PlanError::Server {
        server: session.address().to_string(),
        reasons,
    }
    .into())
}

/// Privileges on all schemas that accounts of a snapshot have.
fn handed_on(statements: &[Vec<u8>]) -> BTreeSet<String> {
    let grants: Vec<String> = statements
        .iter()
        .filter_map(|statement| account_of(statement))
        .map(|(.., statement)| String::from_utf8_lossy(statement).into_owned())
        .collect();
    GlobalPrivileges::parse(grants.iter().map(String::as_str))
        .names()
        .filter(|name| !matches!(*name, "ALL PRIVILEGES" | "USAGE"))
        .map(ToOwned::to_owned)
        .collect()
}

pub(super) async fn rates(repository: &Repository) -> Rates {
    let earlier: Vec<Earlier> = match repository.newest_restores(estimate::REPORTS).await {
        Ok(earlier) => earlier,
        // An estimate is no reason to fail.
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "reports cannot be read"
            );
            Vec::new()
        }
    };
    Rates::measured(&earlier)
}

/// What an archive holds, as far as a restore asks.
pub(super) struct Archive<'a> {
    repository: &'a Repository,
    branches: Vec<Branch>,
    pub(super) history: History,
    snapshots: Vec<Manifest>,
    sets: Vec<SnapshotSet>,
    snapshot: Option<&'a SnapshotId>,
    skip: &'a crate::gtid::GtidSet,
}

impl<'a> Archive<'a> {
    pub(super) async fn read(
        repository: &'a Repository,
        asked: &'a Asked<'a>,
    ) -> Result<Self, RestoreError> {
        let branches = repository.branches().await?;
        let branch = match asked.branch {
            None => branches.last().map_or(BranchNumber(1), |b| b.branch),
            Some(asked) if branches.iter().any(|b| b.branch == asked) => asked,
            Some(asked) => return Err(RestoreError::UnknownBranch(asked)),
        };
        let history = repository.history_among(&branches, branch).await?;
        // What an object holds that cannot be read nobody knows: the end of the log may be there.
        if let Some(problem) = history
            .problems
            .iter()
            .find(|problem| matches!(problem, Problem::Unreadable { .. }))
        {
            return Err(RestoreError::Damaged {
                problem: problem.to_string(),
            });
        }
        let snapshots = usable(repository.snapshots().await?, asked.snapshot)?;
        Ok(Self {
            repository,
            sets: sets(&history, &snapshots),
            branches,
            history,
            snapshots,
            snapshot: asked.snapshot,
            skip: &asked.skip,
        })
    }

    const fn inputs<'b>(&'b self, rates: &'b Rates) -> Inputs<'b> {
        Inputs {
            history: &self.history,
            snapshots: self.snapshots.as_slice(),
            snapshot: self.snapshot,
            skip: self.skip,
            rates,
        }
    }

    /// The cut of a target, and the way to it.
    pub(super) async fn way<'b>(
        &'b self,
        target: &Target,
        rates: &'b Rates,
    ) -> Result<(Cut, Way<'b>), RestoreError> {
        let cut = cut(self.repository, &self.history, &self.sets, target).await?;
        let way = find_way(&cut.set, &self.inputs(rates))?;
        Ok((cut, way))
    }

    /// The error with the nearest targets that can really be had, if it is of that kind.
    pub(super) async fn with_nearest(
        &self,
        asked: &Asked<'_>,
        rates: &Rates,
        error: RestoreError,
    ) -> RestoreError {
        let why = match &error {
            RestoreError::Target { error, .. } => NoWay::Target(error),
            RestoreError::Plan {
                error: PlanError::Gap { missing, .. },
                ..
            } => NoWay::Gap(missing),
            RestoreError::Plan {
                error: PlanError::NoSnapshot { .. },
                ..
            } => NoWay::NoSnapshot,
            _ => return error,
        };
        let Candidates { before, after } =
            candidates(&self.history, &self.sets, &asked.target, &why);
        let nearest = Box::new(Nearest {
            before: self.first_good(before, rates).await,
            after: self.first_good(after, rates).await,
        });
        match error {
            RestoreError::Target { error, .. } => RestoreError::Target { error, nearest },
            RestoreError::Plan { error, .. } => RestoreError::Plan { error, nearest },
            other => other,
        }
    }

    /// The first of the offers to which there is a way.
    async fn first_good(&self, offers: Vec<Offer>, rates: &Rates) -> Option<Offer> {
        for offer in offers {
            let leads = match offer.branch {
                None => self.way(&offer.target, rates).await.is_ok(),
                Some(branch) => self.leads_elsewhere(branch, &offer.target, rates).await,
            };
            if leads {
                return Some(offer);
            }
        }
        None
    }

    /// Whether another history leads to a target.
    async fn leads_elsewhere(&self, branch: BranchNumber, target: &Target, rates: &Rates) -> bool {
        let leads = async {
            let repository = self.repository;
            let history = repository.history_among(&self.branches, branch).await?;
            let sets = sets(&history, &self.snapshots);
            let cut = cut(repository, &history, &sets, target).await?;
            let inputs = Inputs {
                history: &history,
                ..self.inputs(rates)
            };
            find_way(&cut.set, &inputs)?;
            Ok::<_, RestoreError>(())
        };
        leads.await.is_ok()
    }
}

/// The states of a history that snapshots are.
fn sets(history: &History, snapshots: &[Manifest]) -> Vec<SnapshotSet> {
    snapshots
        .iter()
        .filter(|manifest| history.admits(&manifest.gtid_executed, manifest.started))
        .map(|manifest| SnapshotSet {
            set: manifest.gtid_executed.clone(),
            started: manifest.started,
            finished: manifest.finished,
        })
        .collect()
}

/// The cut of a target in a history.
async fn cut(
    repository: &Repository,
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
) -> Result<Cut, RestoreError> {
    let lookup: Lookup = target::lookup(history, snapshots, target)?;
    let lines = read_lines(repository, history, &lookup.members).await?;
    Ok(target::resolve(
        history, snapshots, target, &lookup, &lines,
    )?)
}

/// The transactions of members of a history.
pub(super) async fn read_lines(
    repository: &Repository,
    history: &History,
    members: &[usize],
) -> Result<Lines, RestoreError> {
    let reads = members.iter().filter_map(|at| {
        let member = history.members.get(*at)?;
        Some(async move {
            let lines = repository.read_transactions(&member.stored).await?;
            Ok::<_, RestoreError>((*at, member.own_lines(lines)))
        })
    });
    let lines: BTreeMap<_, _> = futures_util::stream::iter(reads)
        .buffered(READERS)
        .try_collect()
        .await?;
    Ok(lines)
}

/// Those that are states of the whole server. One that was taken with a filter is loaded only if it
/// is named: what it lacks nobody would miss before it is too late.
fn usable(
    snapshots: Vec<Manifest>,
    named: Option<&SnapshotId>,
) -> Result<Vec<Manifest>, PlanError> {
    let newest = snapshots.last().map(|manifest| manifest.id.clone());
    let usable: Vec<Manifest> = snapshots
        .into_iter()
        .filter(|manifest| manifest.filter.is_everything() || Some(&manifest.id) == named)
        .collect();
    match newest {
        Some(newest) if usable.is_empty() => Err(PlanError::OnlyPartial { newest }),
        _ => Ok(usable),
    }
}

/// Fails unless the plan is what was begun.
fn same_run(
    repository: &Repository,
    plan: &RestorePlan,
    journal: &Journal,
) -> Result<(), RestoreError> {
    let differs = checks::differences(
        journal,
        &WantedRun {
            archive: repository.identity().archive,
            server_uuid: plan.server.uuid,
            snapshot: &plan.snapshot.id,
            branch: plan.replay.branch,
            result: &plan.result,
        },
    );
    if differs.is_empty() {
        return Ok(());
    }
    let reasons = differs
        .into_iter()
        .map(|what| Reason {
            what: format!("what was begun on it is another restore: {what}"),
            remedy: format!("--wipe {} to begin anew", plan.server.address),
            class: Class::Refused,
        })
        .collect();
    Err(PlanError::Server {
        server: plan.server.address.clone(),
        reasons,
    }
    .into())
}

impl From<TargetError> for RestoreError {
    fn from(error: TargetError) -> Self {
        Self::Target {
            error,
            nearest: Box::default(),
        }
    }
}

impl From<PlanError> for RestoreError {
    fn from(error: PlanError) -> Self {
        Self::Plan {
            error,
            nearest: Box::default(),
        }
    }
}
