//! From a real server into the archive and back: what is restored is what was there.
//!
//! The programs are found on PATH or by `tests/setup`; without them these tests fail.

mod damage;
mod failover;
mod load;
mod moments;
mod parts;
mod refusals;
mod settings;
mod stores;
mod story;
mod support;
mod targets;
mod xa;
