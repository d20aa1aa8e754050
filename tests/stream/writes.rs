//! Writes of every kind that ends up in a binlog in its own way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use quillback_harness::Server;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Makes the table that the others write to.
pub(crate) async fn prepare(server: &Server) -> Result<()> {
    server.exec("CREATE DATABASE shop").await?;
    server
        .exec(
            "CREATE TABLE shop.page (id BIGINT PRIMARY KEY AUTO_INCREMENT, mark VARCHAR(64), \
             body LONGBLOB)",
        )
        .await
}

/// One of each.
pub(crate) async fn all_kinds(server: &Server) -> Result<()> {
    let mut conn = server.conn().await?;
    let insert = "INSERT INTO shop.page (mark, body) VALUES";
    run(
        &mut conn,
        &[&format!("{insert} ('row', 'x'), ('row', NULL)")],
    )
    .await?;
    run(
        &mut conn,
        &[
            "BEGIN",
            &format!("{insert} ('savepoint', 'kept')"),
            "SAVEPOINT a",
            &format!("{insert} ('savepoint', 'undone')"),
            "ROLLBACK TO a",
            &format!("{insert} ('savepoint', 'kept')"),
            "COMMIT",
        ],
    )
    .await?;
    // A table from a query, a view, an account, a routine.
    run(
        &mut conn,
        &[
            "CREATE TABLE shop.`co``py` AS SELECT * FROM shop.page",
            "CREATE VIEW shop.pages AS SELECT id FROM shop.page",
            "CREATE USER reader IDENTIFIED BY 'r'",
            "CREATE PROCEDURE shop.p() SELECT 1",
            "DROP PROCEDURE shop.p",
        ],
    )
    .await?;
    // Compressed, small and large.
    run(
        &mut conn,
        &[
            "SET SESSION binlog_transaction_compression = ON",
            &format!("{insert} ('zip', REPEAT('a', 10))"),
            &format!("{insert} ('zip', REPEAT('b', 300000)), ('zip', RANDOM_BYTES(1000))"),
            "SET SESSION binlog_transaction_compression = OFF",
        ],
    )
    .await?;
    if has_tags(server).await? {
        run(
            &mut conn,
            &[
                "SET SESSION gtid_next = 'AUTOMATIC:blue'",
                &format!("{insert} ('tag', 'x')"),
                "SET SESSION gtid_next = 'AUTOMATIC'",
            ],
        )
        .await?;
    }
    run(
        &mut conn,
        &[
            "XA START 'one'",
            &format!("{insert} ('xa', 'x')"),
            "XA END 'one'",
            "XA PREPARE 'one'",
            "XA COMMIT 'one'",
            "XA START 'two'",
            &format!("{insert} ('xa', 'y')"),
            "XA END 'two'",
            "XA COMMIT 'two' ONE PHASE",
            "XA START 'three'",
            &format!("{insert} ('xa', 'z')"),
            "XA END 'three'",
            "XA PREPARE 'three'",
            "XA ROLLBACK 'three'",
        ],
    )
    .await?;
    // Larger than a segment, twice, with a small one between.
    for _ in 0..2 {
        large(&mut conn).await?;
        run(&mut conn, &[&format!("{insert} ('small', 'x')")]).await?;
    }
    run(&mut conn, &["DELETE FROM shop.page WHERE mark = 'large'"]).await?;
    run(&mut conn, &["FLUSH BINARY LOGS"]).await?;
    run(
        &mut conn,
        &["UPDATE shop.page SET body = 'y' WHERE mark = 'row'"],
    )
    .await?;
    for checksum in ["NONE", "CRC32"] {
        run(
            &mut conn,
            &[
                &format!("SET GLOBAL binlog_checksum = {checksum}"),
                &format!("{insert} ('sum', '{checksum}')"),
            ],
        )
        .await?;
    }
    run(
        &mut conn,
        &["FLUSH BINARY LOGS", "DROP TABLE shop.`co``py`"],
    )
    .await?;
    conn.disconnect().await?;
    Ok(())
}

/// A transaction of about 400 kB in many events.
pub(crate) async fn large(conn: &mut Conn) -> Result<()> {
    conn.query_drop("BEGIN").await?;
    for _ in 0..20 {
        conn.query_drop(
            "INSERT INTO shop.page (mark, body) VALUES ('large', RANDOM_BYTES(1000)), \
             ('large', REPEAT('q', 20000))",
        )
        .await?;
    }
    conn.query_drop("COMMIT").await?;
    Ok(())
}

/// Whether the server knows tagged GTIDs; says so where it does not.
#[expect(clippy::print_stderr, reason = "what is not tested is said aloud")]
async fn has_tags(server: &Server) -> Result<bool> {
    let version: String = server.one("SELECT VERSION()").await?;
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let has = (numbers.next(), numbers.next()) >= (Some(8), Some(3));
    if !has {
        eprintln!("NOT TESTED: tagged GTIDs, which MySQL {version} does not have");
    }
    Ok(has)
}

async fn run(conn: &mut Conn, statements: &[&str]) -> Result<()> {
    for statement in statements {
        conn.query_drop(*statement)
            .await
            .map_err(|error| anyhow::anyhow!("{statement}: {error}"))?;
    }
    Ok(())
}

/// Small transactions, one after the other, at whichever URL leads to a primary.
pub(crate) struct Writer {
    task: JoinHandle<Vec<String>>,
    acknowledged: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Writer {
    /// Starts one. Its marks start with `name`.
    pub(crate) fn start(name: &'static str, servers: Vec<String>) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let task = tokio::spawn(write(
            name,
            servers,
            Arc::clone(&acknowledged),
            stop.clone(),
        ));
        Self {
            task,
            acknowledged,
            stop,
        }
    }

    /// Waits for so many more acknowledged transactions.
    pub(crate) async fn wait_for(&self, more: u64) -> Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        quillback_harness::until(
            "acknowledged writes",
            Duration::from_secs(120),
            async || Ok((self.acknowledged.load(Ordering::Relaxed) >= wanted).then_some(())),
        )
        .await
    }

    /// Ends it and gives the marks of all that was acknowledged.
    pub(crate) async fn stop(self) -> Result<Vec<String>> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

async fn write(
    name: &str,
    servers: Vec<String>,
    acknowledged: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Vec<String> {
    let mut marks = Vec::new();
    let mut next = 0;
    let mut number = 0;
    while !stop.is_cancelled() {
        let url = &servers[next % servers.len()];
        next += 1;
        let limit = Duration::from_secs(5);
        let Ok(Ok(mut conn)) = tokio::time::timeout(limit, Conn::from_url(url)).await else {
            continue;
        };
        while !stop.is_cancelled() {
            number += 1;
            let mark = format!("<{name}-{number}>");
            let insert = format!("INSERT INTO shop.page (mark, body) VALUES ('{mark}', 'x')");
            match tokio::time::timeout(limit, conn.query_drop(insert)).await {
                Ok(Ok(())) => {
                    marks.push(mark);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                // A secondary, or a dead server: what was asked for may or may not be committed.
                _ => break,
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    marks
}
