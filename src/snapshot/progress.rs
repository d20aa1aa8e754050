//! How far a running snapshot is: what it does now, how much it has read, how long it may take.
//!
//! The estimate weighs each part of a table by the server's own sizes, which are not the sizes of
//! the rows as text: what is read already tells how the two relate. It is an estimate and is
//! shown as one; there is none as long as too little has been read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::plan::SnapshotPlan;

/// No table weighs less: each costs a few round trips and an object.
const LEAST_WEIGHT: u64 = 64 << 10;
/// For how long nothing is estimated.
const SILENCE: Duration = Duration::from_secs(2);
/// The part of the work that must be done before the rest is estimated.
const LEAST_PART: f64 = 0.01;
/// Bytes of text from which on they tell how text and the server's sizes relate.
const LEAST_KNOWN: u64 = 1 << 20;
/// What is read of a part does not count as more than this of it before its end.
const UNFINISHED: f64 = 0.98;
/// A part of which so many times its size was read shows that the sizes tell nothing.
const FAR_BEYOND: f64 = 1.5;

/// What a snapshot does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Reads what there is.
    #[default]
    Schema,
    /// Brings its connections to one GTID set.
    View,
    /// Reads rows.
    Rows,
    /// Compares the schema with that of the beginning, and commits.
    End,
}

/// How far a running snapshot is; read it at any time.
#[derive(Debug, Default)]
pub struct SnapshotProgress {
    rows: AtomicU64,
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    chunks: AtomicU64,
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    stage: Stage,
    /// When the first rows were asked for.
    since: Option<Instant>,
    tables: BTreeMap<String, TableWork>,
    /// The weight of all tables, and of those that are read, with their bytes as text.
    total: u64,
    done: u64,
    done_bytes: u64,
}

#[derive(Debug, Default)]
struct TableWork {
    weight: u64,
    /// Parts that are not read to their end; more may come, since parts are cut.
    left: usize,
    /// Parts that are being read.
    reading: usize,
    begun: bool,
    /// The bytes of the parts that are read.
    bytes: u64,
}

/// How a snapshot stands at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// What it does.
    pub stage: Stage,
    /// Rows read.
    pub rows: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Bytes handed to the store.
    pub stored_bytes: u64,
    /// Bytes read a second on the average, once rows are read.
    pub bytes_per_second: Option<f64>,
    /// The part of the rows' work that is done, from 0 to 1, if it can be told.
    pub done: Option<f64>,
    /// Seconds that the rest of the rows may take.
    pub seconds_left: Option<f64>,
    /// The tables that are being read.
    pub reading: Vec<String>,
}

impl SnapshotProgress {
    /// Of a plan, whose sizes serve for estimates.
    #[must_use]
    pub fn of(plan: &SnapshotPlan) -> Self {
        let progress = Self::default();
        {
            let mut work = progress.work();
            for table in &plan.tables {
                let weight = table.estimated_bytes.max(LEAST_WEIGHT);
                let name = format!("{}.{}", table.database, table.name);
                work.total += weight;
                let table = TableWork {
                    weight,
                    left: 1,
                    ..TableWork::default()
                };
                work.tables.insert(name, table);
            }
        }
        progress
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.work().stage = stage;
    }

    /// So many parts of a table will be read, or more if they are cut.
    pub(super) fn begin(&self, table: &str, parts: usize) {
        if parts == 0 {
            return self.skip(table);
        }
        let mut work = self.work();
        work.tables.entry(table.to_owned()).or_default().left = parts;
    }

    /// A part of a table was cut in two.
    pub(super) fn cut(&self, table: &str) {
        if let Some(table) = self.work().tables.get_mut(table) {
            table.left += 1;
        }
    }

    /// A table need not be read.
    pub(super) fn skip(&self, table: &str) {
        let mut work = self.work();
        if let Some(table) = work.tables.remove(table) {
            work.total -= table.weight;
        }
    }

    /// A part of a table is being read until what is returned goes.
    pub(super) fn reading<'a>(&'a self, table: &'a str) -> Reading<'a> {
        let mut work = self.work();
        work.since.get_or_insert_with(Instant::now);
        let state = work.tables.entry(table.to_owned()).or_default();
        state.begun = true;
        state.reading += 1;
        Reading {
            progress: self,
            table,
        }
    }

    pub(super) fn add(&self, rows: u64, raw_bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.raw_bytes.fetch_add(raw_bytes, Ordering::Relaxed);
    }

    pub(super) fn add_stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rows read so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes of rows before compression so far.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes.load(Ordering::Relaxed)
    }

    /// Bytes handed to the store so far.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Parts of tables that are done.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    /// How it stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing_at(Instant::now())
    }

    fn standing_at(&self, now: Instant) -> Standing {
        let work = self.work();
        let raw_bytes = self.raw_bytes();
        let elapsed = work
            .since
            .map(|since| now.saturating_duration_since(since))
            .filter(|elapsed| *elapsed >= SILENCE)
            .map(|elapsed| elapsed.as_secs_f64());
        let done = (work.stage == Stage::Rows && work.total > 0)
            .then(|| work.part(raw_bytes))
            .flatten();
        let known = done.filter(|done| *done >= LEAST_PART);
        Standing {
            stage: work.stage,
            rows: self.rows(),
            raw_bytes,
            stored_bytes: self.stored_bytes(),
            bytes_per_second: elapsed.map(|elapsed| raw_bytes as f64 / elapsed),
            done,
            seconds_left: elapsed
                .zip(known)
                .map(|(elapsed, done)| elapsed * (1.0 - done) / done),
            reading: work.reading(),
        }
    }
}

impl Work {
    /// The part of the whole weight that is read, unless the sizes have turned out to be useless.
    fn part(&self, raw_bytes: u64) -> Option<f64> {
        let open = self
            .tables
            .values()
            .filter(|table| table.begun && table.left > 0);
        let open = open.map(|table| table.weight).sum::<u64>() as f64;
        // How much weight a byte of text stands for, as far as it is known.
        let ratio = if self.done > 0 && self.done_bytes >= LEAST_KNOWN {
            self.done as f64 / self.done_bytes as f64
        } else {
            1.0
        };
        let unfinished = raw_bytes.saturating_sub(self.done_bytes) as f64 * ratio;
        let read = self.done as f64 + unfinished.min(open * UNFINISHED);
        (unfinished <= open * FAR_BEYOND).then(|| (read / self.total as f64).clamp(0.0, 1.0))
    }

    fn reading(&self) -> Vec<String> {
        let tables = self.tables.iter();
        tables
            .filter(|(_, table)| table.reading > 0)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// A part of a table that is being read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    progress: &'a SnapshotProgress,
    table: &'a str,
}

impl Reading<'_> {
    /// It was read to its end, with so many bytes.
    pub(super) fn done(self, raw_bytes: u64) {
        self.progress.chunks.fetch_add(1, Ordering::Relaxed);
        let mut work = self.progress.work();
        let Some(table) = work.tables.get_mut(self.table) else {
            return;
        };
        table.bytes += raw_bytes;
        table.left = table.left.saturating_sub(1);
        if table.left == 0 {
            let (weight, bytes) = (table.weight, table.bytes);
            work.done += weight;
            work.done_bytes += bytes;
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut work = self.progress.work();
        if let Some(table) = work.tables.get_mut(self.table) {
            table.reading = table.reading.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Two tables, of 60 MiB and of 20 MiB.
    fn progress() -> SnapshotProgress {
        let progress = SnapshotProgress::default();
        {
            let mut work = progress.work();
            work.total = 80 * MIB;
            for (name, size) in [("d.big", 60), ("d.small", 20)] {
                let table = TableWork {
                    weight: size * MIB,
                    ..TableWork::default()
                };
                work.tables.insert(name.to_owned(), table);
            }
        }
        progress.begin("d.big", 1);
        progress.begin("d.small", 1);
        progress.enter(Stage::Rows);
        progress
    }

    fn after(progress: &SnapshotProgress, seconds: u64) -> Standing {
        let since = progress.work().since.unwrap_or_else(Instant::now);
        progress.standing_at(since + Duration::from_secs(seconds))
    }

    fn close(value: Option<f64>, expected: f64) {
        let value = value.expect("an estimate");
        assert!((value - expected).abs() < 1e-6, "{value}, not {expected}");
    }

    #[test]
    fn what_is_read_tells_how_long_the_rest_takes() {
        let progress = progress();
        progress.cut("d.big");
        let first = progress.reading("d.big");
        let small = progress.reading("d.small");
        let standing = after(&progress, 1);
        assert_eq!(standing.seconds_left, None, "too early");
        assert_eq!(standing.reading, ["d.big", "d.small"]);

        // A byte of text counts as a byte of the server until a table is done.
        progress.add(1000, 20 * MIB);
        let standing = after(&progress, 10);
        close(standing.done, 0.25);
        close(standing.seconds_left, 30.0);
        close(standing.bytes_per_second, (2 * MIB) as f64);

        // The small one was 10 MiB of text for 20 MiB of the server: the other 10 MiB weigh 20.
        small.done(10 * MIB);
        let standing = after(&progress, 10);
        close(standing.done, 0.5);
        assert_eq!(standing.reading, ["d.big"]);
        // A part of two does not end the table.
        first.done(10 * MIB);
        close(after(&progress, 10).done, 0.5);
        assert!(after(&progress, 10).reading.is_empty());
        let second = progress.reading("d.big");
        progress.add(1000, 20 * MIB);
        close(after(&progress, 10).done, (20.0 + 60.0 * UNFINISHED) / 80.0);
        second.done(20 * MIB);
        close(after(&progress, 10).done, 1.0);
        assert_eq!(progress.chunks(), 3);
    }

    #[test]
    fn what_grows_beyond_its_estimate_is_never_more_than_all() {
        let progress = progress();
        let reading = progress.reading("d.small");
        progress.add(1, 25 * MIB);
        close(after(&progress, 10).done, 20.0 * UNFINISHED / 80.0);
        // So much more than the server says: nobody knows how much there is.
        progress.add(1, 475 * MIB);
        let standing = after(&progress, 10);
        assert_eq!((standing.done, standing.seconds_left), (None, None));
        reading.done(500 * MIB);
        close(after(&progress, 10).done, 0.25);
        progress.reading("d.big").done(MIB);
        close(after(&progress, 10).done, 1.0);
        progress.reading("d.unplanned").done(MIB);
        close(after(&progress, 10).done, 1.0);
    }

    #[test]
    fn what_need_not_be_read_is_no_part_of_the_work() {
        let progress = progress();
        progress.skip("d.big");
        let reading = progress.reading("d.small");
        progress.add(1, 10 * MIB);
        close(after(&progress, 10).done, 0.5);
        reading.done(10 * MIB);
        close(after(&progress, 10).done, 1.0);
    }

    #[test]
    fn a_reader_that_fails_reads_no_more() {
        let progress = progress();
        drop(progress.reading("d.big"));
        let standing = after(&progress, 10);
        assert!(standing.reading.is_empty());
        assert_eq!((progress.chunks(), standing.done), (0, Some(0.0)));
        assert_eq!(standing.seconds_left, None);
    }
}
