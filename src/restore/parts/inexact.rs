//! Where the tables alone cannot be what they were among all the others, and what is only worth
//! knowing.
//!
//! A foreign key changes rows of a table when rows of its parent go. Servers before 9.6, and later
//! ones that leave foreign keys to InnoDB, write nothing of that to the binlog: so a table whose
//! parent is not restored with it keeps rows that went on the source. That matters only if the log
//! of the cut has such a change of the parent, or of one that the parent's own rows go with.

use std::collections::{BTreeMap, BTreeSet};

use super::choose::{Chosen, Held, listed};
use super::error::PartsError;
use super::report::PartsRequest;
use super::scan::Log;
use crate::mysql::ddl::definition::ForeignKey;
use crate::mysql::ddl::statement::TableName;
use crate::mysql::version::ServerVersion;

/// From this version on a server writes to its binlog what foreign keys change.
const LOGGED_FROM: (u16, u16, u16) = (9, 6, 0);
/// The setting that makes it not do so.
const NATIVE: &str = "innodb_native_foreign_keys";

/// What is not exact, for a person to read.
pub(super) async fn find(
    held: &Held<'_>,
    chosen: &Chosen,
    log: &Log<'_>,
    request: &PartsRequest,
) -> Result<Vec<String>, PartsError> {
    let mut notes = Vec::new();
    if log.set.is_empty() || are_logged(held, log) {
        return Ok(notes);
    }
    let keys = held.foreign_keys();
    let restored = |name: &TableName| chosen.names.contains(name);
    let families: Vec<(&TableName, BTreeSet<TableName>)> = chosen
        .tables
        .iter()
        .map(|(table, _)| (table, ancestors(table, &keys, chosen, &restored)))
        .filter(|(_, ancestors)| !ancestors.is_empty())
        .collect();
    let all: BTreeSet<TableName> = families.iter().flat_map(|(_, of)| of.clone()).collect();
    let touched = log.touched(&all).await?;
    for (table, ancestors) in families {
        let mut names = ancestors.iter().map(ToString::to_string);
        let Some((parent, cause)) = names.find_map(|name| {
            let cause = touched.changed.get(&name)?;
            Some((name, cause))
        }) else {
            continue;
        };
        let mut line: Vec<String> = request.tables.iter().map(ToString::to_string).collect();
        line.extend(ancestors.iter().map(ToString::to_string));
        notes.push(format!(
            "{table} is not exact: rows of {parent} went or changed (first in {cause}), which \
             changes rows of {table} by a foreign key, and the source's binlog does not tell \
             which; exact would be --tables {}",
            line.join(",")
        ));
    }
    notes.extend(half_followed(&keys, chosen, &restored));
    Ok(notes)
}

/// A table between one that is not restored and one that is: where it is updated, foreign keys are
/// not looked at, neither upwards nor downwards.
fn half_followed(
    keys: &BTreeMap<TableName, Vec<ForeignKey>>,
    chosen: &Chosen,
    restored: &impl Fn(&TableName) -> bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    for (table, _) in &chosen.tables {
        let of = |name: &TableName| keys.get(name).into_iter().flatten();
        let missing: Vec<&TableName> = of(table)
            .map(|key| &key.parent)
            .filter(|parent| !restored(parent))
            .collect();
        let is_updated = |child: &TableName| {
            of(child).any(|key| key.parent == *table && key.on_update.changes_rows())
        };
        let children = chosen.tables.iter().map(|(name, _)| name);
        let children: Vec<&TableName> = children.filter(|child| is_updated(child)).collect();
        if let (Some(parent), Some(child)) = (missing.first(), children.first()) {
            notes.push(format!(
                "{child} may not be exact: where keys of {table} were changed, its rows should have \
                 followed; exact would be with {parent} among --tables"
            ));
        }
    }
    notes
}

/// The tables, not restored, whose changes change rows of a table by foreign keys.
fn ancestors(
    table: &TableName,
    keys: &BTreeMap<TableName, Vec<ForeignKey>>,
    chosen: &Chosen,
    restored: &impl Fn(&TableName) -> bool,
) -> BTreeSet<TableName> {
    let mut found: BTreeSet<TableName> = BTreeSet::new();
    let mut waiting = vec![table.clone()];
    while let Some(child) = waiting.pop() {
        let own = keys.get(&child).into_iter().flatten();
        let own = own.filter(|key| key.on_delete.changes_rows() || key.on_update.changes_rows());
        let late = chosen.late_parents.iter().filter(|(of, _)| *of == child);
        let parents = own
            .map(|key| &key.parent)
            .chain(late.map(|(_, parent)| parent));
        for parent in parents {
            if !restored(parent) && found.insert(parent.clone()) {
                waiting.push(parent.clone());
            }
        }
    }
    found
}

/// Whether the log of the cut has what foreign keys did.
fn are_logged(held: &Held<'_>, log: &Log<'_>) -> bool {
    let variables = held.manifest.information.variables.iter();
    let native = variables
        .filter(|variable| variable.name == NATIVE)
        .any(|variable| {
            variable
                .value
                .as_deref()
                .is_some_and(|value| value != "OFF" && value != "0")
        });
    let (major, minor, patch) = LOGGED_FROM;
    let is_new = |version: &ServerVersion| version.at_least(major, minor, patch);
    let members = log.history.needed(log.set);
    let sources = members
        .iter()
        .filter_map(|m| m.stored.index.source.as_ref());
    let all_new = sources
        .map(|source| ServerVersion::parse(&source.version))
        .all(|version| version.is_ok_and(|version| is_new(&version)));
    !native && all_new
}

/// What is worth knowing and no reason to worry.
pub(super) fn remarks(held: &Held<'_>, chosen: &Chosen) -> Vec<String> {
    let mut remarks = Vec::new();
    if !chosen.views.is_empty() {
        remarks.push(format!(
            "views are not restored, they have no rows: {}",
            listed(chosen.views.iter())
        ));
    }
    let tables: Vec<TableName> = chosen.tables.iter().map(|(name, _)| name.clone()).collect();
    let readers = held.readers(&tables);
    if !readers.is_empty() {
        remarks.push(format!(
            "views that read these tables: {}",
            listed(readers.iter())
        ));
    }
    let keys = held.foreign_keys();
    for table in &tables {
        for key in keys.get(table).into_iter().flatten() {
            if !tables.contains(&key.parent) {
                remarks.push(format!(
                    "the foreign key {} of {table} is left out: {} is none of these tables",
                    key.name, key.parent
                ));
            }
        }
    }
    remarks
}
