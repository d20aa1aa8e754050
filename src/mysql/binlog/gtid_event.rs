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
