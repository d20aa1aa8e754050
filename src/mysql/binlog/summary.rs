//! What a transaction did, in short: its tables, its statement, its size.
//!
//! The summary is collected while the events go by and feeds the index of a segment, so that the
//! question "which transaction dropped it" needs no row data. Compressed payloads are looked into
//! with a bound on what they may unfold to; beyond the bound the summary says so.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::event::{Checksum, EventError, EventKind, RawEvent};
use super::gtid_event::GtidEvent;
use super::redact::without_secrets;
use crate::mysql::wire::packet::Fields;

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

/// A table that a transaction touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableTouch {
    /// `schema.table`.
    pub name: String,
    /// What was done to its rows, each once.
    pub operations: Vec<Operation>,
    /// The bytes of its row events.
    pub bytes: u64,
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
#[derive(Debug, Default)]
pub struct SummaryBuilder {
    summary: Summary,
    names: BTreeMap<u64, String>,
    touched: BTreeMap<String, (Vec<Operation>, u64)>,
}

impl SummaryBuilder {
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
        let operation = match event.kind() {
            EventKind::QUERY => {
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
                self.names.insert(id, name);
                return Ok(());
            }
            EventKind::TRANSACTION_PAYLOAD => return self.take_payload(event, checksum),
            EventKind::WRITE_ROWS | EventKind::WRITE_ROWS_V1 => Operation::Insert,
            EventKind::UPDATE_ROWS | EventKind::UPDATE_ROWS_V1 | EventKind::PARTIAL_UPDATE_ROWS => {
                Operation::Update
            }
            EventKind::DELETE_ROWS | EventKind::DELETE_ROWS_V1 => Operation::Delete,
            _ => return Ok(()),
        };
        // Rows whose table nobody announced (dummy events that end a statement) touch nothing.
        let Some(name) = self.names.get(&event.rows_table_id(checksum)?) else {
            return Ok(());
        };
        if self.touched.len() >= TABLE_LIMIT && !self.touched.contains_key(name) {
            self.summary.incomplete = true;
            return Ok(());
        }
        let (operations, bytes) = self.touched.entry(name.clone()).or_default();
        if !operations.contains(&operation) {
            operations.push(operation);
        }
        *bytes += u64::from(event.header().length);
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
        let malformed = |reason: &str| EventError::Malformed {
            kind: EventKind::TRANSACTION_PAYLOAD,
            reason: reason.to_owned(),
        };
        let (algorithm, payload) = split_payload(event.body(checksum)?)?;
        let mut reader: Box<dyn std::io::Read + '_> = match algorithm {
            // ZSTD and NONE of `mysql::binlog::event::compression::type`.
            0 => Box::new(
                zstd::stream::read::Decoder::with_buffer(payload)
                    .map_err(|e| malformed(&e.to_string()))?,
            ),
            255 => Box::new(payload),
            _ => return Err(malformed("unknown compression")),
        };
        let broken = |error: std::io::Error| malformed(&error.to_string());
        let mut head = [0; super::HEADER_LENGTH];
        let mut buffer = Vec::new();
        loop {
            if reader.read(&mut head[..1]).map_err(broken)? == 0 {
                return Ok(());
            }
            reader.read_exact(&mut head[1..]).map_err(broken)?;
            let length = u32::from_le_bytes([head[9], head[10], head[11], head[12]]) as usize;
            let rest = length
                .checked_sub(super::HEADER_LENGTH)
                .ok_or_else(|| malformed("an inner event is too short"))?;
            if length > INNER_EVENT_LIMIT {
                self.summary.incomplete = true;
                let rest = rest as u64;
                let skipped = std::io::copy(&mut reader.by_ref().take(rest), &mut std::io::sink())
                    .map_err(broken)?;
                if skipped < rest {
                    return Err(EventError::Truncated);
                }
                continue;
            }
            buffer.clear();
            buffer.extend_from_slice(&head);
            buffer.resize(length, 0);
            reader
                .read_exact(&mut buffer[super::HEADER_LENGTH..])
                .map_err(broken)?;
            let inner = RawEvent::new(&buffer)?;
            if inner.kind() == EventKind::TRANSACTION_PAYLOAD {
                return Err(malformed("a payload inside a payload"));
            }
            // Events inside a payload carry no checksum of their own.
            self.take(&inner, Checksum::None)?;
        }
    }

    /// The summary of what was taken.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.summary.tables = self
            .touched
            .into_iter()
            .map(|(name, (operations, bytes))| TableTouch {
                name,
                operations,
                bytes,
            })
            .collect();
        self.summary
    }
}

/// Whether a statement only holds a transaction together and does nothing by itself.
fn is_frame(text: &[u8]) -> bool {
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

/// The compression type and the bytes of a TRANSACTION_PAYLOAD event's body.
fn split_payload(body: &[u8]) -> Result<(u64, &[u8]), EventError> {
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

impl Summary {
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
