//! Where the archive's history goes on after a reseed, and whether a source is of it.
//!
//! A restored server that replaces a cluster begins a new history, and the old cluster may still
//! be there: it lacks nothing that the archive held at the fork, so by its GTIDs alone it could be
//! followed. What tells the two apart is what the reseed has written into the branch: the name of
//! the new group, which no history before it has, and the server that it goes on from. The
//! invariant: nothing of the history that was left gets into the new one.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::error::StreamError;
use super::upstream::{History, Source, SourceInfo, Upstream};
use crate::archive::identity::{Branch, last_reseed, reseed_since};
use crate::archive::layout::BranchNumber;
use crate::archive::repository::Repository;
use crate::clock::rfc3339;
use crate::error::{Class, Classified as _};
use crate::gtid::GtidSet;

/// What a reseed has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewHistory {
    /// Its number.
    pub branch: BranchNumber,
    /// When it was begun.
    pub created: DateTime<Utc>,
    /// Why.
    pub reason: String,
    /// The name of the group that it goes on in.
    pub group: Option<Uuid>,
    /// The server that it goes on from.
    pub server: Option<Uuid>,
}

impl From<&Branch> for NewHistory {
    fn from(branch: &Branch) -> Self {
        Self {
            branch: branch.branch,
            created: branch.created,
            reason: branch.reason.clone(),
            group: branch.group,
            server: branch.server,
        }
    }
}

impl fmt::Display for NewHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (created, reason) = (rfc3339(self.created), &self.reason);
        let branch = self.branch;
        write!(f, "branch {branch}, begun at {created} ({reason})")?;
        match (self.group, self.server) {
            (Some(group), _) => write!(f, ", which goes on in the group {group}"),
            (None, Some(server)) => write!(f, ", which goes on from the server {server}"),
            (None, None) => Ok(()),
        }
    }
}

/// Why a source is not of the history that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stranger {
    /// It is in another group.
    OtherGroup(Uuid),
    /// It is in no group, and another server.
    OtherServer(Uuid),
    /// It has transactions that the new history left behind.
    Lost(GtidSet),
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherGroup(group) => write!(f, "is in the group {group}"),
            Self::OtherServer(uuid) => write!(f, "is the server {uuid}, in no group"),
            Self::Lost(lost) => write!(f, "has what was left behind: {lost:#}"),
        }
    }
}

/// The reseed that the history of a stream comes from.
#[derive(Debug, Clone)]
pub(super) struct Home {
    history: NewHistory,
    fork: GtidSet,
    lost: GtidSet,
}

impl Home {
    /// That of a branch; `None` if no reseed lies between it and the first history.
    pub(super) fn of(branches: &[Branch], branch: BranchNumber) -> Option<Self> {
        let reseed = last_reseed(branches, branch)?;
        Some(Self {
            history: reseed.into(),
            fork: reseed.fork.clone(),
            lost: reseed.lost.clone(),
        })
    }

    /// Whether a server is in the group, or the server, in which the history goes on.
    pub(super) fn names(&self, info: &SourceInfo) -> bool {
        match self.history.group {
            Some(group) if info.group.is_some() => info.group == Some(group),
            _ => self.history.server == Some(info.uuid),
        }
    }

    /// Fails if a source is not of this history, of which the archive has `have`.
    ///
    /// # Errors
    ///
    /// [`StreamError::Stranger`]; what asking fails with.
    pub(super) async fn check(
        &self,
        source: &mut dyn Source,
        have: &GtidSet,
    ) -> Result<(), StreamError> {
        let there = source.history().await?;
        match self.judge(source.info(), have, &there) {
            None => Ok(()),
            Some(why) => Err(StreamError::Stranger {
                server: source.info().name.clone(),
                why,
                history: Box::new(self.history.clone()),
            }),
        }
    }

    /// The server to follow: `source` if it is of this history, else one that is, if there is any
    /// among all that are known.
    ///
    /// # Errors
    ///
    /// [`StreamError::Stranger`] if there is none; what asking fails with.
    pub(super) async fn settle(
        &self,
        mut source: Box<dyn Source>,
        upstream: &mut dyn Upstream,
        have: &GtidSet,
    ) -> Result<Box<dyn Source>, StreamError> {
        let error = match self.check(&mut *source, have).await {
            Ok(()) => return Ok(source),
            Err(error @ StreamError::Stranger { .. }) => error,
            Err(error) => return Err(error),
        };
        match upstream
            .find_that(&|info: &SourceInfo| self.names(info))
            .await?
        {
            Some(mut other) => self.check(&mut *other, have).await.map(|()| other),
            None => Err(error),
        }
    }

    fn judge(&self, info: &SourceInfo, have: &GtidSet, there: &History) -> Option<Stranger> {
        let committed = there.executed.union(&there.pending.owned);
        let known = committed.union(&there.pending.queued);
        // What the archive has of this history alone.
        let own = have.subtract(&self.fork);
        let stranger = match info.group {
            Some(other) => Stranger::OtherGroup(other),
            None => Stranger::OtherServer(info.uuid),
        };
        let Some(group) = self.history.group else {
            let is_known = self.names(info) || !own.is_disjoint(&known);
            return (!is_known).then_some(stranger);
        };
        // All that comes after the fork has the new group's name: what was lost never comes again,
        // but for what is in the log. (A channel of the old group may still tell what it received.)
        let lost = committed.intersect(&self.lost).subtract(&own);
        if !lost.is_empty() {
            return Some(Stranger::Lost(lost));
        }
        // Whoever has a transaction of the group has it from there, wherever it is now: in another
        // cluster of a ClusterSet, in a group that was formed anew, or alone.
        let is_known = self.names(info)
            || known.tsids().any(|tsid| tsid.uuid == group)
            || info.group.is_none() && !own.is_disjoint(&known);
        (!is_known).then_some(stranger)
    }
}

/// Whether the newest history is `branch`, or has come from it without a reseed in between: then
/// nothing is left that a decision for `branch` would give up, and one that was left in a
/// configuration decides nothing anew.
pub(super) fn goes_on(branches: &[Branch], newest: BranchNumber, branch: BranchNumber) -> bool {
    let mut at = newest;
    while at > branch {
        let Some(found) = branches.iter().find(|found| found.branch == at) else {
            return false;
        };
        match found.parent {
            Some(parent) if parent == branch => return !found.is_reseed(),
            Some(parent) if parent < at => at = parent,
            _ => return false,
        }
    }
    at == branch
}

/// Why a stream on `own` has really ended, if a reseed has begun a new history meanwhile: what it
/// meets then (a newer claim, a server that lacks or has other transactions) follows from that.
pub(super) async fn explain(
    repository: &Repository,
    own: BranchNumber,
    error: StreamError,
) -> StreamError {
    if !matches!(error.class(), Class::Fenced | Class::Refused | Class::Gap) {
        return error;
    }
    // Who cannot read the histories says at least what has happened.
    let Ok(branches) = repository.branches().await else {
        return error;
    };
    match reseed_since(&branches, own) {
        Some(reseed) => StreamError::LeftBehind {
            own,
            history: Box::new(reseed.into()),
        },
        None => error,
    }
}

#[cfg(test)]
mod tests;
