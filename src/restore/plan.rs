//! The plan of a restore: which snapshot, which segments, onto which server. Pure.
//!
//! Everything that can be refused is refused here, before the first write: a target outside what
//! is archived, a gap, a server that is not empty or cannot take the load. What the plan shows is
//! what the run does.

use serde::Serialize;

use super::target::{Cut, Target};
use crate::archive::history::{History, Member};
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::archive::manifest::Manifest;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::facts::TargetFacts;

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
    /// What a person should know.
    pub notes: Vec<String>,
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

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No snapshot is old enough.
    #[error("every snapshot holds transactions that are behind the target; the oldest is {oldest}")]
    NoSnapshot {
        /// The oldest one.
        oldest: SnapshotId,
    },
    /// The named snapshot is not there.
    #[error("there is no snapshot {id}")]
    UnknownSnapshot {
        /// The name that was given.
        id: SnapshotId,
    },
    /// The archive has no snapshot.
    #[error("the archive holds no snapshot yet")]
    Empty,
    /// Every snapshot was taken with a filter.
    #[error(
        "every snapshot was taken with --include or --exclude and lacks a part; the newest is {newest}"
    )]
    OnlyPartial {
        /// The newest one.
        newest: SnapshotId,
    },
    /// Transactions between the snapshot and the target are not archived.
    #[error(
        "transactions between snapshot {snapshot} and the target are not archived: {missing:#}{}",
        of_those(accepted)
    )]
    Gap {
        /// The snapshot that comes nearest.
        snapshot: SnapshotId,
        /// What is missing.
        missing: GtidSet,
        /// What of it somebody has accepted as lost.
        accepted: GtidSet,
    },
    /// The named snapshot is of another history.
    #[error(
        "snapshot {id} is no state of branch {branch}: it holds {beyond:#}, which was lost there"
    )]
    OtherHistory {
        /// The snapshot.
        id: SnapshotId,
        /// The history that was asked for.
        branch: BranchNumber,
        /// What it holds beyond that.
        beyond: GtidSet,
    },
    /// The server cannot take the restore.
    #[error("{server} cannot be the target: {}", reasons.join("; "))]
    Server {
        /// `host:port`.
        server: String,
        /// Every reason.
        reasons: Vec<String>,
    },
}

/// Tells that of what is missing something, or all, was accepted as lost.
fn of_those(accepted: &GtidSet) -> String {
    if accepted.is_empty() {
        return String::new();
    }
    format!(" ({accepted:#} was accepted as lost with --accept-gap)")
}

impl Classified for PlanError {
    fn class(&self) -> Class {
        match self {
            Self::NoSnapshot { .. }
            | Self::UnknownSnapshot { .. }
            | Self::OtherHistory { .. }
            | Self::OnlyPartial { .. }
            | Self::Empty => Class::NotCovered,
            Self::Gap { .. } => Class::Gap,
            Self::Server { .. } => Class::Refused,
        }
    }
}

/// What a plan is made from, besides target and cut.
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
    /// The server's facts.
    pub server: &'a TargetFacts,
}

impl RestorePlan {
    /// Decides.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn compute(target: Target, cut: Cut, inputs: &Inputs<'_>) -> Result<Self, PlanError> {
        let (manifest, needed) = choose_snapshot(&cut.set, inputs)?;
        let mut notes = cut.notes.clone();
        let skipped = inputs.skip.intersect(&needed);
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
        let set = needed.subtract(&skipped);
        let members = inputs.history.needed(&set);
        check_server(manifest, &members, inputs.server)?;
        let facts = &inputs.server.server;
        Ok(Self {
            result: cut.set.subtract(&skipped),
            skipped,
            snapshot: PlannedSnapshot {
                id: manifest.id.clone(),
                set: manifest.gtid_executed.clone(),
                tables: manifest.tables.len() as u64,
                rows: manifest.totals.rows,
                stored_bytes: manifest.totals.stored_bytes,
            },
            replay: PlannedReplay {
                transactions: u64::try_from(set.count()).unwrap_or(u64::MAX),
                set,
                segments: members.iter().map(|m| m.stored.name.key()).collect(),
                stored_bytes: members.iter().map(|m| m.stored.size).sum(),
                raw_bytes: members.iter().map(|m| m.stored.index.raw_bytes).sum(),
                branch: inputs.history.branch,
                members,
            },
            server: PlannedServer {
                address: facts.address.to_string(),
                uuid: facts.server_uuid,
                version: facts.version.to_string(),
            },
            target,
            cut,
            notes,
        })
    }
}

/// The newest snapshot from which the log leads to the cut, and the transactions on that way.
fn choose_snapshot<'a>(
    cut: &GtidSet,
    inputs: &Inputs<'a>,
) -> Result<(&'a Manifest, GtidSet), PlanError> {
    let oldest = inputs.snapshots.first().ok_or(PlanError::Empty)?;
    if let Some(id) = inputs.snapshot
        && !inputs.snapshots.iter().any(|snapshot| snapshot.id == *id)
    {
        return Err(PlanError::UnknownSnapshot { id: id.clone() });
    }
    let history = inputs.history;
    let (held, accepted) = (history.held(), history.accepted());
    let mut nearest: Option<PlanError> = None;
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
        if missing.is_empty() {
            return Ok((snapshot, needed));
        }
        nearest.get_or_insert(PlanError::Gap {
            snapshot: snapshot.id.clone(),
            accepted: missing.intersect(&accepted),
            missing,
        });
    }
    Err(nearest.unwrap_or_else(|| no_snapshot(cut, inputs, oldest)))
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

/// Every reason why a server cannot be the target.
fn check_server(
    manifest: &Manifest,
    members: &[Member],
    target: &TargetFacts,
) -> Result<(), PlanError> {
    let facts = &target.server;
    let mut reasons = Vec::new();
    if !target.is_empty() {
        reasons.push(format!(
            "it is not empty (it has the schemas {})",
            target.user_schemas.join(", ")
        ));
    }
    if let Some(state) = &target.group_member_state {
        reasons.push(format!("it is a member of a running group ({state})"));
    }
    if !target.replication_channels.is_empty() {
        reasons.push(format!(
            "it has replication channels ({})",
            target
                .replication_channels
                .iter()
                .map(|name| if name.is_empty() {
                    "the default one"
                } else {
                    name
                })
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }
    let source = &manifest.server;
    if (facts.version.triple().0, facts.version.triple().1)
        < (source.version.triple().0, source.version.triple().1)
    {
        reasons.push(format!(
            "it runs MySQL {}, older than the snapshot's {}",
            facts.version, source.version
        ));
    }
    if !facts.version.at_least(8, 0, 23) {
        reasons.push(format!(
            "it runs MySQL {}, replay needs 8.0.23 or newer",
            facts.version
        ));
    }
    if !facts.has_gtids() {
        reasons.push(format!("its gtid_mode is {}, not ON", facts.gtid_mode));
    }
    if facts.lower_case_table_names != source.lower_case_table_names {
        reasons.push(format!(
            "its lower_case_table_names is {}, the snapshot's was {}",
            facts.lower_case_table_names, source.lower_case_table_names
        ));
    }
    let used = members
        .iter()
        .filter_map(|member| member.stored.index.source.as_ref())
        .any(|source| source.server_ids.contains(&facts.server_id));
    if used {
        reasons.push(format!(
            "its server_id {} is in the archive, and a server drops events of its own id in silence",
            facts.server_id
        ));
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(PlanError::Server {
            server: facts.address.to_string(),
            reasons,
        })
    }
}
