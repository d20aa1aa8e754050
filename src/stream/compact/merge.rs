//! Several segments into one object, byte for byte.

use std::collections::VecDeque;

use crate::archive::catalog::StoredSegment;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::segment::{Draft, EncodedSegment, Segment, SegmentError, SegmentIndex};
use crate::gtid::Gtid;
use crate::mysql::binlog::{Piece, RawEvent, Splitter};

/// Where an object stands that is made of adjacent segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) branch: BranchNumber,
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) continues: Option<(Epoch, u64)>,
}

impl Stand {
    /// The place of the object for `sources`, which follow one another in a chain.
    pub(super) fn of(sources: &[StoredSegment]) -> Option<Self> {
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
pub(super) struct Merger {
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
    ends_with: Option<crate::archive::hash::Sha256>,
    complete_to: Option<chrono::DateTime<chrono::Utc>>,
    written: chrono::DateTime<chrono::Utc>,
}

impl Merger {
    pub(super) fn begin(sources: &[StoredSegment], level: i32) -> Option<Self> {
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

    /// Copies a segment's events, each of which is verified.
    pub(super) fn add(&mut self, segment: &Segment) -> Result<(), SegmentError> {
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
            let packed = block.pack(level)?;
            draft.fill(packed);
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
    pub(super) fn finish(mut self) -> Result<EncodedSegment, SegmentError> {
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
