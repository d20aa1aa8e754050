//! Packets out of bytes and bytes out of packets, without IO.
//!
//! A payload of 16 MiB - 1 or more travels in several frames; the decoder joins them. The
//! invariant: a payload is handed out only whole, with the sequence numbers in order.

use bytes::{Buf as _, Bytes, BytesMut};

/// The largest payload of one frame.
const MAX_FRAME: usize = 0xFF_FFFF;

/// Turns a stream of bytes into payloads.
#[derive(Debug, Default)]
pub struct PacketDecoder {
    buffer: BytesMut,
    joined: Option<BytesMut>,
    sequence: u8,
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
    /// The room that the socket reads into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < 16 * 1024 {
            self.buffer.reserve(256 * 1024);
        }
        &mut self.buffer
    }

    /// Whether bytes are left that have not been handed out: a peer that closes now was cut off.
    #[must_use]
    pub fn is_mid_packet(&self) -> bool {
        !self.buffer.is_empty() || self.joined.is_some()
    }

    /// The next payload, if all of it is here.
    ///
    /// # Errors
    ///
    /// [`OutOfOrder`] when a frame's sequence number is not the next one.
    pub fn next_payload(&mut self) -> Result<Option<Bytes>, OutOfOrder> {
        loop {
            let Some(&[low, middle, high, number]) = self.buffer.first_chunk::<4>() else {
                return Ok(None);
            };
            let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
            if number != self.sequence {
                return Err(OutOfOrder {
                    expected: self.sequence,
                    got: number,
                });
            }
            if self.buffer.len() < 4 + length {
                let missing = 4 + length - self.buffer.len();
                self.buffer.reserve(missing);
                return Ok(None);
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.buffer.advance(4);
            let frame = self.buffer.split_to(length);
            match (&mut self.joined, length == MAX_FRAME) {
                (None, false) => return Ok(Some(frame.freeze())),
                (None, true) => {
                    let mut joined = BytesMut::with_capacity(2 * MAX_FRAME);
                    joined.extend_from_slice(&frame);
                    self.joined = Some(joined);
                }
                (Some(joined), more) => {
                    joined.extend_from_slice(&frame);
                    if !more {
                        return Ok(self.joined.take().map(BytesMut::freeze));
                    }
                }
            }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(decoder: &mut PacketDecoder, bytes: &[u8], step: usize) -> Vec<Bytes> {
        let mut payloads = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.buffer().extend_from_slice(piece);
            while let Some(payload) = decoder.next_payload().expect("in order") {
                payloads.push(payload);
            }
        }
        payloads
    }

    #[test]
    fn payloads_around_the_frame_limit_survive_the_trip() {
        for length in [0, 1, MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 2 * MAX_FRAME] {
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut bytes = Vec::new();
            let next = encode(&payload, 250, &mut bytes);
            let mut decoder = PacketDecoder::default();
            decoder.expect_sequence(250);
            let payloads = feed(&mut decoder, &bytes, 100_003);
            assert_eq!(payloads.len(), 1, "{length}");
            assert!(payloads[0] == payload, "{length}");
            assert_eq!(decoder.sequence(), next);
            assert!(!decoder.is_mid_packet());
        }
    }

    #[test]
    fn a_frame_out_of_order_is_an_error() {
        let mut bytes = Vec::new();
        encode(b"x", 3, &mut bytes);
        let mut decoder = PacketDecoder::default();
        decoder.buffer().extend_from_slice(&bytes);
        assert_eq!(
            decoder.next_payload(),
            Err(OutOfOrder {
                expected: 0,
                got: 3
            })
        );
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_payloads(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            step in 1_usize..70,
        ) {
            let mut bytes = Vec::new();
            let mut sequence = 0;
            for payload in &payloads {
                sequence = encode(payload, sequence, &mut bytes);
            }
            let got = feed(&mut PacketDecoder::default(), &bytes, step);
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn length_encoding_round_trips(value in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let mut out = Vec::new();
            put_lenenc(value, &mut out);
            put_lenenc_bytes(&text, &mut out);
            let mut fields = Fields::new(&out);
            prop_assert_eq!(fields.lenenc(), Ok(value));
            prop_assert_eq!(fields.lenenc_bytes(), Ok(&text[..]));
            prop_assert!(fields.is_empty());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut fields = Fields::new(&bytes);
            while fields.lenenc_bytes().is_ok() && !fields.is_empty() {}
        }
    }
}
