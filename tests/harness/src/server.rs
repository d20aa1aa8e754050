//! One real mysqld.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, OptsBuilder};

use crate::encryption::Keyring;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::server_options::{Account, ROOT_PASSWORD, ServerOptions};
use crate::{programs, template, wait};

/// How long a server may take to come up; generous, as tests run side by side on small machines.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// How long one connection attempt may take; a paused server accepts and then says nothing.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A mysqld on a loopback port of its own, with its own folder; both are gone when this is dropped.
///
/// `root` with [`ROOT_PASSWORD`] can do everything, over TCP from 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    // Dropped in this order: the process ends before its folder is removed and its port is given back.
    process: Process,
    folder: Scratch,
    port: Port,
    server_id: u32,
}

impl Server {
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// The programs cannot be had, or it does not come up; then with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(ServerOptions::new()).await
    }

    /// Starts a server.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_with(options: ServerOptions) -> Result<Self> {
        let accounts = options.accounts.clone();
        let server = tokio::task::spawn_blocking(move || Self::spawn(&options))
            .await
            .context("a panic at the start")??;
        server.wait_ready().await?;
        if !accounts.is_empty() {
            let mut conn = server.conn().await?;
            conn.query_drop("SET sql_log_bin=0").await?;
            for account in &accounts {
                create_account(&mut conn, account).await?;
            }
            conn.disconnect().await?;
        }
        Ok(server)
    }

    fn spawn(options: &ServerOptions) -> Result<Self> {
        let folder = Scratch::new("s")?;
        let port = Port::reserve()?;
        std::fs::create_dir(folder.path().join("tmp"))
            .context("failed to make the server's tmpdir")?;
        template::copy_to(&folder.path().join("data"))?;
        let my_cnf = folder.path().join("my.cnf");
        std::fs::write(&my_cnf, options.my_cnf(folder.path(), port.number()))
            .context("failed to write my.cnf")?;
        let mut args = vec![format!("--defaults-file={}", my_cnf.display())];
        let program = if options.keyring {
            let keyring = Keyring::lay_out(folder.path())?;
            args.extend(keyring.args);
            keyring.program
        } else {
            programs::find("mysqld")?
        };
        let process = Process::idle(Launch {
            program,
            args,
            env: Vec::new(),
            log: folder.path().join("mysqld.log"),
            stdout: None,
            supervised: options.supervised,
        });
        process.start_again(&options.first_args)?;
        Ok(Self {
            process,
            folder,
            port,
            server_id: options.server_id,
        })
    }

    /// The port it listens on, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The URL of `root`, password included.
    pub fn url(&self) -> String {
        self.url_for("root", ROOT_PASSWORD)
    }

    /// The URL of another account.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("mysql://{user}:{password}@{}", self.address())
    }

    /// The URL of `root` without the password, which then comes from elsewhere.
    pub fn url_without_password(&self) -> String {
        format!("mysql://root@{}", self.address())
    }

    /// The server_id that it was started with.
    pub fn server_id(&self) -> u32 {
        self.server_id
    }

    /// Its folder: my.cnf, mysqld.log, data/.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// How often it was started, its own RESTARTs included.
    pub fn starts(&self) -> u32 {
        self.process.starts()
    }

    /// The last lines of its error log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// A new connection of `root`.
    ///
    /// # Errors
    /// It does not answer within 10 seconds, or refuses.
    pub async fn conn(&self) -> Result<Conn> {
        connect(&self.url()).await
    }

    /// Runs a statement, on a connection of its own, and drops its results.
    ///
    /// # Errors
    /// The server's.
    pub async fn exec(&self, sql: &str) -> Result<()> {
        let mut conn = self.conn().await?;
        conn.query_drop(sql).await.with_context(|| sql.to_owned())?;
        conn.disconnect().await?;
        Ok(())
    }

    /// The rows of a query, on a connection of its own.
    ///
    /// # Errors
    /// The server's.
    pub async fn query<T: FromRow + Send + 'static>(&self, sql: &str) -> Result<Vec<T>> {
        let mut conn = self.conn().await?;
        let rows = conn.query(sql).await.with_context(|| sql.to_owned())?;
        conn.disconnect().await?;
        Ok(rows)
    }

    /// The first row of a query.
    ///
    /// # Errors
    /// The server's; no row.
    pub async fn one<T: FromRow + Send + 'static>(&self, sql: &str) -> Result<T> {
        self.query(sql)
            .await?
            .into_iter()
            .next()
            .with_context(|| format!("no row: {sql}"))
    }

    /// gtid_executed, without line breaks.
    ///
    /// # Errors
    /// The server's.
    pub async fn gtid_executed(&self) -> Result<String> {
        self.one("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')")
            .await
    }

    /// server_uuid.
    ///
    /// # Errors
    /// The server's.
    pub async fn uuid(&self) -> Result<String> {
        self.one("SELECT @@GLOBAL.server_uuid").await
    }

    /// Waits until this server has executed all of a GTID set.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub async fn wait_for_gtids(&self, set: &str, limit: Duration) -> Result<()> {
        let sql = format!(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {})",
            limit.as_secs_f64()
        );
        match self.one::<Option<u8>>(&sql).await? {
            Some(0) => Ok(()),
            _ => bail!(
                "{} has executed {}, which lacks a part of {set}",
                self.address(),
                self.gtid_executed().await?
            ),
        }
    }

    /// Makes an account, with binlog entries (on a member of a group: on the primary).
    ///
    /// # Errors
    /// The server's.
    pub async fn create_account(&self, account: &Account) -> Result<()> {
        let mut conn = self.conn().await?;
        create_account(&mut conn, account).await?;
        conn.disconnect().await?;
        Ok(())
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill9(&self) -> Result<()> {
        self.process.kill9().await.map(drop)
    }

    /// Stops it where it stands (SIGSTOP): connections stay open and hang.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Shuts it down cleanly.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn stop(&self) -> Result<()> {
        let status = self.process.terminate(STOP_LIMIT).await?;
        if !status.success() {
            bail!("mysqld ended with {status}:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Starts it again after a stop or a kill, and waits until it answers.
    ///
    /// # Errors
    /// It runs, or does not come up.
    pub async fn start_again(&self) -> Result<()> {
        self.start_again_with(&[]).await
    }

    /// Starts it again, this once with more arguments.
    ///
    /// # Errors
    /// As [`Server::start_again`].
    pub async fn start_again_with(&self, args: &[&str]) -> Result<()> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.process.start_again(&args)?;
        self.wait_ready().await
    }

    /// Stops and starts it.
    ///
    /// # Errors
    /// Those of both.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Waits until it answers a query.
    ///
    /// # Errors
    /// It ended, or does not answer within two minutes; with the end of its log.
    pub async fn wait_ready(&self) -> Result<()> {
        let ready = wait::until("mysqld to answer", START_LIMIT, async || {
            if let Some(status) = self.process.exit_status() {
                return Ok(Some(Err(status)));
            }
            let mut conn = self.conn().await?;
            conn.query_drop("SELECT 1").await?;
            conn.disconnect().await?;
            Ok(Some(Ok(())))
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!(
                "mysqld ended with {status}; its log ends:\n{}",
                self.log_tail()
            ),
            Err(error) => Err(error.context(format!(
                "mysqld does not come up; its log ends:\n{}",
                self.log_tail()
            ))),
        }
    }
}

/// A connection to a `mysql://` URL by TCP (never by the socket that the server advertises), within 10 seconds.
///
/// # Errors
/// It does not answer in time, or refuses.
pub(crate) async fn connect(url: &str) -> Result<Conn> {
    let opts = OptsBuilder::from_opts(Opts::from_url(url).context("a bad URL")?)
        .prefer_socket(Some(false));
    match tokio::time::timeout(CONNECT_LIMIT, Conn::new(opts)).await {
        Ok(conn) => Ok(conn?),
        Err(_) => bail!("no answer within {} s", CONNECT_LIMIT.as_secs()),
    }
}

async fn create_account(conn: &mut Conn, account: &Account) -> Result<()> {
    let user = format!("'{}'@'%'", account.user);
    conn.query_drop(format!(
        "CREATE USER {user} IDENTIFIED BY '{}'",
        account.password
    ))
    .await?;
    for grant in &account.grants {
        conn.query_drop(format!("GRANT {grant} TO {user}"))
            .await
            .with_context(|| grant.clone())?;
    }
    Ok(())
}
