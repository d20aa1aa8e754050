//! What a stream needs of its sources, so that it can be run against made-up ones too.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::cutter::SourcePosition;
use super::error::StreamError;
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;
use crate::mysql::facts::Pending;
use crate::mysql::purge::PurgeFacts;
use crate::mysql::wire::DumpPacket;

/// A server that can be followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceInfo {
    /// `host:port`.
    pub name: String,
    /// Its `server_uuid`.
    pub uuid: Uuid,
    /// The name of the group that it is a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Uuid>,
    /// Its version.
    pub version: String,
    /// How it is tied to others.
    pub topology: String,
    /// Whether it may still be applying what others have sent it.
    pub may_lag: bool,
    /// What a person should know of it.
    pub warnings: Vec<String>,
    /// Set if it is followed only until these have come, which the right source has purged.
    pub until: Option<GtidSet>,
}

/// How far a stream must have come, and what it may claim then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The end of the source's binlog.
    pub end: SourcePosition,
    /// The moment up to which the stream is complete then, asked for before `end`; none if nobody
    /// can tell.
    pub complete_to: Option<DateTime<Utc>>,
    /// If the source is not the primary: what that had executed, asked for after its own time, of
    /// which `complete_to` is not later. All of it must have come too.
    pub executed: Option<GtidSet>,
}

/// What a server says of itself beside its dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Why it is not the one to follow any more.
    pub unfit: Option<String>,
    /// How far it has come itself; none if it is followed only for what it still has, since that
    /// tells nothing of the others.
    pub mark: Option<Mark>,
    /// What a person should know, said when it begins.
    pub warning: Option<String>,
    /// What decides when it purges; asked for from time to time.
    pub purge: Option<PurgeFacts>,
}

/// What a server has of the transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// On their way into `executed`; asked for before it.
    pub pending: Pending,
    /// `gtid_executed`.
    pub executed: GtidSet,
    /// `gtid_purged`; asked for last.
    pub purged: GtidSet,
}

/// How a dump is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpWish {
    /// The UUID under which the server lists us.
    pub replica_uuid: Uuid,
    /// Whether commits on the source shall wait for us.
    pub semi_sync: bool,
}

/// The servers that belong together.
#[async_trait::async_trait]
pub trait Upstream: Send {
    /// Finds the server to follow now.
    async fn find(&mut self) -> Result<Box<dyn Source>, StreamError>;

    /// Finds another server to follow among all that are known, of which `wanted` is true.
    async fn find_that(
        &mut self,
        wanted: &(dyn for<'i> Fn(&'i SourceInfo) -> bool + Sync),
    ) -> Result<Option<Box<dyn Source>>, StreamError>;

    /// Finds another server that still has all of `missing`, lacks nothing else that is not in
    /// `held`, and has nothing that `source` does not have.
    async fn find_holder(
        &mut self,
        missing: &GtidSet,
        held: &GtidSet,
        source: &mut dyn Source,
    ) -> Result<Option<Box<dyn Source>>, StreamError>;

    /// Whether a streamer is registered under this UUID at any of the servers that answer.
    async fn is_registered(&mut self, replica_uuid: Uuid) -> Result<bool, StreamError>;
}

/// A server to follow.
#[async_trait::async_trait]
pub trait Source: Send {
    /// Who it is.
    fn info(&self) -> &SourceInfo;

    /// What it is about to execute, what it has executed, and then what it has purged.
    async fn history(&mut self) -> Result<History, StreamError>;

    /// Asks for everything that is not in `have`.
    async fn dump(&mut self, wish: DumpWish, have: &GtidSet) -> Result<Box<dyn Dump>, StreamError>;

    /// Asks how it stands; `purge` asks for what decides when it purges as well.
    async fn ask(&mut self, purge: bool) -> Result<Answer, StreamError>;
}

/// A running dump.
#[async_trait::async_trait]
pub trait Dump: Send {
    /// The checksum of the events.
    fn checksum(&self) -> Checksum;

    /// The next packet. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<DumpPacket, StreamError>;

    /// The next packet, if it has come already.
    fn received(&mut self) -> Result<Option<DumpPacket>, StreamError>;

    /// Tells the source that all up to this position is safe.
    async fn acknowledge(&mut self, at: &SourcePosition) -> Result<(), StreamError>;
}
