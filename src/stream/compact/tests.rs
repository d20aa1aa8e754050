//! Compaction on a store in memory: what a reader finds stays the same.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::archive::catalog::Chain;
use crate::archive::hash::{Sha256, sha256};
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::repository::Repository;
use crate::archive::testing::{Writer, at, set};
use crate::clock::Clock;
use crate::mysql::binlog::{Piece, Splitter};
use crate::storage::{Fault, FaultyStorage, MemoryStorage, Operation, Rule, Storage};
use crate::stream::error::StreamError;

mod gate;
mod simulation;
mod years;

use gate::{Change, Gate, gated};

/// A clock that stands still, long after all that the tests write.
#[derive(Debug)]
struct Later;

#[async_trait::async_trait]
impl Clock for Later {
    fn now(&self) -> DateTime<Utc> {
        at(1_000_000)
    }

    async fn sleep(&self, _pause: std::time::Duration) {}
}

fn options() -> CompactOptions {
    CompactOptions {
        min_run: 4,
        keep_newest: 1,
        ..CompactOptions::default()
    }
}

fn compactor(repository: &Repository, epoch: Epoch) -> Compactor {
    Compactor::new(
        repository.clone(),
        epoch,
        BranchNumber(1),
        options(),
        Arc::new(Later),
        1,
    )
}

/// Every transaction of the chain, in order, with the digest of its events.
async fn transactions(repository: &Repository) -> Vec<(String, Sha256)> {
    let chain = repository.chain(BranchNumber(1)).await.expect("a chain");
    assert_eq!(chain.problems, []);
    let mut found = Vec::new();
    let mut splitter = Splitter::default();
    let mut open: Option<(String, Vec<u8>)> = None;
    for stored in &chain.segments {
        let segment = repository.read_segment(stored).await.expect("a segment");
        let lines = segment.details().expect("lines");
        let mut ended = 0;
        if !stored.index.part.as_ref().is_some_and(|p| p.continued) {
            splitter.reset();
            open = None;
        }
        let mut events = segment.events().expect("events");
        while let Some(event) = events.next_event().expect("an event") {
            if event.kind().is_file_event() {
                continue;
            }
            let piece = splitter
                .take(&event, stored.index.checksum)
                .expect("in order");
            if let Piece::First(first) = &piece {
                open = Some((first.gtid.to_string(), Vec::new()));
            }
            if let Some((_, bytes)) = &mut open {
                bytes.extend_from_slice(event.bytes());
            }
            if piece == Piece::Last {
                let (gtid, bytes) = open.take().expect("opened");
                assert_eq!(lines[ended].gtid.to_string(), gtid);
                ended += 1;
                found.push((gtid, sha256(&bytes)));
            }
        }
        assert_eq!(ended as u64, stored.index.transactions);
    }
    found
}

async fn chain(repository: &Repository) -> Chain {
    repository.chain(BranchNumber(1)).await.expect("a chain")
}

/// Takeovers, silence, files, a transaction in parts, one whose parts nobody finished, a gap.
async fn story(storage: Arc<dyn Storage>) -> Writer {
    let mut writer = Writer::new(storage).await;
    for transactions in [2, 0, 1, 0, 0, 3, 1] {
        writer.segment(transactions).await;
    }
    writer.giant(9, 0).await;
    for _ in 0..5 {
        writer.segment(1).await;
    }
    writer.rotate();
    for _ in 0..3 {
        writer.segment(1).await;
    }
    writer.giant(9, 1).await;
    writer.claim().await;
    for transactions in [1, 0, 0, 2] {
        writer.segment(transactions).await;
    }
    writer.gap = set(&format!("{}-{}", writer.gno, writer.gno + 4));
    writer.gno += 5;
    for _ in 0..6 {
        writer.segment(1).await;
        writer.claim().await;
    }
    writer.segment(0).await;
    writer.segment(1).await;
    writer
}

#[tokio::test]
async fn a_pass_changes_nothing_that_a_reader_finds() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new().with_page_size(3));
    let writer = story(Arc::clone(&storage)).await;
    let repository = &writer.repository;
    let (before, old) = (transactions(repository).await, chain(repository).await);
    let mut compactor = compactor(repository, writer.epoch);
    let report = compactor
        .pass(&CancellationToken::new())
        .await
        .expect("compacts");
    let new = chain(repository).await;
    assert!(report.made > 1, "{report:?}");
    assert!(
        new.segments.len() < old.segments.len() / 2,
        "{}",
        new.segments.len()
    );
    assert_eq!(report.segments, new.segments.len() as u64);
    assert_eq!(transactions(repository).await, before);
    assert_eq!(new.beside, []);
    assert_eq!((new.start(), new.end()), (old.start(), old.end()));
    assert_eq!(new.complete_to(), old.complete_to());
    assert_eq!(new.accepted(), old.accepted());
    assert_eq!(new.gaps.len(), 1);
    assert_eq!(new.transactions(), old.transactions());
    let segment = new.segments.iter().find(|s| s.name.compacted).expect("one");
    assert_eq!(segment.index.format, 2);
    // There is nothing more to do, and nothing to delete.
    let again = compactor
        .pass(&CancellationToken::new())
        .await
        .expect("compacts");
    assert_eq!((again.made, again.deleted), (0, 0));
}

#[tokio::test]
async fn the_next_streamer_goes_on_behind_a_compacted_segment() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut writer = Writer::new(Arc::clone(&storage)).await;
    for _ in 0..20 {
        writer.segment(1).await;
    }
    let mut compactor = compactor(&writer.repository, writer.epoch);
    compactor.options_for_tests().keep_newest = 0;
    compactor
        .pass(&CancellationToken::new())
        .await
        .expect("compacts");
    writer.claim().await;
    writer.segment(1).await;
    let chain = chain(&writer.repository).await;
    assert_eq!(chain.problems, []);
    assert_eq!(chain.end(), Some(set("1-21")));
}

#[tokio::test]
async fn a_crash_at_any_step_is_mended_by_the_next_pass() {
    let expected = {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let writer = story(storage).await;
        let mut compactor = compactor(&writer.repository, writer.epoch);
        compactor
            .pass(&CancellationToken::new())
            .await
            .expect("compacts");
        chain(&writer.repository).await
    };
    let mut steps = 0;
    for skip in 0.. {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            let writer = story(Arc::clone(&memory)).await;
            let before = transactions(&writer.repository).await;
            let faulty = FaultyStorage::new(Arc::clone(&memory))
                .with(Rule::new(fault).on_effects().after(skip));
            let store = Arc::new(faulty.clone());
            let repository = Repository::open(store).await.expect("opens");
            let mut first = compactor(&repository, writer.epoch);
            let outcome = first.pass(&CancellationToken::new()).await;
            if !faulty.has_crashed() {
                outcome.expect("no fault befell it");
                assert!(skip > 30, "only {skip} steps");
                return;
            }
            steps += 1;
            outcome.expect_err("it crashed");
            assert_eq!(
                transactions(&writer.repository).await,
                before,
                "{skip} {fault:?}"
            );
            let mut second = compactor(&writer.repository, writer.epoch);
            second
                .pass(&CancellationToken::new())
                .await
                .expect("compacts");
            let after = chain(&writer.repository).await;
            assert_eq!(
                transactions(&writer.repository).await,
                before,
                "{skip} {fault:?}"
            );
            assert_eq!(after, expected, "{skip} {fault:?}");
        }
    }
    assert!(steps > 0);
}

/// What a reader finds who lists at any moment, a page at a time.
#[tokio::test]
async fn a_reader_who_lists_meanwhile_finds_every_transaction_once() {
    let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new().with_page_size(4));
    let writer = story(Arc::clone(&memory)).await;
    let before = transactions(&writer.repository).await;
    let slow = FaultyStorage::new(Arc::clone(&memory))
        .with(Rule::new(Fault::Delay(std::time::Duration::from_micros(200))).on_effects());
    let slow: Arc<dyn Storage> = Arc::new(slow);
    let repository = Repository::open(slow).await.expect("opens");
    let epoch = writer.epoch;
    let compacting = tokio::spawn(async move {
        let mut compactor = compactor(&repository, epoch);
        compactor.pass(&CancellationToken::new()).await
    });
    let sluggish = FaultyStorage::new(Arc::clone(&memory))
        .with(Rule::new(Fault::Delay(std::time::Duration::from_micros(150))).on(Operation::List));
    let repository = Repository::open(Arc::new(sluggish)).await.expect("opens");
    let expected: Vec<&str> = before.iter().map(|(gtid, _)| gtid.as_str()).collect();
    let mut looks = 0;
    loop {
        let is_over = compacting.is_finished();
        let chain = chain(&repository).await;
        assert_eq!(chain.problems, []);
        let found: Vec<String> = chain
            .segments
            .iter()
            .flat_map(|s| {
                s.index
                    .added
                    .iter()
                    .map(|g| g.to_string())
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, expected);
        looks += 1;
        if is_over {
            break;
        }
    }
    assert!(looks > 3, "only {looks} looks");
    let report = compacting.await.expect("no panic").expect("compacts");
    assert!(report.deleted > 20);
    assert_eq!(transactions(&writer.repository).await, before);
}

#[tokio::test]
async fn a_compactor_that_was_overtaken_deletes_nothing_more() {
    let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let mut writer = story(Arc::clone(&memory)).await;
    let stale = writer.epoch;
    let mut compactor = compactor(&writer.repository, stale);
    writer.claim().await;
    writer.segment(1).await;
    let before = transactions(&writer.repository).await;
    let held = crate::storage::list_all(&*memory, "log/", None)
        .await
        .expect("lists");
    let error = compactor
        .pass(&CancellationToken::new())
        .await
        .expect_err("overtaken");
    assert!(matches!(error, StreamError::Fenced { .. }), "{error}");
    let after = crate::storage::list_all(&*memory, "log/", None)
        .await
        .expect("lists");
    assert_eq!(held, after);
    assert_eq!(transactions(&writer.repository).await, before);
}

/// A pass that sleeps before the change after the first `skip` of a kind.
async fn asleep(
    memory: &Arc<dyn Storage>,
    epoch: Epoch,
    change: Change,
    skip: u64,
) -> (Gate, JoinHandle<Result<CompactReport, StreamError>>) {
    let (gate, sleeper) = gated(Arc::clone(memory), change, skip);
    let repository = Repository::open(sleeper).await.expect("opens");
    let pass = tokio::spawn(async move {
        let mut compactor = compactor(&repository, epoch);
        compactor.pass(&CancellationToken::new()).await
    });
    gate.reached().await;
    (gate, pass)
}

/// The old one sleeps after its look for a newer claim, at each of its deletions; meanwhile
/// another takes over, writes, and compacts to the end.
#[tokio::test]
async fn a_compactor_that_wakes_after_a_takeover_harms_nobody() {
    for asleep_after in [0, 1, 5, 13] {
        let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut writer = story(Arc::clone(&memory)).await;
        let (gate, old) = asleep(&memory, writer.epoch, Change::Delete, asleep_after).await;
        writer.claim().await;
        for transactions in [1, 0, 2, 1, 1, 1, 1, 1] {
            writer.segment(transactions).await;
        }
        let before = transactions(&writer.repository).await;
        let mut new = compactor(&writer.repository, writer.epoch);
        new.pass(&CancellationToken::new()).await.expect("compacts");
        assert_eq!(transactions(&writer.repository).await, before);
        gate.open();
        let error = old.await.expect("no panic").expect_err("overtaken");
        assert!(matches!(error, StreamError::Fenced { .. }), "{error}");
        assert_eq!(transactions(&writer.repository).await, before);
        new.pass(&CancellationToken::new()).await.expect("compacts");
        assert_eq!(transactions(&writer.repository).await, before);
        assert_eq!(chain(&writer.repository).await.beside, []);
    }
}

/// The old one sleeps before a put; meanwhile another takes over and compacts in other steps, as a
/// later version of the program might. So the late object overlaps others, and what is within it
/// may be the only way to them.
#[tokio::test]
async fn an_object_that_is_put_after_a_takeover_harms_nobody() {
    let mut overlapping = 0;
    for (asleep_after, min_run, most) in (0..3)
        .flat_map(|asleep| [2, 3, 5, 6].map(|min_run| (asleep, min_run)))
        .flat_map(|(asleep, min_run)| [2, 3, 5, 8, 100].map(|most| (asleep, min_run, most)))
    {
        let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut writer = story(Arc::clone(&memory)).await;
        let (gate, old) = asleep(&memory, writer.epoch, Change::Put, asleep_after).await;
        writer.claim().await;
        for transactions in [1, 0, 2, 1, 1, 1] {
            writer.segment(transactions).await;
        }
        let before = transactions(&writer.repository).await;
        let mut new = compactor(&writer.repository, writer.epoch);
        new.options_for_tests().min_run = min_run;
        new.options_for_tests().transactions = most;
        let case = (asleep_after, min_run, most);
        new.pass(&CancellationToken::new()).await.expect("compacts");
        assert_eq!(transactions(&writer.repository).await, before, "{case:?}");
        gate.open();
        let error = old.await.expect("no panic").expect_err("overtaken");
        assert!(matches!(error, StreamError::Fenced { .. }), "{error}");
        assert_eq!(transactions(&writer.repository).await, before, "{case:?}");
        for _ in 0..2 {
            new.pass(&CancellationToken::new()).await.expect("compacts");
            assert_eq!(transactions(&writer.repository).await, before, "{case:?}");
        }
        overlapping += usize::from(!chain(&writer.repository).await.beside.is_empty());
        // In the end one object stands for all that overlapped.
        let mut last = compactor(&writer.repository, writer.epoch);
        last.options_for_tests().min_run = 2;
        last.pass(&CancellationToken::new())
            .await
            .expect("compacts");
        assert_eq!(transactions(&writer.repository).await, before, "{case:?}");
    }
    assert!(overlapping > 3, "only {overlapping} overlapped");
}
