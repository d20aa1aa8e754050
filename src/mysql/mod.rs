//! Everything that Quillback knows of a MySQL server: how to reach it, what it is, who its
//! fellows are and what its schema looks like.
//!
//! Ordinary queries go through [`mysql_async`]; rows in bulk and binlog events go through `wire`.
//! Which server is asked for what, and what the answers mean for a snapshot or a restore, is left
//! to the rooms above.

pub mod binlog;
pub mod server_url;
pub mod wire;

pub use server_url::{HostPort, ServerUrl, ServerUrlError, SslMode};
