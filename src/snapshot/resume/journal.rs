//! What a run records of itself, so that another may go on with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::TakenOver;
use crate::archive::layout::{self, SnapshotId};
use crate::archive::manifest::{DataFile, RowChecksum, TableEntry};
use crate::archive::progress::{TablesRecord, ViewRecord};
use crate::error::with_causes;
use crate::snapshot::error::SnapshotError;
use crate::storage::{Storage, StorageError};

/// Tables that are done are recorded at most so often.
const RECORD_INTERVAL: Duration = Duration::from_secs(5);

/// Records which tables are done, beside the reading.
#[derive(Debug)]
pub(in crate::snapshot) struct Journal {
    storage: Arc<dyn Storage>,
    id: SnapshotId,
    first_file: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tables: Vec<Open>,
    /// Done, and in no record yet.
    done: Vec<TableEntry>,
    recorded: Option<Instant>,
    /// The number of the next record.
    next: u64,
}

/// A table of which parts are to be read still.
#[derive(Debug)]
struct Open {
    entry: TableEntry,
    parts: usize,
}

impl Journal {
    /// Begins, for a new snapshot or where a dead run ended.
    pub(in crate::snapshot) fn begin(
        storage: &Arc<dyn Storage>,
        id: &SnapshotId,
        taken: Option<&TakenOver>,
    ) -> Self {
        Self {
            storage: Arc::clone(storage),
            id: id.clone(),
            first_file: taken.map_or(0, |taken| taken.first_file),
            state: Mutex::new(State {
                tables: Vec::new(),
                done: Vec::new(),
                recorded: None,
                next: taken.map_or(0, |taken| taken.next_record),
            }),
        }
    }

    /// The number of each table's first file that is written: beyond what is there.
    pub(in crate::snapshot) const fn first_file(&self) -> u64 {
        self.first_file
    }

    /// Puts the record of the view.
    ///
    /// # Errors
    ///
    /// What the store fails with.
    pub(in crate::snapshot) async fn put_view(
        &self,
        view: &ViewRecord,
    ) -> Result<(), SnapshotError> {
        let json = serde_json::to_vec_pretty(view).map_err(SnapshotError::Json)?;
        let key = layout::snapshot_view(&self.id);
        self.storage.put_if_absent(&key, Bytes::from(json)).await?;
        Ok(())
    }

    /// Says which tables will be read, in their order, and in how many parts.
    pub(in crate::snapshot) fn expect(&self, tables: impl Iterator<Item = (TableEntry, usize)>) {
        self.state().tables = tables.map(|(entry, parts)| Open { entry, parts }).collect();
    }

    /// A part of a table has become two.
    pub(in crate::snapshot) fn part_cut(&self, table: usize) {
        if let Some(open) = self.state().tables.get_mut(table) {
            open.parts += 1;
        }
    }

    /// A part of a table is stored. Now and then this puts a record.
    ///
    /// # Errors
    ///
    /// What the store fails with.
    pub(in crate::snapshot) async fn part_done(
        &self,
        table: usize,
        files: &[DataFile],
        rows: u64,
        checksum: RowChecksum,
    ) -> Result<(), SnapshotError> {
        let Some((key, record)) = self.note(table, files, rows, checksum) else {
            return Ok(());
        };
        let json = serde_json::to_vec(&record).map_err(SnapshotError::Json)?;
        match self.storage.put_if_absent(&key, Bytes::from(json)).await {
            // Without the record a later run reads these tables again; that is no reason to fail.
            Err(error @ StorageError::Unavailable { .. }) => {
                tracing::debug!(key, error = with_causes(&error), "not recorded");
                Ok(())
            }
            put => Ok(put?),
        }
    }

    fn note(
        &self,
        table: usize,
        files: &[DataFile],
        rows: u64,
        checksum: RowChecksum,
    ) -> Option<(String, TablesRecord)> {
        let mut state = self.state();
        let open = state.tables.get_mut(table)?;
        open.parts = open.parts.saturating_sub(1);
        open.entry.files.extend_from_slice(files);
        open.entry.rows += rows;
        open.entry.row_checksum.add(checksum);
        if open.parts == 0 {
            let mut entry = open.entry.clone();
            entry.files.sort_by(|a, b| a.file.key.cmp(&b.file.key));
            state.done.push(entry);
        }
        let recent = state
            .recorded
            .is_some_and(|at| at.elapsed() < RECORD_INTERVAL);
        if state.done.is_empty() || recent {
            return None;
        }
        state.recorded = Some(Instant::now());
        let key = layout::snapshot_progress(&self.id, state.next);
        state.next += 1;
        let tables = std::mem::take(&mut state.done);
        Some((key, TablesRecord { tables }))
    }

    /// Removes the records once the manifest is there. What stays is an orphan that does no harm.
    pub(in crate::snapshot) async fn remove(&self) {
        let records = self.state().next;
        let keys = (0..records).map(|n| layout::snapshot_progress(&self.id, n));
        // The view's first: records without it are of no use to anybody.
        for key in std::iter::once(layout::snapshot_view(&self.id)).chain(keys) {
            if let Err(error) = self.storage.delete(&key).await {
                tracing::debug!(key, error = with_causes(&error), "a record stays behind");
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing in here can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
