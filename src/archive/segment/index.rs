//! What a segment says of itself without being decompressed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::hash::Sha256;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{Checksum, Summary, TableTouch};

/// The index of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentIndex {
    /// The format's number.
    pub format: u32,
    /// The history that it belongs to.
    pub branch: BranchNumber,
    /// The claim under which it was written.
    pub epoch: Epoch,
    /// The first sequence number that it holds.
    pub first_sequence: u64,
    /// The last one.
    pub last_sequence: u64,
    /// The SHA-256 of the object before `first_sequence`; none at the start of a history.
    pub previous: Option<Sha256>,
    /// Where an epoch's first segment goes on from: the last segment before it that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<(Epoch, u64)>,
    /// The GTIDs of `before` that no segment holds and that somebody has accepted as lost: they
    /// lie between the end of the segment before and this one.
    #[serde(default, skip_serializing_if = "GtidSet::is_empty")]
    pub gap: GtidSet,
    /// In a compacted segment, the SHA-256 of the last fresh object that it stands for: what the
    /// segment behind it repeats as `previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<Sha256>,
    /// The server that sent the events; none if nothing came yet.
    pub source: Option<SegmentSource>,
    /// The checksum behind the events.
    pub checksum: Checksum,
    /// Every GTID of the history before this segment.
    pub before: GtidSet,
    /// The GTIDs that this segment completes.
    pub added: GtidSet,
    /// How many transactions it completes.
    pub transactions: u64,
    /// The first transaction's commit time on the source, in its order.
    #[serde(with = "crate::clock::micros_option")]
    pub first_commit: Option<DateTime<Utc>>,
    /// The greatest commit time on the source among its transactions.
    #[serde(with = "crate::clock::micros_option")]
    pub last_commit: Option<DateTime<Utc>>,
    /// The least commit time; `first_commit` may be greater if the source's clock was set back.
    /// None in segments of versions that did not tell it.
    #[serde(
        default,
        with = "crate::clock::micros_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub least_commit: Option<DateTime<Utc>>,
    /// Up to which moment of the source's clock the history is complete with this segment.
    #[serde(with = "crate::clock::micros_option")]
    pub complete_to: Option<DateTime<Utc>>,
    /// Set if the segment ends or starts inside a transaction too large for one segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The tables whose rows changed, `schema.table`, sorted; empty and `tables_incomplete` if
    /// there were too many.
    pub tables: Vec<String>,
    /// Whether `tables` leaves some out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tables_incomplete: bool,
    /// Whether it holds a statement (DDL, accounts, statement format).
    pub statements: bool,
    /// The length of the binlog file inside, in bytes.
    pub raw_bytes: u64,
    /// Its SHA-256.
    pub raw_sha256: Sha256,
    /// The bytes behind the index frame.
    pub body_bytes: u64,
    /// Their SHA-256.
    pub body_sha256: Sha256,
    /// The bytes at the object's end that hold the frame with the transactions' lines.
    pub details_bytes: u64,
    /// The SHA-256 of that frame, so that it can be read alone.
    pub details_sha256: Sha256,
    /// When it was written, by the streamer's clock.
    #[serde(with = "crate::clock::micros")]
    pub written: DateTime<Utc>,
}

/// Where the events came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSource {
    /// `server_uuid`.
    pub uuid: Uuid,
    /// `@@version` by the file's FORMAT_DESCRIPTION event.
    pub version: String,
    /// The source's binlog file. Its name says nothing about order across servers; within one
    /// server it tells where the logical clock of the transactions starts anew.
    pub file: String,
    /// Every `server_id` among the events, sorted.
    pub server_ids: Vec<u32>,
}

/// A piece of a transaction that spans segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The transaction.
    pub gtid: Gtid,
    /// Whether the segment starts inside it.
    pub continued: bool,
    /// Whether the segment ends inside it; then the next segment goes on.
    pub unfinished: bool,
}

/// The line of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Line")]
pub struct IndexedTransaction {
    /// Its identity.
    pub gtid: Gtid,
    /// Its commit time on the source of this binlog.
    #[serde(with = "crate::clock::micros")]
    pub time: DateTime<Utc>,
    /// Its commit time on the server where it began; none if unknown.
    #[serde(with = "crate::clock::micros_option")]
    pub original_time: Option<DateTime<Utc>>,
    /// `server_id` of the server where it began.
    pub server_id: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it did.
    #[serde(flatten)]
    pub summary: Summary,
}

/// A line as it is read: without the detour that serde takes for flattened fields, which costs more
/// than all the rest where a log has millions of lines.
#[derive(Deserialize)]
struct Line {
    gtid: Gtid,
    #[serde(with = "crate::clock::micros")]
    time: DateTime<Utc>,
    #[serde(with = "crate::clock::micros_option")]
    original_time: Option<DateTime<Utc>>,
    server_id: u32,
    bytes: u64,
    #[serde(default)]
    tables: Vec<TableTouch>,
    #[serde(default)]
    statement: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    incomplete: bool,
}

impl From<Line> for IndexedTransaction {
    fn from(line: Line) -> Self {
        Self {
            gtid: line.gtid,
            time: line.time,
            original_time: line.original_time,
            server_id: line.server_id,
            bytes: line.bytes,
            summary: Summary {
                tables: line.tables,
                statement: line.statement,
                schema: line.schema,
                incomplete: line.incomplete,
            },
        }
    }
}

impl SegmentIndex {
    /// Every GTID of the history up to the end of this segment.
    #[must_use]
    pub fn after(&self) -> GtidSet {
        self.before.union(&self.added)
    }

    /// Whether the segment holds no event at all: it says only that nothing happened.
    #[must_use]
    pub const fn is_silence(&self) -> bool {
        self.transactions == 0 && self.part.is_none()
    }
}
