//! From events to a segment's bytes.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::block::{Block, Blocks, give_back, pack};
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
#[derive(Debug)]
pub struct Draft {
    /// The history.
    pub branch: BranchNumber,
    /// The claim.
    pub epoch: Epoch,
    /// The sequence number.
    pub sequence: u64,
    /// The last sequence number that a compacted segment stands for; none in a fresh one.
    pub stands_to: Option<u64>,
    /// The digest of the object before.
    pub previous: Option<Sha256>,
    /// Where an epoch's first segment goes on from.
    pub continues: Option<(Epoch, u64)>,
    /// What was accepted as lost between the object before and this one.
    pub gap: GtidSet,
    /// The digest of the last fresh object that a compacted one stands for.
    pub ends_with: Option<Sha256>,
    /// Every GTID before.
    pub before: GtidSet,
    /// The source's `server_uuid`, version and file, once something came.
    pub source: Option<(Uuid, String, String)>,
    /// The checksum behind the events.
    pub checksum: Checksum,
    /// The binlog file so far.
    blocks: Blocks,
    /// What of it is not events.
    head: Vec<u8>,
    /// Where the last whole transaction ends.
    settled: usize,
    added: GtidSet,
    /// One line of JSON a transaction.
    lines: Vec<u8>,
    transactions: u64,
    first_commit: Option<DateTime<Utc>>,
    last_commit: Option<DateTime<Utc>>,
    least_commit: Option<DateTime<Utc>>,
    tables: BTreeSet<String>,
    tables_incomplete: bool,
    statements: bool,
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
        let mut head = MAGIC.to_vec();
        if !format.is_empty() {
            head.extend_from_slice(format);
            let (timestamp, server_id) = head_fields(format);
            let builder = EventBuilder::new(checksum, server_id);
            let previous = builder.previous_gtids(&before, timestamp, head.len() as u64);
            head.extend_from_slice(&previous);
        }
        let (branch, epoch, sequence) = position;
        let mut draft = Self {
            branch,
            epoch,
            sequence,
            stands_to: None,
            previous: None,
            continues: None,
            gap: GtidSet::new(),
            ends_with: None,
            before,
            source: None,
            checksum,
            blocks: Blocks::default(),
            head,
            settled: 0,
            added: GtidSet::new(),
            lines: Vec::new(),
            transactions: 0,
            first_commit: None,
            last_commit: None,
            least_commit: None,
            tables: BTreeSet::new(),
            tables_incomplete: false,
            statements: false,
            server_ids: BTreeSet::new(),
            part: None,
        };
        draft.start_over();
        draft
    }

    fn start_over(&mut self) {
        self.blocks = Blocks::default();
        self.blocks.push(&self.head);
        self.settled = self.head.len();
    }

    /// Appends an event's bytes, which the caller has verified.
    pub fn push_event(&mut self, bytes: &[u8], server_id: u32) {
        self.blocks.push(bytes);
        self.server_ids.insert(server_id);
    }

    /// Notes that the transaction whose events were appended is whole.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Index`] if its line cannot be written.
    pub fn complete(&mut self, transaction: &IndexedTransaction) -> Result<(), SegmentError> {
        serde_json::to_writer(&mut self.lines, transaction).map_err(SegmentError::Index)?;
        self.lines.push(b'\n');
        self.added.insert(&transaction.gtid);
        self.transactions += 1;
        self.first_commit = self.first_commit.or(Some(transaction.time));
        self.last_commit = self.last_commit.max(Some(transaction.time));
        let least = self.least_commit.unwrap_or(transaction.time);
        self.least_commit = Some(least.min(transaction.time));
        let summary = &transaction.summary;
        self.tables_incomplete |= summary.incomplete;
        self.statements |= summary.statement.is_some();
        for table in &summary.tables {
            if self.tables.contains(&table.name) {
                continue;
            }
            if self.tables.len() < TABLE_LIMIT {
                self.tables.insert(table.name.clone());
            } else {
                self.tables_incomplete = true;
            }
        }
        self.settled = self.blocks.raw_bytes();
        if let Some(part) = &mut self.part {
            part.unfinished = false;
        }
        Ok(())
    }

    /// Forgets the transaction that has begun and will come again.
    pub fn forget_unfinished(&mut self) {
        if self.transactions == 0 {
            self.start_over();
            self.server_ids.clear();
        } else {
            self.blocks
                .split_off(self.settled)
                .into_iter()
                .for_each(give_back);
        }
        self.part = None;
    }

    /// Takes away the events of the transaction that has begun, which shall start in the next
    /// segment.
    #[must_use]
    pub fn split_off_unfinished(&mut self) -> Unfinished {
        Unfinished(self.blocks.split_off(self.settled))
    }

    /// Appends events that were taken away from the segment before.
    pub fn push_unfinished(&mut self, begun: Unfinished, server_id: u32) {
        for piece in begun.0 {
            self.push_event(&piece, server_id);
            // Memory so never holds them twice.
            give_back(piece);
        }
    }

    /// Gives out the next block that will not change any more, to be packed meanwhile: before
    /// [`Draft::encode`].
    pub fn seal(&mut self) -> Option<Block> {
        // Without a whole transaction all is forgotten at once or not at all.
        let settled = match self.transactions {
            0 => self.blocks.raw_bytes(),
            _ => self.settled,
        };
        self.blocks.seal(settled)
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
        self.raw_bytes() == self.head.len()
    }

    /// The bytes of the binlog file so far.
    #[must_use]
    pub const fn raw_bytes(&self) -> usize {
        self.blocks.raw_bytes()
    }

    /// The GTIDs completed so far.
    #[must_use]
    pub const fn added(&self) -> &GtidSet {
        &self.added
    }

    /// How many transactions were completed so far.
    #[must_use]
    pub const fn transactions(&self) -> u64 {
        self.transactions
    }

    /// The commit time of the newest transaction so far.
    #[must_use]
    pub const fn last_commit(&self) -> Option<DateTime<Utc>> {
        self.last_commit
    }

    /// Packs what is left, hashes, and makes the object.
    ///
    /// `level` is zstd's; `complete_to` and `written` go into the index.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NotTheSame`] if the bytes do not survive the trip,
    /// [`SegmentError::IndexTooLarge`] if no reader would take the index.
    pub fn encode(
        mut self,
        level: i32,
        complete_to: Option<DateTime<Utc>>,
        written: DateTime<Utc>,
    ) -> Result<EncodedSegment, SegmentError> {
        let mut packed = std::mem::take(&mut self.blocks).finish(level)?;
        let lines = pack(&std::mem::take(&mut self.lines), level)?;
        let details = skippable(DETAILS_MAGIC, &lines);
        give_back(lines);
        let (details_bytes, details_sha256) = (details.len() as u64, sha256(&details));
        packed.bytes.reserve_exact(details.len());
        packed.bytes.extend_from_slice(&details);
        let mut bytes = packed.bytes;
        let (body_bytes, body_sha256) = (bytes.len() as u64, sha256(&bytes));
        let compacted = self.stands_to.is_some();
        let index = SegmentIndex {
            format: FORMAT,
            branch: self.branch,
            epoch: self.epoch,
            first_sequence: self.sequence,
            last_sequence: self.stands_to.unwrap_or(self.sequence),
            previous: self.previous,
            continues: self.continues,
            gap: self.gap,
            ends_with: self.ends_with,
            source: self.source.map(|(uuid, version, file)| SegmentSource {
                uuid,
                version,
                file,
                server_ids: self.server_ids.into_iter().collect(),
            }),
            checksum: self.checksum,
            before: self.before,
            added: self.added,
            transactions: self.transactions,
            first_commit: self.first_commit,
            last_commit: self.last_commit,
            least_commit: self.least_commit,
            complete_to,
            part: self.part,
            tables: self.tables.into_iter().collect(),
            tables_incomplete: self.tables_incomplete,
            statements: self.statements,
            raw_bytes: packed.raw_bytes,
            raw_sha256: packed.raw_sha256,
            body_bytes,
            body_sha256,
            details_bytes,
            details_sha256,
            written,
        };
        let head = index_frame(&index)?;
        bytes.reserve_exact(head.len());
        // Moved within its own memory, which so never holds the segment twice.
        drop(bytes.splice(0..0, head));
        let sha256 = sha256(&bytes);
        Ok(EncodedSegment {
            name: SegmentName {
                branch: index.branch,
                epoch: index.epoch,
                first: index.first_sequence,
                last: index.last_sequence,
                hash8: sha256.short(),
                compacted,
            },
            index,
            sha256,
            bytes,
        })
    }
}

fn index_frame(index: &SegmentIndex) -> Result<Vec<u8>, SegmentError> {
    let mut content = SIGNATURE.to_vec();
    serde_json::to_writer(&mut content, index).map_err(SegmentError::Index)?;
    let digest = sha256(&content);
    content.extend_from_slice(digest.as_bytes());
    if content.len() > INDEX_LIMIT {
        return Err(SegmentError::IndexTooLarge {
            bytes: content.len(),
        });
    }
    Ok(skippable(INDEX_MAGIC, &content))
}

/// The events of a transaction that moves on to the next segment.
#[derive(Debug)]
pub struct Unfinished(Vec<Vec<u8>>);

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
