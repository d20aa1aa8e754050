//! Some tables alone, back to a transaction, beside whatever is on the server.
//!
//! It is one way for a scratch server and for the primary itself: nothing of the server is changed
//! but that these tables come. They are built in schemas of their own, from the snapshot's files
//! ([`load`](super::load)) and from what the log says of them (`player`, `statements`), under the
//! server's own GTIDs and with everything in its binlog. At the very end one atomic `RENAME TABLE`
//! gives them their names: until then nobody sees any of them there, and what has such a name already
//! is never touched.
//!
//! [`choose`] resolves patterns at the cut and follows tables through the log's renames; [`inexact`]
//! finds where tables alone cannot be exact, and [`checks`] what stands in the way on the server: all
//! before the first write. How far a restore is lies in the server ([`journal`]), so that another
//! run can go on.

mod checks;
mod choose;
mod error;
mod inexact;
mod journal;
mod names;
mod place;
mod player;
mod prepare;
mod reach;
mod replay;
mod report;
mod rewrite;
mod rows_said;
mod run;
mod scan;
mod staged;
mod statements;
mod survey;
mod triggers;
mod xa;

pub(in crate::restore) use names::is_staging_schema;

pub use error::{Absent, Cause, NamedView, PartsError};
pub use journal::{PartsJournal, PartsRecord, PartsStage, PlacedTable};
pub use prepare::{PreparedParts, prepare_parts};
pub use report::{PartsPlan, PartsReport, PartsRequest, PlannedTable, RestoredTable};
pub use run::run_parts;
