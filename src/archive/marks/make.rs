//! Making a mark of a cluster's present state.

use chrono::{DateTime, Utc};

use super::{Mark, MarkName, MarkServer};
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::discover::login_for;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::{ServerFacts, pending, server_time};
use crate::mysql::primary::{PrimaryError, find_primary};
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;

/// Why there is no mark.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The archive failed, or has a mark of this name.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// There is no primary to ask.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The server is of another history than the archive.
    #[error(
        "{server} does not have {missing:#}, which branch {branch} of the archive holds: a mark of \
         its state would be none of that history"
    )]
    OtherHistory {
        /// `host:port`.
        server: String,
        /// The branch.
        branch: BranchNumber,
        /// What the server lacks.
        missing: GtidSet,
    },
}

impl Classified for MarkError {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            Self::Mysql(error) => error.class(),
            Self::Primary(error) => error.class(),
            Self::OtherHistory { .. } => Class::Refused,
        }
    }
}

/// A mark of the primary's present state, not put yet.
///
/// # Errors
///
/// [`MarkError`]; a name that is taken is found when the mark is put.
pub async fn of_present(
    repository: &Repository,
    servers: &[ServerUrl],
    name: MarkName,
    note: String,
    now: DateTime<Utc>,
) -> Result<Mark, MarkError> {
    // Asked before the server, which goes on meanwhile.
    let branch = repository.newest_branch().await?;
    let archived = repository.history(branch).await?.end().unwrap_or_default();
    let primary = find_primary(servers).await?.member;
    let first = servers
        .first()
        .ok_or_else(|| MysqlError::protocol("no server was given"))?;
    let url = login_for(&primary.address, first, servers);
    let mut session = Session::connect(&url).await?;
    // A source sends transactions before it has committed them, and they may be archived by then.
    let coming = pending(&mut session).await?;
    let facts = ServerFacts::load(&mut session).await?;
    let time = server_time(&mut session).await?;
    session.close().await;
    let missing = archived
        .subtract(&facts.gtid_executed)
        .subtract(&coming.owned)
        .subtract(&coming.queued);
    if !missing.is_empty() {
        return Err(MarkError::OtherHistory {
            server: facts.address.to_string(),
            branch,
            missing,
        });
    }
    Ok(Mark {
        name,
        gtid_executed: facts.gtid_executed,
        branch,
        time,
        server: MarkServer {
            uuid: facts.server_uuid,
            address: facts.address.to_string(),
            version: facts.version.to_string(),
        },
        note,
        created: now,
        quillback: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
