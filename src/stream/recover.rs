//! What a dead run has left in the spool, on its way into the archive.
//!
//! Its segments belong to a claim that is over, so they are not put as they are: their events go
//! through the cutter again, as though a source had sent them. A transaction that the archive
//! holds already is left out. One in parts whose first parts had reached the archive before the
//! crash is begun with those.
//!
//! What does not go on from where the archive ends, what belongs to another history, and what is
//! damaged is kept on disk and told: the source may still send it, or a person look at it. The
//! invariant: a file is said to be done only if every transaction that was whole in it is in the
//! cutter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::cutter::Cutter;
use super::error::StreamError;
use super::journal::{JournalName, JournalReader, Next};
use super::spool::{Leftovers, SpoolError};
use crate::archive::catalog::StoredSegment;
use crate::archive::hash::Sha256;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::repository::Repository;
use crate::archive::segment::{Draft, Segment, SegmentError, SegmentIndex};
use crate::error::with_causes;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{
    Checksum, EventBuilder, EventError, EventKind, Piece, RawEvent, Splitter,
};

/// So much of a draft that nobody wants is held at most.
const SURVEY_BYTES: usize = 4 << 20;

/// What became of the files.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Those whose transactions are all in the cutter, or were in the archive before.
    pub(super) done: Vec<PathBuf>,
    /// Those that are kept, and why.
    pub(super) kept: Vec<(PathBuf, String)>,
    /// Whether it was stopped before its end.
    pub(super) cancelled: bool,
}

/// The transactions that [`replay`] would add to `have`.
///
/// # Errors
///
/// As [`replay`].
pub(super) async fn survey(
    repository: &Repository,
    branch: BranchNumber,
    have: &GtidSet,
    leftovers: &[Leftovers],
) -> Result<GtidSet, StreamError> {
    if leftovers.is_empty() {
        return Ok(GtidSet::new());
    }
    let archived = Archived::new(repository.clone());
    let (have, leftovers) = (have.clone(), leftovers.to_vec());
    // Nobody waits for it any more once this future is gone.
    let cancel = CancellationToken::new();
    let _stops = cancel.clone().drop_guard();
    tokio::task::spawn_blocking(move || {
        let mut cutter = Cutter::new(branch, Epoch(0), have.clone(), SURVEY_BYTES);
        for left in &leftovers {
            replay(left, &archived, &mut cutter, &mut drop, &cancel)?;
        }
        Ok(cutter.received().subtract(&have))
    })
    .await?
}

/// Feeds what lies in `left` to the cutter; `cut` takes the drafts that come out.
///
/// # Errors
///
/// [`StreamError::Spool`] if a file cannot be read, [`StreamError::Archive`] if the store fails.
pub(super) fn replay(
    left: &Leftovers,
    archived: &Archived,
    cutter: &mut Cutter,
    cut: &mut dyn FnMut(Draft),
    cancel: &CancellationToken,
) -> Result<Outcome, StreamError> {
    let mut feeder = Feeder {
        branch: cutter.branch(),
        archived,
        cutter,
        cut,
        cancel,
        splitter: Splitter::default(),
        checksum: Checksum::Crc32,
        passing: false,
        last: None,
    };
    let mut outcome = Outcome::default();
    let mut taken = Vec::new();
    let mut pending = files(left);
    loop {
        let before = feeder.cutter.received();
        let mut waiting = Vec::new();
        for file in pending {
            let fate = feeder.file(&file)?;
            if cancel.is_cancelled() {
                outcome.cancelled = true;
                return Ok(outcome);
            }
            match fate {
                Fate::Taken(open) => taken.push((file.path, open)),
                Fate::Waits(reason) => waiting.push((file, reason)),
                Fate::Kept(reason) => outcome.kept.push((file.path, reason)),
            }
        }
        if waiting.is_empty() || feeder.cutter.received() == before {
            let kept = waiting.into_iter().map(|(file, why)| (file.path, why));
            outcome.kept.extend(kept);
            break;
        }
        // What was missing before one may have come behind it.
        pending = waiting.into_iter().map(|(file, _)| file).collect();
    }
    let last = feeder.cutter.finish();
    last.into_iter().for_each(cut);
    let all = outcome.kept.is_empty();
    for (path, open) in taken {
        match open {
            // Its rest may be in a file that is kept.
            Some(gtid) if !all && !cutter.holds(&gtid) => {
                let reason = format!("{gtid} is not whole here");
                outcome.kept.push((path, reason));
            }
            _ => outcome.done.push(path),
        }
    }
    Ok(outcome)
}

#[derive(Debug)]
struct LeftFile {
    path: PathBuf,
    is_journal: bool,
    /// Whether the run may have died while it wrote this one.
    may_be_torn: bool,
}

/// The files in the order in which they were written, segments first.
fn files(left: &Leftovers) -> Vec<LeftFile> {
    // A run syncs a journal before it begins the next one.
    let mut last: BTreeMap<_, u64> = BTreeMap::new();
    for name in left.journals.iter().filter_map(|p| JournalName::of(p)) {
        let last = last.entry((name.branch, name.epoch)).or_default();
        *last = name.number.max(*last);
    }
    let segments = left.segments.iter().map(|path| LeftFile {
        path: path.clone(),
        is_journal: false,
        may_be_torn: false,
    });
    let journals = left.journals.iter().map(|path| LeftFile {
        path: path.clone(),
        is_journal: true,
        may_be_torn: JournalName::of(path)
            .is_some_and(|name| last.get(&(name.branch, name.epoch)) == Some(&name.number)),
    });
    segments.chain(journals).collect()
}

/// What the archive holds of transactions that go on in the spool.
#[derive(Debug)]
pub(super) struct Archived {
    repository: Repository,
    runtime: Handle,
}

impl Archived {
    /// To be made where a runtime is, and used where blocking is allowed.
    pub(super) fn new(repository: Repository) -> Self {
        Self {
            repository,
            runtime: Handle::current(),
        }
    }

    /// The parts before this one, from the first on; none if they are not all there.
    fn parts_before(&self, index: &SegmentIndex) -> Result<Vec<StoredSegment>, StreamError> {
        let chain = self.runtime.block_on(self.repository.chain(index.branch))?;
        // They do not count any more, once a later claim has begun the transaction anew.
        let stored: Vec<&StoredSegment> = chain.segments.iter().chain(&chain.beside).collect();
        let mut parts: Vec<StoredSegment> = Vec::new();
        let mut next = index;
        while next.part.as_ref().is_some_and(|part| part.continued) {
            let is_before = |stored: &&&StoredSegment| {
                !stored.name.compacted
                    && (stored.name.epoch, stored.name.last + 1)
                        == (next.epoch, next.first_sequence)
                    && next.previous.map(|digest| digest.short()) == Some(stored.name.hash8.clone())
                    && gtid_of(&stored.index) == gtid_of(next)
            };
            let Some(found) = stored.iter().find(is_before) else {
                return Ok(Vec::new());
            };
            parts.push((*found).clone());
            next = &found.index;
        }
        parts.reverse();
        Ok(parts)
    }

    fn read(&self, stored: &StoredSegment) -> Result<Segment, StreamError> {
        let reading = self.repository.read_segment(stored);
        Ok(self.runtime.block_on(reading)?)
    }
}

/// The transaction of which it holds a part.
fn gtid_of(index: &SegmentIndex) -> Option<&Gtid> {
    index.part.as_ref().map(|part| &part.gtid)
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> StreamError {
    let path = path.to_owned();
    move |source| SpoolError { path, source }.into()
}

/// What became of a file.
#[derive(Debug)]
enum Fate {
    /// All of it is in the cutter or was there before, but for the rest of this transaction.
    Taken(Option<Gtid>),
    /// It does not go on from what the cutter has.
    Waits(String),
    /// It is of no use, or of use no further.
    Kept(String),
}

struct Feeder<'a> {
    branch: BranchNumber,
    archived: &'a Archived,
    cutter: &'a mut Cutter,
    cut: &'a mut dyn FnMut(Draft),
    cancel: &'a CancellationToken,
    splitter: Splitter,
    checksum: Checksum,
    /// Whether the open transaction goes to the cutter.
    passing: bool,
    /// The digest of the last segment, if nothing was fed since.
    last: Option<Sha256>,
}

impl Feeder<'_> {
    fn file(&mut self, file: &LeftFile) -> Result<Fate, StreamError> {
        if file.is_journal {
            return self.journal(&file.path, file.may_be_torn);
        }
        let bytes = fs::read(&file.path).map_err(unreadable(&file.path))?;
        match Segment::open(&Bytes::from(bytes)) {
            Ok(segment) => self.segment(&segment),
            Err(error) => Ok(Fate::Kept(with_causes(&error))),
        }
    }

    fn segment(&mut self, segment: &Segment) -> Result<Fate, StreamError> {
        let index = segment.index();
        if index.branch != self.branch {
            return Ok(Fate::Kept(other_history(index.branch)));
        }
        let received = self.cutter.received();
        let is_there = match gtid_of(index) {
            Some(gtid) => received.contains(gtid),
            None => index.added.is_subset(&received),
        };
        if is_there {
            return Ok(Fate::Taken(None));
        }
        if !index.before.is_subset(&received) {
            return Ok(Fate::Waits(missing_before(&index.before, &received)));
        }
        let continued = index.part.as_ref().is_some_and(|part| part.continued);
        let goes_on = self.splitter.is_inside() && self.last == index.previous;
        if continued && !goes_on {
            let parts = self.archived.parts_before(index)?;
            if parts.is_empty() {
                return Ok(Fate::Waits("the parts before it are missing".to_owned()));
            }
            for stored in parts {
                let part = self.archived.read(&stored)?;
                if let Err(error) = self.feed(&part) {
                    return Ok(Fate::Kept(with_causes(&error)));
                }
            }
            if self.last != index.previous {
                return Ok(Fate::Waits("the parts before it are others".to_owned()));
            }
        }
        if let Err(error) = self.feed(segment) {
            return Ok(Fate::Kept(with_causes(&error)));
        }
        Ok(Fate::Taken(gtid_of(index).cloned()))
    }

    /// Feeds the events of a segment; a part that is continued must come behind the one before.
    fn feed(&mut self, segment: &Segment) -> Result<(), SegmentError> {
        let index = segment.index();
        let continued = index.part.as_ref().is_some_and(|part| part.continued);
        let broken = |offset| move |source| SegmentError::Event { offset, source };
        if !continued && let Some(source) = &index.source {
            self.turn_to(source.uuid, source.version.clone(), index.checksum);
            let rotate = EventBuilder::new(index.checksum, 1).rotate(&source.file, 4, 0);
            self.take(&rotate).map_err(broken(0))?;
        }
        self.last = None;
        let mut events = segment.events()?;
        let mut number = 0;
        let mut offset = 0;
        while let Some(event) = events.next_event()? {
            if self.cancel.is_cancelled() {
                return Ok(());
            }
            number += 1;
            offset += event.bytes().len() as u64;
            // Inside a transaction the head of the file must not reach the splitter.
            if continued && number <= 2 {
                continue;
            }
            let bytes = event.bytes().to_vec();
            self.take(&bytes).map_err(broken(offset))?;
        }
        self.last = Some(*segment.sha256());
        Ok(())
    }

    /// Feeds a journal; what was acknowledged lies before where a crash tore it.
    fn journal(&mut self, path: &Path, may_be_torn: bool) -> Result<Fate, StreamError> {
        let Some(name) = JournalName::of(path) else {
            let reason = "its name does not tell its history; an older version wrote it";
            return Ok(Fate::Kept(reason.to_owned()));
        };
        if name.branch != self.branch {
            return Ok(Fate::Kept(other_history(name.branch)));
        }
        let mut journal = JournalReader::open(path).map_err(unreadable(path))?;
        self.turn_to(name.source, String::new(), name.checksum);
        loop {
            if self.cancel.is_cancelled() {
                return Ok(Fate::Taken(None));
            }
            let at = journal.position();
            let broken = |reason: &dyn std::fmt::Display| {
                Ok(Fate::Kept(format!("it is damaged at byte {at}: {reason}")))
            };
            let bytes = match journal.next_event().map_err(unreadable(path))? {
                Next::Event(bytes) => bytes,
                Next::End => return Ok(Fate::Taken(None)),
                Next::Torn if may_be_torn => return Ok(Fate::Taken(None)),
                Next::Torn => return broken(&"it ends within an event"),
                Next::Broken(reason) => return broken(&reason),
            };
            match self.journaled(&bytes) {
                Ok(None) => {}
                Ok(Some(before)) => {
                    let received = self.cutter.received();
                    if !before.is_subset(&received) {
                        return Ok(Fate::Waits(missing_before(&before, &received)));
                    }
                }
                Err(error) => {
                    let torn = journal.is_torn_behind(&bytes).map_err(unreadable(path))?;
                    if may_be_torn && torn {
                        return Ok(Fate::Taken(None));
                    }
                    return broken(&with_causes(&error));
                }
            }
        }
    }

    /// Feeds an event of a journal; returns the set that had been received before the file.
    fn journaled(&mut self, bytes: &[u8]) -> Result<Option<GtidSet>, EventError> {
        let event = RawEvent::new(bytes)?;
        if event.kind() != EventKind::FORMAT_DESCRIPTION {
            event.verify(self.checksum)?;
        }
        if event.kind() == EventKind::PREVIOUS_GTIDS {
            let decoded = GtidSet::decode(event.body(self.checksum)?);
            return decoded.map(Some).map_err(|error| EventError::Malformed {
                kind: event.kind(),
                reason: error.to_string(),
            });
        }
        self.take(bytes).map(|()| None)
    }

    fn turn_to(&mut self, source: uuid::Uuid, version: String, checksum: Checksum) {
        self.splitter.reset();
        self.passing = false;
        self.last = None;
        self.checksum = checksum;
        if let Some(draft) = self.cutter.turn_to(source, version, checksum) {
            (self.cut)(draft);
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), EventError> {
        let event = RawEvent::new(bytes)?;
        let piece = if event.kind() == EventKind::FORMAT_DESCRIPTION {
            self.checksum = event.announced_checksum()?;
            Piece::File
        } else {
            self.splitter.take(&event, self.checksum)?
        };
        let passes = match piece {
            Piece::File => true,
            Piece::First(first) => {
                self.passing = !self.cutter.holds(&first.gtid);
                self.passing
            }
            Piece::Inside | Piece::Last => self.passing,
        };
        if passes && let Some(draft) = self.cutter.take(bytes)? {
            (self.cut)(draft);
        }
        Ok(())
    }
}

fn other_history(branch: BranchNumber) -> String {
    format!("it belongs to history {}, which was left", branch.0)
}

fn missing_before(before: &GtidSet, received: &GtidSet) -> String {
    format!("{:#} before it is missing", before.subtract(received))
}

#[cfg(test)]
mod tests;
