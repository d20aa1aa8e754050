//! Two servers, compared object by object and row by row.

use anyhow::{Result, ensure};
use quillback_harness::Server;

use crate::support::raw_rows;

/// Schemas that are not compared.
const OWN: &str = "('sys', 'mysql', 'performance_schema', 'information_schema')";

/// What of `information_schema` must be the same on both servers: a view, its columns, and which of
/// its columns is the schema's name.
const CATALOGUE: &[(&str, &str, &str)] = &[
    (
        "SCHEMATA",
        "SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME, DEFAULT_ENCRYPTION",
        "SCHEMA_NAME",
    ),
    ("SCHEMATA_EXTENSIONS", "SCHEMA_NAME, OPTIONS", "SCHEMA_NAME"),
    (
        "TABLES",
        "TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, ROW_FORMAT, TABLE_COLLATION, CREATE_OPTIONS, TABLE_COMMENT, AUTO_INCREMENT",
        "TABLE_SCHEMA",
    ),
    ("TABLES_EXTENSIONS", "*", "TABLE_SCHEMA"),
    (
        "COLUMNS",
        "TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_TYPE, CHARACTER_SET_NAME, \
         COLLATION_NAME, COLUMN_KEY, EXTRA, COLUMN_COMMENT, GENERATION_EXPRESSION, SRS_ID",
        "TABLE_SCHEMA",
    ),
    // What the columns of a view are like depends on the sql_mode of its creation, which no server
    // remembers.
    (
        "COLUMNS",
        "TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IF((TABLE_SCHEMA, TABLE_NAME) IN (SELECT TABLE_SCHEMA, TABLE_NAME \
         FROM information_schema.VIEWS), 'a view', CONCAT_WS(' ', IS_NULLABLE, COLUMN_DEFAULT))",
        "TABLE_SCHEMA",
    ),
    ("COLUMNS_EXTENSIONS", "*", "TABLE_SCHEMA"),
    (
        "STATISTICS",
        "TABLE_SCHEMA, TABLE_NAME, NON_UNIQUE, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, COLLATION, SUB_PART, NULLABLE, INDEX_TYPE, \
         COMMENT, INDEX_COMMENT, IS_VISIBLE, EXPRESSION",
        "TABLE_SCHEMA",
    ),
    (
        "PARTITIONS",
        "TABLE_SCHEMA, TABLE_NAME, PARTITION_NAME, SUBPARTITION_NAME, PARTITION_ORDINAL_POSITION, SUBPARTITION_ORDINAL_POSITION, \
         PARTITION_METHOD, SUBPARTITION_METHOD, PARTITION_EXPRESSION, SUBPARTITION_EXPRESSION, PARTITION_DESCRIPTION, PARTITION_COMMENT, \
         TABLESPACE_NAME",
        "TABLE_SCHEMA",
    ),
    ("TABLE_CONSTRAINTS", "*", "TABLE_SCHEMA"),
    ("CHECK_CONSTRAINTS", "*", "CONSTRAINT_SCHEMA"),
    ("REFERENTIAL_CONSTRAINTS", "*", "CONSTRAINT_SCHEMA"),
    ("KEY_COLUMN_USAGE", "*", "TABLE_SCHEMA"),
    (
        "VIEWS",
        "TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION, CHECK_OPTION, IS_UPDATABLE, DEFINER, SECURITY_TYPE, CHARACTER_SET_CLIENT, \
         COLLATION_CONNECTION",
        "TABLE_SCHEMA",
    ),
    (
        "TRIGGERS",
        "TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_MANIPULATION, EVENT_OBJECT_TABLE, ACTION_ORDER, ACTION_TIMING, ACTION_STATEMENT, SQL_MODE, \
         DEFINER, CREATED, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION",
        "TRIGGER_SCHEMA",
    ),
    (
        "ROUTINES",
        "ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, DTD_IDENTIFIER, ROUTINE_BODY, ROUTINE_DEFINITION, IS_DETERMINISTIC, SQL_DATA_ACCESS, \
         SECURITY_TYPE, SQL_MODE, DEFINER, ROUTINE_COMMENT, CREATED, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION",
        "ROUTINE_SCHEMA",
    ),
    ("PARAMETERS", "*", "SPECIFIC_SCHEMA"),
    (
        "EVENTS",
        "EVENT_SCHEMA, EVENT_NAME, DEFINER, TIME_ZONE, EVENT_DEFINITION, EVENT_TYPE, EXECUTE_AT, INTERVAL_VALUE, INTERVAL_FIELD, \
         SQL_MODE, STARTS, ENDS, STATUS, ON_COMPLETION, CREATED, EVENT_COMMENT, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, \
         DATABASE_COLLATION",
        "EVENT_SCHEMA",
    ),
    (
        "COLUMN_STATISTICS",
        "SCHEMA_NAME, TABLE_NAME, COLUMN_NAME, JSON_REMOVE(HISTOGRAM, '$.\"last-updated\"')",
        "SCHEMA_NAME",
    ),
];

/// What belongs to no schema.
const INSTANCE: &[&str] = &[
    "SELECT NAME, ROW_FORMAT, ZIP_PAGE_SIZE, SPACE_TYPE, AUTOEXTEND_SIZE, ENCRYPTION FROM information_schema.INNODB_TABLESPACES \
     WHERE SPACE_TYPE = 'General' AND NAME <> 'mysql'",
    "SELECT * FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS",
    "SELECT * FROM information_schema.RESOURCE_GROUPS",
    "SELECT * FROM mysql.func",
    "SELECT * FROM mysql.servers",
    "SELECT * FROM mysql.password_history",
];

/// How many things were compared.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) objects: usize,
    pub(crate) tables: usize,
}

/// Fails at the first difference between two servers; objects whose quoted name contains one of
/// `except` are passed over.
pub(crate) async fn assert_same(
    source: &Server,
    target: &Server,
    except: &[&str],
) -> Result<Compared> {
    let mut compared = Compared::default();
    for (view, columns, schema) in CATALOGUE {
        let question =
            format!("SELECT {columns} FROM information_schema.{view} WHERE {schema} NOT IN {OWN}");
        let (here, there) = (
            without(text(&raw_rows(source, &question).await?), except),
            without(text(&raw_rows(target, &question).await?), except),
        );
        same(&question, &here, &there)?;
    }
    for question in INSTANCE {
        let (here, there) = (
            text(&raw_rows(source, question).await?),
            text(&raw_rows(target, question).await?),
        );
        same(question, &here, &there)?;
    }
    for question in show_creates(source).await? {
        if except.iter().any(|name| question.contains(name)) {
            continue;
        }
        let (here, there) = (
            shown_text(&raw_rows(source, &question).await?),
            shown_text(&raw_rows(target, &question).await?),
        );
        same(&question, &here, &there)?;
        compared.objects += 1;
    }
    for question in row_questions(source).await? {
        let (here, there) = (
            text(&raw_rows(source, &question).await?),
            text(&raw_rows(target, &question).await?),
        );
        same(&question, &here, &there)?;
        compared.tables += 1;
    }
    Ok(compared)
}

fn same(question: &str, here: &[Vec<String>], there: &[Vec<String>]) -> Result<()> {
    let only = |of: &[Vec<String>], other: &[Vec<String>]| {
        let rows = of.iter().filter(|row| !other.contains(row)).take(3);
        rows.map(|row| row.join(" | "))
            .collect::<Vec<_>>()
            .join("\n    ")
    };
    ensure!(
        here == there,
        "{question}\n  {} rows on the source, {} on the target\n  only on the source:\n    {}\n  only on the target:\n    {}",
        here.len(),
        there.len(),
        only(here, there),
        only(there, here)
    );
    Ok(())
}

fn without(rows: Vec<Vec<String>>, except: &[&str]) -> Vec<Vec<String>> {
    let excepted = |row: &Vec<String>| {
        row.iter()
            .any(|value| except.iter().any(|name| value == &format!("={name}")))
    };
    rows.into_iter().filter(|row| !excepted(row)).collect()
}

/// `SHOW CREATE` of everything that has one, and the grants of all accounts.
async fn show_creates(server: &Server) -> Result<Vec<String>> {
    let mut questions = Vec::new();
    for (what, question) in [
        (
            "DATABASE",
            "SELECT SCHEMA_NAME, '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN",
        ),
        (
            "TABLE",
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN",
        ),
        (
            "TRIGGER",
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN",
        ),
        (
            "EVENT",
            "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN",
        ),
        (
            "PROCEDURE",
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'PROCEDURE' AND ROUTINE_SCHEMA NOT IN",
        ),
        (
            "FUNCTION",
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA NOT IN",
        ),
    ] {
        let names: Vec<(String, String)> = server.query(&format!("{question} {OWN}")).await?;
        questions.extend(names.into_iter().map(|(schema, name)| {
            if name.is_empty() {
                format!("SHOW CREATE {what} {}", one(&schema))
            } else {
                format!("SHOW CREATE {what} {}", quoted(&schema, &name))
            }
        }));
    }
    // 9.2 brought them.
    let libraries: u64 = server
        .one("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'information_schema' AND TABLE_NAME = 'LIBRARIES'")
        .await?;
    if libraries > 0 {
        let names: Vec<(String, String)> = server
            .query("SELECT LIBRARY_SCHEMA, LIBRARY_NAME FROM information_schema.LIBRARIES")
            .await?;
        questions.extend(
            names
                .into_iter()
                .map(|(schema, name)| format!("SHOW CREATE LIBRARY {}", quoted(&schema, &name))),
        );
    }
    let accounts: Vec<(String, String)> = server
        .query("SELECT User, Host FROM mysql.user WHERE User NOT LIKE 'mysql.%'")
        .await?;
    for (user, host) in accounts {
        let account = format!("{}@{}", one(&user), one(&host));
        questions.push(format!("SHOW CREATE USER {account}"));
        questions.push(format!("SHOW GRANTS FOR {account}"));
    }
    Ok(questions)
}

/// A question for every row of every table: each column as it is, and numbers in full.
pub(crate) async fn row_questions(server: &Server) -> Result<Vec<String>> {
    let columns: Vec<(String, String, String, String)> = server
        .query(&format!(
            "SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE FROM information_schema.COLUMNS c \
             JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME) WHERE t.TABLE_TYPE = 'BASE TABLE' \
             AND c.TABLE_SCHEMA NOT IN {OWN} ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION"
        ))
        .await?;
    let mut questions: Vec<(String, Vec<String>)> = Vec::new();
    for (database, table, column, data_type) in columns {
        let table = quoted(&database, &table);
        let name = one(&column);
        let expression = match data_type.as_str() {
            "float" => format!("CAST({name} AS DOUBLE)"),
            "enum" | "set" => format!("{name}, {name} + 0"),
            _ => name,
        };
        match questions.last_mut() {
            Some((last, expressions)) if *last == table => expressions.push(expression),
            _ => questions.push((table, vec![expression])),
        }
    }
    Ok(questions
        .into_iter()
        .map(|(table, expressions)| format!("SELECT {} FROM {table}", expressions.join(", ")))
        .collect())
}

fn one(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn quoted(database: &str, name: &str) -> String {
    format!("{}.{}", one(database), one(name))
}

pub(crate) fn text(rows: &[Vec<Vec<u8>>]) -> Vec<Vec<String>> {
    rows.iter()
        .map(|row| {
            row.iter()
                .map(|value| value.escape_ascii().to_string())
                .collect()
        })
        .collect()
}

/// As [`text`], without the one thing that a server itself adds when it runs its own `SHOW CREATE`
/// again: a column with `COLLATE x` gets the character set, which the collation implies, spelt out.
fn shown_text(rows: &[Vec<Vec<u8>>]) -> Vec<Vec<String>> {
    let mut rows = text(rows);
    for value in rows.iter_mut().flatten() {
        let mut plain = String::new();
        let mut rest = value.as_str();
        while let Some((before, after)) = rest.split_once(" CHARACTER SET ") {
            plain.push_str(before);
            let (set, tail) = after.split_once(' ').unwrap_or((after, ""));
            if tail.starts_with(&format!("COLLATE {set}_")) {
                plain.push(' ');
                rest = tail;
            } else {
                plain.push_str(" CHARACTER SET ");
                rest = after;
            }
        }
        plain.push_str(rest);
        *value = plain;
    }
    rows
}
