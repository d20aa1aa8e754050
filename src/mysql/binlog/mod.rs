//! Binlog events as bytes: what a transaction is made of, where it ends, what it touched.
//!
//! Events are never re-encoded. This room looks into them (header, checksum, GTID, table names,
//! statement text), finds the borders of transactions, and builds the few events that Quillback
//! makes itself. All of it is sans-IO and returns an error, never a panic, on bad bytes. Source
//! of the layouts: "MySQL Source Code Documentation", page "Binlog Event", and `libs/mysql/binlog`
//! of the server.

mod build;
mod event;
mod gtid_event;
mod payload;
mod redact;
pub mod rows;
mod same;
mod splitter;
mod summary;
#[cfg(test)]
pub(crate) mod testing;

pub use build::{EventBuilder, MAGIC};
pub use event::{
    Checksum, EVENT_LIMIT, EventError, EventHeader, EventKind, HEADER_LENGTH, RawEvent,
};
pub use gtid_event::GtidEvent;
pub use payload::{Inner, PayloadEvents};
pub use redact::without_secrets;
pub use same::{Difference, Touched, TransactionFacts, same_transaction};
pub use splitter::{Piece, Splitter};
pub use summary::{Operation, RowCounts, Summary, SummaryBuilder, TableTouch, is_frame};
