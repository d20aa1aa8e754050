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
        let frame = text.len() <= 10
            && [&b"BEGIN"[..], b"COMMIT", b"ROLLBACK"]
                .iter()
                .any(|word| text.eq_ignore_ascii_case(word));
        if frame || text.starts_with(b"XA ") || self.summary.statement.is_some() {
            self.summary.incomplete |= !frame && self.summary.statement.is_some();
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

/// A statement without the password hashes (`IDENTIFIED WITH ... AS '...'`) and passwords
/// (`PASSWORD '...'` of CREATE SERVER) in it: an index is shown and logged where data is not.
fn without_secrets(mut statement: String) -> String {
    for word in ["AS", "BY", "PASSWORD"] {
        let mut from = 0;
        while let Some((start, end)) = literal_behind(&statement, word, from) {
            statement.replace_range(start..end, "***");
            from = start + 3;
        }
    }
    statement
}

/// Where the content of the next string literal behind a keyword is, in a statement on accounts
/// or servers.
fn literal_behind(statement: &str, word: &str, from: usize) -> Option<(usize, usize)> {
    let upper = statement.to_ascii_uppercase();
    if !upper.contains("IDENTIFIED") && !upper.contains("SERVER") && !upper.contains("PASSWORD") {
        return None;
    }
    let bytes = statement.as_bytes();
    let mut at = from;
    while let Some(found) = upper.get(at..)?.find(word) {
        let start = at + found;
        at = start + word.len();
        let is_word = start > 0 && b" \t\r\n,(".contains(&bytes[start - 1]);
        let rest = &statement[at..];
        let open = at + (rest.len() - rest.trim_start().len());
        let Some(quote @ (b'\'' | b'"')) = bytes.get(open).copied() else {
            continue;
        };
        if !is_word {
            continue;
        }
        let mut end = open + 1;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'\\' => end += 2,
                byte if *byte == quote && bytes.get(end + 1) == Some(&quote) => end += 2,
                byte if *byte == quote => return Some((open + 1, end)),
                _ => end += 1,
            }
        }
        // Never closed: all of the rest may be the secret.
        return Some((open + 1, statement.len()));
    }
    None
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
    use super::without_secrets;

    #[test]
    fn password_hashes_and_passwords_are_left_out() {
        for (statement, expected) in [
            (
                r"CREATE USER 'ann'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$it''s \' secret' REQUIRE NONE",
                r"CREATE USER 'ann'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '***' REQUIRE NONE",
            ),
            (
                "ALTER USER a IDENTIFIED WITH 'x' as 'one' , b IDENTIFIED BY \"two\"",
                "ALTER USER a IDENTIFIED WITH 'x' as '***' , b IDENTIFIED BY \"***\"",
            ),
            (
                "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'ż', HOST 'h')",
                "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD '***', HOST 'h')",
            ),
            (
                "SET PASSWORD FOR a IDENTIFIED BY 'cut sho",
                "SET PASSWORD FOR a IDENTIFIED BY '***",
            ),
            (
                "CREATE TABLE t AS SELECT 'x' AS 'y'",
                "CREATE TABLE t AS SELECT 'x' AS 'y'",
            ),
            ("ALTER TABLE ż COMMENT 'as'", "ALTER TABLE ż COMMENT 'as'"),
        ] {
            assert_eq!(without_secrets(statement.to_owned()), expected);
        }
    }
}
