//! The objects of a server as DDL: what a snapshot writes down beside the rows.
//!
//! Every object is held as the server's own `SHOW CREATE` text, byte for byte and unconverted
//! (`character_set_results = binary`), with the session settings under which it must be created
//! again. The server's own schemas and accounts are left out; so that nothing is left out by
//! mistake, an object whose text the server withholds is an error.

mod accounts;
mod filter;
mod objects;
mod order;
mod tables;

use super::error::MysqlError;
use super::session::Session;

pub use accounts::Account;
pub use filter::{Filter, Pattern, PatternError};
pub use objects::{Context, ObjectKind, StoredObject};
pub use tables::{Column, Table};

/// A schema (database) of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// `CREATE DATABASE ...`.
    pub create: Vec<u8>,
    /// Its default collation.
    pub collation: String,
}

/// All objects of a server that a filter lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// In the order of their names.
    pub databases: Vec<Database>,
    /// Base tables in the order of their names.
    pub tables: Vec<Table>,
    /// Procedures and functions.
    pub routines: Vec<StoredObject>,
    /// Views, each after those that it reads.
    pub views: Vec<StoredObject>,
    /// Views that are broken on this server already, since what they read is gone.
    pub invalid_views: Vec<StoredObject>,
    /// Triggers in the order in which they fire.
    pub triggers: Vec<StoredObject>,
    /// Events.
    pub events: Vec<StoredObject>,
    /// Accounts and roles, each role before those that have it by default.
    pub accounts: Vec<Account>,
}

/// Reads all objects that the filter lets pass; accounts are never filtered.
///
/// The session's `character_set_results` is changed and stays so.
///
/// # Errors
///
/// What a question fails with, and [`MysqlError::Protocol`] when the server withholds a text.
pub async fn load(session: &mut Session, filter: &Filter) -> Result<Schema, MysqlError> {
    prepare(session).await?;
    let databases = databases(session, filter).await?;
    let tables = tables::load(session, filter).await?;
    let routines = objects::routines(session, filter).await?;
    let (views, invalid_views) = objects::views(session, filter).await?;
    let triggers = objects::triggers(session, filter).await?;
    let events = objects::events(session, filter).await?;
    let accounts = accounts::load(session).await?;
    Ok(Schema {
        databases,
        tables,
        routines,
        views,
        invalid_views,
        triggers,
        events,
        accounts,
    })
}

/// The tables alone, with their sizes: enough for a plan.
///
/// # Errors
///
/// What a question fails with.
pub async fn load_tables(session: &mut Session, filter: &Filter) -> Result<Vec<Table>, MysqlError> {
    prepare(session).await?;
    tables::load(session, filter).await
}

async fn prepare(session: &mut Session) -> Result<(), MysqlError> {
    session
        .execute(
            "SET SESSION character_set_results = binary, information_schema_stats_expiry = 0, \
             sql_quote_show_create = 1",
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

async fn databases(session: &mut Session, filter: &Filter) -> Result<Vec<Database>, MysqlError> {
    let rows: Vec<(String, String)> = session
        .query(format!(
            "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA \
             WHERE {} ORDER BY BINARY SCHEMA_NAME",
            not_system("SCHEMA_NAME")
        ))
        .await?;
    let mut databases = Vec::with_capacity(rows.len());
    for (name, collation) in rows {
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
            name,
            create,
            collation,
        });
    }
    Ok(databases)
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
