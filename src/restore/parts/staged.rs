//! A snapshot's tables under the names that they are built under: a manifest and scripts of the
//! followed ones alone.

use super::choose::{Chosen, Held, create_schema};
use super::error::PartsError;
use crate::archive::manifest::{Manifest, RowChecksum, ScriptKind, Totals};
use crate::archive::script::{Script, names_of, of_object};
use crate::mysql::ddl::Dialect;
use crate::mysql::ddl::lineage::Need;
use crate::mysql::ddl::statement::{Statement, TableName};
use crate::mysql::quote;

/// What is loaded, and what makes it.
#[derive(Debug)]
pub(super) struct StagedTables {
    pub(super) manifest: Manifest,
    pub(super) scripts: Vec<(ScriptKind, Script)>,
}

/// Writes manifest and scripts anew.
pub(super) fn staged(held: &Held<'_>, chosen: &Chosen) -> Result<StagedTables, PartsError> {
    let mut manifest = held.manifest.clone();
    manifest.tables.clear();
    manifest.totals = Totals::default();
    for (_, name, need) in chosen.lineage.from_snapshot() {
        let Some(staged) = chosen.staging.table(name) else {
            continue;
        };
        let found = held.manifest.table(&name.database, &name.table);
        let Some(mut entry) = found.cloned() else {
            continue;
        };
        entry.database = staged.database;
        entry.name = staged.table;
        if need == Need::Structure {
            entry.files.clear();
            entry.rows = 0;
            entry.row_checksum = RowChecksum::default();
        }
        manifest.totals.tables += 1;
        manifest.totals.rows += entry.rows;
        for file in &entry.files {
            manifest.totals.add(&file.file);
        }
        manifest.tables.push(entry);
    }
    let scripts = vec![
        (ScriptKind::Databases, schemas(held, chosen)),
        (ScriptKind::Tables, tables(held, chosen)?),
        (ScriptKind::Histograms, histograms(held, chosen)),
    ];
    Ok(StagedTables { manifest, scripts })
}

/// The schemas that are there from the snapshot on.
fn schemas(held: &Held<'_>, chosen: &Chosen) -> Script {
    let mut script = Script::new();
    script.push("SET NAMES utf8mb4");
    for schema in chosen.lineage.schemas() {
        if let Some(staged) = chosen.staging.schema(&schema.name)
            && schema.from_start
        {
            let create = create_schema(held, &held.case.fold(&schema.name), staged);
            script.push(of_object(&[staged], &create));
        }
    }
    script
}

fn tables(held: &Held<'_>, chosen: &Chosen) -> Result<Script, PartsError> {
    let mut script = Script::new();
    let scripts = held.scripts.iter();
    for (_, found) in scripts.filter(|(kind, _)| *kind == ScriptKind::Tables) {
        for marked in found.statements() {
            let Some((names, statement)) = names_of(marked) else {
                // Settings of the session; every name of ours has its schema.
                if !marked.starts_with(b"USE ") {
                    script.push(marked.clone());
                }
                continue;
            };
            let Ok([database, table]) = <[String; 2]>::try_from(names) else {
                continue;
            };
            let name = TableName::new(database, table);
            let is_followed = chosen
                .lineage
                .from_snapshot()
                .any(|(_, known, _)| *known == name);
            let Some(staged) = chosen.staging.table(&name).filter(|_| is_followed) else {
                continue;
            };
            let text = rewritten(held, chosen, &name, statement).map_err(|reason| {
                PartsError::Definition {
                    table: name.clone(),
                    reason,
                }
            })?;
            script.push(format!("USE {}", quote::identifier(&staged.database)));
            script.push(of_object(&[&staged.database, &staged.table], &text));
        }
    }
    Ok(script)
}

fn histograms(held: &Held<'_>, chosen: &Chosen) -> Script {
    let mut script = Script::new();
    let scripts = held.scripts.iter();
    for (_, found) in scripts.filter(|(kind, _)| *kind == ScriptKind::Histograms) {
        for marked in found.statements() {
            let Some((names, statement)) = names_of(marked) else {
                script.push(marked.clone());
                continue;
            };
            let Ok([database, table, column]) = <[String; 3]>::try_from(names) else {
                continue;
            };
            let name = TableName::new(database, table);
            let mut followed = chosen.lineage.from_snapshot();
            if followed.any(|(_, known, need)| *known == name && need == Need::Rows)
                && let Some(staged) = chosen.staging.table(&name)
                && let Ok(text) = rewritten(held, chosen, &name, statement)
            {
                let names = [staged.database.as_str(), &staged.table, &column];
                script.push(of_object(&names, &text));
            }
        }
    }
    script
}

fn rewritten(
    held: &Held<'_>,
    chosen: &Chosen,
    name: &TableName,
    statement: &[u8],
) -> Result<Vec<u8>, String> {
    let dialect = Dialect::of_scripts(held.version.clone());
    let read = Statement::parse(statement, Some(&name.database), &dialect, held.case);
    let read = read.map_err(|error| error.to_string())?;
    let staged = read
        .staged(&chosen.staging)
        .map_err(|error| error.to_string())?;
    Ok(staged.text)
}
