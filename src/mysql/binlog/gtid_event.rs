//! The event that opens a transaction: its GTID, its commit times, its length.

use mysql_common::binlog::BinlogCtx;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{FormatDescriptionEvent, GtidEvent as TaggedLayout};
use mysql_common::io::ParseBuf;
use uuid::Uuid;

use super::event::{Checksum, EventError, EventKind, RawEvent};
use crate::gtid::{Gtid, Tag, Tsid};
use crate::mysql::wire::packet::Fields;

/// The marker before the logical timestamps of an untagged event.
const LOGICAL_TIMESTAMP: u64 = 2;

/// What a GTID event says of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidEvent {
    /// The transaction's identity.
    pub gtid: Gtid,
    /// The logical time of the newest transaction that this one may depend on.
    pub last_committed: u64,
    /// The logical time of this transaction in its source's file.
    pub sequence_number: u64,
    /// When the server that wrote this binlog committed it, in microseconds since the epoch.
    pub immediate_commit_micros: u64,
    /// When the first server committed it, in microseconds since the epoch; 0 is unknown.
    pub original_commit_micros: u64,
    /// All bytes of the transaction, this event included.
    pub transaction_length: u64,
}

impl GtidEvent {
    /// Reads an untagged or a tagged GTID event.
    ///
    /// # Errors
    ///
    /// [`EventError::Malformed`] or [`EventError::Truncated`].
    pub fn parse(event: &RawEvent<'_>, checksum: Checksum) -> Result<Self, EventError> {
        let body = event.body(checksum)?;
        match event.kind() {
            EventKind::GTID => Self::parse_untagged(body),
            EventKind::GTID_TAGGED => Self::parse_tagged(body),
            kind => Err(malformed(kind, "it holds no GTID")),
        }
    }

    fn parse_untagged(body: &[u8]) -> Result<Self, EventError> {
        let mut fields = Fields::new(body);
        let _flags = fields.uint::<1>()?;
        let uuid = Uuid::from_slice(fields.bytes(16)?).map_err(|_| EventError::Truncated)?;
        let gno = fields.uint::<8>()?;
        if fields.uint::<1>()? != LOGICAL_TIMESTAMP {
            return Err(malformed(
                EventKind::GTID,
                "it has no commit timestamps; servers before MySQL 8.0 are not supported",
            ));
        }
        let last_committed = fields.uint::<8>()?;
        let sequence_number = fields.uint::<8>()?;
        let mut immediate_commit_micros = fields.uint::<7>()?;
        let original_commit_micros = if immediate_commit_micros & (1 << 55) == 0 {
            immediate_commit_micros
        } else {
            immediate_commit_micros &= !(1 << 55);
            fields.uint::<7>()?
        };
        let transaction_length = fields.lenenc()?;
        Ok(Self {
            gtid: gtid(EventKind::GTID, uuid, None, gno)?,
            last_committed,
            sequence_number,
            immediate_commit_micros,
            original_commit_micros,
            transaction_length,
        })
    }

    fn parse_tagged(body: &[u8]) -> Result<Self, EventError> {
        let kind = EventKind::GTID_TAGGED;
        let format = FormatDescriptionEvent::new(BinlogVersion::Version4);
        let context = BinlogCtx::new(body.len(), &format, kind.0);
        let event: TaggedLayout = ParseBuf(body)
            .parse(context)
            .map_err(|error| malformed(kind, &error.to_string()))?;
        let tag = event
            .tag()
            .map(|tag| tag.as_str().parse::<Tag>())
            .transpose()
            .map_err(|error| malformed(kind, &error.to_string()))?;
        Ok(Self {
            gtid: gtid(kind, Uuid::from_bytes(event.sid()), tag, event.gno())?,
            last_committed: event.last_committed(),
            sequence_number: event.sequence_number(),
            immediate_commit_micros: event.immediate_commit_timestamp(),
            original_commit_micros: event.original_commit_timestamp(),
            transaction_length: event.tx_length(),
        })
    }
}

fn gtid(kind: EventKind, uuid: Uuid, tag: Option<Tag>, gno: u64) -> Result<Gtid, EventError> {
    Gtid::new(Tsid { uuid, tag }, gno).map_err(|error| malformed(kind, &error.to_string()))
}

fn malformed(kind: EventKind, reason: &str) -> EventError {
    EventError::Malformed {
        kind,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mysql::binlog::testing::{SourceLog, Work};

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn first_of(gtid: &str, checksum: Checksum, times: (u64, u64)) -> (Vec<Vec<u8>>, GtidEvent) {
        let gtid: Gtid = gtid.parse().expect("a GTID");
        let work = Work::Rows(vec![("a.t", vec![1; 300])]);
        let events = SourceLog::new(checksum, 7).transaction(&gtid, times, &work);
        let event = RawEvent::new(&events[0]).expect("well formed");
        let parsed = GtidEvent::parse(&event, checksum).expect("a GTID event");
        assert_eq!(parsed.gtid, gtid);
        (events, parsed)
    }

    #[test]
    fn both_layouts_tell_the_same() {
        for checksum in [Checksum::None, Checksum::Crc32] {
            for gtid in [
                format!("{UUID}:1"),
                format!("{UUID}:{}", crate::gtid::MAX_GNO),
                format!("{UUID}:blue:1"),
                format!("{UUID}:a234567890_234567890_234567890_2:9223372036854775806"),
            ] {
                let same = 1_795_000_000_000_001;
                for times in [(same, same), (same, same - 7), (same, 0)] {
                    let (events, parsed) = first_of(&gtid, checksum, times);
                    assert_eq!(
                        (
                            parsed.immediate_commit_micros,
                            parsed.original_commit_micros
                        ),
                        times,
                        "{gtid}"
                    );
                    let length: usize = events.iter().map(Vec::len).sum();
                    assert_eq!(parsed.transaction_length, length as u64, "{gtid}");
                    assert_eq!((parsed.last_committed, parsed.sequence_number), (0, 1));
                }
            }
        }
    }

    /// Bytes of the manual's layout, written out by hand.
    #[test]
    fn an_untagged_event_is_read_field_by_field() {
        let mut bytes = vec![0x2a, 0, 0, 0, 33, 9, 0, 0, 0];
        bytes.extend_from_slice(&[19 + 62, 0, 0, 0, 0xff, 0, 0, 0, 0, 0]);
        bytes.push(1);
        bytes.extend_from_slice(&[0xab; 16]);
        bytes.extend_from_slice(&[5, 1, 0, 0, 0, 0, 0, 0]);
        bytes.push(2);
        bytes.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0x10, 0, 0, 0, 0, 0, 0x80]);
        bytes.extend_from_slice(&[0x0f, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0xfc, 0x00, 0x02]);
        bytes.extend_from_slice(&[0, 0, 0]);
        let event = RawEvent::new(&bytes).expect("well formed");
        let parsed = GtidEvent::parse(&event, Checksum::None).expect("a GTID event");
        assert_eq!(
            parsed,
            GtidEvent {
                gtid: "abababab-abab-abab-abab-abababababab:261"
                    .parse()
                    .expect("a GTID"),
                last_committed: 3,
                sequence_number: 4,
                immediate_commit_micros: 0x10,
                original_commit_micros: 0x0f,
                transaction_length: 512,
            }
        );
    }

    #[test]
    fn what_is_no_transaction_is_refused() {
        let (events, _) = first_of(&format!("{UUID}:1"), Checksum::None, (1, 1));
        let mut zero = events[0].clone();
        zero[19 + 17..19 + 25].fill(0);
        let mut old = events[0].clone();
        old[19 + 25] = 0;
        for bytes in [zero, old, events[1].clone()] {
            let event = RawEvent::new(&bytes).expect("well formed");
            assert!(matches!(
                GtidEvent::parse(&event, Checksum::None),
                Err(EventError::Malformed { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            tagged: bool,
            body in prop::collection::vec(any::<u8>(), 0..90),
            valid: bool,
            at in any::<prop::sample::Index>(),
            byte: u8,
        ) {
            let gtid = if tagged { format!("{UUID}:t:1") } else { format!("{UUID}:1") };
            let (events, _) = first_of(&gtid, Checksum::None, (5, 4));
            let mut bytes = events[0].clone();
            if valid {
                let at = 19 + at.index(bytes.len() - 19);
                bytes[at] = byte;
            } else {
                bytes.truncate(19);
                bytes.extend_from_slice(&body);
                let length = u32::try_from(bytes.len()).expect("short");
                bytes[9..13].copy_from_slice(&length.to_le_bytes());
            }
            let event = RawEvent::new(&bytes).expect("a valid header");
            let _ = GtidEvent::parse(&event, Checksum::None);
            let _ = GtidEvent::parse(&event, Checksum::Crc32);
        }
    }
}
