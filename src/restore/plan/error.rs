//! Why there is no plan.

use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::restore::checks::Reason;

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
    #[error("{server} cannot be the target: {}", listed(reasons))]
    Server {
        /// `host:port`.
        server: String,
        /// Every reason.
        reasons: Vec<Reason>,
    },
}

/// Tells that of what is missing something, or all, was accepted as lost.
fn of_those(accepted: &GtidSet) -> String {
    if accepted.is_empty() {
        return String::new();
    }
    format!(" ({accepted:#} was accepted as lost with --accept-gap)")
}

/// One reason in the line, several in lines of their own.
fn listed(reasons: &[Reason]) -> String {
    match reasons {
        [only] => only.what.clone(),
        reasons => {
            let lines = reasons
                .iter()
                .map(|reason| format!("\n    - {}", reason.what));
            lines.collect()
        }
    }
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
            // Where only privileges are missing, that is what to mend.
            Self::Server { reasons, .. } => {
                let mut classes = reasons.iter().map(|reason| reason.class);
                match classes.all(|class| class == Class::Authentication) {
                    true => Class::Authentication,
                    false => Class::Refused,
                }
            }
        }
    }
}
