//! What the servers are made to do.
//!
//! Every writer has rows of its own, so that writers meet only where a server makes them meet: at its commit. A
//! transaction is one request, so that the client costs little of the two cores or so that all of this shares.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use serde::Serialize;

use crate::text::Random;

/// How many writers a schema is made for.
pub(crate) const WRITERS: u64 = 16;
/// The rows that each writer of [`Workload::Small`] changes.
const SMALL_ROWS: u64 = 5_000;
/// Each writer's rows begin at a multiple of this.
const RANGE: u64 = 1_000_000_000;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// Notebooks of pages with text and JSON: transactions of 1 to 20 rows, some 10 KB of binlog each.
    Mixed,
    /// The write transactions of sysbench: two updates, a deletion and an insertion of rows of 190 bytes.
    Small,
}

impl Workload {
    pub(crate) const ALL: [Self; 2] = [Self::Mixed, Self::Small];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Small => "small",
        }
    }

    /// Makes the tables.
    pub(crate) async fn prepare(self, conn: &mut Conn, random: &mut Random) -> Result<()> {
        match self {
            Self::Mixed => prepare_mixed(conn).await,
            Self::Small => prepare_small(conn, random).await,
        }
        .with_context(|| format!("failed to make the tables of the {} workload", self.name()))
    }

    /// A writer; each number only once at a time.
    pub(crate) fn writer(self, number: u64, random: &Random) -> Writer {
        Writer {
            workload: self,
            number,
            random: random.fork(1 + number),
            oldest: number * RANGE + 1,
            newest: number * RANGE,
            done: 0,
        }
    }
}

/// Makes transactions.
#[derive(Debug)]
pub(crate) struct Writer {
    workload: Workload,
    number: u64,
    random: Random,
    /// The pages that are there: from `oldest` to `newest`.
    oldest: u64,
    newest: u64,
    done: u64,
}

impl Writer {
    /// Lets a later writer of the same number begin where no earlier one wrote.
    pub(crate) fn skip_to(&mut self, turn: u64) {
        self.oldest += turn * 10_000_000;
        self.newest += turn * 10_000_000;
        self.random = self.random.fork(turn * 1_000 + self.number);
    }

    /// The statements of the next transaction, as one request.
    pub(crate) fn transaction(&mut self) -> String {
        self.done += 1;
        let mut sql = String::with_capacity(16 << 10);
        sql.push_str("BEGIN;");
        match self.workload {
            Workload::Mixed => self.mixed(&mut sql),
            Workload::Small => self.small(&mut sql),
        }
        sql.push_str("COMMIT");
        sql
    }

    fn mixed(&mut self, sql: &mut String) {
        let rows = 1 + self.random.below(20);
        let there = self.newest + 1 - self.oldest;
        match self.random.below(100) {
            0..30 if there > 100 => self.edit_pages(sql, rows.div_ceil(2)),
            30..45 if there > 100 => self.read_pages(sql, rows),
            45..50 if there > 100 => {
                let upto = self.oldest + rows;
                let _ = write!(
                    sql,
                    "DELETE FROM bench.page WHERE id >= {} AND id < {upto};",
                    self.oldest
                );
                self.oldest = upto;
            }
            _ => self.new_pages(sql, rows),
        }
        let notebook = self.number * 1_000 + self.random.below(1_000);
        let _ = write!(
            sql,
            "UPDATE bench.notebook SET edits = edits + 1, edited_at = NOW(6) WHERE id = {notebook};"
        );
    }

    fn new_pages(&mut self, sql: &mut String, rows: u64) {
        sql.push_str(
            "INSERT INTO bench.page (id, notebook_id, title, content, draft, mood) VALUES ",
        );
        for row in 0..rows {
            self.newest += 1;
            let random = &mut self.random;
            let comma = if row == 0 { "" } else { "," };
            let notebook = self.number * 1_000 + random.below(1_000);
            let _ = write!(sql, "{comma}({},{notebook},'", self.newest);
            let words = 2 + random.below(8);
            random.prose(sql, words);
            let _ = write!(
                sql,
                "','{{\"lang\":\"en\",\"words\":{},\"ratio\":{:.3},\"blocks\":[",
                random.below(900),
                random.fraction()
            );
            for block in 0..=random.below(4) {
                let comma = if block == 0 { "" } else { "," };
                let _ = write!(
                    sql,
                    "{comma}{{\"type\":\"paragraph\",\"bold\":{},\"text\":\"",
                    random.below(2) == 0
                );
                let words = 10 + random.below(60);
                random.prose(sql, words);
                sql.push_str("\"}");
            }
            sql.push_str("]}',");
            if random.below(3) == 0 {
                sql.push('\'');
                let words = 20 + random.below(200);
                random.prose(sql, words);
                sql.push('\'');
            } else {
                sql.push_str("NULL");
            }
            let _ = write!(sql, ",{:e})", random.fraction());
        }
        sql.push(';');
    }

    fn edit_pages(&mut self, sql: &mut String, rows: u64) {
        let random = &mut self.random;
        let _ = write!(
            sql,
            "UPDATE bench.page SET content = JSON_SET(content, '$.words', {}, '$.last', '",
            random.below(900)
        );
        let words = 5 + random.below(30);
        random.prose(sql, words);
        let first = self.oldest + random.below(self.newest - self.oldest);
        let _ = write!(
            sql,
            "'), mood = NULL WHERE id >= {first} AND id < {};",
            first + rows
        );
    }

    fn read_pages(&mut self, sql: &mut String, rows: u64) {
        sql.push_str("INSERT INTO bench.reading (user_id, page_id, progress, note) VALUES ");
        for row in 0..rows {
            let random = &mut self.random;
            let comma = if row == 0 { "" } else { "," };
            let page = self.oldest + random.below(self.newest - self.oldest);
            let _ = write!(
                sql,
                "{comma}({},{page},{:.3},'",
                self.number * RANGE + random.below(200_000),
                random.fraction()
            );
            let words = random.below(25);
            random.prose(sql, words);
            sql.push_str("')");
        }
        sql.push_str(" ON DUPLICATE KEY UPDATE progress = progress + 0.1, finished_at = NOW(6);");
    }

    fn small(&mut self, sql: &mut String) {
        let table = self.number;
        let random = &mut self.random;
        let mut id = || 1 + random.below(SMALL_ROWS);
        let (index, plain, moved) = (id(), id(), id());
        let _ = write!(
            sql,
            "UPDATE bench.sbtest{table} SET k = k + 1 WHERE id = {index};\
             UPDATE bench.sbtest{table} SET c = '"
        );
        random.digits(sql, 10);
        let _ = write!(
            sql,
            "' WHERE id = {plain};DELETE FROM bench.sbtest{table} WHERE id = {moved};\
             INSERT INTO bench.sbtest{table} (id, k, c, pad) VALUES ({moved},{},'",
            random.below(SMALL_ROWS)
        );
        random.digits(sql, 10);
        sql.push_str("','");
        random.digits(sql, 5);
        sql.push_str("');");
    }
}

async fn prepare_mixed(conn: &mut Conn) -> Result<()> {
    for statement in [
        "CREATE DATABASE bench",
        "CREATE TABLE bench.notebook (id INT UNSIGNED PRIMARY KEY, title VARCHAR(200) NOT NULL, \
         edits INT NOT NULL DEFAULT 0, edited_at DATETIME(6))",
        "CREATE TABLE bench.page (id BIGINT UNSIGNED PRIMARY KEY, notebook_id INT UNSIGNED NOT NULL, \
         title VARCHAR(200), content JSON NOT NULL, draft LONGTEXT, \
         word_count INT GENERATED ALWAYS AS (CAST(JSON_EXTRACT(content, '$.words') AS SIGNED)) STORED, \
         mood DOUBLE, edited_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) \
         ON UPDATE CURRENT_TIMESTAMP(3), KEY page_of_notebook (notebook_id))",
        "CREATE TABLE bench.reading (user_id BIGINT UNSIGNED NOT NULL, page_id BIGINT UNSIGNED NOT NULL, \
         progress FLOAT NOT NULL, note VARCHAR(500), \
         started_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), finished_at DATETIME(6), \
         PRIMARY KEY (user_id, page_id))",
    ] {
        conn.query_drop(statement).await?;
    }
    let rows: Vec<String> = (0..WRITERS * 1_000)
        .map(|id| format!("({id},'notebook {id}')"))
        .collect();
    for rows in rows.chunks(1_000) {
        conn.query_drop(format!(
            "INSERT INTO bench.notebook (id, title) VALUES {}",
            rows.join(",")
        ))
        .await?;
    }
    Ok(())
}

async fn prepare_small(conn: &mut Conn, random: &mut Random) -> Result<()> {
    conn.query_drop("CREATE DATABASE bench").await?;
    for table in 0..WRITERS {
        conn.query_drop(format!(
            "CREATE TABLE bench.sbtest{table} (id INT NOT NULL PRIMARY KEY, k INT NOT NULL, \
             c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY k_{table} (k))"
        ))
        .await?;
        let mut sql = format!("INSERT INTO bench.sbtest{table} (id, k, c, pad) VALUES ");
        for id in 1..=SMALL_ROWS {
            let comma = if id == 1 { "" } else { "," };
            let _ = write!(sql, "{comma}({id},{},'", random.below(SMALL_ROWS));
            random.digits(&mut sql, 10);
            sql.push_str("','");
            random.digits(&mut sql, 5);
            sql.push_str("')");
        }
        conn.query_drop(sql).await?;
    }
    Ok(())
}
