//! From a real server into the archive and back: what is restored is what was there.
//!
//! The programs are found on PATH or by `tests/setup`; without them these tests fail.

mod checks;
mod damage;
mod failover;
mod grants;
mod instants;
mod interrupted;
mod journal;
mod load;
mod marks;
mod moments;
mod offers;
mod parts;
mod program;
mod refusals;
mod replay;
mod replay_faults;
mod replay_support;
mod retimed;
mod settings;
mod skipped;
mod stores;
mod story;
mod support;
mod tables;
mod tables_grants;
mod tables_keys;
mod tables_log;
mod tables_rows;
mod tables_support;
mod targets;
mod waiting;
mod wipe;
mod xa;
mod zones;
