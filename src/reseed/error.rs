//! Why a reseed fails.

use std::time::Duration;

use crate::archive::repository::ArchiveError;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::server_url::HostPort;
use crate::restore::RestoreError;
use crate::restore::checks::Reason;

/// A failure of a reseed.
#[derive(Debug, thiserror::Error)]
pub enum ReseedError {
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// A restore to a member failed.
    #[error("{server} could not be filled from the archive")]
    Restore {
        /// The member.
        server: HostPort,
        /// Why.
        #[source]
        source: Box<RestoreError>,
    },
    /// It would not be safe, or would not work.
    #[error(
        "{primary} cannot become the primary of a group now: {}",
        listed(reasons)
    )]
    Refused {
        /// The restored server.
        primary: HostPort,
        /// Every reason.
        reasons: Vec<Reason>,
    },
    /// A server changed between plan and run.
    #[error("{server} is not what it was when the plan was made: {what}")]
    Changed {
        /// The server.
        server: HostPort,
        /// How.
        what: String,
    },
    /// A clone failed.
    #[error("{server} could not be made a copy of {donor}: {reason}")]
    Clone {
        /// The recipient.
        server: HostPort,
        /// The donor.
        donor: HostPort,
        /// What it says.
        reason: String,
    },
    /// A cloned server did not come back.
    #[error("{server} has not come back {} s after its clone", limit.as_secs())]
    NotRestarted {
        /// The server.
        server: HostPort,
        /// How long was waited.
        limit: Duration,
        /// What the last try failed with.
        #[source]
        source: MysqlError,
    },
    /// The command that restarts a server failed.
    #[error("the restart command failed for {server}: {reason}")]
    RestartCommand {
        /// The server.
        server: HostPort,
        /// Its exit status, or why it could not be run.
        reason: String,
    },
    /// A server is not taken by the group, or left it again.
    #[error("{server} is {state} in the group{}", of_log(log))]
    NotJoined {
        /// The server.
        server: HostPort,
        /// Its state.
        state: String,
        /// The last errors of its log.
        log: Vec<String>,
    },
    /// The end is not what was planned.
    #[error("{server} lacks {} of the new primary's transactions: {missing:#}", missing.count())]
    Different {
        /// The server.
        server: HostPort,
        /// What it lacks.
        missing: Box<GtidSet>,
    },
    /// Asked to stop.
    #[error("the reseed was interrupted")]
    Cancelled,
}

/// One reason behind the colon, several on lines of their own.
fn listed(reasons: &[Reason]) -> String {
    match reasons {
        [only] => only.what.clone(),
        several => several
            .iter()
            .map(|reason| format!("\n    - {}", reason.what))
            .collect(),
    }
}

fn of_log(log: &[String]) -> String {
    if log.is_empty() {
        return String::new();
    }
    format!("; its log says: {}", log.join(" | "))
}

impl Classified for ReseedError {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            Self::Mysql(error) => error.class(),
            Self::Restore { source, .. } => source.class(),
            Self::Refused { reasons, .. } => {
                let auth = |reason: &Reason| reason.class == Class::Authentication;
                match !reasons.is_empty() && reasons.iter().all(auth) {
                    true => Class::Authentication,
                    false => Class::Refused,
                }
            }
            Self::Changed { .. } => Class::Refused,
            Self::Clone { .. }
            | Self::RestartCommand { .. }
            | Self::NotJoined { .. }
            | Self::Cancelled => Class::Failure,
            Self::NotRestarted { .. } => Class::Transient,
            Self::Different { .. } => Class::Integrity,
        }
    }
}
