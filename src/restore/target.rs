//! From what is asked to an exact cut.
//!
//! A target is a moment, a transaction, a set, a mark, or the newest state; a cut is a GTID set.
//! Pure: the history says in which segments a target falls ([`lookup`]), the caller reads the lists
//! of transactions of those, and [`resolve`] picks the transactions in and out. Moments are compared
//! with the commit time on the server whose binlog it was, in the archive's order: the first
//! transaction committed after the moment is out, and all behind it. What that may leave to doubt
//! is in [`ambiguity`], what can be had instead of a target that cannot in [`nearest`].

mod ambiguity;
mod error;
pub mod nearest;
mod states;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::archive::history::History;
use crate::archive::marks::{Mark, MarkName};
use crate::archive::segment::IndexedTransaction;
use crate::clock::rfc3339;
use crate::gtid::{Gtid, GtidSet};
use uuid::Uuid;

pub use error::TargetError;
pub use states::SnapshotSet;

use states::{add_strangers, check_moment, is_whole, known, newest};

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
    /// The state that a mark names, no more and no less.
    UntilMark {
        /// The mark.
        mark: MarkName,
        /// Its time, by the clock of the server that it was read from.
        #[serde(with = "crate::clock::micros")]
        time: DateTime<Utc>,
        /// Its set.
        set: GtidSet,
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
            Self::UntilMark { mark, time, .. } => {
                write!(f, "mark {mark} ({})", rfc3339(*time))
            }
            Self::UntilGtid { set } => write!(f, "GTID set {set:#}"),
            Self::BeforeGtid { gtid } => write!(f, "just before {gtid}"),
        }
    }
}

impl From<Mark> for Target {
    fn from(mark: Mark) -> Self {
        Self::UntilMark {
            mark: mark.name,
            time: mark.time,
            set: mark.gtid_executed,
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
    /// Its commit time on the server where it began, if that is another one and known.
    #[serde(
        with = "crate::clock::micros_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub original_time: Option<DateTime<Utc>>,
    /// `server_uuid` of the server whose binlog was archived.
    pub source: Option<Uuid>,
    /// What it did, in a few words.
    pub what: String,
}

impl Edge {
    fn of(line: &Line<'_>) -> Self {
        let transaction = line.transaction;
        Self {
            gtid: transaction.gtid.clone(),
            time: transaction.time,
            original_time: transaction
                .original_time
                .filter(|original| *original != transaction.time),
            source: line.source,
            what: transaction.summary.brief(),
        }
    }
}

/// The line of a transaction, and whose binlog it was in.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    transaction: &'a IndexedTransaction,
    source: Option<Uuid>,
    /// The member of the history that gives it.
    member: usize,
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
    /// What the edges leave to doubt, and how it was decided.
    pub remarks: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// So many segments behind the cut are looked through for earlier commit times.
const LOOK_BEHIND: usize = 64;

/// What must be read before a target can be resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// The member of the history that the cut falls into or stands before, if one.
    boundary: Option<usize>,
    /// The members whose lists of transactions [`resolve`] wants, in order.
    pub members: Vec<usize>,
}

/// Finds where in the history a target falls.
///
/// # Errors
///
/// [`TargetError`] if the target cannot be reached, whatever the segments hold.
pub fn lookup(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
) -> Result<Lookup, TargetError> {
    let boundary = boundary(history, snapshots, target)?;
    let members = &history.members;
    let is_full = |at: &usize| members[*at].transactions > 0;
    let mut wanted: Vec<usize> = Vec::new();
    let exact = exact_set(snapshots, target);
    if let Some(set) = exact {
        let last_in = members.iter().rposition(|m| !m.added.is_disjoint(set));
        let first_out = members.iter().position(|m| !m.added.is_subset(set));
        wanted.extend([last_in, first_out].into_iter().flatten());
    } else {
        let end = boundary.unwrap_or(members.len());
        wanted.extend((0..end).rev().find(is_full));
        wanted.extend(boundary);
        wanted.extend((end + 1..members.len()).find(is_full));
    }
    if let (Target::Until { moment }, Some(at)) = (target, boundary) {
        let may_be_back = |at: &usize| members[*at].first_commit.is_some_and(|t| t <= *moment);
        wanted.extend(
            (at + 1..members.len())
                .filter(may_be_back)
                .take(LOOK_BEHIND),
        );
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(Lookup {
        boundary,
        members: wanted,
    })
}

/// The set that a target means exactly: a mark's, or one that is a server's whole `gtid_executed`.
fn exact_set<'a>(snapshots: &[SnapshotSet], target: &'a Target) -> Option<&'a GtidSet> {
    match target {
        Target::UntilMark { set, .. } => Some(set),
        Target::UntilGtid { set } if is_whole(snapshots, set) => Some(set),
        _ => None,
    }
}

/// The segment that the cut falls into; `None` if it falls into none.
fn boundary(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
) -> Result<Option<usize>, TargetError> {
    if snapshots.is_empty() {
        return Err(TargetError::Empty);
    }
    let reachable = |set: &GtidSet| {
        let unknown = set.subtract(&known(history, snapshots));
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(unknown_or_lost(history, unknown)),
        }
    };
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
        Target::UntilMark { mark, set, .. } => {
            reachable(set)?;
            match is_whole(snapshots, set) {
                true => Ok(None),
                false => Err(TargetError::MarkTooOld { mark: mark.clone() }),
            }
        }
        Target::UntilGtid { set } => {
            reachable(set)?;
            if is_whole(snapshots, set) {
                return Ok(None);
            }
            // The last segment that holds one of them; older ones may all be in the snapshots.
            let last = history
                .members
                .iter()
                .rposition(|member| !member.added.is_disjoint(set));
            let is_held = snapshots.iter().any(|s| s.set.is_superset(set));
            match last {
                None if !is_held => Err(TargetError::Missing {
                    missing: set.clone(),
                }),
                last => Ok(last),
            }
        }
        Target::BeforeGtid { gtid } => {
            if let Some(at) = history
                .members
                .iter()
                .position(|member| member.added.contains(gtid))
            {
                return Ok(Some(at));
            }
            let missing = history.missing().union(&history.accepted());
            if missing.contains(gtid) {
                let missing = GtidSet::from(gtid.clone());
                return Err(TargetError::Missing { missing });
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

/// The transactions of the members that a [`Lookup`] names, those of the history only.
pub type Lines = BTreeMap<usize, Vec<IndexedTransaction>>;

/// The cut of a target.
///
/// # Errors
///
/// [`TargetError`].
pub fn resolve(
    history: &History,
    snapshots: &[SnapshotSet],
    target: &Target,
    lookup: &Lookup,
    lines: &Lines,
) -> Result<Cut, TargetError> {
    let all: Vec<Line<'_>> = all_lines(history, lines);
    if let Some(set) = exact_set(snapshots, target) {
        return Ok(exact_cut(set, &all));
    }
    let end = history.end();
    let inside: &[IndexedTransaction] = lookup
        .boundary
        .and_then(|at| lines.get(&at))
        .map_or(&[], Vec::as_slice);
    if let Target::Until { moment } = target {
        check_moment(history, snapshots, *moment, lookup.boundary, inside)?;
    }
    let (mut cut, taken) = match (target, lookup.boundary) {
        (Target::UntilGtid { set }, None) => {
            // All of it is older than the log: the oldest snapshot that holds it is the answer.
            let holder = snapshots.iter().find(|s| s.set.is_superset(set));
            let cut = Cut {
                set: holder.map_or_else(|| set.clone(), |s| s.set.clone()),
                last_in: None,
                first_out: None,
                remarks: Vec::new(),
                notes: vec!["the log begins later: this is the oldest snapshot's state".to_owned()],
            };
            return Ok(cut);
        }
        (Target::Until { .. }, None) => {
            let set = states::before(history, history.members.len());
            (stretch(set, &all, all.len()), all.len())
        }
        (_, None) => {
            let set = end.clone().unwrap_or_else(|| newest(snapshots));
            (stretch(set, &all, all.len()), all.len())
        }
        (_, Some(at)) => {
            let count = count_in(target, inside)?;
            let mut set = match target {
                Target::Until { .. } if count == 0 => states::before(history, at),
                _ => history.members[at].before.clone(),
            };
            for transaction in &inside[..count] {
                set.insert(&transaction.gtid);
            }
            let taken = all.partition_point(|line| line.member < at) + count;
            (stretch(set, &all, taken), taken)
        }
    };
    ambiguity::explain(target, &all, taken, &mut cut);
    add_strangers(history, snapshots, target, end.as_ref(), &mut cut);
    Ok(cut)
}

/// The lines that were read, in the archive's order.
fn all_lines<'a>(history: &History, lines: &'a Lines) -> Vec<Line<'a>> {
    let of_member = |(member, lines): (&usize, &'a Vec<IndexedTransaction>)| {
        let member = *member;
        let source = history.members.get(member).and_then(|member| {
            let source = member.stored.index.source.as_ref();
            source.map(|source| source.uuid)
        });
        lines.iter().map(move |transaction| Line {
            transaction,
            source,
            member,
        })
    };
    lines.iter().flat_map(of_member).collect()
}

/// The cut behind the first `taken` of the lines that were read.
fn stretch(set: GtidSet, all: &[Line<'_>], taken: usize) -> Cut {
    Cut {
        set,
        last_in: taken
            .checked_sub(1)
            .and_then(|at| all.get(at))
            .map(Edge::of),
        first_out: all.get(taken).map(Edge::of),
        remarks: Vec::new(),
        notes: Vec::new(),
    }
}

/// The cut of a set that is meant exactly: it need not be a stretch of the log.
fn exact_cut(set: &GtidSet, all: &[Line<'_>]) -> Cut {
    let is_in = |line: &&Line<'_>| set.contains(&line.transaction.gtid);
    let last = all.iter().rposition(|line| is_in(&line));
    let first_out = all.iter().position(|line| !is_in(&line));
    let mut remarks = Vec::new();
    if let (Some(last), Some(out)) = (last, first_out)
        && out < last
    {
        remarks.push(format!(
            "the set is no stretch of the log: {} comes before its last transaction and is not in \
             it",
            all[out].transaction.gtid
        ));
    }
    Cut {
        set: set.clone(),
        last_in: last.map(|at| Edge::of(&all[at])),
        first_out: first_out.map(|at| Edge::of(&all[at])),
        remarks,
        notes: Vec::new(),
    }
}

/// How many transactions of the boundary's segment are in.
fn count_in(target: &Target, inside: &[IndexedTransaction]) -> Result<usize, TargetError> {
    Ok(match target {
        Target::Latest | Target::UntilMark { .. } => inside.len(),
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
    })
}

#[cfg(test)]
mod tests;
