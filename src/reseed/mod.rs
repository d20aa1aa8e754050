//! A cluster from the restored server, and single servers for one.
//!
//! [`state`] asks servers what they are, [`plan`] decides from that what is to be done, as steps with
//! the very statements (pure), and [`mod@run`] takes the steps one by one. A step looks first whether
//! what it leads to is there already, so a run that was killed is gone on with by running it again;
//! the only thing that must be remembered, the group's new name, is in the archive's new branch.
//!
//! The invariant: no server takes writes for the new history before that history is recorded, nor
//! while one that is known to be of the old history takes them.

mod checks;
mod clone;
mod error;
pub mod metadata;
pub mod plan;
mod prepare;
pub mod report;
mod run;
pub mod state;
pub mod step;

pub use error::ReseedError;
pub use prepare::{Prepared, prepare};
pub use report::{Observer, ReseedEvent, ReseedOptions, ReseedReport, ReseedRequest};
pub use run::run;
