//! Base tables with the columns that a dump must name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::{Filter, not_system, shown};

/// A base table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The schema's name.
    pub database: String,
    /// The table's name.
    pub name: String,
    /// The storage engine's name, such as `InnoDB`.
    pub engine: String,
    /// All columns in their order, generated and invisible ones among them.
    pub columns: Vec<Column>,
    /// The columns of the primary key in its order; empty if there is none.
    pub primary_key: Vec<String>,
    /// `CREATE TABLE ...`.
    pub create: Vec<u8>,
    /// The next AUTO_INCREMENT value, if the table has such a column.
    pub auto_increment: Option<u64>,
    /// Whether [`Table::auto_increment`] is beyond what [`Table::create`] says, since rows came in
    /// between.
    pub auto_increment_moved: bool,
    /// Whether it is encrypted on disk, so that its server has a keyring.
    pub encrypted: bool,
    /// [`Table::create`] put right, where the server prints it wrong.
    pub corrected: Option<Vec<u8>>,
    /// When it was created or last rebuilt, as the server prints it.
    pub created: String,
    /// InnoDB's estimate of the rows.
    pub estimated_rows: u64,
    /// The clustered index's size in bytes.
    pub data_bytes: u64,
}

impl Table {
    /// `schema.table` for a person to read.
    #[must_use]
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    /// Whether InnoDB's read view covers its rows.
    #[must_use]
    pub fn is_innodb(&self) -> bool {
        is_innodb(&self.engine)
    }
}

/// Whether InnoDB's read view covers the rows of a table of this engine.
#[must_use]
pub fn is_innodb(engine: &str) -> bool {
    engine.eq_ignore_ascii_case("InnoDB")
}

/// Whether a table of this engine has rows of its own: those of a MERGE table are in other tables,
/// those of FEDERATED on other servers, and BLACKHOLE has none.
#[must_use]
pub fn has_rows(engine: &str) -> bool {
    !["MRG_MYISAM", "FEDERATED", "BLACKHOLE"]
        .iter()
        .any(|without| engine.eq_ignore_ascii_case(without))
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type without length, such as `varchar`, `json` or `float`.
    pub data_type: String,
    /// Its whole type, such as `float(7,2) unsigned`.
    pub column_type: String,
    /// Its character set, if it holds text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character_set: Option<String>,
    /// Whether the server computes it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub generated: bool,
    /// Whether `SELECT *` leaves it out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub invisible: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

type TableRow = (
    String,
    String,
    Option<String>,
    Option<String>,
    Option<u64>,
    Option<u64>,
    Option<u64>,
    Option<String>,
);
type Key = (String, String);

/// What becomes of a table that is dropped while the tables are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It is left out: this is only a plan.
    LeaveOut,
    /// It is an error.
    Fail,
}

/// `ER_NO_SUCH_TABLE`, `ER_BAD_DB_ERROR`.
const GONE: [u16; 2] = [1146, 1049];

pub(super) async fn load(
    session: &mut Session,
    filter: &Filter,
    dropped: Dropped,
) -> Result<Vec<Table>, MysqlError> {
    let rows: Vec<TableRow> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, CAST(CREATE_TIME AS CHAR), TABLE_ROWS, \
             DATA_LENGTH, AUTO_INCREMENT, CREATE_OPTIONS FROM information_schema.TABLES \
             WHERE TABLE_TYPE = 'BASE TABLE' AND {} \
             ORDER BY BINARY TABLE_SCHEMA, BINARY TABLE_NAME",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let mut columns = columns(session).await?;
    let mut keys = primary_keys(session).await?;
    let mut tables = Vec::with_capacity(rows.len());
    for (database, name, engine, created, rows, bytes, auto_increment, options) in rows {
        if !filter.passes(&database, &name) {
            continue;
        }
        let quoted = quote::qualified(&database, &name);
        let shown_as = session
            .query_one(format!("SHOW CREATE TABLE {quoted}"))
            .await
            .map_err(|error| error.of(format!("table {quoted}")));
        let (_, create): (Vec<u8>, Option<Vec<u8>>) = match shown_as {
            Err(error)
                if dropped == Dropped::LeaveOut
                    && error.code().is_some_and(|code| GONE.contains(&code)) =>
            {
                continue;
            }
            shown_as => shown_as?,
        };
        let key = (database, name);
        let columns = columns.remove(&key).unwrap_or_default();
        let primary_key = keys.remove(&key).unwrap_or_default();
        let (database, name) = key;
        tables.push(Table {
            create: shown(create, "table", &quoted)?,
            auto_increment,
            auto_increment_moved: false,
            corrected: None,
            encrypted: is_encrypted(options.as_deref().unwrap_or_default()),
            database,
            name,
            engine: engine.unwrap_or_default(),
            columns,
            primary_key,
            created: created.unwrap_or_default(),
            estimated_rows: rows.unwrap_or_default(),
            data_bytes: bytes.unwrap_or_default(),
        });
    }
    Ok(tables)
}

/// Whether the server's list of options says so: `ENCRYPTION="Y"` or `ENCRYPTION='Y'`.
fn is_encrypted(options: &str) -> bool {
    let options = options.to_ascii_uppercase();
    ["ENCRYPTION=\"Y\"", "ENCRYPTION='Y'"]
        .iter()
        .any(|option| options.contains(option))
}

/// Asks for the next AUTO_INCREMENT values again.
pub(super) async fn refresh_auto_increments(
    session: &mut Session,
    tables: &mut [Table],
) -> Result<(), MysqlError> {
    let rows: Vec<(String, String, u64)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES \
             WHERE AUTO_INCREMENT IS NOT NULL AND {}",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let now: BTreeMap<Key, u64> = rows
        .into_iter()
        .map(|(database, name, next)| ((database, name), next))
        .collect();
    for table in tables {
        let key = (table.database.clone(), table.name.clone());
        if let Some(&next) = now.get(&key)
            && table.auto_increment.is_some_and(|before| before < next)
        {
            table.auto_increment = Some(next);
            table.auto_increment_moved = true;
        }
    }
    Ok(())
}

/// A sentence for each foreign key from a table that passes to one that does not.
pub(super) async fn cut_foreign_keys(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<String>, MysqlError> {
    if filter.is_everything() {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, String, String, String)> = session
        .query(format!(
            "SELECT DISTINCT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, \
             REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE {} \
             ORDER BY 1, 2, 3, 4",
            not_system("CONSTRAINT_SCHEMA")
        ))
        .await?;
    Ok(rows
        .into_iter()
        .filter(|(database, table, parent_database, parent)| {
            filter.passes(database, table) && !filter.passes(parent_database, parent)
        })
        .map(|(database, table, parent_database, parent)| {
            format!(
                "table {database}.{table} has a foreign key to {parent_database}.{parent}, which the \
                 filter leaves out: where it is missing, no row can be written to {database}.{table}"
            )
        })
        .collect())
}

async fn columns(session: &mut Session) -> Result<BTreeMap<Key, Vec<Column>>, MysqlError> {
    type Row = (
        String,
        String,
        String,
        String,
        String,
        Option<String>,
        String,
    );
    let rows: Vec<Row> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, \
             CHARACTER_SET_NAME, EXTRA FROM information_schema.COLUMNS WHERE {} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let mut columns: BTreeMap<Key, Vec<Column>> = BTreeMap::new();
    for (database, table, name, data_type, column_type, character_set, extra) in rows {
        columns.entry((database, table)).or_default().push(Column {
            name,
            data_type: data_type.to_ascii_lowercase(),
            column_type,
            character_set,
            generated: extra.contains("VIRTUAL GENERATED") || extra.contains("STORED GENERATED"),
            invisible: extra.contains("INVISIBLE"),
        });
    }
    Ok(columns)
}

async fn primary_keys(session: &mut Session) -> Result<BTreeMap<Key, Vec<String>>, MysqlError> {
    let rows: Vec<(String, String, String)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS \
             WHERE INDEX_NAME = 'PRIMARY' AND {} ORDER BY TABLE_SCHEMA, TABLE_NAME, SEQ_IN_INDEX",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let mut keys: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for (database, table, column) in rows {
        keys.entry((database, table)).or_default().push(column);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_read_from_the_options() {
        for (options, encrypted) in [
            ("row_format=COMPRESSED ENCRYPTION='Y'", true),
            ("ENCRYPTION=\"y\"", true),
            ("ENCRYPTION='N' partitioned", false),
            ("", false),
        ] {
            assert_eq!(is_encrypted(options), encrypted, "{options}");
        }
    }
}
