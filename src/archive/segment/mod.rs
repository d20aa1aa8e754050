//! The format of a segment: whole binlog transactions with an index, in one object.
//!
//! A segment is, in this order: a zstd skippable frame with the index, zstd frames that hold a
//! valid binlog file together, and a zstd skippable frame with a line for each transaction. `zstd -dc`
//! ignores the skippable frames, so `zstd -dc SEGMENT | mysqlbinlog -` reads it without
//! Quillback. `FORMAT.md` describes the bytes.
//!
//! Everything here is sans-IO. Invariants: what [`Draft::encode`] returns has been decoded again
//! and compared; what [`Segment::open`] accepts has every byte covered by a SHA-256; a reader
//! never allocates more than its input and the bounds below allow.

mod block;
mod index;
mod lines;
mod read;
mod write;

pub use block::{BLOCK_BYTES, Block};
pub use index::{IndexedTransaction, Part, SegmentIndex, SegmentSource};
pub use lines::TransactionLines;
pub(crate) use lines::read_details;
pub use read::{HeadRead, Segment, SegmentEvents, read_head};
pub use write::{Draft, EncodedSegment, Unfinished};

use crate::error::{Class, Classified};
use crate::mysql::binlog::EventError;

/// The format that this version writes; readers accept it and those before it.
pub const FORMAT: u32 = 2;
/// A skippable frame's first four bytes (RFC 8878, 3.1.2), for the index.
const INDEX_MAGIC: [u8; 4] = 0x184D_2A5A_u32.to_le_bytes();
/// The same for the lines of the transactions.
const DETAILS_MAGIC: [u8; 4] = 0x184D_2A5B_u32.to_le_bytes();
/// What the index frame's content starts with.
const SIGNATURE: &[u8; 8] = b"QBINDEX1";
/// The largest index that a reader takes.
const INDEX_LIMIT: usize = 16 << 20;
/// zstd's window is bounded so that a reader needs no more memory than this for it.
const WINDOW_LOG_MAX: u32 = 27;

/// What is wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The object ends before the segment does.
    #[error("the segment is cut short")]
    Truncated,
    /// The object is no segment.
    #[error("the object is no segment: {0}")]
    NotASegment(&'static str),
    /// A newer Quillback wrote it.
    #[error("the segment has format {found}; this version reads up to {FORMAT}")]
    TooNew {
        /// The format it says.
        found: u32,
    },
    /// The bytes are not those that were written.
    #[error("the segment's {what} has SHA-256 {found} where {expected} was written")]
    Digest {
        /// Which part.
        what: &'static str,
        /// What was written.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The index cannot be read.
    #[error("the segment's index is malformed")]
    Index(#[source] serde_json::Error),
    /// zstd refuses the data.
    #[error("the segment does not decompress")]
    Compression(#[source] std::io::Error),
    /// An event of the segment is broken.
    #[error("the segment's event at byte {offset} is broken")]
    Event {
        /// Where in the decompressed file.
        offset: u64,
        /// Why.
        #[source]
        source: EventError,
    },
    /// The index says something else than the data.
    #[error("the segment's index says {said} {what}, its data hold {found}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// By the index.
        said: u64,
        /// By the data.
        found: u64,
    },
    /// A block that was given out to be packed was not packed.
    #[error("a block of the segment was not packed")]
    Unfilled,
    /// The GTID set before the segment has too many intervals.
    #[error("the segment's index would have {bytes} bytes, more than a reader takes")]
    IndexTooLarge {
        /// How many it would have.
        bytes: usize,
    },
    /// What was compressed did not decompress to the same bytes.
    #[error("compressing the segment changed its bytes; this machine's memory or zstd is faulty")]
    NotTheSame,
}

impl Classified for SegmentError {
    fn class(&self) -> Class {
        match self {
            Self::TooNew { .. } => Class::NoArchive,
            Self::IndexTooLarge { .. } | Self::Unfilled => Class::Failure,
            _ => Class::Integrity,
        }
    }
}

#[cfg(test)]
mod tests;
