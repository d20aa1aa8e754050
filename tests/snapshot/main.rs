//! Snapshots of real servers, and their load into empty ones.
//!
//! MySQL is found on PATH or by `tests/setup`; without it these tests fail.

mod accounts;
mod bank;
mod by_hand;
mod chunks;
mod damage;
mod ddl;
mod engines;
mod faults;
mod filters;
mod gate;
mod giant_rows;
mod golden;
mod grants;
mod members;
mod resume;
mod support;
mod zoo;
