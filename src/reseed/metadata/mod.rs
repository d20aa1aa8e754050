//! What InnoDB Cluster keeps of itself in the schema `mysql_innodb_cluster_metadata`, and how it is
//! made to match a group that was formed anew.
//!
//! A restored server brings the metadata of the cluster that it was: the old group's name, servers
//! that are no more, perhaps a ClusterSet that has gone another way. MySQL Router finds a group only
//! by it. [`Metadata`] is what a server holds, [`NewGroup`] what there is now, and [`Repair::compute`]
//! decides purely which statements lie between the two; [`Removal`] is the other way, which leaves it
//! to MySQL Shell to adopt the group. [`Leftovers`] is what a ClusterSet leaves in a server beside
//! that schema.
//!
//! The invariant: a repair that has been run leaves nothing to repair, so that a second run has no
//! statement. Only columns that are there are asked for and written, since the layouts 2.0 to 2.4
//! differ in them; another major version is refused, and so is a schema that is just being upgraded.
//!
//! Sources: MySQL Router's own questions, as a server's general log shows them, and the `v2_` views of
//! the schema, which MySQL Shell keeps compatible within a major version.

mod choose;
mod error;
mod facts;
mod group;
mod leftovers;
mod note;
mod repair;
mod rows;
#[cfg(test)]
mod tests;

pub use error::MetadataError;
pub use facts::{Cluster, ClusterSet, ClusterType, Instance, Metadata, Router, SchemaVersion};
pub use group::{NewGroup, NewMember, RecoveryAccount};
pub use leftovers::{Leftovers, Place};
pub use note::Note;
pub use repair::{Change, Removal, Repair};

/// The schema that MySQL Shell makes and MySQL Router reads.
pub const SCHEMA: &str = "mysql_innodb_cluster_metadata";
