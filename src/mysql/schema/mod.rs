//! The objects of a server as DDL: what a snapshot writes down beside the rows.
//!
//! Every object is held as the server's own `SHOW CREATE` text, byte for byte and unconverted
//! (`character_set_results = binary`), with the session settings under which it must be created
//! again. The server's own schemas and accounts are left out; so that nothing is left out by
//! mistake, an object whose text the server withholds is an error, and what cannot be held is
//! named in a sentence.

mod accounts;
mod filter;
mod histograms;
mod information;
mod instance;
mod misprints;
mod objects;
mod order;
mod strangers;
mod tables;
mod views;

use super::error::MysqlError;
use super::session::Session;
use super::version::ServerVersion;
use tables::Dropped;

pub use accounts::{Account, SecondPassword, UsedPassword};
pub use filter::{Filter, FilterSurvey, Pattern, PatternError};
pub use histograms::Histogram;
pub use information::{Information, PersistedVariable, Plugin, Variable};
pub use instance::{DATAFILE_LINE, Instance, InstanceObject};
pub use objects::{Context, ObjectKind, StoredObject};
pub use tables::{Column, Table, has_rows, is_innodb};
pub use views::CutView;

/// A schema (database) of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// `CREATE DATABASE ...`.
    pub create: Vec<u8>,
    /// Its default collation.
    pub collation: String,
    /// Whether its new tables are encrypted.
    pub encrypted: bool,
    /// Whether nothing in it may be changed (8.0.22).
    pub read_only: bool,
}

/// All objects of a server that a filter lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The server's version, which is that of all texts.
    pub version: ServerVersion,
    /// What belongs to no schema.
    pub instance: Instance,
    /// In the order of their names.
    pub databases: Vec<Database>,
    /// Base tables in the order of their names.
    pub tables: Vec<Table>,
    /// Libraries of code, then procedures and functions.
    pub routines: Vec<StoredObject>,
    /// Views, each after those that it reads.
    pub views: Vec<StoredObject>,
    /// Views that are broken on this server already, since what they read is gone.
    pub invalid_views: Vec<StoredObject>,
    /// Views that read what the filter leaves out.
    pub cut_views: Vec<CutView>,
    /// Triggers in the order in which they fire.
    pub triggers: Vec<StoredObject>,
    /// Events.
    pub events: Vec<StoredObject>,
    /// Accounts and roles, each role before those that have it by default.
    pub accounts: Vec<Account>,
    /// Histograms of columns.
    pub histograms: Vec<Histogram>,
    /// What is told and not made again.
    pub information: Information,
    /// What the server has and this does not, a sentence each.
    pub left_out: Vec<String>,
}

/// Reads all objects that the filter lets pass; accounts and what belongs to no schema are never
/// filtered.
///
/// The session's `character_set_results` is changed and stays so.
///
/// # Errors
///
/// What a question fails with, and [`MysqlError::Protocol`] when the server withholds a text.
pub async fn load(session: &mut Session, filter: &Filter) -> Result<Schema, MysqlError> {
    prepare(session).await?;
    let version: String = session.query_one("SELECT @@GLOBAL.version").await?;
    let version = ServerVersion::parse(&version)?;
    let mut left_out = Vec::new();
    let instance = instance::load(session).await?;
    let databases = databases(session, filter).await?;
    let mut tables = tables::load(session, filter, Dropped::Fail).await?;
    left_out.extend(tables::cut_foreign_keys(session, filter).await?);
    left_out.extend(misprints::correct(session, &mut tables).await?);
    let mut routines = objects::libraries(session, filter).await?;
    routines.extend(objects::routines(session, filter).await?);
    let views = views::load(session, filter).await?;
    let triggers = objects::triggers(session, filter).await?;
    let events = objects::events(session, filter).await?;
    let accounts = accounts::load(session).await?;
    let histograms = histograms::load(session, filter, &version).await?;
    let information = information::load(session).await?;
    left_out.extend(strangers::load(session).await?);
    Ok(Schema {
        version,
        instance,
        databases,
        tables,
        routines,
        views: views.sound,
        invalid_views: views.broken,
        cut_views: views.cut,
        triggers,
        events,
        accounts,
        histograms,
        information,
        left_out,
    })
}

/// The tables alone, with their sizes: enough for a plan.
///
/// # Errors
///
/// What a question fails with.
pub async fn load_tables(session: &mut Session, filter: &Filter) -> Result<Vec<Table>, MysqlError> {
    prepare(session).await?;
    tables::load(session, filter, Dropped::LeaveOut).await
}

/// Reads the tables' next AUTO_INCREMENT values again. Asked once a read view is open, the answer is
/// never less than what the view's rows were given, so that no value is given out twice.
///
/// # Errors
///
/// What the question fails with.
pub async fn refresh_auto_increments(
    session: &mut Session,
    schema: &mut Schema,
) -> Result<(), MysqlError> {
    tables::refresh_auto_increments(session, &mut schema.tables).await
}

/// Holds the filter's patterns against what the server has: schemas, tables, views, routines and
/// events.
///
/// # Errors
///
/// What a question fails with.
pub async fn survey(session: &mut Session, filter: &Filter) -> Result<FilterSurvey, MysqlError> {
    if filter.is_everything() {
        return Ok(FilterSurvey::default());
    }
    let names: Vec<(String, Option<String>)> = session
        .query(format!(
            "SELECT SCHEMA_NAME AS db, NULL AS name FROM information_schema.SCHEMATA WHERE {} \
             UNION ALL SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE {} \
             UNION ALL SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE {} \
             UNION ALL SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE {}",
            not_system("SCHEMA_NAME"),
            not_system("TABLE_SCHEMA"),
            not_system("ROUTINE_SCHEMA"),
            not_system("EVENT_SCHEMA"),
        ))
        .await?;
    Ok(filter.survey(&names))
}

async fn prepare(session: &mut Session) -> Result<(), MysqlError> {
    session
        .execute(
            "SET SESSION character_set_results = binary, information_schema_stats_expiry = 0, \
             sql_quote_show_create = 1, lc_messages = 'en_US'",
        )
        .await?;
    // Both are newer than 8.0.0 (8.0.17, 8.0.30): a server without them has neither feature.
    for optional in [
        "SET SESSION print_identified_with_as_hex = 1",
        "SET SESSION show_gipk_in_create_table_and_information_schema = 1",
    ] {
        match session.execute(optional).await {
            Err(error) if error.code() == Some(UNKNOWN_VARIABLE) => {}
            other => {
                other?;
            }
        }
    }
    Ok(())
}

/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;
/// A column (1054) or a table (1109 in information_schema, 1146) that a version does not have.
const UNKNOWN: [u16; 3] = [1054, 1109, 1146];

/// The answer, or `None` if this version does not know what was asked for.
fn optional<T>(answer: Result<T, MysqlError>) -> Result<Option<T>, MysqlError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code().is_some_and(|code| UNKNOWN.contains(&code)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn databases(session: &mut Session, filter: &Filter) -> Result<Vec<Database>, MysqlError> {
    type Row = (String, String, String);
    let question = |encryption: &str| {
        format!(
            "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME, {encryption} \
             FROM information_schema.SCHEMATA WHERE {} ORDER BY BINARY SCHEMA_NAME",
            not_system("SCHEMA_NAME")
        )
    };
    // DEFAULT_ENCRYPTION came with 8.0.16, the options of schemas with 8.0.22.
    let rows = match optional(session.query::<Row>(question("DEFAULT_ENCRYPTION")).await)? {
        Some(rows) => rows,
        None => session.query::<Row>(question("'NO'")).await?,
    };
    let read_only: Vec<String> = optional(
        session
            .query(
                "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA_EXTENSIONS \
                 WHERE OPTIONS LIKE '%READ ONLY=1%'",
            )
            .await,
    )?
    .unwrap_or_default();
    let mut databases = Vec::with_capacity(rows.len());
    for (name, collation, encryption) in rows {
        if !filter.passes_database(&name) {
            continue;
        }
        let (_, create): (Vec<u8>, Vec<u8>) = session
            .query_one(format!(
                "SHOW CREATE DATABASE {}",
                super::quote::identifier(&name)
            ))
            .await?;
        databases.push(Database {
            create,
            collation,
            encrypted: encryption == "YES",
            read_only: read_only.contains(&name),
            name,
        });
    }
    Ok(databases)
}

/// Whether it is one of the server's own schemas.
fn is_system(database: &str) -> bool {
    let database = database.to_ascii_lowercase();
    super::facts::SYSTEM_SCHEMAS.contains(&database.as_str())
}

/// A condition that leaves the server's own schemas out.
fn not_system(column: &str) -> String {
    let names = super::facts::SYSTEM_SCHEMAS
        .map(super::quote::string)
        .join(", ");
    format!("LOWER({column}) NOT IN ({names})")
}

/// The text of an object, or the error that says that the server keeps it back.
fn shown(text: Option<Vec<u8>>, what: &str, name: &str) -> Result<Vec<u8>, MysqlError> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| {
        MysqlError::protocol(format!(
            "the server withholds the text of {what} {name} (a privilege is missing)"
        ))
    })
}
