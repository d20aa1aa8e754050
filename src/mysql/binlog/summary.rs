//! What a transaction did, in short: its tables, its statement, its size.
//!
//! The summary is collected while the events go by and feeds the index of a segment, so that the
//! question "which transaction dropped it" needs no row data. Compressed payloads are looked into
//! with a bound on what they may unfold to; beyond the bound the summary says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{Checksum, EventError, EventKind, RawEvent};
use super::gtid_event::GtidEvent;
use super::payload::{Inner, PayloadEvents};
use super::redact::without_secrets;
use super::rows::{Layout, RowsEvent};

/// Statement texts are kept up to this many bytes.
const STATEMENT_LIMIT: usize = 2_000;
/// Tables of one transaction are kept up to this many.
const TABLE_LIMIT: usize = 200;
/// The largest single event that is looked into inside a compressed payload.
const INNER_EVENT_LIMIT: usize = 32 << 20;

/// What was done to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Rows were inserted.
    Insert,
    /// Rows were updated.
    Update,
    /// Rows were deleted.
    Delete,
}

impl Operation {
    /// What an event of rows does to them; `None` for another event.
    #[must_use]
    pub const fn of(kind: EventKind) -> Option<Self> {
        Some(match kind {
            EventKind::WRITE_ROWS | EventKind::WRITE_ROWS_V1 => Self::Insert,
            EventKind::UPDATE_ROWS | EventKind::UPDATE_ROWS_V1 | EventKind::PARTIAL_UPDATE_ROWS => {
                Self::Update
            }
            EventKind::DELETE_ROWS | EventKind::DELETE_ROWS_V1 => Self::Delete,
            _ => return None,
        })
    }
}

/// How many rows were inserted, updated and deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows inserted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub insert: u64,
    /// Rows updated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub update: u64,
    /// Rows deleted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delete: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RowCounts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.insert
            .saturating_add(self.update)
            .saturating_add(self.delete)
    }

    /// Adds rows.
    pub const fn add(&mut self, operation: Operation, rows: u64) {
        let counter = match operation {
            Operation::Insert => &mut self.insert,
            Operation::Update => &mut self.update,
            Operation::Delete => &mut self.delete,
        };
        *counter = counter.saturating_add(rows);
    }
}

/// A table that a transaction touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTouch {
    /// `schema.table`.
    pub name: String,
    /// What was done to its rows, each once.
    pub operations: Vec<Operation>,
    /// The bytes of its row events.
    pub bytes: u64,
    /// How many rows; none if whoever archived it did not count them, or could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
}

/// What a transaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The tables whose rows it changed, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableTouch>,
    /// The statement, if it was logged as one (DDL, accounts, statement format), cut at 2,000
    /// bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// The default schema of the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Whether there was more than this summary holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// Collects a [`Summary`] from events.
#[derive(Debug)]
pub struct SummaryBuilder {
    summary: Summary,
    table_limit: usize,
    inner_limit: usize,
    /// Names and columns of the tables that were announced; no columns where they make no sense.
    announced: BTreeMap<u64, (String, Option<Layout>)>,
    touched: BTreeMap<String, Touch>,
    /// Whether rows went by that were too large to be looked at.
    is_uncounted: bool,
}

/// What a table has seen so far.
#[derive(Debug)]
struct Touch {
    operations: Vec<Operation>,
    bytes: u64,
    rows: Option<RowCounts>,
}

impl Default for SummaryBuilder {
    fn default() -> Self {
        Self {
            summary: Summary::default(),
            table_limit: TABLE_LIMIT,
            inner_limit: INNER_EVENT_LIMIT,
            announced: BTreeMap::new(),
            touched: BTreeMap::new(),
            is_uncounted: false,
        }
    }
}

impl SummaryBuilder {
    /// Keeps every table of a transaction, and looks into events of any size.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            table_limit: usize::MAX,
            inner_limit: usize::MAX,
            ..Self::default()
        }
    }

    /// Starts with a transaction's first event.
    #[must_use]
    pub fn begin(_first: &GtidEvent) -> Self {
        Self::default()
    }

    /// Takes the next event of the transaction.
    ///
    /// # Errors
    ///
    /// [`EventError`] if the event's bytes make no sense.
    pub fn take(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), EventError> {
        match event.kind() {
            EventKind::QUERY | EventKind::EXECUTE_LOAD_QUERY => {
                let (schema, text) = event.query(checksum)?;
                self.take_statement(schema, text);
                return Ok(());
            }
            EventKind::TABLE_MAP => {
                let (id, schema, table) = event.table_map(checksum)?;
                let name = format!(
                    "{}.{}",
                    String::from_utf8_lossy(schema),
                    String::from_utf8_lossy(table)
                );
                // Rows that cannot be counted are archived all the same.
                let layout = Layout::parse(event, checksum).ok();
                self.announced.insert(id, (name, layout));
                return Ok(());
            }
            EventKind::TRANSACTION_PAYLOAD => return self.take_payload(event, checksum),
            _ => {}
        }
        let Some(operation) = Operation::of(event.kind()) else {
            return Ok(());
        };
        // Rows whose table nobody announced (dummy events that end a statement) touch nothing.
        let Some((name, layout)) = self.announced.get(&event.rows_table_id(checksum)?) else {
            return Ok(());
        };
        if self.touched.len() >= self.table_limit && !self.touched.contains_key(name) {
            self.summary.incomplete = true;
            return Ok(());
        }
        let rows = layout.as_ref().and_then(|layout| {
            let event = RowsEvent::parse(event, checksum).ok()??;
            event.count(layout).ok()
        });
        if !self.touched.contains_key(name) {
            let touch = Touch {
                operations: Vec::new(),
                bytes: 0,
                rows: Some(RowCounts::default()),
            };
            self.touched.insert(name.clone(), touch);
        }
        if let Some(touch) = self.touched.get_mut(name) {
            if !touch.operations.contains(&operation) {
                touch.operations.push(operation);
            }
            touch.bytes += u64::from(event.header().length);
            match (&mut touch.rows, rows) {
                (Some(counts), Some(rows)) => counts.add(operation, rows),
                (counts, _) => *counts = None,
            }
        }
        Ok(())
    }

    fn take_statement(&mut self, schema: &[u8], text: &[u8]) {
        if is_frame(text) {
            return;
        }
        if self.summary.statement.is_some() {
            self.summary.incomplete = true;
            return;
        }
        let mut kept = without_secrets(String::from_utf8_lossy(text).into_owned());
        if kept.len() > STATEMENT_LIMIT {
            let cut = (0..=STATEMENT_LIMIT)
                .rev()
                .find(|at| kept.is_char_boundary(*at))
                .unwrap_or(0);
            kept.truncate(cut);
            self.summary.incomplete = true;
        }
        self.summary.statement = Some(kept);
        self.summary.schema =
            (!schema.is_empty()).then(|| String::from_utf8_lossy(schema).into_owned());
    }

    fn take_payload(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), EventError> {
        let mut events = PayloadEvents::open(event, checksum, self.inner_limit)?;
        while let Some(inner) = events.next_event()? {
            match inner {
                Inner::Event(inner) => self.take(&inner, Checksum::None)?,
                Inner::TooLarge(kind) => {
                    self.summary.incomplete = true;
                    self.is_uncounted |= Operation::of(kind).is_some();
                }
            }
        }
        Ok(())
    }

    /// The summary of what was taken.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.summary.tables = self
            .touched
            .into_iter()
            .map(|(name, touch)| TableTouch {
                name,
                operations: touch.operations,
                bytes: touch.bytes,
                rows: touch.rows.filter(|_| !self.is_uncounted),
            })
            .collect();
        self.summary
    }
}

/// Whether a statement only holds a transaction together and does nothing by itself.
#[must_use]
pub fn is_frame(text: &[u8]) -> bool {
    let starts_with = |words: &str| {
        text.get(..words.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(words.as_bytes()))
    };
    ["BEGIN", "COMMIT", "ROLLBACK"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        || ["XA ", "SAVEPOINT ", "ROLLBACK TO ", "RELEASE SAVEPOINT "]
            .iter()
            .any(|words| starts_with(words))
}

impl Summary {
    /// How many rows it changed in all; none if that is not known of each table.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        if self.incomplete && self.statement.is_none() {
            return None;
        }
        let counts = self.tables.iter().map(|table| table.rows);
        counts
            .map(|counts| counts.map(|counts| counts.total()))
            .try_fold(0_u64, |sum, rows| Some(sum.saturating_add(rows?)))
    }

    /// What happened, in a few words on one line.
    #[must_use]
    pub fn brief(&self) -> String {
        if let Some(statement) = &self.statement {
            let mut words: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
            if let Some((cut, _)) = words.char_indices().nth(100) {
                words.truncate(cut);
                words.push_str("...");
            }
            return words;
        }
        if self.tables.is_empty() {
            return "no rows".to_owned();
        }
        let mut parts: Vec<String> = self
            .tables
            .iter()
            .take(4)
            .map(|table| {
                let operations: Vec<&str> = table
                    .operations
                    .iter()
                    .map(|operation| match operation {
                        Operation::Insert => "insert",
                        Operation::Update => "update",
                        Operation::Delete => "delete",
                    })
                    .collect();
                format!("{} {}", operations.join("+"), table.name)
            })
            .collect();
        if self.tables.len() > parts.len() {
            parts.push(format!("{} more tables", self.tables.len() - parts.len()));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::testing::{SourceLog, Work};

    /// The summary of a transaction that does this.
    fn summary(work: &Work) -> Result<Summary, EventError> {
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
            .parse()
            .expect("a GTID");
        let checksum = Checksum::Crc32;
        let events = SourceLog::new(checksum, 7).transaction(&gtid, (1, 1), work);
        let first = RawEvent::new(&events[0])?;
        let mut builder = SummaryBuilder::begin(&GtidEvent::parse(&first, checksum)?);
        for event in &events {
            builder.take(&RawEvent::new(event)?, checksum)?;
        }
        Ok(builder.finish())
    }

    fn statement(text: &str) -> Summary {
        summary(&Work::Statement("shop", text.to_owned())).expect("a summary")
    }

    #[test]
    fn a_compressed_transaction_tells_what_a_plain_one_tells() {
        let rows = vec![
            ("shop.page", vec![1; 100]),
            ("a`b.c d", vec![]),
            ("shop.page", vec![2; 50]),
        ];
        let plain = summary(&Work::Rows(rows.clone())).expect("a summary");
        let names: Vec<_> = plain.tables.iter().map(|table| &table.name[..]).collect();
        assert_eq!(names, ["a`b.c d", "shop.page"]);
        assert_eq!(plain.tables[1].operations, [Operation::Insert]);
        assert_eq!((plain.statement, plain.incomplete), (None, false));
        let xa = summary(&Work::XaPrepare(rows.clone())).expect("a summary");
        assert_eq!((xa.tables, xa.statement), (plain.tables.clone(), None));
        for compressed in [false, true] {
            let packed = summary(&Work::Payload(rows.clone(), compressed)).expect("a summary");
            // Inside a payload events have no checksums of four bytes.
            let bytes: Vec<_> = packed.tables.iter().map(|table| table.bytes).collect();
            assert_eq!(
                bytes,
                [plain.tables[0].bytes - 4, plain.tables[1].bytes - 8]
            );
            assert_eq!(packed.tables.len(), plain.tables.len());
        }
    }

    #[test]
    fn statements_are_kept_and_the_frame_is_not() {
        let ddl = statement("DROP TABLE page");
        assert_eq!(ddl.statement.as_deref(), Some("DROP TABLE page"));
        assert_eq!(ddl.schema.as_deref(), Some("shop"));
        for frame in [
            "BEGIN",
            "commit",
            "XA START X'61',X'',1",
            "SAVEPOINT `a`",
            "ROLLBACK TO `a`",
        ] {
            assert_eq!(statement(frame), Summary::default(), "{frame}");
        }
        assert!(statement("BEGINNING").statement.is_some());
    }

    #[test]
    fn what_is_too_much_is_left_out_and_said() {
        // The cut falls inside a character.
        let long = format!("a{}", "\u{e9}".repeat(STATEMENT_LIMIT));
        let cut = statement(&long);
        assert!(cut.incomplete);
        let kept = cut.statement.expect("a statement");
        assert_eq!(kept.len(), STATEMENT_LIMIT - 1);
        assert!(long.starts_with(&kept));

        let names: Vec<&'static str> = (0..TABLE_LIMIT + 1)
            .map(|n| &*Box::leak(format!("a.t{n}").into_boxed_str()))
            .collect();
        let rows = |count: usize| names[..count].iter().map(|name| (*name, vec![1])).collect();
        let all = summary(&Work::Rows(rows(TABLE_LIMIT))).expect("a summary");
        assert_eq!((all.tables.len(), all.incomplete), (TABLE_LIMIT, false));
        let most = summary(&Work::Rows(rows(TABLE_LIMIT + 1))).expect("a summary");
        assert_eq!((most.tables.len(), most.incomplete), (TABLE_LIMIT, true));

        let huge = vec![0; INNER_EVENT_LIMIT + 1];
        let work = Work::Payload(vec![("a.t", huge), ("b.u", vec![1])], true);
        let without = summary(&work).expect("a summary");
        assert!(without.incomplete);
        assert_eq!(without.tables.len(), 1);
        assert_eq!(without.tables[0].name, "b.u");
    }

    #[test]
    fn a_broken_payload_is_an_error() {
        let checksum = Checksum::None;
        let mut log = SourceLog::new(checksum, 7);
        let inner = [0, 0, 0, 0, 40, 0, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for body in [
            &[][..],
            // No end of the fields.
            &[2, 1, 0],
            // An unknown compression.
            &[2, 1, 7, 0, 1, 2, 3],
            // Not compressed, and more bytes said than there are.
            &[2, 3, 0xfc, 255, 0, 1, 1, 9, 0, 1, 2, 3],
            // Half an event; an event shorter than its header; a payload inside a payload.
            &[&[2, 3, 0xfc, 255, 0, 0][..], &inner[..10]].concat(),
            &[
                &[2, 3, 0xfc, 255, 0, 0][..],
                &[1; 9],
                &[5, 0, 0, 0],
                &[0; 6],
            ]
            .concat(),
            &[&[2, 3, 0xfc, 255, 0, 0][..], &inner].concat(),
            // Said to be zstd.
            &[2, 1, 0, 0, 1, 2, 3],
        ] {
            let event = log.event(1, &(EventKind::TRANSACTION_PAYLOAD, body.to_vec()));
            let event = RawEvent::new(&event).expect("well formed");
            let taken = SummaryBuilder::default().take(&event, checksum);
            assert!(taken.is_err(), "{body:?}");
        }
    }
}
