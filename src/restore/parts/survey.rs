//! What a plan tells of its tables: names, sizes, definitions, and which of them the log left alone.

use std::collections::{BTreeMap, BTreeSet};

use super::choose::{Chosen, Held};
use super::error::PartsError;
use super::journal::PlacedTable;
use super::report::PlannedTable;
use super::scan::Touched;
use crate::archive::manifest::Manifest;
use crate::mysql::ddl::statement::TableName;

/// Under which names the tables end up.
pub(super) fn placed(chosen: &Chosen, into: Option<&str>) -> Result<Vec<PlacedTable>, PartsError> {
    let mut by_name: BTreeMap<TableName, &TableName> = BTreeMap::new();
    let mut placed = Vec::new();
    for (name, _) in &chosen.tables {
        let to = match into {
            Some(into) => TableName::new(into, &name.table),
            None => name.clone(),
        };
        if let Some(first) = by_name.insert(to.clone(), name) {
            return Err(PartsError::SameName {
                into: to.database,
                first: first.clone(),
                second: name.clone(),
            });
        }
        placed.push(PlacedTable {
            table: name.clone(),
            to,
        });
    }
    Ok(placed)
}

/// The names of constraints, with the schema that they go into, and which tables have a primary key.
#[expect(clippy::type_complexity, reason = "two lists that one reading gives")]
pub(super) fn definitions(
    held: &Held<'_>,
    chosen: &Chosen,
    into: Option<&str>,
) -> (Vec<(String, String)>, Vec<(TableName, bool)>) {
    let (mut constraints, mut keyed) = (Vec::new(), Vec::new());
    let ids: BTreeSet<_> = chosen.tables.iter().map(|(_, id)| *id).collect();
    for (id, name, _) in chosen.lineage.from_snapshot() {
        let Some(create) = held.create(name) else {
            continue;
        };
        let text = String::from_utf8_lossy(create);
        keyed.push((name.clone(), text.contains("\n  PRIMARY KEY (")));
        let at_cut = chosen.lineage.name_at_cut(id).filter(|_| ids.contains(&id));
        let Some(at_cut) = at_cut else {
            continue;
        };
        let schema = into.unwrap_or(&at_cut.database);
        for line in text.lines() {
            let constraint = line.trim_start().strip_prefix("CONSTRAINT `");
            if let Some((constraint, _)) = constraint.and_then(|rest| rest.split_once('`')) {
                constraints.push((schema.to_owned(), constraint.to_owned()));
            }
        }
    }
    (constraints, keyed)
}

/// What is loaded.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    pub(super) rows: u64,
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl Sizes {
    pub(super) fn of(manifest: &Manifest, chosen: &Chosen) -> Self {
        let mut sizes = Self::default();
        for (id, name, _) in chosen.lineage.from_snapshot() {
            let table = manifest.table(&name.database, &name.table);
            let Some(table) = table.filter(|_| chosen.needs_rows(id)) else {
                continue;
            };
            sizes.rows += table.rows;
            for file in &table.files {
                sizes.raw_bytes += file.file.raw_bytes;
                sizes.stored_bytes += file.file.stored_bytes;
            }
        }
        sizes
    }
}

pub(super) fn planned(
    manifest: &Manifest,
    chosen: &Chosen,
    placed: &[PlacedTable],
    touched: &Touched,
) -> Vec<PlannedTable> {
    let firsts: BTreeMap<_, _> = chosen
        .lineage
        .from_snapshot()
        .map(|(id, name, _)| (id, name))
        .collect();
    let of = |((name, id), place): (&(TableName, _), &PlacedTable)| {
        let first = firsts.get(id);
        let entry = first.and_then(|first| manifest.table(&first.database, &first.table));
        let names: BTreeSet<String> = first
            .into_iter()
            .map(ToString::to_string)
            .chain([name.to_string()])
            .collect();
        let counts = names.iter().filter_map(|name| touched.by_table.get(name));
        PlannedTable {
            place: place.clone(),
            rows: entry.map(|entry| entry.rows),
            raw_bytes: entry.map_or(0, |entry| {
                entry.files.iter().map(|file| file.file.raw_bytes).sum()
            }),
            transactions: counts.sum(),
        }
    };
    chosen.tables.iter().zip(placed).map(of).collect()
}

/// The followed tables that are not chosen.
pub(super) fn besides(chosen: &Chosen) -> Vec<String> {
    let ids: BTreeSet<_> = chosen.tables.iter().map(|(_, id)| *id).collect();
    let others = chosen
        .lineage
        .followed()
        .filter(|(id, _)| !ids.contains(id));
    let names = others.filter_map(|(id, _)| chosen.lineage.origin(id));
    names.map(|(_, name)| name.to_string()).collect()
}

/// The tables of the snapshot whose rows nothing of the log can have changed.
pub(super) fn untouched(
    held: &Held<'_>,
    chosen: &Chosen,
    touched: &Touched,
) -> BTreeSet<TableName> {
    let keys = held.foreign_keys();
    let mut found = BTreeSet::new();
    for (name, id) in &chosen.tables {
        let first = chosen
            .lineage
            .from_snapshot()
            .find(|(known, ..)| known == id);
        let is_same = first.is_some_and(|(_, first, _)| first == name);
        let has_rows = touched.by_table.contains_key(&name.to_string());
        let cascades = keys.get(name).into_iter().flatten();
        let cascades = cascades
            .filter(|key| key.on_delete.changes_rows() || key.on_update.changes_rows())
            .count();
        if is_same && !has_rows && cascades == 0 && !chosen.altered.contains(id) {
            found.insert(name.clone());
        }
    }
    found
}
