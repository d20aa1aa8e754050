//! Histories: their list, a new one, and one with all that it has from its parents.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound as _, Utc};
use uuid::Uuid;

use super::{ArchiveError, Repository, get_json, put_json};
use crate::archive::history::{History, Lineage};
use crate::archive::identity::{Branch, Claim, NewBranch};
use crate::archive::layout::{self, BranchNumber, Epoch};
use crate::gtid::GtidSet;
use crate::storage::{StorageError, list_all};

/// In whose name older claims are ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fencer {
    /// `server_uuid` of the server that the new history goes on from.
    pub source: Uuid,
    /// Its address.
    pub address: String,
    /// The host that we run on.
    pub host: String,
    /// The present moment.
    pub now: DateTime<Utc>,
}

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

    /// Starts a history. Two that decide the same at once, or one after the other while no other
    /// history is begun, start one; what is given back is the one that is there.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; `AlreadyExists` if another one was started meanwhile that is not this.
    pub async fn new_branch(
        &self,
        new: NewBranch,
        now: DateTime<Utc>,
    ) -> Result<Branch, ArchiveError> {
        let newest = self.newest_branch().await?;
        // Decided a moment ago by another one, as the newest one says.
        if newest != new.parent {
            let other: Branch = get_json(&*self.storage, &layout::branch(newest)).await?;
            if new.is(&other) {
                return Ok(other);
            }
        }
        let branch = new
            .clone()
            // As it is stored, and read by the next one.
            .numbered(
                BranchNumber(newest.0.saturating_add(1)),
                now.trunc_subsecs(6),
            );
        let key = layout::branch(branch.branch);
        match put_json(&*self.storage, &key, &branch).await {
            Ok(()) => Ok(branch),
            Err(error @ ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {
                let other: Branch = get_json(&*self.storage, &key).await?;
                if new.is(&other) {
                    Ok(other)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Ends every claim on a history older than `branch`, by one on this that no streamer holds: whoever
    /// writes to an older one stops at its next write. Gives that claim's number; `None` if the
    /// newest claim is on this history already, or on a newer one, and nothing was put.
    ///
    /// The branch must have been put before (see [`Repository::branches`]).
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn fence_for(
        &self,
        branch: &Branch,
        by: &Fencer,
    ) -> Result<Option<Epoch>, ArchiveError> {
        loop {
            let newest = self.newest_epoch(None).await?;
            if let Some(epoch) = newest
                && self.claim(epoch).await?.branch >= branch.branch
            {
                return Ok(None);
            }
            let epoch = Epoch(newest.map_or(0, |epoch| epoch.0) + 1);
            let claim = Claim {
                epoch,
                branch: branch.branch,
                source: by.source,
                address: by.address.clone(),
                start: branch.fork.clone(),
                host: by.host.clone(),
                process: std::process::id(),
                replica_uuid: None,
                fence: true,
                accepted_gap: GtidSet::new(),
                claimed: by.now,
            };
            match self.put_claim(&claim).await {
                Ok(()) => return Ok(Some(epoch)),
                // Another claim was quicker; or this one was put and the answer lost.
                Err(ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {}
                Err(error) => return Err(error),
            }
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
    use crate::archive::identity::{last_reseed, reseed_since};
    use crate::archive::testing::{Writer, at, set};
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
            .new_branch(
                NewBranch::failover(BranchNumber(1), fork, lost, "lost"),
                at(9),
            )
            .await
            .expect("the first decision")
            .branch;
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

    const GROUP: Uuid = Uuid::from_u128(0xBB);
    const SERVER: Uuid = Uuid::from_u128(0xCC);

    fn reseed(parent: u32, group: Uuid) -> NewBranch {
        NewBranch {
            group: Some(group),
            server: Some(SERVER),
            ..NewBranch::failover(BranchNumber(parent), set("1-2"), set("3"), "an accident")
        }
    }

    fn fencer() -> Fencer {
        Fencer {
            source: SERVER,
            address: "db4:3306".to_owned(),
            host: "ops".to_owned(),
            now: at(20),
        }
    }

    #[tokio::test]
    async fn a_reseed_that_is_run_again_begins_one_history_and_puts_one_fence() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut writer = Writer::new(storage).await;
        writer.segment(3).await;
        let repository = writer.repository.clone();
        // A failover that lost the same is another decision.
        let plain = NewBranch::failover(BranchNumber(1), set("1-2"), set("3"), "an accident");
        let wanted = reseed(1, GROUP);
        let branch = repository.new_branch(wanted.clone(), at(9)).await;
        let branch = branch.expect("the first run");
        assert_eq!((branch.branch, branch.created), (BranchNumber(2), at(9)));
        assert!(branch.is_reseed() && wanted.is(&branch) && !plain.is(&branch));
        assert!(!reseed(1, SERVER).is(&branch));
        let again = repository.new_branch(wanted, at(10)).await;
        assert_eq!(again.expect("the second run"), branch);
        let listed = repository.branches().await.expect("whole");
        assert_eq!(listed.last(), Some(&branch));

        let fence = repository.fence_for(&branch, &fencer()).await;
        assert_eq!(fence.expect("put"), Some(Epoch(2)));
        for _ in 0..2 {
            let again = repository.fence_for(&branch, &fencer()).await;
            assert_eq!(again.expect("there"), None);
        }
        let claim = repository.claim(Epoch(2)).await.expect("the fence");
        assert!(claim.fence && claim.replica_uuid.is_none());
        assert_eq!((claim.branch, claim.start), (branch.branch, set("1-2")));
        // An old streamer's standby that was quicker is fenced as well.
        writer.claim().await;
        let fence = repository.fence_for(&branch, &fencer()).await;
        assert_eq!(fence.expect("put"), Some(Epoch(4)));
        // A streamer of the new history needs no fence, and is not disturbed by one.
        writer.branch = branch.branch;
        writer.claim().await;
        let fence = repository.fence_for(&branch, &fencer()).await;
        assert_eq!(fence.expect("not needed"), None);
        assert!(!repository.claim(Epoch(5)).await.expect("its").fence);
    }

    #[test]
    fn the_reseed_of_a_history_is_found_through_its_parents() {
        let first = Branch {
            parent: None,
            ..reseed(1, GROUP).numbered(BranchNumber(1), at(0))
        };
        let first = Branch {
            group: None,
            server: None,
            ..first
        };
        let failover = |parent, number| {
            NewBranch::failover(BranchNumber(parent), set("1"), set("2"), "lost")
                .numbered(BranchNumber(number), at(1))
        };
        let reseeded = reseed(1, GROUP).numbered(BranchNumber(2), at(1));
        let last = |branches: &[Branch], of| {
            last_reseed(branches, BranchNumber(of)).map(|branch| branch.branch.0)
        };
        let since = |branches: &[Branch], own| {
            reseed_since(branches, BranchNumber(own)).map(|branch| branch.branch.0)
        };
        let on = [first.clone(), reseeded.clone(), failover(2, 3)];
        assert_eq!(
            [last(&on, 1), last(&on, 2), last(&on, 3)],
            [None, Some(2), Some(2)]
        );
        assert_eq!(
            [since(&on, 1), since(&on, 2), since(&on, 3)],
            [Some(2), None, None]
        );
        // The old history goes on after all: what was reseeded is passed over.
        let back = [first, reseeded, failover(1, 3)];
        assert_eq!([last(&back, 2), last(&back, 3)], [Some(2), None]);
        assert_eq!([since(&back, 1), since(&back, 2)], [None, None]);
    }
}
