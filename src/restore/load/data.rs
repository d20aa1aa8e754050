//! The rows: every file in a transaction of its own, several at once.
//!
//! A file is streamed into LOAD DATA LOCAL while it is being checked. Its end is told to the
//! server, and the transaction committed, only when it was whole; on any doubt the connection is
//! dropped, and the server rolls back. The file's step is the transaction's first statement: where
//! the same file is still being loaded, or rolled back, on behalf of a killed run, it waits for that
//! one's end. After a kill the table of an engine without transactions is emptied and loaded from the
//! beginning.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::archive::layout::SnapshotId;
use crate::archive::manifest::{DataFile, Manifest, RowChecksum, RowHash, ScriptKind, TableEntry};
use crate::archive::rows::{LineScanner, load_statement};
use crate::archive::script::Script;
use crate::mysql::wire::{WireConnection, WireError};
use crate::mysql::{MysqlError, ServerUrl, Session, quote};
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::storage::Storage;

use super::error::LoadError;
use super::queue::{Lane, Queue, Work};
use super::scripts::{of_tables, remake};
use super::steps::{Step, Steps};
use super::{LoadObserver, LoadOptions, error_values, fetch, session};

/// The name by which a server asks for a file.
const NAME: &str = "quillback";
/// How often a file is tried that the server gave up for the sake of another transaction.
const TRIES: u32 = 5;
/// `ER_LOCK_WAIT_TIMEOUT`, `ER_LOCK_DEADLOCK`.
const GAVE_UP: [u16; 2] = [1205, 1213];
/// `ER_ILLEGAL_HA`.
const NO_SUCH_OPTION: u16 = 1031;
/// `ER_DUP_ENTRY`.
const DUPLICATE: u16 = 1062;

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) rows: u64,
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) warnings: Vec<String>,
}

/// What is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) storage: &'a Arc<dyn Storage>,
    pub(super) manifest: &'a Manifest,
    pub(super) scripts: &'a [(ScriptKind, Script)],
}

struct Shared {
    storage: Arc<dyn Storage>,
    id: SnapshotId,
    tables: Vec<TableEntry>,
    row_hash: RowHash,
    queue: Mutex<Queue>,
    steps: Steps,
    fail_points: FailPoints,
    room: fetch::Room,
    progress: LoadObserver,
    sent_rows: AtomicU64,
    total_rows: u64,
}

/// Loads all files of all tables that are not loaded yet.
pub(super) async fn load(
    target: &ServerUrl,
    control: &mut Session,
    files: &Files<'_>,
    options: &LoadOptions,
    steps: &Steps,
) -> Result<Loaded, LoadError> {
    let Files {
        storage,
        manifest,
        scripts,
    } = *files;
    let statements = of_tables(scripts);
    if options.resume {
        session::end_loaders(control, steps).await?;
    }
    let mut loaded = Loaded::default();
    let mut lanes = Vec::with_capacity(manifest.tables.len());
    let locked = tables_that_insert_alone(control).await?;
    // What a table has from an earlier run is not read again, and its sum not known.
    let mut taken_over = vec![false; manifest.tables.len()];
    for (at, table) in manifest.tables.iter().enumerate() {
        let is_done = |file: &DataFile| steps.is_done(&step(&manifest.id, file));
        if options.resume && table.engine.is_some() {
            let name = (table.database.clone(), table.name.clone());
            let statements = statements.get(&name).map_or(&[][..], Vec::as_slice);
            start_over(control, manifest, table, statements, steps).await?;
        }
        for file in table.files.iter().filter(|file| is_done(file)) {
            taken_over[at] = true;
            loaded.rows += file.rows;
            loaded.raw_bytes += file.file.raw_bytes;
        }
        let files = table.files.iter().enumerate();
        let files = files
            .filter(|(_, file)| !is_done(file))
            .map(|(n, file)| (n, file.file.raw_bytes));
        let name = (table.database.clone(), table.name.clone());
        let alone = table.engine.is_some() || locked.contains(&name);
        lanes.push(Lane::new(files, alone));
    }
    let queue = Queue::new(lanes);
    let threads = options.threads.clamp(1, 64).min(queue.len());
    let shared = Arc::new(Shared {
        storage: Arc::clone(storage),
        id: manifest.id.clone(),
        tables: manifest.tables.clone(),
        row_hash: manifest.format.row_hash(),
        queue: Mutex::new(queue),
        steps: steps.clone(),
        room: fetch::Room::of_one_in(threads),
        fail_points: options.fail_points.clone(),
        progress: Arc::clone(&options.progress),
        sent_rows: AtomicU64::new(loaded.rows),
        total_rows: manifest.totals.rows,
    });
    // A dropped JoinSet aborts its tasks: the first error ends them all.
    let mut loaders = JoinSet::new();
    for _ in 0..threads {
        let connection = session::loader(target, options.logged, steps).await?;
        loaders.spawn(load_queue(connection, Arc::clone(&shared)));
    }
    let mut found = vec![(0_u64, RowChecksum::default()); manifest.tables.len()];
    while let Some(joined) = loaders.join_next().await {
        let part = joined.map_err(ended)??;
        for (table, rows, checksum) in part.files {
            found[table].0 += rows;
            match checksum {
                Some(checksum) => found[table].1.add(checksum),
                None => taken_over[table] = true,
            }
            loaded.rows += rows;
        }
        loaded.raw_bytes += part.raw_bytes;
        loaded.stored_bytes += part.stored_bytes;
        loaded.warnings.extend(part.warnings);
    }
    for ((table, (rows, checksum)), taken_over) in manifest.tables.iter().zip(found).zip(taken_over)
    {
        if !taken_over && (rows, checksum) != (table.rows, table.row_checksum) {
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

/// The step of a file.
fn step(id: &SnapshotId, file: &DataFile) -> Step {
    Step::rows(&file.file.key.in_snapshot(id))
}

/// A panic goes on in the one who waits for it.
fn ended(error: JoinError) -> LoadError {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
    LoadError::Task(error.to_string())
}

/// The tables with an AUTO_INCREMENT column, if LOAD DATA locks such a table until its end: unless
/// `innodb_autoinc_lock_mode` is 2, which it is from 8.0 on where nobody changed it.
async fn tables_that_insert_alone(
    control: &mut Session,
) -> Result<Vec<(String, String)>, MysqlError> {
    let mode: u64 = control
        .query_one("SELECT @@GLOBAL.innodb_autoinc_lock_mode")
        .await?;
    if mode == 2 {
        return Ok(Vec::new());
    }
    control
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.COLUMNS \
             WHERE EXTRA LIKE '%auto\\_increment%'",
        )
        .await
}

/// Empties a table of an engine without transactions, of which an earlier run may have loaded a
/// part.
async fn start_over(
    control: &mut Session,
    manifest: &Manifest,
    table: &TableEntry,
    statements: &[&[u8]],
    steps: &Steps,
) -> Result<(), MysqlError> {
    for file in &table.files {
        steps.take_back(control, &step(&manifest.id, file)).await?;
    }
    let name = quote::qualified(&table.database, &table.name);
    match control.execute(format!("TRUNCATE TABLE {name}")).await {
        // ARCHIVE only adds.
        Err(error) if error.code() == Some(NO_SUCH_OPTION) && !statements.is_empty() => {
            remake(control, table, statements).await
        }
        other => other.map(drop),
    }
}

#[derive(Default)]
struct Part {
    /// Table, rows and their sum, unless another one loaded them.
    files: Vec<(usize, u64, Option<RowChecksum>)>,
    raw_bytes: u64,
    stored_bytes: u64,
    warnings: Vec<String>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load_queue(
    mut connection: WireConnection,
    shared: Arc<Shared>,
) -> Result<Part, LoadError> {
    let mut part = Part::default();
    loop {
        let taken = shared.queue().take();
        let Some(Work { table: at, file }) = taken else {
            return Ok(part);
        };
        let table = &shared.tables[at];
        let file = &table.files[file];
        let outcome = load_patiently(&mut connection, &shared, table, file).await?;
        shared.queue().end(taken.expect("it was taken above"));
        part.files
            .push((at, file.rows, outcome.as_ref().map(|(sum, _)| *sum)));
        part.raw_bytes += file.file.raw_bytes;
        part.stored_bytes += file.file.stored_bytes;
        part.warnings
            .extend(outcome.and_then(|(_, warning)| warning));
    }
}

/// Loads a file, again if the server rolled it back for the sake of another transaction.
async fn load_patiently(
    connection: &mut WireConnection,
    shared: &Shared,
    table: &TableEntry,
    file: &DataFile,
) -> Result<Option<(RowChecksum, Option<String>)>, LoadError> {
    let mut tries = 1;
    loop {
        let mut sent = 0;
        let outcome = load_file(connection, shared, table, file, &mut sent).await;
        let gave_up = match &outcome {
            Err(LoadError::Rows { source, .. }) => source
                .server_code()
                .is_some_and(|code| GAVE_UP.contains(&code)),
            _ => false,
        };
        // What an engine without transactions has taken stays.
        if !gave_up || tries == TRIES || table.engine.is_some() {
            return outcome;
        }
        tries += 1;
        shared.sent_rows.fetch_sub(sent, Ordering::Relaxed);
        connection.execute("ROLLBACK").await?;
    }
}

async fn load_file(
    connection: &mut WireConnection,
    shared: &Shared,
    table: &TableEntry,
    file: &DataFile,
    sent: &mut u64,
) -> Result<Option<(RowChecksum, Option<String>)>, LoadError> {
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
    let step = step(&shared.id, file);
    let insert = shared.steps.insert_statement(&step);
    // A server warns of a transaction with tables of two kinds.
    let (within, behind) = if table.engine.is_none() {
        (insert, None)
    } else {
        (None, insert)
    };
    if let Some(insert) = within {
        match connection.execute(&insert).await {
            Err(error) if error.server_code() == Some(DUPLICATE) => {
                connection.execute("ROLLBACK").await.map_err(refused)?;
                shared.steps.remember(&step);
                return Ok(None);
            }
            other => other.map_err(refused)?,
        };
    }
    let (sender, mut pieces) = mpsc::channel(shared.room.pieces);
    let mut fetching = JoinSet::new();
    fetching.spawn(fetch::content(
        Arc::clone(&shared.storage),
        key.clone(),
        file.file.clone(),
        shared.room,
        sender,
    ));
    let mut scanner = LineScanner::new(shared.row_hash);
    // From here on an early return drops the half-sent file and with it the connection.
    let mut infile = connection
        .load_local(&load_statement(table), NAME)
        .await
        .map_err(refused)?;
    while let Some(piece) = pieces.recv().await {
        let before = scanner.rows();
        scanner.update(&piece);
        infile.send(&piece).await.map_err(refused)?;
        let new = scanner.rows() - before;
        *sent += new;
        let all = shared.sent_rows.fetch_add(new, Ordering::Relaxed) + new;
        (shared.progress)(all, shared.total_rows);
    }
    match fetching.join_next().await {
        Some(joined) => joined.map_err(ended)??,
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
    shared.fail_points.pass(FailPoint::LoadSent);
    connection.execute("COMMIT").await.map_err(refused)?;
    if let Some(insert) = behind {
        connection.execute(&insert).await.map_err(refused)?;
    }
    shared.steps.remember(&step);
    shared.fail_points.pass(FailPoint::LoadCommitted);
    Ok(Some((checksum, warning)))
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
