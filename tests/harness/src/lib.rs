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
//!
//! The programs come from the folder in `QUILLBACK_TEST_BIN`, or from the repository's `tests/setup`: see [`programs`].

mod port;
mod process;
pub mod programs;
mod replicas;
pub mod scratch;
mod server;
mod server_options;
mod template;
mod trio;
mod trio_options;
mod wait;

pub use port::Port;
pub use process::Process;
pub use replicas::Replicas;
pub use scratch::Scratch;
pub use server::Server;
pub use server_options::{Account, ROOT_PASSWORD, ServerOptions};
pub use trio::{Member, PrimaryFinder, Trio};
pub use trio_options::{Stack, TrioOptions};
pub use wait::until;
