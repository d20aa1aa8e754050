//! [`GtidSet`]: exact sets of transactions, kept as intervals.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::as_text;
use super::intervals::Intervals;
use super::{Gtid, Tsid};

/// A set of transactions.
///
/// Prints as MySQL prints `@@gtid_executed`, a comma and a newline between the UUIDs; `{:#}`
/// prints the same on one line. Every operation takes time in proportion to the intervals of its
/// operands, [`GtidSet::contains`] and [`GtidSet::insert`] of the next number to their logarithm.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GtidSet {
    /// No value is empty.
    origins: BTreeMap<Tsid, Intervals>,
}

impl GtidSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            origins: BTreeMap::new(),
        }
    }

    /// Whether there is no transaction in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// How many transactions there are.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.origins.values().map(Intervals::count).sum()
    }

    /// Whether the transaction is in it.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.origins
            .get(&gtid.tsid)
            .is_some_and(|intervals| intervals.contains(gtid.gno))
    }

    /// Whether every transaction of `other` is in this one.
    #[must_use]
    pub fn is_superset(&self, other: &Self) -> bool {
        other.origins.iter().all(|(tsid, theirs)| {
            self.origins
                .get(tsid)
                .is_some_and(|ours| ours.is_superset(theirs))
        })
    }

    /// Whether every transaction of this one is in `other`, as `GTID_SUBSET(self, other)`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        other.is_superset(self)
    }

    /// Whether no transaction is in both.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.origins.iter().all(|(tsid, ours)| {
            other
                .origins
                .get(tsid)
                .is_none_or(|theirs| ours.is_disjoint(theirs))
        })
    }

    /// Adds the transaction; `true` if it was not there. A number that MySQL does not allow is
    /// not added.
    pub fn insert(&mut self, gtid: &Gtid) -> bool {
        if !(1..=super::MAX_GNO).contains(&gtid.gno) || self.contains(gtid) {
            return false;
        }
        self.insert_range(&gtid.tsid, gtid.gno..=gtid.gno);
        true
    }

    /// Adds the transactions of `tsid` with these numbers, as far as MySQL allows them.
    pub fn insert_range(&mut self, tsid: &Tsid, gnos: RangeInclusive<u64>) {
        let (start, end) = (*gnos.start().max(&1), *gnos.end().min(&super::MAX_GNO));
        if start > end {
            return;
        }
        match self.origins.get_mut(tsid) {
            Some(intervals) => intervals.insert(start, end),
            None => {
                let mut intervals = Intervals::default();
                intervals.insert(start, end);
                self.origins.insert(tsid.clone(), intervals);
            }
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.extend_from(other);
        all
    }

    /// Adds all of `other`.
    pub fn extend_from(&mut self, other: &Self) {
        for (tsid, theirs) in &other.origins {
            match self.origins.get_mut(tsid) {
                Some(ours) => ours.extend(theirs),
                None => {
                    self.origins.insert(tsid.clone(), theirs.clone());
                }
            }
        }
    }

    /// What is in this one but not in `other`, as `GTID_SUBTRACT(self, other)`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let rest = self.origins.iter().map(|(tsid, ours)| {
            let rest = match other.origins.get(tsid) {
                Some(theirs) => ours.subtract(theirs),
                None => ours.clone(),
            };
            (tsid.clone(), rest)
        });
        Self::from_origins(rest)
    }

    /// What is in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        Self::from_origins(self.origins.iter().filter_map(|(tsid, ours)| {
            let theirs = other.origins.get(tsid)?;
            Some((tsid.clone(), ours.intersect(theirs)))
        }))
    }

    /// The transactions in order, made one by one.
    pub fn iter(&self) -> impl Iterator<Item = Gtid> + '_ {
        self.intervals().flat_map(|(tsid, start, end)| {
            (start..=end).map(|gno| Gtid {
                tsid: tsid.clone(),
                gno,
            })
        })
    }

    /// The intervals in order: origin, first and last number.
    pub fn intervals(&self) -> impl Iterator<Item = (&Tsid, u64, u64)> + '_ {
        self.origins.iter().flat_map(|(tsid, intervals)| {
            intervals
                .as_slice()
                .iter()
                .map(move |interval| (tsid, interval.start, interval.end))
        })
    }

    /// The origins that have transactions here, in order.
    pub fn tsids(&self) -> impl Iterator<Item = &Tsid> + '_ {
        self.origins.keys()
    }

    /// The greatest number of this origin.
    #[must_use]
    pub fn last(&self, tsid: &Tsid) -> Option<u64> {
        self.origins.get(tsid).and_then(Intervals::last)
    }

    pub(super) fn origins(&self) -> &BTreeMap<Tsid, Intervals> {
        &self.origins
    }

    fn from_origins(origins: impl Iterator<Item = (Tsid, Intervals)>) -> Self {
        Self {
            origins: origins.filter(|(_, set)| !set.is_empty()).collect(),
        }
    }
}

impl From<Gtid> for GtidSet {
    fn from(gtid: Gtid) -> Self {
        let mut set = Self::new();
        set.insert(&gtid);
        set
    }
}

impl FromIterator<Gtid> for GtidSet {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        let mut set = Self::new();
        set.extend(gtids);
        set
    }
}

impl Extend<Gtid> for GtidSet {
    fn extend<I: IntoIterator<Item = Gtid>>(&mut self, gtids: I) {
        for gtid in gtids {
            self.insert(&gtid);
        }
    }
}

as_text!(GtidSet);
