//! Back to a transaction.
//!
//! [`target`] resolves what is asked to an exact cut, [`checks`] finds every reason why a server will
//! not do, [`estimate`] tells how long it takes and [`plan`] decides from facts what to do (all
//! pure); [`load`] fills the server from a snapshot, [`serve`] plays the archive as a replication
//! source, [`replay`] lets the server's own applier catch up from it, and [`mod@run`] puts them in
//! order. [`parts`] restores some tables alone. What is done is in [`journal`], within the server, so that another run can go on. The
//! invariant: a restore succeeds only if the server's `gtid_executed` is
//! the plan's set, no more and no less.

pub mod checks;
mod end;
mod error;
pub mod estimate;
pub mod feed;
mod held;
pub mod journal;
pub mod load;
pub mod parts;
pub mod plan;
mod prepare;
pub mod replay;
mod report;
mod run;
pub mod serve;
mod skipped;
pub mod target;
mod verify;
pub mod wait;
mod wipe;

pub use error::RestoreError;
pub use prepare::{Prepared, mark_target, prepare};
pub use report::{Observer, RestoreEvent, RestoreOptions, RestoreReport, RestoreRequest, Verify};
pub use run::run;
pub use verify::Verified;
