//! The transaction numbers of one origin: sorted, disjoint, never adjacent intervals.

use super::MAX_GNO;

/// Both ends belong to the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Interval {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A set of transaction numbers within 1 to [`MAX_GNO`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Intervals(Vec<Interval>);

/// Up to so many intervals are added one by one, more are merged in one pass.
const FEW: usize = 8;

impl Intervals {
    pub(super) fn as_slice(&self) -> &[Interval] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last number.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.last().map(|interval| interval.end)
    }

    pub(super) fn count(&self) -> u128 {
        self.0
            .iter()
            .map(|interval| u128::from(interval.end - interval.start) + 1)
            .sum()
    }

    /// The interval that holds `gno` or the first one after it.
    fn reaching(&self, gno: u64) -> usize {
        self.0.partition_point(|interval| interval.end < gno)
    }

    pub(super) fn contains(&self, gno: u64) -> bool {
        self.0
            .get(self.reaching(gno))
            .is_some_and(|interval| interval.start <= gno)
    }

    /// Adds all numbers from `start` to `end`, as far as they are allowed ones.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        let (start, end) = (start.max(1), end.min(MAX_GNO));
        if start > end {
            return;
        }
        // Those that overlap or touch become one. No sum overflows: both are <= MAX_GNO.
        let first = self.reaching(start - 1);
        let after = first
            + self.0[first..]
                .iter()
                .take_while(|interval| interval.start <= end + 1)
                .count();
        if first == after {
            self.0.insert(first, Interval { start, end });
        } else {
            let merged = Interval {
                start: start.min(self.0[first].start),
                end: end.max(self.0[after - 1].end),
            };
            self.0[first] = merged;
            self.0.drain(first + 1..after);
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        if other.0.len() <= FEW {
            for interval in &other.0 {
                self.insert(interval.start, interval.end);
            }
            return;
        }
        let mut merged = Self(Vec::with_capacity(self.0.len() + other.0.len()));
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(l), Some(r)) if l.start <= r.start => left.next(),
                (_, Some(_)) => right.next(),
                (Some(_), None) => left.next(),
                (None, None) => break,
            };
            match (merged.0.last_mut(), next) {
                (Some(last), Some(next)) if next.start <= last.end + 1 => {
                    last.end = last.end.max(next.end);
                }
                (_, Some(next)) => merged.0.push(*next),
                (_, None) => break,
            }
        }
        *self = merged;
    }

    /// What is in both.
    pub(super) fn intersect(&self, other: &Self) -> Self {
        let (mut i, mut j, mut both) = (0, 0, Vec::new());
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (start, end) = (a.start.max(b.start), a.end.min(b.end));
            if start <= end {
                both.push(Interval { start, end });
            }
            if a.end < b.end {
                i += 1;
            } else {
                j += 1;
            }
        }
        Self(both)
    }

    /// What is in `self` only.
    pub(super) fn subtract(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut j = 0;
        for interval in &self.0 {
            let mut start = interval.start;
            while let Some(gone) = other.0.get(j) {
                if gone.start > interval.end {
                    break;
                }
                if gone.start > start {
                    rest.push(Interval {
                        start,
                        end: gone.start - 1,
                    });
                }
                start = start.max(gone.end + 1);
                if gone.end > interval.end {
                    break;
                }
                j += 1;
            }
            if start <= interval.end {
                rest.push(Interval {
                    start,
                    end: interval.end,
                });
            }
        }
        Self(rest)
    }

    pub(super) fn is_superset(&self, other: &Self) -> bool {
        let mut i = 0;
        other.0.iter().all(|wanted| {
            while self.0.get(i).is_some_and(|own| own.end < wanted.end) {
                i += 1;
            }
            self.0.get(i).is_some_and(|own| own.start <= wanted.start)
        })
    }

    pub(super) fn is_disjoint(&self, other: &Self) -> bool {
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            if a.end < b.start {
                i += 1;
            } else if b.end < a.start {
                j += 1;
            } else {
                return false;
            }
        }
        true
    }
}
