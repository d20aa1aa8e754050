//! Rows into objects: compressed, hashed and uploaded as they come, in constant memory.
//!
//! The way of a row: its reader writes its line into one of the shared [`buffers`]; a thread
//! [compresses](mod@compress) the buffers and hashes rows and files; a task uploads what comes out.
//! Each is bounded by the next, and the first by the server, which is made to wait.

mod buffers;
mod compress;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::archive::hash::sha256;
use crate::archive::layout::{self, SnapshotId};
use crate::archive::manifest::{DataFile, RelativeKey, ScriptFile, StoredFile};
use crate::storage::{ObjectWriter, Storage};

use super::ddl::KindScript;
use super::error::SnapshotError;
use super::progress::SnapshotProgress;

pub(super) use buffers::{Buffers, Lines, PIECE_BYTES};
pub(super) use compress::Counted;
use compress::{Block, Settings, Whole, compress, compressor};

/// The level of scripts, which are small: zstd's own default.
const SCRIPT_LEVEL: i32 = 3;
/// Compressed blocks between the compressor and the upload.
const BLOCKS: usize = 2;

/// What the reader of a chunk hands over.
#[derive(Debug)]
pub(super) enum Piece {
    /// Lines; the last may be cut, and goes on in the next piece.
    Rows(Lines),
    /// The chunk is over; without this the file is given up.
    End {
        /// The rows that were read.
        rows: u64,
    },
}

/// Where the files of one table go.
#[derive(Debug)]
pub(super) struct TableSink {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) id: SnapshotId,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) file_bytes: u64,
    pub(super) zstd_level: i32,
    /// The number of the table's next file; its chunks share it.
    pub(super) next_file: AtomicU64,
    pub(super) progress: Arc<SnapshotProgress>,
}

/// An object that is being written.
struct Upload {
    key: String,
    writer: Box<dyn ObjectWriter>,
}

impl TableSink {
    /// Writes the pieces of one chunk into as many files as they need.
    pub(super) async fn write(
        &self,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<(Vec<DataFile>, Counted), SnapshotError> {
        let (sender, blocks) = mpsc::channel(BLOCKS);
        let settings = Settings {
            table: format!("{}.{}", self.database, self.table),
            file_bytes: self.file_bytes,
            level: self.zstd_level,
            progress: Arc::clone(&self.progress),
        };
        // If this future is dropped the thread's channels close, which ends it.
        let compressing = tokio::task::spawn_blocking(move || compress(&settings, pieces, &sender));
        let stored = self.store(blocks).await;
        let counted = compressing
            .await
            .map_err(|error| SnapshotError::Task(error.to_string()))?;
        // Where both failed, the store was the first.
        Ok((stored?, counted?))
    }

    /// Uploads the blocks until there are no more; a file that has no end by then is given up.
    async fn store(
        &self,
        mut blocks: mpsc::Receiver<Block>,
    ) -> Result<Vec<DataFile>, SnapshotError> {
        let mut files = Vec::new();
        let mut open: Option<Upload> = None;
        while let Some(block) = blocks.recv().await {
            match block {
                Block::Bytes(bytes) => {
                    let upload = match &mut open {
                        Some(upload) => upload,
                        None => open.insert(self.begin().await?),
                    };
                    let length = bytes.len() as u64;
                    if let Err(error) = upload.writer.write(bytes).await {
                        give_up(open).await;
                        return Err(error.into());
                    }
                    self.progress.add_stored(length);
                }
                Block::End(whole) => {
                    if let Some(upload) = open.take() {
                        files.push(self.end(upload, whole).await?);
                    }
                }
            }
        }
        give_up(open).await;
        Ok(files)
    }

    async fn begin(&self) -> Result<Upload, SnapshotError> {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let key = layout::snapshot_data(&self.id, &self.database, &self.table, number);
        let writer = self.storage.upload(&key).await?;
        Ok(Upload { key, writer })
    }

    async fn end(&self, upload: Upload, whole: Whole) -> Result<DataFile, SnapshotError> {
        upload.writer.commit().await?;
        Ok(DataFile {
            rows: whole.rows,
            file: StoredFile {
                key: RelativeKey::within(&self.id, &upload.key)?,
                raw_bytes: whole.raw_bytes,
                stored_bytes: whole.stored_bytes,
                sha256: whole.sha256,
            },
        })
    }
}

async fn give_up(upload: Option<Upload>) {
    if let Some(upload) = upload {
        upload.writer.abort().await;
    }
}

/// Stores a script.
pub(super) async fn put_script(
    storage: &dyn Storage,
    id: &SnapshotId,
    key: &str,
    script: &KindScript,
) -> Result<ScriptFile, SnapshotError> {
    let text = script.script.encode(&script.kind.to_string());
    let compressed = compressor(SCRIPT_LEVEL)?
        .compress(&text)
        .map_err(SnapshotError::Compress)?;
    let file = StoredFile {
        key: RelativeKey::within(id, key)?,
        raw_bytes: text.len() as u64,
        stored_bytes: compressed.len() as u64,
        sha256: sha256(&compressed),
    };
    storage.put_if_absent(key, Bytes::from(compressed)).await?;
    Ok(ScriptFile {
        kind: script.kind,
        objects: script.objects,
        file,
    })
}
