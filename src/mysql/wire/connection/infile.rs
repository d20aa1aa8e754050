//! The content of a LOAD DATA LOCAL INFILE.

use super::super::error::WireError;
use super::{OkInfo, WireConnection};

/// A file on its way to the server.
///
/// Only [`LocalInfile::finish`] tells the server that the file is whole. Dropping this value
/// leaves the connection unusable, so the server sees it die and rolls the statement back: a
/// source that fails halfway can never be committed as a short file.
#[derive(Debug)]
pub struct LocalInfile<'c> {
    pub(super) connection: &'c mut WireConnection,
    pub(super) number: u8,
}

impl LocalInfile<'_> {
    /// Sends the next piece of the file.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn send(&mut self, piece: &[u8]) -> Result<(), WireError> {
        // An empty packet would end the file. Pieces under a frame keep the numbering simple.
        for piece in piece.chunks(1 << 20) {
            self.number = self.connection.write_frames(piece, self.number).await?;
        }
        Ok(())
    }

    /// Ends the file and waits for the server's verdict.
    ///
    /// # Errors
    ///
    /// The server's refusal, or a broken connection.
    pub async fn finish(self) -> Result<OkInfo, WireError> {
        let next = self.connection.write_frames(&[], self.number).await?;
        self.connection.decoder.expect_sequence(next);
        let payload = self.connection.read_payload().await?;
        self.connection.broken = false;
        self.connection.fail_on_error_packet(&payload)?;
        self.connection.parse_ok(&payload)
    }
}
