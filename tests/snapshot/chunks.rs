//! Tables are cut in pieces while they are read: no row may be lost or doubled, whatever the key.

mod nasty;
mod partitions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback::archive::manifest::{Manifest, TableEntry};
use quillback::snapshot::SnapshotOptions;
use quillback::storage::Storage;
use quillback_harness::{Random, Server};

use crate::support::{exec_all, load_into, manifest, memory, on_primary, raw_rows, snapshot, url};
use nasty::NastyTable;

/// Rounds without being told; each makes other tables.
const ROUNDS: u64 = 6;
const TABLES: usize = 16;

/// Rounds and the seed of the first: `QUILLBACK_CHUNKS_SECONDS` lets it run as long as one likes,
/// `QUILLBACK_CHUNKS_SEED` is where it begins (a failure names the seed of its round).
fn budget() -> (u64, Option<Duration>) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().expect("a number"))
    };
    (
        number("QUILLBACK_CHUNKS_SEED").unwrap_or(1),
        number("QUILLBACK_CHUNKS_SECONDS").map(Duration::from_secs),
    )
}

fn in_pieces(rows: u64) -> SnapshotOptions {
    SnapshotOptions {
        threads: 3,
        chunk_rows: Some(rows),
        ..on_primary()
    }
}

fn entry<'m>(manifest: &'m Manifest, table: &str) -> &'m TableEntry {
    let mut entries = manifest.tables.iter();
    let found = entries.find(|entry| entry.name == table);
    found.expect("the table is in the manifest")
}

/// A table's rows as its files hold them, in the form of [`raw_rows`].
async fn stored_rows(
    storage: &dyn Storage,
    manifest: &Manifest,
    table: &str,
) -> Result<Vec<Vec<Vec<u8>>>> {
    let entry = entry(manifest, table);
    let mut rows = Vec::new();
    for file in &entry.files {
        let object = storage
            .get(&file.file.key.in_snapshot(&manifest.id))
            .await?;
        let text = zstd::decode_all(&object[..])?;
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let (last, lines) = lines.split_last().expect("a split gives something");
        ensure!(last.is_empty(), "{table}: a file ends within a row");
        ensure!(lines.len() as u64 == file.rows, "{table}: rows of a file");
        rows.extend(lines.iter().map(|line| fields(line)));
    }
    ensure!(
        rows.len() as u64 == entry.rows,
        "{table}: rows of the manifest"
    );
    rows.sort();
    Ok(rows)
}

/// The fields of a line, as the manual says that LOAD DATA reads them.
fn fields(line: &[u8]) -> Vec<Vec<u8>> {
    let field = |field: &[u8]| {
        if field == b"\\N" {
            return b"Null".to_vec();
        }
        let mut value = b"=".to_vec();
        let mut bytes = field.iter();
        while let Some(&byte) = bytes.next() {
            value.push(match byte {
                b'\\' => match bytes.next() {
                    Some(b't') => b'\t',
                    Some(b'n') => b'\n',
                    other => *other.expect("an escaped byte"),
                },
                byte => byte,
            });
        }
        value
    };
    line.split(|byte| *byte == b'\t').map(field).collect()
}

/// Makes the tables of a seed with their rows.
async fn fill(server: &Server, seed: u64) -> Result<Vec<NastyTable>> {
    let mut random = Random::new(seed);
    let tables: Vec<NastyTable> = (0..TABLES)
        .map(|number| NastyTable::random(&mut random, number))
        .collect();
    let mut conn = server.conn().await?;
    for sql in [
        "SET NAMES utf8mb4",
        "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'",
        "DROP DATABASE IF EXISTS nasty",
        "CREATE DATABASE nasty",
        "USE nasty",
    ] {
        conn.query_drop(sql).await?;
    }
    for table in &tables {
        let hidden = random.once_in(2) && table.create.contains("not unique");
        conn.query_drop(format!(
            "SET SESSION sql_generate_invisible_primary_key = {}",
            u8::from(hidden)
        ))
        .await?;
        conn.query_drop(&table.create)
            .await
            .with_context(|| table.create.clone())?;
        for _ in 0..random.below(8) {
            let insert = table.insert(&mut random);
            conn.query_drop(&insert).await.with_context(|| insert)?;
        }
        // Holes, and rows that only the index still knows.
        if random.once_in(3) {
            conn.query_drop(format!(
                "DELETE FROM `{}` WHERE CRC32(v) % 3 = 0",
                table.name
            ))
            .await?;
        }
    }
    // Just filled, the server's estimates would be those of some moment in between.
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("`{}`", table.name))
        .collect();
    conn.query_drop(format!("ANALYZE TABLE {}", names.join(", ")))
        .await?;
    conn.disconnect().await?;
    Ok(tables)
}

async fn round(server: &Server, seed: u64, cut: &mut BTreeMap<bool, u64>) -> Result<()> {
    let tables = fill(server, seed).await?;
    let rows = 1 + Random::new(seed).below(9);
    let storage = memory();
    let servers = [url(server)];
    let pieces = snapshot(&servers, &in_pieces(rows), &storage).await?;
    let pieces = manifest(&*storage, &pieces).await?;
    let alone = SnapshotOptions {
        threads: 1,
        ..on_primary()
    };
    let whole = snapshot(&servers, &alone, &storage).await?;
    let whole = manifest(&*storage, &whole).await?;
    for table in &tables {
        let say = || format!("{} rows a part of {}", rows, table.create);
        let sql = format!(
            "SELECT {} FROM nasty.`{}`",
            select(server, table).await?,
            table.name
        );
        let expected = raw_rows(server, &sql).await?;
        let got = stored_rows(&*storage, &pieces, &table.name)
            .await
            .with_context(say)?;
        ensure!(
            got == expected,
            "{} rows are {}\n{}\n{sql}\ngot      {:?}\nexpected {:?}",
            expected.len(),
            got.len(),
            say(),
            got.iter().find(|row| !expected.contains(row)),
            expected.iter().find(|row| !got.contains(row)),
        );
        let (in_pieces, in_one) = (entry(&pieces, &table.name), entry(&whole, &table.name));
        ensure!(in_one.files.len() <= 1, "{}", say());
        ensure!(
            (in_pieces.rows, in_pieces.row_checksum) == (in_one.rows, in_one.row_checksum),
            "{}",
            say()
        );
        // A test that cuts nothing would show nothing.
        if table.is_cut && expected.len() as u64 >= 12 * rows {
            *cut.entry(in_pieces.files.len() > 1).or_default() += 1;
            ensure!(
                in_pieces.files.len() > 1,
                "{} rows are in one part: {}",
                expected.len(),
                say()
            );
        }
    }
    Ok(())
}

/// The columns that a file holds, in the table's order.
async fn select(server: &Server, table: &NastyTable) -> Result<String> {
    let columns: Vec<(String, String)> = server
        .query(&format!(
            "SELECT COLUMN_NAME, DATA_TYPE \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'nasty' AND TABLE_NAME = '{}' \
             AND GENERATION_EXPRESSION = '' ORDER BY ORDINAL_POSITION",
            table.name
        ))
        .await?;
    let columns = columns.into_iter().map(|(name, data_type)| {
        let quoted = format!("`{}`", name.replace('`', "``"));
        match data_type.as_str() {
            "float" | "double" => format!("{quoted} * 1e0"),
            _ => quoted,
        }
    });
    Ok(columns.collect::<Vec<_>>().join(", "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_in_exactly_one_part() -> Result<()> {
    let server = Server::start().await?;
    let (first, time) = budget();
    let started = Instant::now();
    let mut cut = BTreeMap::new();
    for seed in first.. {
        round(&server, seed, &mut cut)
            .await
            .with_context(|| format!("QUILLBACK_CHUNKS_SEED={seed}"))?;
        let over = match time {
            Some(time) => started.elapsed() >= time,
            None => seed + 1 >= first + ROUNDS,
        };
        if over {
            break;
        }
    }
    assert!(cut.get(&true).is_some_and(|tables| *tables > 5), "{cut:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_ranges_of_the_index() -> Result<()> {
    let server = Server::start().await?;
    let (seed, _) = budget();
    let mut ranges = 0;
    for seed in seed..seed + 3 {
        fill(&server, seed).await?;
        for sql in [
            "SET GLOBAL log_output = 'TABLE'",
            "TRUNCATE mysql.general_log",
            "SET GLOBAL general_log = 1",
        ] {
            server.exec(sql).await?;
        }
        snapshot(&[url(&server)], &in_pieces(3), &memory()).await?;
        server.exec("SET GLOBAL general_log = 0").await?;
        let asked: Vec<String> = server
            .query(
                "SELECT DISTINCT CONVERT(argument USING utf8mb4) FROM mysql.general_log \
                 WHERE command_type = 'Query' AND argument LIKE 'SELECT % FROM `nasty`.% WHERE %'",
            )
            .await?;
        let mut conn = server.conn().await?;
        conn.query_drop("SET NAMES utf8mb4").await?;
        conn.query_drop("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
            .await?;
        for sql in asked {
            let plan: Vec<mysql_async::Row> = conn
                .query(format!("EXPLAIN FORMAT=TRADITIONAL {sql}"))
                .await
                .with_context(|| sql.clone())?;
            let field = |name: &str| {
                plan[0]
                    .get::<Option<String>, _>(name)
                    .flatten()
                    .unwrap_or_default()
            };
            let (access, extra) = (field("type"), field("Extra"));
            ensure!(
                !extra.contains("filesort"),
                "seed {seed}: {extra} for {sql}"
            );
            match access.as_str() {
                "range" => ranges += 1,
                // One row, or what fixed columns select.
                "const" | "ref" => {}
                // Whether there is such a row: of a small table the whole index is as good.
                "index" if sql.starts_with("SELECT 1 ") => {}
                // No row can be there.
                "" => ensure!(
                    extra.contains("mpossible") || extra.contains("o matching row"),
                    "{extra}: {sql}"
                ),
                other => anyhow::bail!("seed {seed}: access by {other} for {sql}"),
            }
        }
        conn.disconnect().await?;
    }
    ensure!(ranges > 50, "{ranges} ranges");
    Ok(())
}

/// Moves rows across the boundaries and money between rows; neither changes the sums.
async fn disturb(url: String, seed: u64, stop: Arc<AtomicBool>) -> Result<u64> {
    let mut conn = mysql_async::Conn::from_url(&url).await?;
    let mut random = Random::new(seed);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let place = |random: &mut Random, table: &str| match table {
            "ids" => format!("WHERE id >= {} ORDER BY id LIMIT 1", random.below(2000)),
            _ => format!(
                "WHERE k >= '{}' ORDER BY k, id LIMIT 1",
                random.pick(&["", "A", "ä", "b", "ß", "z", "😀"])
            ),
        };
        let table = *random.pick(&["ids", "texts"]);
        let set = match table {
            "ids" => format!("id = {}", random.below(2000)),
            _ => format!(
                "k = CONCAT('{}', {})",
                random.pick(&["a", "Á", "ss", "ß", " ", "Z", "😀"]),
                random.below(300)
            ),
        };
        let statements = [
            format!(
                "UPDATE IGNORE moved.{table} SET {set} {}",
                place(&mut random, table)
            ),
            format!(
                "UPDATE moved.ids SET money = money - 5 {}",
                place(&mut random, "ids")
            ),
            format!(
                "UPDATE moved.texts SET money = money + 5 {}",
                place(&mut random, "texts")
            ),
        ];
        conn.query_drop("BEGIN").await?;
        let mut is_whole = true;
        for (n, sql) in statements.iter().enumerate() {
            match conn.query_drop(sql).await {
                Ok(()) => is_whole &= n == 0 || conn.affected_rows() == 1,
                // A deadlock between two of these.
                Err(mysql_async::Error::Server(error)) if error.code == 1213 => {
                    is_whole = false;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        conn.query_drop(if is_whole { "COMMIT" } else { "ROLLBACK" })
            .await?;
        done += u64::from(is_whole);
    }
    conn.disconnect().await?;
    Ok(done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_move_meanwhile_are_neither_lost_nor_doubled() -> Result<()> {
    const ROWS: i64 = 400;
    let server = Server::start().await?;
    let target = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE moved",
            "CREATE TABLE moved.ids (id BIGINT PRIMARY KEY, money INT NOT NULL)",
            "CREATE TABLE moved.texts (k VARCHAR(20) COLLATE utf8mb4_0900_ai_ci, id INT, money INT NOT NULL, \
             PRIMARY KEY (k, id DESC))",
            "SET cte_max_recursion_depth = 10000",
            "INSERT INTO moved.ids WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 400) \
             SELECT i * 5, 1000 FROM n",
            "INSERT INTO moved.texts WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 400) \
             SELECT CONCAT(ELT(1 + i % 4, 'a', 'ß', 'z', ''), i), i, 1000 FROM n",
        ],
    )
    .await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for seed in 0..3 {
        writers.spawn(disturb(server.url(), seed + 1, Arc::clone(&stop)));
    }
    let storage = memory();
    let mut last = None;
    for round in 0..12 {
        let options = SnapshotOptions {
            threads: 4,
            ..in_pieces(5 + round)
        };
        let report = snapshot(&[url(&server)], &options, &storage).await?;
        let manifest = manifest(&*storage, &report).await?;
        let mut money = 0;
        for (table, at) in [("ids", 1), ("texts", 2)] {
            let rows = stored_rows(&*storage, &manifest, table).await?;
            ensure!(
                rows.len() as i64 == ROWS,
                "round {round}: {} rows of {table}",
                rows.len()
            );
            ensure!(
                entry(&manifest, table).files.len() > 10,
                "round {round}: {table} was not cut"
            );
            for row in rows {
                money += String::from_utf8(row[at][1..].to_vec())?.parse::<i64>()?;
            }
        }
        ensure!(money == 2 * ROWS * 1000, "round {round}: {money}");
        last = Some(manifest);
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    while let Some(writer) = writers.join_next().await {
        done += writer??;
    }
    ensure!(done > 200, "only {done} transactions came between");
    // The parts are loaded as well as a whole table is.
    load_into(&target, &storage, &last.expect("there were rounds")).await?;
    let sums: Vec<(i64, i64)> = target
        .query("SELECT COUNT(*), SUM(money) FROM (SELECT money FROM moved.ids UNION ALL SELECT money FROM moved.texts) a")
        .await?;
    assert_eq!(sums, [(2 * ROWS, 2 * ROWS * 1000)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clumps_gaps_and_partitions_are_cut_evenly() -> Result<()> {
    let server = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE even",
            "SET cte_max_recursion_depth = 100000",
            // Two clumps at the ends of what a BIGINT holds.
            "CREATE TABLE even.clumps (id BIGINT PRIMARY KEY, pad CHAR(100) NOT NULL DEFAULT '')",
            "INSERT INTO even.clumps (id) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
             SELECT IF(i % 2, -9223372036854775808 + i, 9223372036854775807 - i) FROM n",
            // Three tenants, one of them large.
            "CREATE TABLE even.tenants (tenant INT, id INT, pad CHAR(100) NOT NULL DEFAULT '', PRIMARY KEY (tenant, id))",
            "INSERT INTO even.tenants (tenant, id) SELECT IF(ABS(id) % 20 = 3, 1, IF(ABS(id) % 20 = 1, 9, 5)), ABS(id) % 100000 + 1 \
             FROM even.clumps WHERE id < 0",
            "CREATE TABLE even.uuids (id BINARY(16) PRIMARY KEY, pad CHAR(100) NOT NULL DEFAULT '')",
            "INSERT INTO even.uuids (id) SELECT UNHEX(LEFT(SHA2(id, 256), 32)) FROM even.clumps",
            "CREATE TABLE even.texts (id CHAR(36) PRIMARY KEY, pad CHAR(100) NOT NULL DEFAULT '')",
            "INSERT INTO even.texts (id) SELECT LEFT(SHA2(id, 256), 36) FROM even.clumps",
            "CREATE TABLE even.split (a INT PRIMARY KEY) PARTITION BY HASH (a) PARTITIONS 7",
            "INSERT INTO even.split SELECT id FROM even.tenants WHERE tenant = 5",
            "ANALYZE TABLE even.clumps, even.tenants, even.uuids, even.texts, even.split",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&server)], &in_pieces(1000), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    for (table, rows, files, most) in [
        ("clumps", 20_000, 12..=60, 2500),
        ("tenants", 10_000, 6..=30, 2500),
        ("uuids", 20_000, 12..=60, 2500),
        ("texts", 20_000, 12..=40, 2500),
        ("split", 8_000, 7..=7, 2500),
    ] {
        let entry = entry(&manifest, table);
        let count: Vec<u64> = entry.files.iter().map(|file| file.rows).collect();
        ensure!(entry.rows == rows, "{table}: {} rows", entry.rows);
        ensure!(
            files.contains(&count.len()),
            "{table}: {} parts {count:?}",
            count.len()
        );
        ensure!(count.iter().all(|rows| *rows <= most), "{table}: {count:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_servers_settings_loses_no_rows() -> Result<()> {
    let server = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)",
            "SET GLOBAL sql_select_limit = 3, GLOBAL range_optimizer_max_mem_size = 1, \
             GLOBAL optimizer_switch = 'mrr_cost_based=off'",
        ],
    )
    .await?;
    let storage = memory();
    for options in [on_primary(), in_pieces(4)] {
        let report = snapshot(&[url(&server)], &options, &storage).await?;
        assert_eq!(manifest(&*storage, &report).await?.tables[0].rows, 10);
    }
    Ok(())
}
