//! A segment's content while it grows: blocks that are packed as soon as they are settled.
//!
//! A block becomes a zstd frame of its own, so blocks are packed side by side while the segment
//! still fills, and memory holds packed bytes rather than raw ones. The invariant: what
//! [`Block::pack`] returns has been unpacked again and compared, and a block that was given out
//! never changes.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SegmentError;
use crate::archive::hash::{Sha256, Sha256Writer};

/// Bytes of binlog in a block.
pub const BLOCK_BYTES: usize = 4 << 20;

/// What stays smaller than this takes no whole block's memory.
const SMALL_BYTES: usize = 256 << 10;

/// Blocks are told apart over the whole process: one that was given out for a draft that has
/// been dropped is never taken for another's.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Raw bytes on their way to be packed.
#[derive(Debug)]
pub struct Block {
    id: u64,
    raw: Vec<u8>,
}

/// A packed block on its way back.
#[derive(Debug)]
pub struct PackedBlock {
    id: u64,
    packed: Vec<u8>,
}

impl Block {
    /// How many raw bytes it has.
    #[must_use]
    pub const fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// Compresses, decompresses and compares; `level` is zstd's. Needs the processor only, for
    /// some milliseconds.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotTheSame`] if the bytes do not survive the trip.
    pub fn pack(self, level: i32) -> Result<PackedBlock, SegmentError> {
        let packed = pack(&self.raw, level)?;
        give_back(self.raw);
        Ok(PackedBlock {
            id: self.id,
            packed,
        })
    }
}

/// Raw blocks that have been packed, to be filled again: allocating them anew would scatter
/// the memory and cost more than copying them.
static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// How many the pool keeps.
const POOLED: usize = 4;

/// Where a block is packed, and where it is unpacked again. Not one for each thread: work changes
/// between more threads than ever pack at a time.
static SCRATCH: Mutex<Vec<(Vec<u8>, Vec<u8>)>> = Mutex::new(Vec::new());

fn give_back(mut raw: Vec<u8>) {
    if raw.capacity() >= BLOCK_BYTES
        && let Ok(mut pool) = POOL.lock()
        && pool.len() < POOLED
    {
        raw.clear();
        pool.push(raw);
    }
}

/// Room for a block.
fn block() -> Vec<u8> {
    let pooled = POOL.lock().ok().and_then(|mut pool| pool.pop());
    pooled.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
}

/// Compresses `raw` into one frame that has been proved to unfold to it.
pub(super) fn pack(raw: &[u8], level: i32) -> Result<Vec<u8>, SegmentError> {
    let pooled = SCRATCH.lock().ok().and_then(|mut pool| pool.pop());
    let (mut packed, mut unpacked) = pooled.unwrap_or_default();
    packed.resize(zstd::zstd_safe::compress_bound(raw.len()), 0);
    let length = zstd::bulk::Compressor::new(level)
        .and_then(|mut zstd| zstd.compress_to_buffer(raw, &mut packed))
        .map_err(SegmentError::Compression)?;
    let result = packed[..length].to_vec();
    unpacked.resize(raw.len(), 0);
    let found = zstd::bulk::decompress_to_buffer(&result, &mut unpacked)
        .map_err(|_| SegmentError::NotTheSame)?;
    let same = found == raw.len() && unpacked[..] == *raw;
    // A large one (the lines of many small transactions) is not kept for ever.
    if raw.len() <= BLOCK_BYTES
        && let Ok(mut pool) = SCRATCH.lock()
        && pool.len() < POOLED
    {
        pool.push((packed, unpacked));
    }
    if same {
        Ok(result)
    } else {
        Err(SegmentError::NotTheSame)
    }
}

#[derive(Debug)]
enum Sealed {
    /// Given out under this number.
    Away(u64),
    Packed(Vec<u8>),
}

/// The content: settled blocks, and behind them what may still be taken back.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    sealed: Vec<Sealed>,
    sealed_bytes: usize,
    hasher: Sha256Writer,
    open: VecDeque<Vec<u8>>,
    open_bytes: usize,
}

impl Blocks {
    pub(super) const fn raw_bytes(&self) -> usize {
        self.sealed_bytes + self.open_bytes
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.open_bytes += bytes.len();
        while !bytes.is_empty() {
            match self.open.back_mut() {
                Some(last) if last.len() < BLOCK_BYTES => {
                    let room = BLOCK_BYTES - last.len();
                    let (now, later) = bytes.split_at(room.min(bytes.len()));
                    if last.capacity() < BLOCK_BYTES && last.len() + now.len() > SMALL_BYTES {
                        let mut larger = block();
                        larger.extend_from_slice(last);
                        *last = larger;
                    }
                    last.extend_from_slice(now);
                    bytes = later;
                }
                _ => self.open.push_back(Vec::new()),
            }
        }
    }

    /// Takes away what lies behind the first `raw_bytes` bytes, and returns it. What was sealed
    /// stays: the caller asks only for what has not been settled.
    pub(super) fn split_off(&mut self, raw_bytes: usize) -> Vec<u8> {
        let mut at = raw_bytes.saturating_sub(self.sealed_bytes);
        let mut kept = 0;
        while let Some(block) = self.open.get(kept)
            && block.len() <= at
        {
            at -= block.len();
            kept += 1;
        }
        let mut gone = Vec::new();
        if let Some(block) = self.open.get_mut(kept) {
            gone = block.split_off(at);
            if !block.is_empty() {
                kept += 1;
            }
        }
        for block in self.open.drain(kept..) {
            gone.extend_from_slice(&block);
        }
        self.open_bytes -= gone.len();
        gone
    }

    /// Gives out the next block if it is full and lies within the first `settled` bytes.
    pub(super) fn seal(&mut self, settled: usize) -> Option<Block> {
        let full = self
            .open
            .front()
            .is_some_and(|block| block.len() == BLOCK_BYTES);
        if !full || settled < self.sealed_bytes + BLOCK_BYTES {
            return None;
        }
        let raw = self.take_front()?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.sealed.push(Sealed::Away(id));
        Some(Block { id, raw })
    }

    fn take_front(&mut self) -> Option<Vec<u8>> {
        let raw = self.open.pop_front()?;
        self.hasher.update(&raw);
        self.open_bytes -= raw.len();
        self.sealed_bytes += raw.len();
        Some(raw)
    }

    /// Takes a packed block back; one that is not of this content is left out.
    pub(super) fn fill(&mut self, block: PackedBlock) {
        let away = |sealed: &&mut Sealed| matches!(sealed, Sealed::Away(id) if *id == block.id);
        if let Some(place) = self.sealed.iter_mut().find(away) {
            *place = Sealed::Packed(block.packed);
        }
    }

    /// Packs what is left.
    pub(super) fn finish(mut self, level: i32) -> Result<Packed, SegmentError> {
        while let Some(raw) = self.take_front() {
            let packed = pack(&raw, level)?;
            give_back(raw);
            self.sealed.push(Sealed::Packed(packed));
        }
        let frames = self.sealed.into_iter().map(|sealed| match sealed {
            Sealed::Packed(packed) => Ok(packed),
            Sealed::Away(_) => Err(SegmentError::Unfilled),
        });
        Ok(Packed {
            frames: frames.collect::<Result<_, _>>()?,
            raw_bytes: self.sealed_bytes as u64,
            raw_sha256: self.hasher.finish(),
        })
    }
}

/// All of the content, packed.
#[derive(Debug)]
pub(super) struct Packed {
    /// The frames in their order.
    pub(super) frames: Vec<Vec<u8>>,
    /// The length of what they unfold to.
    pub(super) raw_bytes: u64,
    /// Its digest.
    pub(super) raw_sha256: Sha256,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::hash::sha256;
    use std::io::Read as _;

    fn bytes(length: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        };
        (0..length).map(|_| next() % 16).collect()
    }

    fn unpacked(body: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        zstd::stream::read::Decoder::new(body)
            .and_then(|mut decoder| decoder.read_to_end(&mut raw))
            .expect("decompresses");
        raw
    }

    #[test]
    fn blocks_that_come_back_in_any_order_make_the_same_bytes() {
        let raw = bytes(3 * BLOCK_BYTES + 1_000);
        let mut blocks = Blocks::default();
        for piece in raw.chunks(77_777) {
            blocks.push(piece);
        }
        assert!(blocks.seal(BLOCK_BYTES - 1).is_none(), "not settled");
        let mut away = Vec::new();
        while let Some(block) = blocks.seal(raw.len()) {
            away.push(block.pack(1).expect("packs"));
        }
        assert_eq!(away.len(), 3, "the last one is not full");
        for block in away.into_iter().rev() {
            blocks.fill(block);
        }
        let packed = blocks.finish(1).expect("finishes");
        assert_eq!(unpacked(&packed.frames.concat()), raw);
        assert_eq!(packed.raw_bytes, raw.len() as u64);
        assert_eq!(packed.raw_sha256, sha256(&raw));
    }

    #[test]
    fn a_block_that_does_not_come_back_is_an_error() {
        let mut blocks = Blocks::default();
        blocks.push(&bytes(BLOCK_BYTES));
        let block = blocks.seal(BLOCK_BYTES).expect("settled");
        let mut other = Blocks::default();
        other.push(&bytes(BLOCK_BYTES));
        assert!(other.seal(BLOCK_BYTES).is_some());
        other.fill(block.pack(1).expect("packs"));
        assert!(matches!(other.finish(1), Err(SegmentError::Unfilled)));
    }

    #[test]
    fn what_is_split_off_is_what_lay_behind() {
        let raw = bytes(2 * BLOCK_BYTES + 500);
        for at in [
            0,
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            raw.len(),
        ] {
            let mut blocks = Blocks::default();
            blocks.push(&raw);
            let sealed = blocks.seal(at).map(|block| block.pack(1).expect("packs"));
            assert_eq!(blocks.split_off(at), raw[at..]);
            assert_eq!(blocks.raw_bytes(), at);
            blocks.push(b"more");
            sealed.into_iter().for_each(|block| blocks.fill(block));
            let packed = blocks.finish(1).expect("finishes");
            let body = packed.frames.concat();
            assert_eq!(unpacked(&body), [&raw[..at], b"more"].concat());
        }
    }
}
