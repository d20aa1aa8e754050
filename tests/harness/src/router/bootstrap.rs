//! Router as `mysqlrouter --bootstrap` configures it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Router, START_LIMIT};
use crate::server::{Server, connect};
use crate::server_options::ROOT_PASSWORD;
use crate::{programs, scratch, wait};

const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(60);
const FOLDER: &str = "own";

impl Router {
    /// Bootstraps Router against a member of a cluster that has metadata, and starts it. It finds the others by itself.
    ///
    /// # Errors
    /// There is no mysqlrouter, the bootstrap is refused (then with what it said), or no connection comes through.
    pub async fn bootstrap(member: &Server) -> Result<Self> {
        let router = Self::bootstrap_idle(member).await?;
        router.open().await?;
        Ok(router)
    }

    /// Bootstraps Router and does not start it; [`Router::restart`] does.
    ///
    /// # Errors
    /// There is no mysqlrouter, or the bootstrap is refused; with what it said.
    pub async fn bootstrap_idle(member: &Server) -> Result<Self> {
        let router = Self::idle(&format!("{FOLDER}/mysqlrouter.conf"))?;
        router.configure_itself(member, false).await?;
        Ok(router)
    }

    /// Bootstraps it again in its folder, with `--force`, as is needed when the group has another name.
    ///
    /// # Errors
    /// As [`Router::bootstrap`].
    pub async fn bootstrap_again(&self, member: &Server) -> Result<()> {
        self.end().await?;
        self.configure_itself(member, true).await?;
        self.open().await
    }

    /// Bootstraps it again in its folder without `--force`, and does not start it: whether Router lets that happen.
    ///
    /// # Errors
    /// The bootstrap is refused; with what it said.
    pub async fn configure_again(&self, member: &Server) -> Result<()> {
        self.end().await?;
        self.configure_itself(member, false).await
    }

    /// Starts it again with the configuration that it has, whether or not it finds its cluster.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn restart(&self) -> Result<()> {
        self.end().await?;
        self.process.start_again(&[])
    }

    /// The group's name by which it knows its cluster: `group-replication-id` of its state file.
    ///
    /// # Errors
    /// It was not bootstrapped, or against a ClusterSet.
    pub fn group_name(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.state_file()).context("Router's state file")?;
        let state: serde_json::Value = serde_json::from_str(&text)?;
        let id = &state["metadata-cache"]["group-replication-id"];
        Ok(id.as_str().context("no group-replication-id")?.to_owned())
    }

    /// The port of the server that writes come to.
    ///
    /// # Errors
    /// No connection comes through.
    pub async fn writes_reach(&self) -> Result<u16> {
        server_behind(&self.rw_url()).await
    }

    /// The ports of the servers that several connections for reads come to.
    ///
    /// # Errors
    /// No connection comes through.
    pub async fn reads_reach(&self) -> Result<BTreeSet<u16>> {
        let mut reached = BTreeSet::new();
        for _ in 0..6 {
            reached.insert(server_behind(&self.ro_url()).await?);
        }
        Ok(reached)
    }

    /// Waits until writes come to `primary` and reads to exactly these `secondaries`.
    ///
    /// # Errors
    /// It is not so within a minute; with where they come to, and the end of Router's log.
    pub async fn wait_routes(&self, primary: &Server, secondaries: &[&Server]) -> Result<()> {
        let wanted: BTreeSet<u16> = secondaries.iter().map(|server| server.port()).collect();
        wait::until(
            "Router to send writes and reads to the right servers",
            START_LIMIT,
            async || {
                let (writes, reads) = (self.writes_reach().await?, self.reads_reach().await?);
                if writes == primary.port() && reads == wanted {
                    return Ok(Some(()));
                }
                bail!("writes go to {writes} and reads to {reads:?}")
            },
        )
        .await
        .with_context(|| self.log_tail())
    }

    /// Waits until neither port lets anyone through.
    ///
    /// # Errors
    /// One still does after a minute.
    pub async fn wait_closed(&self) -> Result<()> {
        wait::until("Router to close its ports", START_LIMIT, async || {
            for url in [self.rw_url(), self.ro_url()] {
                if server_behind(&url).await.is_ok() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    async fn configure_itself(&self, member: &Server, force: bool) -> Result<()> {
        let mut command = Command::new(programs::find("mysqlrouter")?);
        command
            .arg("--bootstrap")
            .arg(format!("root@{}", member.address()))
            .arg("--directory")
            .arg(self.folder.path().join(FOLDER))
            .arg("--conf-base-port")
            .arg(self.ports[0].number().to_string())
            // Its name among the Routers of a host: two of them in one test must not be the same one.
            .arg("--name")
            .arg(format!("harness{}", self.ports[0].number()))
            .args(["--conf-bind-address", "127.0.0.1"])
            // Otherwise it asks for this host's name, which need not lead to an address.
            .args(["--report-host", "127.0.0.1"])
            .arg("--disable-rest")
            .arg("--conf-set-option=DEFAULT.logging_folder=")
            .arg("--conf-set-option=logger.level=INFO");
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        if force {
            command.arg("--force");
        }
        let mut child = command
            .env(scratch::MARK, scratch::root()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("failed to run mysqlrouter --bootstrap")?;
        // Without a terminal it reads the password from here.
        let mut stdin = child.stdin.take().context("its stdin is a pipe")?;
        stdin
            .write_all(format!("{ROOT_PASSWORD}\n").as_bytes())
            .await
            .context("failed to give Router the password")?;
        drop(stdin);
        let output = tokio::time::timeout(BOOTSTRAP_LIMIT, child.wait_with_output())
            .await
            .context("mysqlrouter --bootstrap has not ended")??;
        if !output.status.success() {
            bail!(
                "mysqlrouter --bootstrap ended with {}:\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    fn state_file(&self) -> PathBuf {
        self.folder.path().join(FOLDER).join("data/state.json")
    }
}

async fn server_behind(url: &str) -> Result<u16> {
    let mut conn = connect(url).await?;
    let port = conn.query_first("SELECT @@GLOBAL.port").await?;
    conn.disconnect().await?;
    port.context("no port")
}
