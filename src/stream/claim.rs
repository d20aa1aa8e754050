//! Taking the archive for one streamer.
//!
//! A claim is an object put if absent under the next number, so of two streamers that try at once
//! one wins. Whatever was acknowledged under an older claim was there before the new claim became
//! visible (an uploader looks for newer claims after each write), so the log is read again after
//! the claim and the new epoch goes on from its end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::error::StreamError;
use crate::archive::catalog::{Chain, Problem};
use crate::archive::hash::Sha256;
use crate::archive::history::Member;
use crate::archive::identity::Claim;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::IndexedTransaction;
use crate::gtid::GtidSet;
use crate::storage::StorageError;

/// Who claims.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// `server_uuid` of the source.
    pub source: Uuid,
    /// Its address.
    pub address: String,
    /// The host that we run on.
    pub host: String,
    /// The present moment.
    pub now: DateTime<Utc>,
    /// The UUID under which its dump will be registered at the source.
    pub replica_uuid: Uuid,
    /// What is accepted as lost.
    pub accepted_gap: GtidSet,
}

/// What a claim gave.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The claim, as it was stored.
    pub claim: Claim,
    /// Every GTID that the archive holds, or that was before it began.
    pub start: GtidSet,
    /// The digest of the object that the first segment goes on from, if there is one.
    pub previous: Option<Sha256>,
    /// Its place.
    pub continues: Option<(Epoch, u64)>,
    /// What is wrong with the log before the place that it goes on from.
    pub problems: Vec<String>,
    /// The last transactions of the log, one of each origin among those of its last segment.
    pub latest: Vec<IndexedTransaction>,
}

/// Claims the archive for `branch`. `origin` is where a log without segments begins. `None` if
/// another streamer was quicker.
///
/// # Errors
///
/// [`StreamError::Damaged`] if the end of the log has problems; the store's errors.
pub async fn acquire(
    repository: &Repository,
    branch: BranchNumber,
    origin: &GtidSet,
    claimant: &Claimant,
) -> Result<Option<Claimed>, StreamError> {
    let newest = repository.newest_epoch(None).await?;
    let epoch = Epoch(newest.map_or(0, |epoch| epoch.0) + 1);
    let (chain, _) = sound_chain(repository, branch).await?;
    let claim = Claim {
        epoch,
        branch,
        source: claimant.source,
        address: claimant.address.clone(),
        start: resume(&chain, origin),
        host: claimant.host.clone(),
        process: std::process::id(),
        replica_uuid: Some(claimant.replica_uuid),
        fence: false,
        accepted_gap: claimant.accepted_gap.clone(),
        claimed: claimant.now,
    };
    match repository.put_claim(&claim).await {
        Ok(()) => after_claim(repository, branch, origin, claim)
            .await
            .map(Some),
        Err(ArchiveError::Storage(StorageError::AlreadyExists { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Fails if a newer claim exists than `own`.
///
/// # Errors
///
/// [`StreamError::Fenced`]; the store's errors.
pub(super) async fn check_fence(repository: &Repository, own: Epoch) -> Result<(), StreamError> {
    match repository.newest_epoch(Some(own)).await? {
        Some(newer) if newer > own => Err(StreamError::Fenced {
            own: own.0,
            newer: newer.0,
        }),
        _ => Ok(()),
    }
}

async fn after_claim(
    repository: &Repository,
    branch: BranchNumber,
    origin: &GtidSet,
    claim: Claim,
) -> Result<Claimed, StreamError> {
    let (chain, problems) = sound_chain(repository, branch).await?;
    let resume_at = chain.resume_point();
    let previous = match resume_at {
        None => None,
        Some(stored) => Some(repository.link_of(stored).await?),
    };
    let full = chain.segments.iter().rev();
    let latest = match full.clone().find(|stored| stored.index.transactions > 0) {
        Some(stored) => latest(repository.read_transactions(stored).await?),
        None => latest(shared_lines(repository, branch).await?),
    };
    Ok(Claimed {
        start: resume(&chain, origin),
        latest,
        problems,
        previous,
        continues: resume_at.map(|stored| (stored.name.epoch, stored.name.last)),
        claim,
    })
}

/// The last lines that a branch without transactions has from its parents.
async fn shared_lines(
    repository: &Repository,
    branch: BranchNumber,
) -> Result<Vec<IndexedTransaction>, StreamError> {
    // An archive whose first claim this is has no need of a branch object.
    let history = match repository.history(branch).await {
        Err(ArchiveError::NoBranch { .. }) => return Ok(Vec::new()),
        history => history?,
    };
    // What an overtaken streamer has put to the branch itself since the log was read is not there.
    let is_shared = |member: &&Member| member.stored.name.branch != branch;
    let mut shared = history.members.iter().rev().filter(is_shared);
    match shared.find(|member| member.transactions > 0) {
        Some(member) => {
            let lines = repository.read_transactions(&member.stored).await?;
            Ok(member.own_lines(lines))
        }
        None => Ok(Vec::new()),
    }
}

/// The last transaction of each origin.
fn latest(lines: Vec<IndexedTransaction>) -> Vec<IndexedTransaction> {
    let mut latest = BTreeMap::new();
    for line in lines {
        latest.insert(line.gtid.tsid.clone(), line);
    }
    latest.into_values().collect()
}

/// The set to go on from: what the last whole transaction in the log left, or the origin.
fn resume(chain: &Chain, origin: &GtidSet) -> GtidSet {
    chain
        .resume_point()
        .map_or_else(|| origin.clone(), |stored| stored.index.after())
}

/// The chain, whose end can be gone on from, and what is wrong with it further back.
///
/// An old segment that is lost is a reason to tell, not to stop: every transaction that is not
/// archived meanwhile would be lost as well. A segment at the end whose index cannot be read is
/// left behind, and what it held is asked for again.
async fn sound_chain(
    repository: &Repository,
    branch: BranchNumber,
) -> Result<(Chain, Vec<String>), StreamError> {
    let chain = repository.chain(branch).await?;
    let end = chain.resume_point().map(|stored| &stored.name);
    let is_end = |segment: &str| end.is_some_and(|end| end.key() == segment);
    let at_end = chain.problems.iter().find(|problem| match problem {
        Problem::Conflict { epoch, sequence } => {
            end.is_none_or(|end| (*epoch, *sequence) >= (end.epoch, end.last))
        }
        Problem::Discontinuity { segment, .. } | Problem::BrokenLink { segment } => is_end(segment),
        Problem::MissingSegments { .. } | Problem::Gap { .. } | Problem::Unreadable { .. } => false,
    });
    if let Some(problem) = at_end {
        return Err(StreamError::Damaged {
            problem: problem.to_string(),
        });
    }
    let problems = chain.problems.iter().map(ToString::to_string).collect();
    Ok((chain, problems))
}
