//! Why a restore fails.

use super::journal::{JournalError, MalformedJournal};
use super::load::LoadError;
use super::parts::PartsError;
use super::plan::PlanError;
use super::replay::ReplayError;
use super::target::TargetError;
use super::target::nearest::Nearest;
use crate::archive::layout::BranchNumber;
use crate::archive::marks::MarkName;
use crate::archive::repository::ArchiveError;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::wire::WireError;

/// A failure of a restore.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// A connection that reads rows failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The target cannot be reached.
    #[error("{error}")]
    Target {
        /// Why.
        error: TargetError,
        /// What can be had instead.
        nearest: Box<Nearest>,
    },
    /// There is no plan.
    #[error("{error}")]
    Plan {
        /// Why.
        error: PlanError,
        /// What can be had instead.
        nearest: Box<Nearest>,
    },
    /// There is no such mark.
    #[error("the archive has no mark {name}")]
    NoMark {
        /// The name.
        name: MarkName,
        /// Those that there are.
        marks: Vec<MarkName>,
    },
    /// The journal of an earlier run cannot be read.
    #[error(transparent)]
    Journal(#[from] MalformedJournal),
    /// The history that was asked for is not there.
    #[error("the archive has no branch {0}")]
    UnknownBranch(BranchNumber),
    /// The log is damaged where it is needed.
    #[error("the archive's log is damaged: {problem}")]
    Damaged {
        /// The first problem.
        problem: String,
    },
    /// The load failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The replay failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The server changed between plan and run.
    #[error("{server} is not the server that was planned for any more (its server_uuid changed)")]
    AnotherServer {
        /// `host:port`.
        server: String,
    },
    /// The server was touched and the restore did not come to its end.
    #[error("the restore to {server} did not finish; what it holds now is no state of the archive")]
    Unfinished {
        /// `host:port`.
        server: String,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// The tables are not those of the snapshot, and nothing that was replayed makes or drops any.
    #[error(
        "{server} has other tables than the snapshot: missing {}, unexpected {}",
        named(missing),
        named(unexpected)
    )]
    WrongTables {
        /// `host:port`.
        server: String,
        /// Those that it lacks.
        missing: Vec<String>,
        /// Those that it has beyond.
        unexpected: Vec<String>,
    },
    /// Rows are not those of the snapshot, and nothing that was replayed changed them.
    #[error("{server} has other rows than the snapshot in {}", named(tables))]
    WrongRows {
        /// `host:port`.
        server: String,
        /// The tables.
        tables: Vec<String>,
    },
    /// A restore of tables failed.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// Asked to stop.
    #[error("the restore was interrupted")]
    Cancelled,
    /// A task of this run ended without a result.
    #[error("a task of the restore failed: {0}")]
    Task(String),
    /// The end is not what was planned.
    #[error(
        "{server} ended at another state than planned: missing {missing:#}, unexpected {unexpected:#}"
    )]
    WrongEnd {
        /// `host:port`.
        server: String,
        /// What it lacks.
        missing: Box<GtidSet>,
        /// What it has beyond the plan.
        unexpected: Box<GtidSet>,
    },
}

/// The first few of many names.
fn named(names: &[String]) -> String {
    const MAX: usize = 8;
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<&str> = names.iter().take(MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(MAX);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl From<JournalError> for RestoreError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Mysql(error) => Self::Mysql(error),
            JournalError::Malformed(error) => Self::Journal(error),
        }
    }
}

impl Classified for RestoreError {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            Self::Mysql(error) => error.class(),
            Self::Wire(error) => error.class(),
            Self::Target {
                error: TargetError::InGap { .. } | TargetError::Missing { .. },
                ..
            } => Class::Gap,
            Self::Target { .. } | Self::UnknownBranch(_) | Self::NoMark { .. } => Class::NotCovered,
            Self::Plan { error, .. } => error.class(),
            Self::Damaged { .. }
            | Self::WrongEnd { .. }
            | Self::WrongTables { .. }
            | Self::WrongRows { .. } => Class::Integrity,
            Self::Journal(_) => Class::Refused,
            Self::Cancelled | Self::Task(_) => Class::Failure,
            Self::Unfinished { source, .. } => source.class(),
            Self::Load(error) => error.class(),
            Self::Parts(error) => error.class(),
            Self::Replay(error) => error.class(),
            Self::AnotherServer { .. } => Class::Refused,
        }
    }
}
