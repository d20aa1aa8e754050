//! The states that snapshots are, beside the log.

use chrono::{DateTime, Utc};

use super::{Cut, Target, TargetError};
use crate::archive::history::{History, complete_to};
use crate::archive::segment::IndexedTransaction;
use crate::gtid::GtidSet;

/// A snapshot, as far as a cut depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSet {
    /// What it holds.
    pub set: GtidSet,
    /// When it was begun.
    pub started: DateTime<Utc>,
    /// When it was finished.
    pub finished: DateTime<Utc>,
}

/// Fails if it is not known which transactions were committed up to a moment.
///
/// A transaction of the log that is in proves that all before it are older than the moment: also
/// what is missing there. What is missing behind the last of them is younger if what stands before the
/// hole vouches for the moment, and else nobody knows. With none, what the log goes on from may be
/// younger: then a snapshot must be older that has it.
pub(super) fn check_moment(
    history: &History,
    snapshots: &[SnapshotSet],
    moment: DateTime<Utc>,
    boundary: Option<usize>,
    inside: &[IndexedTransaction],
) -> Result<(), TargetError> {
    if inside.first().is_some_and(|first| first.time <= moment) {
        return Ok(());
    }
    let in_gap = |missing| TargetError::InGap {
        asked: moment,
        missing,
    };
    let end = boundary.unwrap_or(history.members.len());
    if let Some((behind, missing)) = hole(history, end)
        && complete_to(&history.members[..behind]).is_none_or(|to| to < moment)
    {
        return Err(in_gap(missing));
    }
    let mut passed = history.members[..end].iter();
    if passed.any(|member| member.transactions > 0) {
        return Ok(());
    }
    let oldest = snapshots.iter().map(|snapshot| snapshot.finished).min();
    if let Some(begins) = oldest.filter(|begins| *begins > moment) {
        return Err(TargetError::BeforeFirst {
            asked: moment,
            begins,
        });
    }
    let mut missing = history.start().cloned().unwrap_or_default();
    for snapshot in snapshots.iter().filter(|s| s.finished <= moment) {
        missing = missing.subtract(&snapshot.set);
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(in_gap(missing)),
    }
}

/// The first hole behind the last transaction that stands before member `end`: the member behind the
/// hole, and what is missing.
fn hole(history: &History, end: usize) -> Option<(usize, GtidSet)> {
    let members = &history.members;
    let last = members[..end].iter().rposition(|m| m.transactions > 0);
    let first = last.unwrap_or_default() + 1;
    (first..members.len().min(end + 1)).find_map(|at| {
        let missing = members[at].before.subtract(&members[at - 1].after());
        (!missing.is_empty()).then_some((at, missing))
    })
}

/// What the history has before member `end` of a moment that was checked: a hole behind the last
/// transaction came later than that.
pub(super) fn before(history: &History, end: usize) -> GtidSet {
    let members = &history.members;
    let end = match hole(history, end) {
        Some((behind, _)) => behind,
        None if end == members.len() => return history.end().unwrap_or_default(),
        None => end,
    };
    match end.checked_sub(1).and_then(|at| members.get(at)) {
        Some(last) => last.after(),
        None => history.start().cloned().unwrap_or_default(),
    }
}

/// Snapshots may hold transactions that the log will never hold, such as those made on a secondary
/// by hand. They can only come with the snapshot, so they belong to every later cut.
pub(super) fn add_strangers(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
    end: Option<&GtidSet>,
    cut: &mut Cut,
) {
    let Some(end) = end else {
        return;
    };
    let complete_to = history.complete_to();
    for snapshot in snapshots {
        let strangers = snapshot.set.subtract(end);
        if strangers.is_empty() {
            continue;
        }
        let log_caught_up = complete_to.is_some_and(|to| to > snapshot.finished);
        let usable = snapshot.set.intersect(end).is_subset(&cut.set);
        if usable && (log_caught_up || *target == Target::Latest) {
            cut.set.extend_from(&strangers);
            if log_caught_up {
                cut.notes.push(format!(
                    "a snapshot holds transactions that never came through the log: {strangers:#}"
                ));
            }
        }
    }
}

/// Whether a set is a server's whole `gtid_executed`: it holds all of some snapshot.
pub(super) fn is_whole(snapshots: &[SnapshotSet], set: &GtidSet) -> bool {
    snapshots
        .iter()
        .any(|snapshot| set.is_superset(&snapshot.set))
}

pub(super) fn newest(snapshots: &[SnapshotSet]) -> GtidSet {
    snapshots
        .last()
        .map_or_else(GtidSet::new, |snapshot| snapshot.set.clone())
}

pub(super) fn known(history: &History, snapshots: &[SnapshotSet]) -> GtidSet {
    let mut known = history.end().unwrap_or_default();
    for snapshot in snapshots {
        known.extend_from(&snapshot.set);
    }
    known
}
