//! A source with replicas that follow it by auto-position.

use std::time::Duration;

use anyhow::{Result, bail};
use mysql_async::prelude::Queryable;

use crate::server::Server;
use crate::server_options::ServerOptions;
use crate::wait;

const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

/// A source and its replicas; the replicas are super_read_only.
#[derive(Debug)]
pub struct Replicas {
    source: Server,
    replicas: Vec<Server>,
}

impl Replicas {
    /// Starts a source with `count` replicas, side by side.
    ///
    /// # Errors
    /// A server does not come up, or a replica does not follow.
    pub async fn start(count: usize) -> Result<Self> {
        Self::start_with(count, |options| options).await
    }

    /// The same with options: `configure` is applied to those of each server.
    ///
    /// # Errors
    /// As [`Replicas::start`].
    pub async fn start_with(
        count: usize,
        configure: impl Fn(ServerOptions) -> ServerOptions,
    ) -> Result<Self> {
        let options = || {
            configure(ServerOptions::new().account(
                "repl",
                "repl-for-tests",
                &["REPLICATION SLAVE ON *.*"],
            ))
        };
        let starts: Vec<_> = (0..=count)
            .map(|_| tokio::spawn(Server::start_with(options())))
            .collect();
        let mut servers = Vec::new();
        for start in starts {
            servers.push(start.await??);
        }
        let source = servers.remove(0);
        let set = Self {
            source,
            replicas: servers,
        };
        for replica in &set.replicas {
            follow(replica, &set.source).await?;
        }
        Ok(set)
    }

    /// The source.
    pub fn source(&self) -> &Server {
        &self.source
    }

    /// The replicas.
    pub fn replicas(&self) -> &[Server] {
        &self.replicas
    }

    /// Waits until every replica has what the source has now.
    ///
    /// # Errors
    /// One has not within two minutes.
    pub async fn wait_caught_up(&self) -> Result<()> {
        let executed = self.source.gtid_executed().await?;
        for replica in &self.replicas {
            replica.wait_for_gtids(&executed, CATCH_UP_LIMIT).await?;
        }
        Ok(())
    }

    /// The URLs of all servers, of `root`, password included; the first is the source that was started.
    pub fn urls(&self) -> Vec<String> {
        std::iter::once(&self.source)
            .chain(&self.replicas)
            .map(Server::url)
            .collect()
    }

    /// Makes a replica the source, as an operator does whose source is gone: it takes writes, and the other replicas
    /// follow it.
    ///
    /// # Errors
    /// A server refuses, or a replica does not follow.
    pub async fn promote(&self, chosen: &Server) -> Result<()> {
        let mut conn = chosen.conn().await?;
        for statement in [
            "STOP REPLICA",
            "RESET REPLICA ALL",
            "SET PERSIST super_read_only=OFF",
            "SET PERSIST read_only=OFF",
        ] {
            conn.query_drop(statement).await?;
        }
        conn.disconnect().await?;
        for replica in &self.replicas {
            if replica.port() != chosen.port() {
                replica.exec("STOP REPLICA").await?;
                follow(replica, chosen).await?;
            }
        }
        Ok(())
    }
}

/// Makes a server follow another one, and waits until it is connected.
async fn follow(replica: &Server, source: &Server) -> Result<()> {
    let mut conn = replica.conn().await?;
    conn.query_drop(format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='repl', \
         SOURCE_PASSWORD='repl-for-tests', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, \
         SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=10000",
        source.port()
    ))
    .await?;
    conn.query_drop("START REPLICA").await?;
    conn.query_drop("SET PERSIST super_read_only=ON").await?;
    conn.disconnect().await?;
    wait::until("the replica to connect", Duration::from_secs(30), async || {
        let sql = "SELECT SERVICE_STATE, LAST_ERROR_MESSAGE FROM performance_schema.replication_connection_status";
        match replica.query::<(String, String)>(sql).await?.as_slice() {
            [(state, _)] if state == "ON" => Ok(Some(())),
            other => bail!("replication_connection_status: {other:?}"),
        }
    })
    .await
}
