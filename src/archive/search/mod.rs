//! Looking for transactions in a history.
//!
//! [`Filter`] says what is looked for; by a segment's index it tells whether the segment can hold any of
//! it, and by a transaction's line whether that is one. [`Search`] reads the lines of the segments
//! that can, several at once, and gives what is found in the archive's order. No event is read. The
//! invariant: what a filter passes over by an index or by a line's bytes it would have passed over by
//! the line; what a line does not tell is [`Verdict::Unclear`], never left out.

mod filter;
mod read;
mod statement;

pub use filter::{Filter, Verdict};
pub use read::{Batch, Damage, Found, Search};
pub use statement::{Kind, Kinds};

#[cfg(test)]
mod tests;
