//! Real servers and real faults for Quillback's tests and examples.
//!
//! Everything here starts the genuine program (mysqld, mysqlrouter, MinIO) on free loopback ports in a folder of its own,
//! and removes both when the value is dropped. A watchdog process does the same when the test process itself is killed:
//! see [`scratch`]. The crate knows nothing of Quillback, so that it can judge it.
//!
//! | what | where |
//! |---|---|
//! | one server, its crash, pause and restart | [`Server`] |
//! | a source with replicas | [`Replicas`] |
//! | a three-member Group Replication | [`Trio`] |
//! | MySQL Router, by names or by the cluster's metadata | [`Router`] |
//! | the metadata of InnoDB Cluster, made by hand | [`cluster_metadata`] |
//! | S3-compatible storage | [`Minio`] |
//! | a network that fails | [`Proxy`] |
//! | an HTTP server, such as a store, that fails | [`HttpProxy`] |
//! | a store that does not honour conditions | [`LyingStore`] |
//! | a writer with its own account of what was committed | [`Ledger`] |
//! | is this server's data equal to that one's | [`checksum`] |
//! | believable data | [`sinpluma`] |
//!
//! The programs come from the folder in `QUILLBACK_TEST_BIN`, or from the repository's `tests/setup`: see [`programs`].

pub mod checksum;
pub mod cluster_metadata;
mod encryption;
mod http_proxy;
pub mod ledger;
mod lying_store;
mod minio;
mod port;
mod process;
pub mod programs;
mod proxy;
mod random;
mod replicas;
mod router;
pub mod scratch;
mod server;
mod server_options;
pub mod sinpluma;
mod template;
mod trio;
mod trio_options;
mod wait;

pub use http_proxy::{HttpProxy, Request, Trick};
pub use ledger::Ledger;
pub use lying_store::{Condition, LyingStore};
pub use minio::Minio;
pub use port::Port;
pub use process::{Launch, Process};
pub use proxy::Proxy;
pub use random::Random;
pub use replicas::Replicas;
pub use router::Router;
pub use scratch::Scratch;
pub use server::Server;
pub use server_options::{Account, ROOT_PASSWORD, ServerOptions};
pub use trio::{Member, PrimaryFinder, Trio};
pub use trio_options::{Stack, TrioOptions};
pub use wait::until;
