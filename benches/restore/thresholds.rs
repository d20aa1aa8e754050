//! From which size of a table on it pays to build its indexes after its rows, and from which size of a snapshot on to
//! switch the redo log off for it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use mysql_async::prelude::Queryable as _;
use quillback::restore::load::{LoadOptions, load};
use quillback_harness::Server;
use serde::Serialize;

use crate::load::target;
use crate::program::Stores;
use crate::settings::Settings;
use crate::source::Source;
use crate::statistics::median;
use crate::table::Table;
use crate::text::Random;

/// Rows of one INSERT.
const BATCH: u64 = 1_000;

/// One size.
#[derive(Debug, Serialize)]
pub(crate) struct Threshold {
    raw_bytes: u64,
    indexes: usize,
    /// Seconds of each load: as it is, with the indexes after the rows, without redo log, with both.
    seconds: [f64; 4],
}

/// Loads tables of several sizes in four ways, in turns.
pub(crate) async fn measure(settings: &Settings, stores: &Stores) -> Result<Vec<Threshold>> {
    let mut found = Vec::new();
    let target = target().await?;
    let sizes: &[u64] = if settings.quick {
        &[4_000, 16_000, 64_000]
    } else {
        &[4_000, 16_000, 64_000, 256_000, 1_024_000]
    };
    for indexes in [1, 4] {
        for &rows in sizes {
            let server = Server::start().await?;
            fill(&server, rows, indexes).await?;
            let source = Source::snapshot(stores, &server).await?;
            drop(server);
            let mut seconds: [Vec<f64>; 4] = Default::default();
            for _ in 0..settings.rounds() {
                for (way, seconds) in seconds.iter_mut().enumerate() {
                    let never = |on: bool| if on { 0 } else { u64::MAX };
                    let options = LoadOptions {
                        threads: settings.threads,
                        defer_indexes_from: never(way & 1 > 0),
                        redo_log_off_from: never(way & 2 > 0),
                        ..LoadOptions::default()
                    };
                    let started = Instant::now();
                    let url = target.url().parse()?;
                    load(
                        &url,
                        Arc::clone(&source.storage),
                        &source.manifest,
                        &options,
                    )
                    .await?;
                    seconds.push(started.elapsed().as_secs_f64());
                    target.exec("DROP DATABASE bench").await?;
                }
            }
            let threshold = Threshold {
                raw_bytes: source.manifest.totals.raw_bytes,
                indexes,
                seconds: seconds.map(median),
            };
            println!("  {threshold:?}");
            found.push(threshold);
        }
    }
    Ok(found)
}

/// A table of rows of some 90 bytes, with indexes on random values.
async fn fill(server: &Server, rows: u64, indexes: usize) -> Result<()> {
    let mut create = "CREATE TABLE bench.t (id INT PRIMARY KEY".to_owned();
    for index in 0..4 {
        let _ = write!(create, ", k{index} INT NOT NULL");
    }
    create.push_str(", c CHAR(60) NOT NULL");
    for index in 0..indexes {
        let _ = write!(create, ", KEY (k{index})");
    }
    server.exec("CREATE DATABASE bench").await?;
    server.exec(&(create + ")")).await?;
    let mut random = Random::new(7);
    let mut conn = server.conn().await?;
    conn.query_drop("SET sql_log_bin = 0").await?;
    for batch in 0..rows.div_ceil(BATCH) {
        let mut sql = "INSERT INTO bench.t VALUES ".to_owned();
        for row in 0..BATCH {
            let comma = if row == 0 { "" } else { "," };
            let _ = write!(sql, "{comma}({}", batch * BATCH + row);
            for _ in 0..4 {
                let _ = write!(sql, ",{}", random.below(1 << 30));
            }
            sql.push_str(",'");
            random.digits(&mut sql, 5);
            sql.push_str("')");
        }
        conn.query_drop(sql).await?;
    }
    conn.disconnect().await?;
    Ok(())
}

/// The sizes as a table.
pub(crate) fn table(found: &[Threshold]) -> Table {
    let mut table = Table::new(&[
        "",
        "indexes",
        "as it is",
        "indexes after the rows",
        "no redo log",
        "both",
    ]);
    for threshold in found {
        let mut row = vec![
            format!("{:.1} MB of rows", threshold.raw_bytes as f64 / 1e6),
            threshold.indexes.to_string(),
        ];
        let [first, ..] = threshold.seconds;
        row.extend(
            threshold
                .seconds
                .map(|seconds| format!("{seconds:.2} s ({:.2})", seconds / first)),
        );
        table.row(row);
    }
    table
}
