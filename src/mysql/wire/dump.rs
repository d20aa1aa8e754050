//! The binlog as the server sends it to a replica.
//!
//! Quillback asks as a replica does: it announces itself, names the GTIDs that it has, and takes
//! the events byte for byte, checksums included. Source: "Replication Protocol" of the MySQL
//! Source Code Documentation and `sql/rpl_binlog_sender.cc`.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::connection::WireConnection;
use super::error::WireError;
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;

const COM_REGISTER_REPLICA: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
/// The host under which `SHOW REPLICAS` lists a streamer, with port 0, so that nobody takes it for
/// a server.
pub const STREAMER_HOST: &str = "quillback-stream";
/// The server compares the position only with the GTID set's; every file starts at 4.
const FIRST_POSITION: u64 = 4;

/// How to follow a binlog.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// The `server_id` under which the server lists us; not one of the cluster's.
    pub server_id: u32,
    /// The UUID under which the server lists us. The server ends an older dump of the same UUID.
    pub replica_uuid: Uuid,
    /// How often the server shall say that there is nothing new.
    pub heartbeat: Duration,
}

/// What came down the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpPacket {
    /// An event's bytes.
    Event(Bytes),
    /// The server ended the stream.
    End,
}

/// A running dump.
#[derive(Debug)]
pub struct BinlogDump {
    connection: WireConnection,
    checksum: Checksum,
}

impl BinlogDump {
    /// Asks for every transaction that is not in `have`, from the oldest on.
    ///
    /// # Errors
    ///
    /// The server's refusal (error 1236 if it purged what is asked for), or a broken connection.
    pub async fn start(
        mut connection: WireConnection,
        options: &DumpOptions,
        have: &GtidSet,
    ) -> Result<Self, WireError> {
        let heartbeat = options.heartbeat.as_nanos();
        let uuid = options.replica_uuid;
        for statement in [
            format!(
                "SET @master_heartbeat_period = {heartbeat}, @source_heartbeat_period = {heartbeat}"
            ),
            "SET @master_binlog_checksum = @@GLOBAL.binlog_checksum, \
             @source_binlog_checksum = @@GLOBAL.binlog_checksum"
                .to_owned(),
            format!("SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"),
        ] {
            connection.execute(&statement).await?;
        }
        let checksum = match connection
            .query_text("SELECT @source_binlog_checksum")
            .await?
            .as_deref()
        {
            Some("CRC32") => Checksum::Crc32,
            Some("NONE") => Checksum::None,
            other => {
                let said = other.unwrap_or("nothing");
                return Err(connection.malformed(&format!("unknown binlog_checksum {said:?}")));
            }
        };
        let mut register = options.server_id.to_le_bytes().to_vec();
        register.push(STREAMER_HOST.len() as u8);
        register.extend_from_slice(STREAMER_HOST.as_bytes());
        // Empty user and password; port, rank and source id 0.
        register.extend_from_slice(&[0; 2 + 2 + 4 + 4]);
        connection.command(COM_REGISTER_REPLICA, &register).await?;
        let answer = connection.read_payload().await?;
        connection.fail_on_error_packet(&answer)?;

        let set = have.encode();
        let mut dump = vec![0; 2];
        dump.extend_from_slice(&options.server_id.to_le_bytes());
        dump.extend_from_slice(&0_u32.to_le_bytes());
        dump.extend_from_slice(&FIRST_POSITION.to_le_bytes());
        let length = u32::try_from(set.len())
            .map_err(|_| connection.malformed("the GTID set is larger than 4 GiB"))?;
        dump.extend_from_slice(&length.to_le_bytes());
        dump.extend_from_slice(&set);
        connection.command(COM_BINLOG_DUMP_GTID, &dump).await?;
        Ok(Self {
            connection,
            checksum,
        })
    }

    /// The checksum of the events.
    #[must_use]
    pub const fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connection.address()
    }

    /// The next packet. Dropping the future loses nothing: the bytes stay in the buffer.
    ///
    /// # Errors
    ///
    /// The server's error, silence beyond the read timeout, or a broken connection.
    pub async fn next(&mut self) -> Result<DumpPacket, WireError> {
        let payload = self.connection.read_payload().await?;
        self.packet(&payload)
    }

    /// The next packet, if it has been received already.
    ///
    /// # Errors
    ///
    /// As [`BinlogDump::next`].
    pub fn received(&mut self) -> Result<Option<DumpPacket>, WireError> {
        match self.connection.buffered_payload()? {
            Some(payload) => self.packet(&payload).map(Some),
            None => Ok(None),
        }
    }

    fn packet(&self, payload: &Bytes) -> Result<DumpPacket, WireError> {
        match payload.first() {
            Some(0x00) => Ok(DumpPacket::Event(payload.slice(1..))),
            Some(0xFE) => Ok(DumpPacket::End),
            _ => {
                self.connection.fail_on_error_packet(payload)?;
                Err(self.connection.malformed("no event where one was due"))
            }
        }
    }
}
