//! Large partitions are cut by the key, and a row that is in the wrong partition is not lost.

use anyhow::{Result, ensure};
use quillback_harness::Server;

use super::{entry, in_pieces, stored_rows};
use crate::support::{exec_all, manifest, memory, raw_rows, snapshot, url};

/// Numbers from 1 to so many.
fn numbers(most: u32) -> String {
    format!(
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {most}) SELECT"
    )
}

/// The rows of every file, the files in the order of their numbers.
async fn files(server: &Server, rows: u64, tables: &[&str]) -> Result<Vec<Vec<u64>>> {
    let storage = memory();
    let report = snapshot(&[url(server)], &in_pieces(rows), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    let mut files = Vec::new();
    for table in tables {
        let got = stored_rows(&*storage, &manifest, table).await?;
        let expected = raw_rows(server, &format!("SELECT * FROM d.{table}")).await?;
        ensure!(
            got == expected,
            "{table}: {} rows are {}",
            expected.len(),
            got.len()
        );
        let entry = entry(&manifest, table);
        files.push(entry.files.iter().map(|file| file.rows).collect());
    }
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_partition_is_cut_by_the_key() -> Result<()> {
    let server = Server::start().await?;
    let kinds = [
        (
            "by_range",
            "id BIGINT PRIMARY KEY",
            "PARTITION BY RANGE (id) (PARTITION `p``0` VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        ),
        (
            "by_day",
            "id BIGINT, d DATE AS ('2026-01-01' + INTERVAL id % 2 DAY) STORED, PRIMARY KEY (id, d)",
            "PARTITION BY RANGE COLUMNS (d) (PARTITION p0 VALUES LESS THAN ('2026-01-02'), PARTITION p1 VALUES LESS THAN (MAXVALUE))",
        ),
        (
            "by_list",
            "id BIGINT PRIMARY KEY",
            "PARTITION BY LIST (id % 10) (PARTITION p0 VALUES IN (0), PARTITION p1 VALUES IN (1, 2, 3, 4, 5, 6, 7, 8, 9))",
        ),
        (
            "by_hash",
            "id BIGINT PRIMARY KEY",
            "PARTITION BY HASH (id) PARTITIONS 2",
        ),
        (
            "by_key",
            "id VARBINARY(20) PRIMARY KEY",
            "PARTITION BY KEY () PARTITIONS 2",
        ),
        (
            "one",
            "id BIGINT PRIMARY KEY DESC",
            "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN MAXVALUE)",
        ),
        (
            "sub",
            "a INT, id BIGINT, PRIMARY KEY (a, id)",
            "PARTITION BY RANGE (a) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (5), PARTITION p1 VALUES LESS THAN (100))",
        ),
        (
            "keyless",
            "id BIGINT",
            "PARTITION BY HASH (id) PARTITIONS 2",
        ),
    ];
    exec_all(
        &server,
        &["CREATE DATABASE d", "SET cte_max_recursion_depth = 100000"],
    )
    .await?;
    for (name, columns, partitions) in kinds {
        let columns = columns.replace("PRIMARY KEY DESC", ", PRIMARY KEY (id DESC)");
        let values = match name {
            "sub" => "(a, id)",
            _ => "(id)",
        };
        let numbers = numbers(8000);
        let list = match name {
            "sub" => "i % 7, i FROM n",
            _ => "i FROM n",
        };
        exec_all(
            &server,
            &[
                "USE d",
                "SET SESSION cte_max_recursion_depth = 100000",
                &format!("CREATE TABLE {name} ({columns}) {partitions}"),
                &format!("INSERT INTO {name} {values} {numbers} {list}"),
                &format!("ANALYZE TABLE {name}"),
            ],
        )
        .await?;
    }
    let names = kinds.map(|(name, ..)| name);
    // What is computed is in no file.
    let got = files(&server, 500, &names[..1]).await?;
    ensure!(got.len() == 1);
    let stored: Vec<&str> = names.into_iter().filter(|name| *name != "by_day").collect();
    let got = files(&server, 500, &stored).await?;
    for (name, rows) in stored.iter().zip(&got) {
        let cut = rows.len() >= 8 && rows.iter().all(|rows| *rows <= 1300);
        match *name {
            "keyless" => ensure!(rows.len() == 2, "{name}: {rows:?}"),
            _ => ensure!(cut, "{name}: {rows:?}"),
        }
    }
    let storage = memory();
    let report = snapshot(&[url(&server)], &in_pieces(500), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    let by_day = entry(&manifest, "by_day");
    ensure!(
        by_day.rows == 8000 && by_day.files.len() >= 8,
        "{}",
        by_day.files.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_in_the_wrong_partition_is_not_lost() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &["CREATE DATABASE d"]).await?;
    for (name, partitions) in [
        (
            "by_range",
            "RANGE (id) (PARTITION p0 VALUES LESS THAN (1000), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        ),
        (
            "by_columns",
            "RANGE COLUMNS (id) (PARTITION p0 VALUES LESS THAN (1000), PARTITION p1 VALUES LESS THAN (MAXVALUE))",
        ),
        (
            "by_hash",
            "HASH (id) (PARTITION p0, PARTITION p1, PARTITION p2, PARTITION p3)",
        ),
        (
            "by_list",
            "LIST (id) (PARTITION p0 VALUES IN (1, 2, 3), PARTITION p1 VALUES IN (4, 5))",
        ),
    ] {
        exec_all(
            &server,
            &[
                "USE d",
                "SET SESSION cte_max_recursion_depth = 100000",
                &format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY, v INT)"),
                &format!("CREATE TABLE {name}_all LIKE {name}"),
                &format!("INSERT INTO {name}_all {} i, i * 2 FROM n", numbers(4000)),
                &format!("ALTER TABLE {name} PARTITION BY {partitions}"),
                &format!("ALTER TABLE {name} EXCHANGE PARTITION p0 WITH TABLE {name}_all WITHOUT VALIDATION"),
                &format!("DROP TABLE {name}_all"),
                &format!("ANALYZE TABLE {name}"),
            ],
        )
        .await?;
    }
    let tables = ["by_range", "by_columns", "by_hash", "by_list"];
    for rows in [3, 300] {
        let got = files(&server, rows, &tables).await?;
        // What is where it belongs is cut even there.
        ensure!(got[0].len() > 2 && got[1].len() > 2, "{got:?}");
    }
    Ok(())
}
