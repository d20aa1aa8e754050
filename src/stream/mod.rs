//! Following the binlog into the archive.
//!
//! [`claim`] takes the archive for one streamer, [`cutter`] makes segments of events (without
//! IO), `ship` packs and stores them in order and notices a successor, [`follow`] joins them to a
//! server and finds the next primary when one is gone. What waits for a store that is away lies in
//! the [`spool`]. After a reseed only servers of the new history are followed ([`home`]). Servers are met through the traits of [`upstream`]. The invariant: a transaction
//! is said to be archived only when its segment is durable and no newer claim exists, and what is
//! archived is a gapless continuation of what was there, but for gaps that the operator has named.

mod acknowledge;
mod beside;
pub mod claim;
pub mod compact;
pub mod cutter;
mod error;
pub mod follow;
pub mod health;
pub mod home;
mod horizon;
mod housekeeping;
mod journal;
mod liveness;
mod lookout;
mod memory;
mod monitor;
mod options;
mod parting;
mod pauses;
mod privileges;
mod purge;
mod recover;
mod report;
mod ship;
#[cfg(test)]
mod simulation;
mod source;
pub mod spool;
mod start;
pub mod upstream;
mod witness;

pub use error::StreamError;
pub use follow::{plan, run, run_from};
pub use options::{FollowFrom, SemiSync, StreamOptions};
pub use report::{HEARTBEAT, Observer, StreamEnd, StreamEvent, StreamPlan, StreamReport};
pub use source::Servers;
pub use spool::SpoolOptions;
