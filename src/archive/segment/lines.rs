//! The lines of a segment's transactions, one by one.
//!
//! They stand in a frame of their own at the object's end, with a digest in the index, so they are
//! read without the events. A segment may hold very many, so they are unfolded as they are taken: memory
//! holds the frame as it is stored and one line.

use std::io::{BufRead as _, BufReader, Read as _};

use bytes::{Buf as _, Bytes};

use super::read::mismatch;
use super::{DETAILS_MAGIC, IndexedTransaction, SegmentError, SegmentIndex, WINDOW_LOG_MAX};
use crate::archive::hash::sha256;

/// The lines of a segment's transactions may unfold to this much.
const DETAILS_LIMIT: u64 = 1 << 30;
/// One of these lines is never longer: the names of 200 tables, each character escaped.
const LINE_LIMIT: u64 = 4 << 20;
/// So much is unfolded at once.
const BUFFER: usize = 128 << 10;
/// A frame's magic number and length.
const FRAME_HEAD: usize = 8;

type Unfolded = zstd::stream::read::Decoder<'static, bytes::buf::Reader<Bytes>>;

/// Reads the lines of the transactions from the last `details_bytes` of an object.
///
/// # Errors
///
/// [`SegmentError`] if they are not those that the index tells of.
pub(crate) fn read_details(
    index: &SegmentIndex,
    frame: &Bytes,
) -> Result<Vec<IndexedTransaction>, SegmentError> {
    let mut lines = TransactionLines::open(index, frame)?;
    let mut all = Vec::new();
    while let Some(line) = lines.next_line()? {
        all.push(line);
    }
    Ok(all)
}

/// The lines of one segment.
pub struct TransactionLines {
    reader: BufReader<std::io::Take<Unfolded>>,
    line: Vec<u8>,
    said: u64,
    taken: u64,
}

impl std::fmt::Debug for TransactionLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionLines")
            .field("said", &self.said)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl TransactionLines {
    /// Takes the last `details_bytes` of an object and checks every one of them.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] if they are not what was written.
    pub fn open(index: &SegmentIndex, frame: &Bytes) -> Result<Self, SegmentError> {
        let found = sha256(frame);
        if found != index.details_sha256 {
            return Err(mismatch(
                "list of transactions",
                &index.details_sha256,
                &found,
            ));
        }
        if !frame.starts_with(&DETAILS_MAGIC) || frame.len() < FRAME_HEAD {
            return Err(SegmentError::NotASegment(
                "its list of transactions is missing",
            ));
        }
        let compressed = frame.slice(FRAME_HEAD..).reader();
        let mut zstd = zstd::stream::read::Decoder::with_buffer(compressed)
            .map_err(SegmentError::Compression)?;
        zstd.window_log_max(WINDOW_LOG_MAX)
            .map_err(SegmentError::Compression)?;
        Ok(Self {
            reader: BufReader::with_capacity(BUFFER, zstd.take(DETAILS_LIMIT)),
            line: Vec::new(),
            said: index.transactions,
            taken: 0,
        })
    }

    /// The next line that `is_wanted` lets through by its bytes; `None` behind the last, when there
    /// were as many as the index says.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] if the lines are no lines, or too few or too many.
    pub fn next_wanted(
        &mut self,
        mut is_wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<IndexedTransaction>, SegmentError> {
        while self.taken <= self.said {
            self.line.clear();
            (&mut self.reader)
                .take(LINE_LIMIT)
                .read_until(b'\n', &mut self.line)
                .map_err(SegmentError::Compression)?;
            match self.line.last() {
                None => break,
                Some(b'\n') => self.taken += 1,
                Some(_) => return Err(SegmentError::Truncated),
            }
            if self.taken <= self.said && is_wanted(&self.line) {
                let line = serde_json::from_slice(&self.line).map_err(SegmentError::Index)?;
                return Ok(Some(line));
            }
        }
        if self.taken == self.said {
            Ok(None)
        } else {
            Err(SegmentError::Mismatch {
                what: "transactions",
                said: self.said,
                found: self.taken,
            })
        }
    }

    /// The next line.
    ///
    /// # Errors
    ///
    /// As [`TransactionLines::next_wanted`].
    pub fn next_line(&mut self) -> Result<Option<IndexedTransaction>, SegmentError> {
        self.next_wanted(|_| true)
    }
}
