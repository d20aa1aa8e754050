//! Snapshots of real servers, and their load into empty ones.
//!
//! MySQL is found on PATH or by `tests/setup`; without it these tests fail.

mod accounts;
mod bank;
mod by_hand;
mod damage;
mod engines;
mod filters;
mod members;
mod support;
mod zoo;
