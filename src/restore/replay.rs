//! Replay: what the log holds behind the snapshot comes to the server.
//!
//! By default by replication ([`by_replication`]): the server is pointed at [`super::serve`] and its
//! own multi-threaded applier catches up; with [`by_sql`] we say the same over an ordinary
//! connection, transaction by transaction. Which of the two it is the caller decides: neither ever
//! takes the other's place. The invariant of both: a transaction that the server has is not applied
//! again, so that a replay that was interrupted is simply begun anew.

pub(super) mod blame;
mod channel;
mod listen;
mod replication;
pub(super) mod sql;
mod tuning;
mod watch;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive::history::Member;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::error::{Class, Classified, with_causes};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::error::MysqlError;
use crate::mysql::facts::ServerFacts;
use crate::mysql::server_url::ServerUrl;

pub use blame::BlamedTransaction;
pub use channel::CHANNEL;
pub use listen::Advertise;
pub use replication::{by_replication, drop_channel};
pub use sql::by_sql;
pub use tuning::TUNED;

/// How the log comes to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayKind {
    /// The server replicates from us.
    #[default]
    Replication,
    /// Over an ordinary connection to the server.
    Sql,
}

/// What is replayed, and to whom.
pub struct ReplayJob<'a> {
    /// Where it comes from.
    pub repository: &'a Repository,
    /// The history.
    pub branch: BranchNumber,
    /// Those of its members that are needed, in its order.
    pub members: &'a [Member],
    /// The transactions; those that the server has are left out.
    pub set: &'a GtidSet,
    /// The server.
    pub server: &'a ServerUrl,
    /// What it is.
    pub facts: &'a ServerFacts,
    /// Appliers that work at once.
    pub workers: u32,
    /// Where to listen for it; none lets the system choose.
    pub listen: Option<SocketAddr>,
    /// The address under which it reaches us; none takes the one that we reach it from.
    pub advertise: Option<&'a Advertise>,
    /// Who is told how far it is.
    pub progress: &'a (dyn Fn(ReplayProgress) + Send + Sync),
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

impl std::fmt::Debug for ReplayJob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayJob")
            .field("set", self.set)
            .finish_non_exhaustive()
    }
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The server refused a statement or broke off.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// The archive could not be read while it was played.
    #[error("the archive cannot be replayed: {}", with_causes(&**.0))]
    Archive(std::sync::Arc<ArchiveError>),
    /// We cannot be reached by the server.
    #[error("cannot listen on {address} for the server's replication")]
    Listen {
        /// The address.
        address: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// No certificate could be made for the connection.
    #[error("cannot make a certificate for the server's replication: {reason}")]
    Certificate {
        /// What the crypto library says.
        reason: String,
    },
    /// The server did not come.
    #[error(
        "{server} has not reached us at {address} within {seconds} s, which it must to replicate from us{}",
        in_brackets(.reason)
    )]
    Unreachable {
        /// `host:port`.
        server: String,
        /// Where we listen, as the server was told.
        address: String,
        /// How long we waited.
        seconds: u64,
        /// What the server says of it, or what we saw of it.
        reason: String,
    },
    /// A transaction could not be applied, or the server's receiver stopped.
    #[error("the {thread} of {server} stopped{} with error {code}: {message}", at(.transaction.as_deref()))]
    Applier {
        /// Which thread.
        thread: String,
        /// `host:port`.
        server: String,
        /// MySQL's error number.
        code: u32,
        /// The server's text.
        message: String,
        /// The transaction that it was at.
        transaction: Option<Box<BlamedTransaction>>,
    },
    /// Somebody stopped the replication and did not start it again.
    #[error("somebody stopped the {thread} of {server} (channel {CHANNEL}) {seconds} s ago")]
    Stopped {
        /// Which thread.
        thread: String,
        /// `host:port`.
        server: String,
        /// How long ago.
        seconds: u64,
    },
    /// The server would leave out a part of the log.
    #[error("{server} has replication filters that cannot be lifted for the replay: {filters}")]
    Filtered {
        /// `host:port`.
        server: String,
        /// Which.
        filters: String,
    },
    /// All was sent and the server stays behind.
    #[error("{server} has been sent everything and does not apply {missing:#}")]
    Stuck {
        /// `host:port`.
        server: String,
        /// What it lacks.
        missing: GtidSet,
    },
    /// An ordinary connection cannot say what the log says.
    #[error("transaction {gtid} cannot be replayed over an ordinary connection: {reason}")]
    NotInSql {
        /// The transaction.
        gtid: Gtid,
        /// What stands in the way.
        reason: String,
    },
    /// The caller gave up.
    #[error("the replay was interrupted")]
    Cancelled,
    /// The caller gave up, and the server has not stopped yet.
    #[error(
        "the replay was interrupted; {server} is still applying {} and stops by itself when that is \
         done",
        if transactions.is_empty() { "a transaction".to_owned() } else { transactions.join(", ") }
    )]
    StillApplying {
        /// `host:port`.
        server: String,
        /// What it is at, if it told.
        transactions: Vec<String>,
    },
}

fn in_brackets(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

fn at(transaction: Option<&BlamedTransaction>) -> String {
    transaction.map_or_else(String::new, |t| format!(" at transaction {t}"))
}

impl Classified for ReplayError {
    fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Filtered { .. } | Self::NotInSql { .. } => Class::Refused,
            Self::Listen { .. }
            | Self::Certificate { .. }
            | Self::Unreachable { .. }
            | Self::Applier { .. }
            | Self::Stopped { .. }
            | Self::Stuck { .. }
            | Self::Cancelled
            | Self::StillApplying { .. } => Class::Failure,
        }
    }
}

impl From<ArchiveError> for ReplayError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(std::sync::Arc::new(error))
    }
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReplayProgress {
    /// Transactions that were applied.
    pub applied: u64,
    /// Transactions in all.
    pub total: u64,
    /// Bytes of events that were sent.
    pub sent_bytes: u64,
}
