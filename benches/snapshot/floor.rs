//! The floor: the rows read over as many connections, and thrown away.
//!
//! It is a process of its own, this very program started with [`COMMAND`], so that it is measured as the others are. It
//! asks for what a snapshot asks for, and looks at no byte of the answer but the packets' headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use quillback::mysql::wire::{WireConnection, WireOptions};
use quillback::mysql::{ServerUrl, quote};
use tokio::task::JoinSet;

/// The first argument that makes this program the floor.
pub(crate) const COMMAND: &str = "read-and-throw-away";

/// Reads with the arguments `URL THREADS`; prints the number of rows.
pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let [url, threads] = arguments else {
        anyhow::bail!("{COMMAND} wants the server's URL and a number");
    };
    let url: ServerUrl = url.parse()?;
    let threads: usize = threads.parse()?;
    let mut connection = WireConnection::connect(&url, &WireOptions::default()).await?;
    let mut tables = Vec::new();
    let mut rows = connection
        .query_rows(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'bench' ORDER BY DATA_LENGTH DESC",
        )
        .await?;
    while let Some(row) = rows.next().await? {
        let name = row
            .fields()
            .next()
            .context("no column")??
            .context("no name")?;
        tables.push(String::from_utf8(name.to_vec())?);
    }
    let mut parts = Vec::new();
    for table in tables {
        let name = quote::qualified("bench", &table);
        let largest = connection
            .query_text(&format!("SELECT MAX(id) FROM {name}"))
            .await?;
        let largest: usize = largest.context("an empty table")?.parse()?;
        // In parts, so that one table too is read by all.
        let step = largest.div_ceil(threads * 2);
        for part in 0..threads * 2 {
            let (from, to) = (part * step + 1, (part + 1) * step);
            parts.push(format!(
                "SELECT * FROM {name} FORCE INDEX (PRIMARY) WHERE id BETWEEN {from} AND {to} ORDER BY id"
            ));
        }
    }
    let parts = Arc::new(parts);
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..threads {
        let (url, parts, next) = (url.clone(), Arc::clone(&parts), Arc::clone(&next));
        readers.spawn(async move {
            let mut connection = WireConnection::connect(&url, &WireOptions::default()).await?;
            connection
                .execute("SET SESSION character_set_results = binary")
                .await?;
            let mut count = 0_u64;
            while let Some(sql) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut rows = connection.query_rows(sql).await?;
                while rows.next().await?.is_some() {
                    count += 1;
                }
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(reader) = readers.join_next().await {
        count += reader??;
    }
    println!("{count}");
    Ok(())
}
