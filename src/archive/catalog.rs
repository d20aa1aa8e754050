//! What the log holds, computed from the segments that are there. Pure: no IO, no clock.
//!
//! Of the segments of a history not all count: a streamer that was overtaken may have left some
//! behind its successor's start, and a compacted segment stands beside the fresh ones that it was
//! made from. [`Chain::compute`] picks those that count, in order, and says what is wrong with
//! them. The invariant: every transaction of the chain is in exactly one of its segments, and a
//! hole is a [`Problem`] (or a gap that somebody accepted), never a shorter chain.

mod continuity;
mod cover;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::layout::{BranchNumber, Epoch, SegmentName};
use super::segment::SegmentIndex;
use crate::gtid::GtidSet;

pub(super) use continuity::differences;

/// A segment that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSegment {
    /// Its name.
    pub name: SegmentName,
    /// The object's size in bytes.
    pub size: u64,
    /// What it says of itself.
    pub index: SegmentIndex,
}

/// A place in a history's log: the end of this sequence number of this epoch.
pub type Place = (Epoch, u64);

/// The part of a history's log that an object stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins: behind this place. Epoch 0 is the start of the history.
    pub from: Place,
    /// Where it ends: with this place.
    pub to: Place,
}

impl Span {
    /// Whether all of `other` lies within.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }

    /// Whether any place lies within both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

impl StoredSegment {
    /// The part of the log that it stands for.
    #[must_use]
    pub fn span(&self) -> Span {
        let name = &self.name;
        let from = match self.index.continues {
            _ if name.first > 1 => (name.epoch, name.first - 1),
            None => (Epoch(0), 0),
            Some(place) if place.0 < name.epoch => place,
            // It cannot go on from itself or from what came later.
            Some(_) => (name.epoch, 0),
        };
        Span {
            from,
            to: (name.epoch, name.last),
        }
    }

    /// Whether `next` was written after this object, as far as their digests tell.
    #[must_use]
    pub fn is_before(&self, next: &Self) -> bool {
        let previous = next.index.previous;
        match (self.name.compacted, self.index.ends_with) {
            (true, None) => true,
            (true, ends_with) => previous == ends_with,
            (false, _) => previous.is_some_and(|digest| digest.short() == self.name.hash8),
        }
    }
}

/// Transactions that no segment holds and that somebody has accepted as lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AcceptedGap {
    /// The missing GTIDs.
    pub missing: GtidSet,
    /// The key of the segment behind the gap.
    pub segment: String,
    /// The last commit time before the gap.
    #[serde(with = "crate::clock::micros_option")]
    pub last_commit: Option<DateTime<Utc>>,
    /// The first commit time behind it.
    #[serde(with = "crate::clock::micros_option")]
    pub first_commit: Option<DateTime<Utc>>,
}

impl std::fmt::Display for AcceptedGap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#} (accepted as lost", self.missing)?;
        if let Some(time) = self.last_commit {
            write!(f, ", after {}", crate::clock::rfc3339(time))?;
        }
        if let Some(time) = self.first_commit {
            write!(f, ", before {}", crate::clock::rfc3339(time))?;
        }
        f.write_str(")")
    }
}

/// Something that is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Problem {
    /// Segments are not there.
    MissingSegments {
        /// The claim under which they were written.
        epoch: Epoch,
        /// The first missing sequence number.
        from: u64,
        /// The last missing one.
        to: u64,
    },
    /// Transactions that no segment holds.
    Gap {
        /// The key of the segment that comes after the gap.
        before: String,
        /// The missing GTIDs.
        missing: GtidSet,
    },
    /// A segment that does not go on from where the one before it ended.
    Discontinuity {
        /// Its key.
        segment: String,
        /// The GTIDs that it should know of and does not, or that it holds again.
        unexpected: GtidSet,
    },
    /// A segment that names another predecessor than the one that is there.
    BrokenLink {
        /// Its key.
        segment: String,
    },
    /// Two different objects for the same place.
    Conflict {
        /// The claim.
        epoch: Epoch,
        /// The sequence number.
        sequence: u64,
    },
    /// An object whose index cannot be read.
    Unreadable {
        /// Its key.
        segment: String,
        /// Why.
        reason: String,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingSegments { epoch, from, to } if from == to => {
                write!(f, "segment {from} of epoch {epoch} is missing")
            }
            Self::MissingSegments { epoch, from, to } => {
                write!(f, "segments {from} to {to} of epoch {epoch} are missing")
            }
            Self::Gap { before, missing } => {
                write!(f, "no segment holds {missing:#} (before {before})")
            }
            Self::Discontinuity {
                segment,
                unexpected,
            } => write!(
                f,
                "{segment} does not go on from the segment before it: {unexpected:#}"
            ),
            Self::BrokenLink { segment } => {
                write!(
                    f,
                    "{segment} was written after another segment than the one before it"
                )
            }
            Self::Conflict { epoch, sequence } => {
                write!(f, "two different segments {sequence} of epoch {epoch}")
            }
            Self::Unreadable { segment, reason } => {
                write!(f, "{segment} cannot be read: {reason}")
            }
        }
    }
}

/// The segments of a history that count, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The history.
    pub branch: BranchNumber,
    /// The segments, in the order of the history.
    pub segments: Vec<StoredSegment>,
    /// What is wrong with them.
    pub problems: Vec<Problem>,
    /// The gaps that somebody has accepted, in order.
    pub gaps: Vec<AcceptedGap>,
    /// The segments of the history that do not count: compacted into others, or written by a
    /// streamer that had been overtaken.
    pub beside: Vec<StoredSegment>,
}

impl Chain {
    /// Picks and orders the segments of `branch` that count.
    #[must_use]
    pub fn compute(branch: BranchNumber, stored: Vec<StoredSegment>) -> Self {
        let mut stored: Vec<StoredSegment> = stored
            .into_iter()
            .filter(|segment| segment.name.branch == branch)
            .collect();
        stored.sort_by(|one, other| one.name.cmp(&other.name));
        let cover = cover::cover(&stored);
        let mut problems: Vec<Problem> = cover
            .missing
            .iter()
            .map(|(epoch, from, to)| Problem::MissingSegments {
                epoch: *epoch,
                from: *from,
                to: *to,
            })
            .collect();
        problems.extend(cover.unlinked.iter().map(|number| Problem::BrokenLink {
            segment: stored[*number].name.key(),
        }));
        let mut places = vec![None; stored.len()];
        for (place, number) in cover.chosen.iter().enumerate() {
            places[*number] = Some(place);
        }
        let mut segments = Vec::with_capacity(cover.chosen.len());
        let mut beside = Vec::new();
        for (place, segment) in places.into_iter().zip(stored) {
            match place {
                Some(place) => segments.push((place, segment)),
                None => beside.push(segment),
            }
        }
        segments.sort_by_key(|(place, _)| *place);
        let segments: Vec<StoredSegment> =
            segments.into_iter().map(|(_, segment)| segment).collect();
        problems.extend(conflicts(&segments, &beside));
        let (discontinuities, gaps) = continuity::check(&segments);
        problems.extend(discontinuities);
        Self {
            branch,
            segments,
            problems,
            gaps,
            beside,
        }
    }

    /// The chain, knowing that there are objects whose indexes cannot be read.
    #[must_use]
    pub fn with_unreadable(
        mut self,
        unreadable: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let problems = unreadable
            .into_iter()
            .map(|(segment, reason)| Problem::Unreadable { segment, reason });
        self.problems.extend(problems);
        self
    }

    /// Whether the segments that count stand for all that an object of this name can.
    #[must_use]
    pub fn covers(&self, name: &SegmentName) -> bool {
        let span = Span {
            from: (name.epoch, name.first.saturating_sub(1)),
            to: (name.epoch, name.last),
        };
        self.place_of(span.to)
            .is_some_and(|at| self.segments[at].span().contains(&span))
    }

    /// The number of the segment that stands for this place of the log.
    #[must_use]
    pub fn place_of(&self, place: Place) -> Option<usize> {
        let at = self
            .segments
            .partition_point(|segment| segment.span().to < place);
        (self.segments.get(at)?.span().from < place).then_some(at)
    }

    /// The GTID set before the first segment: what the oldest snapshot must hold.
    #[must_use]
    pub fn start(&self) -> Option<&GtidSet> {
        self.segments.first().map(|segment| &segment.index.before)
    }

    /// The GTID set at the end.
    #[must_use]
    pub fn end(&self) -> Option<GtidSet> {
        self.segments.last().map(|segment| segment.index.after())
    }

    /// Up to which moment of its source's clock the history is complete, that moment included.
    ///
    /// A transaction vouches only for the moments before its own commit time: another one may
    /// share its microsecond and not be there yet.
    #[must_use]
    pub fn complete_to(&self) -> Option<DateTime<Utc>> {
        self.segments
            .iter()
            .filter_map(|segment| {
                let before_last = segment
                    .index
                    .last_commit
                    .map(|t| t - TimeDelta::microseconds(1));
                segment.index.complete_to.max(before_last)
            })
            .max()
    }

    /// The first commit time in the history.
    #[must_use]
    pub fn first_commit(&self) -> Option<DateTime<Utc>> {
        self.segments
            .iter()
            .find_map(|segment| segment.index.first_commit)
    }

    /// The GTIDs that the segments hold, without what was before them.
    #[must_use]
    pub fn held(&self) -> GtidSet {
        let mut held = GtidSet::new();
        for segment in &self.segments {
            held.extend_from(&segment.index.added);
        }
        held
    }

    /// The GTIDs that belong to the history and that no segment holds.
    #[must_use]
    pub fn missing(&self) -> GtidSet {
        let mut missing = GtidSet::new();
        for problem in &self.problems {
            if let Problem::Gap { missing: gap, .. } = problem {
                missing.extend_from(gap);
            }
        }
        missing
    }

    /// The GTIDs that belong to the history, that no segment holds, and whose loss somebody has
    /// accepted.
    #[must_use]
    pub fn accepted(&self) -> GtidSet {
        let mut accepted = GtidSet::new();
        for gap in &self.gaps {
            accepted.extend_from(&gap.missing);
        }
        accepted
    }

    /// Whether it seems that objects are not there: compaction meanwhile may make it seem so.
    #[must_use]
    pub fn lacks_objects(&self) -> bool {
        self.problems.iter().any(|problem| {
            !matches!(
                problem,
                Problem::Unreadable { .. } | Problem::Conflict { .. }
            )
        })
    }

    /// The last segment behind which no transaction is unfinished: where a new claim goes on.
    #[must_use]
    pub fn resume_point(&self) -> Option<&StoredSegment> {
        self.segments.iter().rev().find(|segment| {
            !segment
                .index
                .part
                .as_ref()
                .is_some_and(|part| part.unfinished)
        })
    }

    /// How many bytes the segments have in the store.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// How many transactions the segments hold.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.index.transactions)
            .sum()
    }
}

/// Fresh segments that stand at the place of another fresh one.
fn conflicts(segments: &[StoredSegment], beside: &[StoredSegment]) -> Vec<Problem> {
    let fresh = |segment: &&StoredSegment| !segment.name.compacted;
    let places: std::collections::BTreeSet<Place> =
        beside.iter().filter(fresh).map(|s| s.span().to).collect();
    segments
        .iter()
        .filter(fresh)
        .filter(|segment| places.contains(&segment.span().to))
        .map(|segment| Problem::Conflict {
            epoch: segment.name.epoch,
            sequence: segment.name.first,
        })
        .collect()
}

#[cfg(test)]
mod tests;
