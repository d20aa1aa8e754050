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
    tables: BTreeMap<String, Weight>,
    total: u64,
    /// The weight of the parts that are read, and their bytes as text.
    done: f64,
    done_bytes: u64,
    /// The tables of which a part is being read, with how many parts.
    reading: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Weight {
    of_a_part: f64,
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
                let parts = table.chunks.len().max(1) as f64;
                let name = format!("{}.{}", table.database, table.name);
                work.total += weight;
                let of_a_part = weight as f64 / parts;
                work.tables.insert(name, Weight { of_a_part });
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

    /// A part of a table is being read until what is returned goes.
    pub(super) fn reading(&self, table: String) -> Reading<'_> {
        let mut work = self.work();
        work.since.get_or_insert_with(Instant::now);
        *work.reading.entry(table.clone()).or_default() += 1;
        drop(work);
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
            reading: work.reading.keys().cloned().collect(),
        }
    }
}

impl Work {
    /// The part of the whole weight that is read, unless the sizes have turned out to be useless.
    fn part(&self, raw_bytes: u64) -> Option<f64> {
        let open: f64 = self
            .reading
            .iter()
            .map(|(table, parts)| self.weight_of(table) * *parts as f64)
            .sum();
        // How much weight a byte of text stands for, as far as it is known.
        let ratio = if self.done > 0.0 && self.done_bytes >= LEAST_KNOWN {
            self.done / self.done_bytes as f64
        } else {
            1.0
        };
        let unfinished = raw_bytes.saturating_sub(self.done_bytes) as f64 * ratio;
        let read = self.done + unfinished.min(open * UNFINISHED);
        (unfinished <= open * FAR_BEYOND).then(|| (read / self.total as f64).clamp(0.0, 1.0))
    }

    fn weight_of(&self, table: &str) -> f64 {
        self.tables
            .get(table)
            .map_or(0.0, |weight| weight.of_a_part)
    }
}

/// A part of a table that is being read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    progress: &'a SnapshotProgress,
    table: String,
}

impl Reading<'_> {
    /// It was read to its end.
    pub(super) fn done(self, raw_bytes: u64) {
        self.progress.chunks.fetch_add(1, Ordering::Relaxed);
        let mut work = self.progress.work();
        let weight = work.weight_of(&self.table);
        work.done += weight;
        work.done_bytes += raw_bytes;
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut work = self.progress.work();
        if let Some(parts) = work.reading.get_mut(&self.table) {
            *parts -= 1;
            if *parts == 0 {
                work.reading.remove(&self.table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Two tables, of 60 MiB in three parts and of 20 MiB in one.
    fn progress() -> SnapshotProgress {
        let progress = SnapshotProgress::default();
        {
            let mut work = progress.work();
            work.total = 80 * MIB;
            for name in ["d.big", "d.small"] {
                let of_a_part = (20 * MIB) as f64;
                work.tables.insert(name.to_owned(), Weight { of_a_part });
            }
        }
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
        let first = progress.reading("d.big".to_owned());
        let second = progress.reading("d.small".to_owned());
        let standing = after(&progress, 1);
        assert_eq!(standing.seconds_left, None, "too early");
        assert_eq!(standing.reading, ["d.big", "d.small"]);

        // A byte of text counts as a byte of the server until a part is done.
        progress.add(1000, 20 * MIB);
        let standing = after(&progress, 10);
        close(standing.done, 0.25);
        close(standing.seconds_left, 30.0);
        close(standing.bytes_per_second, (2 * MIB) as f64);

        // The part was 10 MiB of text for 20 MiB of the server: the other 10 MiB weigh 20 too.
        first.done(10 * MIB);
        let standing = after(&progress, 10);
        close(standing.done, (20.0 + 20.0 * UNFINISHED) / 80.0);
        assert_eq!(standing.reading, ["d.small"]);
        second.done(10 * MIB);
        close(after(&progress, 10).done, 0.5);
        assert_eq!(progress.chunks(), 2);
        assert!(after(&progress, 10).reading.is_empty());
    }

    #[test]
    fn what_grows_beyond_its_estimate_is_never_more_than_all() {
        let progress = progress();
        let reading = progress.reading("d.small".to_owned());
        progress.add(1, 25 * MIB);
        close(after(&progress, 10).done, 20.0 * UNFINISHED / 80.0);
        // So much more than the server says: nobody knows how much there is.
        progress.add(1, 475 * MIB);
        let standing = after(&progress, 10);
        assert_eq!((standing.done, standing.seconds_left), (None, None));
        reading.done(500 * MIB);
        for _ in 0..5 {
            progress.reading("d.big".to_owned()).done(MIB);
        }
        close(after(&progress, 10).done, 1.0);
        progress.reading("d.unplanned".to_owned()).done(MIB);
        close(after(&progress, 10).done, 1.0);
    }

    #[test]
    fn a_reader_that_fails_reads_no_more() {
        let progress = progress();
        drop(progress.reading("d.big".to_owned()));
        let standing = after(&progress, 10);
        assert!(standing.reading.is_empty());
        assert_eq!((progress.chunks(), standing.done), (0, Some(0.0)));
        assert_eq!(standing.seconds_left, None);
    }
}
