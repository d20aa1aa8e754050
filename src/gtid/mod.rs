//! Global transaction identifiers and the algebra of their sets, tags included.
//!
//! Everything that Quillback proves, it proves with these sets: that the log has no gap, that a
//! cut holds exactly what was asked for, that a restored server executed the plan and nothing
//! else. A [`GtidSet`] is therefore a value with exact operations; its invariant is that the
//! intervals of each [`Tsid`] are sorted, disjoint and never adjacent, and that no [`Tsid`] is
//! there without an interval, so that equal sets are equal values.
//!
//! Text and bytes are those of MySQL (`sql/rpl_gtid_set.cc`, `libs/mysql/gtids`), both the format
//! before 8.3 and the one with tags. What a set means to a server is left to the rooms above.

mod binary;
mod error;
mod id;
mod intervals;
mod set;
mod text;

#[cfg(test)]
mod tests;

pub use error::GtidError;
pub use id::{Gtid, MAX_GNO, Tag, Tsid};
pub use set::GtidSet;
