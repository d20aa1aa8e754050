//! Histories over forks, on a store in memory.

use std::sync::Arc;

use super::*;
use crate::archive::identity::NewBranch;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::testing::{Writer, at, set};
use crate::error::{Class, Classified as _};
use crate::storage::{MemoryStorage, Storage};

/// Branch 1 with the transactions 1 to 9: two segments of three, one of two, and a last one.
async fn parent() -> Writer {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut writer = Writer::new(storage).await;
    for transactions in [3, 3, 2, 0, 1] {
        writer.segment(transactions).await;
    }
    writer
}

/// A new branch that shares `fork` and has lost the rest; its streamer.
async fn fork(mut writer: Writer, fork: &str, lost: &str) -> Writer {
    let number = writer
        .repository
        .new_branch(
            NewBranch::failover(writer.branch, set(fork), set(lost), "a failover"),
            at(50),
        )
        .await
        .expect("a new branch")
        .branch;
    writer.branch = number;
    writer.before = set(fork);
    writer.gno = fork
        .rsplit('-')
        .next()
        .and_then(|last| last.parse::<u64>().ok())
        .expect("1-n")
        + 1;
    writer.second = 60;
    writer.rotate();
    writer.claim().await;
    writer
}

fn added(history: &History) -> Vec<GtidSet> {
    history.members.iter().map(|m| m.added.clone()).collect()
}

async fn history(repository: &Repository, branch: u32) -> History {
    repository
        .history(BranchNumber(branch))
        .await
        .expect("a history")
}

#[tokio::test]
async fn a_branch_has_its_parents_log_up_to_the_fork() {
    let mut writer = fork(parent().await, "1-7", "8-9").await;
    // The same numbers come again, for other transactions.
    writer.segment(2).await;
    writer.segment(1).await;
    let child = history(&writer.repository, 2).await;
    assert_eq!(child.problems, []);
    assert_eq!(
        added(&child),
        [set("1-3"), set("4-6"), set("7"), set("8-9"), set("10")]
    );
    assert_eq!(child.end(), Some(set("1-10")));
    assert_eq!(
        (child.held(), child.lost.clone()),
        (set("1-10"), set("8-9"))
    );
    assert_eq!(child.transactions(), 10);
    // Of the split segment only what is left counts, its times too.
    let split = &child.members[2];
    assert!(split.is_limited());
    assert_eq!(
        (split.first_commit, split.last_commit),
        (split.first_commit, split.first_commit)
    );
    assert_eq!(split.complete_to, None);
    let lines = writer
        .repository
        .read_transactions(&split.stored)
        .await
        .expect("lines");
    assert_eq!(lines.len(), 2);
    assert_eq!(split.own_lines(lines).len(), 1);
    // What was lost is found in no member, although the segment holds it.
    let needed = child.needed(&set("8"));
    assert_eq!(needed.len(), 1);
    assert_eq!(needed[0].stored.name.branch, BranchNumber(2));
    // The old history is as it was.
    let old = history(&writer.repository, 1).await;
    assert_eq!((old.end(), old.lost.clone()), (Some(set("1-9")), set("")));
    assert_eq!(old.members.len(), 5);
}

#[tokio::test]
async fn a_branch_of_a_branch_keeps_what_all_forks_share() {
    let mut writer = fork(parent().await, "1-7", "8-9").await;
    writer.segment(3).await;
    let mut writer = fork(writer, "1-5", "6-10").await;
    writer.segment(1).await;
    let child = history(&writer.repository, 3).await;
    assert_eq!(child.problems, []);
    assert_eq!(added(&child), [set("1-3"), set("4-5"), set("6")]);
    assert_eq!(child.lost, set("6-10"));
    assert_eq!(child.lineage.len(), 3);
}

#[tokio::test]
async fn a_branch_without_a_log_ends_at_its_fork() {
    let writer = parent().await;
    let complete_to = history(&writer.repository, 1).await.complete_to();
    let writer = fork(writer, "1-6", "7-9").await;
    let child = history(&writer.repository, 2).await;
    assert_eq!(child.problems, []);
    assert_eq!(child.end(), Some(set("1-6")));
    assert_eq!(added(&child), [set("1-3"), set("4-6")]);
    // Behind the first loss nobody knows what the new cluster had committed.
    assert!(child.complete_to() < complete_to);
    assert_eq!(child.complete_to(), child.members[1].complete_to);
}

#[tokio::test]
async fn a_parent_s_hole_is_told_only_if_the_branch_needs_it() {
    for (gone, missing) in [(1, set("4-6")), (2, set("7")), (4, set(""))] {
        let mut writer = fork(parent().await, "1-7", "8-9").await;
        writer.segment(1).await;
        let old = history(&writer.repository, 1).await;
        let key = old.members[gone].stored.name.key();
        let storage = writer.repository.storage();
        storage.delete(&key).await.expect("deleted");
        let child = history(&writer.repository, 2).await;
        assert_eq!(
            child.missing(),
            missing,
            "without {key}: {:?}",
            child.problems
        );
        assert_eq!(child.missing().is_empty(), child.held() == set("1-8"));
    }
}

#[tokio::test]
async fn a_snapshot_of_what_was_lost_is_none_of_the_branch() {
    let mut writer = fork(parent().await, "1-7", "8-9").await;
    writer.segment(3).await;
    let (old, child) = (
        history(&writer.repository, 1).await,
        history(&writer.repository, 2).await,
    );
    for (gnos, second, expected) in [
        ("1-5", 2, true),
        ("1-7", 2, true),
        // It holds what was lost.
        ("1-8", 2, false),
        ("1-9", 40, false),
        // It holds what the old log had not come to and so may have been lost too.
        ("1-7:30", 40, false),
        // The old log had passed it over: it never comes through a log.
        ("1-7:30", 2, true),
        // Taken behind the fork: the numbers are those of other transactions.
        ("1-9", 61, true),
    ] {
        assert_eq!(
            child.admits(&set(gnos), at(second)),
            expected,
            "{gnos} {second}"
        );
        assert!(old.admits(&set(gnos), at(second)));
    }
}

#[tokio::test]
async fn two_that_decide_the_same_start_one_branch() {
    let writer = parent().await;
    let repository = &writer.repository;
    let start = async |fork: &'static str| {
        let new = NewBranch::failover(BranchNumber(1), set(fork), set("8-9"), "why");
        let started = repository.new_branch(new, at(50)).await;
        started.map(|branch| branch.branch)
    };
    let (one, other) = tokio::join!(start("1-7"), start("1-7"));
    assert_eq!(one.expect("started"), BranchNumber(2));
    assert_eq!(other.expect("started"), BranchNumber(2));
    assert_eq!(start("1-7").await.expect("there"), BranchNumber(2));
    assert_eq!(start("1-6").await.expect("another"), BranchNumber(3));
    assert_eq!(repository.branches().await.expect("three").len(), 3);
    let error = repository.history(BranchNumber(9)).await;
    let error = error.expect_err("there is none");
    assert!(matches!(error, ArchiveError::NoBranch { .. }));
    assert_eq!(error.class(), Class::NotCovered);
}

#[tokio::test]
async fn the_newest_claim_is_found_among_very_many() {
    for (page, claims) in [(1, 1), (3, 2), (3, 3), (3, 4), (5, 257), (1000, 12_345)] {
        let storage = MemoryStorage::new().with_page_size(page);
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let calls = crate::storage::FaultyStorage::new(Arc::clone(&storage));
        let repository = Repository::init(Arc::new(calls.clone()), at(0))
            .await
            .expect("a new archive");
        assert_eq!(repository.newest_epoch(None).await.expect("none"), None);
        for number in 1..=claims {
            // A hole now and then.
            if number % 50 == 7 && number != claims {
                continue;
            }
            let epoch = crate::archive::layout::Epoch(number);
            let key = crate::archive::layout::epoch(epoch);
            let body = bytes::Bytes::from_static(b"{}");
            storage.put_if_absent(&key, body).await.expect("put");
        }
        let before = calls.calls().len();
        let newest = repository.newest_epoch(None).await.expect("claims");
        assert_eq!(newest.map(|e| e.0), Some(claims));
        let lists = calls.calls().len() - before;
        assert!(lists < 40, "{lists} listings for {claims} claims");
        let known = crate::archive::layout::Epoch(claims);
        assert_eq!(
            repository.newest_epoch(Some(known)).await.expect("none"),
            None
        );
    }
}
