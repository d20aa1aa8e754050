//! A made-up source, what the cutter should keep of it, and a reader of what came out.

use bytes::Bytes;
use chrono::DateTime;
use proptest::prelude::*;
use uuid::Uuid;

use crate::archive::catalog::{Chain, StoredSegment};
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::segment::{Draft, Segment, SegmentIndex};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::mysql::binlog::{EventError, EventKind, GtidEvent, RawEvent};
use crate::stream::cutter::Cutter;

/// Where the archive starts: these are never sent.
pub(super) const ORIGIN: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-10";

/// A transaction, as it should be committed.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) gtid: Gtid,
    pub(super) micros: (u64, u64),
    pub(super) work: Work,
}

/// A server that holds the transactions in an order and in files of its own.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) uuid: Uuid,
    pub(super) log: SourceLog,
    /// The first transaction of each file.
    pub(super) files: Vec<usize>,
    pub(super) order: Vec<Transaction>,
}

impl Source {
    /// What a dump from `have` sends.
    pub(super) fn dump(&self, have: &GtidSet) -> Vec<Vec<u8>> {
        let mut log = self.log.clone();
        let mut events = Vec::new();
        let mut before: GtidSet = ORIGIN.parse().expect("a set");
        for (number, start) in self.files.iter().enumerate() {
            let end = self.files.get(number + 1).copied();
            let name = format!("binlog.{:06}", number + 1);
            events.extend(log.open_file(&name, &before, self.log.checksum));
            for transaction in &self.order[*start..end.unwrap_or(self.order.len())] {
                before.insert(&transaction.gtid);
                let bytes =
                    log.transaction(&transaction.gtid, transaction.micros, &transaction.work);
                if !have.contains(&transaction.gtid) {
                    events.extend(bytes);
                }
            }
            if end.is_some() {
                events.push(log.close_file(&format!("binlog.{:06}", number + 2)));
            }
        }
        events
    }
}

/// Feeds a cutter and remembers what it should have kept.
pub(super) struct Run {
    pub(super) cutter: Cutter,
    pub(super) drafts: Vec<Draft>,
    pub(super) whole: Vec<(Gtid, Vec<Vec<u8>>)>,
    pub(super) open: Vec<Vec<u8>>,
    pub(super) largest_event: usize,
}

impl Run {
    pub(super) fn new(limit: usize) -> Self {
        let before = ORIGIN.parse().expect("a set");
        Self {
            cutter: Cutter::new(BranchNumber(1), Epoch(1), before, limit),
            drafts: Vec::new(),
            whole: Vec::new(),
            open: Vec::new(),
            largest_event: 0,
        }
    }

    pub(super) fn turn_to(&mut self, source: &Source) -> Vec<Vec<u8>> {
        let have = self.cutter.received();
        let cut = self
            .cutter
            .turn_to(source.uuid, "8.4.6".to_owned(), source.log.checksum);
        self.drafts.extend(cut);
        self.open.clear();
        source.dump(&have)
    }

    pub(super) fn feed(&mut self, event: &[u8]) -> Result<(), EventError> {
        let cut = self.cutter.take(event)?;
        self.drafts.extend(cut);
        let kind = RawEvent::new(event)?.kind();
        if kind.is_file_event() {
            return Ok(());
        }
        self.largest_event = self.largest_event.max(event.len());
        self.open.push(event.to_vec());
        if !self.cutter.is_inside() {
            let events = std::mem::take(&mut self.open);
            let first = RawEvent::new(&events[0])?;
            let checksum = self.cutter.checksum;
            let gtid = GtidEvent::parse(&first, checksum)?.gtid;
            self.whole.push((gtid, events));
        }
        Ok(())
    }
}

/// Encodes drafts, linked as the uploader links them, and stores them in memory.
pub(super) fn store(drafts: Vec<Draft>) -> Vec<(StoredSegment, Segment)> {
    let mut stored: Vec<(StoredSegment, Segment)> = Vec::new();
    store_behind(&mut stored, drafts);
    stored
}

/// The same, behind what is stored already.
pub(super) fn store_behind(stored: &mut Vec<(StoredSegment, Segment)>, drafts: Vec<Draft>) {
    for mut draft in drafts {
        draft.previous = stored.last().map(|(_, segment)| *segment.sha256());
        let encoded = draft
            .encode(1, None, DateTime::UNIX_EPOCH)
            .expect("encodes");
        let size = encoded.bytes.len() as u64;
        let segment = Segment::open(&Bytes::from(encoded.bytes)).expect("opens");
        assert_eq!(*segment.index(), encoded.index);
        assert_eq!(*segment.sha256(), encoded.sha256);
        let index = encoded.index;
        stored.push((
            StoredSegment {
                name: encoded.name,
                size,
                index,
            },
            segment,
        ));
    }
}

/// The events of a segment behind FORMAT_DESCRIPTION and PREVIOUS_GTIDS, which are checked.
fn payload_events(segment: &Segment) -> Vec<Vec<u8>> {
    let index = segment.index();
    let mut events = segment.events().expect("decompresses");
    let mut all = Vec::new();
    while let Some(event) = events.next_event().expect("whole") {
        all.push(event.bytes().to_vec());
    }
    assert!(all.len() >= 2, "a file has its two first events");
    let format = RawEvent::new(&all[0]).expect("an event");
    assert_eq!(format.announced_checksum(), Ok(index.checksum));
    let previous = RawEvent::new(&all[1]).expect("an event");
    assert_eq!(previous.kind(), EventKind::PREVIOUS_GTIDS);
    let set = GtidSet::decode(previous.body(index.checksum).expect("a body"));
    assert_eq!(set.as_ref(), Ok(&index.before));
    all.split_off(2)
}

/// What a reader of the archive gets: the events of every transaction that is whole. Parts that
/// nothing finishes are left out by what the indexes say of them alone.
pub(super) fn read_back(segments: &[(StoredSegment, Segment)]) -> Vec<(Gtid, Vec<Vec<u8>>)> {
    let mut whole = Vec::new();
    let mut open: Option<(Gtid, Vec<Vec<u8>>)> = None;
    for (_, segment) in segments {
        let index: &SegmentIndex = segment.index();
        let continued = index.part.as_ref().is_some_and(|part| part.continued);
        if !continued {
            open = None;
        }
        let mut completed = Vec::new();
        for bytes in payload_events(segment) {
            let event = RawEvent::new(&bytes).expect("an event");
            if event.kind().is_gtid() {
                completed.extend(open.take());
                let first = GtidEvent::parse(&event, index.checksum).expect("a GTID event");
                open = Some((first.gtid, vec![bytes]));
            } else {
                let (_, events) = open.as_mut().expect("inside a transaction");
                events.push(bytes);
            }
        }
        match &index.part {
            Some(part) => {
                let (gtid, _) = open.as_ref().expect("a part holds events");
                assert_eq!(*gtid, part.gtid);
                assert!(completed.is_empty(), "a part holds one transaction only");
                if !part.unfinished {
                    completed.extend(open.take());
                }
            }
            None => completed.extend(open.take()),
        }
        let gtids: Vec<&Gtid> = completed.iter().map(|(gtid, _)| gtid).collect();
        let details = segment.details().expect("lines");
        assert_eq!(details.iter().map(|l| &l.gtid).collect::<Vec<_>>(), gtids);
        assert_eq!(index.transactions, gtids.len() as u64);
        assert_eq!(gtids.into_iter().cloned().collect::<GtidSet>(), index.added);
        for (line, (_, events)) in details.iter().zip(&completed) {
            let length: usize = events.iter().map(Vec::len).sum();
            assert_eq!(line.bytes, length as u64);
        }
        whole.extend(completed);
    }
    whole
}

pub(super) fn check(
    run: &Run,
    segments: &[(StoredSegment, Segment)],
    limit: usize,
) -> Result<(), TestCaseError> {
    let received = run.cutter.received();
    let got = read_back(segments);
    prop_assert_eq!(&got, &run.whole);
    for (stored, segment) in segments {
        let head = 4 + 200 + 19 + 4 + segment.index().before.encode().len();
        let bound = limit.max(head) + head + 2 * run.largest_event;
        prop_assert!(stored.index.raw_bytes <= bound as u64);
    }
    let chain = Chain::compute(
        BranchNumber(1),
        segments.iter().map(|(stored, _)| stored.clone()).collect(),
    );
    prop_assert_eq!(&chain.problems, &[]);
    prop_assert_eq!(
        chain.end().unwrap_or(ORIGIN.parse().expect("a set")),
        received
    );
    // A claim that goes on from here asks again for no whole transaction.
    if let Some(resume) = chain.resume_point() {
        prop_assert_eq!(Some(resume.index.after()), chain.end());
    }
    Ok(())
}
