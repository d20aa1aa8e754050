//! The tables that are read.

use std::fmt;
use std::fmt::Write as _;

use anyhow::Result;
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions};
use serde::Serialize;

use crate::settings::Settings;
use crate::text::Random;

/// Rows of one INSERT.
const BATCH: u64 = 1_000;

/// A kind of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Data {
    /// Four tables as sysbench makes them.
    Sysbench,
    /// One table of a hundred columns, most of them short.
    Wide,
    /// One table of blobs and prose, 64 KiB and more a row.
    Blobs,
}

impl Data {
    pub(crate) const ALL: [Self; 3] = [Self::Sysbench, Self::Wide, Self::Blobs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sysbench => "sysbench",
            Self::Wide => "wide",
            Self::Blobs => "blobs",
        }
    }
}

/// What there is to read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Size {
    pub(crate) tables: u64,
    pub(crate) rows: u64,
    /// What InnoDB takes for the rows.
    pub(crate) bytes: u64,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tables == 1 { "" } else { "s" };
        write!(
            f,
            "{} table{s}, {} rows, {:.0} MB in InnoDB",
            self.tables,
            self.rows,
            self.bytes as f64 / 1e6
        )
    }
}

/// A server with the data in its memory.
pub(crate) async fn start(settings: &Settings, data: Data) -> Result<Server> {
    let options = ServerOptions::new()
        .line("innodb_buffer_pool_size=2G")
        .line("innodb_redo_log_capacity=2G")
        .line("max_allowed_packet=64M")
        .line("sync_binlog=0")
        .line("innodb_flush_log_at_trx_commit=2");
    let server = Server::start_with(options).await?;
    server.exec("CREATE DATABASE bench").await?;
    let share = if settings.quick { 5 } else { 1 };
    let mut random = Random::new(2026);
    match data {
        Data::Sysbench => sysbench(&server, &mut random, 250_000 / share).await?,
        Data::Wide => wide(&server, &mut random, 60_000 / share).await?,
        Data::Blobs => blobs(&server, &mut random, 3_000 / share).await?,
    }
    Ok(server)
}

/// Counts what is there, which also brings it into the server's memory.
pub(crate) async fn size(server: &Server) -> Result<Size> {
    let names: Vec<String> = server
        .query("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'bench'")
        .await?;
    let mut rows = 0;
    for name in &names {
        server.exec(&format!("ANALYZE TABLE bench.{name}")).await?;
        rows += server
            .one::<u64>(&format!("SELECT COUNT(*) FROM bench.{name}"))
            .await?;
    }
    let bytes = server
        .one(
            "SELECT CAST(SUM(DATA_LENGTH) AS UNSIGNED) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = 'bench'",
        )
        .await?;
    Ok(Size {
        tables: names.len() as u64,
        rows,
        bytes,
    })
}

async fn sysbench(server: &Server, random: &mut Random, rows: u64) -> Result<()> {
    let mut conn = server.conn().await?;
    conn.query_drop("SET sql_log_bin = 0").await?;
    for table in 1..=4 {
        conn.query_drop(format!(
            "CREATE TABLE bench.sbtest{table} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0, \
             c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', KEY k_{table} (k))"
        ))
        .await?;
        for _ in 0..rows.div_ceil(BATCH) {
            let mut sql = format!("INSERT INTO bench.sbtest{table} (k, c, pad) VALUES ");
            for row in 0..BATCH {
                let comma = if row == 0 { "" } else { "," };
                let _ = write!(sql, "{comma}({},'", random.below(rows));
                random.digits(&mut sql, 10);
                sql.push_str("','");
                random.digits(&mut sql, 5);
                sql.push_str("')");
            }
            conn.query_drop(sql).await?;
        }
    }
    conn.disconnect().await?;
    Ok(())
}

/// Ten columns of each of ten kinds.
async fn wide(server: &Server, random: &mut Random, rows: u64) -> Result<()> {
    const KINDS: [&str; 10] = [
        "INT NOT NULL",
        "BIGINT UNSIGNED",
        "DECIMAL(12,2)",
        "DATE",
        "DATETIME(6)",
        "VARCHAR(20)",
        "ENUM('new','paid','sent','returned')",
        "DOUBLE",
        "TINYINT(1)",
        "VARCHAR(200)",
    ];
    let mut create = "CREATE TABLE bench.wide (id BIGINT AUTO_INCREMENT PRIMARY KEY".to_owned();
    for column in 0..100 {
        let _ = write!(create, ", c{column} {}", KINDS[column % 10]);
    }
    server.exec(&(create + ")")).await?;
    let mut conn = server.conn().await?;
    conn.query_drop("SET sql_log_bin = 0").await?;
    for _ in 0..rows.div_ceil(BATCH) {
        let mut sql = "INSERT INTO bench.wide VALUES ".to_owned();
        for row in 0..BATCH {
            sql.push_str(if row == 0 { "(NULL" } else { ",(NULL" });
            for column in 0..100 {
                sql.push(',');
                wide_value(&mut sql, random, column % 10);
            }
            sql.push(')');
        }
        conn.query_drop(sql).await?;
    }
    conn.disconnect().await?;
    Ok(())
}

fn wide_value(sql: &mut String, random: &mut Random, kind: usize) {
    if kind != 0 && random.below(5) == 0 {
        sql.push_str("NULL");
        return;
    }
    let _ = match kind {
        0 => write!(sql, "{}", random.below(1_000_000)),
        1 => write!(sql, "{}", random.next()),
        2 => write!(sql, "{}.{:02}", random.below(100_000), random.below(100)),
        3 => write!(
            sql,
            "'20{:02}-{:02}-11'",
            random.below(30),
            1 + random.below(12)
        ),
        4 => write!(
            sql,
            "'2026-{:02}-11 10:{:02}:{:02}.{:06}'",
            1 + random.below(12),
            random.below(60),
            random.below(60),
            random.below(1_000_000)
        ),
        6 => write!(sql, "{}", 1 + random.below(4)),
        7 => write!(sql, "{}", random.fraction()),
        8 => write!(sql, "{}", random.below(2)),
        _ => {
            sql.push('\'');
            random.prose(sql, if kind == 5 { 2 } else { 9 });
            // The longest words could be too long for the shorter column.
            let from = sql.rfind('\'').map_or(0, |at| at + 1);
            while kind == 5 && sql.len() - from > 20 {
                sql.pop();
            }
            write!(sql, "'")
        }
    };
}

/// Half of each row is prose, half is what does not compress.
async fn blobs(server: &Server, random: &mut Random, rows: u64) -> Result<()> {
    server
        .exec("CREATE TABLE bench.blobs (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100), t LONGTEXT, b LONGBLOB)")
        .await?;
    let mut conn = server.conn().await?;
    conn.query_drop("SET sql_log_bin = 0").await?;
    for _ in 0..rows.div_ceil(10) {
        let mut sql = "INSERT INTO bench.blobs (name, t, b) VALUES ".to_owned();
        for row in 0..10 {
            sql.push_str(if row == 0 { "('" } else { ",('" });
            random.prose(&mut sql, 3);
            sql.push_str("','");
            random.prose(&mut sql, 3_000 + random.clone().below(12_000));
            sql.push_str("',X'");
            for _ in 0..2_000 + random.below(8_000) {
                let _ = write!(sql, "{:016X}", random.next());
            }
            sql.push_str("')");
        }
        conn.query_drop(sql).await?;
    }
    conn.disconnect().await?;
    Ok(())
}
