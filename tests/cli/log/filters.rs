//! Each filter against somebody who reads every line, on what a real server wrote.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Random, Server};
use serde_json::Value;

use super::{documents, shell, stream};
use crate::support::Shell;

const TABLES: [&str; 4] = ["shop.page", "shop.pages", "shop.item", "crm.page"];

/// Fills the binlog, and tells how many rows each transaction inserted, updated and deleted.
async fn work(source: &Server) -> Result<BTreeMap<String, [u64; 3]>> {
    let mut conn = source.conn().await?;
    let mut random = Random::new(7);
    let mut expected = BTreeMap::new();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE DATABASE crm",
        "SET SESSION session_track_gtids = OWN_GTID",
    ] {
        conn.query_drop(statement).await?;
    }
    for table in TABLES {
        conn.query_drop(format!(
            "CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(100), n INT DEFAULT 0)"
        ))
        .await?;
    }
    let uuid = source.uuid().await?;
    for round in 0..120_u64 {
        let compress = if random.below(3) == 0 { "ON" } else { "OFF" };
        let image = ["FULL", "MINIMAL", "NOBLOB"][random.below(3) as usize];
        conn.query_drop(format!(
            "SET SESSION binlog_transaction_compression = {compress}, SESSION binlog_row_image = {image}"
        ))
        .await?;
        if random.below(12) == 0 {
            let table = TABLES[random.below(4) as usize];
            conn.query_drop(format!("ALTER TABLE {table} COMMENT 'round {round}'"))
                .await?;
            continue;
        }
        let mut counts = [0; 3];
        conn.query_drop("BEGIN").await?;
        for _ in 0..=random.below(3) {
            let table = TABLES[random.below(4) as usize];
            let rows = 1 + random.below(40);
            match random.below(4) {
                0 => {
                    conn.query_drop(format!(
                        "UPDATE {table} SET n = n + 1 ORDER BY id LIMIT {rows}"
                    ))
                    .await?;
                    counts[1] += conn.affected_rows();
                }
                1 => {
                    conn.query_drop(format!(
                        "DELETE FROM {table} ORDER BY id LIMIT {}",
                        rows / 2
                    ))
                    .await?;
                    counts[2] += conn.affected_rows();
                }
                _ => {
                    let values = vec!["(REPEAT('x', 50))"; rows as usize].join(",");
                    conn.query_drop(format!("INSERT INTO {table} (body) VALUES {values}"))
                        .await?;
                    counts[0] += conn.affected_rows();
                }
            }
        }
        let before = source.gtid_executed().await?;
        conn.query_drop("COMMIT").await?;
        let after = source.gtid_executed().await?;
        if before != after {
            let last = after.rsplit(['-', ':']).next().context("a number")?.trim();
            expected.insert(format!("{uuid}:{last}"), counts);
        }
    }
    conn.disconnect().await?;
    Ok(expected)
}

fn names(line: &Value) -> Vec<&str> {
    let tables = line["tables"].as_array().map_or(&[][..], Vec::as_slice);
    tables
        .iter()
        .filter_map(|table| table["name"].as_str())
        .collect()
}

fn statement(line: &Value) -> &str {
    line["statement"].as_str().unwrap_or("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_find_what_reading_everything_finds() -> Result<()> {
    let source = Server::start().await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    let expected = work(&source).await?;
    stream(&shell, &[]).await?;
    let all = documents(&shell, &[]).await?;
    ensure!(all.len() > 80, "{}", all.len());

    // What the server said of each transaction's rows.
    let mut counted = 0;
    for line in &all {
        let Some(expected) = line["gtid"].as_str().and_then(|gtid| expected.get(gtid)) else {
            continue;
        };
        let mut found = [0; 3];
        for table in line["tables"].as_array().context("tables")? {
            for (at, kind) in ["insert", "update", "delete"].iter().enumerate() {
                found[at] += table["rows"][kind].as_u64().unwrap_or(0);
            }
        }
        assert_eq!(found, *expected, "{line}");
        assert_eq!(line["rows"], found.iter().sum::<u64>());
        counted += 1;
    }
    ensure!(counted == expected.len() && counted > 50, "{counted}");

    let middle = all[all.len() / 2]["time"].as_str().context("a time")?;
    let third = all[all.len() / 3]["time"].as_str().context("a time")?;
    let gtid = all[all.len() / 4]["gtid"].as_str().context("a GTID")?;
    let uuid = source.uuid().await?;
    let range = format!("{uuid}:5-40");
    type Naive<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let touches = |line: &Value, is: &dyn Fn(&str) -> bool| {
        names(line).into_iter().any(is) || {
            let words = statement(line).replace(['`', '(', ';'], " ");
            words.split_whitespace().any(is)
        }
    };
    let cases: Vec<(Vec<&str>, Naive<'_>)> = vec![
        (
            vec!["--table", "shop.page"],
            Box::new(|l| touches(l, &|name| name == "shop.page")),
        ),
        (
            vec!["--table", "shop.page,crm.page", "--kind", "dml"],
            Box::new(|l| {
                names(l)
                    .iter()
                    .any(|n| ["shop.page", "crm.page"].contains(n))
            }),
        ),
        (
            vec!["--table", "*.page*", "--kind", "dml"],
            Box::new(|l| names(l).iter().any(|n| n.contains(".page"))),
        ),
        (
            vec!["--table", "crm", "--kind", "ddl"],
            Box::new(|l| {
                statement(l) == "CREATE DATABASE crm"
                    || touches(l, &|name| name.starts_with("crm.")) && !statement(l).is_empty()
            }),
        ),
        (
            vec!["--kind", "ddl"],
            Box::new(|l| !statement(l).is_empty()),
        ),
        (
            vec!["--grep", "ROUND 1"],
            Box::new(|l| statement(l).contains("round 1")),
        ),
        (
            vec!["--grep", "Item"],
            Box::new(|l| {
                statement(l).contains("item") || names(l).iter().any(|n| n.contains("item"))
            }),
        ),
        (
            vec!["--min-rows", "30"],
            Box::new(|l| l["rows"].as_u64().unwrap_or(0) >= 30),
        ),
        (
            vec!["--since", middle],
            Box::new(|l| l["time"].as_str() >= Some(middle)),
        ),
        (
            vec!["--since", third, "--until", middle, "--min-rows", "1"],
            Box::new(|l| {
                let time = l["time"].as_str();
                time >= Some(third) && time <= Some(middle) && l["rows"].as_u64() >= Some(1)
            }),
        ),
        (vec!["--gtid", gtid], Box::new(|l| l["gtid"] == gtid)),
        (
            vec!["--gtid", &range, "--table", "shop.item"],
            Box::new(|l| {
                let gno = l["gtid"]
                    .as_str()
                    .and_then(|g| g.rsplit(':').next()?.parse().ok());
                (5..=40).contains(&gno.unwrap_or(0)) && touches(l, &|name| name == "shop.item")
            }),
        ),
        (vec!["--table", "no.where"], Box::new(|_| false)),
    ];
    for (arguments, naive) in &cases {
        let expected: Vec<&Value> = all.iter().filter(|line| naive(line)).collect();
        let found = documents(&shell, arguments).await?;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{arguments:?}");
        // From either end.
        for few in [1, 3] {
            let number = few.to_string();
            let few = expected.len().min(few);
            let last = documents(&shell, &[arguments, &["--last", &number][..]].concat()).await?;
            let tail = &expected[expected.len() - few..];
            assert_eq!(last.iter().collect::<Vec<_>>(), tail, "{arguments:?}");
            let first = documents(&shell, &[arguments, &["--limit", &number][..]].concat()).await?;
            assert_eq!(
                first.iter().collect::<Vec<_>>(),
                expected[..few],
                "{arguments:?}"
            );
        }
    }
    Ok(())
}

/// What versions archived that did not count rows.
#[tokio::test]
async fn rows_that_nobody_counted_are_counted_when_they_are_asked_for() -> Result<()> {
    let golden = concat!(
        "file://",
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/format-2"
    );
    let shell = Shell::new()?.env("QUILLBACK_ARCHIVE", golden);
    let all = documents(&shell, &[]).await?;
    let transactions: Vec<&Value> = all.iter().filter(|line| line["kind"] != "gap").collect();
    ensure!(transactions.len() > 5, "{all:?}");
    ensure!(
        transactions
            .iter()
            .all(|line| line["tables"][0]["rows"].is_null()),
        "{all:?}"
    );
    let gno = |line: &Value| {
        line["gtid"]
            .as_str()
            .and_then(|gtid| gtid.rsplit(':').next()?.parse().ok())
    };
    let found = documents(&shell, &["--min-rows", "30"]).await?;
    // 40 rows; 200 in parts, beside some that cannot be counted; none that can be counted.
    let gnos: Vec<Option<u64>> = found.iter().map(gno).collect();
    assert_eq!(gnos, [Some(5), Some(6), Some(8), Some(12)]);
    assert_eq!(found[0]["tables"][0]["rows"]["insert"], 40);
    let found = documents(&shell, &["--min-rows", "41"]).await?;
    let gnos: Vec<Option<u64>> = found.iter().map(gno).collect();
    assert_eq!(gnos, [Some(6), Some(8), Some(12)]);
    Ok(())
}
