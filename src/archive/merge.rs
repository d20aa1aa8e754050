//! Several segments into one object, byte for byte. Without IO.
//!
//! The object stands for the segments that it was made of, which follow one another in a chain and
//! are of one binlog file. The same segments give the same bytes. Its invariant is the segments':
//! whole transactions, each verified on the way in and compared on the way out.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use super::catalog::StoredSegment;
use super::hash::Sha256;
use super::layout::{BranchNumber, Epoch};
use super::segment::{Draft, EncodedSegment, Segment, SegmentError, SegmentIndex};
use crate::gtid::Gtid;
use crate::mysql::binlog::{Piece, RawEvent, Splitter};

/// Where an object stands that is made of adjacent segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The history.
    pub branch: BranchNumber,
    /// The newest epoch among the segments.
    pub epoch: Epoch,
    /// The first sequence number of that epoch.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Where the oldest epoch among them went on, if it stands for the start of an epoch.
    pub continues: Option<(Epoch, u64)>,
}

impl Stand {
    /// The place of the object for `sources`, which follow one another in a chain.
    #[must_use]
    pub fn of(sources: &[StoredSegment]) -> Option<Self> {
        let (first, last) = (sources.first()?, sources.last()?);
        let from = first.span().from;
        let sequence = if first.name.epoch == last.name.epoch {
            first.name.first
        } else {
            1
        };
        Some(Self {
            branch: last.name.branch,
            epoch: last.name.epoch,
            first: sequence,
            last: last.name.last,
            continues: Some(from).filter(|from| sequence == 1 && from.0 > Epoch(0)),
        })
    }
}

/// Fills one object from segments that are given in their order.
#[derive(Debug)]
pub struct Merger {
    stand: Stand,
    /// The index of the first segment with events, or of the first if none has any.
    pattern: SegmentIndex,
    first: SegmentIndex,
    level: i32,
    draft: Option<Draft>,
    /// The FORMAT_DESCRIPTION event of the first segment, should none have other events.
    format: Vec<u8>,
    splitter: Splitter,
    /// Whole transactions whose lines have not come.
    completed: VecDeque<Gtid>,
    opened: Option<Gtid>,
    last: Option<SegmentIndex>,
    ends_with: Option<Sha256>,
    complete_to: Option<DateTime<Utc>>,
    written: DateTime<Utc>,
}

impl Merger {
    /// An object for `sources`, which follow one another in a chain; `None` if there are none.
    /// `level` is zstd's.
    #[must_use]
    pub fn begin(sources: &[StoredSegment], level: i32) -> Option<Self> {
        let first = sources.first()?.index.clone();
        let pattern = sources.iter().find(|s| !s.index.is_silence());
        Some(Self {
            stand: Stand::of(sources)?,
            pattern: pattern.map_or_else(|| first.clone(), |s| s.index.clone()),
            level,
            draft: None,
            format: Vec::new(),
            splitter: Splitter::default(),
            completed: VecDeque::new(),
            opened: None,
            last: None,
            ends_with: None,
            complete_to: first.complete_to,
            written: first.written,
            first,
        })
    }

    /// Copies the next segment's events, each of which is verified.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] if the segment is not what was written.
    pub fn add(&mut self, segment: &Segment) -> Result<(), SegmentError> {
        let index = segment.index();
        let is_silent = index.is_silence();
        let mut events = segment.events()?;
        let mut number = 0;
        while let Some(event) = events.next_event()? {
            number += 1;
            // Each segment begins with its file's head, a part in the middle of a transaction too.
            if number <= 2 && event.kind().is_file_event() {
                if number == 1 {
                    self.take_format(&event, is_silent);
                }
                continue;
            }
            self.take(&event)?;
        }
        for line in segment.details()? {
            if self.completed.pop_front().as_ref() != Some(&line.gtid) {
                return Err(SegmentError::NotASegment(
                    "its list of transactions is not that of its events",
                ));
            }
            self.draft().complete(&line)?;
        }
        self.ends_with = Some(index.ends_with.unwrap_or(*segment.sha256()));
        self.complete_to = self.complete_to.max(index.complete_to);
        self.written = self.written.max(index.written);
        self.last = Some(index.clone());
        Ok(())
    }

    fn take_format(&mut self, event: &RawEvent<'_>, is_silent: bool) {
        let is_first = self.last.is_none();
        if is_first || (!is_silent && self.draft.is_none()) {
            self.format = event.bytes().to_vec();
        }
    }

    fn take(&mut self, event: &RawEvent<'_>) -> Result<(), SegmentError> {
        let piece = self.splitter.take(event, self.pattern.checksum);
        match piece.map_err(|source| SegmentError::Event { offset: 0, source })? {
            Piece::File => {
                return Err(SegmentError::NotASegment(
                    "it has a file's event among its transactions",
                ));
            }
            Piece::First(first) => self.opened = Some(first.gtid),
            Piece::Inside => {}
            Piece::Last => self.completed.extend(self.opened.take()),
        }
        let level = self.level;
        let draft = self.draft();
        draft.push_event(event.bytes(), event.header().server_id);
        while let Some(block) = draft.seal() {
            block.pack(level)?;
        }
        Ok(())
    }

    fn draft(&mut self) -> &mut Draft {
        let Self {
            draft,
            stand,
            pattern,
            first,
            format,
            ..
        } = self;
        draft.get_or_insert_with(|| {
            let place = (stand.branch, stand.epoch, stand.first);
            let mut draft = Draft::begin(place, first.before.clone(), pattern.checksum, format);
            draft.stands_to = Some(stand.last);
            draft.previous = first.previous;
            draft.continues = stand.continues;
            draft.gap = first.gap.clone();
            draft.source = pattern.source.as_ref().map(|source| {
                let source = source.clone();
                (source.uuid, source.version, source.file)
            });
            draft
        })
    }

    /// Makes the object.
    ///
    /// # Errors
    ///
    /// [`SegmentError`]; the last transaction must be whole.
    pub fn finish(mut self) -> Result<EncodedSegment, SegmentError> {
        if self.splitter.is_inside() || !self.completed.is_empty() {
            return Err(SegmentError::NotASegment(
                "its last transaction is not whole",
            ));
        }
        self.draft();
        let (level, complete_to, written) = (self.level, self.complete_to, self.written);
        let ends_with = self.ends_with;
        match self.draft {
            Some(mut draft) => {
                draft.ends_with = ends_with;
                draft.encode(level, complete_to, written)
            }
            None => Err(SegmentError::Truncated),
        }
    }
}
