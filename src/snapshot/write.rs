//! Rows into objects: compressed, hashed and uploaded as they come, in constant memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use zstd::stream::write::Encoder;

use crate::archive::hash::{Sha256Writer, sha256};
use crate::archive::layout::{self, SnapshotId};
use crate::archive::manifest::{DataFile, RelativeKey, ScriptFile, StoredFile};
use crate::storage::{ObjectWriter, Storage};

use super::ddl::KindScript;
use super::error::SnapshotError;
use super::progress::SnapshotProgress;

/// zstd's own default: the level beyond which time grows faster than space shrinks.
const LEVEL: i32 = 3;
/// Compressed bytes that are handed to the store at once.
const WRITE_BYTES: usize = 256 << 10;

/// What the reader of a chunk hands over.
#[derive(Debug)]
pub(super) enum Piece {
    /// Whole lines.
    Rows { lines: Vec<u8>, rows: u64 },
    /// The chunk is over; without this the file is given up.
    End,
}

/// Where the files of one table go.
#[derive(Debug)]
pub(super) struct TableSink {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) id: SnapshotId,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) file_bytes: u64,
    /// The number of the table's next file; its chunks share it.
    pub(super) next_file: AtomicU64,
    pub(super) progress: Arc<SnapshotProgress>,
}

impl TableSink {
    /// Writes the pieces of one chunk into as many files as they need.
    pub(super) async fn write(
        &self,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<Vec<DataFile>, SnapshotError> {
        let mut files = Vec::new();
        let mut open: Option<OpenFile> = None;
        loop {
            match pieces.recv().await {
                Some(Piece::Rows { lines, rows }) => {
                    let file = match &mut open {
                        Some(file) => file,
                        None => open.insert(self.open().await?),
                    };
                    if let Err(error) = file.write(&lines, rows, &self.progress).await {
                        if let Some(file) = open.take() {
                            file.writer.abort().await;
                        }
                        return Err(error);
                    }
                    if file.raw_bytes >= self.file_bytes
                        && let Some(file) = open.take()
                    {
                        files.push(file.finish(&self.id, &self.progress).await?);
                    }
                }
                Some(Piece::End) => {
                    if let Some(file) = open {
                        files.push(file.finish(&self.id, &self.progress).await?);
                    }
                    return Ok(files);
                }
                None => {
                    if let Some(file) = open {
                        file.writer.abort().await;
                    }
                    return Err(SnapshotError::Cancelled);
                }
            }
        }
    }

    async fn open(&self) -> Result<OpenFile, SnapshotError> {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let key = layout::snapshot_data(&self.id, &self.database, &self.table, number);
        let writer = self.storage.upload(&key).await?;
        Ok(OpenFile {
            key,
            writer,
            encoder: encoder()?,
            digest: Sha256Writer::default(),
            rows: 0,
            raw_bytes: 0,
            stored_bytes: 0,
        })
    }
}

fn encoder() -> Result<Encoder<'static, Vec<u8>>, SnapshotError> {
    let mut encoder = Encoder::new(Vec::new(), LEVEL).map_err(SnapshotError::Compress)?;
    encoder
        .include_checksum(true)
        .map_err(SnapshotError::Compress)?;
    Ok(encoder)
}

struct OpenFile {
    key: String,
    writer: Box<dyn ObjectWriter>,
    encoder: Encoder<'static, Vec<u8>>,
    digest: Sha256Writer,
    rows: u64,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl OpenFile {
    async fn write(
        &mut self,
        lines: &[u8],
        rows: u64,
        progress: &SnapshotProgress,
    ) -> Result<(), SnapshotError> {
        use std::io::Write as _;
        self.encoder
            .write_all(lines)
            .map_err(SnapshotError::Compress)?;
        self.rows += rows;
        self.raw_bytes += lines.len() as u64;
        progress.add(rows, lines.len() as u64);
        if self.encoder.get_ref().len() >= WRITE_BYTES {
            let compressed = std::mem::take(self.encoder.get_mut());
            self.store(compressed, progress).await?;
        }
        Ok(())
    }

    async fn store(
        &mut self,
        compressed: Vec<u8>,
        progress: &SnapshotProgress,
    ) -> Result<(), SnapshotError> {
        self.digest.update(&compressed);
        self.stored_bytes += compressed.len() as u64;
        progress.add_stored(compressed.len() as u64);
        self.writer.write(Bytes::from(compressed)).await?;
        Ok(())
    }

    async fn finish(
        mut self,
        id: &SnapshotId,
        progress: &SnapshotProgress,
    ) -> Result<DataFile, SnapshotError> {
        let rest = self
            .encoder
            .do_finish()
            .map(|()| std::mem::take(self.encoder.get_mut()));
        let stored = match rest {
            Ok(rest) => self.store(rest, progress).await,
            Err(error) => Err(SnapshotError::Compress(error)),
        };
        if let Err(error) = stored {
            self.writer.abort().await;
            return Err(error);
        }
        self.writer.commit().await?;
        Ok(DataFile {
            rows: self.rows,
            file: StoredFile {
                key: RelativeKey::within(id, &self.key)?,
                raw_bytes: self.raw_bytes,
                stored_bytes: self.stored_bytes,
                sha256: self.digest.finish(),
            },
        })
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
    let mut encoder = encoder()?;
    std::io::Write::write_all(&mut encoder, &text).map_err(SnapshotError::Compress)?;
    let compressed = encoder.finish().map_err(SnapshotError::Compress)?;
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
