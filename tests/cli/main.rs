//! The program as a user calls it: what it prints, where, and how it ends.
//!
//! The programs that it meets are found on PATH or by `tests/setup`; without them these tests fail.

mod damage;
mod failures;
mod grants;
mod journey;
mod json;
mod log;
mod marks;
mod partial;
mod settings;
mod signals;
mod single_writer;
mod support;
mod tables;
mod usage;
