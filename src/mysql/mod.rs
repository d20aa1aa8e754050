//! Everything that Quillback knows of a MySQL server: how to reach it, what it is, who its
//! fellows are and what its schema looks like.
//!
//! Ordinary queries go through [`mysql_async`] in a [`Session`]; rows in bulk and binlog events
//! go through `wire`. Which server is asked for what, and what the answers mean for a snapshot or
//! a restore, is left to the rooms above.

pub mod binlog;
pub mod ddl;
pub mod discover;
pub mod error;
pub mod facts;
pub mod grants;
pub mod health;
pub mod host_port;
pub mod primary;
pub mod purge;
pub mod quote;
pub mod replicas;
pub mod role;
pub mod schema;
pub mod semi_sync;
pub mod server_url;
pub mod session;
pub mod topology;
mod tree;
pub mod version;
pub mod wire;

pub use discover::discover;
pub use error::MysqlError;
pub use facts::{ServerFacts, TargetFacts};
pub use server_url::{HostPort, ServerUrl, ServerUrlError, SslMode};
pub use session::Session;
pub use topology::{Choice, Member, Topology};
pub use version::ServerVersion;
