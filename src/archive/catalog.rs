//! What the log holds, computed from the segments that are there. Pure: no IO, no clock.
//!
//! Of the segments of a history not all count: a streamer that was overtaken may have left some
//! behind its successor's start, and a compacted segment stands beside the fresh ones that it was
//! made from. [`Chain::compute`] picks those that count, in order, and says what is wrong with
//! them. The invariant: every transaction of the chain is in exactly one of its segments, and a
//! hole is a [`Problem`], never a shorter chain.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::layout::{BranchNumber, Epoch, SegmentName};
use super::segment::SegmentIndex;
use crate::gtid::GtidSet;

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
}

impl Chain {
    /// Picks and orders the segments of `branch` that count.
    #[must_use]
    pub fn compute(branch: BranchNumber, stored: Vec<StoredSegment>) -> Self {
        let mut problems = Vec::new();
        let mut epochs: BTreeMap<Epoch, Vec<StoredSegment>> = BTreeMap::new();
        for segment in stored.into_iter().filter(|s| s.name.branch == branch) {
            epochs.entry(segment.name.epoch).or_default().push(segment);
        }
        // From the newest claim back, each says where the one before it ended.
        let mut parts: Vec<Vec<StoredSegment>> = Vec::new();
        let mut limit: Option<(Epoch, u64)> = None;
        for (epoch, segments) in epochs.into_iter().rev() {
            let end = match limit {
                Some((last_epoch, _)) if epoch > last_epoch => continue,
                Some((last_epoch, sequence)) if epoch == last_epoch => Some(sequence),
                _ => None,
            };
            let run = run_of_epoch(epoch, segments, end, &mut problems);
            if let Some(first) = run.first()
                && first.name.first == 1
            {
                limit = first.index.continues.or(Some((Epoch(0), 0)));
            } else {
                limit = None;
            }
            parts.push(run);
        }
        let segments: Vec<StoredSegment> = parts.into_iter().rev().flatten().collect();
        check_continuity(&segments, &mut problems);
        Self {
            branch,
            segments,
            problems,
        }
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

/// The segments of one claim that count, up to sequence number `end`.
fn run_of_epoch(
    epoch: Epoch,
    mut segments: Vec<StoredSegment>,
    end: Option<u64>,
    problems: &mut Vec<Problem>,
) -> Vec<StoredSegment> {
    segments.retain(|segment| end.is_none_or(|end| segment.name.last <= end));
    // Of those that start at the same place the longest comes first.
    segments.sort_by_key(|segment| (segment.name.first, std::cmp::Reverse(segment.name.last)));
    let mut run: Vec<StoredSegment> = Vec::new();
    let mut next = 1;
    for segment in segments {
        if let Some(last) = run.last()
            && segment.name.first < next
        {
            let same_place =
                segment.name.first == last.name.first && segment.name.last == last.name.last;
            if same_place && segment.name.compacted == last.name.compacted {
                problems.push(Problem::Conflict {
                    epoch,
                    sequence: segment.name.first,
                });
            }
            continue;
        }
        if segment.name.first > next {
            problems.push(Problem::MissingSegments {
                epoch,
                from: next,
                to: segment.name.first - 1,
            });
        }
        next = segment.name.last + 1;
        run.push(segment);
    }
    if let Some(end) = end
        && next <= end
    {
        problems.push(Problem::MissingSegments {
            epoch,
            from: next,
            to: end,
        });
    }
    run
}

fn check_continuity(segments: &[StoredSegment], problems: &mut Vec<Problem>) {
    let Some(first) = segments.first() else {
        return;
    };
    let mut running = first.index.before.clone();
    let mut before: Option<&StoredSegment> = None;
    for segment in segments {
        let key = || segment.name.key();
        let index = &segment.index;
        if index.before != running {
            let missing = index.before.subtract(&running);
            let unexpected = running.subtract(&index.before);
            if !unexpected.is_empty() {
                problems.push(Problem::Discontinuity {
                    segment: key(),
                    unexpected,
                });
            }
            if !missing.is_empty() {
                problems.push(Problem::Gap {
                    before: key(),
                    missing,
                });
            }
        } else if let Some(before) = before
            && !before.name.compacted
            && index
                .previous
                .is_none_or(|digest| digest.short() != before.name.hash8)
        {
            problems.push(Problem::BrokenLink { segment: key() });
        }
        let again = index.added.intersect(&running);
        if !again.is_empty() {
            problems.push(Problem::Discontinuity {
                segment: key(),
                unexpected: again,
            });
        }
        running.extend_from(&index.before);
        running.extend_from(&index.added);
        before = Some(segment);
    }
}

#[cfg(test)]
mod tests;
