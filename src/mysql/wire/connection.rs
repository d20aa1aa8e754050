//! A connection to a server at the level of packets.
//!
//! The invariant: after an error of the connection itself (not of the server's answer) nothing
//! more is sent over it, so a half-sent statement or file can never be taken for a whole one. What
//! is said beside a conversation (acknowledgements in a dump) is queued whole and goes out while
//! the connection is read, so that giving up a wait neither cuts nor loses it.

mod handshake;
mod infile;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::error::WireError;
use super::packet::{self, Fields, OutOfOrder, PacketDecoder, PayloadPiece, Truncated};
use super::rows::RawRows;
use crate::mysql::server_url::ServerUrl;

pub use infile::LocalInfile;

/// The largest packet that a client may ask for: events and rows reach 1 GiB.
const MAX_PACKET: u32 = 1 << 30;
/// utf8mb4_general_ci, which every supported server knows.
const UTF8MB4: u8 = 45;

/// How a connection behaves.
#[derive(Debug, Clone)]
pub struct WireOptions {
    /// How long the TCP connection and the handshake may take, each.
    pub connect_timeout: Duration,
    /// How long the server may be silent in a conversation; `None` waits for ever.
    pub read_timeout: Option<Duration>,
    /// What `performance_schema.session_connect_attrs` shows as `program_name`.
    pub program_name: String,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: None,
            program_name: "quillback".to_owned(),
        }
    }
}

/// What the server says of a statement that returned no rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OkInfo {
    /// Rows that the statement changed.
    pub affected_rows: u64,
    /// Warnings that `SHOW WARNINGS` would list.
    pub warnings: u16,
    /// The server's own words (`Records: 3  Deleted: 0 ...`).
    pub info: String,
}

/// A socket, plain or inside TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// Whole packets that are sent while the connection is read.
#[derive(Debug, Default)]
struct Aside {
    bytes: Vec<u8>,
    sent: usize,
    unflushed: bool,
}

/// An authenticated connection.
pub struct WireConnection {
    transport: Box<dyn Transport>,
    decoder: PacketDecoder,
    outgoing: Vec<u8>,
    aside: Aside,
    address: String,
    server_version: String,
    connection_id: u32,
    read_timeout: Option<Duration>,
    broken: bool,
}

impl std::fmt::Debug for WireConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireConnection")
            .field("address", &self.address)
            .field("connection_id", &self.connection_id)
            .finish_non_exhaustive()
    }
}

impl WireConnection {
    /// Connects and authenticates.
    ///
    /// # Errors
    ///
    /// [`WireError::Connect`], [`WireError::Tls`], [`WireError::Authentication`] or the server's
    /// own refusal.
    pub async fn connect(url: &ServerUrl, options: &WireOptions) -> Result<Self, WireError> {
        let address = url.address().to_string();
        let connecting = TcpStream::connect((url.host.as_str(), url.port));
        let silent = || WireError::Silent {
            address: address.clone(),
            seconds: options.connect_timeout.as_secs(),
        };
        let socket = tokio::time::timeout(options.connect_timeout, connecting)
            .await
            .map_err(|_| silent())?
            .map_err(|source| WireError::Connect {
                address: address.clone(),
                source,
            })?;
        // Without Nagle's delay small commands answer at once; failing to ask for it only costs time.
        let _ = socket.set_nodelay(true);
        let connection = Self {
            transport: Box::new(socket),
            decoder: PacketDecoder::default(),
            outgoing: Vec::new(),
            aside: Aside::default(),
            address: address.clone(),
            server_version: String::new(),
            connection_id: 0,
            read_timeout: options.read_timeout,
            broken: false,
        };
        tokio::time::timeout(options.connect_timeout, connection.handshake(url, options))
            .await
            .map_err(|_| silent())?
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server's version as its greeting says it.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// The server's number for this connection, as `KILL` takes it.
    #[must_use]
    pub const fn connection_id(&self) -> u32 {
        self.connection_id
    }

    /// Changes how long the server may be silent.
    pub const fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.read_timeout = limit;
    }

    /// Runs a statement that returns no rows.
    ///
    /// # Errors
    ///
    /// The server's refusal, or a broken connection.
    pub async fn execute(&mut self, sql: &str) -> Result<OkInfo, WireError> {
        self.send_query(sql).await?;
        let payload = self.read_payload().await?;
        match payload.first() {
            Some(0x00) => self.parse_ok(&payload),
            Some(0xFB) => Err(self.malformed("the server asks for a file that was not offered")),
            Some(0xFF) | None => {
                self.fail_on_error_packet(&payload)?;
                Err(self.malformed("empty answer"))
            }
            Some(_) => {
                let mut rows = RawRows::begin(self, &payload).await?;
                while rows.next().await?.is_some() {}
                Ok(OkInfo::default())
            }
        }
    }

    /// Runs a statement that returns rows, which are then taken one by one.
    ///
    /// # Errors
    ///
    /// The server's refusal, a broken connection, or a statement without rows.
    pub async fn query_rows(&mut self, sql: &str) -> Result<RawRows<'_>, WireError> {
        self.send_query(sql).await?;
        let payload = self.read_payload().await?;
        match payload.first() {
            Some(0x00) => Err(self.malformed("the statement returned no rows")),
            Some(0xFB | 0xFF) | None => {
                self.fail_on_error_packet(&payload)?;
                Err(self.malformed("unexpected answer to a query"))
            }
            Some(_) => RawRows::begin(self, &payload).await,
        }
    }

    /// The first field of the first row, as text.
    ///
    /// # Errors
    ///
    /// As [`WireConnection::query_rows`].
    pub async fn query_text(&mut self, sql: &str) -> Result<Option<String>, WireError> {
        let mut rows = self.query_rows(sql).await?;
        let mut first = None;
        let mut is_first = true;
        while let Some(row) = rows.next().await? {
            if is_first {
                is_first = false;
                first = row
                    .fields()
                    .next()
                    .transpose()
                    .map_err(|e| row.malformed(e))?
                    .flatten()
                    .map(|field| String::from_utf8_lossy(field).into_owned());
            }
        }
        Ok(first)
    }

    /// Starts a `LOAD DATA LOCAL INFILE` whose content is then sent in pieces. `name` is the file
    /// that the statement names: a server that asks for any other gets nothing.
    ///
    /// # Errors
    ///
    /// The server's refusal (`local_infile` off among them), a request for another file, or a
    /// broken connection.
    pub async fn load_local(
        &mut self,
        sql: &str,
        name: &str,
    ) -> Result<LocalInfile<'_>, WireError> {
        self.send_query(sql).await?;
        let payload = self.read_payload().await?;
        if payload.first() == Some(&0xFB) {
            // It waits for a file from here on, and for nothing else.
            self.broken = true;
            if &payload[1..] != name.as_bytes() {
                return Err(self.malformed("the server asks for a file that was not offered"));
            }
            let number = self.decoder.sequence();
            return Ok(LocalInfile {
                connection: self,
                number,
            });
        }
        self.fail_on_error_packet(&payload)?;
        Err(self.malformed("the statement asked for no file"))
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), WireError> {
        self.command(0x03, sql.as_bytes()).await
    }

    /// Sends a command of the protocol: its number and its body.
    pub(super) async fn command(&mut self, number: u8, body: &[u8]) -> Result<(), WireError> {
        let mut payload = Vec::with_capacity(1 + body.len());
        payload.push(number);
        payload.extend_from_slice(body);
        self.decoder.expect_sequence(1);
        self.send(&payload, 0).await?;
        Ok(())
    }

    /// Sends a payload; the next answer continues its numbering.
    async fn send(&mut self, payload: &[u8], number: u8) -> Result<u8, WireError> {
        if self.broken {
            return Err(WireError::Closed {
                address: self.address.clone(),
            });
        }
        self.broken = true;
        let next = self.write_frames(payload, number).await?;
        self.broken = false;
        self.decoder.expect_sequence(next);
        Ok(next)
    }

    async fn write_frames(&mut self, payload: &[u8], number: u8) -> Result<u8, WireError> {
        self.outgoing.clear();
        let next = packet::encode(payload, number, &mut self.outgoing);
        let written = async {
            self.transport.write_all(&self.outgoing).await?;
            self.transport.flush().await
        };
        match written.await {
            Ok(()) => Ok(next),
            Err(source) => Err(self.io(source)),
        }
    }

    /// The next payload, if all of it has been read off the socket already.
    pub(super) fn buffered_payload(&mut self) -> Result<Option<Bytes>, WireError> {
        let next = self.decoder.next_payload();
        next.map_err(|error| self.out_of_order(&error))
    }

    /// As [`PacketDecoder::next_small`], with the server's address.
    pub(super) fn buffered_small(
        &mut self,
        wanted: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<(&[u8], &str)>, WireError> {
        let (broken, address) = (&mut self.broken, &self.address);
        match self.decoder.next_small(wanted) {
            Ok(payload) => Ok(payload.map(|payload| (payload, address.as_str()))),
            Err(error) => Err(out_of_order(broken, address, &error)),
        }
    }

    fn out_of_order(&mut self, error: &OutOfOrder) -> WireError {
        out_of_order(&mut self.broken, &self.address, error)
    }

    /// The next payload of the server, whole.
    pub(super) async fn read_payload(&mut self) -> Result<Bytes, WireError> {
        loop {
            if let Some(payload) = self.buffered_payload()? {
                return Ok(payload);
            }
            self.read_more().await?;
        }
    }

    /// The next payload of the server, a large one in pieces.
    pub(super) async fn read_piece(&mut self) -> Result<PayloadPiece, WireError> {
        loop {
            let next = self.decoder.next_piece();
            if let Some(piece) = next.map_err(|error| self.out_of_order(&error))? {
                return Ok(piece);
            }
            self.read_more().await?;
        }
    }

    /// Reads what the socket has.
    async fn read_more(&mut self) -> Result<(), WireError> {
        let reading = poll_fn(|context| {
            // A failure to send shows here or in what is read; nothing else waits for it.
            if let Poll::Ready(Err(error)) = self.aside.poll_send(&mut self.transport, context) {
                return Poll::Ready(Err(error));
            }
            let transport = Pin::new(&mut self.transport);
            poll_read_buf(transport, context, &mut self.decoder.room())
        });
        let read = match self.read_timeout {
            None => reading.await,
            Some(limit) => match tokio::time::timeout(limit, reading).await {
                Ok(read) => read,
                Err(_) => {
                    self.broken = true;
                    return Err(WireError::Silent {
                        address: self.address.clone(),
                        seconds: limit.as_secs(),
                    });
                }
            },
        };
        match read {
            Ok(0) => {
                self.broken = true;
                Err(WireError::Closed {
                    address: self.address.clone(),
                })
            }
            Ok(_) => Ok(()),
            Err(source) => Err(self.io(source)),
        }
    }

    /// Queues a packet with a numbering of its own, and sends what is queued. Where this future
    /// is dropped, the reading sends the rest.
    pub(super) async fn send_aside(&mut self, payload: &[u8]) -> Result<(), WireError> {
        if self.broken {
            return Err(WireError::Closed {
                address: self.address.clone(),
            });
        }
        packet::encode(payload, 0, &mut self.aside.bytes);
        let sent = poll_fn(|context| self.aside.poll_send(&mut self.transport, context)).await;
        sent.map_err(|source| self.io(source))
    }

    /// Sets the number of the next packet of the server.
    pub(super) const fn expect_sequence(&mut self, sequence: u8) {
        self.decoder.expect_sequence(sequence);
    }

    /// Says that the server sends events from now on, behind so many bytes each.
    pub(super) const fn expect_events(&mut self, behind: usize) {
        self.decoder.expect_events(behind);
    }

    pub(super) fn fail_on_error_packet(&self, payload: &[u8]) -> Result<(), WireError> {
        if payload.first() != Some(&0xFF) {
            return Ok(());
        }
        let mut fields = Fields::new(&payload[1..]);
        let code = fields.uint::<2>().map_err(|e| self.truncated(e))?;
        let mut text = fields.rest();
        let mut state = "HY000";
        if let Some((b'#', after)) = text.split_first()
            && let Some((five, message)) = after.split_at_checked(5)
        {
            state = std::str::from_utf8(five).unwrap_or(state);
            text = message;
        }
        Err(WireError::Server {
            address: self.address.clone(),
            code: u16::try_from(code).unwrap_or(u16::MAX),
            state: state.to_owned(),
            message: String::from_utf8_lossy(text).into_owned(),
        })
    }

    fn parse_ok(&self, payload: &[u8]) -> Result<OkInfo, WireError> {
        let parse = || -> Result<OkInfo, Truncated> {
            let mut fields = Fields::new(&payload[1..]);
            let affected_rows = fields.lenenc()?;
            let _last_insert_id = fields.lenenc()?;
            let _status = fields.uint::<2>()?;
            let warnings = fields.uint::<2>()?;
            Ok(OkInfo {
                affected_rows,
                warnings: u16::try_from(warnings).unwrap_or(u16::MAX),
                info: String::from_utf8_lossy(fields.rest()).into_owned(),
            })
        };
        parse().map_err(|error| self.truncated(error))
    }

    pub(super) fn malformed(&self, reason: &str) -> WireError {
        WireError::Malformed {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn truncated(&self, error: Truncated) -> WireError {
        self.malformed(&error.to_string())
    }

    fn refused(&self, reason: String) -> WireError {
        WireError::Authentication {
            address: self.address.clone(),
            reason,
        }
    }

    fn io(&mut self, source: io::Error) -> WireError {
        self.broken = true;
        WireError::Io {
            address: self.address.clone(),
            source,
        }
    }
}

impl Aside {
    /// Sends what it can; ready once nothing is left.
    fn poll_send(
        &mut self,
        transport: &mut Box<dyn Transport>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            let sent = ready!(Pin::new(&mut *transport).poll_write(context, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.unflushed = true;
        }
        self.bytes.clear();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut *transport).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn out_of_order(broken: &mut bool, address: &str, error: &OutOfOrder) -> WireError {
    *broken = true;
    WireError::Malformed {
        address: address.to_owned(),
        reason: error.to_string(),
    }
}
