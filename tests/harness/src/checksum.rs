//! Is this server's data equal to that one's: sums that the server computes and that do not depend on the order of rows.
//!
//! Each value is hashed by itself (NULL has a marker of its own), the hashes of a row in column order are hashed again, and
//! 120 bits of each row's hash are added up. So NULL differs from an empty string, swapped columns and moved boundaries
//! show, a row that is there twice counts twice, and no intermediate value grows with the data. Floats are taken as doubles,
//! so that no digit is rounded away; times in UTC; JSON in the server's normalised text.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// The sum of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSum {
    /// How many rows it has.
    pub rows: u64,
    /// The two halves of the sum of all rows' hashes, in decimal.
    pub sum: String,
}

/// The sums of tables by `db.table`.
pub type Sums = BTreeMap<String, TableSum>;

/// Schemas that belong to the server.
const SYSTEM: &str = "('mysql', 'sys', 'information_schema', 'performance_schema')";

/// The sums of all base tables outside the system schemas, in one consistent snapshot.
///
/// # Errors
/// The server's.
pub async fn all(conn: &mut Conn) -> Result<Sums> {
    select(conn, &format!("TABLE_SCHEMA NOT IN {SYSTEM}")).await
}

/// The sums of the base tables of one schema, in one consistent snapshot.
///
/// # Errors
/// The server's.
pub async fn schema(conn: &mut Conn, name: &str) -> Result<Sums> {
    select(
        conn,
        &format!(
            "TABLE_SCHEMA = {}",
            mysql_async::Value::from(name).as_sql(false)
        ),
    )
    .await
}

/// What differs between two sets of sums, a line each, for a failing test to print; empty if they are equal.
pub fn differences(expected: &Sums, found: &Sums) -> Vec<String> {
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let line = |name: &String| match (expected.get(name), found.get(name)) {
        (Some(expected), Some(found)) if expected == found => None,
        (Some(expected), Some(found)) if expected.rows != found.rows => Some(format!(
            "{name}: {} rows expected, {} found",
            expected.rows, found.rows
        )),
        (Some(expected), Some(_)) => Some(format!(
            "{name}: same number of rows ({}), other values",
            expected.rows
        )),
        (Some(_), None) => Some(format!("{name}: missing")),
        (None, _) => Some(format!("{name}: not expected")),
    };
    names.into_iter().filter_map(line).collect()
}

/// The definitions of everything outside the system schemas, by kind and name, without AUTO_INCREMENT counters.
///
/// # Errors
/// The server's.
pub async fn schema_fingerprint(conn: &mut Conn) -> Result<BTreeMap<String, String>> {
    let kinds = [
        (
            "TABLE",
            "TABLES",
            "TABLE_SCHEMA",
            "TABLE_NAME",
            "TABLE_TYPE = 'BASE TABLE'",
            1,
        ),
        ("VIEW", "VIEWS", "TABLE_SCHEMA", "TABLE_NAME", "TRUE", 1),
        (
            "TRIGGER",
            "TRIGGERS",
            "TRIGGER_SCHEMA",
            "TRIGGER_NAME",
            "TRUE",
            2,
        ),
        (
            "PROCEDURE",
            "ROUTINES",
            "ROUTINE_SCHEMA",
            "ROUTINE_NAME",
            "ROUTINE_TYPE = 'PROCEDURE'",
            2,
        ),
        (
            "FUNCTION",
            "ROUTINES",
            "ROUTINE_SCHEMA",
            "ROUTINE_NAME",
            "ROUTINE_TYPE = 'FUNCTION'",
            2,
        ),
        ("EVENT", "EVENTS", "EVENT_SCHEMA", "EVENT_NAME", "TRUE", 3),
    ];
    let mut found = BTreeMap::new();
    for (kind, view, schema, name, condition, column) in kinds {
        let sql = format!(
            "SELECT {schema}, {name} FROM information_schema.{view} WHERE {schema} NOT IN {SYSTEM} AND {condition}"
        );
        let objects: Vec<(String, String)> = conn.query(sql).await?;
        for (schema, name) in objects {
            let sql = format!("SHOW CREATE {kind} {}.{}", quoted(&schema), quoted(&name));
            let row: mysql_async::Row =
                conn.query_first(&sql).await?.with_context(|| sql.clone())?;
            let text: Option<String> = row.get(column).with_context(|| sql.clone())?;
            found.insert(
                format!("{kind} {schema}.{name}"),
                without_counter(&text.unwrap_or_default()),
            );
        }
    }
    let schemas: Vec<String> = conn
        .query(format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN {SYSTEM}"
        ))
        .await?;
    for schema in schemas {
        let sql = format!("SHOW CREATE DATABASE {}", quoted(&schema));
        let (_, text): (String, String) =
            conn.query_first(&sql).await?.with_context(|| sql.clone())?;
        found.insert(format!("DATABASE {schema}"), text);
    }
    Ok(found)
}

async fn select(conn: &mut Conn, condition: &str) -> Result<Sums> {
    conn.query_drop("SET time_zone='+00:00', sql_mode='', group_concat_max_len=1048576")
        .await?;
    conn.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .await?;
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        .await?;
    let sums = sum_tables(conn, condition).await;
    conn.query_drop("COMMIT").await?;
    sums
}

async fn sum_tables(conn: &mut Conn, condition: &str) -> Result<Sums> {
    let columns: Vec<(String, String, String, String)> = conn
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE) \
             FROM information_schema.COLUMNS JOIN information_schema.TABLES USING (TABLE_SCHEMA, TABLE_NAME) \
             WHERE TABLE_TYPE = 'BASE TABLE' AND {condition} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        ))
        .await
        .context("failed to list the columns")?;
    let mut tables: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (schema, table, column, data_type) in columns {
        tables
            .entry((schema, table))
            .or_default()
            .push(hashed(&column, &data_type));
    }
    let mut sums = Sums::new();
    for ((schema, table), columns) in tables {
        // Two halves of 60 bits: CONV works on 64-bit numbers.
        let half = |start: u8| {
            format!("SUM(CAST(CONV(SUBSTRING(h, {start}, 15), 16, 10) AS DECIMAL(20)))")
        };
        let sql = format!(
            "SELECT COUNT(*), COUNT(h), CONCAT_WS('-', COALESCE({}, 0), COALESCE({}, 0)) FROM \
             (SELECT SHA2(CONCAT_WS(',', {}), 256) AS h FROM {}.{}) AS hashes",
            half(1),
            half(16),
            columns.join(", "),
            quoted(&schema),
            quoted(&table)
        );
        let (rows, hashed, sum): (u64, u64, String) = conn
            .query_first(&sql)
            .await
            .with_context(|| sql.clone())?
            .context("no row of an aggregate")?;
        anyhow::ensure!(
            rows == hashed,
            "{} of {rows} rows of {schema}.{table} have no hash",
            rows - hashed
        );
        sums.insert(format!("{schema}.{table}"), TableSum { rows, sum });
    }
    Ok(sums)
}

/// The hash of one column's value, or the marker of NULL, which is no hash.
fn hashed(column: &str, data_type: &str) -> String {
    let column = quoted(column);
    let bytes = match data_type {
        "float" | "double" => format!("CAST(CAST({column} AS DOUBLE) AS BINARY)"),
        "json" => format!("CAST(CAST({column} AS CHAR CHARACTER SET utf8mb4) AS BINARY)"),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geomcollection" | "geometrycollection" | "bit" | "vector" => {
            format!("HEX({column})")
        }
        _ => format!("CAST({column} AS BINARY)"),
    };
    format!("IFNULL(SHA2({bytes}, 256), '-')")
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn without_counter(definition: &str) -> String {
    let Some(start) = definition.rfind(" AUTO_INCREMENT=") else {
        return definition.to_owned();
    };
    let rest = definition[start + " AUTO_INCREMENT=".len()..]
        .trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{}{rest}", &definition[..start])
}
