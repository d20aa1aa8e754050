//! What the metadata of a server says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::mysql::error::MysqlError;
use crate::mysql::session::Session;

use super::error::MetadataError;
use super::group::RecoveryAccount;
use super::{SCHEMA, rows};

/// A JSON object of the metadata.
pub(super) type Object = Map<String, Value>;

/// The metadata of InnoDB Cluster that a server holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of its layout; none where the view that tells it is gone.
    pub version: Option<SchemaVersion>,
    /// Its tables and their columns.
    pub columns: BTreeMap<String, BTreeSet<String>>,
    /// The clusters, often one.
    pub clusters: Vec<Cluster>,
    /// Their servers.
    pub instances: Vec<Instance>,
    /// The Routers that were bootstrapped against them.
    pub routers: Vec<Router>,
    /// The ClusterSets, at most one.
    pub cluster_sets: Vec<ClusterSet>,
}

/// Major, minor and patch number of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaVersion(
    /// Major.
    pub u32,
    /// Minor.
    pub u32,
    /// Patch.
    pub u32,
);

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What ties the servers of a cluster together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterType {
    /// Group Replication: `gr`.
    Group,
    /// Asynchronous replication, an InnoDB ReplicaSet: `ar`.
    ReplicaSet,
}

/// A row of `clusters`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id, a UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What ties its servers together.
    pub cluster_type: ClusterType,
    /// `pm` for one primary, `mm` for many.
    pub primary_mode: Option<String>,
    /// Its attributes, among them `group_replication_group_name`.
    pub attributes: Map<String, Value>,
    /// What Routers shall do.
    pub router_options: Option<Map<String, Value>>,
    /// The ClusterSet that it is part of.
    pub cluster_set: Option<String>,
}

/// A row of `instances`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its number.
    pub id: u32,
    /// The cluster's id.
    pub cluster: String,
    /// `host:port`.
    pub address: Option<String>,
    /// Its UUID.
    pub server_uuid: String,
    /// Its name, `host:port` unless an operator gave it another.
    pub name: String,
    /// `mysqlClassic`, `mysqlX` and `grLocal`.
    pub addresses: Map<String, Value>,
    /// Such as its server_id, its recovery account and its tags.
    pub attributes: Map<String, Value>,
}

/// A row of `routers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Its number.
    pub id: u32,
    /// Its name among those of its host; often empty.
    pub name: String,
    /// The host that it runs on.
    pub host: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its endpoints and the account that it uses.
    pub attributes: Map<String, Value>,
    /// What it alone shall do.
    pub options: Option<Map<String, Value>>,
    /// The cluster that it was bootstrapped against.
    pub cluster: Option<String>,
    /// The ClusterSet that it was bootstrapped against.
    pub cluster_set: Option<String>,
}

/// A row of `clustersets`, with what its newest view says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSet {
    /// Its id, a UUID.
    pub id: String,
    /// Its domain name.
    pub domain: String,
    /// What Routers shall do.
    pub router_options: Option<Map<String, Value>>,
    /// The id of its primary cluster.
    pub primary: Option<String>,
}

impl Metadata {
    /// Asks a server; none where it has no such schema, or an empty one.
    ///
    /// # Errors
    ///
    /// What a question fails with. A layout that is not known is no error here.
    pub async fn load(session: &mut Session) -> Result<Option<Self>, MysqlError> {
        rows::load(session).await
    }

    /// Whether there is a table with such a column.
    #[must_use]
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.columns
            .get(table)
            .is_some_and(|columns| columns.contains(column))
    }

    /// The servers of a cluster that are, or were, members of its group.
    pub fn members<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a Instance> {
        self.instances
            .iter()
            .filter(|instance| instance.cluster == cluster.id && instance.is_member())
    }

    /// The recovery accounts that its servers name, each once.
    #[must_use]
    pub fn recovery_accounts(&self) -> BTreeSet<RecoveryAccount> {
        self.instances
            .iter()
            .filter_map(Instance::recovery_account)
            .collect()
    }

    /// Whether its layout is known.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Version`], [`MetadataError::Upgrading`], [`MetadataError::Layout`].
    pub fn check_layout(&self) -> Result<(), MetadataError> {
        match self.version {
            Some(SchemaVersion(2, ..)) => {}
            Some(SchemaVersion(0, 0, 0)) => return Err(MetadataError::Upgrading),
            Some(version) => return Err(MetadataError::Version { version }),
            None => {
                return Err(MetadataError::Layout {
                    missing: "schema_version".to_owned(),
                });
            }
        }
        match rows::REQUIRED
            .iter()
            .find(|(table, column)| !self.has(table, column))
        {
            None => Ok(()),
            Some((table, column)) => Err(MetadataError::Layout {
                missing: format!("{table}.{column}"),
            }),
        }
    }
}

impl Cluster {
    /// The group's name that the metadata has for it.
    #[must_use]
    pub fn group_name(&self) -> Option<Uuid> {
        self.attributes
            .get("group_replication_group_name")?
            .as_str()?
            .parse()
            .ok()
    }
}

impl Instance {
    /// Whether it is a member of the group, and not a read replica of it (which 2.2 brought).
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.attributes
            .get("instance_type")
            .and_then(Value::as_str)
            .is_none_or(|kind| kind == "group-member")
    }

    /// Where clients reach it.
    #[must_use]
    pub fn classic_address(&self) -> Option<&str> {
        self.addresses
            .get("mysqlClassic")
            .and_then(Value::as_str)
            .or(self.address.as_deref())
    }

    /// Whether it is the server of that UUID.
    #[must_use]
    pub fn has_uuid(&self, uuid: Uuid) -> bool {
        self.server_uuid.parse() == Ok(uuid)
    }

    /// Whether the tag `_hidden` keeps Routers away from it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let tags = self.attributes.get("tags");
        tags.and_then(|tags| tags.get("_hidden")) == Some(&Value::Bool(true))
    }

    /// The account by which it recovers.
    #[must_use]
    pub fn recovery_account(&self) -> Option<RecoveryAccount> {
        let text = |key| self.attributes.get(key).and_then(Value::as_str);
        Some(RecoveryAccount {
            user: text("recoveryAccountUser")?.to_owned(),
            host: text("recoveryAccountHost").unwrap_or("%").to_owned(),
        })
    }
}

impl Router {
    /// The port, or the socket, on which it takes writes.
    #[must_use]
    pub fn rw_endpoint(&self) -> Option<&str> {
        self.attributes
            .get("RWEndpoint")
            .and_then(Value::as_str)
            .filter(|endpoint| !endpoint.is_empty())
    }
}

/// A table of the schema, for a statement.
pub(super) fn table(name: &str) -> String {
    format!("{SCHEMA}.{name}")
}
