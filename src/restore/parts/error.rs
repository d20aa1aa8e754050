//! Why a restore of tables fails.

use crate::archive::repository::ArchiveError;
use crate::clock::rfc3339;
use crate::error::{Class, Classified};
use crate::gtid::Gtid;
use crate::mysql::ddl::statement::TableName;
use crate::mysql::error::MysqlError;
use crate::mysql::wire::WireError;
use crate::restore::replay::BlamedTransaction;

/// A transaction of the log, as far as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which.
    pub gtid: Gtid,
    /// When it was committed.
    pub time: chrono::DateTime<chrono::Utc>,
    /// Its statement, in short.
    pub what: String,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}: {})", self.gtid, rfc3339(self.time), self.what)
    }
}

/// A table that was named and is not there at the cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// What was asked for.
    pub name: String,
    /// Which transaction took it away, if one of the log did.
    pub taken: Option<Cause>,
}

/// A view that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedView {
    /// The view.
    pub name: String,
    /// What it reads, if that can be told.
    pub reads: Vec<String>,
}

/// A failure that only a restore of tables has.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// A connection that reads rows failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Names that no table has at the cut.
    #[error("at that state there is no table {}", absent(.0))]
    Absent(Vec<Absent>),
    /// Patterns without a table.
    #[error("at that state no table is called {}", .0.join(", "))]
    NoTable(Vec<String>),
    /// Views have no rows.
    #[error("{}", views(.0))]
    Views(Vec<NamedView>),
    /// Two tables would have one name.
    #[error("in {into} {first} and {second} would have the same name")]
    SameName {
        /// The schema.
        into: String,
        /// A table.
        first: TableName,
        /// Another one.
        second: TableName,
    },
    /// A table of the snapshot cannot be made under another name.
    #[error("{table} cannot be built beside what is there: {reason}")]
    Definition {
        /// The table.
        table: TableName,
        /// Why.
        reason: String,
    },
    /// A transaction that may concern the tables cannot be repeated on them alone.
    #[error("{cause} may concern {tables} and cannot be repeated on these tables alone: {reason}")]
    NotUnderstood {
        /// The transaction.
        cause: Box<Cause>,
        /// Which tables.
        tables: String,
        /// Why.
        reason: String,
    },
    /// The same, found while the log was replayed.
    #[error("transaction {gtid} cannot be repeated on these tables alone: {reason}")]
    NotInParts {
        /// The transaction.
        gtid: Gtid,
        /// Why.
        reason: String,
    },
    /// The server refused a transaction.
    #[error("{server} refused transaction {transaction} with error {code}: {message}")]
    Transaction {
        /// `host:port`.
        server: String,
        /// MySQL's error number.
        code: u16,
        /// The server's text.
        message: String,
        /// Which.
        transaction: Box<BlamedTransaction>,
    },
    /// The journal does not fit the log.
    #[error("the journal on {server} does not fit the archive: {reason}")]
    Journal {
        /// `host:port`.
        server: String,
        /// Why.
        reason: String,
    },
    /// What was built is not what the log leads to.
    #[error("{server} lacks what was to be restored: {}", .missing.join(", "))]
    Missing {
        /// `host:port`.
        server: String,
        /// The tables.
        missing: Vec<String>,
    },
    /// The tables could not get their names.
    #[error("the tables are restored and could not get their names")]
    Place(#[source] MysqlError),
    /// Asked to stop.
    #[error("the restore was interrupted")]
    Cancelled,
    /// The restore was begun and did not come to its end.
    #[error(
        "the restore of tables to {server} did not finish; nothing that was on it is changed, and \
         none of the tables has its name there unless all have"
    )]
    Unfinished {
        /// `host:port`.
        server: String,
        /// The statements that give it up.
        give_up: Vec<String>,
        /// Why.
        #[source]
        source: Box<crate::restore::RestoreError>,
    },
}

fn absent(names: &[Absent]) -> String {
    let texts: Vec<String> = names
        .iter()
        .map(|absent| match &absent.taken {
            Some(cause) => format!("{} any more: {cause}", absent.name),
            None => absent.name.clone(),
        })
        .collect();
    texts.join("; no ")
}

fn views(views: &[NamedView]) -> String {
    let texts: Vec<String> = views
        .iter()
        .map(|view| match view.reads.is_empty() {
            true => format!("{} is a view and has no rows of its own", view.name),
            false => format!(
                "{} is a view: its rows are those of {}",
                view.name,
                view.reads.join(", ")
            ),
        })
        .collect();
    texts.join("; ")
}

impl PartsError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Absent(names) => {
                let cause = names.iter().find_map(|absent| absent.taken.as_ref());
                match cause {
                    Some(cause) => format!("--before-gtid {}, where it is still there", cause.gtid),
                    None => "a look for its name and time: quillback log --table, and quillback \
                             status for what is archived"
                        .to_owned(),
                }
            }
            Self::NoTable(_) => {
                "names as schema.table; * and ? stand for any characters".to_owned()
            }
            Self::Views(views) => {
                let reads: Vec<&str> = views
                    .iter()
                    .flat_map(|view| view.reads.iter().map(String::as_str))
                    .collect();
                match reads.is_empty() {
                    true => "the tables that it reads".to_owned(),
                    false => format!("--tables {}", reads.join(",")),
                }
            }
            Self::SameName { .. } => "one restore for each, with schemas of their own".to_owned(),
            Self::NotUnderstood { cause, .. } => format!(
                "--before-gtid {0}, or --skip-gtid {0} if it does not matter to these tables; or a \
                 whole restore to a scratch server, and the tables copied from there",
                cause.gtid
            ),
            Self::NotInParts { gtid, .. } => format!(
                "--before-gtid {gtid}, or --skip-gtid {gtid} if it does not matter to these \
                 tables; or a whole restore to a scratch server, and the tables copied from there"
            ),
            Self::Unfinished { give_up, .. } => format!(
                "the same command with --resume, which goes on from there; or, to give it up, on \
                 that server: {};",
                give_up.join("; ")
            ),
            Self::Place(_) => "to free those names".to_owned(),
            _ => return None,
        })
    }
}

impl Classified for PartsError {
    fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => error.class(),
            Self::Wire(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Absent(_) | Self::NoTable(_) => Class::NotCovered,
            Self::Views(_)
            | Self::SameName { .. }
            | Self::Definition { .. }
            | Self::NotUnderstood { .. }
            | Self::NotInParts { .. }
            | Self::Journal { .. }
            | Self::Place(_) => Class::Refused,
            Self::Transaction { .. } | Self::Cancelled => Class::Failure,
            Self::Missing { .. } => Class::Integrity,
            Self::Unfinished { source, .. } => source.class(),
        }
    }
}

impl Cause {
    /// Of a line of the log.
    pub(super) fn of(line: &crate::archive::segment::IndexedTransaction) -> Self {
        Self {
            gtid: line.gtid.clone(),
            time: line.time,
            what: line.summary.brief(),
        }
    }
}
