//! Back to a transaction.
//!
//! [`target`] resolves what is asked to an exact cut, [`plan`] decides from facts what to do
//! (both pure); [`load`] fills the server from a snapshot, [`serve`] plays the archive as a
//! replication source, [`replay`] lets the server's own applier catch up from it, and [`mod@run`]
//! puts them in order. The invariant: a restore succeeds only if the server's `gtid_executed` is
//! the plan's set, no more and no less.

mod error;
pub mod feed;
pub mod journal;
pub mod load;
pub mod plan;
pub mod replay;
mod report;
mod run;
pub mod serve;
pub mod target;

pub use error::RestoreError;
pub use report::{Observer, RestoreEvent, RestoreOptions, RestoreReport, RestoreRequest, Verify};
pub use run::{Prepared, prepare, run};
