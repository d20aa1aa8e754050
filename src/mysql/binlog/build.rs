//! The few events that Quillback makes itself: PREVIOUS_GTIDS, ROTATE and heartbeats.

use super::event::{Checksum, EventKind, HEADER_LENGTH};
use crate::gtid::GtidSet;
use crate::mysql::wire::packet::put_lenenc;

/// The bytes that every binlog file starts with.
pub const MAGIC: &[u8; 4] = b"\xfebin";
/// `LOG_EVENT_ARTIFICIAL_F`: the event stands in no file.
const ARTIFICIAL: u16 = 0x20;
/// `LOG_EVENT_IGNORABLE_F`, which the server sets on PREVIOUS_GTIDS.
const IGNORABLE: u16 = 0x80;

/// Makes events for one stream.
#[derive(Debug, Clone, Copy)]
pub struct EventBuilder {
    checksum: Checksum,
    server_id: u32,
}

impl EventBuilder {
    /// Events with this checksum, of this server.
    #[must_use]
    pub const fn new(checksum: Checksum, server_id: u32) -> Self {
        Self {
            checksum,
            server_id,
        }
    }

    /// The GTIDs before a file. `position` is where the event starts in that file.
    #[must_use]
    pub fn previous_gtids(&self, set: &GtidSet, timestamp: u32, position: u64) -> Vec<u8> {
        let body = set.encode();
        let end = position + self.length(body.len());
        self.event(EventKind::PREVIOUS_GTIDS, timestamp, IGNORABLE, end, &body)
    }

    /// The made-up ROTATE that opens a file in a stream, or (with a `timestamp`) a real one.
    #[must_use]
    pub fn rotate(&self, file: &str, position: u64, timestamp: u32) -> Vec<u8> {
        let mut body = position.to_le_bytes().to_vec();
        body.extend_from_slice(file.as_bytes());
        let flags = if timestamp == 0 { ARTIFICIAL } else { 0 };
        self.event(EventKind::ROTATE, timestamp, flags, 0, &body)
    }

    /// A heartbeat of the first version: the position is the header's, so at most 4 GiB.
    #[must_use]
    pub fn heartbeat(&self, file: &str, position: u32) -> Vec<u8> {
        self.event(EventKind::HEARTBEAT, 0, 0, position.into(), file.as_bytes())
    }

    /// A heartbeat of the second version.
    #[must_use]
    pub fn heartbeat_v2(&self, file: &str, position: u64) -> Vec<u8> {
        let mut body = Vec::new();
        put_lenenc(1, &mut body);
        put_lenenc(file.len() as u64, &mut body);
        body.extend_from_slice(file.as_bytes());
        let mut encoded = Vec::new();
        put_lenenc(position, &mut encoded);
        put_lenenc(2, &mut body);
        put_lenenc(encoded.len() as u64, &mut body);
        body.extend_from_slice(&encoded);
        put_lenenc(0, &mut body);
        self.event(EventKind::HEARTBEAT_V2, 0, 0, 0, &body)
    }

    const fn length(&self, body: usize) -> u64 {
        (HEADER_LENGTH + body + self.checksum.length()) as u64
    }

    fn event(
        &self,
        kind: EventKind,
        timestamp: u32,
        flags: u16,
        log_pos: u64,
        body: &[u8],
    ) -> Vec<u8> {
        let length = self.length(body.len());
        let mut out = Vec::with_capacity(HEADER_LENGTH + body.len() + 4);
        out.extend_from_slice(&timestamp.to_le_bytes());
        out.push(kind.0);
        out.extend_from_slice(&self.server_id.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes()[..4]);
        // The header has room for the low four bytes of a position, as in the server's own files.
        out.extend_from_slice(&log_pos.to_le_bytes()[..4]);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(body);
        if self.checksum == Checksum::Crc32 {
            let crc = crc32fast::hash(&out);
            out.extend_from_slice(&crc.to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::RawEvent;

    #[test]
    fn positions_are_those_that_were_asked_for() {
        let builder = EventBuilder::new(Checksum::Crc32, 7);
        // A heartbeat may name a position before its own length: the file has just begun.
        for position in [4, 35, 36, 37, u32::MAX] {
            let bytes = builder.heartbeat("binlog.000001", position);
            let event = RawEvent::new(&bytes).expect("well formed");
            event.verify(Checksum::Crc32).expect("whole");
            assert_eq!(event.header().log_pos, position);
        }
        for position in [4, 250, 0xFFFF, u64::from(u32::MAX) + 9, u64::MAX] {
            let bytes = builder.heartbeat_v2("binlog.000001", position);
            let event = RawEvent::new(&bytes).expect("well formed");
            let place = event.heartbeat_v2_place(Checksum::Crc32).expect("whole");
            assert_eq!(place, ("binlog.000001".to_owned(), position));
        }
        let bytes = builder.previous_gtids(&GtidSet::new(), 1, 126);
        let event = RawEvent::new(&bytes).expect("well formed");
        assert_eq!(event.header().log_pos as usize, 126 + bytes.len());
        let body = event.body(Checksum::Crc32).expect("a body");
        assert_eq!(GtidSet::decode(body), Ok(GtidSet::new()));
    }
}
