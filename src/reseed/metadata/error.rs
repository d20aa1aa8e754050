//! Why metadata cannot be repaired.

use super::facts::SchemaVersion;

/// Why metadata cannot be made to match a group; each can be answered by
/// [`Removal`](super::Removal).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Its layout is none that is known.
    #[error("the cluster's metadata has version {version}, and only 2.x is known")]
    Version {
        /// What `schema_version` says.
        version: SchemaVersion,
    },
    /// MySQL Shell sets the version to 0.0.0 while it upgrades the schema.
    #[error("an upgrade of the cluster's metadata is under way or was broken off")]
    Upgrading,
    /// A table or column that every version 2 has is not there.
    #[error("the cluster's metadata has no {missing}")]
    Layout {
        /// The table, or the table and column.
        missing: String,
    },
    /// It describes no cluster.
    #[error("the cluster's metadata describes no cluster")]
    NoCluster,
    /// It describes servers that replicate from each other without a group.
    #[error("the metadata is that of the ReplicaSet {name:?}, which has no group")]
    ReplicaSet {
        /// Its name.
        name: String,
    },
    /// Nothing tells which of its clusters the group is to be.
    #[error("the metadata describes the clusters {}, and nothing tells which of them this group is", names.join(", "))]
    Ambiguous {
        /// Their names.
        names: Vec<String>,
    },
    /// No cluster of that name is in it.
    #[error("the metadata describes no cluster {name:?}, only {}", names.join(", "))]
    NotFound {
        /// The name that was given.
        name: String,
        /// Those that there are.
        names: Vec<String>,
    },
}
