//! A transaction larger than memory allows to hold.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions, until};

use crate::gtid_executed;
use crate::place::Place;

const ROW: u64 = 6 << 20;
const ROWS: u64 = 342;
const MEMORY: u64 = 256 << 20;
/// Several times what it takes here.
const LIMIT: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::print_stderr,
    reason = "how long it took and how much it needed"
)]
async fn a_transaction_of_two_gibibytes_passes_in_parts_with_flat_memory() -> Result<()> {
    let options = [
        "innodb_redo_log_capacity=512M",
        "innodb_buffer_pool_size=256M",
        "innodb_flush_log_at_trx_commit=0",
        "innodb_doublewrite=OFF",
        "max_allowed_packet=64M",
    ];
    let options = options
        .into_iter()
        .fold(ServerOptions::new(), ServerOptions::line);
    let server = Server::start_with(options).await?;
    let servers = [server.url()];
    let place = Place::folder().await?;
    let streamer = place.stream(&servers, &[])?;
    streamer.following().await?;
    let mut conn = server.conn().await?;
    for statement in [
        "CREATE DATABASE big",
        "CREATE TABLE big.blobs (id INT PRIMARY KEY, body LONGBLOB)",
        // Once, and too far apart from each other for zstd to see that they are the same.
        "SET SESSION group_concat_max_len = 16777216, SESSION cte_max_recursion_depth = 100000",
    ] {
        conn.query_drop(statement).await?;
    }
    conn.query_drop(format!(
        "SET @body = (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         SELECT GROUP_CONCAT(RANDOM_BYTES(1024) SEPARATOR '') FROM n)",
        ROW / 1024
    ))
    .await?;
    let length: Option<u64> = conn.query_first("SELECT LENGTH(@body)").await?;
    ensure!(length == Some(ROW), "{length:?}");
    let started = Instant::now();
    conn.query_drop(format!(
        "INSERT INTO big.blobs WITH RECURSIVE n (i) AS \
         (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) SELECT i, @body FROM n"
    ))
    .await?;
    let written = started.elapsed();
    conn.disconnect().await?;
    let executed = gtid_executed(&server).await?;
    until("the transaction to be archived", LIMIT, async || {
        ensure!(streamer.is_alive(), "{}", streamer.stderr());
        let end = place.chain().await?.end();
        Ok((end.as_ref() == Some(&executed)).then_some(()))
    })
    .await?;
    let peak = streamer.peak_memory()?;
    let archived = started.elapsed();
    streamer.stop().await?.is(0);

    let chain = place.chain().await?;
    ensure!(chain.problems.is_empty(), "{:?}", chain.problems);
    let parts: Vec<_> = chain
        .segments
        .iter()
        .filter(|stored| stored.index.part.is_some())
        .collect();
    let raw: u64 = parts.iter().map(|stored| stored.index.raw_bytes).sum();
    eprintln!(
        "{} MiB in {} parts, {} MiB stored, peak memory {} MiB; written in {:.1} s, archived after {:.1} s",
        raw >> 20,
        parts.len(),
        chain.stored_bytes() >> 20,
        peak >> 20,
        written.as_secs_f64(),
        archived.as_secs_f64(),
    );
    ensure!(raw >= 2 << 30, "{raw} bytes");
    ensure!(parts.len() >= 16, "{} parts", parts.len());
    ensure!(peak < MEMORY, "{} MiB of memory", peak >> 20);
    // Every byte of every part can be read, and belongs to one transaction.
    let mut bodies = 0;
    for stored in &parts {
        let segment = place.repository.read_segment(stored).await?;
        let mut events = segment.events()?;
        while let Some(event) = events.next_event()? {
            bodies += u64::from(event.bytes().len() as u64 > ROW);
        }
    }
    ensure!(bodies == ROWS, "{bodies} rows");
    Ok(())
}
