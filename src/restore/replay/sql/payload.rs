//! A compressed transaction, event by event.

use std::io::Read;

use crate::mysql::binlog::{Checksum, EventError, EventKind, HEADER_LENGTH, RawEvent};
use crate::mysql::wire::packet::Fields;

/// The largest event of a source.
const EVENT_LIMIT: usize = (1 << 30) + (1 << 20);
/// An event's memory grows by so much as its bytes come, whatever its header claims.
const READ_STEP: usize = 1 << 20;
/// `ZSTD` and `NONE` of the server's `compression::type`.
const ZSTD: u64 = 0;
const PLAIN: u64 = 255;

/// The events inside a TRANSACTION_PAYLOAD event, unpacked as they are taken. They carry no
/// checksum of their own.
pub(super) struct Payload<'a> {
    reader: Box<dyn Read + Send + 'a>,
}

impl<'a> Payload<'a> {
    /// Looks into the event.
    ///
    /// # Errors
    ///
    /// [`EventError`].
    pub(super) fn open(event: &RawEvent<'a>, checksum: Checksum) -> Result<Self, EventError> {
        let mut fields = Fields::new(event.body(checksum)?);
        let (mut algorithm, mut length) = (PLAIN, None);
        loop {
            let kind = fields.lenenc()?;
            if kind == 0 {
                break;
            }
            let mut value = Fields::new(fields.lenenc_bytes()?);
            match kind {
                1 => length = Some(value.lenenc()?),
                2 => algorithm = value.lenenc()?,
                _ => {}
            }
        }
        let rest = fields.rest();
        let length = match length {
            None => rest.len(),
            Some(length) => usize::try_from(length).map_err(|_| EventError::Truncated)?,
        };
        let packed = rest.get(..length).ok_or(EventError::Truncated)?;
        let reader: Box<dyn Read + Send + 'a> = match algorithm {
            ZSTD => Box::new(
                zstd::stream::read::Decoder::with_buffer(packed)
                    .map_err(|error| malformed(&error.to_string()))?,
            ),
            PLAIN => Box::new(packed),
            _ => return Err(malformed("unknown compression")),
        };
        Ok(Self { reader })
    }

    /// Puts the next event into `bytes`; `false` behind the last.
    ///
    /// # Errors
    ///
    /// [`EventError`] if there is no whole event.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>) -> Result<bool, EventError> {
        let broken = |error: std::io::Error| malformed(&error.to_string());
        let mut head = [0; HEADER_LENGTH];
        if self.reader.read(&mut head[..1]).map_err(broken)? == 0 {
            return Ok(false);
        }
        self.reader.read_exact(&mut head[1..]).map_err(broken)?;
        let length = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
        if !(HEADER_LENGTH..=EVENT_LIMIT).contains(&length) {
            return Err(malformed("an inner event has no sensible length"));
        }
        bytes.clear();
        bytes.extend_from_slice(&head);
        while bytes.len() < length {
            let filled = bytes.len();
            bytes.resize(length.min(filled + READ_STEP), 0);
            self.reader
                .read_exact(&mut bytes[filled..])
                .map_err(broken)?;
        }
        if RawEvent::new(bytes)?.kind() == EventKind::TRANSACTION_PAYLOAD {
            return Err(malformed("a payload inside a payload"));
        }
        Ok(true)
    }
}

fn malformed(reason: &str) -> EventError {
    EventError::Malformed {
        kind: EventKind::TRANSACTION_PAYLOAD,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let mut payload = Payload::open(&event, Checksum::Crc32).expect("opens");
            let mut bytes = Vec::new();
            let mut kinds = Vec::new();
            while payload.next(&mut bytes).expect("an event") {
                kinds.push(RawEvent::new(&bytes).expect("whole").kind());
            }
            let maps = kinds.iter().filter(|kind| **kind == EventKind::TABLE_MAP);
            assert_eq!(maps.count(), 2, "{kinds:?}");
        }
    }
}
