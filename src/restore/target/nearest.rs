//! What can be had instead of a target that cannot. Pure.
//!
//! These are candidates only, the best first: whether the archive really leads to one, the caller
//! tries before it offers it to anybody.

use serde::Serialize;

use super::{SnapshotSet, Target, TargetError};
use crate::archive::history::{History, complete_to};
use crate::archive::layout::BranchNumber;
use crate::gtid::{Gtid, GtidSet};

/// A target that may be had, near one that cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// What to ask for.
    pub target: Target,
    /// The history to ask in, if another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchNumber>,
}

impl From<Target> for Offer {
    fn from(target: Target) -> Self {
        Self {
            target,
            branch: None,
        }
    }
}

/// The nearest targets that can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The nearest state before the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Offer>,
    /// The nearest one behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Offer>,
}

/// The offers to try, each list with the best one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// States before the one that was asked for.
    pub before: Vec<Offer>,
    /// States behind it.
    pub after: Vec<Offer>,
}

/// Why there is no plan for a target that has a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWay<'a> {
    /// The target itself cannot be had.
    Target(&'a TargetError),
    /// These transactions between the snapshots and the cut are missing.
    Gap(&'a GtidSet),
    /// No snapshot is old enough.
    NoSnapshot,
}

/// What may be had instead.
#[must_use]
pub fn candidates(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
    why: &NoWay<'_>,
) -> Candidates {
    let around = |asked| Candidates {
        before: newest_first(snapshots, |snapshot| snapshot.finished <= asked),
        after: oldest_first(snapshots, |snapshot| snapshot.finished > asked),
    };
    match why {
        NoWay::Target(TargetError::Beyond { asked, ends }) => {
            let end: Offer = Target::Until { moment: *ends }.into();
            let latest: Offer = Target::Latest.into();
            let last = history.members.iter().filter_map(|m| m.last_commit).max();
            // The last transactions may be nearer than the last moment of which all is known.
            let is_nearer = last.is_some_and(|last| last > *ends && last <= *asked);
            Candidates {
                before: match is_nearer {
                    true => vec![latest, end],
                    false => vec![end, latest],
                },
                after: Vec::new(),
            }
        }
        NoWay::Target(TargetError::NoLog { .. }) => match target {
            Target::Until { moment } => around(*moment),
            _ => Candidates::default(),
        },
        NoWay::Target(TargetError::BeforeFirst { begins, .. }) => {
            let mut after: Vec<Offer> = vec![Target::Until { moment: *begins }.into()];
            after.extend(oldest_first(snapshots, |_| true));
            Candidates {
                before: Vec::new(),
                after,
            }
        }
        NoWay::Target(TargetError::InGap { asked, missing }) => {
            let mut found = beside_gap(history, snapshots, missing);
            found.before.extend(around(*asked).before);
            found
        }
        NoWay::Gap(missing) => beside_gap(history, snapshots, missing),
        NoWay::Target(TargetError::Missing { missing }) => beside_gap(history, snapshots, missing),
        NoWay::NoSnapshot | NoWay::Target(TargetError::MarkTooOld { .. }) => Candidates {
            before: Vec::new(),
            after: oldest_first(snapshots, |_| true),
        },
        NoWay::Target(TargetError::Unknown { unknown }) => beside_unknown(history, unknown),
        NoWay::Target(TargetError::Lost { branch, lost }) => {
            beside_fork(history, target, *branch, lost)
        }
        NoWay::Target(TargetError::BeforeLog { gtid }) => Candidates {
            before: newest_first(snapshots, |snapshot| !snapshot.set.contains(gtid)),
            after: oldest_first(snapshots, |snapshot| snapshot.set.contains(gtid)),
        },
        NoWay::Target(TargetError::Empty) => Candidates::default(),
    }
}

fn exactly(set: &GtidSet) -> Offer {
    Target::UntilGtid { set: set.clone() }.into()
}

fn oldest_first(snapshots: &[SnapshotSet], is: impl Fn(&SnapshotSet) -> bool) -> Vec<Offer> {
    let found = snapshots.iter().filter(|snapshot| is(snapshot));
    found.map(|snapshot| exactly(&snapshot.set)).collect()
}

fn newest_first(snapshots: &[SnapshotSet], is: impl Fn(&SnapshotSet) -> bool) -> Vec<Offer> {
    let mut found = oldest_first(snapshots, is);
    found.reverse();
    found
}

/// The last moment before a hole, and the first states that have what is missing from a snapshot.
fn beside_gap(history: &History, snapshots: &[SnapshotSet], missing: &GtidSet) -> Candidates {
    let mut before = Vec::new();
    let mut had: Option<GtidSet> = None;
    for (at, member) in history.members.iter().enumerate() {
        let is_behind = had
            .as_ref()
            .is_some_and(|had| !member.before.subtract(had).is_disjoint(missing));
        if is_behind {
            let moment = complete_to(&history.members[..at]);
            before.extend(moment.map(|moment| Target::Until { moment }.into()));
            break;
        }
        had = Some(member.after());
    }
    before.extend(newest_first(snapshots, |s| s.set.is_disjoint(missing)));
    Candidates {
        before,
        after: oldest_first(snapshots, |snapshot| snapshot.set.is_superset(missing)),
    }
}

/// The archived neighbours, by number, of transactions that nobody knows.
fn beside_unknown(history: &History, unknown: &GtidSet) -> Candidates {
    let held = history.held();
    let mut found = Candidates::default();
    let Some((tsid, first, last)) = unknown.intervals().next() else {
        return found;
    };
    let known = || held.intervals().filter(|(other, ..)| *other == tsid);
    let below = known().filter_map(|(_, from, to)| {
        let to = to.min(first.saturating_sub(1));
        (from <= to).then_some(to)
    });
    let above = known().filter_map(|(_, from, to)| {
        let from = from.max(last.saturating_add(1));
        (from <= to).then_some(from)
    });
    if let Some(gtid) = below
        .max()
        .and_then(|gno| Gtid::new(tsid.clone(), gno).ok())
    {
        found.before.push(exactly(&GtidSet::from(gtid)));
    }
    if let Some(gtid) = above
        .min()
        .and_then(|gno| Gtid::new(tsid.clone(), gno).ok())
    {
        found.after.push(Target::BeforeGtid { gtid }.into());
    }
    // A number beyond all others is not archived yet.
    if found.after.is_empty() && !found.before.is_empty() {
        found.before.insert(0, Target::Latest.into());
    }
    found
}

/// The last state that a branch shares with the one whose transactions it has lost, and the same
/// target there.
fn beside_fork(
    history: &History,
    target: &Target,
    branch: BranchNumber,
    lost: &GtidSet,
) -> Candidates {
    let mut found = Candidates::default();
    let step = history
        .lineage
        .iter()
        .find(|step| !step.branch.lost.is_disjoint(lost));
    if let Some(step) = step {
        found.before.push(exactly(&step.branch.fork));
        found.after.extend(
            step.branch
                .parent
                .filter(|parent| *parent != branch)
                .map(|parent| Offer {
                    target: target.clone(),
                    branch: Some(parent),
                }),
        );
    }
    found
}
