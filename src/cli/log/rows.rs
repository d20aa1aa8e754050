//! The rows of transactions, as `mysqlbinlog -v` shows them.
//!
//! Events are shown as they come out of the segments, so memory holds an event and what is shown of it,
//! whatever the size of the transaction.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::super::context::Context;
use super::super::render;
use super::Place;
use super::show::{Page, json as document};
use crate::archive::history::History;
use crate::archive::repository::Repository;
use crate::archive::search::Filter;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::rows::{Image, Row, RowsEvent, TableMap, Value};
use crate::mysql::binlog::{
    Checksum, EventKind, Inner, Operation, PayloadEvents, RawEvent, is_frame, without_secrets,
};
use crate::mysql::quote::{identifier, qualified};
use crate::restore::feed::{Step, Walk};

/// A value of more bytes is cut.
const VALUE_LIMIT: usize = 256;
/// A statement of more bytes is cut.
const STATEMENT_LIMIT: usize = 16 << 10;
/// What is to be printed is printed once it is so long.
const PRINT_AT: usize = 64 << 10;

/// How much of a value and of a statement is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    value: usize,
    statement: usize,
}

impl Limits {
    pub(super) const fn new(is_full: bool) -> Self {
        match is_full {
            true => Self {
                value: usize::MAX,
                statement: usize::MAX,
            },
            false => Self {
                value: VALUE_LIMIT,
                statement: STATEMENT_LIMIT,
            },
        }
    }
}

/// What rows are shown of.
pub(super) struct RowsOf<'a> {
    pub(super) repository: &'a Repository,
    pub(super) history: &'a History,
    pub(super) filter: &'a Filter,
    pub(super) limits: Limits,
}

impl RowsOf<'_> {
    /// Shows transactions with their rows.
    pub(super) async fn show(
        self,
        context: &Context,
        page: &mut Page,
        places: &[Place],
    ) -> anyhow::Result<()> {
        let mut set = GtidSet::new();
        let mut known: BTreeMap<&Gtid, &Place> = BTreeMap::new();
        for place in places {
            set.insert(&place.1.gtid);
            known.insert(&place.1.gtid, place);
        }
        let mut walk = Walk::new(self.repository, self.history, set);
        let mut sheet = Sheet {
            filter: self.filter,
            limits: self.limits,
            json: context.json,
            gtid: None,
            tables: BTreeMap::new(),
            left_out: 0,
            out: String::new(),
            unread: false,
        };
        while let Some(step) = walk.next().await? {
            match step {
                Step::Begins(first) => {
                    sheet.close();
                    if let Some((member, transaction)) = known.get(&first.gtid) {
                        page.transaction(self.history, member, transaction, false, &mut sheet.out);
                    }
                    sheet.gtid = Some(first.gtid);
                }
                Step::Inside(event, checksum) => sheet.event(&event, checksum)?,
            }
            if sheet.is_unread() {
                return Ok(());
            }
        }
        sheet.close();
        render::say_lines(&sheet.out);
        Ok(())
    }
}

/// What is being shown.
struct Sheet<'a> {
    filter: &'a Filter,
    limits: Limits,
    json: bool,
    gtid: Option<Gtid>,
    tables: BTreeMap<u64, TableMap>,
    /// Rows of tables that nobody asked for.
    left_out: u64,
    out: String,
    /// Whether whoever read it went away.
    unread: bool,
}

impl Sheet<'_> {
    /// Prints what there is, if it is enough; whether nobody reads it.
    fn is_unread(&mut self) -> bool {
        if self.out.len() >= PRINT_AT {
            self.unread |= !print(&mut self.out);
        }
        self.unread
    }

    /// Ends a transaction.
    fn close(&mut self) {
        if self.left_out > 0 && !self.json {
            self.out.push_str(&format!(
                "### ({} of other tables not shown: --table)\n",
                render::plural(self.left_out, "row")
            ));
        }
        self.left_out = 0;
        self.tables.clear();
    }

    fn event(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> anyhow::Result<()> {
        match event.kind() {
            EventKind::TRANSACTION_PAYLOAD => {
                let mut events = PayloadEvents::open(event, checksum, usize::MAX)?;
                while let Some(inner) = events.next_event()? {
                    if let Inner::Event(inner) = inner {
                        self.event(&inner, Checksum::None)?;
                    }
                    if self.is_unread() {
                        return Ok(());
                    }
                }
            }
            EventKind::TABLE_MAP => {
                let map = TableMap::parse(event, checksum)?;
                self.tables.insert(map.id, map);
            }
            EventKind::QUERY | EventKind::EXECUTE_LOAD_QUERY => {
                let (schema, text) = event.query(checksum)?;
                if !is_frame(text) {
                    self.statement("statement", schema, text);
                }
            }
            EventKind::ROWS_QUERY => self.statement("comment", &[], event.rows_query(checksum)?),
            _ => {
                if let Some(rows) = RowsEvent::parse(event, checksum)? {
                    self.rows(&rows)?;
                }
            }
        }
        Ok(())
    }

    /// A statement that is the transaction, or the one that made the rows behind it.
    fn statement(&mut self, kind: &'static str, schema: &[u8], text: &[u8]) {
        let shown = &text[..text.len().min(self.limits.statement)];
        let statement = without_secrets(String::from_utf8_lossy(shown).into_owned());
        let cut_of = (shown.len() < text.len()).then_some(text.len());
        if self.json {
            let schema = String::from_utf8_lossy(schema);
            self.out.push_str(&document(&json!({
                "kind": kind,
                "gtid": self.gtid,
                "schema": (!schema.is_empty()).then_some(schema),
                "statement": statement,
                "cut_of": cut_of,
            })));
            return;
        }
        let mark = match kind {
            "comment" => "# ",
            _ => "### ",
        };
        if !schema.is_empty() {
            let schema = String::from_utf8_lossy(schema);
            self.out
                .push_str(&format!("{mark}USE {};\n", identifier(&schema)));
        }
        for line in statement.lines() {
            self.out.push_str(mark);
            self.out.push_str(line);
            self.out.push('\n');
        }
        if let Some(bytes) = cut_of {
            let bytes = render::count(bytes as u64);
            self.out
                .push_str(&format!("{mark}... ({bytes} bytes; --full)\n"));
        }
    }

    fn rows(&mut self, event: &RowsEvent<'_>) -> anyhow::Result<()> {
        // Rows whose table nobody announced (dummy events that end a statement) are none.
        let Some(table) = self.tables.get(&event.table_id) else {
            return Ok(());
        };
        if !self.filter.tables.include.is_empty() && !self.filter.hits(&table.name()) {
            self.left_out += event.count(&table.layout)?;
            return Ok(());
        }
        for row in event.rows(table) {
            let row = row?;
            match (self.json, &self.gtid) {
                (true, Some(gtid)) => {
                    let line = RowLine {
                        kind: "row",
                        gtid,
                        table: table.name(),
                        operation: event.operation,
                        before: row.before.as_ref().map(|image| Columns {
                            table,
                            image,
                            limit: self.limits.value,
                        }),
                        after: row.after.as_ref().map(|image| Columns {
                            table,
                            image,
                            limit: self.limits.value,
                        }),
                    };
                    self.out.push_str(&document(&line));
                }
                _ => text(
                    table,
                    event.operation,
                    &row,
                    self.limits.value,
                    &mut self.out,
                ),
            }
            // One event may hold very many rows.
            if self.out.len() >= PRINT_AT {
                self.unread |= !print(&mut self.out);
                if self.unread {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Prints what there is; `false` if nobody reads it.
fn print(out: &mut String) -> bool {
    let is_read = render::say_lines(out);
    out.clear();
    is_read
}

/// A row as mysqlbinlog shows it.
fn text(table: &TableMap, operation: Operation, row: &Row<'_>, limit: usize, out: &mut String) {
    let name = qualified(&table.schema, &table.table);
    let verb = match operation {
        Operation::Insert => "INSERT INTO",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE FROM",
    };
    out.push_str(&format!("### {verb} {name}\n"));
    for (word, image) in [("WHERE", &row.before), ("SET", &row.after)] {
        let Some(image) = image else {
            continue;
        };
        out.push_str(&format!("### {word}\n"));
        for (number, value) in image {
            let column = column(table, *number);
            let shown = value.show(&column, limit);
            out.push_str(&format!("###   {column}={}", shown.text));
            if let Some(bytes) = shown.cut_of {
                let bytes = render::count(bytes as u64);
                out.push_str(&format!(" ... ({bytes} bytes; --full)"));
            }
            out.push('\n');
        }
    }
}

/// A column's name, quoted if that is needed to read it; `@1` without a name.
fn column(table: &TableMap, number: usize) -> String {
    let name = table.column(number);
    let is_plain = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let is_plain = !name.is_empty() && name.chars().all(is_plain);
    match is_plain || !table.has_names() {
        true => name,
        false => identifier(&name),
    }
}

/// A row of `--json`.
#[derive(Serialize)]
struct RowLine<'a> {
    kind: &'static str,
    gtid: &'a Gtid,
    table: String,
    operation: Operation,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Columns<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Columns<'a>>,
}

/// The logged columns of an image, in their order.
struct Columns<'a> {
    table: &'a TableMap,
    image: &'a Image<'a>,
    limit: usize,
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.image.len()))?;
        for (number, value) in self.image {
            let column = self.table.column(*number);
            let value = value_document(value, &column, self.limit);
            map.serialize_entry(&column, &value)?;
        }
        map.end()
    }
}

/// A value: a number, a string or null; an object for what is neither, or cut.
fn value_document(value: &Value<'_>, column: &str, limit: usize) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Signed(number) => json!(number),
        Value::Unsigned(number) => json!(number),
        Value::Year(year) => json!(year),
        Value::Float(number) => number
            .to_string()
            .parse()
            .map_or(Json::Null, |number: f64| json!(number)),
        Value::Double(number) => json!(number),
        Value::Decimal(text) | Value::Moment(text) => json!(text),
        Value::Enum(_, Some(label)) => json!(label),
        Value::Enum(index, None) => json!({ "index": index }),
        Value::Set(_, _, Some(words)) => json!(words),
        Value::Set(bits, _, None) => json!({ "bits": bits }),
        Value::Text(text) if text.bytes().len() <= limit && !text.is_binary() => {
            match text.text() {
                Some(text) => json!(text),
                None => json!({ "hex": hexadecimal(text.bytes()) }),
            }
        }
        Value::Text(text) if text.is_binary() && text.bytes().len() <= limit => {
            json!({ "hex": hexadecimal(text.bytes()) })
        }
        Value::Bits(bytes, _) | Value::Geometry(bytes) if bytes.len() <= limit => {
            json!({ "hex": hexadecimal(bytes) })
        }
        other => {
            let shown = other.show(column, limit);
            match (other, shown.cut_of) {
                // A JSON document is a string with its text: its numbers may be none of JSON's.
                (Value::Json(_), None) => json!(shown.json.unwrap_or(shown.text)),
                (_, None) => json!({ "sql": shown.text }),
                (_, Some(bytes)) => json!({ "sql": shown.text, "cut_of": bytes }),
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
