//! Why a restore fails.

use super::load::LoadError;
use super::plan::PlanError;
use super::replay::ReplayError;
use super::target::TargetError;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::ArchiveError;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;

/// A failure of a restore.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// The target cannot be reached.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
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

impl Classified for RestoreError {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            Self::Mysql(error) => error.class(),
            Self::Target(TargetError::InGap { .. }) => Class::Gap,
            Self::Target(_) | Self::UnknownBranch(_) => Class::NotCovered,
            Self::Plan(error) => error.class(),
            Self::Damaged { .. } | Self::WrongEnd { .. } => Class::Integrity,
            Self::Unfinished { source, .. } => source.class(),
            Self::Load(error) => error.class(),
            Self::Replay(error) => error.class(),
            Self::AnotherServer { .. } => Class::Refused,
        }
    }
}
