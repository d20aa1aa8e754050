//! The server that is followed, and its binlog.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions};
use tokio::task::JoinSet;

use crate::text::Random;
use crate::workload::Workload;

/// How many connections fill the binlog.
const FILLERS: u64 = 4;
/// A server that has not written the binlog by then never will.
const FILL_LIMIT: Duration = Duration::from_secs(300);

/// A server with the sizes of a small production one; what makes a commit durable is as it comes from MySQL.
pub(crate) async fn start(workload: Workload, random: &mut Random) -> Result<Server> {
    let options = ServerOptions::new()
        .line("innodb_buffer_pool_size=1G")
        .line("innodb_redo_log_capacity=2G")
        .line("innodb_log_buffer_size=16M")
        .line("sync_binlog=1")
        .line("innodb_flush_log_at_trx_commit=1");
    let server = Server::start_with(options).await?;
    workload.prepare(&mut server.conn().await?, random).await?;
    // The binlog shall hold what is measured and nothing else.
    server.exec("FLUSH BINARY LOGS").await?;
    let files: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await?;
    let (newest, ..) = files.last().context("the server has no binlog")?;
    server
        .exec(&format!("PURGE BINARY LOGS TO '{newest}'"))
        .await?;
    Ok(server)
}

/// Writes until the binlog has `bytes`; not durably, for the writing is not what is measured.
pub(crate) async fn fill(
    server: &Server,
    workload: Workload,
    random: &Random,
    bytes: u64,
) -> Result<Binlog> {
    let started = Instant::now();
    set_durability(server, 0, 2).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..FILLERS {
        let mut conn = server.conn().await?;
        let mut writer = workload.writer(number, random);
        let stop = Arc::clone(&stop);
        writers.spawn(async move {
            let mut done = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let sql = writer.transaction();
                conn.query_drop(&sql)
                    .await
                    .with_context(|| sql.chars().take(500).collect::<String>())?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    while Binlog::of(server).await?.bytes < bytes {
        ensure!(
            started.elapsed() < FILL_LIMIT,
            "the binlog is not full in time"
        );
        if let Some(ended) = writers.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut transactions = 0;
    while let Some(done) = writers.join_next().await {
        transactions += done??;
    }
    set_durability(server, 1, 1).await?;
    let mut binlog = Binlog::of(server).await?;
    binlog.transactions = transactions;
    binlog.seconds = started.elapsed().as_secs_f64();
    Ok(binlog)
}

async fn set_durability(server: &Server, binlog: u8, redo: u8) -> Result<()> {
    server
        .exec(&format!("SET GLOBAL sync_binlog = {binlog}"))
        .await?;
    server
        .exec(&format!(
            "SET GLOBAL innodb_flush_log_at_trx_commit = {redo}"
        ))
        .await
}

/// A server's binlog files.
#[derive(Debug, Clone)]
pub(crate) struct Binlog {
    /// Their paths, the oldest first.
    pub(crate) files: Vec<PathBuf>,
    /// The size of all of them.
    pub(crate) bytes: u64,
    /// The transactions that filled them.
    pub(crate) transactions: u64,
    /// How long that took.
    pub(crate) seconds: f64,
}

impl Binlog {
    async fn of(server: &Server) -> Result<Self> {
        let rows: Vec<(String, u64, String)> = server.query("SHOW BINARY LOGS").await?;
        Ok(Self {
            files: rows
                .iter()
                .map(|(name, ..)| server.data_dir().join(name))
                .collect(),
            bytes: rows.iter().map(|(_, bytes, _)| bytes).sum(),
            transactions: 0,
            seconds: 0.0,
        })
    }
}
