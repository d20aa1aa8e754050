//! The end: the staged tables are looked at, lose what refers to tables that are not restored, and get
//! their names, all at once.

use std::collections::BTreeSet;

use super::choose::{Chosen, Held, create_schema};
use super::error::PartsError;
use super::journal::{PartsJournal, PartsStage, PlacedTable};
use super::prepare::PreparedParts;
use super::report::RestoredTable;
use super::statements::list;
use crate::mysql::ddl::statement::TableName;
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::observe::fail_point::{FailPoint, FailPoints};

/// A foreign key, as the catalogue has it.
type KeyRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
);

/// The name under which a chosen table is built, at the cut.
pub(super) fn staged_name(chosen: &Chosen, table: &PlacedTable) -> TableName {
    let staged = chosen.staging.table(&table.table);
    staged.unwrap_or_else(|| table.table.clone())
}

fn quoted(name: &TableName) -> String {
    quote::qualified(&name.database, &name.table)
}

/// The rows of each table before it gets its name; fails if one is not there.
pub(super) async fn count(
    session: &mut Session,
    prepared: &PreparedParts,
) -> Result<Vec<RestoredTable>, PartsError> {
    let mut counted = Vec::new();
    let mut missing = Vec::new();
    for table in &prepared.record.tables {
        let staged = staged_name(&prepared.chosen, table);
        let rows = session
            .query_one::<u64>(format!("SELECT COUNT(*) FROM {}", quoted(&staged)))
            .await;
        match rows {
            Ok(rows) => counted.push(RestoredTable {
                place: table.clone(),
                rows,
            }),
            Err(error) if matches!(error.code(), Some(1049 | 1146)) => {
                missing.push(table.table.to_string());
            }
            Err(error) => return Err(error.into()),
        }
    }
    match missing.is_empty() {
        true => Ok(counted),
        false => Err(PartsError::Missing {
            server: prepared.plan.server.clone(),
            missing,
        }),
    }
}

/// Gives the tables their names.
pub(super) async fn place(
    session: &mut Session,
    prepared: &PreparedParts,
    journal: &mut PartsJournal,
    fail_points: &FailPoints,
) -> Result<(), PartsError> {
    let chosen = &prepared.chosen;
    session
        .execute("SET SESSION foreign_key_checks = 0, group_concat_max_len = 1048576")
        .await?;
    if journal.stage < PartsStage::Place || !are_placed(session, prepared).await? {
        let left = foreign_keys(session, prepared).await?;
        for (_, note) in &left {
            if !journal.notes.contains(note) {
                journal.notes.push(note.clone());
            }
        }
        journal.reach(session, PartsStage::Place).await?;
        for (drop, _) in &left {
            session.execute(drop).await?;
        }
        make_schemas(session, prepared).await?;
        fail_points.pass(FailPoint::PartsPlacing);
        let renames: Vec<String> = prepared
            .record
            .tables
            .iter()
            .map(|table| {
                format!(
                    "{} TO {}",
                    quoted(&staged_name(chosen, table)),
                    quoted(&table.to)
                )
            })
            .collect();
        let rename = format!("RENAME TABLE {}", renames.join(", "));
        session.execute(rename).await.map_err(PartsError::Place)?;
        fail_points.pass(FailPoint::PartsPlaced);
    }
    journal.reach(session, PartsStage::Placed).await?;
    Ok(())
}

/// Whether an earlier run has given them their names: none is left where it was built.
async fn are_placed(session: &mut Session, prepared: &PreparedParts) -> Result<bool, MysqlError> {
    for table in &prepared.record.tables {
        let staged = staged_name(&prepared.chosen, table);
        let found: u64 = session
            .query_one(format!(
                "SELECT COUNT(*) FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
                quote::string(&staged.database),
                quote::string(&staged.table)
            ))
            .await?;
        if found > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn make_schemas(session: &mut Session, prepared: &PreparedParts) -> Result<(), MysqlError> {
    let held = Held::of(prepared);
    let there: Vec<String> = session
        .query("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA")
        .await?;
    let mut made: BTreeSet<&str> = BTreeSet::new();
    for table in &prepared.record.tables {
        let schema = table.to.database.as_str();
        let is_there = there
            .iter()
            .any(|found| held.case.fold(found) == held.case.fold(schema));
        if !is_there && made.insert(schema) {
            let from = held.case.fold(&table.table.database);
            let create = create_schema(&held, &from, schema);
            session.execute(create).await?;
        }
    }
    Ok(())
}

/// The foreign keys of the staged tables whose parent is not among those that get names: what drops
/// each, and what is to be told of it.
async fn foreign_keys(
    session: &mut Session,
    prepared: &PreparedParts,
) -> Result<Vec<(String, String)>, MysqlError> {
    let chosen = &prepared.chosen;
    let schemas = list(chosen.schemas.values());
    let rows: Vec<KeyRow> = session
        .query(format!(
            "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, \
             GROUP_CONCAT(k.COLUMN_NAME ORDER BY k.ORDINAL_POSITION SEPARATOR '\\0'), \
             k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, \
             GROUP_CONCAT(k.REFERENCED_COLUMN_NAME ORDER BY k.ORDINAL_POSITION SEPARATOR '\\0'), \
             MAX(r.UPDATE_RULE), MAX(r.DELETE_RULE) \
             FROM information_schema.KEY_COLUMN_USAGE k \
             JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
             ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME \
             AND r.TABLE_NAME = k.TABLE_NAME \
             WHERE k.TABLE_SCHEMA IN ({schemas}) AND k.REFERENCED_TABLE_NAME IS NOT NULL \
             GROUP BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.REFERENCED_TABLE_SCHEMA, \
             k.REFERENCED_TABLE_NAME ORDER BY 1, 2, 3"
        ))
        .await?;
    let placed = |schema: &str, name: &str| {
        let found = TableName::new(schema, name);
        let mut tables = prepared.record.tables.iter();
        tables.find(|table| staged_name(chosen, table) == found)
    };
    let mut left = Vec::new();
    for (schema, table, key, columns, of, parent, parent_columns, update, delete) in rows {
        let Some(own) = placed(&schema, &table) else {
            continue;
        };
        if placed(&of, &parent).is_some() {
            continue;
        }
        let original = chosen.schemas.iter().find(|(_, staged)| **staged == of);
        let parent = TableName::new(
            original.map_or(of.clone(), |(name, _)| name.clone()),
            parent,
        );
        let columns_of = |text: &str| {
            let names: Vec<String> = text.split('\0').map(quote::identifier).collect();
            names.join(", ")
        };
        let name = quote::identifier(&key);
        let add = format!(
            "ALTER TABLE {} ADD CONSTRAINT {name} FOREIGN KEY ({}) REFERENCES {} ({}) \
             ON DELETE {delete} ON UPDATE {update}",
            quoted(&own.to),
            columns_of(&columns),
            quoted(&parent),
            columns_of(&parent_columns)
        );
        let staged = quote::qualified(&schema, &table);
        left.push((
            format!("ALTER TABLE {staged} DROP FOREIGN KEY {name}"),
            format!(
                "the foreign key {key} of {} is left out, since {parent} is none of these tables; \
                 once its rows fit, this puts it back: {add}",
                own.to
            ),
        ));
    }
    Ok(left)
}
