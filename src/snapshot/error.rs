//! What stops a snapshot.

use crate::archive::manifest::ManifestError;
use crate::error::{Class, Classified};
use crate::mysql::MysqlError;
use crate::mysql::topology::ChooseError;
use crate::mysql::wire::WireError;
use crate::storage::StorageError;

/// A failure of a snapshot; none leaves a snapshot behind.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A question to a server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// Reading rows failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Reading a table's rows failed.
    #[error("reading table {table} failed")]
    Table {
        /// `schema.table`.
        table: String,
        /// The cause.
        #[source]
        source: WireError,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No server may carry the load.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// A privilege is missing without which objects would be left out in silence.
    #[error("the account at {server} lacks {} on *.*", privileges.join(", "))]
    MissingPrivileges {
        /// The server.
        server: String,
        /// The privileges' names, as GRANT uses them.
        privileges: Vec<String>,
    },
    /// The server's transactions have no GTIDs.
    #[error("{server} has gtid_mode {gtid_mode}, but a snapshot needs ON")]
    NoGtids {
        /// The server.
        server: String,
        /// What it has.
        gtid_mode: String,
    },
    /// Tables that no read view covers.
    #[error("tables of an engine without consistent reads: {}", tables.join(", "))]
    NotInnodb {
        /// `schema.table (engine)` of each.
        tables: Vec<String>,
    },
    /// What was asked for is not there.
    #[error("--include {} matches nothing on {server}", patterns.join(", "))]
    NothingMatches {
        /// The server.
        server: String,
        /// The patterns.
        patterns: Vec<String>,
    },
    /// The plan was made for another server.
    #[error("{server} is not the server of the plan (its UUID is {found}, not {planned})")]
    AnotherServer {
        /// The server.
        server: String,
        /// Its UUID.
        found: String,
        /// The plan's.
        planned: String,
    },
    /// XA transactions are prepared: their GTIDs count as executed while their rows are not seen.
    #[error("{count} XA transactions are prepared and were not ended within {seconds} s")]
    PreparedXa {
        /// How many.
        count: u64,
        /// How long was waited.
        seconds: u64,
    },
    /// The lock-free way did not find a quiet moment and no other was allowed.
    #[error("{attempts} attempts found no moment without a transaction in commit")]
    NeverQuiet {
        /// How many attempts there were.
        attempts: u32,
    },
    /// A lock was not had within its bounds.
    #[error("{lock} was not had in {attempts} attempts of {seconds} s each")]
    LockBusy {
        /// The lock's statement.
        lock: &'static str,
        /// How many attempts there were.
        attempts: u32,
        /// The bound of each.
        seconds: u64,
    },
    /// The global read lock was held and yet transactions were committed.
    #[error("gtid_executed moved under FLUSH TABLES WITH READ LOCK")]
    MovedUnderLock,
    /// DDL came between the beginning and the end.
    #[error("the schema changed while it was read: {what}")]
    SchemaChanged {
        /// The first difference.
        what: String,
    },
    /// Compressing failed.
    #[error("compressing failed")]
    Compress(#[source] std::io::Error),
    /// A key or number that the manifest cannot say.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest could not be written as JSON.
    #[error("writing the manifest failed")]
    Json(#[source] serde_json::Error),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A task of this run ended without a result.
    #[error("a task of the snapshot failed: {0}")]
    Task(String),
}

impl Classified for SnapshotError {
    fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => error.class(),
            Self::Wire(error) | Self::Table { source: error, .. } => error.class(),
            Self::Storage(error) => error.class(),
            Self::Choose(error) => error.class(),
            Self::MissingPrivileges { .. } => Class::Authentication,
            Self::NothingMatches { .. } => Class::Usage,
            Self::NoGtids { .. }
            | Self::NotInnodb { .. }
            | Self::AnotherServer { .. }
            | Self::PreparedXa { .. } => Class::Refused,
            Self::NeverQuiet { .. } | Self::LockBusy { .. } | Self::SchemaChanged { .. } => {
                Class::Transient
            }
            Self::MovedUnderLock
            | Self::Compress(_)
            | Self::Manifest(_)
            | Self::Json(_)
            | Self::Cancelled
            | Self::Task(_) => Class::Failure,
        }
    }
}
