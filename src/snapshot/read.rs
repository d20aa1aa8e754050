//! Rows off the wire: text packets into LOAD DATA lines, without a value per cell.
//!
//! A row is copied once, from the socket's buffer into a line of a shared buffer. One that is too
//! large for that comes, and is handed over, in pieces; so no row is ever held whole.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::archive::rows::{LineWriter, Scan, encode_row, select_statement};
use crate::mysql::wire::packet::Truncated;
use crate::mysql::wire::{FieldPiece, FieldPieces, RowPiece, WireConnection, WireError};

use super::write::{Buffers, PIECE_BYTES, Piece};

/// Lines that are gathered and handed over.
struct Outlet {
    lines: Vec<u8>,
    buffers: Arc<Buffers>,
    pieces: mpsc::Sender<Piece>,
}

impl Outlet {
    /// Hands the lines over if there are enough of them; `false` if nobody wants them any more.
    async fn pass_full(&mut self) -> bool {
        self.lines.len() < PIECE_BYTES || self.pass().await
    }

    async fn pass(&mut self) -> bool {
        let lines = std::mem::replace(&mut self.lines, self.buffers.take());
        let lines = self.buffers.admit(lines).await;
        self.pieces.send(Piece::Rows(lines)).await.is_ok()
    }

    async fn end(mut self, rows: u64) -> bool {
        (self.lines.is_empty() || self.pass().await)
            && self.pieces.send(Piece::End { rows }).await.is_ok()
    }
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All rows were handed over.
    AllRead,
    /// The other side has given up; its error tells why. The connection is of no more use.
    NotWanted,
}

/// Reads a chunk's rows and hands their lines over; waits while the other side is slower.
pub(super) async fn read_chunk(
    connection: &mut WireConnection,
    scan: &Scan<'_>,
    buffers: &Arc<Buffers>,
    pieces: mpsc::Sender<Piece>,
) -> Result<Outcome, WireError> {
    let mut outlet = Outlet {
        lines: buffers.take(),
        buffers: Arc::clone(buffers),
        pieces,
    };
    let mut count = 0;
    let mut writer = LineWriter::default();
    let mut fields = FieldPieces::default();
    let mut rows = connection.query_rows(&select_statement(scan)).await?;
    loop {
        while let Some(row) = rows.next_here()? {
            encode_row(row.fields(), &mut outlet.lines).map_err(|error| row.malformed(error))?;
            count += 1;
            if !outlet.pass_full().await {
                return Ok(Outcome::NotWanted);
            }
        }
        let Some(piece) = rows.next_piece().await? else {
            break;
        };
        match piece {
            RowPiece::Whole(row) => {
                encode_row(row.fields(), &mut outlet.lines)
                    .map_err(|error| row.malformed(error))?;
                count += 1;
            }
            RowPiece::Part { mut bytes, last } => {
                let mut take = || -> Result<(), Truncated> {
                    while let Some(piece) = fields.next(&mut bytes)? {
                        match piece {
                            FieldPiece::Null => writer.null(&mut outlet.lines),
                            FieldPiece::Begin => writer.begin(&mut outlet.lines),
                            FieldPiece::Bytes(bytes) => writer.bytes(bytes, &mut outlet.lines),
                        }
                    }
                    if last && !fields.is_between_fields() {
                        return Err(Truncated);
                    }
                    Ok(())
                };
                if let Err(error) = take() {
                    return Err(rows.malformed(error));
                }
                if last {
                    writer.end(&mut outlet.lines);
                    count += 1;
                }
            }
        }
        if !outlet.pass_full().await {
            return Ok(Outcome::NotWanted);
        }
    }
    Ok(match outlet.end(count).await {
        true => Outcome::AllRead,
        false => Outcome::NotWanted,
    })
}
