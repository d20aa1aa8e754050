//! The real MySQL Router, in either of its two ways.
//!
//! [`Router::start`] gives it a configuration that names the servers: the first one that answers takes the writes, the others
//! the reads in turn. It does **not** notice a failover; a test that moves the primary says so by [`Router::retarget`], which
//! rewrites the file and restarts Router. [`Router::bootstrap`] lets it configure itself from the metadata of InnoDB Cluster
//! (see [`cluster_metadata`](crate::cluster_metadata)); it then follows the group by itself.

mod bootstrap;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;

use crate::port::Port;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::server::{Server, connect};
use crate::server_options::ROOT_PASSWORD;
use crate::{programs, wait};

const START_LIMIT: Duration = Duration::from_secs(60);
/// How many ports a bootstrap takes, from its base port on.
const PORTS: u16 = 5;

/// A mysqlrouter with a port for writes and one for reads.
#[derive(Debug)]
pub struct Router {
    process: Process,
    folder: Scratch,
    /// In a row: for writes, for reads, and those of the X protocol and of the splitting of both, which a bootstrap takes.
    ports: Vec<Port>,
}

impl Router {
    /// Starts Router: writes go to `primary`, reads to `secondaries` in turn.
    ///
    /// # Errors
    /// There is no mysqlrouter, or it does not let a connection through.
    pub async fn start(primary: &Server, secondaries: &[&Server]) -> Result<Self> {
        let router = Self::idle("router.conf")?;
        router.run(primary, secondaries).await?;
        Ok(router)
    }

    /// One that has not been started, with its configuration to be in a file of its folder.
    fn idle(configuration: &str) -> Result<Self> {
        let folder = Scratch::new("r")?;
        let process = Process::idle(Launch {
            program: programs::find("mysqlrouter")?,
            args: vec![
                "-c".to_owned(),
                folder.path().join(configuration).display().to_string(),
            ],
            env: Vec::new(),
            log: folder.path().join("router.log"),
            stdout: None,
            supervised: false,
        });
        Ok(Self {
            process,
            folder,
            ports: Port::reserve_row(PORTS)?,
        })
    }

    /// Points Router at another primary: rewrites its configuration and restarts it, which cuts all its connections.
    ///
    /// # Errors
    /// It does not come up again.
    pub async fn retarget(&self, primary: &Server, secondaries: &[&Server]) -> Result<()> {
        self.end().await?;
        self.run(primary, secondaries).await
    }

    /// The URL for writes, of `root`.
    pub fn rw_url(&self) -> String {
        url(&self.ports[0])
    }

    /// The URL for reads, of `root`.
    pub fn ro_url(&self) -> String {
        url(&self.ports[1])
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    async fn run(&self, primary: &Server, secondaries: &[&Server]) -> Result<()> {
        std::fs::write(
            self.folder.path().join("router.conf"),
            self.configuration(primary, secondaries),
        )
        .context("failed to write router.conf")?;
        self.open().await
    }

    /// Ends it at once, if it runs.
    async fn end(&self) -> Result<()> {
        if self.process.pid().is_some() {
            self.process.kill9().await?;
        }
        Ok(())
    }

    /// Starts it, and waits until both of its ports let a connection through.
    async fn open(&self) -> Result<()> {
        self.process.start_again(&[])?;
        wait::until(
            "mysqlrouter to let a connection through",
            START_LIMIT,
            async || {
                if let Some(status) = self.process.exit_status() {
                    return Ok(Some(Err(status)));
                }
                for url in [self.rw_url(), self.ro_url()] {
                    let mut conn = connect(&url).await?;
                    conn.query_drop("SELECT 1").await?;
                    conn.disconnect().await?;
                }
                Ok(Some(Ok(())))
            },
        )
        .await
        .with_context(|| self.process.log_tail())?
        .or_else(|status| {
            bail!(
                "mysqlrouter ended with {status}:\n{}",
                self.process.log_tail()
            )
        })
    }

    fn configuration(&self, primary: &Server, secondaries: &[&Server]) -> String {
        let folder = self.folder.path().display();
        let user = if rustix::process::geteuid().is_root() {
            "user=root\n"
        } else {
            ""
        };
        let reads: Vec<_> = secondaries.iter().map(|server| server.address()).collect();
        let reads = if reads.is_empty() {
            primary.address()
        } else {
            reads.join(",")
        };
        format!(
            "[DEFAULT]\n{user}logging_folder=\nruntime_folder={folder}\ndata_folder={folder}\n\
             [logger]\nlevel=INFO\n\
             [routing:rw]\nbind_address=127.0.0.1\nbind_port={}\ndestinations={}\n\
             routing_strategy=first-available\nprotocol=classic\n\
             [routing:ro]\nbind_address=127.0.0.1\nbind_port={}\ndestinations={reads}\n\
             routing_strategy=round-robin\nprotocol=classic\n",
            self.ports[0].number(),
            primary.address(),
            self.ports[1].number(),
        )
    }
}

fn url(port: &Port) -> String {
    format!("mysql://root:{ROOT_PASSWORD}@127.0.0.1:{}", port.number())
}
