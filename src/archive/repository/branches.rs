//! Histories: their list, a new one, and one with all that it has from its parents.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{ArchiveError, Repository, get_json, put_json};
use crate::archive::history::{History, Lineage};
use crate::archive::identity::Branch;
use crate::archive::layout::{self, BranchNumber};
use crate::gtid::GtidSet;
use crate::storage::{StorageError, list_all};

impl Repository {
    /// Every history, by number.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn branches(&self) -> Result<Vec<Branch>, ArchiveError> {
        let objects = list_all(&*self.storage, layout::BRANCHES, None).await?;
        let keys = objects
            .into_iter()
            .map(|object| object.key)
            .filter(|key| layout::parse_branch(key).is_some());
        self.get_all(keys).await
    }

    /// The newest history, which is the one that goes on.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn newest_branch(&self) -> Result<BranchNumber, ArchiveError> {
        let branches = self.branches().await?;
        Ok(branches
            .last()
            .map_or(BranchNumber(1), |branch| branch.branch))
    }

    /// Starts a history that shares `fork` with its parent and does not have `lost`. Two that
    /// decide the same at once start one.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; `AlreadyExists` if another one was started meanwhile that is not this.
    pub async fn new_branch(
        &self,
        parent: BranchNumber,
        fork: GtidSet,
        lost: GtidSet,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<BranchNumber, ArchiveError> {
        let newest = self.newest_branch().await?;
        let branch = Branch {
            branch: BranchNumber(newest.0.saturating_add(1)),
            parent: Some(parent),
            fork,
            lost,
            reason: reason.to_owned(),
            created: now,
        };
        // Decided a moment ago by another one, as the newest one says.
        let same = |other: &Branch| {
            (other.parent, &other.fork, &other.lost) == (branch.parent, &branch.fork, &branch.lost)
        };
        let key = layout::branch(newest);
        if newest != parent {
            let other: Branch = get_json(&*self.storage, &key).await?;
            if same(&other) {
                return Ok(newest);
            }
        }
        let key = layout::branch(branch.branch);
        match put_json(&*self.storage, &key, &branch).await {
            Ok(()) => Ok(branch.branch),
            Err(error @ ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {
                let other: Branch = get_json(&*self.storage, &key).await?;
                if same(&other) {
                    Ok(branch.branch)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A branch with all that it has from its parents.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::NoBranch`] if it or one of them is not there.
    pub async fn history(&self, branch: BranchNumber) -> Result<History, ArchiveError> {
        let branches: BTreeMap<BranchNumber, Branch> = self
            .branches()
            .await?
            .into_iter()
            .map(|branch| (branch.branch, branch))
            .collect();
        let mut lineage = Vec::new();
        let mut next = Some(branch);
        while let Some(number) = next {
            let branch = branches
                .get(&number)
                .ok_or(ArchiveError::NoBranch { branch: number })?;
            // A parent is older; anything else would go round in circles.
            next = branch.parent.filter(|parent| *parent < number);
            lineage.push(Lineage {
                branch: branch.clone(),
                chain: self.chain(number).await?,
            });
        }
        lineage.reverse();
        let mut lines = BTreeMap::new();
        for stored in History::split_segments(&lineage) {
            lines.insert(stored.name.key(), self.read_transactions(stored).await?);
        }
        Ok(History::compute(lineage, &lines))
    }
}
