//! All rows of all tables: parts handed out to readers, each with a writer beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::archive::manifest::{DataFile, LoadColumn, RowChecksum, TableEntry};
use crate::archive::rows::{Scan, load_columns};
use crate::mysql::schema::{Schema, Table, has_rows};
use crate::mysql::wire::{WireConnection, WireError};
use crate::storage::Storage;

use super::changes;
use super::chunks::PlannedTable;
use super::chunks::queue::{Part, Queue};
use super::chunks::range::Range;
use super::chunks::split::Splitter;
use super::consistency::{ConsistentView, RELEASE_TABLE};
use super::error::SnapshotError;
use super::plan::SnapshotPlan;
use super::progress::SnapshotProgress;
use super::read::{Outcome, read_chunk};
use super::resume::Journal;
use super::write::{Buffers, Counted, TableSink};

/// Pieces between a reader and its writer.
const PIECES: usize = 8;
/// What the files that are being stored may hold in memory together, in bytes, before they are under
/// way. A reader waits for its share before it reads: one that waited with its rows in hand would
/// keep the buffers from those that go on.
const STORING: usize = 96 << 20;
/// The unit in which it is shared out.
const STORING_UNIT: usize = 64 << 10;

/// Whatever the server's own settings are: all rows come, every date that a column holds is a date
/// in a condition too, ranges are used as ranges, and nothing is read from elsewhere than InnoDB.
/// The second is not known to every 8.0.
const SETTINGS: [&str; 2] = [
    "SET SESSION sql_select_limit = 18446744073709551615, sql_big_selects = 1, \
     sql_mode = 'ALLOW_INVALID_DATES', \
     optimizer_switch = 'default', range_optimizer_max_mem_size = 0, \
     eq_range_index_dive_limit = 200",
    "SET SESSION use_secondary_engine = OFF",
];
/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;

/// A table and all that its readers share.
#[derive(Debug)]
struct Work {
    table: Table,
    /// As progress tells it.
    name: String,
    columns: Vec<LoadColumn>,
    /// The plan, if it was made for this very table.
    planned: Option<PlannedTable>,
    splitter: Option<Splitter>,
    sink: TableSink,
}

/// What came of a part.
struct Done {
    table: usize,
    files: Vec<DataFile>,
    counted: Counted,
}

/// Reads every table on the view's connections and hands the view back without them.
pub(super) async fn read_tables(
    plan: &SnapshotPlan,
    schema: &Schema,
    mut view: ConsistentView,
    storage: &Arc<dyn Storage>,
    progress: &Arc<SnapshotProgress>,
    journal: &Arc<Journal>,
) -> Result<(Vec<TableEntry>, ConsistentView), SnapshotError> {
    let planned: BTreeMap<(&str, &str), &PlannedTable> = plan
        .tables
        .iter()
        .map(|planned| ((planned.database.as_str(), planned.name.as_str()), planned))
        .collect();
    let tables: Vec<Work> = schema
        .tables
        .iter()
        .map(|table| {
            let planned = planned.get(&(table.database.as_str(), table.name.as_str()));
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
                zstd_level: plan.zstd_level,
                next_file: AtomicU64::new(journal.first_file()),
                progress: Arc::clone(progress),
            };
            Work::new(planned.copied(), table, sink)
        })
        .collect();
    let parts = parts(&tables);
    let mut counts = vec![0; tables.len()];
    for part in &parts {
        counts[part.table] += 1;
    }
    for (work, parts) in tables.iter().zip(&counts) {
        progress.begin(&work.name, *parts);
    }
    let expected = entries(&tables, Vec::new()).into_iter();
    journal.expect(expected.zip(counts));
    let queue = Arc::new(Queue::new(parts));
    let tables = Arc::new(tables);
    let buffers = Buffers::new();
    let storing = Arc::new(Semaphore::new(STORING / STORING_UNIT));
    // A dropped JoinSet aborts its tasks: the first error ends them all.
    let mut readers = JoinSet::new();
    for connection in std::mem::take(&mut view.readers) {
        let reader = Reader {
            connection,
            queue: Arc::clone(&queue),
            tables: Arc::clone(&tables),
            buffers: Arc::clone(&buffers),
            storing: Arc::clone(&storing),
            journal: Arc::clone(journal),
        };
        readers.spawn(reader.read());
    }
    let mut done = Vec::new();
    while let Some(joined) = readers.join_next().await {
        done.extend(joined.map_err(|error| SnapshotError::Task(error.to_string()))??);
    }
    Ok((entries(&tables, done), view))
}

impl Work {
    fn new(planned: Option<&PlannedTable>, table: &Table, sink: TableSink) -> Self {
        // A key or a partition of before an ALTER TABLE may not say where all rows are.
        let digest = changes::create_digest(table);
        let planned = planned.filter(|planned| planned.create_sha256 == digest);
        let splitter = planned.and_then(|planned| {
            let key = planned.key.clone().filter(|key| key.can_cut())?;
            let (database, name) = (&table.database, &table.name);
            Some(Splitter::new(
                database,
                name,
                key,
                planned.chunks,
                planned.chunk_rows?,
            ))
        });
        Self {
            columns: load_columns(&table.columns),
            planned: planned.cloned(),
            splitter,
            sink,
            name: table.display_name(),
            table: table.clone(),
        }
    }

    fn scan<'a>(&'a self, range: &'a Range) -> Scan<'a> {
        // Partitions lie beside each other: merging several into one order would only cost.
        let planned = self.planned.as_ref();
        let key =
            planned.filter(|planned| planned.partitions.is_empty() || range.partitions.len() == 1);
        let key = key.and_then(|planned| planned.key.as_ref());
        Scan {
            database: &self.table.database,
            table: &self.table.name,
            columns: &self.columns,
            partitions: &range.partitions,
            order: key.map(|key| {
                let columns = key.columns.iter().skip(range.fixed());
                let columns = columns.map(|column| (column.name.as_str(), column.descending));
                (key.index.as_str(), columns.collect())
            }),
            condition: key.and_then(|key| range.condition(key)),
        }
    }

    /// About how large a part is; one that nothing is known of may have any size.
    fn part_bytes(&self) -> usize {
        let Some(planned) = &self.planned else {
            return usize::MAX;
        };
        // The server's estimate, which is old where a table was just filled.
        let bytes = planned.estimated_bytes.max(self.table.data_bytes);
        usize::try_from(bytes / planned.chunks.max(1)).unwrap_or(usize::MAX)
    }

    fn failed(&self, source: WireError) -> SnapshotError {
        SnapshotError::Table {
            table: self.table.display_name(),
            source,
        }
    }
}

/// The parts that a table has before anything is cut by its key.
fn ranges(planned: Option<&PlannedTable>) -> Vec<Range> {
    let cuts = planned.is_some_and(|planned| planned.chunk_rows.is_some());
    match planned.map(|planned| &planned.partitions[..]) {
        Some(groups) if groups.len() > 1 || (groups.len() == 1 && cuts) => groups
            .iter()
            .map(|group| Range {
                partitions: group.clone(),
                ..Range::default()
            })
            .collect(),
        _ => vec![Range::default()],
    }
}

/// The parts in the order in which they are taken: the biggest tables first.
fn parts(tables: &[Work]) -> Vec<Part> {
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(tables[n].table.data_bytes));
    order
        .into_iter()
        .filter(|&table| has_rows(&tables[table].table.engine))
        .flat_map(|table| {
            let ranges = ranges(tables[table].planned.as_ref());
            ranges.into_iter().map(move |range| Part { table, range })
        })
        .collect()
}

/// A connection of the view that reads parts until there are no more.
struct Reader {
    connection: WireConnection,
    queue: Arc<Queue>,
    tables: Arc<Vec<Work>>,
    buffers: Arc<Buffers>,
    storing: Arc<Semaphore>,
    journal: Arc<Journal>,
}

impl Reader {
    async fn read(mut self) -> Result<Vec<Done>, SnapshotError> {
        for setting in SETTINGS {
            match self.connection.execute(setting).await {
                Err(WireError::Server { code, .. }) if code == UNKNOWN_VARIABLE => {}
                other => {
                    other?;
                }
            }
        }
        let mut done = Vec::new();
        let mut writers = JoinSet::new();
        while let Some(part) = self.queue.take().await {
            let part = self.cut(part).await?;
            self.read_part(&part, &mut writers).await?;
            // While the store makes one part durable the next is read, but not more than that.
            while writers.len() > 1 {
                done.extend(joined(&mut writers).await?);
            }
        }
        while let Some(part) = joined(&mut writers).await? {
            done.push(part);
        }
        Ok(done)
    }

    /// Cuts a part until it has its size; others get the rest.
    async fn cut(&mut self, mut part: Part) -> Result<Part, SnapshotError> {
        let work = &self.tables[part.table];
        if let Some(splitter) = &work.splitter {
            loop {
                let cut = splitter.next_cut(&mut self.connection, &part.range).await;
                let Some(cut) = cut.map_err(|error| work.failed(error))? else {
                    break;
                };
                let (first, second) = part.range.cut(&cut.at);
                part.range = first;
                self.journal.part_cut(part.table);
                work.sink.progress.cut(&work.name);
                self.queue.give_back(Part {
                    range: second,
                    ..part
                });
                if cut.first_is_done {
                    break;
                }
            }
        }
        self.queue.settled();
        Ok(part)
    }

    /// Reads a part; its writer, which ends when it is stored, is left to the caller.
    async fn read_part(
        &mut self,
        part: &Part,
        writers: &mut JoinSet<Result<Done, SnapshotError>>,
    ) -> Result<(), SnapshotError> {
        let number = part.table;
        let share = self.share(number).await;
        let (sender, receiver) = mpsc::channel(PIECES);
        let (tables, journal) = (Arc::clone(&self.tables), Arc::clone(&self.journal));
        writers.spawn(async move {
            let _share = share;
            let work = &tables[number];
            let reading = work.sink.progress.reading(&work.name);
            let (files, counted) = work.sink.write(receiver).await?;
            reading.done(files.iter().map(|file| file.file.raw_bytes).sum());
            journal
                .part_done(number, &files, counted.rows, counted.checksum)
                .await?;
            Ok(Done {
                table: number,
                files,
                counted,
            })
        });
        let work = &self.tables[number];
        let scan = work.scan(&part.range);
        match read_chunk(&mut self.connection, &scan, &self.buffers, sender).await {
            Ok(Outcome::AllRead) => {
                self.connection.execute(RELEASE_TABLE).await?;
                Ok(())
            }
            // A writer that takes no more has an error to tell.
            Ok(Outcome::NotWanted) => {
                while joined(writers).await?.is_some() {}
                Err(SnapshotError::Task("a writer is gone".to_owned()))
            }
            Err(source) => {
                // They clean up what is half stored.
                while writers.join_next().await.is_some() {}
                Err(work.failed(source))
            }
        }
    }
}

impl Reader {
    /// Waits for the memory that storing a part may take. Whoever has it ends without waiting for
    /// another one that waits here.
    async fn share(&mut self, table: usize) -> OwnedSemaphorePermit {
        let work = &self.tables[table];
        let bytes = work.part_bytes().min(work.sink.storage.upload_bytes());
        let units = bytes.div_ceil(STORING_UNIT).min(STORING / STORING_UNIT);
        Arc::clone(&self.storing)
            .acquire_many_owned(u32::try_from(units).expect("all of it is no more"))
            .await
            .expect("it is never closed")
    }
}

/// What the next writer that ends has to tell; none if there is no writer.
async fn joined(
    writers: &mut JoinSet<Result<Done, SnapshotError>>,
) -> Result<Option<Done>, SnapshotError> {
    match writers.join_next().await {
        None => Ok(None),
        Some(joined) => joined
            .map_err(|error| SnapshotError::Task(error.to_string()))?
            .map(Some),
    }
}

fn entries(tables: &[Work], done: Vec<Done>) -> Vec<TableEntry> {
    let mut entries: Vec<TableEntry> = tables
        .iter()
        .map(|work| TableEntry {
            database: work.table.database.clone(),
            name: work.table.name.clone(),
            columns: work.columns.clone(),
            files: Vec::new(),
            rows: 0,
            row_checksum: RowChecksum::default(),
            create_sha256: changes::create_digest(&work.table),
            engine: (!work.table.is_innodb()).then(|| work.table.engine.clone()),
        })
        .collect();
    for part in done {
        let entry = &mut entries[part.table];
        entry.files.extend(part.files);
        entry.rows += part.counted.rows;
        entry.row_checksum.add(part.counted.checksum);
    }
    for entry in &mut entries {
        // The number in the key, which is about the order of the rows.
        entry.files.sort_by_key(|file| file.file.key.to_string());
    }
    entries
}
