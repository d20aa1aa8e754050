//! Histories: their list, a new one, and one with all that it has from its parents.

use std::collections::{BTreeMap, BTreeSet};

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
    /// They are numbered without holes, and a claim names one that is there: an object that got lost
    /// must not make an older history the one that goes on.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::LostBranch`]; what reading fails with.
    pub async fn branches(&self) -> Result<Vec<Branch>, ArchiveError> {
        // Asked for first: a branch is put before the claim that names it.
        let claimed = match self.newest_epoch(None).await? {
            Some(epoch) => self.claim(epoch).await?.branch.0,
            None => 0,
        };
        let objects = list_all(&*self.storage, layout::BRANCHES, None).await?;
        let numbers: BTreeSet<u32> = objects
            .iter()
            .filter_map(|object| layout::parse_branch(&object.key))
            .map(|branch| branch.0)
            .collect();
        let greatest = numbers.last().copied().unwrap_or(0).max(claimed);
        if let Some(lost) = (1..=greatest).find(|number| !numbers.contains(number)) {
            return Err(ArchiveError::LostBranch {
                key: layout::branch(BranchNumber(lost)),
            });
        }
        let numbers = numbers.into_iter();
        self.get_all(numbers.map(|number| layout::branch(BranchNumber(number))))
            .await
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
        self.history_among(&self.branches().await?, branch).await
    }

    /// The same for who has asked for [`Repository::branches`] already.
    ///
    /// # Errors
    ///
    /// As [`Repository::history`].
    pub async fn history_among(
        &self,
        branches: &[Branch],
        branch: BranchNumber,
    ) -> Result<History, ArchiveError> {
        let branches: BTreeMap<BranchNumber, &Branch> = branches
            .iter()
            .map(|branch| (branch.branch, branch))
            .collect();
        let mut lineage = Vec::new();
        let mut next = Some(branch);
        while let Some(number) = next {
            let branch = *branches
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::archive::testing::{Writer, at};
    use crate::error::{Class, Classified as _};
    use crate::storage::{MemoryStorage, Storage};

    #[tokio::test]
    async fn a_history_that_is_missing_makes_no_older_one_the_newest() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut writer = Writer::new(Arc::clone(&storage)).await;
        writer.segment(1).await;
        let repository = writer.repository.clone();
        let fork = GtidSet::new();
        let lost = writer.before.clone();
        let second = repository
            .new_branch(BranchNumber(1), fork, lost, "lost", at(9))
            .await
            .expect("the first decision");
        assert_eq!(repository.newest_branch().await.expect("whole"), second);
        writer.branch = second;
        writer.claim().await;
        for lost in [second, BranchNumber(1)] {
            let key = layout::branch(lost);
            let object = storage.get(&key).await.expect("there");
            storage.delete(&key).await.expect("deleted");
            let error = repository.branches().await.expect_err("it is missing");
            assert_eq!(error.to_string(), format!("{key} is missing"));
            assert_eq!(error.class(), Class::Integrity);
            let error = repository.history(lost).await.expect_err("it is missing");
            assert_eq!(error.class(), Class::Integrity);
            storage.put_if_absent(&key, object).await.expect("put back");
        }
        assert_eq!(repository.branches().await.expect("whole").len(), 2);
    }
}
