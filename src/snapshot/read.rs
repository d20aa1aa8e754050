//! Rows off the wire: text packets into LOAD DATA lines, without a value per cell.

use tokio::sync::mpsc;

use crate::archive::manifest::{LoadColumn, RowChecksum};
use crate::archive::rows::{encode_row, select_statement};
use crate::mysql::wire::{WireConnection, WireError};

use super::plan::ChunkRange;
use super::write::Piece;

/// Lines that are handed over at once; a single longer row is handed over alone.
const PIECE_BYTES: usize = 1 << 20;

/// A part of a table to be read.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) database: &'a str,
    pub(super) table: &'a str,
    pub(super) columns: &'a [LoadColumn],
    pub(super) primary_key: &'a [String],
    pub(super) range: &'a ChunkRange,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReadRows {
    pub(super) rows: u64,
    pub(super) checksum: RowChecksum,
}

/// Reads a chunk's rows and hands their lines over; waits while the other side is slower.
///
/// If the other side has given up, what was read so far is returned: its error is the one that
/// tells why.
pub(super) async fn read_chunk(
    connection: &mut WireConnection,
    chunk: &Chunk<'_>,
    pieces: mpsc::Sender<Piece>,
) -> Result<ReadRows, WireError> {
    let sql = select_statement(
        chunk.database,
        chunk.table,
        chunk.columns,
        chunk.primary_key,
        chunk.range.condition(),
    );
    let mut read = ReadRows::default();
    let mut lines = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
    let mut rows_in_piece = 0;
    let mut rows = connection.query_rows(&sql).await?;
    while let Some(row) = rows.next().await? {
        let from = lines.len();
        encode_row(row.fields(), &mut lines).map_err(|error| row.malformed(error))?;
        read.checksum.add_line(&lines[from..lines.len() - 1]);
        read.rows += 1;
        rows_in_piece += 1;
        if lines.len() >= PIECE_BYTES {
            let full = std::mem::replace(
                &mut lines,
                Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8),
            );
            let piece = Piece::Rows {
                lines: full,
                rows: std::mem::take(&mut rows_in_piece),
            };
            if pieces.send(piece).await.is_err() {
                return Ok(read);
            }
        }
    }
    if rows_in_piece > 0 {
        let piece = Piece::Rows {
            lines,
            rows: rows_in_piece,
        };
        if pieces.send(piece).await.is_err() {
            return Ok(read);
        }
    }
    // A closed channel is told by the writer's own error.
    let _ = pieces.send(Piece::End).await;
    Ok(read)
}
