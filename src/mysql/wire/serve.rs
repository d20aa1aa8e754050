//! The server's side of the protocol, as far as a replica's IO thread needs it.
//!
//! One account, one password, `caching_sha2_password` by its fast path: whoever proves the
//! password gets in, all others get error 1045. Commands and answers are packets; what to answer
//! is left to the caller. Invariant: nothing is answered before the password is proven.

use bytes::Bytes;
use mysql_common::constants::CapabilityFlags;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::auth;
use super::error::WireError;
use super::packet::{self, Fields, PacketDecoder, Truncated, put_lenenc, put_lenenc_bytes};
use crate::config::Secret;

/// utf8mb4_0900_ai_ci.
const COLLATION: u8 = 255;
/// `SERVER_STATUS_AUTOCOMMIT`.
const STATUS: u16 = 2;

/// A command of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `COM_QUERY` with its text.
    Query(String),
    /// `COM_REGISTER_SLAVE`; the replica's `server_id`.
    RegisterReplica(u32),
    /// `COM_BINLOG_DUMP_GTID`.
    DumpGtid {
        /// `BINLOG_DUMP_*` flags; 0x02 asks for heartbeats of the second version.
        flags: u16,
        /// The replica's `server_id`.
        server_id: u32,
        /// The encoded set of GTIDs that the replica has.
        set: Vec<u8>,
    },
    /// `COM_PING`.
    Ping,
    /// `COM_QUIT`, or the connection's end.
    Quit,
    /// Anything else, by its number.
    Other(u8),
}

/// A client's connection.
#[derive(Debug)]
pub struct ServedConnection {
    socket: TcpStream,
    decoder: PacketDecoder,
    outgoing: Vec<u8>,
    next_sequence: u8,
    address: String,
    deprecate_eof: bool,
}

impl ServedConnection {
    /// Greets a client and checks its password.
    ///
    /// # Errors
    ///
    /// [`WireError::Authentication`] for a wrong user or password, or a broken connection.
    pub async fn accept(
        socket: TcpStream,
        server_version: &str,
        connection_id: u32,
        user: &str,
        password: &Secret,
    ) -> Result<Self, WireError> {
        let address = socket
            .peer_addr()
            .map_or_else(|_| "the client".to_owned(), |address| address.to_string());
        // Events are large; small answers shall not wait for more.
        let _ = socket.set_nodelay(true);
        let mut connection = Self {
            socket,
            decoder: PacketDecoder::default(),
            outgoing: Vec::new(),
            next_sequence: 0,
            address,
            deprecate_eof: false,
        };
        let nonce = nonce();
        connection
            .send(&greeting(server_version, connection_id, &nonce))
            .await?;
        let response = connection
            .read()
            .await?
            .ok_or_else(|| connection.closed())?;
        let login =
            Login::parse(&response).map_err(|error| connection.malformed(&error.to_string()))?;
        connection.deprecate_eof = login
            .capabilities
            .contains(CapabilityFlags::CLIENT_DEPRECATE_EOF);
        let proof = if login.plugin == auth::CACHING_SHA2.as_bytes() {
            login.proof
        } else {
            let mut switch = vec![0xFE];
            switch.extend_from_slice(&auth::nul_terminated(auth::CACHING_SHA2.as_bytes()));
            switch.extend_from_slice(&auth::nul_terminated(&nonce));
            connection.send(&switch).await?;
            connection
                .read()
                .await?
                .ok_or_else(|| connection.closed())?
                .to_vec()
        };
        let known = login.user == user.as_bytes();
        if !known || !auth::proves_password(&proof, password.expose().as_bytes(), &nonce) {
            connection
                .send_error(1045, "28000", "Access denied for this user")
                .await?;
            return Err(WireError::Authentication {
                address: connection.address,
                reason: "a client came with a wrong user or password".to_owned(),
            });
        }
        connection.send(&[0x01, 0x03]).await?;
        connection.send_ok().await?;
        Ok(connection)
    }

    /// The client's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next command of the client.
    ///
    /// # Errors
    ///
    /// A broken connection or a malformed command.
    pub async fn next_command(&mut self) -> Result<Command, WireError> {
        self.decoder.expect_sequence(0);
        let Some(payload) = self.read().await? else {
            return Ok(Command::Quit);
        };
        parse_command(&payload).map_err(|error| self.malformed(&error.to_string()))
    }

    /// Answers "done".
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn send_ok(&mut self) -> Result<(), WireError> {
        let status = STATUS.to_le_bytes();
        self.send(&[0, 0, 0, status[0], status[1], 0, 0]).await
    }

    /// Answers with an error.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn send_error(
        &mut self,
        code: u16,
        state: &str,
        message: &str,
    ) -> Result<(), WireError> {
        let mut payload = vec![0xFF];
        payload.extend_from_slice(&code.to_le_bytes());
        payload.push(b'#');
        payload.extend_from_slice(state.as_bytes());
        payload.extend_from_slice(message.as_bytes());
        self.send(&payload).await
    }

    /// Answers a query with one row of one column.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn send_value(&mut self, column: &str, value: &str) -> Result<(), WireError> {
        let mut definition = Vec::new();
        for text in ["def", "", "", "", column, ""] {
            put_lenenc_bytes(text.as_bytes(), &mut definition);
        }
        put_lenenc(0x0C, &mut definition);
        definition.extend_from_slice(&u16::from(COLLATION).to_le_bytes());
        definition.extend_from_slice(&1024_u32.to_le_bytes());
        // MYSQL_TYPE_VAR_STRING, no flags, no decimals, filler.
        definition.extend_from_slice(&[0xFD, 0, 0, 0, 0, 0]);
        let mut row = Vec::new();
        put_lenenc_bytes(value.as_bytes(), &mut row);
        let status = STATUS.to_le_bytes();
        let eof = [0xFE, 0, 0, status[0], status[1]];
        self.queue(&[1]);
        self.queue(&definition);
        if !self.deprecate_eof {
            self.queue(&eof);
        }
        self.queue(&row);
        if self.deprecate_eof {
            self.queue(&[0xFE, 0, 0, status[0], status[1], 0, 0]);
        } else {
            self.queue(&eof);
        }
        self.flush().await
    }

    /// Puts an event into the outgoing buffer; [`ServedConnection::flush`] sends it.
    pub fn queue_event(&mut self, event: &[u8]) {
        let mut payload = Vec::with_capacity(1 + event.len());
        payload.push(0);
        payload.extend_from_slice(event);
        self.queue(&payload);
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outgoing.len()
    }

    fn queue(&mut self, payload: &[u8]) {
        self.next_sequence = packet::encode(payload, self.next_sequence, &mut self.outgoing);
    }

    /// Sends what waits.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        let sent = self.socket.write_all(&self.outgoing).await;
        // What the client says next continues the numbering, unless it is a new command.
        self.decoder.expect_sequence(self.next_sequence);
        self.outgoing.clear();
        // One huge event must not keep its memory for the rest of the restore.
        self.outgoing.shrink_to(4 << 20);
        sent.map_err(|source| self.io(source))
    }

    /// Waits until the client says something or goes away; a replica in a dump says nothing.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn wait_for_end(&mut self) -> Result<(), WireError> {
        let mut byte = [0; 1];
        match self.socket.read(&mut byte).await {
            Ok(_) => Ok(()),
            Err(source) => Err(self.io(source)),
        }
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), WireError> {
        self.queue(payload);
        self.flush().await
    }

    /// The next payload, or `None` if the client closed between two.
    async fn read(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            let payload = self
                .decoder
                .next_payload()
                .map_err(|error| self.malformed(&error.to_string()))?;
            if let Some(payload) = payload {
                self.next_sequence = self.decoder.sequence();
                return Ok(Some(payload));
            }
            match self.socket.read_buf(&mut self.decoder.room()).await {
                Ok(0) if self.decoder.is_mid_packet() => return Err(self.closed()),
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(source) => return Err(self.io(source)),
            }
            if self.decoder.waiting() > 64 << 20 {
                return Err(self.malformed("a command of more than 64 MiB"));
            }
        }
    }

    fn closed(&self) -> WireError {
        WireError::Closed {
            address: self.address.clone(),
        }
    }

    fn io(&self, source: std::io::Error) -> WireError {
        WireError::Io {
            address: self.address.clone(),
            source,
        }
    }

    fn malformed(&self, reason: &str) -> WireError {
        WireError::Malformed {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// Twenty random bytes without NUL, as a challenge.
fn nonce() -> [u8; 20] {
    let mut nonce = [0; 20];
    let mut random = rand::rng();
    for byte in &mut nonce {
        *byte = random.random_range(1..=127);
    }
    nonce
}

fn greeting(server_version: &str, connection_id: u32, nonce: &[u8; 20]) -> Vec<u8> {
    let capabilities = (CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_LONG_PASSWORD
        | CapabilityFlags::CLIENT_LONG_FLAG
        | CapabilityFlags::CLIENT_TRANSACTIONS
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_CONNECT_WITH_DB
        | CapabilityFlags::CLIENT_MULTI_RESULTS
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
        | CapabilityFlags::CLIENT_CONNECT_ATTRS
        | CapabilityFlags::CLIENT_DEPRECATE_EOF)
        .bits()
        .to_le_bytes();
    let mut out = vec![10];
    out.extend_from_slice(&auth::nul_terminated(server_version.as_bytes()));
    out.extend_from_slice(&connection_id.to_le_bytes());
    out.extend_from_slice(&nonce[..8]);
    out.push(0);
    out.extend_from_slice(&capabilities[..2]);
    out.push(COLLATION);
    out.extend_from_slice(&STATUS.to_le_bytes());
    out.extend_from_slice(&capabilities[2..]);
    out.push(21);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&nonce[8..]);
    out.push(0);
    out.extend_from_slice(&auth::nul_terminated(auth::CACHING_SHA2.as_bytes()));
    out
}

/// What a client's first packet says.
struct Login {
    capabilities: CapabilityFlags,
    user: Vec<u8>,
    proof: Vec<u8>,
    plugin: Vec<u8>,
}

impl Login {
    fn parse(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fields = Fields::new(payload);
        let bits = u32::try_from(fields.uint::<4>()?).map_err(|_| Truncated)?;
        let capabilities = CapabilityFlags::from_bits_truncate(bits);
        let _max_packet = fields.uint::<4>()?;
        let _collation = fields.uint::<1>()?;
        let _filler = fields.bytes(23)?;
        let user = fields.nul_terminated()?.to_vec();
        let proof = if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
        {
            fields.lenenc_bytes()?
        } else {
            let length = fields.uint::<1>()?;
            fields.bytes(usize::try_from(length).map_err(|_| Truncated)?)?
        };
        if capabilities.contains(CapabilityFlags::CLIENT_CONNECT_WITH_DB) {
            fields.nul_terminated()?;
        }
        let plugin = if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH) {
            fields.nul_terminated()?
        } else {
            &[]
        };
        Ok(Self {
            capabilities,
            user,
            proof: proof.to_vec(),
            plugin: plugin.to_vec(),
        })
    }
}

fn parse_command(payload: &[u8]) -> Result<Command, Truncated> {
    let mut fields = Fields::new(payload);
    let narrow = |value: u64| u32::try_from(value).map_err(|_| Truncated);
    match fields.uint::<1>()? {
        0x01 => Ok(Command::Quit),
        0x03 => Ok(Command::Query(
            String::from_utf8_lossy(fields.rest()).into_owned(),
        )),
        0x0E => Ok(Command::Ping),
        0x15 => Ok(Command::RegisterReplica(narrow(fields.uint::<4>()?)?)),
        0x1E => {
            let flags = u16::try_from(fields.uint::<2>()?).map_err(|_| Truncated)?;
            let server_id = narrow(fields.uint::<4>()?)?;
            let name_length = narrow(fields.uint::<4>()?)?;
            fields.bytes(name_length as usize)?;
            let _position = fields.uint::<8>()?;
            let set_length = narrow(fields.uint::<4>()?)?;
            Ok(Command::DumpGtid {
                flags,
                server_id,
                set: fields.bytes(set_length as usize)?.to_vec(),
            })
        }
        other => Ok(Command::Other(u8::try_from(other).map_err(|_| Truncated)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dump_command_is_read_field_by_field() {
        let mut payload = vec![0x1E, 2, 0];
        payload.extend_from_slice(&77_u32.to_le_bytes());
        payload.extend_from_slice(&0_u32.to_le_bytes());
        payload.extend_from_slice(&4_u64.to_le_bytes());
        payload.extend_from_slice(&3_u32.to_le_bytes());
        payload.extend_from_slice(b"abc");
        assert_eq!(
            parse_command(&payload),
            Ok(Command::DumpGtid {
                flags: 2,
                server_id: 77,
                set: b"abc".to_vec()
            })
        );
        payload.pop();
        assert_eq!(parse_command(&payload), Err(Truncated));
    }

    proptest! {
        #[test]
        fn no_client_makes_us_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_command(&bytes);
            let _ = Login::parse(&bytes);
        }
    }
}
