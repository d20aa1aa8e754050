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
use crate::archive::catalog::Chain;
use crate::archive::hash::Sha256;
use crate::archive::history::Member;
use crate::archive::identity::Claim;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::IndexedTransaction;
use crate::gtid::GtidSet;
use crate::storage::StorageError;

/// How often a lost race for a number is tried again.
const RACES: u32 = 20;

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
    /// The last transactions of the log, one of each origin among those of its last segment.
    pub latest: Vec<IndexedTransaction>,
}

/// Claims the archive for `branch`. `origin` is where a log without segments begins.
///
/// # Errors
///
/// [`StreamError::Damaged`] if the log has problems; the store's errors.
pub async fn acquire(
    repository: &Repository,
    branch: BranchNumber,
    origin: &GtidSet,
    claimant: &Claimant,
) -> Result<Claimed, StreamError> {
    let mut newest = repository.newest_epoch(None).await?;
    for _ in 0..RACES {
        let epoch = Epoch(newest.map_or(0, |epoch| epoch.0) + 1);
        let chain = whole_chain(repository, branch).await?;
        let claim = Claim {
            epoch,
            branch,
            source: claimant.source,
            address: claimant.address.clone(),
            start: resume(&chain, origin),
            host: claimant.host.clone(),
            process: std::process::id(),
            replica_uuid: Some(claimant.replica_uuid),
            accepted_gap: claimant.accepted_gap.clone(),
            claimed: claimant.now,
        };
        match repository.put_claim(&claim).await {
            Ok(()) => return after_claim(repository, branch, origin, claim).await,
            Err(ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {
                newest = repository.newest_epoch(Some(epoch)).await?.max(Some(epoch));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(StreamError::Fenced {
        own: 0,
        newer: newest.map_or(0, |epoch| epoch.0),
    })
}

async fn after_claim(
    repository: &Repository,
    branch: BranchNumber,
    origin: &GtidSet,
    claim: Claim,
) -> Result<Claimed, StreamError> {
    let chain = whole_chain(repository, branch).await?;
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

async fn whole_chain(repository: &Repository, branch: BranchNumber) -> Result<Chain, StreamError> {
    let chain = repository.chain(branch).await?;
    match chain.problems.first() {
        None => Ok(chain),
        Some(problem) => Err(StreamError::Damaged {
            problem: problem.to_string(),
        }),
    }
}
