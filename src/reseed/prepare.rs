//! Asks the servers and the archive, and plans. Nothing is changed.

use std::collections::BTreeSet;

use serde::Deserialize;
use uuid::Uuid;

use super::checks::Other;
use super::error::ReseedError;
use super::metadata::Metadata;
use super::plan::{Begun, Inputs, Past, ReseedPlan};
use super::report::ReseedRequest;
use super::state::ServerState;
use super::step::RecoveryAccount;
use crate::archive::identity::Branch;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::repository::{ArchiveError, Repository};
use crate::config::Secret;
use crate::error::with_causes;
use crate::gtid::GtidSet;
use crate::mysql::discover::login_for;
use crate::mysql::error::MysqlError;
use crate::mysql::server_url::{HostPort, ServerUrl};
use crate::mysql::session::Session;
use crate::observe::phase::PhaseClock;

/// How many reports of restores are looked through.
const REPORTS: usize = 50;

/// A plan with what the run needs besides.
#[derive(Debug)]
pub struct Prepared {
    /// The plan, as it is shown.
    pub plan: ReseedPlan,
    pub(super) repository: Repository,
    pub(super) primary: ServerUrl,
    pub(super) members: Vec<ServerUrl>,
    /// Servers of the old group that answered.
    pub(super) others: Vec<ServerUrl>,
    pub(super) password: Option<Secret>,
    pub(super) held: GtidSet,
    pub(super) clock: PhaseClock,
}

/// What the report of a restore tells that matters here.
#[derive(Debug, Deserialize)]
struct Restored {
    server_uuid: Uuid,
    branch: BranchNumber,
    gtid_executed: GtidSet,
    #[serde(default)]
    open_with: Vec<String>,
    finished: String,
}

/// Asks and plans.
///
/// # Errors
///
/// [`ReseedError::Refused`] with every reason; what a question fails with.
pub async fn prepare(
    repository: Repository,
    request: ReseedRequest,
) -> Result<Prepared, ReseedError> {
    let mut clock = PhaseClock::start();
    let (primary, metadata) = ask_primary(&request.primary).await?;
    let mut members = Vec::new();
    for url in &request.members {
        members.push(ask(url).await?);
    }
    let past = past(&repository, &primary, request.branch).await?;
    let (others, other_urls) = others(&repository, &primary, &members, &request).await?;
    let account = RecoveryAccount {
        user: request.recovery_user.clone(),
        given: request.recovery_password.is_some(),
    };
    let plan = ReseedPlan::compute(&Inputs {
        primary: &primary,
        members: &members,
        others: &others,
        wishes: &request.wishes,
        past: &past,
        metadata: metadata.as_ref(),
        account: &account,
        fresh: Uuid::new_v4(),
    })
    .map_err(|reasons| ReseedError::Refused {
        primary: request.primary.address(),
        reasons,
    })?;
    clock.end("plan", 0);
    Ok(Prepared {
        plan,
        repository,
        primary: request.primary,
        members: request.members,
        others: other_urls,
        password: request.recovery_password,
        held: past.held,
        clock,
    })
}

/// The restored server, with the metadata that it has brought.
async fn ask_primary(url: &ServerUrl) -> Result<(ServerState, Option<Metadata>), MysqlError> {
    let mut session = Session::connect(url).await?;
    let state = ServerState::load(&mut session).await?;
    let metadata = Metadata::load(&mut session).await?;
    session.close().await;
    Ok((state, metadata))
}

async fn ask(url: &ServerUrl) -> Result<ServerState, MysqlError> {
    let mut session = Session::connect(url).await?;
    let state = ServerState::load(&mut session).await?;
    session.close().await;
    Ok(state)
}

/// The servers of the old group that were not named: the one that the archive was fed from last, those
/// that the restored metadata of InnoDB Cluster tell of, those that the operator knows, and whoever one of
/// all these sees in its group.
async fn others(
    repository: &Repository,
    primary: &ServerState,
    members: &[ServerState],
    request: &ReseedRequest,
) -> Result<(Vec<Other>, Vec<ServerUrl>), ReseedError> {
    let named: Vec<&ServerState> = std::iter::once(primary).chain(members).collect();
    let seen_by = |state: &ServerState| {
        let seen = state.group.members.iter();
        seen.map(|member| member.address.clone())
            .collect::<Vec<_>>()
    };
    let mut waiting: Vec<HostPort> = named.iter().flat_map(|state| seen_by(state)).collect();
    waiting.extend(
        primary
            .instances
            .iter()
            .filter_map(|text| text.parse().ok()),
    );
    waiting.extend(request.known.iter().map(ServerUrl::address));
    waiting.extend(last_source(repository).await?);
    let mut met: BTreeSet<HostPort> = named
        .iter()
        .flat_map(|state| [state.known_as.clone(), state.facts.address.clone()])
        .collect();
    let mut uuids: BTreeSet<Uuid> = named.iter().map(|state| state.facts.server_uuid).collect();
    let mut found = Vec::new();
    let mut urls = Vec::new();
    while let Some(address) = waiting.pop() {
        if !met.insert(address.clone()) {
            continue;
        }
        let url = login_for(&address, &request.primary, &request.known);
        match ask(&url).await {
            Ok(state) => {
                met.insert(state.known_as.clone());
                // One may be known under several names.
                if uuids.insert(state.facts.server_uuid) {
                    waiting.extend(seen_by(&state));
                    urls.push(url);
                    found.push(Other::Reached(Box::new(state)));
                }
            }
            Err(error) => found.push(Other::Silent {
                why: with_causes(&error),
                address,
            }),
        }
    }
    Ok((found, urls))
}

/// Where the archive was fed from last.
async fn last_source(repository: &Repository) -> Result<Option<HostPort>, ReseedError> {
    let mut epoch = repository.newest_epoch(None).await?;
    while let Some(number) = epoch {
        let claim = repository.claim(number).await?;
        if !claim.fence {
            return Ok(claim.address.parse().ok());
        }
        epoch = number
            .0
            .checked_sub(1)
            .filter(|before| *before > 0)
            .map(Epoch);
    }
    Ok(None)
}

/// What the archive says of the restored server.
async fn past(
    repository: &Repository,
    primary: &ServerState,
    branch: Option<BranchNumber>,
) -> Result<Past, ReseedError> {
    let branches = repository.branches().await?;
    let newest = branches.last().map_or(BranchNumber(1), |b| b.branch);
    let uuid = primary.facts.server_uuid;
    let begun = branches
        .last()
        .filter(|branch| branch.server == Some(uuid))
        .and_then(begun);
    let reports: Vec<Restored> = repository.newest_restores(REPORTS).await?;
    let executed = &primary.facts.gtid_executed;
    let restored = reports
        .into_iter()
        .find(|report| report.server_uuid == uuid && report.gtid_executed.is_subset(executed));
    let parent = match (&begun, branch, &restored) {
        (Some(_), ..) => branches.last().and_then(|b| b.parent).unwrap_or(newest),
        (None, Some(asked), _) => asked,
        (None, None, Some(restored)) => restored.branch,
        (None, None, None) => newest,
    };
    let held = held(repository, &branches, parent).await?;
    let reused = match (&restored, &begun) {
        (Some(restored), None) => executed.subtract(&restored.gtid_executed).intersect(&held),
        _ => GtidSet::new(),
    };
    Ok(Past {
        parent,
        held,
        reused,
        next: BranchNumber(newest.0.saturating_add(1)),
        begun,
        open_with: restored
            .as_ref()
            .map_or_else(Vec::new, |restored| restored.open_with.clone()),
        restored: restored.map(|restored| {
            format!(
                "restored {} to {} of branch {}",
                restored.finished,
                super::checks::transactions(&restored.gtid_executed),
                restored.branch.0
            )
        }),
    })
}

fn begun(branch: &Branch) -> Option<Begun> {
    Some(Begun {
        number: branch.branch,
        group: branch.group?,
        fork: branch.fork.clone(),
        lost: branch.lost.clone(),
        reason: branch.reason.clone(),
    })
}

/// All that a history holds, snapshots included.
async fn held(
    repository: &Repository,
    branches: &[Branch],
    branch: BranchNumber,
) -> Result<GtidSet, ReseedError> {
    let mut held = GtidSet::new();
    match repository.history_among(branches, branch).await {
        Ok(history) => {
            if let Some(last) = history.members.last() {
                held = last.after();
            }
            for manifest in repository.snapshots().await? {
                if history.admits(&manifest.gtid_executed, manifest.started) {
                    held.extend_from(&manifest.gtid_executed);
                }
            }
        }
        // An archive that holds snapshots and no log has no need of a branch object.
        Err(ArchiveError::NoBranch { .. }) if branches.is_empty() => {
            for manifest in repository.snapshots().await? {
                held.extend_from(&manifest.gtid_executed);
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(held)
}
