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
/// A transaction of the log that is in proves that all before it are older than the moment. With
/// none, what the log goes on from may be younger: then a snapshot must be older.
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
    let passed = &history.members[..boundary.unwrap_or(history.members.len())];
    // What a segment says of the source's clock holds for what is missing behind it, too.
    let is_vouched = complete_to(passed).is_some_and(|to| to >= moment);
    if let Some(at) = boundary
        && let Some(last) = passed.last()
        && !is_vouched
    {
        let missing = history.members[at].before.subtract(&last.after());
        if !missing.is_empty() {
            return Err(TargetError::InGap {
                asked: moment,
                missing,
            });
        }
    }
    let is_proved = passed.iter().any(|member| member.transactions > 0);
    let oldest = snapshots.iter().map(|snapshot| snapshot.finished).min();
    match oldest {
        Some(begins) if !is_proved && begins > moment => Err(TargetError::BeforeFirst {
            asked: moment,
            begins,
        }),
        _ => Ok(()),
    }
}

/// What the history has before a member, without what is missing in between: a moment before that
/// hole does not have it.
pub(super) fn before(history: &History, at: usize) -> GtidSet {
    match at.checked_sub(1).and_then(|at| history.members.get(at)) {
        Some(last) => last.after(),
        None => history.members[at].before.clone(),
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
