//! Backup, point-in-time recovery and schema migration for MySQL and InnoDB Cluster.
//!
//! The crate is a house of rooms: each module below is one, and imports go only down, in the
//! order of the list. `tests/architecture.rs` holds the `use crate::` lines against that table;
//! `docs/ARCHITECTURE.md` says why each room is where it is.
//!
//! The binary `quillback` is a thin door: [`cli`] parses, plans, shows, runs and renders; all
//! else is usable as a library and neither prints nor reads the environment.

pub mod cli;

pub mod reseed;
pub mod restore;
pub mod snapshot;
pub mod stream;

pub mod archive;

pub mod mysql;
pub mod storage;

pub mod clock;
pub mod config;
pub mod error;
pub mod gtid;
pub mod observe;
