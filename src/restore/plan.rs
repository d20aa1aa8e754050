//! The plan of a restore: which snapshot, which segments, onto which server. Pure.
//!
//! Everything that can be refused is refused here, before the first write: a target outside what
//! is archived, a gap, a server that is not empty or cannot take the load. What the plan shows is
//! what the run does.

mod error;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::checks::{self, Content, ServerState, Wishes};
use super::estimate::{Expected, Rates, Work};
use super::journal::Stage;
use super::replay::ReplayKind;
use super::target::{Cut, Target};
use crate::archive::history::{History, Member};
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::archive::manifest::Manifest;
use crate::gtid::GtidSet;
use crate::mysql::server_url::HostPort;

pub use error::PlanError;

/// A restore, decided.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// What was asked.
    pub target: Target,
    /// What it resolves to.
    pub cut: Cut,
    /// Transactions that are left out by name.
    pub skipped: GtidSet,
    /// What `gtid_executed` of the restored server shall be.
    pub result: GtidSet,
    /// The snapshot to load.
    pub snapshot: PlannedSnapshot,
    /// The log to replay behind it.
    pub replay: PlannedReplay,
    /// The server to restore to.
    pub server: PlannedServer,
    /// What is removed from it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe: Option<PlannedWipe>,
    /// What was begun on it and is gone on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<PlannedResume>,
    /// How long it may take.
    pub expected: Expected,
    /// What it needs on the server's disk.
    pub space: PlannedSpace,
    /// What is good to know and no reason to worry.
    pub remarks: Vec<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// What `--wipe` removes from a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedWipe {
    /// Its schemas.
    pub schemas: Vec<Content>,
    /// Its accounts, but for the server's own and the one that restores.
    pub accounts: Vec<String>,
    /// Its replication channels.
    pub channels: Vec<String>,
    /// Its GTIDs, with its binlogs.
    pub gtid_executed: GtidSet,
    /// Whether an earlier restore was not finished.
    pub unfinished: bool,
}

/// What an earlier run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedResume {
    /// When it began.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
    /// How far it came.
    pub stage: Stage,
}

/// What a restore takes on the server's disk, in bytes. What is free there SQL does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PlannedSpace {
    /// Rows as text; in InnoDB they take about as much again with their indexes.
    pub rows: u64,
    /// The binlog that the server writes while it replays, and the relay log meanwhile.
    pub binlog: u64,
}

/// The snapshot of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedSnapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it holds.
    pub set: GtidSet,
    /// Its tables.
    pub tables: u64,
    /// Its rows.
    pub rows: u64,
    /// Its bytes in the store.
    pub stored_bytes: u64,
    /// Its bytes before compression.
    pub raw_bytes: u64,
    /// A newer one that would do as well and would take longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rather_than: Option<SnapshotId>,
}

/// The log of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedReplay {
    /// The transactions to replay.
    pub set: GtidSet,
    /// How many those are.
    pub transactions: u64,
    /// The keys of the segments that hold them, in order.
    pub segments: Vec<String>,
    /// Bytes of those segments in the store.
    pub stored_bytes: u64,
    /// Bytes of binlog in them.
    pub raw_bytes: u64,
    /// How the log comes to the server.
    pub kind: ReplayKind,
    /// The history that they are of.
    pub branch: BranchNumber,
    /// What the history has from them.
    #[serde(skip)]
    pub members: Vec<Member>,
}

/// The server of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedServer {
    /// `host:port`.
    pub address: String,
    /// Its `server_uuid`.
    pub uuid: uuid::Uuid,
    /// Its version.
    pub version: String,
}

/// What a way to a cut is looked for in.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The history.
    pub history: &'a History,
    /// The snapshots, oldest first.
    pub snapshots: &'a [Manifest],
    /// The snapshot that was asked for by name.
    pub snapshot: Option<&'a SnapshotId>,
    /// Transactions to leave out.
    pub skip: &'a GtidSet,
    /// How fast things go.
    pub rates: &'a Rates,
}

/// The way to a cut: a snapshot, and the log behind it.
#[derive(Debug, Clone)]
pub struct Way<'a> {
    /// The snapshot.
    pub manifest: &'a Manifest,
    /// The transactions to replay, without those that are left out by name.
    pub set: GtidSet,
    /// Those that are left out by name.
    pub skipped: GtidSet,
    /// What the history has them from.
    pub members: Vec<Member>,
    expected: Expected,
    rather_than: Option<SnapshotId>,
}

/// The server of a restore and what may be done to it.
#[derive(Debug)]
pub struct Onto<'a> {
    /// What it is.
    pub state: &'a ServerState,
    /// Whether to go on with what is begun.
    pub resume: bool,
    /// The server that may be emptied.
    pub wipe: Option<&'a HostPort>,
    /// Privileges that accounts of the snapshot have.
    pub handed_on: &'a std::collections::BTreeSet<String>,
    /// How the log comes to it.
    pub replay: ReplayKind,
}

impl RestorePlan {
    /// Decides.
    ///
    /// # Errors
    ///
    /// [`PlanError::Server`].
    pub fn compute(
        target: Target,
        cut: Cut,
        way: Way<'_>,
        inputs: &Inputs<'_>,
        onto: &Onto<'_>,
    ) -> Result<Self, PlanError> {
        let manifest = way.manifest;
        let facts = &onto.state.facts.server;
        let wishes = Wishes {
            resume: onto.resume,
            wipe: onto.wipe,
            handed_on: onto.handed_on,
        };
        let reasons = checks::check(manifest, onto.state, &wishes);
        if !reasons.is_empty() {
            return Err(PlanError::Server {
                server: facts.address.to_string(),
                reasons,
            });
        }
        let resume = onto.state.journal.as_ref().filter(|_| onto.resume);
        let raw_bytes = way.members.iter().map(|m| m.stored.index.raw_bytes).sum();
        let mut remarks = cut.remarks.clone();
        remarks.extend(checks::remarks(manifest, onto.state));
        if onto.replay == ReplayKind::Replication {
            remarks.extend(remark_of_id(facts.server_id, &way.members));
        }
        Ok(Self {
            result: cut.set.subtract(&way.skipped),
            notes: notes(&cut, &way, inputs),
            snapshot: PlannedSnapshot {
                id: manifest.id.clone(),
                set: manifest.gtid_executed.clone(),
                tables: manifest.tables.len() as u64,
                rows: manifest.totals.rows,
                stored_bytes: manifest.totals.stored_bytes,
                raw_bytes: manifest.totals.raw_bytes,
                rather_than: way.rather_than,
            },
            replay: PlannedReplay {
                transactions: u64::try_from(way.set.count()).unwrap_or(u64::MAX),
                set: way.set,
                segments: way.members.iter().map(|m| m.stored.name.key()).collect(),
                stored_bytes: way.members.iter().map(|m| m.stored.size).sum(),
                raw_bytes,
                kind: onto.replay,
                branch: inputs.history.branch,
                members: way.members,
            },
            server: PlannedServer {
                address: facts.address.to_string(),
                uuid: facts.server_uuid,
                version: facts.version.to_string(),
            },
            wipe: match (onto.wipe, resume) {
                (Some(_), None) => Some(checks::wiped(onto.state)),
                _ => None,
            },
            resume: resume.map(|journal| PlannedResume {
                started: journal.run.started,
                stage: journal.stage,
            }),
            expected: way.expected,
            space: PlannedSpace {
                rows: manifest.totals.raw_bytes,
                binlog: raw_bytes,
            },
            skipped: way.skipped,
            remarks,
            target,
            cut,
        })
    }
}

/// A server that was one of the cluster has its old number.
fn remark_of_id(server_id: u32, members: &[Member]) -> Option<String> {
    members
        .iter()
        .filter_map(|member| member.stored.index.source.as_ref())
        .any(|source| source.server_ids.contains(&server_id))
        .then(|| {
            format!(
                "its server_id {server_id} is in the log, and a server drops events of its own id: it has \
                 another one while it replays"
            )
        })
}

fn notes(cut: &Cut, way: &Way<'_>, inputs: &Inputs<'_>) -> Vec<String> {
    let manifest = way.manifest;
    let mut notes = cut.notes.clone();
    let in_snapshot = inputs.skip.intersect(&manifest.gtid_executed);
    if !in_snapshot.is_empty() {
        notes.push(format!(
            "the snapshot holds {in_snapshot:#} already, so it cannot be left out"
        ));
    }
    if !manifest.filter.is_everything() {
        notes.push(format!(
            "snapshot {} was taken with {}: what that leaves out is not restored, and the \
             replay fails at a transaction that changes it",
            manifest.id, manifest.filter
        ));
    }
    notes
}

/// The way to the cut that is fastest by estimate; of two that are as fast, the one with less to
/// replay.
///
/// # Errors
///
/// [`PlanError`].
pub fn find_way<'a>(cut: &GtidSet, inputs: &Inputs<'a>) -> Result<Way<'a>, PlanError> {
    let oldest = inputs.snapshots.first().ok_or(PlanError::Empty)?;
    if let Some(id) = inputs.snapshot
        && !inputs.snapshots.iter().any(|snapshot| snapshot.id == *id)
    {
        return Err(PlanError::UnknownSnapshot { id: id.clone() });
    }
    let history = inputs.history;
    let (held, accepted) = (history.held(), history.accepted());
    let mut nearest: Option<PlanError> = None;
    let mut newest: Option<&SnapshotId> = None;
    let mut best: Option<Way<'a>> = None;
    for snapshot in inputs.snapshots.iter().rev() {
        if inputs.snapshot.is_some_and(|id| *id != snapshot.id)
            || !snapshot.gtid_executed.is_subset(cut)
            || !history.admits(&snapshot.gtid_executed, snapshot.started)
        {
            continue;
        }
        let needed = cut.subtract(&snapshot.gtid_executed);
        let mut missing = needed.subtract(&held);
        missing.extend_from(&incomplete(history, &needed));
        if !missing.is_empty() {
            nearest.get_or_insert(PlanError::Gap {
                snapshot: snapshot.id.clone(),
                accepted: missing.intersect(&accepted),
                missing,
            });
            continue;
        }
        let skipped = inputs.skip.intersect(&needed);
        let set = needed.subtract(&skipped);
        let members = history.needed(&set);
        let expected = inputs.rates.expect(&Work {
            load_bytes: snapshot.totals.raw_bytes,
            replay_bytes: members.iter().map(|m| m.stored.index.raw_bytes).sum(),
            transactions: u64::try_from(set.count()).unwrap_or(u64::MAX),
        });
        let newest = *newest.get_or_insert(&snapshot.id);
        // A second is no reason to leave the newest one.
        if best
            .as_ref()
            .is_none_or(|best| expected.seconds + 1.0 < best.expected.seconds)
        {
            best = Some(Way {
                manifest: snapshot,
                rather_than: (*newest != snapshot.id).then(|| newest.clone()),
                set,
                skipped,
                members,
                expected,
            });
        }
    }
    best.ok_or_else(|| nearest.unwrap_or_else(|| no_snapshot(cut, inputs, oldest)))
}

/// Why no snapshot leads to the cut, whatever the log holds.
fn no_snapshot(cut: &GtidSet, inputs: &Inputs<'_>, oldest: &Manifest) -> PlanError {
    let history = inputs.history;
    let of_another = inputs.snapshots.iter().rev().find(|snapshot| {
        inputs.snapshot.is_none_or(|id| *id == snapshot.id)
            && !history.admits(&snapshot.gtid_executed, snapshot.started)
    });
    match of_another {
        Some(snapshot) if inputs.snapshot.is_some() => PlanError::OtherHistory {
            id: snapshot.id.clone(),
            branch: history.branch,
            beyond: snapshot.gtid_executed.subtract(cut),
        },
        _ => PlanError::NoSnapshot {
            oldest: oldest.id.clone(),
        },
    }
}

/// The transactions of `set` of which a part is missing: each part must stand right behind the
/// one that it was written after.
fn incomplete(history: &History, set: &GtidSet) -> GtidSet {
    let mut found = GtidSet::new();
    for (at, member) in history.members.iter().enumerate() {
        let Some(last) = member.part() else {
            continue;
        };
        if last.unfinished || !last.continued || !set.contains(&last.gtid) {
            continue;
        }
        let mut at = at;
        loop {
            let member = &history.members[at];
            if !member.part().is_some_and(|part| part.continued) {
                break;
            }
            let is_right = at.checked_sub(1).is_some_and(|before| {
                let before = &history.members[before];
                let same = before
                    .part()
                    .is_some_and(|part| part.unfinished && part.gtid == last.gtid);
                same && before.stored.is_before(&member.stored)
            });
            if !is_right {
                found.insert(&last.gtid);
                break;
            }
            at -= 1;
        }
    }
    found
}
