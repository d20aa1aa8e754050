//! What the operator asks of a snapshot, and how its servers are reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::consistency::LockMode;
use super::resume::Unfinished;
use crate::mysql::discover::login_for;
use crate::mysql::schema::Filter;
use crate::mysql::{HostPort, ServerUrl};

/// What to do if the server falls out of its cluster or too far behind while it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLag {
    /// Give the snapshot up, so that the server is rid of its load.
    #[default]
    Fail,
    /// Go on, with a warning in the manifest: the rows are those of the GTID set all the same.
    Continue,
}

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Connections that read rows at once.
    pub threads: usize,
    /// How the connections come to one GTID set.
    pub lock: LockMode,
    /// Whether a primary may carry the load.
    pub allow_primary: bool,
    /// Which schemas and tables.
    pub filter: Filter,
    /// Whether tables of other engines than InnoDB are taken too, whose rows are of no certain moment.
    pub allow_non_innodb: bool,
    /// Raw bytes after which a table's rows go on in another file.
    pub file_bytes: u64,
    /// Rows after which a table is cut, whatever its size; none leaves that to the sizes.
    pub chunk_rows: Option<u64>,
    /// Whether each table's rows are counted again, in the same read view.
    pub count_rows: bool,
    /// zstd's level for the rows.
    pub zstd_level: i32,
    /// How long DDL may wait for the snapshot before it is let through.
    pub ddl_wait: Duration,
    /// A secondary that is further behind is not chosen, or given up.
    pub max_lag: Duration,
    /// What to do if that happens while it is read.
    pub on_lag: OnLag,
    /// Whether to go on with an unfinished snapshot.
    pub resume: bool,
    /// The one that the archive holds, if that was asked.
    pub unfinished: Option<Unfinished>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            lock: LockMode::Auto,
            allow_primary: false,
            filter: Filter::default(),
            allow_non_innodb: false,
            file_bytes: 64 << 20,
            chunk_rows: None,
            count_rows: false,
            zstd_level: 1,
            ddl_wait: Duration::from_secs(60),
            max_lag: Duration::from_secs(300),
            on_lag: OnLag::Fail,
            resume: false,
            unfinished: None,
        }
    }
}

/// How the servers of a snapshot are reached.
#[derive(Debug, Clone)]
pub struct SnapshotSource {
    /// The server that is read.
    pub url: ServerUrl,
    /// Those that were named.
    pub servers: Vec<ServerUrl>,
}

impl SnapshotSource {
    /// The servers that were named, and these members of their cluster.
    pub(super) fn with(&self, members: &[HostPort]) -> Vec<ServerUrl> {
        let mut servers = self.servers.clone();
        for member in members {
            if !servers.iter().any(|url| url.address() == *member) {
                servers.push(login_for(member, &self.url, &self.servers));
            }
        }
        servers
    }
}
