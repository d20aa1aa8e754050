//! What is asked of a reseed, what it tells meanwhile, and what it did.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::{Fill, Wishes};
use crate::archive::layout::BranchNumber;
use crate::config::Secret;
use crate::gtid::GtidSet;
use crate::mysql::server_url::ServerUrl;
use crate::observe::fail_point::FailPoints;
use crate::observe::phase::Phase;
use crate::restore::RestoreEvent;

/// What is asked.
#[derive(Debug, Clone)]
pub struct ReseedRequest {
    /// The restored server.
    pub primary: ServerUrl,
    /// The other members.
    pub members: Vec<ServerUrl>,
    /// Servers of the old cluster that the operator knows, whether or not they are among the members.
    pub known: Vec<ServerUrl>,
    /// The history that the server was restored from, if not what its report says.
    pub branch: Option<BranchNumber>,
    /// What the operator allows.
    pub wishes: Wishes,
    /// The name of the recovery account.
    pub recovery_user: String,
    /// The password of an account that is there already; none has one made.
    pub recovery_password: Option<Secret>,
}

/// How to do it.
#[derive(Debug, Clone)]
pub struct ReseedOptions {
    /// What starts a server again that ended after its clone; it gets the server in
    /// `QUILLBACK_HOST` and `QUILLBACK_PORT`.
    pub restart_command: Option<String>,
    /// How long a cloned server may take to come back.
    pub restart_limit: Duration,
    /// Connections that load, and appliers that replay, where a member is filled from the archive.
    pub threads: u32,
    /// This host's name, for a person who reads the archive.
    pub host: String,
    /// Where a test may end the run.
    pub fail_points: FailPoints,
}

impl Default for ReseedOptions {
    fn default() -> Self {
        Self {
            restart_command: None,
            restart_limit: Duration::from_secs(600),
            threads: 4,
            host: String::new(),
            fail_points: FailPoints::default(),
        }
    }
}

/// What happens meanwhile.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReseedEvent {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// The server.
        server: Option<String>,
        /// What it does.
        what: String,
    },
    /// How far a clone is.
    Clone {
        /// The stage that the server names.
        stage: String,
        /// Bytes that came.
        bytes: u64,
        /// Bytes in all, by estimate.
        total_bytes: u64,
    },
    /// A cloned server has to be started by somebody.
    Restart {
        /// The server.
        server: String,
    },
    /// How far a member is with catching up.
    Joining {
        /// The server.
        server: String,
        /// Its state.
        state: String,
        /// Transactions that it lacks.
        missing: u128,
    },
    /// What a restore tells.
    Load(RestoreEvent),
}

/// Who is told.
pub type Observer = Arc<dyn Fn(ReseedEvent) + Send + Sync>;

/// A member of the new group.
#[derive(Debug, Clone, Serialize)]
pub struct ReportedMember {
    /// `host:port`.
    pub server: String,
    /// Its `server_uuid`.
    pub server_uuid: Uuid,
    /// PRIMARY or SECONDARY.
    pub role: &'static str,
    /// How it was filled; none for the primary.
    pub fill: Option<Fill>,
    /// Its transactions that were lost.
    pub lost: GtidSet,
}

/// What a reseed did.
#[derive(Debug, Clone, Serialize)]
pub struct ReseedReport {
    /// The archive.
    pub archive: String,
    /// The group's name.
    pub group: Uuid,
    /// The new history.
    pub branch: BranchNumber,
    /// The one that it comes from.
    pub parent: BranchNumber,
    /// What they share.
    pub fork: GtidSet,
    /// What the parent holds beyond.
    pub lost: GtidSet,
    /// The members, the primary first.
    pub members: Vec<ReportedMember>,
    /// `gtid_executed` of the primary at the end.
    pub gtid_executed: GtidSet,
    /// When the run began, by our clock.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
    /// When it ended, by our clock.
    #[serde(with = "crate::clock::micros")]
    pub finished: DateTime<Utc>,
    /// What took how long.
    pub phases: Vec<Phase>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Where the archive keeps this report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// The list of what a server held when it was wiped, as the archive keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Discarded {
    /// `host:port`.
    pub server: String,
    /// Its `server_uuid`.
    pub server_uuid: Uuid,
    /// When, by our clock.
    #[serde(with = "crate::clock::micros")]
    pub listed: DateTime<Utc>,
    /// The new primary, which lacks them.
    pub primary: Uuid,
    /// The transactions.
    pub gtids: GtidSet,
    /// Those of them that the archive holds in the old history.
    pub archived: GtidSet,
}
