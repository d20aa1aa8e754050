//! From a segment's bytes to its index, its transactions' lines and its events.

use std::io::{Cursor, Read};

use bytes::Bytes;

use super::lines::read_details;
use super::{
    FORMAT, INDEX_LIMIT, INDEX_MAGIC, IndexedTransaction, SIGNATURE, SegmentError, SegmentIndex,
    WINDOW_LOG_MAX,
};
use crate::archive::hash::{Sha256, Sha256Writer, sha256};
use crate::mysql::binlog::{Checksum, EVENT_LIMIT, EventKind, HEADER_LENGTH, MAGIC, RawEvent};

/// A skippable frame's magic number and length.
const FRAME_HEAD: usize = 8;
/// The digest behind the index.
const DIGEST: usize = 32;
/// An event's memory grows by so much as its bytes come, whatever its header claims.
const READ_STEP: usize = 1 << 20;

/// What the first bytes of a segment gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadRead {
    /// The index, and how many bytes its frame has.
    Done(Box<SegmentIndex>, u64),
    /// So many bytes from the object's start are needed.
    Needs(u64),
}

/// Reads the index from the first bytes of an object.
///
/// # Errors
///
/// [`SegmentError`] if the bytes are no segment's or not those that were written.
pub fn read_head(head: &[u8]) -> Result<HeadRead, SegmentError> {
    let Some((magic, rest)) = head.split_first_chunk::<4>() else {
        return Ok(HeadRead::Needs(FRAME_HEAD as u64));
    };
    if *magic != INDEX_MAGIC {
        return Err(SegmentError::NotASegment("it does not start with an index"));
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(HeadRead::Needs(FRAME_HEAD as u64));
    };
    let length = u32::from_le_bytes(*length) as usize;
    if !(SIGNATURE.len() + DIGEST..=INDEX_LIMIT).contains(&length) {
        return Err(SegmentError::NotASegment(
            "its index has no sensible length",
        ));
    }
    let total = (FRAME_HEAD + length) as u64;
    let Some(content) = rest.get(..length) else {
        return Ok(HeadRead::Needs(total));
    };
    let (signed, digest) = content.split_at(length - DIGEST);
    let found = sha256(signed);
    if found.as_bytes() != digest {
        let mut expected = [0; DIGEST];
        expected.copy_from_slice(digest);
        return Err(mismatch("index", &Sha256::from_bytes(expected), &found));
    }
    let json = signed
        .strip_prefix(SIGNATURE)
        .ok_or(SegmentError::NotASegment("its index has no signature"))?;
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(json).map_err(SegmentError::Index)?;
    if version.format > FORMAT {
        return Err(SegmentError::TooNew {
            found: version.format,
        });
    }
    let index = serde_json::from_slice(json).map_err(SegmentError::Index)?;
    Ok(HeadRead::Done(Box::new(index), total))
}

/// A segment whose stored bytes have been verified.
#[derive(Debug, Clone)]
pub struct Segment {
    index: SegmentIndex,
    sha256: Sha256,
    body: Bytes,
}

impl Segment {
    /// Takes an object's bytes and checks every one of them.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] if any byte is not the one that was written.
    pub fn open(object: &Bytes) -> Result<Self, SegmentError> {
        let (index, head) = match read_head(object)? {
            HeadRead::Done(index, head) => (*index, head),
            HeadRead::Needs(_) => return Err(SegmentError::Truncated),
        };
        let head = usize::try_from(head).map_err(|_| SegmentError::Truncated)?;
        let body = object.slice(head..);
        if body.len() as u64 != index.body_bytes {
            return Err(SegmentError::Mismatch {
                what: "bytes of body",
                said: index.body_bytes,
                found: body.len() as u64,
            });
        }
        let found = sha256(&body);
        if found != index.body_sha256 {
            return Err(mismatch("body", &index.body_sha256, &found));
        }
        Ok(Self {
            index,
            sha256: sha256(object),
            body,
        })
    }

    /// What the segment says of itself.
    #[must_use]
    pub const fn index(&self) -> &SegmentIndex {
        &self.index
    }

    /// The digest of the whole object.
    #[must_use]
    pub const fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// The lines of the transactions.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] if they cannot be read.
    pub fn details(&self) -> Result<Vec<IndexedTransaction>, SegmentError> {
        let data_bytes = self.data_bytes()?;
        read_details(&self.index, &self.body.slice(data_bytes..))
    }

    /// The events, decompressed as they are taken.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Compression`].
    pub fn events(&self) -> Result<SegmentEvents, SegmentError> {
        let data_bytes = self.data_bytes()?;
        let mut zstd =
            zstd::stream::read::Decoder::with_buffer(Cursor::new(self.body.slice(..data_bytes)))
                .map_err(SegmentError::Compression)?;
        zstd.window_log_max(WINDOW_LOG_MAX)
            .map_err(SegmentError::Compression)?;
        let mut events = SegmentEvents {
            zstd,
            checksum: self.index.checksum,
            raw_bytes: self.index.raw_bytes,
            raw_sha256: self.index.raw_sha256,
            hasher: Some(Sha256Writer::default()),
            offset: 0,
            event: Vec::new(),
        };
        let mut magic = [0; 4];
        events.fill(&mut magic)?;
        if &magic != MAGIC {
            return Err(SegmentError::NotASegment("it holds no binlog file"));
        }
        Ok(events)
    }

    /// Where the frame with the lines begins.
    fn data_bytes(&self) -> Result<usize, SegmentError> {
        usize::try_from(self.index.details_bytes)
            .ok()
            .and_then(|details| self.body.len().checked_sub(details))
            .ok_or(SegmentError::Truncated)
    }
}

/// So much memory of an event is kept for the next one.
const KEPT_BYTES: usize = 4 << 20;

/// The events of a segment, one after the other, each with its checksum verified.
pub struct SegmentEvents {
    zstd: zstd::stream::read::Decoder<'static, Cursor<Bytes>>,
    checksum: Checksum,
    raw_bytes: u64,
    raw_sha256: Sha256,
    hasher: Option<Sha256Writer>,
    offset: u64,
    event: Vec<u8>,
}

impl std::fmt::Debug for SegmentEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentEvents")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl SegmentEvents {
    /// The next event, or `None` after the last, when the file's length and SHA-256 have been
    /// found to be those of the index.
    ///
    /// # Errors
    ///
    /// [`SegmentError`] for anything that is not as it was written.
    pub fn next_event(&mut self) -> Result<Option<RawEvent<'_>>, SegmentError> {
        if self.offset == self.raw_bytes {
            self.finish()?;
            return Ok(None);
        }
        let start = self.offset;
        let broken = |source| SegmentError::Event {
            offset: start,
            source,
        };
        let mut head = [0; HEADER_LENGTH];
        self.fill(&mut head)?;
        let length = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
        if !(HEADER_LENGTH..=EVENT_LIMIT).contains(&length)
            || start + length as u64 > self.raw_bytes
        {
            return Err(SegmentError::Truncated);
        }
        let mut event = std::mem::take(&mut self.event);
        event.clear();
        event.shrink_to(KEPT_BYTES);
        event.extend_from_slice(&head);
        while event.len() < length {
            let filled = event.len();
            event.resize(length.min(filled + READ_STEP), 0);
            self.fill(&mut event[filled..])?;
        }
        self.event = event;
        let event = RawEvent::new(&self.event).map_err(broken)?;
        let checksum = match event.kind() {
            // Has a CRC whatever the algorithm of the others is.
            EventKind::FORMAT_DESCRIPTION => Checksum::Crc32,
            _ => self.checksum,
        };
        event.verify(checksum).map_err(broken)?;
        Ok(Some(event))
    }

    /// Gives the bytes of the event that came last for others, whose memory serves the next one.
    pub fn swap_event(&mut self, bytes: &mut Vec<u8>) {
        std::mem::swap(&mut self.event, bytes);
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), SegmentError> {
        self.zstd.read_exact(buffer).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                SegmentError::Truncated
            } else {
                SegmentError::Compression(error)
            }
        })?;
        self.offset += buffer.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SegmentError> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let mut beyond = [0; 1];
        if self
            .zstd
            .read(&mut beyond)
            .map_err(SegmentError::Compression)?
            != 0
        {
            return Err(SegmentError::Mismatch {
                what: "bytes",
                said: self.raw_bytes,
                found: self.raw_bytes + 1,
            });
        }
        let found = hasher.finish();
        if found == self.raw_sha256 {
            Ok(())
        } else {
            Err(mismatch("binlog file", &self.raw_sha256, &found))
        }
    }
}

pub(super) fn mismatch(what: &'static str, expected: &Sha256, found: &Sha256) -> SegmentError {
    SegmentError::Digest {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
