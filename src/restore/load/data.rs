//! The rows: every file in a transaction of its own, several at once.
//!
//! A file is streamed into LOAD DATA LOCAL while it is being checked. Its end is told to the
//! server, and the transaction committed, only when it was whole; on any doubt the connection is
//! dropped, and the server rolls back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::archive::layout::SnapshotId;
use crate::archive::manifest::{DataFile, Manifest, RowChecksum, RowHash, TableEntry};
use crate::archive::rows::{LineScanner, load_statement};
use crate::mysql::ServerUrl;
use crate::mysql::wire::{WireConnection, WireError};
use crate::storage::Storage;

use super::error::LoadError;
use super::{LoadObserver, LoadOptions, error_values, fetch, session};

/// Pieces between a file's download and its connection.
const PIECES: usize = 8;

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) rows: u64,
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) warnings: Vec<String>,
}

/// One file to load.
#[derive(Debug, Clone, Copy)]
struct Work {
    table: usize,
    file: usize,
}

struct Shared {
    storage: Arc<dyn Storage>,
    id: SnapshotId,
    tables: Vec<TableEntry>,
    row_hash: RowHash,
    queue: Mutex<VecDeque<Work>>,
    progress: LoadObserver,
    sent_rows: AtomicU64,
    total_rows: u64,
}

/// Loads all files of all tables.
pub(super) async fn load(
    target: &ServerUrl,
    storage: &Arc<dyn Storage>,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<Loaded, LoadError> {
    let mut work: Vec<Work> = manifest
        .tables
        .iter()
        .enumerate()
        .flat_map(|(table, entry)| (0..entry.files.len()).map(move |file| Work { table, file }))
        .collect();
    // The table with the most rows sets the time: it goes first, its files in their order.
    work.sort_by_key(|work| {
        let total: u64 = manifest.tables[work.table]
            .files
            .iter()
            .map(|f| f.file.raw_bytes)
            .sum();
        (std::cmp::Reverse(total), work.table, work.file)
    });
    let threads = options.threads.clamp(1, 64).min(work.len().max(1));
    let shared = Arc::new(Shared {
        storage: Arc::clone(storage),
        id: manifest.id.clone(),
        tables: manifest.tables.clone(),
        row_hash: manifest.format.row_hash(),
        queue: Mutex::new(work.into()),
        progress: Arc::clone(&options.progress),
        sent_rows: AtomicU64::new(0),
        total_rows: manifest.totals.rows,
    });
    // A dropped JoinSet aborts its tasks: the first error ends them all.
    let mut loaders = JoinSet::new();
    for _ in 0..threads {
        let connection = session::loader(target).await?;
        loaders.spawn(load_queue(connection, Arc::clone(&shared)));
    }
    let mut loaded = Loaded::default();
    let mut found = vec![(0_u64, RowChecksum::default()); manifest.tables.len()];
    while let Some(joined) = loaders.join_next().await {
        let part = joined.map_err(|error| LoadError::Task(error.to_string()))??;
        for (table, rows, checksum) in part.files {
            found[table].0 += rows;
            found[table].1.add(checksum);
            loaded.rows += rows;
        }
        loaded.raw_bytes += part.raw_bytes;
        loaded.stored_bytes += part.stored_bytes;
        loaded.warnings.extend(part.warnings);
    }
    for (table, (rows, checksum)) in manifest.tables.iter().zip(found) {
        if (rows, checksum) != (table.rows, table.row_checksum) {
            return Err(LoadError::Damaged {
                key: format!("the manifest of {}", manifest.id),
                what: format!(
                    "the files of {} hold {rows} rows with checksum {checksum}, not {} with {}",
                    table.display_name(),
                    table.rows,
                    table.row_checksum
                ),
            });
        }
    }
    Ok(loaded)
}

#[derive(Default)]
struct Part {
    files: Vec<(usize, u64, RowChecksum)>,
    raw_bytes: u64,
    stored_bytes: u64,
    warnings: Vec<String>,
}

async fn load_queue(
    mut connection: WireConnection,
    shared: Arc<Shared>,
) -> Result<Part, LoadError> {
    let mut part = Part::default();
    loop {
        let Some(work) = shared.queue.lock().await.pop_front() else {
            return Ok(part);
        };
        let table = &shared.tables[work.table];
        let file = &table.files[work.file];
        let (checksum, warning) = load_file(&mut connection, &shared, table, file).await?;
        part.files.push((work.table, file.rows, checksum));
        part.raw_bytes += file.file.raw_bytes;
        part.stored_bytes += file.file.stored_bytes;
        part.warnings.extend(warning);
    }
}

async fn load_file(
    connection: &mut WireConnection,
    shared: &Shared,
    table: &TableEntry,
    file: &DataFile,
) -> Result<(RowChecksum, Option<String>), LoadError> {
    let key = file.file.key.in_snapshot(&shared.id);
    let refused = |source: WireError| LoadError::Rows {
        table: table.display_name(),
        key: key.clone(),
        source: Box::new(source),
    };
    connection
        .execute("START TRANSACTION")
        .await
        .map_err(refused)?;
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let mut fetching = JoinSet::new();
    fetching.spawn(fetch::content(
        Arc::clone(&shared.storage),
        key.clone(),
        file.file.clone(),
        sender,
    ));
    let mut scanner = LineScanner::new(shared.row_hash);
    // From here on an early return drops the half-sent file and with it the connection.
    let mut infile = connection
        .load_local(&load_statement(table))
        .await
        .map_err(refused)?;
    while let Some(piece) = pieces.recv().await {
        let before = scanner.rows();
        scanner.update(&piece);
        infile.send(&piece).await.map_err(refused)?;
        let new = scanner.rows() - before;
        let sent = shared.sent_rows.fetch_add(new, Ordering::Relaxed) + new;
        (shared.progress)(sent, shared.total_rows);
    }
    match fetching.join_next().await {
        Some(joined) => joined.map_err(|error| LoadError::Task(error.to_string()))??,
        None => return Err(LoadError::Task("the download is gone".to_owned())),
    }
    let damaged = |what: String| LoadError::Damaged {
        key: key.clone(),
        what,
    };
    let (rows, checksum) = scanner
        .finish()
        .ok_or_else(|| damaged("it ends within a row".to_owned()))?;
    if rows != file.rows {
        return Err(damaged(format!("it holds {rows} rows, not {}", file.rows)));
    }
    let outcome = infile.finish().await.map_err(refused)?;
    let unfaithful = |what: String| LoadError::Unfaithful {
        table: table.display_name(),
        key: key.clone(),
        what,
    };
    let mut warning = None;
    if outcome.warnings > 0 {
        let mut told = warnings(connection).await.map_err(refused)?;
        let some = !told.is_empty();
        // What the server computes anew it may round anew, as it did at first.
        told.retain(|(_, message)| error_values::is_about_a_file(message, table));
        let lost = match error_values::places(&told, table) {
            Some(places) if places.is_empty() && some => None,
            Some(places) if some => {
                warning = Some(format!(
                    "{} holds the error value of an ENUM, which the server warns of",
                    table.display_name()
                ));
                error_values::first_lost(&shared.storage, &shared.id, file, &places).await?
            }
            _ => {
                let text: Vec<String> = told
                    .iter()
                    .take(3)
                    .map(|(code, message)| format!("{code} {message}"))
                    .collect();
                return Err(unfaithful(format!(
                    "{} warnings, the first: {}",
                    outcome.warnings,
                    text.join("; ")
                )));
            }
        };
        if let Some((row, field)) = lost {
            return Err(unfaithful(format!(
                "row {row} has a value that its ENUM {} does not have",
                table.columns[field].name
            )));
        }
    }
    if outcome.affected_rows != rows {
        return Err(unfaithful(format!(
            "{} of {rows} rows were loaded ({})",
            outcome.affected_rows, outcome.info
        )));
    }
    connection.execute("COMMIT").await.map_err(refused)?;
    Ok((checksum, warning))
}

/// Code and message of each warning.
async fn warnings(connection: &mut WireConnection) -> Result<Vec<(String, String)>, WireError> {
    let mut told = Vec::new();
    let mut rows = connection.query_rows("SHOW WARNINGS").await?;
    while let Some(row) = rows.next().await? {
        let fields = row
            .fields()
            .map(|field| {
                let field = field.map_err(|error| row.malformed(error))?;
                Ok(String::from_utf8_lossy(field.unwrap_or_default()).into_owned())
            })
            .collect::<Result<Vec<String>, WireError>>()?;
        let mut fields = fields.into_iter().skip(1);
        told.push((
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
        ));
    }
    Ok(told)
}
