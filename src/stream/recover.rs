//! What a dead run has left in the spool, on its way into the archive.
//!
//! Its segments belong to a claim that is over, so they are not put as they are: their events go
//! through the cutter again, as though a source had sent them. A transaction that the archive
//! holds already is left out. What does not go on from where the archive ends (because something
//! between is missing here) is left alone on disk: the source may still send it.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::cutter::Cutter;
use super::error::StreamError;
use super::journal::JournalReader;
use super::spool::{Leftovers, SpoolError};
use crate::archive::segment::{Draft, Segment, SegmentError};
use crate::gtid::GtidSet;
use crate::mysql::binlog::{
    Checksum, EventBuilder, EventError, EventKind, Piece, RawEvent, Splitter,
};

/// The transactions that lie in `leftovers` whole.
///
/// # Errors
///
/// [`StreamError::Spool`] if a file cannot be read.
pub(super) fn survey(leftovers: &[Leftovers]) -> Result<GtidSet, StreamError> {
    let mut found = GtidSet::new();
    for left in leftovers {
        for path in &left.segments {
            if let Ok(segment) = open(path)? {
                found.extend_from(&segment.index().added);
            }
        }
        for path in &left.journals {
            let mut scan = Scan::default();
            let mut journal = JournalReader::open(path).map_err(unreadable(path))?;
            scan.checksum = journal.checksum;
            while let Some(event) = journal.next_event().map_err(unreadable(path))? {
                if !scan.take(&event) {
                    break;
                }
            }
            found.extend_from(&scan.whole);
        }
    }
    Ok(found)
}

/// Feeds what lies in `left` to the cutter; `cut` takes the drafts that come out. Returns whether
/// all of it is in the cutter or was there before.
///
/// # Errors
///
/// [`StreamError::Spool`] if a file cannot be read.
pub(super) fn replay(
    left: &Leftovers,
    cutter: &mut Cutter,
    cut: &mut dyn FnMut(Draft),
) -> Result<bool, StreamError> {
    let mut complete = true;
    let mut feeder = Feeder {
        cutter,
        cut,
        splitter: Splitter::default(),
        checksum: Checksum::Crc32,
        passing: false,
        file: None,
    };
    for path in &left.segments {
        complete &= match open(path)? {
            Ok(segment) => feeder.segment(&segment, path)?,
            Err(error) => {
                say_skipped(path, &error);
                false
            }
        };
    }
    for path in &left.journals {
        complete &= feeder.journal(path)?;
    }
    let last = feeder.cutter.finish();
    last.into_iter().for_each(cut);
    Ok(complete)
}

fn say_skipped(path: &Path, error: &SegmentError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "{} is left alone",
        path.display()
    );
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> StreamError {
    let path = path.to_owned();
    move |source| SpoolError { path, source }.into()
}

fn open(path: &PathBuf) -> Result<Result<Segment, SegmentError>, StreamError> {
    let bytes = fs::read(path).map_err(unreadable(path))?;
    Ok(Segment::open(&Bytes::from(bytes)))
}

/// Finds whole transactions.
#[derive(Debug)]
struct Scan {
    splitter: Splitter,
    checksum: Checksum,
    open: Option<crate::gtid::Gtid>,
    whole: GtidSet,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            splitter: Splitter::default(),
            checksum: Checksum::Crc32,
            open: None,
            whole: GtidSet::new(),
        }
    }
}

impl Scan {
    /// `false` where the events stop to make sense: the crash tore the file there.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let piece = RawEvent::new(bytes).and_then(|event| {
            if event.kind() == EventKind::FORMAT_DESCRIPTION {
                self.checksum = event.announced_checksum()?;
                return Ok(Piece::File);
            }
            event.verify(self.checksum)?;
            self.splitter.take(&event, self.checksum)
        });
        match piece {
            Ok(Piece::First(first)) => self.open = Some(first.gtid),
            Ok(Piece::Last) => self.whole.extend(self.open.take()),
            Ok(_) => {}
            Err(_) => return false,
        }
        true
    }
}

struct Feeder<'a> {
    cutter: &'a mut Cutter,
    cut: &'a mut dyn FnMut(Draft),
    splitter: Splitter,
    checksum: Checksum,
    /// Whether the open transaction goes to the cutter.
    passing: bool,
    /// The source's UUID and file of the last segment.
    file: Option<(uuid::Uuid, String)>,
}

impl Feeder<'_> {
    /// Feeds a segment; `false` if it does not go on from what the cutter has.
    fn segment(&mut self, segment: &Segment, path: &Path) -> Result<bool, StreamError> {
        let index = segment.index();
        if index.added.is_subset(&self.cutter.received()) && index.part.is_none() {
            return Ok(true);
        }
        if !index.before.is_subset(&self.cutter.received()) {
            tracing::warn!(
                "{} is left alone: what lies before it is missing",
                path.display()
            );
            return Ok(false);
        }
        let mut events = segment.events()?;
        let continued = index.part.as_ref().is_some_and(|part| part.continued);
        let source = index.source.as_ref();
        let file = source.map(|source| (source.uuid, source.file.clone()));
        if continued && self.file != file {
            return Ok(false);
        }
        if !continued {
            if let Some(source) = source {
                self.turn_to(source.uuid, source.version.clone(), index.checksum);
                let rotate = EventBuilder::new(index.checksum, 1).rotate(&source.file, 4, 0);
                self.take(&rotate, path)?;
            }
            self.file = file;
        }
        let mut head = 0;
        while let Some(event) = events.next_event()? {
            head += 1;
            // Inside a transaction the head of the file must not reach the splitter.
            if continued && head <= 2 {
                continue;
            }
            let bytes = event.bytes().to_vec();
            self.take(&bytes, path)?;
        }
        Ok(true)
    }

    /// Feeds a journal, up to where the crash tore it; `false` if it does not go on from what the
    /// cutter has.
    fn journal(&mut self, path: &Path) -> Result<bool, StreamError> {
        let mut journal = JournalReader::open(path).map_err(unreadable(path))?;
        self.turn_to(journal.source, String::new(), journal.checksum);
        while let Some(bytes) = journal.next_event().map_err(unreadable(path))? {
            let Ok(event) = RawEvent::new(&bytes) else {
                break;
            };
            if event.kind() == EventKind::PREVIOUS_GTIDS {
                let before = event
                    .body(self.checksum)
                    .ok()
                    .and_then(|body| GtidSet::decode(body).ok());
                if before.is_none_or(|before| !before.is_subset(&self.cutter.received())) {
                    tracing::warn!(
                        "{} is left alone: what lies before it is missing",
                        path.display()
                    );
                    return Ok(false);
                }
                continue;
            }
            if self.take(&bytes, path).is_err() {
                // Torn by the crash: what was acknowledged lies before.
                break;
            }
        }
        Ok(true)
    }

    fn turn_to(&mut self, source: uuid::Uuid, version: String, checksum: Checksum) {
        self.splitter.reset();
        self.passing = false;
        self.checksum = checksum;
        if let Some(draft) = self.cutter.turn_to(source, version, checksum) {
            (self.cut)(draft);
        }
    }

    fn take(&mut self, bytes: &[u8], path: &Path) -> Result<(), StreamError> {
        let broken = |source: EventError| StreamError::Event {
            server: path.display().to_string(),
            file: String::new(),
            position: 0,
            source,
        };
        let event = RawEvent::new(bytes).map_err(broken)?;
        let piece = if event.kind() == EventKind::FORMAT_DESCRIPTION {
            self.checksum = event.announced_checksum().map_err(broken)?;
            Piece::File
        } else {
            self.splitter.take(&event, self.checksum).map_err(broken)?
        };
        let passes = match piece {
            Piece::File => true,
            Piece::First(first) => {
                self.passing = !self.cutter.received().contains(&first.gtid);
                self.passing
            }
            Piece::Inside | Piece::Last => self.passing,
        };
        if passes && let Some(draft) = self.cutter.take(bytes).map_err(broken)? {
            (self.cut)(draft);
        }
        Ok(())
    }
}
