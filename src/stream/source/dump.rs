//! A server's dump, as the stream takes it.

use super::super::cutter::SourcePosition;
use super::super::error::StreamError;
use super::super::upstream::Dump;
use crate::mysql::binlog::Checksum;
use crate::mysql::wire::{BinlogDump, DumpPacket};

#[derive(Debug)]
pub(super) struct WireDump(pub(super) BinlogDump);

#[async_trait::async_trait]
impl Dump for WireDump {
    fn checksum(&self) -> Checksum {
        self.0.checksum()
    }

    async fn next(&mut self) -> Result<DumpPacket, StreamError> {
        Ok(self.0.next().await?)
    }

    fn received(&mut self) -> Result<Option<DumpPacket>, StreamError> {
        Ok(self.0.received()?)
    }

    async fn acknowledge(&mut self, at: &SourcePosition) -> Result<(), StreamError> {
        Ok(self.0.acknowledge(&at.file, at.position).await?)
    }
}
