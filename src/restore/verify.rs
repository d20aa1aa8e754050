//! The rows of the restored tables against what the snapshot recorded.
//!
//! A snapshot's manifest has a checksum over each table's rows that does not depend on their order.
//! It is compared for every table that no replayed transaction can have changed: those of row
//! events name their tables; behind a statement (DDL) nothing is known of any table of its schema, nor
//! of those that a foreign key or a trigger reaches, so these are counted and not compared.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::plan::RestorePlan;
use crate::archive::manifest::{Manifest, RowChecksum, RowHash, TableEntry};
use crate::archive::repository::Repository;
use crate::archive::rows::{LineScanner, LineWriter, Scan, encode_row, select_statement};
use crate::mysql::ddl::{Ddl, DdlKind};
use crate::mysql::error::MysqlError;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::mysql::wire::packet::Truncated;
use crate::mysql::wire::{
    FieldPiece, FieldPieces, RowPiece, WireConnection, WireError, WireOptions,
};

/// As a snapshot reads: values as bytes, in UTC, whatever the server's own settings are.
pub(super) const SETTINGS: &str = "SET SESSION net_write_timeout = 3600, net_read_timeout = 3600, \
     wait_timeout = 86400, max_execution_time = 0, sql_mode = '', time_zone = '+00:00', \
     character_set_results = binary, transaction_isolation = 'REPEATABLE-READ'";

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Tables whose rows are those of the snapshot.
    pub equal: u64,
    /// Rows in them.
    pub rows: u64,
    /// Tables that were not compared, since the replay changed them or may have.
    pub changed: u64,
    /// Tables that hold no rows of a certain moment: of an engine without transactions.
    pub uncertain: u64,
}

/// Compares the rows of every table that the replay left alone.
pub(super) async fn checksums(
    server: &ServerUrl,
    repository: &Repository,
    plan: &RestorePlan,
    manifest: &Manifest,
    threads: u32,
    cancel: &CancellationToken,
) -> Result<Verified, RestoreError> {
    let mut touched = touched(repository, plan).await?;
    touched.follow(&cascades(server).await?);
    let mut verified = Verified {
        equal: 0,
        rows: 0,
        changed: 0,
        uncertain: 0,
    };
    let mut tables: VecDeque<TableEntry> = VecDeque::new();
    for table in &manifest.tables {
        if table.engine.is_some() {
            verified.uncertain += 1;
        } else if touched.may_have(table) {
            verified.changed += 1;
        } else {
            tables.push_back(table.clone());
        }
    }
    let queue = Arc::new(Mutex::new(tables));
    let hash = manifest.format.row_hash();
    let mut readers = JoinSet::new();
    for _ in 0..threads.max(1) {
        let (server, queue) = (server.clone(), Arc::clone(&queue));
        readers.spawn(async move { compare(&server, &queue, hash).await });
    }
    let mut different: Vec<String> = Vec::new();
    loop {
        let ended = tokio::select! {
            ended = readers.join_next() => ended,
            () = cancel.cancelled() => return Err(RestoreError::Cancelled),
        };
        let Some(ended) = ended else {
            break;
        };
        let part = ended.map_err(|error| RestoreError::Task(error.to_string()))??;
        verified.equal += part.equal;
        verified.rows += part.rows;
        different.extend(part.different);
    }
    different.sort();
    if different.is_empty() {
        return Ok(verified);
    }
    Err(RestoreError::WrongRows {
        server: plan.server.address.clone(),
        tables: different,
    })
}

/// What one connection has compared.
#[derive(Default)]
struct Part {
    equal: u64,
    rows: u64,
    different: Vec<String>,
}

async fn compare(
    server: &ServerUrl,
    queue: &Mutex<VecDeque<TableEntry>>,
    hash: RowHash,
) -> Result<Part, RestoreError> {
    let mut connection = WireConnection::connect(server, &WireOptions::default()).await?;
    connection.execute(SETTINGS).await?;
    let mut part = Part::default();
    loop {
        let next = queue.lock().await.pop_front();
        let Some(table) = next else {
            return Ok(part);
        };
        let (rows, checksum) = sum(&mut connection, &table, hash).await?;
        if (rows, checksum) == (table.rows, table.row_checksum) {
            part.equal += 1;
            part.rows += rows;
        } else {
            part.different.push(format!(
                "{} (has {rows} rows with {checksum}, the snapshot {} with {})",
                table.display_name(),
                table.rows,
                table.row_checksum
            ));
        }
    }
}

/// The rows of a table and the sum over them. A row that is too large for the connection's buffer
/// is never held whole.
pub(super) async fn sum(
    connection: &mut WireConnection,
    table: &TableEntry,
    hash: RowHash,
) -> Result<(u64, RowChecksum), WireError> {
    let statement = select_statement(&Scan {
        database: &table.database,
        table: &table.name,
        columns: &table.columns,
        ..Scan::default()
    });
    let mut rows = connection.query_rows(&statement).await?;
    let mut scanner = LineScanner::new(hash);
    let (mut writer, mut fields) = (LineWriter::default(), FieldPieces::default());
    let mut line = Vec::new();
    while let Some(piece) = rows.next_piece().await? {
        line.clear();
        let taken = match piece {
            RowPiece::Whole(row) => encode_row(row.fields(), &mut line),
            RowPiece::Part { bytes, last } => {
                part(bytes, last, &mut fields, &mut writer, &mut line)
            }
        };
        if let Err(error) = taken {
            return Err(rows.malformed(error));
        }
        scanner.update(&line);
    }
    // Every line was written to its end.
    Ok(scanner.finish().unwrap_or_default())
}

/// Appends a part of a row to its line.
fn part(
    mut bytes: &[u8],
    last: bool,
    fields: &mut FieldPieces,
    writer: &mut LineWriter,
    line: &mut Vec<u8>,
) -> Result<(), Truncated> {
    while let Some(piece) = fields.next(&mut bytes)? {
        match piece {
            FieldPiece::Null => writer.null(line),
            FieldPiece::Begin => writer.begin(line),
            FieldPiece::Bytes(bytes) => writer.bytes(bytes, line),
        }
    }
    if last {
        if !fields.is_between_fields() {
            return Err(Truncated);
        }
        writer.end(line);
    }
    Ok(())
}

/// What the replay may have changed.
#[derive(Debug, Default)]
struct Touched {
    tables: BTreeSet<String>,
    schemas: BTreeSet<String>,
    /// Something that cannot be told.
    anything: bool,
}

impl Touched {
    fn may_have(&self, table: &TableEntry) -> bool {
        self.anything
            || self.schemas.contains(&table.database)
            || self.tables.contains(&table.display_name())
    }

    /// Adds what foreign keys change beside what is in the log: before 9.6 a cascade is in none.
    fn follow(&mut self, cascades: &[(String, String)]) {
        loop {
            let reached: Vec<&String> = cascades
                .iter()
                .filter(|(child, parent)| {
                    self.tables.contains(parent) && !self.tables.contains(child)
                })
                .map(|(child, _)| child)
                .collect();
            if reached.is_empty() {
                return;
            }
            self.tables.extend(reached.into_iter().cloned());
        }
    }

    /// Takes a statement of the log.
    fn take(&mut self, schema: &str, statement: &str) {
        match Ddl::parse(schema, statement) {
            // A statement that changes rows, in statement format.
            None => self.anything = true,
            Some(ddl) => match ddl.kind {
                DdlKind::Accounts | DdlKind::Other => {}
                DdlKind::Table | DdlKind::Database if ddl.names.is_empty() => self.anything = true,
                DdlKind::Table | DdlKind::Database => {
                    self.schemas
                        .extend(ddl.names.into_iter().map(|name| name.database));
                }
            },
        }
    }
}

/// The tables that foreign keys change with others: child and parent.
async fn cascades(server: &ServerUrl) -> Result<Vec<(String, String)>, MysqlError> {
    let mut session = Session::connect(server).await?;
    let found: Vec<(String, String, String, String)> = session
        .query(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME \
             FROM information_schema.REFERENTIAL_CONSTRAINTS \
             WHERE UPDATE_RULE IN ('CASCADE', 'SET NULL') OR DELETE_RULE IN ('CASCADE', 'SET NULL')",
        )
        .await?;
    session.close().await;
    let pair = |(schema, table, parent_schema, parent): (String, String, String, String)| {
        (
            format!("{schema}.{table}"),
            format!("{parent_schema}.{parent}"),
        )
    };
    Ok(found.into_iter().map(pair).collect())
}

async fn touched(repository: &Repository, plan: &RestorePlan) -> Result<Touched, RestoreError> {
    let mut touched = Touched::default();
    for member in &plan.replay.members {
        let index = &member.stored.index;
        if !index.statements && !index.tables_incomplete {
            touched.tables.extend(index.tables.iter().cloned());
            continue;
        }
        let lines = member.own_lines(repository.read_transactions(&member.stored).await?);
        for line in lines {
            if !plan.replay.set.contains(&line.gtid) {
                continue;
            }
            touched.anything |= line.summary.incomplete;
            let names = line.summary.tables.into_iter().map(|table| table.name);
            touched.tables.extend(names);
            if let Some(statement) = &line.summary.statement {
                let schema = line.summary.schema.as_deref().unwrap_or_default();
                touched.take(schema, statement);
            }
        }
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cascades_are_followed_to_their_end() {
        let mut touched = Touched::default();
        touched.tables.insert("d.a".to_owned());
        let pairs = [
            ("d.c", "d.b"),
            ("d.b", "d.a"),
            ("d.a", "d.c"),
            ("d.x", "d.y"),
        ];
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(child, parent)| ((*child).to_owned(), (*parent).to_owned()))
            .collect();
        touched.follow(&pairs);
        let tables: Vec<&str> = touched.tables.iter().map(String::as_str).collect();
        assert_eq!(tables, ["d.a", "d.b", "d.c"]);
    }

    #[test]
    fn a_statement_touches_its_schema_and_an_unknown_one_everything() {
        let mut touched = Touched::default();
        touched.take("shop", "CREATE USER ann IDENTIFIED BY 'x'");
        touched.take("shop", "CREATE VIEW v AS SELECT 1");
        assert!(touched.schemas.is_empty() && !touched.anything);
        touched.take("shop", "ALTER TABLE other.t ADD COLUMN c INT");
        touched.take("shop", "DROP TABLE item");
        let schemas: Vec<&str> = touched.schemas.iter().map(String::as_str).collect();
        assert_eq!(schemas, ["other", "shop"]);
        assert!(!touched.anything);
        touched.take("shop", "UPDATE item SET n = RAND()");
        assert!(touched.anything);
    }
}
