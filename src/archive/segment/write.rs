//! From events to a segment's bytes.

use std::collections::BTreeSet;
use std::io::Read as _;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    DETAILS_MAGIC, FORMAT, INDEX_LIMIT, INDEX_MAGIC, IndexedTransaction, Part, SIGNATURE,
    SegmentError, SegmentIndex, SegmentSource,
};
use crate::archive::hash::{Sha256, sha256};
use crate::archive::layout::{BranchNumber, Epoch, SegmentName};
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Checksum, EventBuilder, MAGIC};

/// The index names up to this many tables.
const TABLE_LIMIT: usize = 500;

/// A segment that is being filled.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The history.
    pub branch: BranchNumber,
    /// The claim.
    pub epoch: Epoch,
    /// The sequence number.
    pub sequence: u64,
    /// The digest of the object before.
    pub previous: Option<Sha256>,
    /// Where an epoch's first segment goes on from.
    pub continues: Option<(Epoch, u64)>,
    /// Every GTID before.
    pub before: GtidSet,
    /// The source's `server_uuid`, version and file, once something came.
    pub source: Option<(Uuid, String, String)>,
    /// The checksum behind the events.
    pub checksum: Checksum,
    /// The binlog file so far.
    raw: Vec<u8>,
    /// The length of what is not events.
    head: usize,
    added: GtidSet,
    transactions: Vec<IndexedTransaction>,
    server_ids: BTreeSet<u32>,
    part: Option<Part>,
}

impl Draft {
    /// Starts a segment with the source's FORMAT_DESCRIPTION event, as it came.
    ///
    /// A segment that only says that nothing happened may have none (`format` empty).
    #[must_use]
    pub fn begin(
        position: (BranchNumber, Epoch, u64),
        before: GtidSet,
        checksum: Checksum,
        format: &[u8],
    ) -> Self {
        let mut raw = MAGIC.to_vec();
        if !format.is_empty() {
            raw.extend_from_slice(format);
            let (timestamp, server_id) = head_fields(format);
            let builder = EventBuilder::new(checksum, server_id);
            let previous = builder.previous_gtids(&before, timestamp, raw.len() as u64);
            raw.extend_from_slice(&previous);
        }
        let (branch, epoch, sequence) = position;
        Self {
            branch,
            epoch,
            sequence,
            previous: None,
            continues: None,
            before,
            source: None,
            checksum,
            head: raw.len(),
            raw,
            added: GtidSet::new(),
            transactions: Vec::new(),
            server_ids: BTreeSet::new(),
            part: None,
        }
    }

    /// Appends an event's bytes, which the caller has verified.
    pub fn push_event(&mut self, bytes: &[u8], server_id: u32) {
        self.raw.extend_from_slice(bytes);
        self.server_ids.insert(server_id);
    }

    /// Notes that the transaction whose events were appended is whole.
    pub fn complete(&mut self, transaction: IndexedTransaction) {
        self.added.insert(&transaction.gtid);
        self.transactions.push(transaction);
        if let Some(part) = &mut self.part {
            part.unfinished = false;
        }
    }

    /// Forgets the events behind the first `raw_bytes` bytes: those of a transaction that will
    /// come again.
    pub fn truncate(&mut self, raw_bytes: usize) {
        self.raw.truncate(raw_bytes.max(self.head));
        self.part = None;
    }

    /// Takes away the events behind the first `raw_bytes` bytes: those of a transaction that
    /// shall start in the next segment.
    #[must_use]
    pub fn split_off(&mut self, raw_bytes: usize) -> Vec<u8> {
        let at = raw_bytes.clamp(self.head, self.raw.len());
        self.raw.split_off(at)
    }

    /// Says that the segment starts or ends inside a transaction.
    pub fn set_part(&mut self, part: Part) {
        self.part = Some(part);
    }

    /// The part of a transaction that it holds, if it is not made of whole ones.
    #[must_use]
    pub const fn part(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// Whether no event was appended.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.raw.len() == self.head
    }

    /// The bytes of the binlog file so far.
    #[must_use]
    pub const fn raw_bytes(&self) -> usize {
        self.raw.len()
    }

    /// The GTIDs completed so far.
    #[must_use]
    pub const fn added(&self) -> &GtidSet {
        &self.added
    }

    /// How many transactions were completed so far.
    #[must_use]
    pub const fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// The commit time of the newest transaction so far.
    #[must_use]
    pub fn last_commit(&self) -> Option<DateTime<Utc>> {
        self.transactions.iter().map(|line| line.time).max()
    }

    /// Compresses, hashes, reads back and compares.
    ///
    /// `level` is zstd's; `complete_to` and `written` go into the index.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotTheSame`] if the bytes do not survive the trip,
    /// [`SegmentError::IndexTooLarge`] if no reader would take the index.
    pub fn encode(
        self,
        level: i32,
        complete_to: Option<DateTime<Utc>>,
        written: DateTime<Utc>,
    ) -> Result<EncodedSegment, SegmentError> {
        let compressed =
            zstd::bulk::compress(&self.raw, level).map_err(SegmentError::Compression)?;
        if !decompresses_to(&compressed, &self.raw) {
            return Err(SegmentError::NotTheSame);
        }
        let details = self.details_frame(level)?;
        let mut body = compressed;
        body.extend_from_slice(&details);
        let index = self.index(&body, &details, complete_to, written);
        let json = serde_json::to_vec(&index).map_err(SegmentError::Index)?;
        let mut content = SIGNATURE.to_vec();
        content.extend_from_slice(&json);
        let digest = sha256(&content);
        content.extend_from_slice(digest.as_bytes());
        if content.len() > INDEX_LIMIT {
            return Err(SegmentError::IndexTooLarge {
                bytes: content.len(),
            });
        }
        let mut bytes = skippable(INDEX_MAGIC, &content);
        bytes.extend_from_slice(&body);
        let sha256 = sha256(&bytes);
        Ok(EncodedSegment {
            name: SegmentName {
                branch: index.branch,
                epoch: index.epoch,
                first: index.first_sequence,
                last: index.last_sequence,
                hash8: sha256.short(),
                compacted: false,
            },
            index,
            sha256,
            bytes,
        })
    }

    fn details_frame(&self, level: i32) -> Result<Vec<u8>, SegmentError> {
        let mut lines = Vec::new();
        for transaction in &self.transactions {
            serde_json::to_writer(&mut lines, transaction).map_err(SegmentError::Index)?;
            lines.push(b'\n');
        }
        let compressed = zstd::bulk::compress(&lines, level).map_err(SegmentError::Compression)?;
        Ok(skippable(DETAILS_MAGIC, &compressed))
    }

    fn index(
        &self,
        body: &[u8],
        details: &[u8],
        complete_to: Option<DateTime<Utc>>,
        written: DateTime<Utc>,
    ) -> SegmentIndex {
        let mut tables = BTreeSet::new();
        let mut tables_incomplete = false;
        let mut statements = false;
        for line in &self.transactions {
            tables_incomplete |= line.summary.incomplete;
            statements |= line.summary.statement.is_some();
            for table in &line.summary.tables {
                if tables.len() < TABLE_LIMIT || tables.contains(&table.name) {
                    tables.insert(table.name.clone());
                } else {
                    tables_incomplete = true;
                }
            }
        }
        SegmentIndex {
            format: FORMAT,
            branch: self.branch,
            epoch: self.epoch,
            first_sequence: self.sequence,
            last_sequence: self.sequence,
            previous: self.previous,
            continues: self.continues,
            gap: GtidSet::new(),
            ends_with: None,
            source: self
                .source
                .clone()
                .map(|(uuid, version, file)| SegmentSource {
                    uuid,
                    version,
                    file,
                    server_ids: self.server_ids.iter().copied().collect(),
                }),
            checksum: self.checksum,
            before: self.before.clone(),
            added: self.added.clone(),
            transactions: self.transactions.len() as u64,
            first_commit: self.transactions.first().map(|line| line.time),
            last_commit: self.last_commit(),
            complete_to,
            part: self.part.clone(),
            tables: tables.into_iter().collect(),
            tables_incomplete,
            statements,
            raw_bytes: self.raw.len() as u64,
            raw_sha256: sha256(&self.raw),
            body_bytes: body.len() as u64,
            body_sha256: sha256(body),
            details_bytes: details.len() as u64,
            details_sha256: sha256(details),
            written,
        }
    }
}

/// A segment, ready to be stored.
#[derive(Debug, Clone)]
pub struct EncodedSegment {
    /// Its name, which carries the start of its digest.
    pub name: SegmentName,
    /// Its index.
    pub index: SegmentIndex,
    /// The object's digest, which the next segment repeats.
    pub sha256: Sha256,
    /// The object.
    pub bytes: Vec<u8>,
}

/// The time and the server of a format event, for the event that is built to stand behind it.
fn head_fields(format: &[u8]) -> (u32, u32) {
    let at = |offset: usize| {
        format
            .get(offset..offset + 4)
            .and_then(|four| four.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    };
    (at(0), at(5))
}

fn skippable(magic: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + content.len());
    frame.extend_from_slice(&magic);
    // Contents are bounded far below 4 GiB: an index by its limits, lines by the segment's size.
    frame.extend_from_slice(&content.len().to_le_bytes()[..4]);
    frame.extend_from_slice(content);
    frame
}

/// Whether `compressed` unfolds to exactly `raw`, without holding a second copy of it.
fn decompresses_to(compressed: &[u8], raw: &[u8]) -> bool {
    let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(compressed) else {
        return false;
    };
    let mut rest = raw;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return rest.is_empty(),
            Ok(n) => match rest.split_at_checked(n) {
                Some((head, tail)) if head == &buffer[..n] => rest = tail,
                _ => return false,
            },
            Err(_) => return false,
        }
    }
}
