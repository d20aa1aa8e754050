//! The MySQL room against real servers: GTID sets, logins, rows, files, dumps, topologies.
//!
//! MySQL is found on PATH or by `tests/setup`; without it these tests fail.

mod bytes;
mod ddl_rewrite;
mod dump;
mod gtid;
mod load;
mod log;
mod login;
mod roles;
mod rows;
mod same;
mod semi_sync;
mod sources;
mod support;
mod topology;
