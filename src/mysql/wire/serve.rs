//! The server's side of the protocol, as far as a replica's IO thread needs it.
//!
//! One account, one password: whoever proves the password gets in, all others get error 1045. The
//! proof is `caching_sha2_password`'s scramble (its fast path), inside TLS where a certificate is
//! given, and then only there. The full path, in which a client hands over the password itself, is
//! for servers that keep only a digest of it; we know it, so it never leaves the client. Commands
//! and answers are packets; what to answer is left to the caller. Invariant: nothing is answered
//! before the password is proven.

mod command;
mod login;

use bytes::Bytes;
use mysql_common::constants::CapabilityFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::auth;
use super::connection::Transport;
use super::error::WireError;
use super::packet::{self, PacketDecoder, put_lenenc, put_lenenc_bytes};
use super::tls::ServerIdentity;
use crate::config::Secret;

pub use command::Command;
use login::{Login, greeting, nonce, wants_tls};

/// utf8mb4_0900_ai_ci.
const COLLATION: u8 = 255;
/// `SERVER_STATUS_AUTOCOMMIT`.
const STATUS: u16 = 2;
/// The largest first packet of a client: a user's name, a proof, attributes.
const LOGIN_MAX: usize = 64 << 10;
/// Events up to this size are gathered before they are sent.
const GATHERED: usize = 1 << 20;

/// Whom to let in, and as what to show ourselves.
#[derive(Debug)]
pub struct Door<'a> {
    /// `@@version` of the server that we play.
    pub version: &'a str,
    /// The only account.
    pub user: &'a str,
    /// Its password.
    pub password: &'a Secret,
    /// The certificate; without one the connection is plain.
    pub identity: Option<&'a ServerIdentity>,
}

/// A client's connection.
pub struct ServedConnection {
    transport: Box<dyn Transport>,
    decoder: PacketDecoder,
    outgoing: Vec<u8>,
    next_sequence: u8,
    address: String,
    deprecate_eof: bool,
}

impl std::fmt::Debug for ServedConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedConnection")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl ServedConnection {
    /// Greets a client, goes over to TLS if there is a certificate, and checks its password.
    ///
    /// # Errors
    ///
    /// [`WireError::Authentication`] for a wrong user or password, [`WireError::Tls`] for a client
    /// that does not want it or cannot do it, or a broken connection.
    pub async fn accept(
        socket: TcpStream,
        connection_id: u32,
        door: &Door<'_>,
    ) -> Result<Self, WireError> {
        let address = socket
            .peer_addr()
            .map_or_else(|_| "the client".to_owned(), |address| address.to_string());
        // Events are large; small answers shall not wait for more.
        let _ = socket.set_nodelay(true);
        let mut connection = Self {
            transport: Box::new(socket),
            decoder: PacketDecoder::default(),
            outgoing: Vec::new(),
            next_sequence: 0,
            address,
            deprecate_eof: false,
        };
        let nonce = nonce();
        let offers_tls = door.identity.is_some();
        let greeting = greeting(door.version, connection_id, &nonce, offers_tls);
        connection.send(&greeting).await?;
        let mut response = connection.read_first(1).await?;
        if let Some(identity) = door.identity {
            if !wants_tls(&response) {
                let text = "Connections using insecure transport are prohibited";
                connection.send_error(3159, "HY000", text).await?;
                return Err(connection.no_tls("the client does not ask for it"));
            }
            connection = connection.into_tls(identity).await?;
            response = connection.read_first(2).await?;
        }
        connection.login(&response, &nonce, door).await?;
        Ok(connection)
    }

    /// A packet read to its last byte and no further: what follows may be TLS.
    async fn read_first(&mut self, sequence: u8) -> Result<Vec<u8>, WireError> {
        let mut head = [0; 4];
        let read = self.transport.read_exact(&mut head).await;
        read.map_err(|source| self.io(source))?;
        let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
        if head[3] != sequence || length > LOGIN_MAX {
            return Err(self.malformed("no login where one was due"));
        }
        let mut payload = vec![0; length];
        let read = self.transport.read_exact(&mut payload).await;
        read.map_err(|source| self.io(source))?;
        self.next_sequence = sequence.wrapping_add(1);
        self.decoder.expect_sequence(self.next_sequence);
        Ok(payload)
    }

    async fn into_tls(mut self, identity: &ServerIdentity) -> Result<Self, WireError> {
        match identity.accept(self.transport).await {
            Ok(stream) => {
                self.transport = Box::new(stream);
                Ok(self)
            }
            Err(error) => Err(WireError::Tls {
                address: self.address,
                reason: error.to_string(),
            }),
        }
    }

    async fn login(
        &mut self,
        response: &[u8],
        nonce: &[u8; 20],
        door: &Door<'_>,
    ) -> Result<(), WireError> {
        let login = Login::parse(response).map_err(|error| self.malformed(&error.to_string()))?;
        self.deprecate_eof = login
            .capabilities
            .contains(CapabilityFlags::CLIENT_DEPRECATE_EOF);
        let proof = if login.plugin == auth::CACHING_SHA2.as_bytes() {
            login.proof
        } else {
            let mut switch = vec![0xFE];
            switch.extend_from_slice(&auth::nul_terminated(auth::CACHING_SHA2.as_bytes()));
            switch.extend_from_slice(&auth::nul_terminated(nonce));
            self.send(&switch).await?;
            self.read().await?.ok_or_else(|| self.closed())?.to_vec()
        };
        let known = login.user == door.user.as_bytes();
        let password = door.password.expose().as_bytes();
        if !known || !auth::proves_password(&proof, password, nonce) {
            self.send_error(1045, "28000", "Access denied for this user")
                .await?;
            return Err(WireError::Authentication {
                address: self.address.clone(),
                reason: "a client came with a wrong user or password".to_owned(),
            });
        }
        self.send(&[0x01, 0x03]).await?;
        self.send_ok().await
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
        Command::parse(&payload).map_err(|error| self.malformed(&error.to_string()))
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

    /// Sends an event, or puts it into the outgoing buffer if it is small;
    /// [`ServedConnection::flush`] sends what waits.
    ///
    /// # Errors
    ///
    /// A broken connection.
    pub async fn send_event(&mut self, event: &[u8]) -> Result<(), WireError> {
        if event.len() <= GATHERED {
            let next = self.next_sequence;
            self.next_sequence = packet::encode_event(event, next, &mut self.outgoing);
            return Ok(());
        }
        // A large one is not copied once more: its frames are written out of its own memory.
        self.flush().await?;
        let mut frames = packet::EventFrames::new(event, self.next_sequence);
        while let Some((head, piece)) = frames.next() {
            let sent = match self.transport.write_all(&head).await {
                Ok(()) => self.transport.write_all(piece).await,
                Err(error) => Err(error),
            };
            sent.map_err(|source| self.io(source))?;
        }
        self.next_sequence = frames.sequence();
        let flushed = self.transport.flush().await;
        flushed.map_err(|source| self.io(source))
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
        let mut sent = self.transport.write_all(&self.outgoing).await;
        if sent.is_ok() {
            sent = self.transport.flush().await;
        }
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
        match self.transport.read(&mut byte).await {
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
            match self.transport.read_buf(&mut self.decoder.room()).await {
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

    fn no_tls(&self, reason: &str) -> WireError {
        WireError::Tls {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }

    fn malformed(&self, reason: &str) -> WireError {
        WireError::Malformed {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
