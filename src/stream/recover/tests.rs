//! Spools that dead runs have left, whole and damaged, and what becomes of them.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::archive::segment::EncodedSegment;
use crate::archive::testing::{ORIGIN, at, set};
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::storage::MemoryStorage;
use crate::stream::journal::Journal;
use crate::stream::spool::{Spool, SpoolOptions};

const SOURCE: Uuid = Uuid::from_u128(7);
const BRANCH: BranchNumber = BranchNumber(1);

fn gtid(gno: u64) -> Gtid {
    format!("{ORIGIN}:{gno}").parse().expect("a GTID")
}

fn transaction(log: &mut SourceLog, gno: u64, sizes: &[usize]) -> Vec<Vec<u8>> {
    let rows = sizes.iter().map(|n| ("shop.page", vec![7; *n])).collect();
    let micros = 1_795_000_000_000_000 + gno;
    log.transaction(&gtid(gno), (micros, micros), &Work::Rows(rows))
}

/// A source's file with these transactions.
fn file(checksum: Checksum, transactions: &[&[usize]]) -> Vec<Vec<u8>> {
    let mut log = SourceLog::new(checksum, 1);
    let mut events = log.open_file("binlog.000001", &GtidSet::new(), Checksum::Crc32);
    for (number, sizes) in transactions.iter().enumerate() {
        events.extend(transaction(&mut log, number as u64 + 1, sizes));
    }
    events
}

fn cutter(branch: BranchNumber, epoch: u64, limit: usize) -> Cutter {
    Cutter::new(branch, Epoch(epoch), GtidSet::new(), limit)
}

struct Bench {
    folder: tempfile::TempDir,
    repository: Repository,
}

/// What a replay gave.
struct Replayed {
    outcome: Outcome,
    cutter: Cutter,
    drafts: Vec<Draft>,
}

impl Bench {
    async fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            repository: Repository::init(storage, at(0)).await.expect("an archive"),
        }
    }

    fn open(&self) -> (Spool, Vec<Leftovers>) {
        let options = SpoolOptions {
            folder: self.folder.path().to_owned(),
            bytes: 1 << 30,
            required: true,
        };
        Spool::open(&options, Uuid::nil()).expect("opens")
    }

    /// Journals events as a run does that is killed behind the last one; `safe_at` is an event
    /// before which all that was received became safe elsewhere.
    fn journal(
        &self,
        checksum: Checksum,
        events: &[Vec<u8>],
        safe_at: Option<usize>,
    ) -> Vec<PathBuf> {
        let (spool, _) = self.open();
        let room = Arc::clone(spool.room());
        let mut journal = Journal::new(spool.folder(), room, (BRANCH, Epoch(5)), SOURCE, checksum);
        let mut cutter = cutter(BRANCH, 5, 1 << 30);
        cutter.turn_to(SOURCE, String::new(), checksum);
        for (number, event) in events.iter().enumerate() {
            let (inside, received) = (cutter.is_inside(), cutter.received());
            if safe_at == Some(number) {
                journal
                    .forget(&received, &received, inside)
                    .expect("forgets");
            }
            assert!(journal.append(event, inside, &received).expect("writes"));
            cutter.take(event).expect("a valid event");
        }
        let used = spool.used();
        drop(spool);
        let (spool, left) = self.open();
        assert_eq!(spool.used(), used, "every byte is counted");
        left.into_iter().flat_map(|left| left.journals).collect()
    }

    async fn replay_into(&self, mut cutter: Cutter, cancel: &CancellationToken) -> Replayed {
        let (_spool, mut left) = self.open();
        let left = left.pop().expect("something was left");
        let archived = Archived::new(self.repository.clone());
        let cancel = cancel.clone();
        tokio::task::spawn_blocking(move || {
            let mut drafts = Vec::new();
            let mut cut = |draft| drafts.push(draft);
            let outcome = replay(&left, &archived, &mut cutter, &mut cut, &cancel);
            Replayed {
                outcome: outcome.expect("replays"),
                cutter,
                drafts,
            }
        })
        .await
        .expect("no panic")
    }

    async fn replay(&self) -> Replayed {
        let cutter = cutter(BRANCH, 6, 1 << 30);
        self.replay_into(cutter, &CancellationToken::new()).await
    }

    async fn survey(&self) -> GtidSet {
        let (_spool, left) = self.open();
        survey(&self.repository, BRANCH, &GtidSet::new(), &left)
            .await
            .expect("reads")
    }
}

/// The segments that a run under this epoch makes of these events.
fn segments(epoch: u64, limit: usize, events: &[Vec<u8>]) -> Vec<EncodedSegment> {
    let mut cutter = cutter(BRANCH, epoch, limit);
    cutter.turn_to(SOURCE, String::new(), Checksum::Crc32);
    let mut drafts = Vec::new();
    for event in events {
        drafts.extend(cutter.take(event).expect("a valid event"));
    }
    drafts.extend(cutter.finish());
    encode(drafts)
}

fn encode(drafts: Vec<Draft>) -> Vec<EncodedSegment> {
    let mut previous = None;
    let encoded = drafts.into_iter().map(|mut draft| {
        draft.previous = previous;
        let encoded = draft.encode(1, None, at(1)).expect("encodes");
        previous = Some(encoded.sha256);
        encoded
    });
    encoded.collect()
}

/// The source's events of transactions that are in them.
fn events_of(segments: Vec<EncodedSegment>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for encoded in segments {
        let segment = Segment::open(&Bytes::from(encoded.bytes)).expect("opens");
        let mut events = segment.events().expect("unfolds");
        while let Some(event) = events.next_event().expect("whole") {
            if !event.kind().is_file_event() {
                all.push(event.bytes().to_vec());
            }
        }
    }
    all
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("writes");
}

/// Where an event begins in a file.
fn find(path: &Path, event: &[u8]) -> usize {
    let bytes = fs::read(path).expect("reads");
    memchr::memmem::find(&bytes, event).expect("it is there")
}

#[tokio::test]
async fn a_transaction_keeps_its_beginning_when_what_was_before_it_becomes_safe() {
    let bench = Bench::new().await;
    let events = file(Checksum::Crc32, &[&[10], &[1 << 20, 1 << 20, 1 << 20]]);
    // All but the last event of the large one have come.
    let paths = bench.journal(Checksum::Crc32, &events, Some(events.len() - 1));
    let replayed = bench.replay().await;
    assert_eq!(replayed.cutter.received(), set("1-2"));
    assert_eq!(replayed.outcome.done, paths);
    assert!(events_of(encode(replayed.drafts)) == events[3..]);
}

#[tokio::test]
async fn what_a_crash_tore_at_the_end_is_no_damage() {
    let events = file(Checksum::Crc32, &[&[10], &[20], &[300, 300]]);
    let last = &events[events.len() - 2];
    for zeros in [None, Some(0), Some(5_000)] {
        let bench = Bench::new().await;
        let paths = bench.journal(Checksum::Crc32, &events, None);
        let mut bytes = fs::read(&paths[0]).expect("reads");
        let whole = bytes.len();
        bytes.truncate(find(&paths[0], last) + 100);
        if let Some(more) = zeros {
            bytes.resize(whole + more, 0);
        }
        fs::write(&paths[0], bytes).expect("writes");
        let replayed = bench.replay().await;
        assert_eq!(replayed.cutter.received(), set("1-2"), "{zeros:?}");
        assert_eq!(replayed.outcome.done, paths, "{:?}", replayed.outcome);
    }
}

#[tokio::test]
async fn a_broken_event_before_the_end_keeps_its_file() {
    let events = file(Checksum::Crc32, &[&[10], &[20], &[300, 300]]);
    // In the second transaction: in an event's body, and in the length of its header.
    let row = &events[3 + 5 + 3];
    for (offset, bit) in [(30, "a body"), (11, "a length")] {
        let bench = Bench::new().await;
        let paths = bench.journal(Checksum::Crc32, &events, None);
        damage(&paths[0], find(&paths[0], row) + offset);
        let replayed = bench.replay().await;
        assert_eq!(replayed.cutter.received(), set("1"), "{bit}");
        assert_eq!(replayed.outcome.done, Vec::<PathBuf>::new());
        let (path, reason) = &replayed.outcome.kept[0];
        assert!(*path == paths[0] && reason.contains("damaged"), "{reason}");
        assert_eq!(bench.survey().await, set("1"));
    }
}

#[tokio::test]
async fn only_the_last_file_of_a_run_may_be_torn() {
    let bench = Bench::new().await;
    let mut log = SourceLog::new(Checksum::Crc32, 1);
    let mut events = log.open_file("binlog.000001", &GtidSet::new(), Checksum::Crc32);
    events.extend(transaction(&mut log, 1, &[50]));
    events.push(log.close_file("binlog.000002"));
    events.extend(log.open_file("binlog.000002", &set("1"), Checksum::Crc32));
    events.extend(transaction(&mut log, 2, &[50]));
    let paths = bench.journal(Checksum::Crc32, &events, None);
    assert_eq!(paths.len(), 2);
    let bytes = fs::read(&paths[0]).expect("reads");
    fs::write(&paths[0], &bytes[..bytes.len() - 5]).expect("writes");
    let replayed = bench.replay().await;
    assert_eq!(replayed.cutter.received(), GtidSet::new());
    assert_eq!(replayed.outcome.done, Vec::<PathBuf>::new());
    assert_eq!(replayed.outcome.kept.len(), 2, "{:?}", replayed.outcome);
}

/// The made-up ROTATE of a connection has the connection's checksum, the file may have none.
#[tokio::test]
async fn a_file_without_checksums_is_replayed_from_a_connection_with_them() {
    let bench = Bench::new().await;
    let events = file(Checksum::None, &[&[10], &[20]]);
    let paths = bench.journal(Checksum::Crc32, &events, None);
    let replayed = bench.replay().await;
    assert_eq!(replayed.cutter.received(), set("1-2"));
    assert_eq!(replayed.outcome.done, paths);
    let source = replayed.drafts[0].source.clone();
    assert_eq!(
        source.map(|(_, _, file)| file),
        Some("binlog.000001".to_owned())
    );
}

#[tokio::test]
async fn what_belongs_to_another_history_is_kept_and_not_replayed() {
    let bench = Bench::new().await;
    let events = file(Checksum::Crc32, &[&[10], &[20]]);
    let paths = bench.journal(Checksum::Crc32, &events, None);
    let (spool, _) = bench.open();
    for encoded in segments(5, 1 << 20, &events) {
        let body = Bytes::from(encoded.bytes);
        assert!(spool.write(&encoded.name, &body).expect("writes"));
    }
    // As journals were named before.
    fs::copy(
        &paths[0],
        spool
            .folder()
            .join(format!("000005000001-{SOURCE}-crc32.journal")),
    )
    .expect("copies");
    drop(spool);
    let cutter = cutter(BranchNumber(2), 6, 1 << 20);
    let replayed = bench.replay_into(cutter, &CancellationToken::new()).await;
    assert_eq!(replayed.cutter.received(), GtidSet::new());
    assert_eq!(replayed.outcome.done, Vec::<PathBuf>::new());
    let reasons: Vec<_> = replayed.outcome.kept.iter().map(|(_, why)| why).collect();
    let left = "it belongs to history 1, which was left";
    assert!(
        reasons.len() == 3 && reasons[0] == left && reasons.iter().any(|why| why.contains("older")),
        "{reasons:?}"
    );
    assert_eq!(reasons.iter().filter(|why| **why == left).count(), 2);
    // In its own history all of it is there.
    assert_eq!(bench.survey().await, set("1-2"));
}

#[tokio::test]
async fn a_transaction_in_parts_is_whole_with_those_that_had_reached_the_archive() {
    let events = file(Checksum::Crc32, &[&[10], &[4_000; 10], &[20]]);
    for in_archive in [2, 5] {
        let bench = Bench::new().await;
        let (spool, _) = bench.open();
        let made = segments(5, 8_000, &events);
        assert!(made.len() > 6, "{} segments", made.len());
        for (number, encoded) in made.into_iter().enumerate() {
            let body = Bytes::from(encoded.bytes);
            if number < in_archive {
                let put = bench.repository.put_segment(&encoded.name, body).await;
                put.expect("puts");
            } else {
                assert!(spool.write(&encoded.name, &body).expect("writes"));
            }
        }
        drop(spool);
        // The first run that recovers it dies behind its first part, and so does the second.
        for epoch in 6..9 {
            let mut cutter = Cutter::new(BRANCH, Epoch(epoch), set("1"), 8_000);
            cutter.turn_to(SOURCE, String::new(), Checksum::Crc32);
            let replayed = bench.replay_into(cutter, &CancellationToken::new()).await;
            assert_eq!(
                replayed.cutter.received(),
                set("1-3"),
                "{:?}",
                replayed.outcome
            );
            assert!(replayed.outcome.kept.is_empty(), "{:?}", replayed.outcome);
            let mut drafts = replayed.drafts;
            drafts[0].continues = Some((Epoch(5), 1));
            let made = encode(drafts);
            let first = &made[0];
            let body = Bytes::from(first.bytes.clone());
            let put = bench.repository.put_segment(&first.name, body).await;
            put.expect("puts");
            assert!(events_of(made) == events[3 + 5..]);
        }
    }
}

#[tokio::test]
async fn a_part_whose_beginning_is_nowhere_is_kept() {
    let bench = Bench::new().await;
    let (spool, _) = bench.open();
    let events = file(Checksum::Crc32, &[&[4_000; 10], &[20]]);
    for encoded in segments(5, 8_000, &events).into_iter().skip(1) {
        let body = Bytes::from(encoded.bytes);
        assert!(spool.write(&encoded.name, &body).expect("writes"));
    }
    drop(spool);
    let replayed = bench.replay().await;
    assert_eq!(replayed.cutter.received(), GtidSet::new());
    assert_eq!(replayed.outcome.done, Vec::<PathBuf>::new());
    assert_eq!(bench.survey().await, GtidSet::new());
}

#[tokio::test]
async fn only_what_can_be_replayed_is_counted() {
    let bench = Bench::new().await;
    let (spool, _) = bench.open();
    // One transaction a segment.
    for encoded in segments(5, 0, &file(Checksum::Crc32, &[&[10], &[20], &[30]])) {
        let body = Bytes::from(encoded.bytes);
        assert!(spool.write(&encoded.name, &body).expect("writes"));
    }
    drop(spool);
    assert_eq!(bench.survey().await, set("1-3"));
    let (spool, left) = bench.open();
    let first = left[0].segments[0].clone();
    drop((spool, left));
    let length = fs::metadata(&first).expect("is there").len() as usize;
    damage(&first, length - 1);
    assert_eq!(bench.survey().await, GtidSet::new());
    let replayed = bench.replay().await;
    assert_eq!(replayed.cutter.received(), GtidSet::new());
    assert_eq!(replayed.outcome.done, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_cancelled_replay_leaves_everything_where_it_is() {
    let bench = Bench::new().await;
    bench.journal(
        Checksum::Crc32,
        &file(Checksum::Crc32, &[&[10], &[20]]),
        None,
    );
    let cancel = CancellationToken::new();
    cancel.cancel();
    let cutter = cutter(BRANCH, 6, 1 << 20);
    let replayed = bench.replay_into(cutter, &cancel).await;
    assert!(replayed.outcome.cancelled);
    assert_eq!(replayed.outcome.done, Vec::<PathBuf>::new());
    assert_eq!(bench.replay().await.cutter.received(), set("1-2"));
}
