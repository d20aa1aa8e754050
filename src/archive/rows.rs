//! Rows as LOAD DATA reads them: how a snapshot asks for a column, writes it and loads it again.
//!
//! A file holds one line a row. Fields are separated by a tab and lines end in a newline; within a
//! field a tab, a newline and a backslash are written `\t`, `\n` and `\\`; NULL is `\N`. A value
//! is otherwise the raw bytes of the column in its own character set, so a raw newline always ends
//! a row and a line can be hashed as it stands. Text and binary values need nothing more; the few
//! types that do are in [`select_expression`] and [`load_statement`], the two halves of one rule.

use memchr::memchr3_iter;

use crate::mysql::quote;
use crate::mysql::schema::Column;

use super::manifest::{LoadColumn, RowChecksum, RowHash, TableEntry};
use super::row_checksum::RowHasher;

/// The columns of a table that its files hold: all but those that the server computes.
#[must_use]
pub fn load_columns(columns: &[Column]) -> Vec<LoadColumn> {
    columns
        .iter()
        .filter(|column| !column.generated)
        .map(|column| LoadColumn {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
        })
        .collect()
}

/// How a column is selected so that no bit of it is lost in text.
///
/// FLOAT prints six digits and `DOUBLE(M,D)` prints D decimals; multiplied by `1e0` both print as
/// many digits as tell the value from its neighbours, and keep the sign of zero.
#[must_use]
pub fn select_expression(column: &LoadColumn) -> String {
    let name = quote::identifier(&column.name);
    match column.data_type.as_str() {
        "float" | "double" => format!("({name} * 1e0)"),
        _ => name,
    }
}

/// What a SELECT reads of a table.
#[derive(Debug, Clone, Default)]
pub struct Scan<'a> {
    /// The schema.
    pub database: &'a str,
    /// The table.
    pub table: &'a str,
    /// The columns.
    pub columns: &'a [LoadColumn],
    /// The partitions; empty means all of them.
    pub partitions: &'a [String],
    /// The index to read by, and its leading columns with whether each descends there: rows that
    /// come in that order are loaded fastest. Nothing means the order in which they lie.
    pub order: Option<(&'a str, Vec<(&'a str, bool)>)>,
    /// A part of the table; `None` is all of it.
    pub condition: Option<String>,
}

/// The SELECT that reads a table's rows.
#[must_use]
pub fn select_statement(scan: &Scan<'_>) -> String {
    let expressions: Vec<String> = scan.columns.iter().map(select_expression).collect();
    let list = if expressions.is_empty() {
        // A table of computed columns only: the rows must still be counted.
        "1".to_owned()
    } else {
        expressions.join(", ")
    };
    let mut sql = format!(
        "SELECT {list} FROM {}",
        quote::qualified(scan.database, scan.table)
    );
    if !scan.partitions.is_empty() {
        let names: Vec<String> = scan
            .partitions
            .iter()
            .map(|name| quote::identifier(name))
            .collect();
        sql.push_str(&format!(" PARTITION ({})", names.join(", ")));
    }
    if let Some((index, _)) = &scan.order {
        sql.push_str(&format!(" FORCE INDEX ({})", quote::identifier(index)));
    }
    if let Some(condition) = &scan.condition {
        sql.push_str(" WHERE ");
        sql.push_str(condition);
    }
    if let Some((_, columns)) = &scan.order
        && !columns.is_empty()
    {
        let columns: Vec<String> = columns
            .iter()
            .map(|(name, descending)| {
                let descending = if *descending { " DESC" } else { "" };
                format!("{}{descending}", quote::identifier(name))
            })
            .collect();
        sql.push_str(" ORDER BY ");
        sql.push_str(&columns.join(", "));
    }
    sql
}

/// The statement that loads a file of the table.
///
/// All fields are taken as bytes (`CHARACTER SET binary`). JSON refuses bytes (error 3144), so it
/// goes through a variable that says that they are utf8mb4.
#[must_use]
pub fn load_statement(table: &TableEntry) -> String {
    let mut fields = Vec::with_capacity(table.columns.len());
    let mut assignments = Vec::new();
    for (n, column) in table.columns.iter().enumerate() {
        let name = quote::identifier(&column.name);
        if column.data_type == "json" {
            fields.push(format!("@qb{n}"));
            assignments.push(format!("{name} = CONVERT(@qb{n} USING utf8mb4)"));
        } else {
            fields.push(name);
        }
    }
    if fields.is_empty() {
        fields.push("@qb0".to_owned());
    }
    let mut sql = format!(
        "LOAD DATA LOCAL INFILE 'quillback' INTO TABLE {} CHARACTER SET binary \
         FIELDS TERMINATED BY X'09' ENCLOSED BY '' ESCAPED BY X'5C' \
         LINES TERMINATED BY X'0A' ({})",
        quote::qualified(&table.database, &table.name),
        fields.join(", ")
    );
    if !assignments.is_empty() {
        sql.push_str(" SET ");
        sql.push_str(&assignments.join(", "));
    }
    sql
}

/// Appends one row's line, its newline included.
///
/// # Errors
///
/// The first error among the fields.
pub fn encode_row<'a, E>(
    fields: impl Iterator<Item = Result<Option<&'a [u8]>, E>>,
    out: &mut Vec<u8>,
) -> Result<(), E> {
    let mut first = true;
    for field in fields {
        if !first {
            out.push(b'\t');
        }
        first = false;
        match field? {
            Some(bytes) => escape(bytes, out),
            None => out.extend_from_slice(b"\\N"),
        }
    }
    out.push(b'\n');
    Ok(())
}

/// Writes a row's line whose fields come in pieces.
#[derive(Debug, Default)]
pub struct LineWriter {
    fields: usize,
}

impl LineWriter {
    /// Begins the next field.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if self.fields > 0 {
            out.push(b'\t');
        }
        self.fields += 1;
    }

    /// Appends a field that is NULL.
    pub fn null(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        out.extend_from_slice(b"\\N");
    }

    /// Appends the next bytes of the field that was begun.
    pub fn bytes(&self, bytes: &[u8], out: &mut Vec<u8>) {
        escape(bytes, out);
    }

    /// Ends the line.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.fields = 0;
        out.push(b'\n');
    }
}

/// A field of fewer bytes is looked through faster without a search's preparations.
const SHORT: usize = 24;

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.len() < SHORT
        && !bytes
            .iter()
            .any(|byte| matches!(byte, b'\t' | b'\n' | b'\\'))
    {
        out.extend_from_slice(bytes);
        return;
    }
    let mut from = 0;
    for at in memchr3_iter(b'\t', b'\n', b'\\', bytes) {
        out.extend_from_slice(&bytes[from..at]);
        out.push(b'\\');
        out.push(match bytes[at] {
            b'\t' => b't',
            b'\n' => b'n',
            other => other,
        });
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
}

/// Counts and sums the rows of a file that passes by in pieces, in constant memory.
#[derive(Debug, Default)]
pub struct LineScanner {
    rows: u64,
    hash: RowHash,
    checksum: RowChecksum,
    partial: Option<RowHasher>,
}

impl LineScanner {
    /// A scanner that hashes rows in this way.
    #[must_use]
    pub fn new(hash: RowHash) -> Self {
        Self {
            hash,
            ..Self::default()
        }
    }

    /// Takes the next piece.
    pub fn update(&mut self, mut piece: &[u8]) {
        if let Some(mut partial) = self.partial.take() {
            let Some(at) = memchr::memchr(b'\n', piece) else {
                partial.update(piece);
                self.partial = Some(partial);
                return;
            };
            partial.update(&piece[..at]);
            self.rows += 1;
            self.checksum.add_row(partial.finish());
            piece = &piece[at + 1..];
        }
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', piece) {
            self.rows += 1;
            self.checksum.add_row(self.hash.of(&piece[from..at]));
            from = at + 1;
        }
        if from < piece.len() {
            let mut partial = self.hash.hasher();
            partial.update(&piece[from..]);
            self.partial = Some(partial);
        }
    }

    /// The whole rows so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows and their checksum, unless the file ends within a row.
    #[must_use]
    pub fn finish(self) -> Option<(u64, RowChecksum)> {
        self.partial.is_none().then_some((self.rows, self.checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(fields: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = fields
            .iter()
            .map(|field| Ok::<_, std::convert::Infallible>(*field));
        encode_row(fields, &mut out).expect("no field fails");
        out
    }

    /// LOAD DATA's own reading of a line, as the MySQL manual describes it.
    fn decode(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let line = line.strip_suffix(b"\n").expect("a whole line");
        let mut fields = Vec::new();
        let mut field = Vec::new();
        let mut null = false;
        let mut bytes = line.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\t' => {
                    fields.push((!std::mem::take(&mut null)).then(|| std::mem::take(&mut field)))
                }
                b'\\' => match bytes.next().expect("an escaped byte") {
                    b'N' => null = true,
                    b't' => field.push(b'\t'),
                    b'n' => field.push(b'\n'),
                    other => field.push(other),
                },
                other => field.push(other),
            }
        }
        fields.push((!null).then_some(field));
        fields
    }

    fn column(name: &str, data_type: &str) -> LoadColumn {
        LoadColumn {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
        }
    }

    #[test]
    fn null_the_empty_text_and_a_literal_backslash_n_differ() {
        assert_eq!(
            line(&[None, Some(b""), Some(b"\\N"), Some(b"N")]),
            b"\\N\t\t\\\\N\tN\n"
        );
        assert_eq!(line(&[Some(b"a\tb\nc\\d\0")]), b"a\\tb\\nc\\\\d\0\n");
    }

    #[test]
    fn statements_name_every_column_and_treat_the_odd_types() {
        let columns = [
            column("id", "int"),
            column("j`s", "json"),
            column("f", "float"),
        ];
        let scan = Scan {
            database: "d",
            table: "t",
            columns: &columns,
            order: Some(("PRIMARY", vec![("id", false), ("x`", true)])),
            ..Scan::default()
        };
        assert_eq!(
            select_statement(&scan),
            "SELECT `id`, `j``s`, (`f` * 1e0) FROM `d`.`t` FORCE INDEX (`PRIMARY`) \
             ORDER BY `id`, `x``` DESC"
        );
        let scan = Scan {
            columns: &columns[..1],
            partitions: &["p0".to_owned(), "p`1".to_owned()],
            order: None,
            condition: Some("`id` < 3".to_owned()),
            ..scan
        };
        assert_eq!(
            select_statement(&scan),
            "SELECT `id` FROM `d`.`t` PARTITION (`p0`, `p``1`) WHERE `id` < 3"
        );
        let table = TableEntry {
            database: "d".to_owned(),
            name: "t".to_owned(),
            columns: columns.to_vec(),
            files: Vec::new(),
            rows: 0,
            row_checksum: RowChecksum::default(),
            create_sha256: crate::archive::hash::sha256(b""),
            engine: None,
        };
        let sql = load_statement(&table);
        assert!(
            sql.ends_with("(`id`, @qb1, `f`) SET `j``s` = CONVERT(@qb1 USING utf8mb4)"),
            "{sql}"
        );
    }

    #[test]
    fn a_file_that_ends_within_a_row_is_noticed() {
        let mut scanner = LineScanner::default();
        scanner.update(b"1\ta\n2");
        assert_eq!(scanner.finish(), None);
    }

    proptest! {
        #[test]
        fn every_row_is_read_as_it_was_written(
            fields in prop::collection::vec(
                prop::option::of(prop::collection::vec(
                    prop_oneof![Just(b'\\'), Just(b'\t'), Just(b'\n'), Just(b'N'), any::<u8>()],
                    0..12,
                )),
                1..6,
            )
        ) {
            let borrowed: Vec<Option<&[u8]>> = fields.iter().map(Option::as_deref).collect();
            let encoded = line(&borrowed);
            let mut pieces = Vec::new();
            let mut writer = LineWriter::default();
            for field in &fields {
                match field {
                    None => writer.null(&mut pieces),
                    Some(bytes) => {
                        writer.begin(&mut pieces);
                        for piece in bytes.chunks(5) {
                            writer.bytes(piece, &mut pieces);
                        }
                    }
                }
            }
            writer.end(&mut pieces);
            prop_assert_eq!(&pieces, &encoded);
            prop_assert_eq!(memchr::memchr_iter(b'\n', &encoded).count(), 1);
            prop_assert_eq!(decode(&encoded), fields);
        }

        #[test]
        fn scanning_does_not_depend_on_the_pieces(
            lines in prop::collection::vec("[a-z\t]{0,9}", 0..20),
            size in 1_usize..30,
        ) {
            let file: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
            let mut scanner = LineScanner::default();
            for piece in file.chunks(size) {
                scanner.update(piece);
            }
            let mut checksum = RowChecksum::default();
            for line in &lines {
                checksum.add_row(RowHash::default().of(line.as_bytes()));
            }
            prop_assert_eq!(scanner.finish(), Some((lines.len() as u64, checksum)));
        }
    }
}
