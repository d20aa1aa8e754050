//! From what is asked to an exact cut.
//!
//! A target is a moment, a transaction, a set, or the newest state; a cut is a GTID set. Pure:
//! the history says in which segment a target falls, the caller reads that segment's list of
//! transactions, and [`resolve`] picks the transactions in and out. Moments are compared with the
//! commit time on the server whose binlog it was, in the archive's order: the first transaction
//! committed after the moment is out, and all behind it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::archive::history::History;
use crate::archive::layout::BranchNumber;
use crate::archive::segment::IndexedTransaction;
use crate::clock::rfc3339;
use crate::gtid::{Gtid, GtidSet};

/// What is asked of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum Target {
    /// All that the archive holds.
    Latest,
    /// The state at a moment.
    Until {
        /// Transactions committed up to this moment are in.
        #[serde(with = "crate::clock::micros")]
        moment: DateTime<Utc>,
    },
    /// A set: exactly this one if it is a whole `gtid_executed`, else the archive's order up to
    /// and including its last transaction.
    UntilGtid {
        /// The set.
        set: GtidSet,
    },
    /// The archive's order before a transaction.
    BeforeGtid {
        /// The first transaction that is out.
        gtid: Gtid,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("the newest archived state"),
            Self::Until { moment } => f.write_str(&rfc3339(*moment)),
            Self::UntilGtid { set } => write!(f, "GTID set {set:#}"),
            Self::BeforeGtid { gtid } => write!(f, "just before {gtid}"),
        }
    }
}

/// A transaction at the edge of a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// The transaction.
    pub gtid: Gtid,
    /// Its commit time on the server whose binlog was archived.
    #[serde(with = "crate::clock::micros")]
    pub time: DateTime<Utc>,
    /// What it did, in a few words.
    pub what: String,
}

impl Edge {
    fn of(transaction: &IndexedTransaction) -> Self {
        Self {
            gtid: transaction.gtid.clone(),
            time: transaction.time,
            what: transaction.summary.brief(),
        }
    }
}

/// The exact set that a target resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Every GTID that the restored server shall have.
    pub set: GtidSet,
    /// The last transaction in, if the log tells.
    pub last_in: Option<Edge>,
    /// The first transaction out, if there is one.
    pub first_out: Option<Edge>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Why a target has no cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The archive holds nothing to restore.
    #[error("the archive holds no snapshot yet")]
    Empty,
    /// The archive is not complete up to the moment.
    #[error("asked {}, the archive is complete to {}{}", rfc3339(*asked), rfc3339(*ends), lag(*asked, *ends))]
    Beyond {
        /// The moment that was asked for.
        asked: DateTime<Utc>,
        /// Where the archive ends.
        ends: DateTime<Utc>,
    },
    /// The archive's first state is younger than the moment.
    #[error("asked {}, the archive begins at {}", rfc3339(*asked), rfc3339(*begins))]
    BeforeFirst {
        /// The moment that was asked for.
        asked: DateTime<Utc>,
        /// When the oldest snapshot was finished.
        begins: DateTime<Utc>,
    },
    /// The moment falls into a hole of the log.
    #[error("asked {}, there the log has a gap: {missing:#} is not archived", rfc3339(*asked))]
    InGap {
        /// The moment that was asked for.
        asked: DateTime<Utc>,
        /// The transactions that were committed before or after it, nobody knows.
        missing: GtidSet,
    },
    /// There is no log, so moments cannot be told apart.
    #[error("the archive holds snapshots only, so it restores to {latest:#} and nothing between")]
    NoLog {
        /// The newest snapshot's set.
        latest: GtidSet,
    },
    /// The archive does not know these transactions.
    #[error("the archive does not hold {unknown:#}")]
    Unknown {
        /// Those that it lacks.
        unknown: GtidSet,
    },
    /// The transactions are none of this history.
    #[error("branch {branch} does not have {lost:#}: they were lost when it or its parent began")]
    Lost {
        /// The branch.
        branch: BranchNumber,
        /// Those that it lacks.
        lost: GtidSet,
    },
    /// The transaction is older than the log.
    #[error("{gtid} is older than the log, which begins after it")]
    BeforeLog {
        /// The transaction.
        gtid: Gtid,
    },
}

fn lag(asked: DateTime<Utc>, ends: DateTime<Utc>) -> String {
    let seconds = (asked - ends).num_seconds();
    match seconds {
        0..60 => format!(" (lag {seconds}s)"),
        60..3600 => format!(" (lag {}m{:02}s)", seconds / 60, seconds % 60),
        3600..86_400 => format!(" (lag {}h{:02}m)", seconds / 3600, seconds / 60 % 60),
        _ => format!(" (lag {}d{:02}h)", seconds / 86_400, seconds / 3600 % 24),
    }
}

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

/// The segment whose transactions are needed to resolve the target; `None` if none is.
///
/// # Errors
///
/// [`TargetError`] if the target cannot be reached, whatever that segment holds.
pub fn boundary(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
) -> Result<Option<usize>, TargetError> {
    if snapshots.is_empty() {
        return Err(TargetError::Empty);
    }
    match target {
        Target::Latest => Ok(None),
        Target::Until { moment } => {
            let ends = history.complete_to().ok_or_else(|| TargetError::NoLog {
                latest: newest(snapshots),
            })?;
            if *moment > ends {
                return Err(TargetError::Beyond {
                    asked: *moment,
                    ends,
                });
            }
            let is_after = |t: Option<DateTime<Utc>>| t.is_some_and(|t| t > *moment);
            Ok(history
                .members
                .iter()
                .position(|member| is_after(member.last_commit)))
        }
        Target::UntilGtid { set } => {
            let known = known(history, snapshots);
            let unknown = set.subtract(&known);
            if !unknown.is_empty() {
                return Err(unknown_or_lost(history, unknown));
            }
            if is_whole(snapshots, set) {
                return Ok(None);
            }
            // The last segment that holds one of them; older ones may all be in the snapshots.
            Ok(history
                .members
                .iter()
                .rposition(|member| !member.added.is_disjoint(set)))
        }
        Target::BeforeGtid { gtid } => {
            if let Some(at) = history
                .members
                .iter()
                .position(|member| member.added.contains(gtid))
            {
                return Ok(Some(at));
            }
            if known(history, snapshots).contains(gtid) {
                return Err(TargetError::BeforeLog { gtid: gtid.clone() });
            }
            Err(unknown_or_lost(history, GtidSet::from(gtid.clone())))
        }
    }
}

fn unknown_or_lost(history: &History, unknown: GtidSet) -> TargetError {
    let lost = unknown.intersect(&history.lost);
    if lost.is_empty() {
        return TargetError::Unknown { unknown };
    }
    TargetError::Lost {
        branch: history.branch,
        lost,
    }
}

/// The cut of a target. `inside` are the transactions of the segment that [`boundary`] named.
///
/// # Errors
///
/// [`TargetError`].
pub fn resolve(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
    boundary: Option<usize>,
    inside: &[IndexedTransaction],
) -> Result<Cut, TargetError> {
    let end = history.end();
    if let Target::Until { moment } = target {
        check_moment(history, snapshots, *moment, boundary, inside)?;
    }
    let mut cut = match (target, boundary) {
        (Target::UntilGtid { set }, None) if is_whole(snapshots, set) => {
            return Ok(Cut {
                set: set.clone(),
                last_in: None,
                first_out: None,
                notes: Vec::new(),
            });
        }
        (Target::UntilGtid { set }, None) => {
            // All of it is older than the log: the oldest snapshot that holds it is the answer.
            let holder = snapshots.iter().find(|s| s.set.is_superset(set));
            Cut {
                set: holder.map_or_else(|| set.clone(), |s| s.set.clone()),
                last_in: None,
                first_out: None,
                notes: vec!["the log begins later: this is the oldest snapshot's state".to_owned()],
            }
        }
        (_, None) => Cut {
            set: end.clone().unwrap_or_else(|| newest(snapshots)),
            last_in: None,
            first_out: None,
            notes: Vec::new(),
        },
        (_, Some(at)) => inside_segment(history, target, at, inside)?,
    };
    add_strangers(history, snapshots, target, end.as_ref(), &mut cut);
    Ok(cut)
}

/// Fails if it is not known which transactions were committed up to a moment.
///
/// A transaction of the log that is in proves that all before it are older than the moment. With
/// none, what the log goes on from may be younger: then a snapshot must be older.
fn check_moment(
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
    if let Some(at) = boundary
        && let Some(last) = passed.last()
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

fn inside_segment(
    history: &History,
    target: &Target,
    at: usize,
    inside: &[IndexedTransaction],
) -> Result<Cut, TargetError> {
    // How many of the segment's transactions are in.
    let count = match target {
        Target::Latest => inside.len(),
        Target::Until { moment } => inside
            .iter()
            .position(|transaction| transaction.time > *moment)
            .unwrap_or(inside.len()),
        Target::UntilGtid { set } => inside
            .iter()
            .rposition(|transaction| set.contains(&transaction.gtid))
            .map_or(0, |last| last + 1),
        Target::BeforeGtid { gtid } => inside
            .iter()
            .position(|transaction| transaction.gtid == *gtid)
            .ok_or_else(|| TargetError::Unknown {
                unknown: GtidSet::from(gtid.clone()),
            })?,
    };
    let mut set = history.members[at].before.clone();
    for transaction in &inside[..count] {
        set.insert(&transaction.gtid);
    }
    let mut notes = Vec::new();
    if let Target::Until { moment } = target {
        let later_but_earlier = inside[count..].iter().any(|t| t.time <= *moment)
            || history.members[at + 1..]
                .iter()
                .any(|m| m.first_commit.is_some_and(|first| first <= *moment));
        if later_but_earlier {
            notes.push(
                "a clock went back, or a failover changed clocks: behind the first transaction \
                 that is out there are some with earlier commit times; they are out too"
                    .to_owned(),
            );
        }
    }
    Ok(Cut {
        set,
        last_in: inside[..count].last().map(Edge::of),
        first_out: inside.get(count).map(Edge::of),
        notes,
    })
}

/// Snapshots may hold transactions that the log will never hold, such as those made on a secondary
/// by hand. They can only come with the snapshot, so they belong to every later cut.
fn add_strangers(
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
fn is_whole(snapshots: &[SnapshotSet], set: &GtidSet) -> bool {
    snapshots
        .iter()
        .any(|snapshot| set.is_superset(&snapshot.set))
}

fn newest(snapshots: &[SnapshotSet]) -> GtidSet {
    snapshots
        .last()
        .map_or_else(GtidSet::new, |snapshot| snapshot.set.clone())
}

fn known(history: &History, snapshots: &[SnapshotSet]) -> GtidSet {
    let mut known = history.end().unwrap_or_default();
    for snapshot in snapshots {
        known.extend_from(&snapshot.set);
    }
    known
}

#[cfg(test)]
mod tests;
