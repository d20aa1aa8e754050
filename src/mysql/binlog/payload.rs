//! What is inside a compressed transaction: the events of a TRANSACTION_PAYLOAD, one by one.
//!
//! The payload is unfolded as its events are taken, so memory holds one of them, and memory grows
//! only as bytes come, whatever a header claims. Events inside a payload carry no checksum of their
//! own. Source of the layout: "MySQL Source Code Documentation", `Transaction_payload_event`.

use std::io::Read;

use super::HEADER_LENGTH;
use super::event::{Checksum, EventError, EventKind, RawEvent};
use crate::mysql::wire::packet::Fields;

/// An event's memory grows by so much as its bytes come.
const READ_STEP: usize = 1 << 20;

/// What comes next out of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner<'a> {
    /// An event.
    Event(RawEvent<'a>),
    /// An event that is larger than what was allowed for one; it was passed over.
    TooLarge(EventKind),
}

/// The events of one payload.
pub struct PayloadEvents<'a> {
    reader: Box<dyn Read + Send + 'a>,
    limit: usize,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for PayloadEvents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadEvents").finish_non_exhaustive()
    }
}

impl<'a> PayloadEvents<'a> {
    /// Opens a TRANSACTION_PAYLOAD event; events of more than `limit` bytes are passed over.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes are no payload.
    pub fn open(
        event: &RawEvent<'a>,
        checksum: Checksum,
        limit: usize,
    ) -> Result<Self, EventError> {
        let (algorithm, payload) = split(event.body(checksum)?)?;
        let reader: Box<dyn Read + Send + 'a> = match algorithm {
            // ZSTD and NONE of `mysql::binlog::event::compression::type`.
            0 => Box::new(
                zstd::stream::read::Decoder::with_buffer(payload)
                    .map_err(|error| malformed(&error.to_string()))?,
            ),
            255 => Box::new(payload),
            _ => return Err(malformed("unknown compression")),
        };
        Ok(Self {
            reader,
            limit,
            buffer: Vec::new(),
        })
    }

    /// The next event; `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the payload does not unfold to events.
    pub fn next_event(&mut self) -> Result<Option<Inner<'_>>, EventError> {
        let broken = |error: std::io::Error| malformed(&error.to_string());
        let mut head = [0; HEADER_LENGTH];
        if self.reader.read(&mut head[..1]).map_err(broken)? == 0 {
            return Ok(None);
        }
        self.reader.read_exact(&mut head[1..]).map_err(broken)?;
        let length = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
        let rest = length
            .checked_sub(HEADER_LENGTH)
            .ok_or_else(|| malformed("an inner event is too short"))?;
        if length > self.limit {
            let rest = rest as u64;
            let skipped = std::io::copy(&mut self.reader.by_ref().take(rest), &mut std::io::sink())
                .map_err(broken)?;
            if skipped < rest {
                return Err(EventError::Truncated);
            }
            return Ok(Some(Inner::TooLarge(EventKind(head[4]))));
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&head);
        while self.buffer.len() < length {
            let filled = self.buffer.len();
            self.buffer.resize(length.min(filled + READ_STEP), 0);
            self.reader
                .read_exact(&mut self.buffer[filled..])
                .map_err(broken)?;
        }
        let inner = RawEvent::new(&self.buffer)?;
        if inner.kind() == EventKind::TRANSACTION_PAYLOAD {
            return Err(malformed("a payload inside a payload"));
        }
        Ok(Some(Inner::Event(inner)))
    }

    /// The next event where none may be passed over; `None` behind the last.
    ///
    /// # Errors
    ///
    /// As [`PayloadEvents::next_event`]; [`EventError::Malformed`] if one is larger than what was
    /// allowed.
    pub fn next_whole(&mut self) -> Result<Option<RawEvent<'_>>, EventError> {
        match self.next_event()? {
            None => Ok(None),
            Some(Inner::Event(event)) => Ok(Some(event)),
            Some(Inner::TooLarge(kind)) => Err(EventError::Malformed {
                kind,
                reason: "it is longer than any event of a source".to_owned(),
            }),
        }
    }
}

fn malformed(reason: &str) -> EventError {
    EventError::Malformed {
        kind: EventKind::TRANSACTION_PAYLOAD,
        reason: reason.to_owned(),
    }
}

/// The compression type and the bytes of a TRANSACTION_PAYLOAD event's body.
fn split(body: &[u8]) -> Result<(u64, &[u8]), EventError> {
    let mut fields = Fields::new(body);
    let mut algorithm = 255;
    let mut said = None;
    loop {
        match fields.lenenc()? {
            0 => break,
            kind => {
                let mut value = Fields::new(fields.lenenc_bytes()?);
                match kind {
                    1 => said = Some(value.lenenc()?),
                    2 => algorithm = value.lenenc()?,
                    _ => {}
                }
            }
        }
    }
    let payload = fields.rest();
    let length = match said {
        None => payload.len(),
        Some(length) => usize::try_from(length).map_err(|_| EventError::Truncated)?,
    };
    let payload = payload.get(..length).ok_or(EventError::Truncated)?;
    Ok((algorithm, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::Operation;
    use crate::mysql::binlog::testing::{SourceLog, Work};

    #[test]
    fn what_is_inside_comes_out_event_by_event() {
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
            .parse()
            .expect("a GTID");
        for compressed in [false, true] {
            let rows = vec![("a.t", vec![1; 300]), ("b.u", vec![2; 70_000])];
            let work = Work::Payload(rows, compressed);
            let events = SourceLog::new(Checksum::Crc32, 7).transaction(&gtid, (1, 1), &work);
            let last = events.last().expect("a payload");
            let event = RawEvent::new(last).expect("well formed");
            let mut payload =
                PayloadEvents::open(&event, Checksum::Crc32, usize::MAX).expect("opens");
            let mut kinds = Vec::new();
            while let Some(inner) = payload.next_event().expect("an event") {
                match inner {
                    Inner::Event(event) => kinds.push(event.kind()),
                    Inner::TooLarge(kind) => panic!("{kind:?} is passed over"),
                }
            }
            let maps = kinds.iter().filter(|kind| **kind == EventKind::TABLE_MAP);
            assert_eq!(maps.count(), 2, "{kinds:?}");

            // None may be missing.
            let open = |limit| PayloadEvents::open(&event, Checksum::Crc32, limit).expect("opens");
            let mut payload = open(usize::MAX);
            for kind in kinds {
                let inner = payload.next_whole().expect("an event");
                assert_eq!(inner.map(|event| event.kind()), Some(kind));
            }
            assert_eq!(payload.next_whole().expect("the end"), None);
            let mut payload = open(60_000);
            let error = loop {
                match payload.next_whole() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("one is longer"),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(&error, EventError::Malformed { kind, .. } if Operation::of(*kind).is_some()),
                "{error}"
            );
        }
    }
}
