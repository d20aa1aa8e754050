//! A connection for ordinary questions, over mysql_async, with a bound on every wait.
//!
//! Every call names the server in its error and gives up after the session's timeout; a session
//! that timed out is broken and must be dropped. Rows in bulk go through `wire` instead.

use std::io;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::sync::mpsc;

use super::error::MysqlError;
use super::server_url::{HostPort, ServerUrl, SslMode};

/// How long a server may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an ordinary question may take, unless the session is told otherwise.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a statement without rows did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The rows that it changed.
    pub affected_rows: u64,
    /// The warnings that it left (`SHOW WARNINGS` tells them); the protocol counts to 65,535.
    pub warnings: u16,
}

/// One connection to one server.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    address: HostPort,
    timeout: Option<Duration>,
}

impl Session {
    /// Connects, logs in and settles what every session of Quillback shares: `utf8mb4`, UTC, no
    /// SQL mode of the server's own.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached within [`CONNECT_TIMEOUT`], refuses the login, or cannot
    /// be reached as protected as the URL asks.
    pub async fn connect(url: &ServerUrl) -> Result<Self, MysqlError> {
        Self::connect_within(url, CONNECT_TIMEOUT).await
    }

    /// [`Session::connect`] with another bound.
    ///
    /// # Errors
    ///
    /// As [`Session::connect`].
    pub async fn connect_within(url: &ServerUrl, limit: Duration) -> Result<Self, MysqlError> {
        let address = url.address();
        check_authority(url).await.map_err(|e| e.at(&address))?;
        let connecting = async {
            let conn = match url.ssl_mode {
                SslMode::Preferred => match Conn::new(options(url, SslMode::Required)).await {
                    Err(mysql_async::Error::Driver(
                        mysql_async::DriverError::NoClientSslFlagFromServer,
                    )) => Conn::new(options(url, SslMode::Disabled)).await?,
                    other => other?,
                },
                mode => Conn::new(options(url, mode)).await?,
            };
            let mut session = Self {
                conn,
                address: address.clone(),
                timeout: Some(QUERY_TIMEOUT),
            };
            session
                .execute(
                    "SET NAMES utf8mb4, SESSION sql_mode = '', time_zone = '+00:00', \
                     sql_select_limit = 18446744073709551615",
                )
                .await?;
            Ok(session)
        };
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error: MysqlError| error.at(&address)),
            Err(_) => Err(MysqlError::TimedOut {
                action: "connecting".to_owned(),
                limit,
            }
            .at(&address)),
        }
    }

    /// The server's address.
    #[must_use]
    pub const fn address(&self) -> &HostPort {
        &self.address
    }

    /// The server's number of this connection, as `KILL` takes it.
    #[must_use]
    pub fn connection_id(&self) -> u32 {
        self.conn.id()
    }

    /// Bounds each later call; `None` waits for as long as the server works.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Runs a statement and tells what it did; rows, if there are any, are dropped.
    ///
    /// # Errors
    ///
    /// What the server refuses, a lost connection, or the timeout.
    pub async fn execute(&mut self, sql: impl AsRef<[u8]>) -> Result<Outcome, MysqlError> {
        let sql = sql.as_ref();
        let conn = &mut self.conn;
        let running = async {
            let result = conn.query_iter(sql).await?;
            let affected_rows = result.affected_rows();
            let warnings = result.warnings();
            result.drop_result().await?;
            Ok(Outcome {
                affected_rows,
                warnings,
            })
        };
        bounded(self.timeout, &self.address, running).await
    }

    /// All rows of a small answer.
    ///
    /// # Errors
    ///
    /// As [`Session::execute`], and when a row is not of the shape of `T`.
    pub async fn query<T>(&mut self, sql: impl AsRef<[u8]>) -> Result<Vec<T>, MysqlError>
    where
        T: FromRow + Send + 'static,
    {
        let running = self.conn.query::<T, _>(sql.as_ref());
        bounded(self.timeout, &self.address, running).await
    }

    /// The first row of an answer, if it has one.
    ///
    /// # Errors
    ///
    /// As [`Session::query`].
    pub async fn query_first<T>(&mut self, sql: impl AsRef<[u8]>) -> Result<Option<T>, MysqlError>
    where
        T: FromRow + Send + 'static,
    {
        let running = self.conn.query_first::<T, _>(sql.as_ref());
        bounded(self.timeout, &self.address, running).await
    }

    /// The only row of an answer that always has one.
    ///
    /// # Errors
    ///
    /// As [`Session::query`], and when there is no row.
    pub async fn query_one<T>(&mut self, sql: impl AsRef<[u8]>) -> Result<T, MysqlError>
    where
        T: FromRow + Send + 'static,
    {
        self.query_first(sql).await?.ok_or_else(|| {
            MysqlError::protocol("no row where there is always one").at(&self.address)
        })
    }

    /// Answers the server's next request for a LOCAL INFILE, once, with what comes out of the
    /// channel until it closes.
    ///
    /// For the server an error in it is a normal end of file: whoever loads must check what was
    /// sent before committing.
    pub fn set_infile_chunks(&mut self, chunks: mpsc::Receiver<io::Result<Bytes>>) {
        self.conn.set_infile_handler(async move {
            let data = stream::unfold(chunks, |mut chunks| async move {
                let chunk = chunks.recv().await?;
                Some((chunk, chunks))
            });
            Ok(data.boxed())
        });
    }

    /// Says goodbye to the server; a failure of that is of no use to anyone.
    pub async fn close(self) {
        let address = self.address;
        let closing = self.conn.disconnect();
        if let Err(error) = bounded(Some(CONNECT_TIMEOUT), &address, closing).await {
            tracing::debug!(%address, %error, "the connection did not close cleanly");
        }
    }
}

async fn bounded<T>(
    limit: Option<Duration>,
    address: &HostPort,
    running: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, MysqlError> {
    let finished = match limit {
        None => running.await,
        Some(limit) => match tokio::time::timeout(limit, running).await {
            Ok(finished) => finished,
            Err(_) => {
                let action = "a statement".to_owned();
                return Err(MysqlError::TimedOut { action, limit }.at(address));
            }
        },
    };
    finished.map_err(|error| MysqlError::from(error).at(address))
}

fn options(url: &ServerUrl, mode: SslMode) -> Opts {
    let builder = OptsBuilder::default()
        .ip_or_hostname(url.host.clone())
        .tcp_port(url.port)
        .user(Some(url.user.clone()))
        .pass(
            url.password
                .as_ref()
                .map(|secret| secret.expose().to_owned()),
        )
        .prefer_socket(Some(false))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .max_allowed_packet(Some(1 << 30))
        .wait_timeout(Some(28_800))
        .ssl_opts(ssl_options(url, mode));
    Opts::from(builder)
}

/// Fails if the file of the authority cannot be read, which mysql_async would tell as a failure of
/// the network.
async fn check_authority(url: &ServerUrl) -> Result<(), MysqlError> {
    if let Some(path) = &url.ssl_ca
        && url.ssl_mode != SslMode::Disabled
        && let Err(error) = tokio::fs::read(path).await
    {
        return Err(MysqlError::Tls {
            reason: format!("cannot read ssl-ca {}: {error}", path.display()),
        });
    }
    Ok(())
}

/// The name that VERIFY_CA expects: none that a certificate has.
///
/// mysql_async 0.37 passes over the name of a certificate whose chain is good only if the text of
/// rustls's error holds the word NotValidForName; it has not for some time, but it holds the
/// expected name.
const ANY_NAME: &str = "NotValidForName.invalid";

fn ssl_options(url: &ServerUrl, mode: SslMode) -> Option<SslOpts> {
    let options = match mode {
        SslMode::Disabled => return None,
        SslMode::Preferred | SslMode::Required => {
            SslOpts::default().with_danger_accept_invalid_certs(true)
        }
        SslMode::VerifyCa => SslOpts::default()
            .with_danger_skip_domain_validation(true)
            .with_danger_tls_hostname_override(Some(ANY_NAME)),
        SslMode::VerifyIdentity => SslOpts::default(),
    };
    install_crypto();
    let roots = match &url.ssl_ca {
        Some(ca) => vec![ca.clone().into()],
        None => rustls_native_certs::load_native_certs()
            .certs
            .into_iter()
            .map(|certificate| certificate.to_vec().into())
            .collect(),
    };
    Some(
        options
            .with_root_certs(roots)
            .with_disable_built_in_roots(true),
    )
}

/// Makes aws-lc-rs the process's TLS backend: mysql_async is built without one of its own.
pub(crate) fn install_crypto() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Err(present) = provider.install_default() {
            let present: Arc<rustls::crypto::CryptoProvider> = present;
            tracing::debug!(
                suites = present.cipher_suites.len(),
                "a TLS backend was there before"
            );
        }
    });
}
