//! A history with what it has from its parents. Pure: no IO, no clock.
//!
//! A branch begins where it forked: behind the transactions that it shares with its parent. So its
//! history is the parent's, limited to those, and then its own chain; and so on up to the first
//! branch. What the parent's log holds besides has been lost: it is never part of this history,
//! and a snapshot that holds it is none of this history. (A group gives the same GTID again to
//! another transaction after a failover that lost the first; therefore each member of a history
//! says which GTIDs it gives, and no GTID is looked for in a member that does not give it.)

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::catalog::{AcceptedGap, Chain, Problem, StoredSegment, differences};
use super::identity::Branch;
use super::layout::BranchNumber;
use super::segment::{IndexedTransaction, Part};
use crate::gtid::{Gtid, GtidSet};

/// A segment's share in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The segment.
    pub stored: StoredSegment,
    /// Every GTID of the history before it.
    pub before: GtidSet,
    /// The GTIDs that the history has from it.
    pub added: GtidSet,
    /// How many transactions those are.
    pub transactions: u64,
    /// The first one's commit time on the source.
    pub first_commit: Option<DateTime<Utc>>,
    /// The greatest commit time among them.
    pub last_commit: Option<DateTime<Utc>>,
    /// Up to which moment of the source's clock the history is complete with this segment.
    pub complete_to: Option<DateTime<Utc>>,
}

impl Member {
    /// All of a segment.
    #[must_use]
    pub fn whole(stored: StoredSegment) -> Self {
        let index = &stored.index;
        Self {
            before: index.before.clone(),
            added: index.added.clone(),
            transactions: index.transactions,
            first_commit: index.first_commit,
            last_commit: index.last_commit,
            complete_to: index.complete_to,
            stored,
        }
    }

    /// Every GTID of the history up to its end.
    #[must_use]
    pub fn after(&self) -> GtidSet {
        self.before.union(&self.added)
    }

    /// The part of one transaction that it is, if it is not made of whole ones.
    #[must_use]
    pub const fn part(&self) -> Option<&Part> {
        self.stored.index.part.as_ref()
    }

    /// Whether the history has this transaction from it: whole, or as the part that it is.
    #[must_use]
    pub fn gives(&self, gtid: &Gtid) -> bool {
        self.added.contains(gtid) || self.part().is_some_and(|part| part.gtid == *gtid)
    }

    /// Whether the history lacks transactions that the segment holds.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.transactions != self.stored.index.transactions
    }

    /// The lines of the transactions that belong to the history, out of all of the segment.
    #[must_use]
    pub fn own_lines(&self, lines: Vec<IndexedTransaction>) -> Vec<IndexedTransaction> {
        if !self.is_limited() {
            return lines;
        }
        let is_own = |line: &IndexedTransaction| self.added.contains(&line.gtid);
        lines.into_iter().filter(is_own).collect()
    }
}

/// A branch of the lineage with its own chain.
#[derive(Debug, Clone)]
pub struct Lineage {
    /// What was written when it was started.
    pub branch: Branch,
    /// Its own segments.
    pub chain: Chain,
}

/// One history from its beginning.
#[derive(Debug, Clone)]
pub struct History {
    /// The branch that it leads to.
    pub branch: BranchNumber,
    /// That branch and those that it came from, the first one first.
    pub lineage: Vec<Lineage>,
    /// The segments, in the order of the history.
    pub members: Vec<Member>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// The gaps that somebody has accepted, in order.
    pub gaps: Vec<AcceptedGap>,
    /// What the branches of the lineage do not have of their parents.
    pub lost: GtidSet,
}

impl History {
    /// The history of the last branch of a lineage, whose first one has no parent.
    ///
    /// `lines` are those of the segments that [`History::split_segments`] names.
    #[must_use]
    pub fn compute(
        lineage: Vec<Lineage>,
        lines: &BTreeMap<String, Vec<IndexedTransaction>>,
    ) -> Self {
        let mut history = Self {
            branch: lineage
                .last()
                .map_or(BranchNumber(1), |last| last.branch.branch),
            members: Vec::new(),
            problems: Vec::new(),
            gaps: Vec::new(),
            lost: GtidSet::new(),
            lineage: Vec::new(),
        };
        let limits = limits(&lineage);
        for (step, limit) in lineage.iter().zip(&limits) {
            if step.branch.parent.is_some() {
                history.check_fork(step, limit.as_ref());
            }
            match limit {
                None => history.add_whole(&step.chain),
                Some(limit) => history.add_limited(&step.chain, limit, lines),
            }
            history.lost.extend_from(&step.branch.lost);
        }
        history.lineage = lineage;
        history
    }

    /// The segments of a lineage of which some transactions were lost and some were not: their
    /// lines are needed to tell when those were committed that were not.
    #[must_use]
    pub fn split_segments(lineage: &[Lineage]) -> Vec<&StoredSegment> {
        let limits = limits(lineage);
        let mut split = Vec::new();
        for (step, limit) in lineage.iter().zip(&limits) {
            let Some(limit) = limit else {
                continue;
            };
            split.extend(step.chain.segments.iter().filter(|segment| {
                let added = &segment.index.added;
                !added.is_disjoint(limit) && !added.is_subset(limit)
            }));
        }
        split
    }

    fn add_whole(&mut self, chain: &Chain) {
        self.problems.extend(chain.problems.iter().cloned());
        self.gaps.extend(chain.gaps.iter().cloned());
        let members = chain.segments.iter().cloned().map(Member::whole);
        self.members.extend(members);
    }

    /// Adds what `limit` leaves of a parent's chain.
    fn add_limited(
        &mut self,
        chain: &Chain,
        limit: &GtidSet,
        lines: &BTreeMap<String, Vec<IndexedTransaction>>,
    ) {
        for problem in &chain.problems {
            match problem {
                Problem::Gap { before, missing } => {
                    let missing = missing.intersect(limit);
                    self.problems
                        .extend(differences(before, &GtidSet::new(), &missing));
                }
                other => self.problems.push(other.clone()),
            }
        }
        for gap in &chain.gaps {
            let missing = gap.missing.intersect(limit);
            if !missing.is_empty() {
                self.gaps.push(AcceptedGap {
                    missing,
                    ..gap.clone()
                });
            }
        }
        let mut is_behind_loss = false;
        for stored in &chain.segments {
            let index = &stored.index;
            let added = index.added.intersect(limit);
            is_behind_loss |= added != index.added;
            let is_lost = match &index.part {
                Some(part) => !limit.contains(&part.gtid),
                None => added.is_empty() && index.transactions > 0,
            };
            is_behind_loss |= is_lost;
            // What says that nothing happened behind a loss says it of another history.
            if is_lost || is_behind_loss && index.is_silence() {
                continue;
            }
            let mut member = Member::whole(stored.clone());
            member.before = index.before.intersect(limit);
            if is_behind_loss {
                // Complete as far as its source goes, which is not this history's any more.
                member.complete_to = None;
            }
            if added != index.added {
                let own = lines.get(&stored.name.key());
                let own: Vec<&IndexedTransaction> = own
                    .into_iter()
                    .flatten()
                    .filter(|line| added.contains(&line.gtid))
                    .collect();
                member.transactions = u64::try_from(added.count()).unwrap_or(u64::MAX);
                member.first_commit = own.first().map(|line| line.time);
                member.last_commit = own.iter().map(|line| line.time).max();
                member.added = added;
            }
            self.members.push(member);
        }
    }

    /// Checks that the history so far ends where a branch of it began.
    fn check_fork(&mut self, step: &Lineage, limit: Option<&GtidSet>) {
        let within = |set: &GtidSet| limit.map_or_else(|| set.clone(), |l| set.intersect(l));
        let fork = within(&step.branch.fork);
        let first = step.chain.segments.first();
        let key = first.map_or_else(
            || super::layout::branch(step.branch.branch),
            |segment| segment.name.key(),
        );
        if let Some(first) = first {
            let before = within(&first.index.before);
            let unexpected = fork.subtract(&before);
            let missing = before.subtract(&first.index.gap).subtract(&fork);
            self.problems
                .extend(differences(&key, &unexpected, &missing));
        }
        let had = self.members.last().map(Member::after).unwrap_or_default();
        if !self.members.is_empty() {
            let missing = fork.subtract(&had);
            self.problems
                .extend(differences(&key, &GtidSet::new(), &missing));
        }
    }

    /// The history of a branch without parents.
    #[must_use]
    pub fn of(chain: Chain) -> Self {
        let branch = Branch {
            branch: chain.branch,
            parent: None,
            fork: GtidSet::new(),
            lost: GtidSet::new(),
            reason: String::new(),
            group: None,
            server: None,
            created: DateTime::UNIX_EPOCH,
        };
        Self::compute(vec![Lineage { branch, chain }], &BTreeMap::new())
    }

    /// The chain that goes on: the one of the branch itself.
    #[must_use]
    pub fn chain(&self) -> Option<&Chain> {
        self.lineage.last().map(|last| &last.chain)
    }

    /// The GTID set before the first segment: what the oldest snapshot must hold.
    #[must_use]
    pub fn start(&self) -> Option<&GtidSet> {
        self.members.first().map(|member| &member.before)
    }

    /// The GTID set at the end.
    #[must_use]
    pub fn end(&self) -> Option<GtidSet> {
        let last = self.lineage.last()?;
        match last.chain.end() {
            Some(end) => Some(end),
            None if last.branch.parent.is_some() => Some(last.branch.fork.clone()),
            None => None,
        }
    }

    /// Up to which moment of its source's clock the history is complete, that moment included.
    ///
    /// A transaction vouches only for the moments before its own commit time: another one may
    /// share its microsecond and not be there yet.
    #[must_use]
    pub fn complete_to(&self) -> Option<DateTime<Utc>> {
        complete_to(&self.members)
    }

    /// The GTIDs that the segments give, without what was before them.
    #[must_use]
    pub fn held(&self) -> GtidSet {
        let mut held = GtidSet::new();
        for member in &self.members {
            held.extend_from(&member.added);
        }
        held
    }

    /// The GTIDs that belong to the history, that no segment holds, and that nobody has accepted
    /// as lost.
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

    /// How many bytes the segments have in the store.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.members.iter().map(|member| member.stored.size).sum()
    }

    /// How many transactions the history has from them.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.members.iter().map(|member| member.transactions).sum()
    }

    /// The members that give transactions of `set`, with all parts of those that span several.
    #[must_use]
    pub fn needed(&self, set: &GtidSet) -> Vec<Member> {
        let mut wanted = vec![false; self.members.len()];
        for (at, member) in self.members.iter().enumerate() {
            if member.added.is_disjoint(set) {
                continue;
            }
            wanted[at] = true;
            // A transaction that ends here may have begun in segments before.
            let mut first = at;
            while first > 0
                && self.members[first]
                    .part()
                    .is_some_and(|part| part.continued && set.contains(&part.gtid))
            {
                first -= 1;
                wanted[first] = true;
            }
        }
        self.members
            .iter()
            .zip(wanted)
            .filter(|(_, wanted)| *wanted)
            .map(|(member, _)| member.clone())
            .collect()
    }

    /// Whether a snapshot's state is one of this history, as far as can be told: it holds nothing
    /// that one of the branches has lost.
    #[must_use]
    pub fn admits(&self, set: &GtidSet, started: DateTime<Utc>) -> bool {
        let steps = self.lineage.iter().zip(self.lineage.iter().skip(1));
        for (number, (parent, child)) in steps.enumerate() {
            if started >= child.branch.created {
                // The same GTIDs may have been given again since.
                let again: GtidSet = self.lineage[number + 1..]
                    .iter()
                    .map(|step| step.chain.held())
                    .fold(GtidSet::new(), |all, held| all.union(&held));
                if !set
                    .intersect(&child.branch.lost)
                    .subtract(&child.branch.fork)
                    .is_subset(&again)
                {
                    return false;
                }
                continue;
            }
            let beyond = set.subtract(&child.branch.fork);
            let parents = parent.chain.end().unwrap_or_default();
            if !beyond.is_disjoint(&child.branch.lost) || !beyond.is_disjoint(&parents) {
                return false;
            }
            // What the parent's log had not come to yet may have been lost with the rest; what it
            // passed over never came through the log, on whatever branch.
            if !beyond.is_empty() && parent.chain.complete_to().is_none_or(|to| to <= started) {
                return false;
            }
        }
        true
    }
}

/// See [`History::complete_to`].
#[must_use]
pub fn complete_to(members: &[Member]) -> Option<DateTime<Utc>> {
    members
        .iter()
        .filter_map(|member| {
            let before_last = member.last_commit.map(|t| t - TimeDelta::microseconds(1));
            member.complete_to.max(before_last)
        })
        .max()
}

/// What each branch of a lineage keeps for the last one: all (`None`) of the last itself, of the
/// others what every later one shares with its parent.
fn limits(lineage: &[Lineage]) -> Vec<Option<GtidSet>> {
    let mut limit: Option<GtidSet> = None;
    let mut limits = Vec::with_capacity(lineage.len());
    for step in lineage.iter().rev() {
        limits.push(limit.clone());
        limit = Some(match limit {
            None => step.branch.fork.clone(),
            Some(limit) => limit.intersect(&step.branch.fork),
        });
    }
    limits.reverse();
    limits
}

#[cfg(test)]
mod tests;
