//! The golden archive: what older versions wrote stays readable.
//!
//! `tests/golden/format-1` is an archive as this format's first version wrote it, and
//! `format-1.json` is what a reader finds in it. It has two claims with a takeover, a segment and
//! a part that do not count any more, silence, both checksums, tags, a compressed payload and a
//! transaction in parts. `format-2` has besides a compacted segment, an accepted gap and a second
//! branch that lost a transaction. A new format adds a folder; the old ones are never written again.
//!
//! `QUILLBACK_WRITE_GOLDEN=<folder>` makes the second test write the archive there.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::catalog::Chain;
use super::hash::{Sha256, sha256};
use super::identity::{ARCHIVE_FORMAT, Branch, Claim, Identity, NewBranch};
use super::layout::{self, BranchNumber, Epoch};
use super::merge::Merger;
use super::repository::Repository;
use super::segment::{Draft, IndexedTransaction, Part, Segment};
use crate::clock::from_micros;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::mysql::binlog::{Checksum, GtidEvent, Piece, RawEvent, Splitter, SummaryBuilder};
use crate::storage::{LocalStorage, MemoryStorage, Storage};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-");
const GROUP: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const ORIGIN: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3";

fn at(seconds: u64) -> DateTime<Utc> {
    from_micros((1_795_000_000 + seconds) * 1_000_000 + 42).expect("in range")
}

fn set(text: &str) -> GtidSet {
    text.parse().expect("a GTID set")
}

/// Everything that a reader finds in an archive; nothing that depends on how zstd packs.
async fn found_in(storage: Arc<dyn Storage>) -> Value {
    let repository = Repository::open(storage).await.expect("an archive");
    let branch = BranchNumber(1);
    let mut claims = Vec::new();
    let newest = repository.newest_epoch(None).await.expect("claims");
    for epoch in 1..=newest.map_or(0, |epoch| epoch.0) {
        claims.push(repository.claim(Epoch(epoch)).await.expect("a claim"));
    }
    let stored = repository.segments(branch).await.expect("segments");
    let all = stored.len();
    let chain = Chain::compute(branch, stored);
    let mut segments = Vec::new();
    let mut transactions = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    let mut splitter = Splitter::default();
    for stored in &chain.segments {
        let index = &stored.index;
        let mut told = json!({
            "place": [stored.name.epoch.0, stored.name.first, stored.name.last],
            "before": index.before,
            "added": index.added,
            "checksum": index.checksum,
            "source": index.source,
            "part": index.part,
            "first_commit": index.first_commit.map(crate::clock::rfc3339),
            "last_commit": index.last_commit.map(crate::clock::rfc3339),
            "complete_to": index.complete_to.map(crate::clock::rfc3339),
            "tables": index.tables,
            "statements": index.statements,
            "raw_bytes": index.raw_bytes,
            "raw_sha256": index.raw_sha256,
        });
        if let Some(least) = index.least_commit {
            told["least_commit"] = json!(crate::clock::rfc3339(least));
        }
        segments.push(told);
        let lines = repository.read_transactions(stored).await.expect("lines");
        let segment = repository.read_segment(stored).await.expect("a segment");
        assert_eq!(segment.details().expect("lines"), lines);
        if !index.part.as_ref().is_some_and(|part| part.continued) {
            open = None;
            splitter.reset();
        }
        let mut lines = lines.iter();
        let mut events = segment.events().expect("events");
        while let Some(event) = events.next_event().expect("an event") {
            // PREVIOUS_GTIDS and FORMAT_DESCRIPTION stand again in each part.
            if event.kind().is_file_event() {
                continue;
            }
            let piece = splitter.take(&event, index.checksum).expect("in order");
            let bytes = open.get_or_insert_default();
            bytes.extend_from_slice(event.bytes());
            if piece == Piece::Last {
                let mut line = serde_json::to_value(lines.next()).expect("a line");
                line["sha256"] = json!(sha256(&open.take().unwrap_or_default()));
                transactions.push(line);
            }
        }
    }
    json!({
        "identity": repository.identity(),
        "branches": repository.branches().await.expect("histories"),
        "claims": claims,
        "segments": segments,
        "segments_that_do_not_count": all - chain.segments.len(),
        "problems": chain.problems,
        "start": chain.start(),
        "end": chain.end(),
        "held": chain.held(),
        "complete_to": chain.complete_to().map(crate::clock::rfc3339),
        "transactions": transactions,
    })
}

/// What the second format has besides.
async fn more_found_in(storage: Arc<dyn Storage>) -> Value {
    let repository = Repository::open(Arc::clone(&storage))
        .await
        .expect("an archive");
    let mut histories = Vec::new();
    for branch in [1, 2] {
        let history = repository.history(BranchNumber(branch)).await;
        let history = history.expect("a history");
        let mut members = Vec::new();
        for member in &history.members {
            let lines = repository.read_transactions(&member.stored).await;
            let lines = member.own_lines(lines.expect("lines"));
            members.push(json!({
                "branch": member.stored.name.branch,
                "place": [member.stored.name.epoch.0, member.stored.name.first, member.stored.name.last],
                "compacted": member.stored.name.compacted,
                "format": member.stored.index.format,
                "before": member.before,
                "added": member.added,
                "transactions": lines.len(),
                "first_commit": member.first_commit.map(crate::clock::rfc3339),
                "last_commit": member.last_commit.map(crate::clock::rfc3339),
                "complete_to": member.complete_to.map(crate::clock::rfc3339),
            }));
        }
        histories.push(json!({
            "branch": branch,
            "members": members,
            "problems": history.problems,
            "gaps": history.gaps,
            "lost": history.lost,
            "end": history.end(),
            "held": history.held(),
            "complete_to": history.complete_to().map(crate::clock::rfc3339),
        }));
    }
    let mut found = found_in(storage).await;
    found["histories"] = json!(histories);
    found
}

/// One streamer, as the recipe below uses it.
struct Streamer {
    storage: Arc<dyn Storage>,
    branch: BranchNumber,
    gap: GtidSet,
    epoch: u64,
    sequence: u64,
    before: GtidSet,
    previous: Option<Sha256>,
    continues: Option<(Epoch, u64)>,
    log: SourceLog,
    format: Vec<u8>,
}

impl Streamer {
    async fn claim(
        storage: &Arc<dyn Storage>,
        (branch, epoch): (u32, u64),
        checksum: Checksum,
        before: GtidSet,
        continues: Option<(u64, Sha256)>,
    ) -> Self {
        let claim = Claim {
            epoch: Epoch(epoch),
            branch: BranchNumber(branch),
            source: Uuid::from_u128(epoch.into()),
            address: format!("db{epoch}.example:3306"),
            start: before.clone(),
            host: "backup.example".to_owned(),
            process: 4242,
            replica_uuid: Some(Uuid::from_u128(u128::from(epoch) << 64)),
            fence: false,
            accepted_gap: GtidSet::new(),
            claimed: at(epoch),
        };
        put(&**storage, &layout::epoch(Epoch(epoch)), &claim).await;
        let mut log = SourceLog::new(checksum, u32::try_from(epoch).expect("small"));
        let format = log.format_description("8.4.6");
        Self {
            storage: Arc::clone(storage),
            branch: BranchNumber(branch),
            gap: GtidSet::new(),
            epoch,
            sequence: 0,
            before,
            previous: continues.map(|(_, digest)| digest),
            continues: continues.map(|(sequence, _)| (Epoch(epoch - 1), sequence)),
            log,
            format,
        }
    }

    fn draft(&mut self) -> Draft {
        self.sequence += 1;
        let place = (self.branch, Epoch(self.epoch), self.sequence);
        self.before.extend_from(&self.gap);
        let checksum = self.log.checksum;
        let mut draft = Draft::begin(place, self.before.clone(), checksum, &self.format);
        draft.gap = std::mem::take(&mut self.gap);
        draft.source = Some((
            Uuid::from_u128(self.epoch.into()),
            "8.4.6".to_owned(),
            format!("binlog.{:06}", self.epoch),
        ));
        draft
    }

    /// The events and the line of a transaction.
    fn make(&mut self, gtid: &str, second: u64, work: &Work) -> (Vec<Vec<u8>>, IndexedTransaction) {
        let gtid: Gtid = format!("{GROUP}:{gtid}").parse().expect("a GTID");
        let time = at(second);
        let micros = u64::try_from(time.timestamp_micros()).expect("after 1970");
        let events = self.log.transaction(&gtid, (micros, micros - 7), work);
        let first = RawEvent::new(&events[0]).expect("an event");
        let first = GtidEvent::parse(&first, self.log.checksum).expect("a GTID event");
        let mut summary = SummaryBuilder::begin(&first);
        for event in &events {
            let event = RawEvent::new(event).expect("an event");
            summary.take(&event, self.log.checksum).expect("a summary");
        }
        let line = IndexedTransaction {
            gtid,
            time,
            original_time: from_micros(first.original_commit_micros),
            server_id: self.log.server_id,
            bytes: first.transaction_length,
            summary: summary.finish(),
        };
        (events, line)
    }

    async fn put(&mut self, mut draft: Draft, complete_to: Option<DateTime<Utc>>) -> Sha256 {
        draft.previous = self.previous;
        draft.continues = self.continues.take();
        let encoded = draft.encode(3, complete_to, at(100)).expect("encodes");
        self.before = encoded.index.after();
        self.previous = Some(encoded.sha256);
        let key = encoded.name.key();
        let body = Bytes::from(encoded.bytes);
        Segment::open(&body).expect("opens");
        self.storage
            .put_if_absent(&key, body)
            .await
            .expect("a new object");
        encoded.sha256
    }

    /// A segment of whole transactions.
    async fn whole(&mut self, works: &[(&str, u64, Work)], complete: u64) -> Sha256 {
        let mut draft = self.draft();
        for (gtid, second, work) in works {
            let (events, line) = self.make(gtid, *second, work);
            for event in &events {
                draft.push_event(event, self.log.server_id);
            }
            draft.complete(&line).expect("a line");
        }
        self.put(draft, Some(at(complete))).await
    }
}

async fn put<T: serde::Serialize + Sync>(storage: &dyn Storage, key: &str, value: &T) {
    let mut bytes = serde_json::to_vec_pretty(value).expect("JSON");
    bytes.push(b'\n');
    storage
        .put_if_absent(key, Bytes::from(bytes))
        .await
        .expect("a new object");
}

fn rows(table: &'static str, byte: u8, length: usize) -> Work {
    Work::Rows(vec![(table, vec![byte; length])])
}

async fn write_identity(storage: &Arc<dyn Storage>) {
    let identity = Identity {
        format: ARCHIVE_FORMAT,
        archive: Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
        created: at(0),
        quillback: "0.1.0".to_owned(),
    };
    let first = Branch {
        branch: BranchNumber(1),
        parent: None,
        fork: GtidSet::new(),
        lost: GtidSet::new(),
        reason: "the archive was made".to_owned(),
        group: None,
        server: None,
        created: at(0),
    };
    put(&**storage, &layout::branch(BranchNumber(1)), &first).await;
    put(&**storage, layout::IDENTITY, &identity).await;
}

/// Writes the archive of the second format; that of the first was written by the first part.
async fn write_format_2(storage: Arc<dyn Storage>) {
    write_identity(&storage).await;

    let mut one = Streamer::claim(&storage, (1, 1), Checksum::Crc32, set(ORIGIN), None).await;
    let ddl = Work::Statement("shop", "CREATE TABLE page (id BIGINT)".to_owned());
    one.whole(&[("4", 10, ddl), ("5", 11, rows("shop.page", 1, 40))], 11)
        .await;
    let silence = one.draft();
    let last_that_counts = one.put(silence, Some(at(60))).await;
    // The first part of a transaction that the next streamer will ask for again.
    let large = Work::Rows(vec![
        ("shop.page", vec![3; 200]),
        ("shop.user", vec![4; 200]),
    ]);
    let (events, line) = one.make("6", 61, &large);
    let mut part = one.draft();
    for event in &events[..3] {
        part.push_event(event, 1);
    }
    part.set_part(Part {
        gtid: line.gtid,
        continued: false,
        unfinished: true,
    });
    one.put(part, None).await;

    let before = set(&format!("{GROUP}:1-5"));
    let taken_over = Some((2, last_that_counts));
    let mut two = Streamer::claim(&storage, (1, 2), Checksum::None, before, taken_over).await;
    two.whole(&[("blue:1", 62, rows("shop.user", 9, 3))], 62)
        .await;
    // What the first streamer wrote after it had been overtaken.
    one.whole(&[("6", 61, rows("shop.page", 5, 5))], 61).await;
    let (events, line) = two.make("6", 63, &large);
    for (number, events) in [&events[..3], &events[3..5], &events[5..]]
        .iter()
        .enumerate()
    {
        let mut part = two.draft();
        for event in *events {
            part.push_event(event, 2);
        }
        part.set_part(Part {
            gtid: line.gtid.clone(),
            continued: number > 0,
            unfinished: true,
        });
        if number == 2 {
            part.complete(&line).expect("a line");
        }
        two.put(part, (number == 2).then(|| at(63))).await;
    }
    let payload = Work::Payload(vec![("shop.page", vec![6; 300])], true);
    let drop = Work::Statement("shop", "DROP TABLE page".to_owned());
    two.whole(&[("8", 70, payload), ("7", 71, drop)], 80).await;

    // What the source had purged, and somebody accepted as lost.
    two.gap = set(&format!("{GROUP}:9-10"));
    let works = [
        ("11", 90, rows("shop.user", 2, 9)),
        ("12", 91, rows("shop.user", 3, 9)),
    ];
    two.whole(&works, 92).await;
    compact(&storage, 0..2).await;
    // A failover that lost the last transaction.
    let fork = set(&format!("{GROUP}:1-11:blue:1"));
    let lost = set(&format!("{GROUP}:12"));
    let reason = "db3.example:3306 lacks it";
    let second = NewBranch::failover(BranchNumber(1), fork.clone(), lost, reason)
        .numbered(BranchNumber(2), at(95));
    put(&*storage, &layout::branch(BranchNumber(2)), &second).await;
    let mut three = Streamer::claim(&storage, (2, 3), Checksum::Crc32, fork, None).await;
    let works = [("12", 96, rows("shop.user", 4, 5))];
    three.whole(&works, 97).await;
}

/// Makes one object of these segments of the chain; they stay.
async fn compact(storage: &Arc<dyn Storage>, run: std::ops::Range<usize>) {
    let repository = Repository::open(Arc::clone(storage)).await;
    let repository = repository.expect("an archive");
    let chain = repository.chain(BranchNumber(1)).await.expect("a chain");
    let mut merger = Merger::begin(&chain.segments[run.clone()], 3).expect("some");
    for source in &chain.segments[run] {
        let segment = repository.read_segment(source).await.expect("a segment");
        merger.add(&segment).expect("added");
    }
    let made = merger.finish().expect("made");
    let body = Bytes::from(made.bytes);
    repository.put_segment(&made.name, body).await.expect("put");
}

fn expected(format: &str) -> Value {
    let text = std::fs::read(format!("{GOLDEN}{format}.json")).expect("what a reader finds");
    serde_json::from_slice(&text).expect("JSON")
}

fn golden(format: &str) -> Arc<dyn Storage> {
    Arc::new(LocalStorage::new(format!("{GOLDEN}{format}")))
}

#[tokio::test]
async fn the_golden_archive_of_format_1_is_read_as_ever() {
    let found = found_in(golden("1")).await;
    assert_eq!(found["problems"], json!([]));
    assert_eq!(found["segments_that_do_not_count"], json!(2));
    let end = format!("{GROUP}:1-8:blue:1");
    assert_eq!(found["end"], json!(end));
    assert_eq!(found, expected("1"), "{found:#}");
}

/// As it was first written, and as it is since rows are counted.
#[tokio::test]
async fn the_golden_archives_of_format_2_are_read_as_ever() {
    for (format, rows) in [("2", Value::Null), ("2-rows", json!({ "insert": 40 }))] {
        let found = more_found_in(golden(format)).await;
        assert_eq!(found["problems"], json!([]));
        assert_eq!(found["segments_that_do_not_count"], json!(4));
        let child = &found["histories"][1];
        assert_eq!(child["end"], json!(format!("{GROUP}:1-12:blue:1")));
        assert_eq!(child["gaps"][0]["missing"], json!(format!("{GROUP}:9-10")));
        assert_eq!(found["transactions"][1]["tables"][0]["rows"], rows);
        assert_eq!(found, expected(format), "{found:#}");
    }
}

/// As long as this version writes the second format, it writes the same archive.
#[tokio::test]
async fn the_golden_archive_would_be_written_again() {
    let storage: Arc<dyn Storage> = match std::env::var("QUILLBACK_WRITE_GOLDEN") {
        Ok(folder) => Arc::new(LocalStorage::new(folder)),
        Err(_) => Arc::new(MemoryStorage::new()),
    };
    write_format_2(Arc::clone(&storage)).await;
    let found = more_found_in(storage).await;
    if let Ok(folder) = std::env::var("QUILLBACK_WRITE_GOLDEN") {
        let text = format!("{found:#}\n");
        std::fs::write(format!("{folder}.json"), text).expect("writable");
        return;
    }
    assert_eq!(found, expected("2-rows"));
}

mod described;
mod reseed;
