//! One event: its header, its body and its checksum.

use std::fmt;

use crate::mysql::wire::packet::{Fields, Truncated};

/// The bytes before every event's body.
pub const HEADER_LENGTH: usize = 19;
/// The largest event of a source (`max_allowed_packet` plus what a header needs).
pub const EVENT_LIMIT: usize = (1 << 30) + (1 << 20);
/// What an EXECUTE_LOAD_QUERY has between a QUERY's fields and its status: a file's number, two places
/// in the text and what is done with duplicates.
const LOAD_FIELDS: usize = 4 + 4 + 4 + 1;
/// The bytes of a CRC-32 behind the body.
const CRC_LENGTH: usize = 4;

/// The type byte of an event, by MySQL's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKind(pub u8);

#[expect(missing_docs, reason = "the names are MySQL's Log_event_type")]
impl EventKind {
    pub const QUERY: Self = Self(2);
    pub const STOP: Self = Self(3);
    pub const ROTATE: Self = Self(4);
    pub const FORMAT_DESCRIPTION: Self = Self(15);
    pub const XID: Self = Self(16);
    pub const EXECUTE_LOAD_QUERY: Self = Self(18);
    pub const TABLE_MAP: Self = Self(19);
    pub const WRITE_ROWS_V1: Self = Self(23);
    pub const UPDATE_ROWS_V1: Self = Self(24);
    pub const DELETE_ROWS_V1: Self = Self(25);
    pub const INCIDENT: Self = Self(26);
    pub const HEARTBEAT: Self = Self(27);
    pub const ROWS_QUERY: Self = Self(29);
    pub const WRITE_ROWS: Self = Self(30);
    pub const UPDATE_ROWS: Self = Self(31);
    pub const DELETE_ROWS: Self = Self(32);
    pub const GTID: Self = Self(33);
    pub const ANONYMOUS_GTID: Self = Self(34);
    pub const PREVIOUS_GTIDS: Self = Self(35);
    pub const VIEW_CHANGE: Self = Self(37);
    pub const XA_PREPARE: Self = Self(38);
    pub const PARTIAL_UPDATE_ROWS: Self = Self(39);
    pub const TRANSACTION_PAYLOAD: Self = Self(40);
    pub const HEARTBEAT_V2: Self = Self(41);
    pub const GTID_TAGGED: Self = Self(42);

    /// Whether this event starts a transaction.
    #[must_use]
    pub const fn is_gtid(self) -> bool {
        matches!(self, Self::GTID | Self::GTID_TAGGED)
    }

    /// Whether this event tells of the binlog itself and belongs to no transaction.
    #[must_use]
    pub const fn is_file_event(self) -> bool {
        self.is_heartbeat()
            || matches!(
                self,
                Self::STOP | Self::ROTATE | Self::FORMAT_DESCRIPTION | Self::PREVIOUS_GTIDS
            )
    }

    /// Whether it says that the source lives and where it stands, and is in no file.
    #[must_use]
    pub const fn is_heartbeat(self) -> bool {
        matches!(self, Self::HEARTBEAT | Self::HEARTBEAT_V2)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event type {}", self.0)
    }
}

/// The algorithm behind every event of a binlog (`binlog_checksum`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Checksum {
    /// No checksum.
    None,
    /// CRC-32 over header and body.
    Crc32,
}

impl Checksum {
    /// The bytes behind an event's body.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32 => CRC_LENGTH,
        }
    }
}

/// What is wrong with an event's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The bytes end before the event does.
    #[error("the event ends too early")]
    Truncated,
    /// The header's length is not the number of bytes.
    #[error("the event says it has {said} bytes and has {got}")]
    Length {
        /// From the header.
        said: u64,
        /// What is there.
        got: u64,
    },
    /// The CRC-32 does not fit the bytes.
    #[error("checksum mismatch: the event says {said:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// Behind the body.
        said: u32,
        /// Over header and body.
        computed: u32,
    },
    /// The body is no such event.
    #[error("malformed {kind}: {reason}")]
    Malformed {
        /// The event's type.
        kind: EventKind,
        /// What is wrong.
        reason: String,
    },
    /// An event stands where it cannot.
    #[error("{0}")]
    Order(String),
}

impl From<Truncated> for EventError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// The header of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// Whole seconds since the epoch at which the statement started; 0 in made-up events.
    pub timestamp: u32,
    /// The type.
    pub kind: EventKind,
    /// `server_id` of the server on which it happened.
    pub server_id: u32,
    /// All bytes of the event, header and checksum included.
    pub length: u32,
    /// The low 32 bits of the position of the next event in the source's file.
    pub log_pos: u32,
    /// `LOG_EVENT_*_F`.
    pub flags: u16,
}

/// An event's bytes, with a valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent<'a> {
    bytes: &'a [u8],
    header: EventHeader,
}

impl<'a> RawEvent<'a> {
    /// Takes exactly one event.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`] or [`EventError::Length`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, EventError> {
        let event = Self::first_of(bytes)?;
        if event.bytes.len() != bytes.len() {
            return Err(EventError::Length {
                said: event.bytes.len() as u64,
                got: bytes.len() as u64,
            });
        }
        Ok(event)
    }

    /// Takes the first event of `bytes`, which may hold more behind it.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`] if not all of it is there, [`EventError::Length`] if its length
    /// cannot be true.
    pub fn first_of(bytes: &'a [u8]) -> Result<Self, EventError> {
        let mut fields = Fields::new(bytes);
        let timestamp = narrow(fields.uint::<4>()?);
        let kind = EventKind(fields.bytes(1)?[0]);
        let server_id = narrow(fields.uint::<4>()?);
        let length = narrow(fields.uint::<4>()?);
        let log_pos = narrow(fields.uint::<4>()?);
        let flags = fields.uint::<2>()?;
        if (length as usize) < HEADER_LENGTH {
            return Err(EventError::Length {
                said: u64::from(length),
                got: bytes.len() as u64,
            });
        }
        let bytes = bytes.get(..length as usize).ok_or(EventError::Truncated)?;
        Ok(Self {
            bytes,
            header: EventHeader {
                timestamp,
                kind,
                server_id,
                length,
                log_pos,
                flags: u16::try_from(flags).unwrap_or_default(),
            },
        })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &EventHeader {
        &self.header
    }

    /// The type.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.header.kind
    }

    /// All bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes between header and checksum.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`] if the event is too short to hold its checksum.
    pub fn body(&self, checksum: Checksum) -> Result<&'a [u8], EventError> {
        let tail = match self.kind() {
            // Carries the algorithm's byte and a CRC whatever the algorithm is.
            EventKind::FORMAT_DESCRIPTION => 1 + CRC_LENGTH,
            _ => checksum.length(),
        };
        let end = self.bytes.len().checked_sub(tail);
        end.and_then(|end| self.bytes.get(HEADER_LENGTH..end))
            .ok_or(EventError::Truncated)
    }

    /// Compares the checksum with the bytes; events of a binlog without checksums pass.
    ///
    /// # Errors
    ///
    /// [`EventError::Checksum`].
    pub fn verify(&self, checksum: Checksum) -> Result<(), EventError> {
        if checksum == Checksum::None {
            return Ok(());
        }
        let (covered, crc) = self
            .bytes
            .split_last_chunk::<CRC_LENGTH>()
            .filter(|(covered, _)| covered.len() >= HEADER_LENGTH)
            .ok_or(EventError::Truncated)?;
        let said = u32::from_le_bytes(*crc);
        let computed = crc32fast::hash(covered);
        if said == computed {
            Ok(())
        } else {
            Err(EventError::Checksum { said, computed })
        }
    }

    /// The algorithm that a FORMAT_DESCRIPTION event announces for the events behind it.
    ///
    /// # Errors
    ///
    /// [`EventError::Malformed`] for another event or an unknown algorithm.
    pub fn announced_checksum(&self) -> Result<Checksum, EventError> {
        let malformed = |reason: &str| EventError::Malformed {
            kind: self.kind(),
            reason: reason.to_owned(),
        };
        if self.kind() != EventKind::FORMAT_DESCRIPTION {
            return Err(malformed("it announces no checksum"));
        }
        let at = self.bytes.len().checked_sub(1 + CRC_LENGTH);
        match at.and_then(|at| self.bytes.get(at)) {
            Some(0) => Ok(Checksum::None),
            Some(1) => Ok(Checksum::Crc32),
            _ => Err(malformed("unknown checksum algorithm")),
        }
    }

    /// The server's version that a FORMAT_DESCRIPTION event names.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`].
    pub fn announced_version(&self) -> Result<String, EventError> {
        let body = self.body(Checksum::None)?;
        let text = body.get(2..52).ok_or(EventError::Truncated)?;
        let end = memchr::memchr(0, text).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    /// The file and position that a ROTATE event leads to.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`].
    pub fn rotate_target(&self, checksum: Checksum) -> Result<(u64, String), EventError> {
        let mut fields = Fields::new(self.body(checksum)?);
        let position = fields.uint::<8>()?;
        Ok((
            position,
            String::from_utf8_lossy(fields.rest()).into_owned(),
        ))
    }

    /// The file and the position that a heartbeat of the second version names. Its fields have a
    /// type and a length each, so that those of later servers can be passed over.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`], also if one of the two is missing.
    pub fn heartbeat_v2_place(&self, checksum: Checksum) -> Result<(String, u64), EventError> {
        let mut fields = Fields::new(self.body(checksum)?);
        let (mut file, mut position) = (None, None);
        loop {
            match fields.lenenc()? {
                0 => break,
                1 => {
                    let name = fields.lenenc_bytes()?;
                    file = Some(String::from_utf8_lossy(name).into_owned());
                }
                2 => position = Some(Fields::new(fields.lenenc_bytes()?).lenenc()?),
                _ => {
                    fields.lenenc_bytes()?;
                }
            }
        }
        Ok(file.zip(position).ok_or(Truncated)?)
    }

    /// The schema and the text of a QUERY event, or of an EXECUTE_LOAD_QUERY (a LOAD DATA in
    /// statement format, which says besides where in its text the name of its file is).
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`].
    pub fn query(&self, checksum: Checksum) -> Result<(&'a [u8], &'a [u8]), EventError> {
        let mut fields = Fields::new(self.body(checksum)?);
        let _thread_id = fields.uint::<4>()?;
        let _execution_seconds = fields.uint::<4>()?;
        let schema_length = fields.uint::<1>()?;
        let _error_code = fields.uint::<2>()?;
        let status_length = fields.uint::<2>()?;
        if self.kind() == EventKind::EXECUTE_LOAD_QUERY {
            fields.bytes(LOAD_FIELDS)?;
        }
        fields.bytes(usize::try_from(status_length).map_err(|_| Truncated)?)?;
        let schema = fields.bytes(usize::try_from(schema_length).map_err(|_| Truncated)?)?;
        fields.bytes(1)?;
        Ok((schema, fields.rest()))
    }

    /// The text of a ROWS_QUERY event: the statement that made the rows behind it. (Its length has one
    /// byte, which is not enough for most statements, so it is not looked at.)
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`].
    pub fn rows_query(&self, checksum: Checksum) -> Result<&'a [u8], EventError> {
        let mut fields = Fields::new(self.body(checksum)?);
        fields.bytes(1)?;
        Ok(fields.rest())
    }

    /// The table's number, schema and name of a TABLE_MAP event.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`].
    pub fn table_map(&self, checksum: Checksum) -> Result<(u64, &'a [u8], &'a [u8]), EventError> {
        let mut fields = Fields::new(self.body(checksum)?);
        let table_id = fields.uint::<6>()?;
        let _flags = fields.uint::<2>()?;
        let mut name = || -> Result<&'a [u8], EventError> {
            let text = fields.lenenc_bytes()?;
            fields.bytes(1)?;
            Ok(text)
        };
        Ok((table_id, name()?, name()?))
    }

    /// The table's number of a rows event.
    ///
    /// # Errors
    ///
    /// [`EventError::Truncated`].
    pub fn rows_table_id(&self, checksum: Checksum) -> Result<u64, EventError> {
        Ok(Fields::new(self.body(checksum)?).uint::<6>()?)
    }
}

fn narrow(four_bytes: u64) -> u32 {
    // `Fields::uint::<4>` never returns more.
    u32::try_from(four_bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::EventBuilder;
    use proptest::prelude::*;

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let builder = EventBuilder::new(Checksum::Crc32, 7);
        let bytes = builder.rotate("binlog.000002", 4, 0);
        let event = RawEvent::new(&bytes).expect("well formed");
        event.verify(Checksum::Crc32).expect("whole");
        assert_eq!(
            event.rotate_target(Checksum::Crc32).expect("rotate"),
            (4, "binlog.000002".to_owned())
        );
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let noticed = RawEvent::new(&flipped).and_then(|e| e.verify(Checksum::Crc32));
            assert!(noticed.is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in any::<u8>()) {
            let mut bytes = bytes;
            if bytes.len() >= HEADER_LENGTH {
                bytes[4] = kind;
                let length = u32::try_from(bytes.len()).expect("short");
                bytes[9..13].copy_from_slice(&length.to_le_bytes());
            }
            if let Ok(event) = RawEvent::new(&bytes) {
                for checksum in [Checksum::None, Checksum::Crc32] {
                    let _ = event.verify(checksum);
                    let _ = event.announced_checksum();
                    let _ = event.announced_version();
                    let _ = event.rotate_target(checksum);
                    let _ = event.heartbeat_v2_place(checksum);
                    let _ = event.query(checksum);
                    let _ = event.table_map(checksum);
                    let _ = event.rows_table_id(checksum);
                }
            }
        }
    }
}
