//! The real MySQL Router with a static configuration.
//!
//! Router can follow a group by itself only with InnoDB Cluster's metadata, which only MySQL Shell makes. Here its
//! configuration names the servers: the first one that answers takes the writes, the others the reads in turn. It does **not**
//! notice a failover; a test that moves the primary says so by [`Router::retarget`], which rewrites the file and restarts Router.

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

/// A mysqlrouter with a port for writes and one for reads.
#[derive(Debug)]
pub struct Router {
    process: Process,
    folder: Scratch,
    rw: Port,
    ro: Port,
}

impl Router {
    /// Starts Router: writes go to `primary`, reads to `secondaries` in turn.
    ///
    /// # Errors
    /// There is no mysqlrouter, or it does not let a connection through.
    pub async fn start(primary: &Server, secondaries: &[&Server]) -> Result<Self> {
        let folder = Scratch::new("r")?;
        let process = Process::idle(Launch {
            program: programs::find("mysqlrouter")?,
            args: vec![
                "-c".to_owned(),
                folder.path().join("router.conf").display().to_string(),
            ],
            env: Vec::new(),
            log: folder.path().join("router.log"),
            stdout: None,
            supervised: false,
        });
        let router = Self {
            process,
            folder,
            rw: Port::reserve()?,
            ro: Port::reserve()?,
        };
        router.run(primary, secondaries).await?;
        Ok(router)
    }

    /// Points Router at another primary: rewrites its configuration and restarts it, which cuts all its connections.
    ///
    /// # Errors
    /// It does not come up again.
    pub async fn retarget(&self, primary: &Server, secondaries: &[&Server]) -> Result<()> {
        if self.process.pid().is_some() {
            self.process.kill9().await?;
        }
        self.run(primary, secondaries).await
    }

    /// The URL for writes, of `root`.
    pub fn rw_url(&self) -> String {
        url(&self.rw)
    }

    /// The URL for reads, of `root`.
    pub fn ro_url(&self) -> String {
        url(&self.ro)
    }

    async fn run(&self, primary: &Server, secondaries: &[&Server]) -> Result<()> {
        std::fs::write(
            self.folder.path().join("router.conf"),
            self.configuration(primary, secondaries),
        )
        .context("failed to write router.conf")?;
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
            self.rw.number(),
            primary.address(),
            self.ro.number(),
        )
    }
}

fn url(port: &Port) -> String {
    format!("mysql://root:{ROOT_PASSWORD}@127.0.0.1:{}", port.number())
}
