//! The MySQL room against real servers: GTID sets, logins, rows, files, dumps, topologies.
//!
//! MySQL is found on PATH or by `tests/setup`; without it these tests fail.

mod dump;
mod gtid;
mod load;
mod login;
mod rows;
mod support;
mod topology;
