//! The binlog as the server sends it to a replica.
//!
//! Quillback asks as a replica does: it announces itself, names the GTIDs that it has, and takes
//! the events byte for byte, checksums included. Source: "Replication Protocol" of the MySQL
//! Source Code Documentation and `sql/rpl_binlog_sender.cc`.
//!
//! As a semi-synchronous replica it also tells which events the source waits for, and sends the
//! acknowledgements. The layout is that of `plugin/semisync`: two more bytes before each event, a
//! packet of its own for each acknowledgement, and the numbering of the packets begins anew behind
//! each event that wants one.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::connection::WireConnection;
use super::error::WireError;
use super::packet::Truncated;
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;
use crate::mysql::semi_sync::SemiSyncStatus;

const COM_REGISTER_REPLICA: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
/// The first byte of what semi-synchronous replication adds (`kPacketMagicNum`).
const SEMI_SYNC_MAGIC: u8 = 0xEF;
/// The flag of an event that the source waits for (`kPacketFlagSync`).
const SEMI_SYNC_WANTED: u8 = 0x01;
/// The longest file name of an acknowledgement (`FN_REFLEN`, the final NUL included).
const FILE_NAME_MAX: usize = 512;
/// The host under which `SHOW REPLICAS` lists a streamer, with port 0, so that nobody takes it for
/// a server.
pub const STREAMER_HOST: &str = "quillback-stream";
/// Asks for heartbeats whose position has 64 bits (`USE_HEARTBEAT_EVENT_V2`); a server before
/// 8.0.26 does not know the flag and sends those with 32.
const HEARTBEAT_V2: u16 = 0x02;
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
    /// Whether to follow as a semi-synchronous replica, which must then [acknowledge] what it is
    /// asked for: the source's commits wait for that.
    ///
    /// [acknowledge]: BinlogDump::acknowledge
    pub semi_sync: bool,
}

/// What came down the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpPacket {
    /// An event.
    Event {
        /// Its bytes.
        bytes: Bytes,
        /// Whether the source waits for an acknowledgement of this event: it ends a group of
        /// transactions that are committed together, and none of them returns before. Never so
        /// without [`DumpOptions::semi_sync`].
        acknowledge: bool,
    },
    /// The server ended the stream.
    End,
}

/// A running dump.
#[derive(Debug)]
pub struct BinlogDump {
    connection: WireConnection,
    checksum: Checksum,
    semi_sync: bool,
}

impl BinlogDump {
    /// Asks for every transaction that is not in `have`, from the oldest on.
    ///
    /// # Errors
    ///
    /// The server's refusal (error 1236 if it purged what is asked for), a broken connection, or
    /// [`WireError::SemiSync`] if that is asked for and the server is not set up for it.
    pub async fn start(
        mut connection: WireConnection,
        options: &DumpOptions,
        have: &GtidSet,
    ) -> Result<Self, WireError> {
        if options.semi_sync {
            require_semi_sync(&mut connection).await?;
        }
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
        let mut dump = HEARTBEAT_V2.to_le_bytes().to_vec();
        dump.extend_from_slice(&options.server_id.to_le_bytes());
        dump.extend_from_slice(&0_u32.to_le_bytes());
        dump.extend_from_slice(&FIRST_POSITION.to_le_bytes());
        let length = u32::try_from(set.len())
            .map_err(|_| connection.malformed("the GTID set is larger than 4 GiB"))?;
        dump.extend_from_slice(&length.to_le_bytes());
        dump.extend_from_slice(&set);
        connection.command(COM_BINLOG_DUMP_GTID, &dump).await?;
        connection.expect_events(if options.semi_sync { 3 } else { 1 });
        Ok(Self {
            connection,
            checksum,
            semi_sync: options.semi_sync,
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

    /// Tells the source that everything up to `position` of its binlog `file` is safe here.
    ///
    /// The position is the end of the last event that is meant. The source takes it for all that
    /// lies before it too, so one acknowledgement may stand for many events that wanted one. If
    /// this future is dropped, [`BinlogDump::next`] sends what is left of the packet.
    ///
    /// A source that went on without replicas waits for none before one has told that it is up to
    /// date. A dump that has it all gets no event to acknowledge: the place of the first heartbeat
    /// does as well, since everything before it was sent or is in the set that was asked from.
    ///
    /// # Errors
    ///
    /// [`WireError::SemiSync`] without [`DumpOptions::semi_sync`] or for a name that cannot be a
    /// binlog's; a broken connection.
    pub async fn acknowledge(&mut self, file: &str, position: u64) -> Result<(), WireError> {
        if !self.semi_sync {
            return Err(self.no_semi_sync("this dump is not semi-synchronous"));
        }
        if file.is_empty() || file.len() >= FILE_NAME_MAX || file.contains('\0') {
            return Err(self.no_semi_sync("no binlog has such a name"));
        }
        let mut payload = vec![SEMI_SYNC_MAGIC];
        payload.extend_from_slice(&position.to_le_bytes());
        payload.extend_from_slice(file.as_bytes());
        payload.push(0);
        self.connection.send_aside(&payload).await
    }

    fn no_semi_sync(&self, reason: &str) -> WireError {
        WireError::SemiSync {
            address: self.address().to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn packet(&mut self, payload: &Bytes) -> Result<DumpPacket, WireError> {
        match (payload.first(), self.semi_sync) {
            (Some(0x00), false) => Ok(DumpPacket::Event {
                bytes: payload.slice(1..),
                acknowledge: false,
            }),
            (Some(0x00), true) => match payload.get(1..3) {
                Some(&[SEMI_SYNC_MAGIC, flags]) => {
                    let acknowledge = flags & SEMI_SYNC_WANTED != 0;
                    if acknowledge {
                        // The source makes ready for our packet, whether or not we send one.
                        self.connection.expect_sequence(1);
                    }
                    let bytes = payload.slice(3..);
                    Ok(DumpPacket::Event { bytes, acknowledge })
                }
                _ => Err(self
                    .connection
                    .malformed("an event without the mark of semi-synchronous replication")),
            },
            (Some(0xFE), _) => Ok(DumpPacket::End),
            _ => {
                self.connection.fail_on_error_packet(payload)?;
                Err(self.connection.malformed("no event where one was due"))
            }
        }
    }
}

/// Announces a semi-synchronous replica, if the source is set up for one.
async fn require_semi_sync(connection: &mut WireConnection) -> Result<(), WireError> {
    let mut enabled = None;
    {
        let mut rows = connection
            .query_rows(
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
                 ('rpl_semi_sync_source_enabled', 'rpl_semi_sync_master_enabled')",
            )
            .await?;
        while let Some(row) = rows.next().await? {
            enabled = match row.fields().nth(1) {
                Some(Ok(Some(value))) => Some(value == b"ON"),
                _ => return Err(row.malformed(Truncated)),
            };
        }
    }
    let Some(reason) = SemiSyncStatus::obstacle(enabled) else {
        // Servers before 8.0.26 know only the second name.
        connection
            .execute("SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1")
            .await?;
        return Ok(());
    };
    Err(WireError::SemiSync {
        address: connection.address().to_owned(),
        reason: reason.to_owned(),
    })
}
