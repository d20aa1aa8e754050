//! A cluster from the restored server.
//!
//! [`metadata`] knows what InnoDB Cluster keeps of itself in the servers, and makes it match a group
//! that was formed anew.

pub mod metadata;
