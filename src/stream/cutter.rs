//! From events to segments, without IO: where to cut.
//!
//! Segments end between transactions, when they are large enough, when the caller's interval is
//! over, or when the source starts a new file (its logical clock starts anew there). A
//! transaction larger than a segment is cut into parts, which hold nothing else: a claim that
//! goes on before an unfinished transaction leaves out no whole one. The invariant: the drafts
//! that come out, put one behind the other, hold the bytes of every event of every transaction
//! that went in, once and in order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::segment::{Block, Draft, IndexedTransaction, Part};
use crate::clock::from_micros;
use crate::gtid::{Gtid, GtidSet, Tsid};
use crate::mysql::binlog::{
    Checksum, EventError, EventKind, GtidEvent, HEADER_LENGTH, Piece, RawEvent, Splitter,
    SummaryBuilder,
};

/// `LOG_EVENT_ARTIFICIAL_F`.
const ARTIFICIAL: u16 = 0x20;

/// Where the stream stands in the source's binlog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcePosition {
    /// The file's name.
    pub file: String,
    /// The position behind the last event.
    pub position: u64,
}

/// A segment holds at most so many transactions, so that the lines that tell of them stay small.
const TRANSACTION_LIMIT: u64 = 100_000;

/// The transaction that is open.
#[derive(Debug)]
struct Open {
    first: GtidEvent,
    server_id: u32,
    /// Whether parts of it have left in earlier drafts.
    parted: bool,
    summary: SummaryBuilder,
}

/// Makes drafts of segments out of events.
#[derive(Debug)]
pub struct Cutter {
    branch: BranchNumber,
    epoch: Epoch,
    next_sequence: u64,
    limit: usize,
    before: GtidSet,
    source: Option<(Uuid, String)>,
    position: SourcePosition,
    checksum: Checksum,
    format: Vec<u8>,
    splitter: Splitter,
    open: Option<Open>,
    draft: Option<Draft>,
    last_commit: Option<DateTime<Utc>>,
    /// The last whole transaction of each origin.
    latest: BTreeMap<Tsid, IndexedTransaction>,
}

impl Cutter {
    /// A cutter for a claim that goes on from `before`; `limit` is a segment's size in bytes of
    /// binlog.
    #[must_use]
    pub fn new(branch: BranchNumber, epoch: Epoch, before: GtidSet, limit: usize) -> Self {
        Self {
            branch,
            epoch,
            next_sequence: 1,
            limit,
            before,
            source: None,
            position: SourcePosition::default(),
            checksum: Checksum::Crc32,
            format: Vec::new(),
            splitter: Splitter::default(),
            open: None,
            draft: None,
            last_commit: None,
            latest: BTreeMap::new(),
        }
    }

    /// The commit time, on the source, of the last transaction that came whole.
    #[must_use]
    pub const fn last_commit(&self) -> Option<DateTime<Utc>> {
        self.last_commit
    }

    /// The last transaction of each origin that came whole.
    #[must_use]
    pub const fn latest(&self) -> &BTreeMap<Tsid, IndexedTransaction> {
        &self.latest
    }

    /// Tells which transaction of an origin was the last one before this claim.
    pub fn remember(&mut self, transaction: IndexedTransaction) {
        self.latest
            .insert(transaction.gtid.tsid.clone(), transaction);
    }

    /// Turns to a source: what follows comes from a new connection to it.
    ///
    /// An unfinished transaction is forgotten, for the source will send it again; the whole ones
    /// before it are cut off and returned.
    pub fn turn_to(&mut self, uuid: Uuid, version: String, checksum: Checksum) -> Option<Draft> {
        let cut = self.finish();
        self.source = Some((uuid, version));
        self.checksum = checksum;
        self.format.clear();
        self.position = SourcePosition::default();
        cut
    }

    /// Every GTID that went in as a whole transaction, with what was there before.
    #[must_use]
    pub fn received(&self) -> GtidSet {
        match &self.draft {
            Some(draft) => self.before.union(draft.added()),
            None => self.before.clone(),
        }
    }

    /// Whether a transaction went in whole or was there before.
    #[must_use]
    pub fn holds(&self, gtid: &Gtid) -> bool {
        let in_draft = |draft: &Draft| draft.added().contains(gtid);
        self.before.contains(gtid) || self.draft.as_ref().is_some_and(in_draft)
    }

    /// The history that is written to.
    #[must_use]
    pub const fn branch(&self) -> BranchNumber {
        self.branch
    }

    /// Where the stream stands in the source's binlog.
    #[must_use]
    pub const fn position(&self) -> &SourcePosition {
        &self.position
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        self.open.is_some()
    }

    /// Whether there is something to cut.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| !draft.is_empty())
    }

    /// Gives out a block that will not change any more, to be packed meanwhile. It belongs to the
    /// draft that comes out next.
    pub fn seal(&mut self) -> Option<Block> {
        self.draft.as_mut()?.seal()
    }

    /// Notes that an event went by that the archive holds already.
    pub fn skip(&mut self, bytes: &[u8]) {
        if let Ok(event) = RawEvent::new(bytes) {
            self.advance(&event);
        }
    }

    /// Takes the next event as the source sent it and returns a draft when one is full.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the event is broken or out of place; nothing of it is kept.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Draft>, EventError> {
        let mended;
        let mut event = RawEvent::new(bytes)?;
        if event.kind() == EventKind::FORMAT_DESCRIPTION {
            mended = verified_format(&event)?;
            event = RawEvent::new(&mended)?;
        } else {
            event.verify(self.checksum)?;
        }
        let piece = self.splitter.take(&event, self.checksum)?;
        self.advance(&event);
        match piece {
            Piece::File => self.take_file_event(&event),
            Piece::First(first) => {
                self.begin(&event, first)?;
                Ok(None)
            }
            Piece::Inside => {
                self.append(&event)?;
                Ok(self.part_if_full())
            }
            Piece::Last => {
                self.append(&event)?;
                self.complete()
            }
        }
    }

    fn advance(&mut self, event: &RawEvent<'_>) {
        let header = event.header();
        let is_artificial = header.flags & ARTIFICIAL != 0;
        if header.log_pos == 0 || is_artificial || event.kind() == EventKind::HEARTBEAT_V2 {
            return;
        }
        // Headers carry 32 bits; a file may be longer. Between two events lie less than 4 GiB,
        // but for those that the source left out: before the next one it then names its place in
        // full (`Binlog_sender::send_events`, `sql/rpl_binlog_sender.cc`). One that is only a
        // little behind (a heartbeat) is no step beyond 4 GiB: all of the binlog up to there would
        // seem to have been received.
        let high = self.position.position & !0xFFFF_FFFF;
        let mut position = high | u64::from(header.log_pos);
        if position + (1 << 31) < self.position.position {
            position += 1 << 32;
        }
        self.position.position = self.position.position.max(position);
    }

    fn take_file_event(&mut self, event: &RawEvent<'_>) -> Result<Option<Draft>, EventError> {
        match event.kind() {
            EventKind::ROTATE => {
                let (position, file) = event.rotate_target(self.checksum)?;
                if self.position.file == file {
                    return Ok(None);
                }
                self.position = SourcePosition { file, position };
                Ok(self.cut())
            }
            EventKind::FORMAT_DESCRIPTION => {
                let checksum = event.announced_checksum()?;
                let cut = if self.has_events() { self.cut() } else { None };
                self.checksum = checksum;
                self.format = event.bytes().to_vec();
                self.draft = None;
                if let Some((_, version)) = &mut self.source {
                    *version = event.announced_version()?;
                }
                Ok(cut)
            }
            EventKind::HEARTBEAT_V2 => {
                let (file, position) = event.heartbeat_v2_place(self.checksum)?;
                if file == self.position.file {
                    self.position.position = self.position.position.max(position);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn draft(&mut self) -> Result<&mut Draft, EventError> {
        if self.draft.is_none() {
            if self.format.is_empty() {
                return Err(EventError::Order(
                    "an event before the file's FORMAT_DESCRIPTION".to_owned(),
                ));
            }
            let position = (self.branch, self.epoch, self.next_sequence);
            let mut draft =
                Draft::begin(position, self.before.clone(), self.checksum, &self.format);
            draft.source = self
                .source
                .clone()
                .map(|(uuid, version)| (uuid, version, self.position.file.clone()));
            self.draft = Some(draft);
        }
        self.draft
            .as_mut()
            .ok_or_else(|| EventError::Order("no segment to write to".to_owned()))
    }

    fn begin(&mut self, event: &RawEvent<'_>, first: GtidEvent) -> Result<(), EventError> {
        if self.holds(&first.gtid) {
            return Err(EventError::Order(format!(
                "transaction {} comes a second time",
                first.gtid
            )));
        }
        self.draft()?
            .push_event(event.bytes(), event.header().server_id);
        self.open = Some(Open {
            summary: SummaryBuilder::begin(&first),
            server_id: event.header().server_id,
            first,
            parted: false,
        });
        Ok(())
    }

    fn append(&mut self, event: &RawEvent<'_>) -> Result<(), EventError> {
        let checksum = self.checksum;
        if let Some(open) = &mut self.open {
            open.summary.take(event, checksum)?;
        }
        self.draft()?
            .push_event(event.bytes(), event.header().server_id);
        Ok(())
    }

    fn part_if_full(&mut self) -> Option<Draft> {
        let open = self.open.as_mut()?;
        let draft = self.draft.as_mut()?;
        if draft.raw_bytes() < self.limit {
            return None;
        }
        if draft.transactions() > 0 {
            return self.cut_before_open();
        }
        let part = |continued| Part {
            gtid: open.first.gtid.clone(),
            continued,
            unfinished: true,
        };
        if draft.part().is_none() {
            draft.set_part(part(false));
        }
        let next_part = part(true);
        open.parted = true;
        let cut = self.cut_draft();
        if let Ok(next) = self.draft() {
            next.set_part(next_part);
        }
        cut
    }

    fn complete(&mut self) -> Result<Option<Draft>, EventError> {
        let Some(open) = self.open.take() else {
            return Err(EventError::Order("an end without a start".to_owned()));
        };
        let out_of_range = || {
            EventError::Order(format!(
                "transaction {} has an impossible commit time",
                open.first.gtid
            ))
        };
        let time = from_micros(open.first.immediate_commit_micros).ok_or_else(out_of_range)?;
        let original_time = match open.first.original_commit_micros {
            0 => None,
            micros => Some(from_micros(micros).ok_or_else(out_of_range)?),
        };
        let parted = open.parted;
        let transaction = IndexedTransaction {
            time,
            original_time,
            server_id: open.server_id,
            bytes: open.first.transaction_length,
            gtid: open.first.gtid,
            summary: open.summary.finish(),
        };
        let limit = self.limit;
        let draft = self.draft()?;
        draft
            .complete(&transaction)
            .map_err(|error| EventError::Order(error.to_string()))?;
        // The end of a transaction in parts stands alone, so that one part says it all.
        let full = draft.raw_bytes() >= limit || draft.transactions() >= TRANSACTION_LIMIT;
        self.last_commit = Some(time);
        self.remember(transaction);
        if parted || full {
            return Ok(self.cut());
        }
        Ok(None)
    }

    /// Cuts between transactions; `None` if there is no whole one. The events of one that has
    /// begun move on to the next draft.
    pub fn cut(&mut self) -> Option<Draft> {
        if self.open.is_some() {
            return self.cut_before_open();
        }
        if !self.has_events() {
            return None;
        }
        self.cut_draft()
    }

    fn cut_before_open(&mut self) -> Option<Draft> {
        let server_id = self.open.as_ref()?.server_id;
        let draft = self.draft.as_mut()?;
        if draft.transactions() == 0 {
            return None;
        }
        let begun = draft.split_off_unfinished();
        let cut = self.cut_draft();
        if let Ok(next) = self.draft() {
            next.push_unfinished(begun, server_id);
        }
        cut
    }

    /// Gives up on what comes next: an unfinished transaction is forgotten, and the whole ones
    /// before it are cut.
    pub fn finish(&mut self) -> Option<Draft> {
        self.abandon_transaction();
        self.cut()
    }

    /// Forgets what has come since the last cut.
    pub fn discard(&mut self) {
        self.splitter.reset();
        self.open = None;
        self.draft = None;
    }

    /// A segment without events, to say that nothing happened; `None` if something did, or if
    /// no file has begun.
    pub fn silence(&mut self) -> Option<Draft> {
        if self.open.is_some() || self.has_events() || self.format.is_empty() {
            return None;
        }
        self.draft().ok()?;
        self.cut_draft()
    }

    fn cut_draft(&mut self) -> Option<Draft> {
        let draft = self.draft.take()?;
        self.before.extend_from(draft.added());
        self.next_sequence += 1;
        Some(draft)
    }

    fn abandon_transaction(&mut self) {
        self.splitter.reset();
        if self.open.take().is_some()
            && let Some(draft) = &mut self.draft
        {
            draft.forget_unfinished();
        }
    }
}

/// A FORMAT_DESCRIPTION event, whose checksum fits.
///
/// It has a CRC whatever the algorithm of the others is. But a server that sends a file from its
/// middle on clears the event's time of creation, and only one with checksums then counts the
/// CRC anew (`Binlog_sender::send_format_description_event`, `sql/rpl_binlog_sender.cc`).
fn verified_format(event: &RawEvent<'_>) -> Result<Vec<u8>, EventError> {
    /// Behind the header, the version of the format and that of the server.
    const CREATED: std::ops::Range<usize> = HEADER_LENGTH + 52..HEADER_LENGTH + 56;
    let mut bytes = event.bytes().to_vec();
    let verified = event.verify(Checksum::Crc32);
    let is_cleared = bytes.get(CREATED) == Some(&[0; 4]);
    if verified.is_err() && is_cleared && event.announced_checksum()? == Checksum::None {
        let end = bytes.len() - Checksum::Crc32.length();
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        return Ok(bytes);
    }
    verified?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
