//! What stops a load.

use crate::archive::manifest::ScriptKind;
use crate::archive::script::ScriptError;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::MysqlError;
use crate::mysql::wire::WireError;
use crate::storage::StorageError;

/// A failure of a load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The target holds schemas already. Nothing was changed.
    #[error("{server} is not empty: it holds {}", schemas.join(", "))]
    NotEmpty {
        /// The target.
        server: String,
        /// The schemas that it holds.
        schemas: Vec<String>,
    },
    /// The target is in a running group. Nothing was changed.
    #[error("{server} is a member of a running group ({state})")]
    GroupMember {
        /// The target.
        server: String,
        /// Its state.
        state: String,
    },
    /// A question to the target failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// A connection that loads rows failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Something is encrypted on disk and the target has no keyring. Nothing was changed.
    #[error("{server} has no keyring, but these are encrypted: {}", some(objects))]
    NoKeyring {
        /// The target.
        server: String,
        /// What is encrypted.
        objects: Vec<String>,
    },
    /// Events have time zones that the target does not know. Nothing was changed.
    #[error("{server} does not know the time zones of events: {}", zones.join(", "))]
    NoTimeZones {
        /// The target.
        server: String,
        /// Their names.
        zones: Vec<String>,
    },
    /// A statement of a script was refused.
    #[error("making {object} of the {kind} failed")]
    Statement {
        /// What the script makes.
        kind: ScriptKind,
        /// The object's name, or how its statement begins.
        object: String,
        /// The cause.
        #[source]
        source: MysqlError,
    },
    /// A statement on an account was refused; its text holds a hash and is not shown.
    #[error("making account {account} failed")]
    Account {
        /// `user@host`.
        account: String,
        /// The cause.
        #[source]
        source: MysqlError,
    },
    /// A file's rows were refused.
    #[error("loading {key} into {table} failed")]
    Rows {
        /// `schema.table`.
        table: String,
        /// The object.
        key: String,
        /// The cause.
        #[source]
        source: Box<WireError>,
    },
    /// The server changed or left out rows while it loaded them.
    #[error("loading {key} into {table} lost rows or values: {what}")]
    Unfaithful {
        /// `schema.table`.
        table: String,
        /// The object.
        key: String,
        /// What the server said.
        what: String,
    },
    /// The indexes of a table could not be built, or dropped before.
    #[error("making the indexes of {table} failed")]
    Index {
        /// `schema.table`.
        table: String,
        /// The cause.
        #[source]
        source: MysqlError,
    },
    /// A table is not what it was before its indexes were dropped.
    #[error("SHOW CREATE TABLE {table} is not what it was before its indexes were built")]
    OtherTable {
        /// `schema.table`.
        table: String,
    },
    /// An object is not what the manifest says.
    #[error("{key} is damaged: {what}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A script of the snapshot cannot be read.
    #[error("{key} is damaged")]
    Script {
        /// The object.
        key: String,
        /// What is wrong with it.
        #[source]
        source: ScriptError,
    },
    /// The GTIDs could not be made those of the snapshot.
    #[error("{server} has gtid_executed {found} after the load, not {wanted}")]
    OtherGtids {
        /// The target.
        server: String,
        /// What it has.
        found: GtidSet,
        /// What it should have.
        wanted: GtidSet,
    },
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A task of this run ended without a result.
    #[error("a task of the load failed: {0}")]
    Task(String),
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    const MAX: usize = 5;
    let shown = names
        .iter()
        .take(MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Classified for LoadError {
    fn class(&self) -> Class {
        match self {
            Self::NotEmpty { .. }
            | Self::GroupMember { .. }
            | Self::NoKeyring { .. }
            | Self::NoTimeZones { .. } => Class::Refused,
            Self::Mysql(error)
            | Self::Statement { source: error, .. }
            | Self::Account { source: error, .. }
            | Self::Index { source: error, .. } => error.class(),
            Self::Wire(error) => error.class(),
            Self::Rows { source, .. } => source.class(),
            Self::Storage(error) => error.class(),
            Self::Damaged { .. } | Self::Script { .. } => Class::Integrity,
            Self::Unfaithful { .. }
            | Self::OtherTable { .. }
            | Self::OtherGtids { .. }
            | Self::Cancelled
            | Self::Task(_) => Class::Failure,
        }
    }
}
