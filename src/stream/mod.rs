//! Following the binlog into the archive.
//!
//! [`claim`] takes the archive for one streamer, [`cutter`] makes segments of events (without
//! IO), [`upload`] stores them in order and notices a successor, [`follow`] joins them to a
//! server and finds the next primary when one is gone. The invariant: a transaction is said to be
//! archived only when its segment is durable and no newer claim exists, and what is archived is
//! a gapless continuation of what was there.

pub mod claim;
pub mod compact;
pub mod cutter;
mod error;
pub mod follow;
mod horizon;
mod report;
mod source;
pub mod upload;

pub use error::StreamError;
pub use follow::{plan, run};
pub use report::{FollowFrom, Observer, StreamEvent, StreamOptions, StreamPlan, StreamReport};
