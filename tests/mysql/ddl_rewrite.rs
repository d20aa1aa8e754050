//! DDL of a real log, run again in staging schemas on a server that has live tables of the same names.
//!
//! One server is the source: a zoo of statements is run there and read back out of its binlog. The
//! other one has the same schemas and tables as the source had at first, as bystanders, and
//! staging schemas beside them. What is run there must make the same tables, and leave the bystanders alone.

mod zoo;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use quillback::mysql::ServerVersion;
use quillback::mysql::binlog::{Checksum, EventKind, MAGIC, RawEvent};
use quillback::mysql::ddl::lineage::{Lineage, Need, Start};
use quillback::mysql::ddl::staging::Staging;
use quillback::mysql::ddl::statement::{NameCase, Statement, StatementKind, TableName};
use quillback::mysql::ddl::{Dialect, definition, view};
use quillback_harness::{Server, checksum};

use crate::log::Log;
use zoo::{ANSI, START, ZOO};

const CASE: NameCase = NameCase::Distinct;
const ANSI_QUOTES: u64 = 4;
const UTF8MB4: u16 = 45;

/// A statement as the binlog has it.
struct Logged {
    schema: Option<String>,
    text: String,
}

impl Logged {
    fn is_ansi(&self) -> bool {
        self.text.contains(ANSI)
    }

    fn parse(&self, version: &ServerVersion) -> Result<Statement> {
        let mode = if self.is_ansi() { ANSI_QUOTES } else { 0 };
        let dialect = Dialect::of_session(mode, UTF8MB4, version.clone());
        let schema = self.schema.as_deref();
        Statement::parse(self.text.as_bytes(), schema, &dialect, CASE)
            .with_context(|| self.text.clone())
    }
}

/// What the source did, and what it has at the end.
struct Story {
    version: ServerVersion,
    /// The tables at the beginning, with what makes them.
    start: Vec<(TableName, String)>,
    log: Vec<Logged>,
    end: BTreeMap<TableName, String>,
}

async fn run_all(conn: &mut Conn, statements: &[(&str, &str)]) -> Result<()> {
    let mut failures = Vec::new();
    for (schema, text) in statements {
        if !schema.is_empty() {
            conn.query_drop(format!("USE `{schema}`")).await?;
        }
        let mode = if text.contains(ANSI) {
            "ANSI_QUOTES"
        } else {
            ""
        };
        conn.query_drop(format!("SET sql_mode = '{mode}'")).await?;
        if let Err(error) = conn.query_drop(*text).await {
            failures.push(format!("{text}: {error}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// The tables outside the system's schemas. Whether a column's character set is said beside its
/// collation is left out: the server prints it where the collation was said when the table was
/// made, which it is in what was printed before.
async fn tables(conn: &mut Conn) -> Result<BTreeMap<TableName, String>> {
    conn.query_drop("SET sql_mode = ''").await?;
    let names: Vec<(String, String)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' \
             AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')",
        )
        .await?;
    let mut tables = BTreeMap::new();
    for (schema, table) in names {
        let name = TableName::new(schema, table);
        let quoted = quillback::mysql::quote::qualified(&name.database, &name.table);
        let (_, create): (String, String) = conn
            .query_first(format!("SHOW CREATE TABLE {quoted}"))
            .await?
            .context("a row")?;
        let charsets = ["utf8mb4", "latin1", "latin2", "cp1250"];
        let create = charsets.iter().fold(create, |create, charset| {
            create.replace(&format!(" CHARACTER SET {charset} COLLATE"), " COLLATE")
        });
        tables.insert(name, create);
    }
    Ok(tables)
}

/// The statements of the last file of the source's binlog.
async fn log(source: &Server) -> Result<Vec<Logged>> {
    let log = Log::of(source).await?;
    let (_, file) = log.files.last_key_value().context("a file")?;
    let mut rest = file.get(MAGIC.len()..).unwrap_or_default();
    let mut logged = Vec::new();
    while !rest.is_empty() {
        let event = RawEvent::first_of(rest)?;
        rest = &rest[event.bytes().len()..];
        if event.kind() == EventKind::QUERY {
            let (schema, text) = event.query(Checksum::Crc32)?;
            let schema = String::from_utf8(schema.to_vec())?;
            logged.push(Logged {
                schema: (!schema.is_empty()).then_some(schema),
                text: String::from_utf8(text.to_vec())?,
            });
        }
    }
    Ok(logged)
}

async fn tell(source: &Server) -> Result<Story> {
    let mut conn = source.conn().await?;
    let version: String = conn
        .query_first("SELECT @@version")
        .await?
        .context("a row")?;
    let version = ServerVersion::parse(&version)?;
    run_all(&mut conn, START).await?;
    let start = tables(&mut conn).await?.into_iter().collect();
    conn.query_drop("FLUSH BINARY LOGS").await?;
    run_all(&mut conn, ZOO).await?;
    Ok(Story {
        version,
        start,
        log: log(source).await?,
        end: tables(&mut conn).await?,
    })
}

/// What is outside the staging schemas: definitions and rows.
async fn bystanders(target: &Server) -> Result<(BTreeMap<String, String>, checksum::Sums)> {
    // A server prints views in another way where there is a default schema.
    let conn = &mut target.conn().await?;
    let schemas: Vec<String> = conn
        .query("SELECT CONCAT_WS(' ', SCHEMA_NAME, DEFAULT_COLLATION_NAME) FROM information_schema.SCHEMATA")
        .await?;
    let definitions = checksum::schema_fingerprint(conn).await?;
    let schemas = schemas.into_iter().map(|schema| (schema, String::new()));
    let all = definitions.into_iter().chain(schemas);
    let live = all.filter(|(name, _)| !name.contains(STAGED)).collect();
    let mut sums = checksum::all(conn).await?;
    sums.retain(|name, _| !name.contains(STAGED));
    Ok((live, sums))
}

const STAGED: &str = "staged_";

struct Replayed {
    /// Under the names of the source.
    tables: BTreeMap<TableName, String>,
    followed_parents: Vec<TableName>,
    run: usize,
}

/// Runs the story in staging schemas, for these tables of its end.
async fn replay(conn: &mut Conn, story: &Story, pattern: &str) -> Result<Replayed> {
    let statements: Vec<Statement> = story
        .log
        .iter()
        .map(|logged| logged.parse(&story.version))
        .collect::<Result<_>>()?;
    let mut lineage = Lineage::new(
        Start {
            schemas: vec!["a".to_owned(), "b".to_owned()],
            tables: story.start.iter().map(|(name, _)| name.clone()).collect(),
            views: vec![TableName::new("a", "v")],
        },
        CASE,
    );
    for statement in &statements {
        lineage.read(statement);
    }
    let choice = lineage.choose(&[pattern.parse()?]).remove(0);
    ensure!(!choice.tables.is_empty(), "{pattern} is at the end");
    lineage.follow(choice.tables.iter().copied());
    assert_eq!(lineage.unseen().count(), 0);

    let mut schemas: BTreeMap<String, bool> = BTreeMap::new();
    for schema in lineage.schemas() {
        schemas.insert(schema.name, schema.from_start);
    }
    let made: Vec<&(TableName, String)> = story
        .start
        .iter()
        .filter(|(name, _)| lineage.from_snapshot().any(|(_, known, _)| known == name))
        .collect();
    for (name, create) in &made {
        let keys = definition::foreign_keys(create.as_bytes(), &name.database, &story.version)?;
        for key in keys {
            schemas.entry(key.parent.database).or_insert(true);
        }
    }
    let pairs = schemas
        .keys()
        .map(|schema| (schema.clone(), format!("{STAGED}{schema}")));
    let staging = Staging::new(pairs, CASE)?;

    conn.query_drop("SET foreign_key_checks = 0, sql_mode = ''")
        .await?;
    for (schema, from_start) in &schemas {
        conn.query_drop(format!("DROP DATABASE IF EXISTS `{STAGED}{schema}`"))
            .await?;
        if *from_start {
            let (_, create): (String, String) = conn
                .query_first(format!("SHOW CREATE DATABASE `{schema}`"))
                .await?
                .context("a row")?;
            let create = create.replacen(&format!("`{schema}`"), &format!("`{STAGED}{schema}`"), 1);
            conn.query_drop(create).await?;
        }
    }
    for (name, create) in made {
        let staged = definition::staged(
            create.as_bytes(),
            &name.database,
            &story.version,
            CASE,
            &staging,
        )?;
        conn.query_drop(staged.text).await?;
    }
    let mut place = lineage.beginning();
    let mut run = 0;
    for (logged, statement) in story.log.iter().zip(&statements) {
        let staged = lineage
            .stage(&place, statement, &staging)
            .with_context(|| logged.text.clone())?;
        place.pass();
        let Some(staged) = staged else {
            continue;
        };
        run += 1;
        if let Some(schema) = &staged.schema {
            conn.query_drop(format!("USE `{schema}`")).await?;
        }
        let mode = if logged.is_ansi() { "ANSI_QUOTES" } else { "" };
        conn.query_drop(format!("SET sql_mode = '{mode}'")).await?;
        let text = String::from_utf8_lossy(&staged.text).into_owned();
        conn.query_drop(staged.text).await.with_context(|| text)?;
        if staged.starts_transaction {
            conn.query_drop("COMMIT").await?;
        }
    }
    let staged = tables(conn).await?;
    let staged = staged.into_iter().filter_map(|(name, create)| {
        let schema = name.database.strip_prefix(STAGED)?;
        let create = create.replace(&format!("`{STAGED}"), "`");
        Some((TableName::new(schema, name.table), create))
    });
    let followed = lineage.followed();
    let followed = followed
        .filter_map(|(id, _)| lineage.name_at_cut(id).cloned())
        .collect();
    assert!(lineage.followed().any(|(_, need)| need == Need::Rows));
    Ok(Replayed {
        tables: staged.collect(),
        followed_parents: followed,
        run,
    })
}

/// A table without what must differ where the parents of its foreign keys are not followed.
fn without_keys(
    create: &str,
    parents: &[TableName],
    schema: &str,
    version: &ServerVersion,
) -> Result<String> {
    let keys = definition::foreign_keys(create.as_bytes(), schema, version)?;
    let foreign = keys.iter().filter(|key| !parents.contains(&key.parent));
    let mut text = create.to_owned();
    for key in foreign {
        let clause = String::from_utf8_lossy(&key.clause).into_owned();
        ensure!(text.contains(&clause), "{clause}");
        text = text.replace(&clause, "").replace(",\n  \n", "\n");
    }
    Ok(text)
}

#[tokio::test]
async fn a_zoo_of_ddl_makes_the_same_tables_in_staging_schemas() -> Result<()> {
    let source = Server::start().await?;
    let story = tell(&source).await?;
    let staged_kinds = story.log.iter().map(|logged| logged.parse(&story.version));
    let kinds: Vec<StatementKind> = staged_kinds
        .map(|read| read.map(|statement| statement.kind))
        .collect::<Result<_>>()?;
    assert!(kinds.len() >= 60, "{}", kinds.len());
    let atomic = |kind: &StatementKind| {
        matches!(
            kind,
            StatementKind::CreateTable {
                starts_transaction: true,
                ..
            }
        )
    };
    assert!(
        kinds.iter().any(atomic),
        "the source logs CREATE TABLE ... SELECT in one"
    );

    // The live ones: the beginning under the same names, and also the tables of the end.
    let target = Server::start().await?;
    let mut conn = target.conn().await?;
    run_all(&mut conn, START).await?;
    run_all(&mut conn, zoo::BYSTANDERS).await?;
    let live = bystanders(&target).await?;
    assert!(live.1.len() >= 8, "{:?}", live.1.keys());

    // All of them.
    let all = replay(&mut conn, &story, "*.*").await?;
    assert!(all.run >= 50, "{}", all.run);
    assert_eq!(
        all.tables.keys().collect::<Vec<_>>(),
        story.end.keys().collect::<Vec<_>>()
    );
    for (name, create) in &story.end {
        assert_eq!(all.tables.get(name), Some(create), "{name}");
    }
    assert_eq!(
        bystanders(&target).await?,
        live,
        "live tables are left alone"
    );

    // Each by itself.
    for (name, create) in &story.end {
        let pattern = format!("{}.{}", name.database, name.table.replace('.', "?"));
        let one = replay(&mut conn, &story, &pattern).await?;
        assert!(one.run < all.run, "{name}");
        let parents = &one.followed_parents;
        let expected = without_keys(create, parents, &name.database, &story.version)?;
        let found = one
            .tables
            .get(name)
            .with_context(|| format!("{name} is staged"))?;
        let found = without_keys(found, parents, &name.database, &story.version)?;
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(
        bystanders(&target).await?,
        live,
        "live tables are left alone"
    );
    Ok(())
}

#[tokio::test]
async fn a_printed_view_tells_what_it_reads() -> Result<()> {
    let server = Server::start().await?;
    let mut conn = server.conn().await?;
    run_all(&mut conn, START).await?;
    run_all(
        &mut conn,
        &[
            (
                "a",
                "CREATE VIEW w AS WITH c AS (SELECT id FROM users) SELECT p.id, EXTRACT(YEAR FROM p.made) AS y FROM pages p \
                 JOIN c USING (id), b.swap1 WHERE EXISTS (SELECT * FROM v) UNION SELECT 1, 2 FROM b.far",
            ),
            ("b", "CREATE VIEW own AS SELECT * FROM far"),
        ],
    )
    .await?;
    let version: String = conn
        .query_first("SELECT @@version")
        .await?
        .context("a row")?;
    let version = ServerVersion::parse(&version)?;
    let known = [
        ("a", "pages"),
        ("a", "users"),
        ("a", "comments"),
        ("a", "v"),
        ("b", "far"),
        ("b", "swap1"),
        ("b", "swap2"),
    ]
    .map(|(schema, table)| TableName::new(schema, table));
    for (default, schema, name, expected) in [
        ("mysql", "a", "w", "a.pages a.users a.v b.far b.swap1"),
        ("b", "b", "own", "b.far"),
        ("a", "b", "own", "b.far"),
    ] {
        conn.query_drop(format!("USE {default}")).await?;
        let (_, create, _, _): (String, String, String, String) = conn
            .query_first(format!("SHOW CREATE VIEW `{schema}`.`{name}`"))
            .await?
            .context("a row")?;
        let read = view::reads_of(create.as_bytes(), schema, &version, CASE, &known)?;
        let read: Vec<String> = read.into_iter().map(ToString::to_string).collect();
        assert_eq!(read.join(" "), expected, "{create}");
    }
    Ok(())
}
