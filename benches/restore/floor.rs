//! The floor: the same rows by LOAD DATA over as many connections, and nothing else.
//!
//! It is a process of its own, this very program started with [`COMMAND`], so that it is measured as the others are. The
//! files are plain and in the kernel's cache; nothing is fetched, unpacked, hashed, counted or written down.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use quillback::mysql::ServerUrl;
use quillback::mysql::wire::{WireConnection, WireOptions};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

/// The first argument that makes this program the floor.
pub(crate) const COMMAND: &str = "load-data-and-nothing-else";

/// What is to be done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Statements and the files that they load, in order.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Statements for when all files are there, several at once.
    pub(crate) behind: Vec<String>,
    /// The last statement of all.
    pub(crate) last: Option<String>,
}

/// Loads with the arguments `URL THREADS ORDERS`; prints the number of rows.
pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let [url, threads, orders] = arguments else {
        anyhow::bail!("{COMMAND} wants the server's URL, a number and a file");
    };
    let url: ServerUrl = url.parse()?;
    let threads: usize = threads.parse()?;
    let orders: Orders = serde_json::from_slice(&std::fs::read(orders)?)?;
    let orders = Arc::new(orders);
    let rows = each(&url, threads, &orders, true).await?;
    each(&url, threads, &orders, false).await?;
    if let Some(last) = &orders.last {
        let mut connection = WireConnection::connect(&url, &WireOptions::default()).await?;
        connection.execute(last).await?;
    }
    println!("{rows}");
    Ok(())
}

/// Loads the files, or runs what comes behind; returns the rows.
async fn each(
    url: &ServerUrl,
    threads: usize,
    orders: &Arc<Orders>,
    with_files: bool,
) -> Result<u64> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..threads {
        let (url, orders, next) = (url.clone(), Arc::clone(orders), Arc::clone(&next));
        workers.spawn(async move {
            let mut connection = WireConnection::connect(&url, &WireOptions::default()).await?;
            connection
                .execute(
                    "SET SESSION sql_log_bin = 0, foreign_key_checks = 0, unique_checks = 0, sql_mode = 'NO_AUTO_VALUE_ON_ZERO', \
                     time_zone = '+00:00'",
                )
                .await?;
            let mut rows = 0;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if with_files {
                    let Some((statement, path)) = orders.files.get(at) else {
                        return anyhow::Ok(rows);
                    };
                    rows += load(&mut connection, statement, path).await?;
                } else {
                    let Some(statement) = orders.behind.get(at) else {
                        return anyhow::Ok(rows);
                    };
                    connection.execute(statement).await?;
                }
            }
        });
    }
    let mut rows = 0;
    while let Some(worker) = workers.join_next().await {
        rows += worker??;
    }
    Ok(rows)
}

async fn load(connection: &mut WireConnection, statement: &str, path: &Path) -> Result<u64> {
    let mut file = tokio::fs::File::open(path)
        .await
        .with_context(|| path.display().to_string())?;
    let mut infile = connection.load_local(statement, "quillback").await?;
    let mut piece = vec![0; 512 << 10];
    loop {
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Ok(infile.finish().await?.affected_rows);
        }
        infile.send(&piece[..read]).await?;
    }
}
