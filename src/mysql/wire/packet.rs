//! Packets out of bytes and bytes out of packets, without IO.
//!
//! A payload of 16 MiB - 1 or more travels in several frames; the decoder joins them. The
//! invariant: a payload is handed out only whole, with the sequence numbers in order.
//!
//! Bytes are copied as little as can be: a small payload is a slice of the buffer that the socket
//! read into, and a large one is read by the socket into memory of its own.
//!
//! Longer than 500 lines because what decodes and what encodes hold each other to the same limits.

use bytes::buf::Limit;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The largest payload of one frame.
const MAX_FRAME: usize = 0xFF_FFFF;
/// The bytes before a frame's payload.
const FRAME_HEADER: usize = 4;
/// What the socket reads into at once.
const BUFFER: usize = 256 * 1024;
/// A buffer with less room than this is replaced before the socket reads into it.
const ROOM_MIN: usize = 32 * 1024;
/// A payload from here on gets memory of its own, so that it need not be moved to fit.
const LARGE: usize = 64 * 1024;
/// Where an event's length stands in it.
const EVENT_LENGTH_AT: usize = 9;
/// No more than this is set aside for what an event only says of its length.
const EVENT_MAX: usize = (1 << 30) + (1 << 20);

/// Turns a stream of bytes into payloads.
#[derive(Debug, Default)]
pub struct PacketDecoder {
    buffer: BytesMut,
    large: Option<Large>,
    begun: Option<Begun>,
    sequence: u8,
    event_at: Option<usize>,
    /// Bytes at the front of the buffer that [`PacketDecoder::next_small`] has handed out.
    spent: usize,
}

/// A payload that is read into memory of its own.
#[derive(Debug)]
struct Large {
    payload: BytesMut,
    /// The payload's length with the present frame.
    end: usize,
    /// Whether another frame follows the present one.
    more: bool,
}

impl Large {
    /// Bytes of the present frame that are still to come.
    fn missing(&self) -> usize {
        self.end - self.payload.len()
    }
}

/// A payload, or a part of one that is large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadPiece {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether the payload begins with them.
    pub first: bool,
    /// Whether it ends with them.
    pub last: bool,
}

/// A payload of which a part has been handed out.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// Bytes of the present frame that have not been handed out.
    left: usize,
    /// Whether another frame follows the present one.
    more: bool,
}

/// A frame that does not belong where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("packet number {got} where {expected} was due")]
pub struct OutOfOrder {
    /// The number that was due.
    pub expected: u8,
    /// The number that the frame had.
    pub got: u8,
}

impl PacketDecoder {
    /// The room that the socket reads into; it never takes more than belongs there.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        self.drop_spent();
        if let Some(large) = &mut self.large
            && large.missing() > 0
        {
            let missing = large.missing();
            large.payload.reserve(missing);
            return (&mut large.payload).limit(missing);
        }
        if self.buffer.capacity() - self.buffer.len() < ROOM_MIN {
            // Not more than the buffer has: so it is used again and does not outgrow the caches.
            let room = BUFFER.saturating_sub(self.buffer.len());
            self.buffer.reserve(room.max(ROOM_MIN));
        }
        let room = self.buffer.capacity() - self.buffer.len();
        (&mut self.buffer).limit(room)
    }

    /// How many bytes have come of what has not been handed out.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let large = self.large.as_ref().map_or(0, |large| large.payload.len());
        self.buffer.len() - self.spent + large
    }

    /// Whether bytes are left that have not been handed out: a peer that closes now was cut off.
    #[must_use]
    pub fn is_mid_packet(&self) -> bool {
        self.buffer.len() > self.spent || self.large.is_some() || self.begun.is_some()
    }

    /// Says that each payload is a binlog event behind so many bytes, whose header tells its
    /// length: one that needs several frames is then put together without growing step by step.
    pub const fn expect_events(&mut self, behind: usize) {
        self.event_at = Some(behind);
    }

    /// The next payload, if all of it is here.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] when a frame's sequence number is not the next one.
    pub fn next_payload(&mut self) -> Result<Option<Bytes>, OutOfOrder> {
        self.drop_spent();
        loop {
            if !self.fill_large() {
                return Ok(None);
            }
            if self.large.as_ref().is_some_and(|large| !large.more) {
                return Ok(self.large.take().map(|large| large.payload.freeze()));
            }
            let Some(length) = self.frame_length()? else {
                return Ok(None);
            };
            let more = length == MAX_FRAME;
            if let Some(large) = &mut self.large {
                (large.end, large.more) = (large.end + length, more);
            } else if length < LARGE {
                if self.buffer.len() < FRAME_HEADER + length {
                    return Ok(None);
                }
                self.take_header();
                return Ok(Some(self.buffer.split_to(length).freeze()));
            } else {
                let Some(capacity) = self.capacity_for(length) else {
                    return Ok(None);
                };
                self.large = Some(Large {
                    payload: BytesMut::with_capacity(capacity),
                    end: length,
                    more,
                });
            }
            self.take_header();
        }
    }

    /// The next payload, or as much of it as is here if it is large: so a payload of any size
    /// passes through memory of the size of the socket's buffer.
    ///
    /// A payload that was begun this way must be taken to its end this way.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] when a frame's sequence number is not the next one.
    pub fn next_piece(&mut self) -> Result<Option<PayloadPiece>, OutOfOrder> {
        self.drop_spent();
        let first = self.begun.is_none();
        let mut begun = match self.begun {
            Some(begun) if begun.left > 0 => begun,
            _ => {
                let Some(length) = self.frame_length()? else {
                    return Ok(None);
                };
                if first && length < LARGE {
                    let payload = self.next_payload()?;
                    return Ok(payload.map(|bytes| PayloadPiece {
                        bytes,
                        first: true,
                        last: true,
                    }));
                }
                if length > 0 && self.buffer.len() == FRAME_HEADER {
                    return Ok(None);
                }
                self.take_header();
                Begun {
                    left: length,
                    more: length == MAX_FRAME,
                }
            }
        };
        let here = begun.left.min(self.buffer.len());
        if here == 0 && begun.left > 0 {
            return Ok(None);
        }
        begun.left -= here;
        let last = begun.left == 0 && !begun.more;
        self.begun = (!last).then_some(begun);
        Ok(Some(PayloadPiece {
            bytes: self.buffer.split_to(here).freeze(),
            first,
            last,
        }))
    }

    /// The next payload if it is small, all of it is here and `wanted` says so of it; else it is
    /// left to the other ways. What is handed out is no more than a view of the buffer: this is
    /// for payloads that come by the million.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] when a frame's sequence number is not the next one.
    pub fn next_small(
        &mut self,
        wanted: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<&[u8]>, OutOfOrder> {
        self.drop_spent();
        if self.large.is_some() || self.begun.is_some() {
            return Ok(None);
        }
        let end = match self.frame_length()? {
            Some(length) if length < LARGE => FRAME_HEADER + length,
            _ => return Ok(None),
        };
        if self.buffer.len() < end || !wanted(&self.buffer[FRAME_HEADER..end]) {
            return Ok(None);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.spent = end;
        Ok(Some(&self.buffer[FRAME_HEADER..end]))
    }

    fn drop_spent(&mut self) {
        self.buffer.advance(std::mem::take(&mut self.spent));
    }

    /// The length of the frame whose header is next, if that is here.
    fn frame_length(&self) -> Result<Option<usize>, OutOfOrder> {
        let Some(&[low, middle, high, number]) = self.buffer.first_chunk::<FRAME_HEADER>() else {
            return Ok(None);
        };
        if number != self.sequence {
            return Err(OutOfOrder {
                expected: self.sequence,
                got: number,
            });
        }
        let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        Ok(Some(length))
    }

    fn take_header(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.buffer.advance(FRAME_HEADER);
    }

    /// Moves what has come of the present frame to the large payload; whether it is all there.
    fn fill_large(&mut self) -> bool {
        let Some(large) = &mut self.large else {
            return true;
        };
        // The rest is read into the payload itself.
        let here = large.missing().min(self.buffer.len());
        large.payload.extend_from_slice(&self.buffer[..here]);
        self.buffer.advance(here);
        large.missing() == 0
    }

    /// The bytes to set aside for the payload whose first frame, of `length` bytes, comes next;
    /// `None` until its length is here too.
    fn capacity_for(&self, length: usize) -> Option<usize> {
        match self.event_at {
            Some(behind) if length == MAX_FRAME => {
                let at = FRAME_HEADER + behind + EVENT_LENGTH_AT;
                let field = self.buffer.get(at..at + 4)?;
                let said = u32::from_le_bytes(field.try_into().ok()?) as usize;
                Some((behind + said).clamp(length, EVENT_MAX))
            }
            _ => Some(length),
        }
    }

    /// Sets the number that the next frame must have; a command's answer starts at 1.
    pub const fn expect_sequence(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// The number of the next frame.
    #[must_use]
    pub const fn sequence(&self) -> u8 {
        self.sequence
    }
}

/// Appends `payload` to `out` as frames numbered from `sequence`, and returns the next number.
pub fn encode(payload: &[u8], mut sequence: u8, out: &mut Vec<u8>) -> u8 {
    out.reserve(payload.len() + 4 * (payload.len() / MAX_FRAME + 1));
    let mut rest = payload;
    loop {
        let (frame, tail) = rest.split_at(rest.len().min(MAX_FRAME));
        out.extend_from_slice(&frame_header(frame.len(), sequence));
        out.extend_from_slice(frame);
        sequence = sequence.wrapping_add(1);
        rest = tail;
        if frame.len() < MAX_FRAME {
            return sequence;
        }
    }
}

/// The frames of a packet that carries a binlog event (`00` and the event), without a copy of it.
#[derive(Debug)]
pub struct EventFrames<'a> {
    rest: &'a [u8],
    sequence: u8,
    begun: bool,
    done: bool,
}

impl<'a> EventFrames<'a> {
    /// The frames of `event`, numbered from `sequence`.
    #[must_use]
    pub const fn new(event: &'a [u8], sequence: u8) -> Self {
        Self {
            rest: event,
            sequence,
            begun: false,
            done: false,
        }
    }

    /// What stands before the next frame's piece of the event, and that piece.
    #[expect(
        clippy::should_implement_trait,
        reason = "the number of the next frame is asked for behind the last one"
    )]
    pub fn next(&mut self) -> Option<(Vec<u8>, &'a [u8])> {
        if self.done {
            return None;
        }
        let mark = usize::from(!self.begun);
        let (piece, rest) = self.rest.split_at(self.rest.len().min(MAX_FRAME - mark));
        let length = piece.len() + mark;
        let mut head = frame_header(length, self.sequence).to_vec();
        head.resize(FRAME_HEADER + mark, 0);
        self.sequence = self.sequence.wrapping_add(1);
        self.rest = rest;
        self.begun = true;
        self.done = length < MAX_FRAME;
        Some((head, piece))
    }

    /// The number of the frame behind those that were given out.
    #[must_use]
    pub const fn sequence(&self) -> u8 {
        self.sequence
    }
}

/// Appends the packet of a binlog event to `out` and returns the next sequence number.
pub fn encode_event(event: &[u8], sequence: u8, out: &mut Vec<u8>) -> u8 {
    if event.len() + 1 < MAX_FRAME {
        out.extend_from_slice(&frame_header(event.len() + 1, sequence));
        out.push(0);
        out.extend_from_slice(event);
        return sequence.wrapping_add(1);
    }
    let mut frames = EventFrames::new(event, sequence);
    while let Some((head, piece)) = frames.next() {
        out.extend_from_slice(&head);
        out.extend_from_slice(piece);
    }
    frames.sequence()
}

/// The four bytes before a frame of `length` bytes (at most 16 MiB - 1).
fn frame_header(length: usize, sequence: u8) -> [u8; 4] {
    let bytes = length.to_le_bytes();
    [bytes[0], bytes[1], bytes[2], sequence]
}

/// A reader of the protocol's basic types that never reads past the end.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// The payload ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet ends inside a field")]
pub struct Truncated;

impl<'a> Fields<'a> {
    /// Reads from the start of `payload`.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    ///
    /// [`Truncated`], as all readers of this type.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// An unsigned integer of `N` bytes, low byte first.
    ///
    /// # Errors
    ///
    /// [`Truncated`].
    pub fn uint<const N: usize>(&mut self) -> Result<u64, Truncated> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.bytes(N)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// A length-encoded integer.
    ///
    /// # Errors
    ///
    /// [`Truncated`], also for the NULL marker and 0xFF, which are no integers.
    pub fn lenenc(&mut self) -> Result<u64, Truncated> {
        match self.uint::<1>()? {
            0xFC => self.uint::<2>(),
            0xFD => self.uint::<3>(),
            0xFE => self.uint::<8>(),
            0xFB | 0xFF => Err(Truncated),
            small => Ok(small),
        }
    }

    /// A length-encoded string.
    ///
    /// # Errors
    ///
    /// [`Truncated`].
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let length = usize::try_from(self.lenenc()?).map_err(|_| Truncated)?;
        self.bytes(length)
    }

    /// A string up to a NUL byte, which is taken too.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there is no NUL byte.
    pub fn nul_terminated(&mut self) -> Result<&'a [u8], Truncated> {
        let end = memchr::memchr(0, self.rest).ok_or(Truncated)?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        Ok(text)
    }
}

/// Appends a length-encoded integer.
pub fn put_lenenc(value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xFA => out.push(bytes[0]),
        0xFB..=0xFFFF => {
            out.push(0xFC);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xFF_FFFF => {
            out.push(0xFD);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xFE);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a length-encoded string.
pub fn put_lenenc_bytes(value: &[u8], out: &mut Vec<u8>) {
    put_lenenc(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
