//! Parts of a table, so that one big table keeps all readers busy.
//!
//! [`key`] says by what a table can be cut, [`plan`] how finely, [`range`] writes a part as a condition, [`split`] finds
//! the next cut in the read view itself, and [`queue`] hands parts out. The invariant: a cut makes
//! two ranges whose conditions are each other's complement under the server's own comparison of
//! the key's columns with the same literals, so wherever a cut falls, every row is on exactly one
//! side. (Within a partition this holds because the server is asked whether it looks into that very
//! partition for either side.) A cut that would need a conversion that is not known to be exact is not made; the part is
//! then read in one go.

pub mod key;
pub(super) mod plan;
pub(super) mod queue;
pub(super) mod range;
pub(super) mod split;

pub use key::{KeyColumn, KeyKind, Partition, TableKey};
pub use plan::PlannedTable;
