//! A segment's content while it grows: blocks that are packed as soon as they are settled.
//!
//! A block becomes a zstd frame of its own, so blocks are packed side by side while the segment
//! still fills, and memory holds packed bytes rather than raw ones. Each frame goes straight to
//! its place in the object, and what blocks are packed in is used again: were each frame a piece
//! of memory of its own, the allocator would keep most of it for the thread that packed it. The
//! invariant: what [`Block::pack`] hands on has been unpacked again and compared, and a block that
//! was given out never changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::SegmentError;
use crate::archive::hash::{Sha256, Sha256Writer};

/// Bytes of binlog in a block.
pub const BLOCK_BYTES: usize = 4 << 20;

/// What stays smaller than this takes no whole block's memory.
const SMALL_BYTES: usize = 256 << 10;

/// An object of full blocks asks for room in such steps: what is as large is mapped by itself,
/// grows in place, and is given back whole. What has not been written to takes no memory.
const STEP: usize = 40 << 20;

/// Raw bytes on their way to be packed.
#[derive(Debug)]
pub struct Block {
    raw: Vec<u8>,
    place: usize,
    frames: Arc<Mutex<Frames>>,
}

impl Block {
    /// How many raw bytes it has.
    #[must_use]
    pub const fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// Compresses, decompresses and compares, and hands the frame to the segment; `level` is
    /// zstd's. Needs the processor only, for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotTheSame`] if the bytes do not survive the trip.
    pub fn pack(self, level: i32) -> Result<(), SegmentError> {
        let packed = pack(&self.raw, level)?;
        give_back(self.raw);
        let mut frames = self.frames.lock().map_err(|_| SegmentError::Unfilled)?;
        frames.put(self.place, packed);
        Ok(())
    }
}

/// Memory of blocks, raw, packed and unpacked again, to be filled anew: allocating it each time
/// would scatter it and cost more than copying.
static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// How many the pool keeps: a stream fills some, packs two and has a few packed ones wait.
const POOLED: usize = 12;

/// Gives a buffer back to be used again.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() >= buffer_bytes()
        && buffer.capacity() < 2 * buffer_bytes()
        && let Ok(mut pool) = POOL.lock()
        && pool.len() < POOLED
    {
        buffer.clear();
        pool.push(buffer);
    }
}

/// An empty buffer for a block, raw or packed.
fn buffer() -> Vec<u8> {
    let pooled = POOL.lock().ok().and_then(|mut pool| pool.pop());
    pooled.unwrap_or_else(|| Vec::with_capacity(buffer_bytes()))
}

/// A block that does not compress grows by a little.
fn buffer_bytes() -> usize {
    zstd::zstd_safe::compress_bound(BLOCK_BYTES)
}

/// Compresses `raw` into one frame that has been proved to unfold to it.
pub(super) fn pack(raw: &[u8], level: i32) -> Result<Vec<u8>, SegmentError> {
    // A large one: the lines of many small transactions.
    let (mut packed, mut unpacked) = if raw.len() > BLOCK_BYTES {
        let bound = zstd::zstd_safe::compress_bound(raw.len());
        (Vec::with_capacity(bound), Vec::with_capacity(raw.len()))
    } else {
        (buffer(), buffer())
    };
    zstd::bulk::Compressor::new(level)
        .and_then(|mut zstd| zstd.compress_to_buffer(raw, &mut packed))
        .map_err(SegmentError::Compression)?;
    zstd::bulk::Decompressor::new()
        .and_then(|mut zstd| zstd.decompress_to_buffer(&packed, &mut unpacked))
        .map_err(|_| SegmentError::NotTheSame)?;
    let same = unpacked == raw;
    give_back(unpacked);
    if same {
        Ok(packed)
    } else {
        Err(SegmentError::NotTheSame)
    }
}

/// The frames, one behind the other.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    /// How many there are.
    count: usize,
    /// Those that were ready before one in front of them.
    early: BTreeMap<usize, Vec<u8>>,
}

impl Frames {
    fn put(&mut self, place: usize, packed: Vec<u8>) {
        self.early.insert(place, packed);
        while let Some(packed) = self.early.remove(&self.count) {
            append(&mut self.bytes, packed, STEP);
            self.count += 1;
        }
    }
}

/// Puts a frame behind the others; one that has no room there makes room for `step` bytes.
fn append(bytes: &mut Vec<u8>, packed: Vec<u8>, step: usize) {
    if bytes.capacity() - bytes.len() < packed.len() {
        bytes.reserve_exact(packed.len().max(step));
    }
    bytes.extend_from_slice(&packed);
    give_back(packed);
}

/// The content: settled blocks, and behind them what may still be taken back.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Those of the blocks that were given out.
    frames: Arc<Mutex<Frames>>,
    sealed: usize,
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
                        let mut larger = buffer();
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

    /// Takes away what lies behind the first `raw_bytes` bytes, and returns it in pieces. What was
    /// sealed stays: the caller asks only for what has not been settled.
    pub(super) fn split_off(&mut self, raw_bytes: usize) -> Vec<Vec<u8>> {
        let mut at = raw_bytes.saturating_sub(self.sealed_bytes);
        let mut kept = 0;
        while let Some(block) = self.open.get(kept)
            && block.len() <= at
        {
            at -= block.len();
            kept += 1;
        }
        let mut gone = Vec::new();
        if let Some(block) = self.open.get_mut(kept)
            && at > 0
        {
            gone.push(block.split_off(at));
            kept += 1;
        }
        gone.extend(self.open.drain(kept..));
        self.open_bytes -= gone.iter().map(Vec::len).sum::<usize>();
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
        let place = self.sealed;
        self.sealed += 1;
        Some(Block {
            raw,
            place,
            frames: Arc::clone(&self.frames),
        })
    }

    fn take_front(&mut self) -> Option<Vec<u8>> {
        let raw = self.open.pop_front()?;
        self.hasher.update(&raw);
        self.open_bytes -= raw.len();
        self.sealed_bytes += raw.len();
        Some(raw)
    }

    /// Packs what is left.
    pub(super) fn finish(mut self, level: i32) -> Result<Packed, SegmentError> {
        let frames = self
            .frames
            .lock()
            .map(|mut frames| std::mem::take(&mut *frames));
        let frames = frames.map_err(|_| SegmentError::Unfilled)?;
        if frames.count != self.sealed {
            return Err(SegmentError::Unfilled);
        }
        let mut bytes = frames.bytes;
        while let Some(raw) = self.take_front() {
            let packed = pack(&raw, level)?;
            let step = if raw.len() == BLOCK_BYTES { STEP } else { 0 };
            give_back(raw);
            append(&mut bytes, packed, step);
        }
        Ok(Packed {
            bytes,
            raw_bytes: self.sealed_bytes as u64,
            raw_sha256: self.hasher.finish(),
        })
    }
}

/// All of the content, packed.
#[derive(Debug)]
pub(super) struct Packed {
    /// The frames in their order.
    pub(super) bytes: Vec<u8>,
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
            away.push(block);
        }
        assert_eq!(away.len(), 3, "the last one is not full");
        for block in away.into_iter().rev() {
            block.pack(1).expect("packs");
        }
        let packed = blocks.finish(1).expect("finishes");
        assert_eq!(unpacked(&packed.bytes), raw);
        assert_eq!(packed.raw_bytes, raw.len() as u64);
        assert_eq!(packed.raw_sha256, sha256(&raw));
    }

    #[test]
    fn a_block_that_does_not_come_back_is_an_error() {
        for lost in 0..2 {
            let mut blocks = Blocks::default();
            blocks.push(&bytes(2 * BLOCK_BYTES));
            for place in 0..2 {
                let block = blocks.seal(2 * BLOCK_BYTES).expect("settled");
                if place != lost {
                    block.pack(1).expect("packs");
                }
            }
            assert!(matches!(blocks.finish(1), Err(SegmentError::Unfilled)));
        }
    }

    /// What does not compress takes the most room, and what is smaller behind it none of it.
    #[test]
    fn memory_is_used_again_and_holds_any_block() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(7);
            (state >> 56) as u8
        })
        .take(BLOCK_BYTES)
        .collect();
        let raw = [&noise[..], &bytes(BLOCK_BYTES), &noise, &[7; BLOCK_BYTES]].concat();
        for _ in 0..8 {
            let mut blocks = Blocks::default();
            blocks.push(&raw);
            while let Some(block) = blocks.seal(raw.len()) {
                block.pack(1).expect("packs");
            }
            let packed = blocks.finish(1).expect("finishes");
            assert!(packed.bytes.len() > 2 * BLOCK_BYTES && packed.bytes.len() < raw.len());
            assert!(unpacked(&packed.bytes) == raw);
        }
        let pool = POOL.lock().expect("not poisoned");
        assert!(pool.len() <= POOLED);
        assert!(pool.iter().all(|buffer| buffer.is_empty()));
        assert!(
            pool.iter()
                .all(|buffer| buffer.capacity() >= buffer_bytes())
        );
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
            let sealed = blocks.seal(at);
            assert_eq!(blocks.split_off(at).concat(), raw[at..]);
            assert_eq!(blocks.raw_bytes(), at);
            blocks.push(b"more");
            sealed
                .into_iter()
                .for_each(|block| block.pack(1).expect("packs"));
            let packed = blocks.finish(1).expect("finishes");
            assert_eq!(unpacked(&packed.bytes), [&raw[..at], b"more"].concat());
        }
    }
}
