//! The packet layer: MySQL's protocol where bytes must pass as they are.
//!
//! Ordinary queries use `mysql_async`. This room exists for the three places where a driver's
//! values get in the way: rows of a text result as raw bytes ([`rows`]), binlog events as raw
//! bytes ([`dump`]), and the server's side of the same protocol for a restore that serves the
//! archive as a replication source ([`serve`]).
//!
//! [`packet`] and [`auth`] are sans-IO; [`connection`] joins them to a socket. Nothing in here
//! panics on what a peer sends. Sources of the facts: "MySQL Source Code Documentation", pages
//! "Client/Server Protocol" and "Replication Protocol".

pub mod auth;
pub mod connection;
pub mod dump;
pub mod error;
pub mod packet;
pub mod rows;
pub mod serve;
pub mod tls;

pub use connection::{OkInfo, WireConnection, WireOptions};
pub use dump::{BinlogDump, DumpOptions, DumpPacket};
pub use error::WireError;
pub use rows::{ColumnInfo, FieldPiece, FieldPieces, RawRow, RawRows, RowPiece};
