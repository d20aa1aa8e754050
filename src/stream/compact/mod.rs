//! Small segments into large ones, while others read.
//!
//! # The protocol
//!
//! The streamer that holds the newest epoch compacts, and nobody else, once its own first segment
//! is in the log. In each step it takes adjacent segments that count ([`plan`]), reads and verifies
//! them, puts one object that holds the same events byte for byte ([`crate::archive::merge`]), looks whether a newer
//! epoch was claimed, and only then deletes what the object stands for.
//!
//! # Why nothing is lost
//!
//! An object leads from one place of the log to another ([`crate::archive::catalog::Span`]), and the
//! log is a path of objects from its start to its end.
//!
//! 1. *At each moment there is such a path.* An object is deleted only if all that it stands for is
//!    within one object of the path ([`plan::garbage`]), so the path stays when it is gone.
//! 2. *A crash* between put and delete leaves objects within another one: the next pass deletes
//!    them first.
//! 3. *A compactor that was overtaken* may still put an object, or delete. If it deletes, it had
//!    looked for a newer epoch after its put and there was none; so whoever claimed later listed the
//!    log after that put, has the object on its path or within an object that is, and (by 1) so has
//!    everyone after. What such a deletion removes is within it. If it found a newer epoch, or died, it
//!    deletes nothing: its object holds what others hold as well, and may overlap newer ones without
//!    being within one of them. Nothing in the range of such an overlap is deleted, until one object stands for
//!    all of that range: only then it does not matter any more which of the two would be missed.
//! 4. *A reader* that lists meanwhile may see a page from before and one from after a deletion; it
//!    lists again ([`crate::archive::repository::LogReader`]). One that finds a segment gone
//!    in the middle goes on with the one that stands for it ([`crate::restore::feed`]).
//! 5. *The same inputs give the same bytes*, so that a put whose reply was lost is the same object
//!    when it is tried again.
//!
//! # Which segments
//!
//! A run is of one binlog file of one server, since the transactions' logical clock starts anew with a
//! file; segments that say only that nothing happened join whatever is beside them. It never
//! reaches over an accepted gap, and never to the place where a new claim would go on. The path's runs
//! may reach over epochs: the object takes the newest one's name and says where the oldest one
//! went on, so that the epochs between need no objects any more. Sizes are in tiers, each merged
//! when there is enough of it, so a byte is copied a few times in all, however long the log is.

mod plan;
mod run;

pub use plan::CompactOptions;
pub use run::{CompactReport, Compactor};

#[cfg(test)]
mod tests;
