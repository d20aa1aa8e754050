//! Sin Pluma, a small service for writers: the data that tests and the quickstart work on.
//!
//! Seven tables (user, notebook, page with JSON content, genre with its ten seeds, reading, tags, has_tags) with foreign keys,
//! generated columns, a CHECK, a full-text index and most column types. The data is believable, hard to copy carelessly
//! (Unicode beyond the BMP, NULL beside '', quotes, backslashes, tabs, line breaks, NUL bytes), and the same at every run:
//! explicit times, numbers from a fixed seed.

mod rows;
mod words;

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::random::Random;

/// The schema's name, unless another one is asked for.
pub const SCHEMA: &str = "sinpluma";

/// The tables.
pub const TABLES: [&str; 7] = [
    "genre", "user", "notebook", "page", "reading", "tags", "has_tags",
];

/// What is written, and where it has got to.
#[derive(Debug, Clone)]
pub struct SinPluma {
    schema: String,
    random: Random,
    users: u64,
    notebooks: u64,
    tags: u64,
    steps: u64,
}

impl SinPluma {
    /// Makes the schema [`SCHEMA`] and fills it: about 5000 rows times `scale`.
    ///
    /// # Errors
    /// The server's.
    pub async fn create(conn: &mut Conn, scale: u32) -> Result<Self> {
        Self::create_in(conn, SCHEMA, scale).await
    }

    /// Makes the tables in a schema of another name, and fills them.
    ///
    /// # Errors
    /// The server's.
    pub async fn create_in(conn: &mut Conn, schema: &str, scale: u32) -> Result<Self> {
        let scale = u64::from(scale.max(1));
        let mut data = Self {
            schema: schema.to_owned(),
            random: Random::new(2026),
            users: 200 * scale,
            notebooks: 400 * scale,
            tags: 80 * scale,
            steps: 0,
        };
        conn.query_drop(format!(
            "CREATE DATABASE `{schema}` CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci"
        ))
        .await?;
        data.begin_session(conn).await?;
        for statement in statements() {
            conn.query_drop(&statement)
                .await
                .with_context(|| statement.clone())?;
        }
        data.fill(conn).await?;
        Ok(data)
    }

    /// The schema's name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// One step of ordinary life, as some four transactions: a new page, an edit, a reading, and now and then a new user,
    /// a tag or a deletion.
    ///
    /// # Errors
    /// The server's; the step may then be done in part.
    pub async fn write_some(&mut self, conn: &mut Conn) -> Result<()> {
        self.steps += 1;
        self.begin_session(conn).await?;
        let (notebooks, users) = (self.notebooks, self.users);
        let random = &mut self.random;

        let notebook = random.below(notebooks) + 1;
        let page = rows::page(random, notebook, None);
        conn.query_drop("START TRANSACTION").await?;
        conn.query_drop(format!(
            "INSERT INTO page (notebook_id, position, title, content, draft, mood, edited_at) \
             SELECT {notebook}, COALESCE(MAX(position), 0) + 1, {}, {}, {}, {}, {} FROM page WHERE notebook_id = {notebook}",
            page.title, page.content, page.draft, page.mood, page.edited_at
        ))
        .await
        .context("a new page")?;
        conn.query_drop(format!(
            "UPDATE notebook SET visibility = 'public' WHERE id = {notebook}"
        ))
        .await?;
        conn.query_drop("COMMIT").await?;

        let edited = random.below(notebooks) + 1;
        let words = random.below(900);
        let text = rows::literal(&words::sentence(random));
        conn.query_drop(format!(
            "UPDATE page SET content = JSON_SET(content, '$.words', {words}, '$.last', {text}), mood = NULL \
             WHERE notebook_id = {edited} ORDER BY position LIMIT 1"
        ))
        .await
        .context("an edit")?;

        let reader = random.below(users) + 1;
        let note = rows::optional(random, words::sentence);
        conn.query_drop(format!(
            "INSERT INTO reading (user_id, page_id, progress, note, started_at) \
             SELECT {reader}, MAX(id), 0.1, {note}, '2026-11-20 10:00:00.123456' FROM page \
             ON DUPLICATE KEY UPDATE progress = progress + 0.1, finished_at = started_at + INTERVAL 61 SECOND"
        ))
        .await
        .context("a reading")?;

        match self.steps % 5 {
            1 => self.new_user(conn).await,
            2 => self.tag(conn).await,
            3 => conn
                .query_drop(format!(
                    "DELETE FROM reading WHERE user_id = {} LIMIT 1",
                    reader % users + 1
                ))
                .await
                .context("a deletion"),
            _ => Ok(()),
        }
    }

    async fn begin_session(&self, conn: &mut Conn) -> Result<()> {
        // Strict mode without ALLOW_INVALID_DATES and the like; times are written in UTC.
        conn.query_drop(format!("USE `{}`", self.schema)).await?;
        conn.query_drop(
            "SET time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES', NAMES utf8mb4",
        )
        .await?;
        Ok(())
    }

    async fn new_user(&mut self, conn: &mut Conn) -> Result<()> {
        self.users += 1;
        let row = rows::user(&mut self.random, self.users);
        conn.query_drop(format!("INSERT INTO user ({}) VALUES {row}", rows::USER))
            .await
            .context("a new user")
    }

    async fn tag(&mut self, conn: &mut Conn) -> Result<()> {
        let notebook = self.random.below(self.notebooks) + 1;
        let tag = self.random.below(self.tags) + 1;
        conn.query_drop(format!(
            "INSERT IGNORE INTO has_tags (notebook_id, tag_id, tagged_by) VALUES ({notebook}, {tag}, NULL)"
        ))
        .await
        .context("a tag")
    }

    async fn fill(&mut self, conn: &mut Conn) -> Result<()> {
        let (users, notebooks, tags) = (self.users, self.notebooks, self.tags);
        let random = &mut self.random;
        insert(
            conn,
            "user",
            rows::USER,
            (1..=users).map(|id| rows::user(random, id)).collect(),
        )
        .await?;
        let rows = (1..=notebooks)
            .map(|id| rows::notebook(random, id, users))
            .collect();
        insert(conn, "notebook", rows::NOTEBOOK, rows).await?;
        let mut pages = Vec::new();
        for notebook in 1..=notebooks {
            for position in 1..=(1 + random.below(9)) {
                pages.push(rows::page(random, notebook, Some(position)).values());
            }
        }
        let count = pages.len() as u64;
        insert(conn, "page", rows::PAGE, pages).await?;
        let readings = (1..=users)
            .flat_map(|user| rows::readings(random, user, count))
            .collect();
        insert(conn, "reading", rows::READING, readings).await?;
        insert(
            conn,
            "tags",
            rows::TAGS,
            (1..=tags).map(|id| rows::tag(random, id)).collect(),
        )
        .await?;
        let links = (1..=notebooks)
            .flat_map(|notebook| rows::links(random, notebook, tags, users))
            .collect();
        insert(conn, "has_tags", rows::HAS_TAGS, links).await
    }
}

async fn insert(conn: &mut Conn, table: &str, columns: &str, rows: Vec<String>) -> Result<()> {
    for batch in rows.chunks(200) {
        conn.query_drop(format!(
            "INSERT INTO `{table}` ({columns}) VALUES {}",
            batch.join(",\n")
        ))
        .await
        .with_context(|| format!("rows of {table}"))?;
    }
    Ok(())
}

fn statements() -> Vec<String> {
    let text: Vec<&str> = include_str!("schema.sql")
        .lines()
        .filter(|line| !line.starts_with("--"))
        .collect();
    let text = text.join("\n");
    text.split(";\n")
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_end_matches(';').to_owned())
        .collect()
}
