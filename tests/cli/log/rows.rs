//! Rows of transactions that are compressed, large, or many.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions};
use serde_json::json;

use super::{documents, exec_all, shell, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_shown_whether_compressed_or_not() -> Result<()> {
    let source = Server::start().await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    for compress in ["OFF", "ON"] {
        exec_all(
            &source,
            &[
                &format!("SET SESSION binlog_transaction_compression = {compress}"),
                "SET SESSION binlog_rows_query_log_events = ON",
                "CREATE DATABASE d",
                "CREATE TABLE d.t (id INT PRIMARY KEY, name VARCHAR(20), u INT UNSIGNED)",
                "BEGIN",
                "INSERT INTO d.t VALUES (1, 'it''s', 4000000000), (-2, NULL, 0)",
                "UPDATE d.t SET name = 'ż' WHERE id = 1",
                "DELETE FROM d.t WHERE id = -2",
                "COMMIT",
                "DROP DATABASE d",
            ],
        )
        .await?;
    }
    stream(&shell, &[]).await?;
    let found = documents(&shell, &["--table", "d.t", "--kind", "dml"]).await?;
    assert_eq!(found.len(), 2);
    for (number, line) in found.iter().enumerate() {
        assert_eq!(
            line["tables"][0]["rows"],
            json!({"insert": 2, "update": 1, "delete": 1})
        );
        let gtid = line["gtid"].as_str().context("a GTID")?;
        let said = shell.run(&["log", "--gtid", gtid, "--rows"]).await?;
        let rows: Vec<&str> = said
            .out
            .lines()
            .filter(|line| line.starts_with('#'))
            .collect();
        assert_eq!(
            rows.join("\n"),
            "# INSERT INTO d.t VALUES (1, 'it''s', 4000000000), (-2, NULL, 0)\n\
             ### INSERT INTO `d`.`t`\n### SET\n### @1=1\n### @2='it\\'s'\n### @3=4000000000\n\
             ### INSERT INTO `d`.`t`\n### SET\n### @1=-2\n### @2=NULL\n### @3=0\n\
             # UPDATE d.t SET name = 'ż' WHERE id = 1\n\
             ### UPDATE `d`.`t`\n### WHERE\n### @1=1\n### @2='it\\'s'\n### @3=4000000000\n\
             ### SET\n### @1=1\n### @2='ż'\n### @3=4000000000\n\
             # DELETE FROM d.t WHERE id = -2\n\
             ### DELETE FROM `d`.`t`\n### WHERE\n### @1=-2\n### @2=NULL\n### @3=0",
            "{number}: {said:?}"
        );
        let documents = documents(&shell, &["--gtid", gtid, "--rows"]).await?;
        let rows: Vec<_> = documents.iter().filter(|d| d["kind"] == "row").collect();
        assert_eq!(rows.len(), 4);
        assert_eq!(
            rows[2]["before"],
            json!({"@1": 1, "@2": "it's", "@3": 4_000_000_000_u64})
        );
        assert_eq!(rows[2]["after"]["@2"], "ż");
    }
    // Not the rows of everything.
    let said = shell
        .run(&["log", "--rows", "--max-transactions", "3"])
        .await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
    ensure!(
        said.err.contains("more than 3 transactions fit"),
        "{}",
        said.err
    );
    let said = shell.run(&["log", "--rows", "--last", "2"]).await?;
    assert_eq!(said.code, 0, "{said:?}");
    Ok(())
}

const ROW: usize = 200_000;
const ROWS: usize = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_transaction_is_listed_and_shown_with_flat_memory() -> Result<()> {
    let options = ServerOptions::new()
        .line("innodb_redo_log_capacity=512M")
        .line("innodb_flush_log_at_trx_commit=0")
        .line("innodb_doublewrite=OFF");
    let source = Server::start_with(options).await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE big",
            "CREATE TABLE big.t (id INT AUTO_INCREMENT PRIMARY KEY, body MEDIUMBLOB)",
            "CREATE TABLE big.small (id INT PRIMARY KEY)",
        ],
    )
    .await?;
    let mut conn = source.conn().await?;
    conn.query_drop("SET SESSION cte_max_recursion_depth = 100000")
        .await?;
    conn.query_drop(format!(
        "INSERT INTO big.t (body) WITH RECURSIVE n (i) AS \
         (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         SELECT REPEAT(RANDOM_BYTES(1000), {}) FROM n",
        ROW / 1000
    ))
    .await?;
    conn.disconnect().await?;
    exec_all(&source, &["INSERT INTO big.small VALUES (1)"]).await?;
    stream(&shell, &[]).await?;
    let found = documents(&shell, &["--table", "big.t", "--kind", "dml"]).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["rows"], ROWS as u64);
    ensure!(
        found[0]["bytes"].as_u64() > Some((ROWS * ROW) as u64),
        "{found:?}"
    );

    let mut command = shell.command(&["log", "--table", "big.t", "--kind", "dml", "--rows"]);
    let rows = shell.path().join("rows");
    command.stdout(Stdio::from(std::fs::File::create(&rows)?));
    let mut child = command.spawn()?;
    let mut peak = 0_u64;
    while child.try_wait()?.is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ensure!(child.wait()?.success(), "it failed");
    let text = std::fs::read_to_string(&rows)?;
    let inserted = text
        .lines()
        .filter(|line| *line == "### INSERT INTO `big`.`t`");
    assert_eq!(inserted.count(), ROWS);
    ensure!(
        text.contains("... (200,000 bytes; --full)"),
        "a value is not cut"
    );
    ensure!(peak > 0 && peak <= 256 << 20, "{} MiB", peak >> 20);
    Ok(())
}
