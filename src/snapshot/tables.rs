//! All rows of all tables: parts handed out to readers, each with a writer beside it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::archive::manifest::{DataFile, RowChecksum, TableEntry};
use crate::archive::rows::load_columns;
use crate::mysql::schema::{Schema, Table, has_rows};
use crate::mysql::wire::WireConnection;
use crate::storage::Storage;

use super::changes;
use super::consistency::ConsistentView;
use super::error::SnapshotError;
use super::plan::{ChunkRange, SnapshotPlan};
use super::read::{Chunk, ReadRows, read_chunk};
use super::run::SnapshotProgress;
use super::write::TableSink;

/// Pieces between a reader and its writer.
const PIECES: usize = 4;

/// A part of a table that some reader will take.
struct Work {
    table: usize,
    chunk: usize,
    range: ChunkRange,
}

/// What came of a part.
struct Done {
    table: usize,
    chunk: usize,
    files: Vec<DataFile>,
    read: ReadRows,
}

/// Reads every table on the view's connections and hands the view back without them.
pub(super) async fn read_tables(
    plan: &SnapshotPlan,
    schema: &Schema,
    mut view: ConsistentView,
    storage: &Arc<dyn Storage>,
    progress: &Arc<SnapshotProgress>,
) -> Result<(Vec<TableEntry>, ConsistentView), SnapshotError> {
    let queue: Arc<Mutex<VecDeque<Work>>> = Arc::new(Mutex::new(work(plan, schema)));
    let tables: Arc<Vec<(Table, TableSink)>> = Arc::new(
        schema
            .tables
            .iter()
            .map(|table| {
                let sink = TableSink {
                    storage: Arc::clone(storage),
                    id: plan.id.clone(),
                    database: table.database.clone(),
                    table: table.name.clone(),
                    file_bytes: if table.is_innodb() {
                        plan.file_bytes
                    } else {
                        // Files are loaded side by side, which not every engine can bear.
                        u64::MAX
                    },
                    next_file: AtomicU64::new(0),
                    progress: Arc::clone(progress),
                };
                (table.clone(), sink)
            })
            .collect(),
    );
    // A dropped JoinSet aborts its tasks: the first error ends them all.
    let mut readers = JoinSet::new();
    for connection in std::mem::take(&mut view.readers) {
        let (queue, tables) = (Arc::clone(&queue), Arc::clone(&tables));
        readers.spawn(read_queue(connection, queue, tables));
    }
    let mut done: BTreeMap<(usize, usize), Done> = BTreeMap::new();
    while let Some(joined) = readers.join_next().await {
        let parts = joined.map_err(|error| SnapshotError::Task(error.to_string()))??;
        done.extend(
            parts
                .into_iter()
                .map(|part| ((part.table, part.chunk), part)),
        );
    }
    Ok((entries(schema, done), view))
}

/// The parts in the order in which they are taken: the biggest tables first.
fn work(plan: &SnapshotPlan, schema: &Schema) -> VecDeque<Work> {
    let mut order: Vec<usize> = (0..schema.tables.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(schema.tables[n].data_bytes));
    let whole = [ChunkRange::Whole];
    order
        .into_iter()
        .flat_map(|n| {
            let table = &schema.tables[n];
            let planned = plan
                .tables
                .iter()
                .find(|planned| planned.database == table.database && planned.name == table.name);
            let chunks = match planned {
                Some(planned) => &planned.chunks,
                None if has_rows(&table.engine) => &whole[..],
                None => &[],
            };
            chunks
                .iter()
                .enumerate()
                .map(move |(chunk, range)| Work {
                    table: n,
                    chunk,
                    range: range.clone(),
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

async fn read_queue(
    mut connection: WireConnection,
    queue: Arc<Mutex<VecDeque<Work>>>,
    tables: Arc<Vec<(Table, TableSink)>>,
) -> Result<Vec<Done>, SnapshotError> {
    let mut done = Vec::new();
    loop {
        let Some(work) = queue.lock().await.pop_front() else {
            return Ok(done);
        };
        let (table, sink) = &tables[work.table];
        let columns = load_columns(&table.columns);
        let chunk = Chunk {
            database: &table.database,
            table: &table.name,
            columns: &columns,
            primary_key: &table.primary_key,
            range: &work.range,
        };
        let (sender, receiver) = mpsc::channel(PIECES);
        // Reading and compressing run beside each other; the writer has a task of its own, which
        // ends with the channel.
        let mut writer = JoinSet::new();
        let all = Arc::clone(&tables);
        writer.spawn(async move { all[work.table].1.write(receiver).await });
        let read = read_chunk(&mut connection, &chunk, sender).await;
        let written = match writer.join_next().await {
            Some(joined) => joined.map_err(|error| SnapshotError::Task(error.to_string()))?,
            None => return Err(SnapshotError::Task("the writer is gone".to_owned())),
        };
        let read = read.map_err(|source| SnapshotError::Table {
            table: table.display_name(),
            source,
        })?;
        sink.progress.add_chunk();
        done.push(Done {
            table: work.table,
            chunk: work.chunk,
            files: written?,
            read,
        });
    }
}

fn entries(schema: &Schema, done: BTreeMap<(usize, usize), Done>) -> Vec<TableEntry> {
    let mut entries: Vec<TableEntry> = schema
        .tables
        .iter()
        .map(|table| TableEntry {
            database: table.database.clone(),
            name: table.name.clone(),
            columns: load_columns(&table.columns),
            files: Vec::new(),
            rows: 0,
            row_checksum: RowChecksum::default(),
            create_sha256: changes::create_digest(table),
            engine: (!table.is_innodb()).then(|| table.engine.clone()),
        })
        .collect();
    for ((table, _), part) in done {
        let entry = &mut entries[table];
        entry.files.extend(part.files);
        entry.rows += part.read.rows;
        entry.row_checksum.add(part.read.checksum);
    }
    entries
}
