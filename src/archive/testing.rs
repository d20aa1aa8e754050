//! Archives made by hand, for the tests of every room that reads one: real segments with made-up
//! events, one streamer after the other.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::hash::Sha256;
use super::identity::Claim;
use super::layout::{BranchNumber, Epoch};
use super::merge::Merger;
use super::repository::Repository;
use super::segment::{Draft, IndexedTransaction, Part, Segment};
use crate::clock::from_micros;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::mysql::binlog::{Checksum, GtidEvent, RawEvent, Summary, SummaryBuilder};
use crate::storage::Storage;

/// Where the test's GTIDs come from.
pub(crate) const ORIGIN: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

/// The transactions with these numbers.
pub(crate) fn set(gnos: &str) -> GtidSet {
    if gnos.is_empty() {
        return GtidSet::new();
    }
    format!("{ORIGIN}:{gnos}").parse().expect("a GTID set")
}

/// So many seconds after the beginning.
pub(crate) fn at(second: u64) -> DateTime<Utc> {
    from_micros((1_795_000_000 + second) * 1_000_000).expect("in range")
}

/// A streamer with its source.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) repository: Repository,
    pub(crate) branch: BranchNumber,
    pub(crate) epoch: Epoch,
    pub(crate) before: GtidSet,
    /// The number of the next transaction.
    pub(crate) gno: u64,
    /// The time of the next segment.
    pub(crate) second: u64,
    /// What the next segment says was accepted as lost before it.
    pub(crate) gap: GtidSet,
    sequence: u64,
    previous: Option<Sha256>,
    continues: Option<(Epoch, u64)>,
    source: SourceLog,
    format: Vec<u8>,
    server: u128,
    file: u64,
}

impl Writer {
    /// A new archive and its first streamer.
    pub(crate) async fn new(storage: Arc<dyn Storage>) -> Self {
        let repository = Repository::init(storage, at(0))
            .await
            .expect("a new archive");
        let mut writer = Self {
            repository,
            branch: BranchNumber(1),
            epoch: Epoch(0),
            before: GtidSet::new(),
            gno: 1,
            second: 1,
            gap: GtidSet::new(),
            sequence: 0,
            previous: None,
            continues: None,
            source: SourceLog::new(Checksum::Crc32, 1),
            format: Vec::new(),
            server: 1,
            file: 1,
        };
        writer.open_file();
        writer.claim().await;
        writer
    }

    fn open_file(&mut self) {
        self.source = SourceLog::new(Checksum::Crc32, self.server as u32);
        self.format = self.source.format_description("8.4.6");
    }

    /// The source starts a new binlog file.
    pub(crate) fn rotate(&mut self) {
        self.file += 1;
        self.open_file();
    }

    /// The next streamer, which goes on where the log ends.
    pub(crate) async fn claim(&mut self) {
        let chain = self.repository.chain(self.branch).await.expect("a chain");
        assert_eq!(chain.problems, []);
        let newest = self.repository.newest_epoch(None).await.expect("claims");
        self.epoch = Epoch(newest.map_or(0, |epoch| epoch.0) + 1);
        self.sequence = 0;
        let claim = Claim {
            epoch: self.epoch,
            branch: self.branch,
            source: Uuid::from_u128(self.server),
            address: "db:3306".to_owned(),
            start: self.before.clone(),
            host: "test".to_owned(),
            process: 1,
            replica_uuid: None,
            fence: false,
            accepted_gap: GtidSet::new(),
            claimed: at(self.second),
        };
        self.repository.put_claim(&claim).await.expect("a claim");
        (self.previous, self.continues) = (None, None);
        if let Some(last) = chain.resume_point() {
            self.before = last.index.after();
            self.continues = Some((last.name.epoch, last.name.last));
            self.previous = Some(self.repository.link_of(last).await.expect("a segment"));
        }
    }

    fn draft(&mut self) -> Draft {
        self.sequence += 1;
        self.before.extend_from(&self.gap);
        let place = (self.branch, self.epoch, self.sequence);
        let mut draft = Draft::begin(place, self.before.clone(), Checksum::Crc32, &self.format);
        draft.gap = std::mem::take(&mut self.gap);
        draft.source = Some((
            Uuid::from_u128(self.server),
            "8.4.6".to_owned(),
            format!("binlog.{:06}", self.file),
        ));
        draft
    }

    async fn put(&mut self, mut draft: Draft, is_complete: bool) {
        draft.previous = self.previous;
        draft.continues = self.continues.take();
        let written = at(self.second);
        self.second += 1;
        let encoded = draft
            .encode(1, is_complete.then_some(written), written)
            .expect("encodes");
        self.before = encoded.index.after();
        self.previous = Some(encoded.sha256);
        let body = Bytes::from(encoded.bytes);
        Segment::open(&body).expect("opens");
        self.repository
            .put_segment(&encoded.name, body)
            .await
            .expect("put");
    }

    fn make(&mut self, rows: usize) -> (Vec<Vec<u8>>, IndexedTransaction) {
        let gtid: Gtid = format!("{ORIGIN}:{}", self.gno).parse().expect("a GTID");
        let time = at(self.second) - TimeDelta::milliseconds(500);
        let micros = u64::try_from(time.timestamp_micros()).expect("after 1970");
        let fill = self.gno.to_le_bytes();
        let rows = (0..rows.max(1)).map(|_| ("shop.page", fill.repeat(8)));
        let work = Work::Rows(rows.collect());
        let events = self.source.transaction(&gtid, (micros, micros), &work);
        self.gno += 1;
        let first = RawEvent::new(&events[0]).expect("an event");
        let first = GtidEvent::parse(&first, Checksum::Crc32).expect("a GTID event");
        let mut summary = SummaryBuilder::begin(&first);
        for event in &events {
            let event = RawEvent::new(event).expect("an event");
            summary.take(&event, Checksum::Crc32).expect("a summary");
        }
        let line = IndexedTransaction {
            gtid,
            time,
            original_time: Some(time),
            server_id: self.source.server_id,
            bytes: first.transaction_length,
            summary: summary.finish(),
        };
        (events, line)
    }

    /// A segment of so many transactions; with none it says that nothing happened.
    pub(crate) async fn segment(&mut self, transactions: u64) {
        let mut draft = self.draft();
        for _ in 0..transactions {
            let (events, line) = self.make(1);
            for event in &events {
                draft.push_event(event, self.source.server_id);
            }
            draft.complete(&line).expect("a line");
        }
        self.put(draft, true).await;
    }

    /// A segment whose lines tell this of their transactions, whatever these are.
    pub(crate) async fn segment_of(&mut self, told: &[(DateTime<Utc>, Summary)]) {
        let mut draft = self.draft();
        for (time, summary) in told {
            let (events, mut line) = self.make(1);
            (line.time, line.summary) = (*time, summary.clone());
            for event in &events {
                draft.push_event(event, self.source.server_id);
            }
            draft.complete(&line).expect("a line");
        }
        self.put(draft, true).await;
    }

    /// Makes one object of these segments of the chain, and deletes them.
    pub(crate) async fn compact(&self, run: std::ops::Range<usize>) {
        let chain = self.repository.chain(self.branch).await.expect("a chain");
        let sources = &chain.segments[run];
        let mut merger = Merger::begin(sources, 1).expect("some");
        for source in sources {
            let segment = self.repository.read_segment(source).await;
            merger.add(&segment.expect("a segment")).expect("added");
        }
        let made = merger.finish().expect("made");
        let body = Bytes::from(made.bytes);
        let put = self.repository.put_segment(&made.name, body).await;
        put.expect("put");
        for source in sources {
            let deleted = self.repository.storage().delete(&source.name.key()).await;
            deleted.expect("deleted");
        }
    }

    /// A transaction in parts of three events each; the last `missing` parts are never put.
    pub(crate) async fn giant(&mut self, rows: usize, missing: usize) {
        let (events, line) = self.make(rows);
        let parts: Vec<_> = events.chunks(3).collect();
        for (number, events) in parts[..parts.len() - missing].iter().enumerate() {
            let is_last = number + 1 == parts.len();
            let mut part = self.draft();
            for event in *events {
                part.push_event(event, self.source.server_id);
            }
            part.set_part(Part {
                gtid: line.gtid.clone(),
                continued: number > 0,
                unfinished: true,
            });
            if is_last {
                part.complete(&line).expect("a line");
            }
            self.put(part, is_last).await;
        }
        if missing > 0 {
            self.gno -= 1;
        }
    }
}
