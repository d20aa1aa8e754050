//! Snapshots of real servers, and their load into empty ones.
//!
//! MySQL is found on PATH or by `tests/setup`; without it these tests fail.

mod accounts;
mod bank;
mod by_hand;
mod chunks;
mod damage;
mod ddl;
mod faults;
mod gate;
mod giant_rows;
mod members;
mod resume;
mod support;
mod zoo;
