//! Lines into zstd files, with everything that is counted and hashed, on a thread of its own: the
//! threads that serve connections never wait for a compressor.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use zstd::bulk::Compressor;

use crate::archive::hash::{Sha256, Sha256Writer};
use crate::archive::manifest::RowChecksum;
use crate::archive::rows::LineScanner;
use crate::snapshot::error::SnapshotError;
use crate::snapshot::run::SnapshotProgress;

use super::Piece;

/// Compressed bytes that are handed to the store at once.
const BLOCK_BYTES: usize = 256 << 10;

/// What is to be stored of a part of a table.
#[derive(Debug)]
pub(super) enum Block {
    /// The next bytes of the present file.
    Bytes(Bytes),
    /// The file is whole.
    End(Whole),
}

/// A whole file.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) rows: u64,
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) sha256: Sha256,
}

/// How files are made.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Whose rows they are, for messages.
    pub(super) table: String,
    /// Raw bytes after which the rows go on in another file.
    pub(super) file_bytes: u64,
    pub(super) level: i32,
    pub(super) progress: Arc<SnapshotProgress>,
}

/// Rows and their checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::snapshot) struct Counted {
    pub(in crate::snapshot) rows: u64,
    pub(in crate::snapshot) checksum: RowChecksum,
}

/// A compressor of the given level whose frames say whether they are damaged.
pub(super) fn compressor(level: i32) -> Result<Compressor<'static>, SnapshotError> {
    let mut compressor = Compressor::new(level).map_err(SnapshotError::Compress)?;
    compressor
        .include_checksum(true)
        .map_err(SnapshotError::Compress)?;
    Ok(compressor)
}

/// Compresses the pieces of one part of a table. Blocks.
///
/// # Errors
///
/// When the rows written are not those read, the reader gave up ([`SnapshotError::Cancelled`]) or
/// zstd failed; if the one who stores gave up, [`SnapshotError::Cancelled`] too, for its own error
/// tells why.
pub(super) fn compress(
    settings: &Settings,
    mut pieces: mpsc::Receiver<Piece>,
    blocks: &mpsc::Sender<Block>,
) -> Result<Counted, SnapshotError> {
    let mut scanner = LineScanner::default();
    let mut open: Option<OpenFile> = None;
    while let Some(piece) = pieces.blocking_recv() {
        let lines = match piece {
            Piece::Rows(lines) => lines,
            Piece::End { rows } => {
                if let Some(file) = open {
                    file.finish(blocks)?;
                }
                return counted(settings, scanner, rows);
            }
        };
        let before = scanner.rows();
        scanner.update(&lines);
        let rows = scanner.rows() - before;
        let mut file = match open.take() {
            Some(file) => file,
            None => OpenFile::new(settings.level)?,
        };
        file.write(&lines, rows)?;
        settings.progress.add(rows, lines.len() as u64);
        // No field has a raw newline in it, so a file is never cut within a row.
        if file.raw_bytes >= settings.file_bytes && lines.ends_with(b"\n") {
            drop(lines);
            file.finish(blocks)?;
        } else {
            drop(lines);
            if file.out.len() >= BLOCK_BYTES {
                file.pass_on(blocks)?;
            }
            open = Some(file);
        }
    }
    Err(SnapshotError::Cancelled)
}

/// Compares what was written with what was read.
fn counted(settings: &Settings, scanner: LineScanner, read: u64) -> Result<Counted, SnapshotError> {
    let written = scanner.rows();
    match scanner.finish() {
        Some((rows, checksum)) if rows == read => Ok(Counted { rows, checksum }),
        _ => Err(SnapshotError::Miscounted {
            table: settings.table.clone(),
            read,
            written,
        }),
    }
}

/// A file of frames, one of each piece: a compressor that gets all of a frame at once need not copy
/// it, nor look for matches across the seam of a ring.
struct OpenFile {
    compressor: Compressor<'static>,
    /// The memory of one frame.
    frame: Vec<u8>,
    /// Compressed, and not yet handed over.
    out: Vec<u8>,
    digest: Sha256Writer,
    rows: u64,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl OpenFile {
    fn new(level: i32) -> Result<Self, SnapshotError> {
        Ok(Self {
            compressor: compressor(level)?,
            frame: Vec::new(),
            out: Vec::new(),
            digest: Sha256Writer::default(),
            rows: 0,
            raw_bytes: 0,
            stored_bytes: 0,
        })
    }

    fn write(&mut self, lines: &[u8], rows: u64) -> Result<(), SnapshotError> {
        // It grows to the largest, and is written anew each time.
        self.frame.clear();
        self.frame
            .reserve(zstd::zstd_safe::compress_bound(lines.len()));
        self.compressor
            .compress_to_buffer(lines, &mut self.frame)
            .map_err(SnapshotError::Compress)?;
        self.digest.update(&self.frame);
        self.out.extend_from_slice(&self.frame);
        self.rows += rows;
        self.raw_bytes += lines.len() as u64;
        Ok(())
    }

    /// Hands over what is compressed.
    fn pass_on(&mut self, blocks: &mpsc::Sender<Block>) -> Result<(), SnapshotError> {
        let compressed = std::mem::take(&mut self.out);
        self.stored_bytes += compressed.len() as u64;
        blocks
            .blocking_send(Block::Bytes(Bytes::from(compressed)))
            .map_err(|_| SnapshotError::Cancelled)
    }

    fn finish(mut self, blocks: &mpsc::Sender<Block>) -> Result<(), SnapshotError> {
        self.pass_on(blocks)?;
        let whole = Whole {
            rows: self.rows,
            raw_bytes: self.raw_bytes,
            stored_bytes: self.stored_bytes,
            sha256: self.digest.finish(),
        };
        blocks
            .blocking_send(Block::End(whole))
            .map_err(|_| SnapshotError::Cancelled)
    }
}
