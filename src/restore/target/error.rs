//! Why a target cannot be had.

use chrono::{DateTime, Utc};

use crate::archive::layout::BranchNumber;
use crate::archive::marks::MarkName;
use crate::clock::rfc3339;
use crate::gtid::{Gtid, GtidSet};

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
    /// The transactions are in a hole of the log.
    #[error("the log has a gap: {missing:#} is not archived")]
    Missing {
        /// Those that were asked for.
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
    /// A mark is of a time before the oldest snapshot.
    #[error("no snapshot is as old as mark {mark}")]
    MarkTooOld {
        /// The mark.
        mark: MarkName,
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
