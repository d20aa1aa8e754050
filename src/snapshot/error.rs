//! What stops a snapshot.

use crate::archive::manifest::ManifestError;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::mysql::MysqlError;
use crate::mysql::topology::ChooseError;
use crate::mysql::wire::WireError;
use crate::storage::StorageError;

use super::consistency::holders::Holder;
use super::privileges::MissingPrivilege;

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
    /// Privileges are missing without which objects would be left out in silence.
    #[error(
        "the account {account} at {server} lacks {}{}",
        list(missing),
        asleep(roles_asleep)
    )]
    MissingPrivileges {
        /// The server.
        server: String,
        /// The account, as `user@host`.
        account: String,
        /// What is missing, in the order of weight.
        missing: Vec<MissingPrivilege>,
        /// Roles that the account has and that are not active.
        roles_asleep: Vec<String>,
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
    /// Everything was left out.
    #[error(
        "--exclude {} {} nothing of {of} on {server}",
        patterns.join(", "),
        leave(patterns)
    )]
    NothingLeft {
        /// The server.
        server: String,
        /// The exclude patterns that did it.
        patterns: Vec<String>,
        /// Of what nothing is left.
        of: String,
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
    #[error("{} prepared and not ended within {seconds} s", xa_transactions(*count))]
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
    #[error(
        "{lock} was not had in {attempts} attempts of {seconds} s each{}",
        in_the_way(holders)
    )]
    LockBusy {
        /// The lock's statement.
        lock: &'static str,
        /// How many attempts there were.
        attempts: u32,
        /// The bound of each.
        seconds: u64,
        /// Whose statements were in the way, as far as it is known.
        holders: Vec<Holder>,
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
    /// A statement that changes what the snapshot holds was committed while it was taken.
    #[error("{verb} of {object} was committed while the snapshot was taken ({gtid})")]
    Ddl {
        /// The statement's first words.
        verb: String,
        /// The table or the schema, or `the schema` if it is not known.
        object: String,
        /// Its transaction.
        gtid: String,
    },
    /// DDL has waited long enough for a table that is being read.
    #[error("DDL waits for table {table} for {seconds} s, and the snapshot gives way")]
    GaveWay {
        /// The table that is read.
        table: String,
        /// How long it has waited.
        seconds: u64,
    },
    /// The server that is read is not what it was chosen for any more.
    #[error("{server} {what}")]
    FellOut {
        /// The server.
        server: String,
        /// What has become of it.
        what: String,
    },
    /// The snapshot holds transactions that are not of the cluster's history.
    #[error("{server} has transactions that the primary {primary} lacks: {missing:#}")]
    Errant {
        /// The server that was read.
        server: String,
        /// The primary.
        primary: String,
        /// What it lacks.
        missing: GtidSet,
    },
    /// The server does not answer any more.
    #[error("{server} has not answered for {seconds} s")]
    Unanswered {
        /// The server.
        server: String,
        /// For how long.
        seconds: u64,
    },
    /// Rows were lost or doubled between reading and storing.
    #[error("{read} rows of table {table} were read but {written} written")]
    Miscounted {
        /// `schema.table`.
        table: String,
        /// Rows read from the server.
        read: u64,
        /// Rows in the files.
        written: u64,
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

fn list(missing: &[MissingPrivilege]) -> String {
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    missing.join("; ")
}

fn xa_transactions(count: u64) -> String {
    match count {
        1 => "an XA transaction is".to_owned(),
        _ => format!("{count} XA transactions are"),
    }
}

const fn leave(patterns: &[String]) -> &'static str {
    match patterns {
        [_] => "leaves",
        _ => "leave",
    }
}

fn asleep(roles: &[String]) -> String {
    match roles {
        [] => String::new(),
        [role] => format!("; its role {role} is not active"),
        roles => format!("; its roles {} are not active", roles.join(", ")),
    }
}

fn in_the_way(holders: &[Holder]) -> String {
    let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(": in its way runs {}", names.join(", ")),
    }
}

/// Errors of a SELECT on a table that was there with these columns when the schema was read:
/// `ER_BAD_DB_ERROR`, `ER_BAD_FIELD_ERROR`, `ER_NO_SUCH_TABLE`, `ER_TABLE_DEF_CHANGED`.
const CHANGED: [u16; 4] = [1049, 1054, 1146, 1412];

impl SnapshotError {
    /// Whether a table could not be read since it is not any more what it was.
    #[must_use]
    pub fn is_changed_table(&self) -> bool {
        match self {
            Self::Table { source, .. } => source
                .server_code()
                .is_some_and(|code| CHANGED.contains(&code)),
            _ => false,
        }
    }
}

impl Classified for SnapshotError {
    fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => error.class(),
            Self::Table { .. } if self.is_changed_table() => Class::Transient,
            Self::Wire(error) | Self::Table { source: error, .. } => error.class(),
            Self::Storage(error) => error.class(),
            Self::Choose(error) => error.class(),
            Self::MissingPrivileges { .. } => Class::Authentication,
            Self::NothingMatches { .. } | Self::NothingLeft { .. } => Class::Usage,
            Self::NoGtids { .. }
            | Self::NotInnodb { .. }
            | Self::AnotherServer { .. }
            | Self::PreparedXa { .. }
            | Self::Errant { .. } => Class::Refused,
            Self::NeverQuiet { .. }
            | Self::LockBusy { .. }
            | Self::MovedUnderLock
            | Self::SchemaChanged { .. }
            | Self::Ddl { .. }
            | Self::GaveWay { .. }
            | Self::FellOut { .. }
            | Self::Unanswered { .. } => Class::Transient,
            Self::Miscounted { .. }
            | Self::Compress(_)
            | Self::Manifest(_)
            | Self::Json(_)
            | Self::Cancelled
            | Self::Task(_) => Class::Failure,
        }
    }
}
