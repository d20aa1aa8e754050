//! Why a stream stops.

use std::path::PathBuf;

use uuid::Uuid;

use super::home::{NewHistory, Stranger};
use super::spool::SpoolError;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::ArchiveError;
use crate::archive::segment::SegmentError;
use crate::error::{Class, Classified};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::EventError;
use crate::mysql::error::MysqlError;
use crate::mysql::grants::Need;
use crate::mysql::primary::PrimaryError;
use crate::mysql::wire::WireError;

/// A failure of the stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The archive or its store failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A server refused or broke off an ordinary query.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// The connection that carries the binlog failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Privileges are missing without which nothing can be followed.
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
        missing: Vec<Need>,
        /// Roles that the account has and that are not active.
        roles_asleep: Vec<String>,
    },
    /// The server sent a broken event: nothing behind it is archived.
    #[error("{server} sent a broken event in {file} before position {position}")]
    Event {
        /// The server.
        server: String,
        /// Its binlog file.
        file: String,
        /// The position that the event's header names.
        position: u64,
        /// What is wrong with it.
        #[source]
        source: EventError,
    },
    /// A segment could not be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Another streamer has claimed the archive.
    #[error("epoch {newer} has taken over the archive from epoch {own}")]
    Fenced {
        /// Our claim.
        own: u64,
        /// The newest one.
        newer: u64,
    },
    /// A reseed has begun a new history, and this stream is on the one that was left.
    #[error("the stream is on branch {own}, which was left: a reseed began {history}")]
    LeftBehind {
        /// The history that it wrote to.
        own: BranchNumber,
        /// The one that goes on.
        history: Box<NewHistory>,
    },
    /// A reseed has begun the archive's history, and the source is not of it.
    #[error(
        "{server} is not of the history that the archive goes on with: it {why}, and a reseed began \
         {history}"
    )]
    Stranger {
        /// The source.
        server: String,
        /// What tells it.
        why: Stranger,
        /// The history that goes on.
        history: Box<NewHistory>,
    },
    /// Another streamer has the archive and lives.
    #[error("epoch {epoch} has the archive: process {process} on {host} follows {address}, {life}")]
    Occupied {
        /// The other's claim.
        epoch: u64,
        /// Its host.
        host: String,
        /// Its process there.
        process: u32,
        /// The server that it followed when it claimed.
        address: String,
        /// By which sign it is known to live.
        life: String,
    },
    /// The source has purged transactions that the archive does not hold.
    #[error("{server} has purged transactions that the archive lacks: {missing:#}")]
    Gap {
        /// The source.
        server: String,
        /// What is missing.
        missing: GtidSet,
    },
    /// The archive holds transactions that the source does not know.
    #[error("the archive holds transactions that {server} does not have: {missing:#}")]
    Fork {
        /// The source.
        server: String,
        /// What it lacks.
        missing: GtidSet,
    },
    /// A transaction of the source is another one than the archive holds under its GTID.
    #[error("{gtid} on {server} is another transaction than the archive's: {difference}")]
    OtherPayload {
        /// The source.
        server: String,
        /// The transaction.
        gtid: Gtid,
        /// How they differ.
        difference: String,
        /// Every transaction of the archive that the source has another one for, if known.
        parted: GtidSet,
    },
    /// The words of a decision do not cover what has to be decided.
    #[error("{flag} names {named:#}, but what has to be accepted is {needed:#}")]
    DecisionTooSmall {
        /// The option.
        flag: &'static str,
        /// What it names.
        named: GtidSet,
        /// What it must name.
        needed: GtidSet,
    },
    /// The spool's disk failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The run ended while the store was away; what was received is on disk.
    #[error("{segments} segments wait in {folder} for the store; the next run here archives them")]
    LeftInSpool {
        /// How many.
        segments: usize,
        /// Where.
        folder: PathBuf,
        /// What the store failed with.
        #[source]
        source: Box<Self>,
    },
    /// No primary could be found among the servers, or more than one.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The archive's own chain is broken, so there is nothing to go on from.
    #[error("the archive's log is damaged: {problem}")]
    Damaged {
        /// The first problem.
        problem: String,
    },
    /// The source cannot be followed as it is set up.
    #[error("{server} cannot be followed: {reason}")]
    Unsuitable {
        /// The source.
        server: String,
        /// Why.
        reason: String,
    },
    /// A second connection to the same address led to another server: a proxy, a virtual address
    /// or a service has turned to it in between.
    #[error(
        "{server} was {expected} when it was checked, and {found} when the binlog was asked for"
    )]
    Moved {
        /// The address.
        server: String,
        /// The `server_uuid` of the server that was checked.
        expected: Uuid,
        /// That of the one behind the second connection.
        found: String,
    },
    /// There is no primary among the servers.
    #[error("no primary found: {reason}")]
    NoPrimary {
        /// What was seen.
        reason: String,
    },
    /// What sends segments has stopped without a reason.
    #[error("the stream has stopped sending segments")]
    Stopped,
    /// A task of the program died.
    #[error("a task of the stream failed")]
    Task(#[from] tokio::task::JoinError),
}

fn list(missing: &[Need]) -> String {
    let missing: Vec<String> = missing
        .iter()
        .map(|need| format!("{} on {} ({})", need.privilege, need.on, need.why))
        .collect();
    missing.join("; ")
}

fn asleep(roles: &[String]) -> String {
    match roles {
        [] => String::new(),
        [role] => format!("; its role {role} is not active"),
        roles => format!("; its roles {} are not active", roles.join(", ")),
    }
}

impl Classified for StreamError {
    fn class(&self) -> Class {
        match self {
            Self::Archive(error) => error.class(),
            Self::Mysql(error) => error.class(),
            Self::Wire(error) => error.class(),
            Self::MissingPrivileges { .. } => Class::Authentication,
            Self::Segment(error) => error.class(),
            Self::Event { .. } | Self::Damaged { .. } => Class::Integrity,
            Self::Fenced { .. } | Self::Occupied { .. } => Class::Fenced,
            Self::Gap { .. } => Class::Gap,
            Self::Fork { .. }
            | Self::LeftBehind { .. }
            | Self::Stranger { .. }
            | Self::Unsuitable { .. }
            | Self::OtherPayload { .. }
            | Self::DecisionTooSmall { .. } => Class::Refused,
            Self::Primary(error) => error.class(),
            Self::Spool(_) => Class::Failure,
            Self::LeftInSpool { .. } => Class::Transient,
            Self::NoPrimary { .. } | Self::Moved { .. } => Class::Transient,
            Self::Task(_) | Self::Stopped => Class::Failure,
        }
    }
}
