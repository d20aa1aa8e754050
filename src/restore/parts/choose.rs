//! Which tables are meant, at the cut, and which others they come out of.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Absent, Cause, NamedView, PartsError};
use super::names::staged_schemas;
use super::prepare::PreparedParts;
use super::scan::Logged;
use super::triggers::{self, Trigger};
use crate::archive::manifest::{Manifest, ScriptKind};
use crate::archive::script::{Script, names_of};
use crate::gtid::Gtid;
use crate::mysql::ddl::definition::{ForeignKey, foreign_keys};
use crate::mysql::ddl::lineage::{Fate, Lineage, Need, Place, Start, TableId};
use crate::mysql::ddl::staging::Staging;
use crate::mysql::ddl::statement::{NameCase, Role, Statement, StatementKind, TableName};
use crate::mysql::ddl::{Dialect, view};
use crate::mysql::schema::Pattern;
use crate::mysql::version::ServerVersion;

/// What a snapshot holds, as far as names go.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) scripts: &'a [(ScriptKind, Script)],
    pub(super) case: NameCase,
    /// The version of the server that is restored to, which reads the statements.
    pub(super) version: &'a ServerVersion,
}

impl<'a> Held<'a> {
    /// What a plan holds.
    pub(super) const fn of(prepared: &'a PreparedParts) -> Self {
        Self {
            manifest: &prepared.manifest,
            scripts: prepared.scripts.as_slice(),
            case: prepared.case,
            version: &prepared.version,
        }
    }
}

impl Held<'_> {
    /// The named statements of a kind of script: schema, name and statement.
    pub(super) fn objects(&self, kind: ScriptKind) -> impl Iterator<Item = (TableName, &[u8])> {
        let scripts = self.scripts.iter().filter(move |(of, _)| *of == kind);
        let statements = scripts.flat_map(|(_, script)| script.statements());
        statements.filter_map(|statement| {
            let (names, statement) = names_of(statement)?;
            let [database, table] = <[String; 2]>::try_from(names).ok()?;
            Some((TableName::new(database, table), statement))
        })
    }

    fn start(&self) -> Start {
        let mut schemas: Vec<String> = Vec::new();
        let scripts = self.scripts.iter();
        for (_, script) in scripts.filter(|(kind, _)| *kind == ScriptKind::Databases) {
            let names = script.statements().iter().filter_map(|s| names_of(s));
            schemas.extend(names.filter_map(|(names, _)| names.into_iter().next()));
        }
        let tables = self.manifest.tables.iter();
        let views = [ScriptKind::Views, ScriptKind::InvalidViews];
        let views = views.into_iter().flat_map(|kind| self.objects(kind));
        Start {
            schemas,
            tables: tables
                .map(|table| TableName::new(&table.database, &table.name))
                .collect(),
            views: views.map(|(name, _)| name).collect(),
        }
    }

    /// The statement that makes a table.
    pub(super) fn create(&self, name: &TableName) -> Option<&[u8]> {
        self.objects(ScriptKind::Tables)
            .find(|(found, statement)| found == name && statement.starts_with(b"CREATE "))
            .map(|(_, statement)| statement)
    }

    /// The foreign keys of every table of the snapshot that can be read.
    pub(super) fn foreign_keys(&self) -> BTreeMap<TableName, Vec<ForeignKey>> {
        let creates = self.objects(ScriptKind::Tables);
        let creates = creates.filter(|(_, statement)| statement.starts_with(b"CREATE "));
        creates
            .filter_map(|(name, statement)| {
                let keys = foreign_keys(statement, &name.database, self.version).ok()?;
                (!keys.is_empty()).then_some((name, keys))
            })
            .collect()
    }

    /// What a view reads.
    fn reads(&self, view: &TableName) -> Vec<TableName> {
        let views = [ScriptKind::Views, ScriptKind::InvalidViews];
        let mut views = views.into_iter().flat_map(|kind| self.objects(kind));
        let Some((_, text)) = views.find(|(found, _)| found == view) else {
            return Vec::new();
        };
        let tables = self.manifest.tables.iter();
        let tables: Vec<TableName> = tables
            .map(|table| TableName::new(&table.database, &table.name))
            .collect();
        let read = view::reads_of(text, &view.database, self.version, self.case, &tables);
        read.unwrap_or_default().into_iter().cloned().collect()
    }

    /// The views that read one of these tables.
    pub(super) fn readers(&self, chosen: &[TableName]) -> Vec<TableName> {
        let views = self.objects(ScriptKind::Views);
        views
            .map(|(view, _)| view)
            .filter(|view| self.reads(view).iter().any(|read| chosen.contains(read)))
            .collect()
    }
}

/// The tables of a restore.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) lineage: Lineage,
    pub(super) staging: Staging,
    /// Every schema that has a staging schema, with it.
    pub(super) schemas: BTreeMap<String, String>,
    /// The tables, by their names at the cut.
    pub(super) tables: Vec<(TableName, TableId)>,
    /// The numbers of the statements that concern followed tables, by transaction.
    pub(super) statements: BTreeMap<Gtid, Vec<usize>>,
    /// Those that a statement of the log was on.
    pub(super) altered: BTreeSet<TableId>,
    /// Tables that the log gave a foreign key by which a parent changes their rows, with that one.
    pub(super) late_parents: Vec<(TableName, TableName)>,
    /// Every name that a followed table ever has.
    pub(super) names: BTreeSet<TableName>,
    /// The names of the snapshot's tables that are followed.
    pub(super) snapshot_names: Vec<String>,
    /// Views that patterns matched.
    pub(super) views: Vec<TableName>,
    /// The triggers of the tables at the cut.
    pub(super) triggers: Vec<Trigger>,
}

impl Chosen {
    /// Resolves patterns at the cut, and follows what they lead to through the log.
    pub(super) fn find(
        held: &Held<'_>,
        logged: &[Logged],
        patterns: &[Pattern],
    ) -> Result<Self, PartsError> {
        let mut lineage = Lineage::new(held.start(), held.case);
        let mut numbers = Vec::with_capacity(logged.len());
        for found in logged {
            let number = found.statement.as_ref().ok().map(|s| lineage.read(s));
            numbers.push(number);
        }
        let (tables, views) = resolve(held, &lineage, logged, &numbers, patterns)?;
        lineage.follow(tables.iter().map(|(_, id)| *id));
        if let Some((_, name)) = lineage.unseen().next() {
            return Err(PartsError::Definition {
                table: name.clone(),
                reason: "it was there before the log and is not in the snapshot".to_owned(),
            });
        }
        let keys = held.foreign_keys();
        let mut schemas: BTreeSet<String> = BTreeSet::new();
        let mut add = |schema: &str| {
            schemas.insert(held.case.fold(schema));
        };
        for schema in lineage.schemas() {
            add(&schema.name);
        }
        for (_, name, _) in lineage.from_snapshot() {
            add(&name.database);
            for key in keys.get(name).into_iter().flatten() {
                add(&key.parent.database);
            }
        }
        let schemas = staged_schemas(&schemas);
        let staging = Staging::new(schemas.clone(), held.case);
        let staging = staging.map_err(|error| PartsError::NoTable(vec![error.to_string()]))?;
        let mut chosen = Self {
            names: lineage
                .from_snapshot()
                .map(|(_, name, _)| name.clone())
                .collect(),
            staging,
            schemas,
            tables,
            snapshot_names: lineage
                .from_snapshot()
                .map(|(_, name, _)| name.to_string())
                .collect(),
            statements: BTreeMap::new(),
            altered: BTreeSet::new(),
            late_parents: Vec::new(),
            views,
            lineage,
            triggers: Vec::new(),
        };
        chosen.walk(held, logged)?;
        Ok(chosen)
    }

    /// Goes along the log once: what is to be run of it, and whether it can be.
    fn walk(&mut self, held: &Held<'_>, logged: &[Logged]) -> Result<(), PartsError> {
        let (mut statements, mut names) = (BTreeMap::new(), std::mem::take(&mut self.names));
        let (mut altered, mut parents) = (BTreeSet::new(), Vec::new());
        let mut place = self.lineage.beginning();
        let ids: BTreeSet<TableId> = self.tables.iter().map(|(_, id)| *id).collect();
        let mut known = triggers::of_snapshot(held, &place, &ids);
        let mut not_read: Vec<(&Cause, String, &str)> = Vec::new();
        for found in logged {
            let statement = match &found.statement {
                Ok(statement) => statement,
                Err((error, text)) => {
                    not_read.push((&found.cause, error.to_string(), text));
                    continue;
                }
            };
            let number = place.next_statement();
            triggers::follow(&mut known, statement, &found.cause, &place, &ids);
            let staged = match statement.kind {
                // Whether these concern a followed table is another question (`rows_said`).
                StatementKind::Rows => Ok(None),
                _ => self.lineage.stage(&place, statement, &self.staging),
            };
            match staged {
                Ok(Some(_)) => {
                    let numbers: &mut Vec<usize> =
                        statements.entry(found.cause.gtid.clone()).or_default();
                    numbers.push(number);
                    for used in &statement.names {
                        let id = place.table(&used.name.database, &used.name.table);
                        altered.extend(id);
                    }
                    parents.extend(late_parents(statement));
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(PartsError::NotUnderstood {
                        cause: Box::new(found.cause.clone()),
                        tables: listed(self.tables.iter().map(|(name, _)| name)),
                        reason: error.to_string(),
                    });
                }
            }
            place.pass();
            for used in &statement.names {
                if place.need(&used.name.database, &used.name.table).is_some() {
                    names.insert(used.name.clone());
                }
            }
        }
        let triggers = triggers::at_the_end(known, &place, &ids);
        self.triggers = triggers;
        (self.statements, self.names) = (statements, names);
        (self.altered, self.late_parents) = (altered, parents);
        // A statement that nobody can read may concern whom it names.
        for (cause, reason, text) in not_read {
            if let Some(name) = self.names.iter().find(|name| mentions(text, &name.table)) {
                return Err(PartsError::NotUnderstood {
                    cause: Box::new(cause.clone()),
                    tables: name.to_string(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// What is needed of each followed table.
    pub(super) fn needs_rows(&self, id: TableId) -> bool {
        self.lineage.need(id) == Some(Need::Rows)
    }
}

/// The parents that a statement gives to its table, if they change its rows.
pub(super) fn late_parents(statement: &Statement) -> Vec<(TableName, TableName)> {
    let text = String::from_utf8_lossy(statement.text()).to_uppercase();
    let (Some(subject), true) = (
        statement.subject(),
        text.contains("CASCADE") || text.contains("NULL"),
    ) else {
        return Vec::new();
    };
    let parents = statement.of_role(Role::Parent);
    parents
        .map(|parent| (subject.clone(), parent.clone()))
        .collect()
}

/// Whether a text has a word, whatever its case.
fn mentions(text: &str, word: &str) -> bool {
    text.to_lowercase().contains(&word.to_lowercase())
}

/// Names one after the other.
pub(super) fn listed<'n>(names: impl Iterator<Item = &'n TableName>) -> String {
    let names: Vec<String> = names.map(ToString::to_string).collect();
    names.join(", ")
}

type Resolved = (Vec<(TableName, TableId)>, Vec<TableName>);

/// The tables of the patterns at the cut, and the views that they match besides.
fn resolve(
    held: &Held<'_>,
    lineage: &Lineage,
    logged: &[Logged],
    numbers: &[Option<usize>],
    patterns: &[Pattern],
) -> Result<Resolved, PartsError> {
    let cause = |statement: usize| {
        let at = numbers.iter().position(|n| *n == Some(statement))?;
        logged.get(at).map(|found| found.cause.clone())
    };
    let mut tables: BTreeMap<TableName, TableId> = BTreeMap::new();
    let mut views: Vec<TableName> = Vec::new();
    let mut named_views = Vec::new();
    let mut absent = Vec::new();
    let mut unmatched = Vec::new();
    for choice in lineage.choose(patterns) {
        let text = choice.pattern.to_string();
        let is_exact = text.contains('.') && !text.contains(['*', '?']);
        for id in &choice.tables {
            if let Some(name) = lineage.name_at_cut(*id) {
                tables.insert(name.clone(), *id);
            }
        }
        if is_exact && choice.tables.is_empty() {
            if choice.views.is_empty() {
                let taken = choice.gone.last().and_then(|gone| {
                    let cause = cause(gone.statement)?;
                    Some(match &gone.fate {
                        Fate::Renamed(to) => Cause {
                            what: format!("{}; renamed to {to}", cause.what),
                            ..cause
                        },
                        Fate::Dropped | Fate::SchemaDropped => cause,
                    })
                });
                absent.push(Absent { name: text, taken });
                continue;
            }
            named_views.extend(choice.views.iter().map(|view| NamedView {
                name: view.to_string(),
                reads: held.reads(view).iter().map(ToString::to_string).collect(),
            }));
            continue;
        }
        if choice.tables.is_empty() {
            unmatched.push(text);
        }
        views.extend(choice.views);
    }
    if !named_views.is_empty() {
        return Err(PartsError::Views(named_views));
    }
    if !absent.is_empty() {
        return Err(PartsError::Absent(absent));
    }
    if !unmatched.is_empty() {
        return Err(PartsError::NoTable(unmatched));
    }
    Ok((tables.into_iter().collect(), views))
}

/// The statement that makes a schema of the snapshot, under another name.
pub(super) fn create_schema(held: &Held<'_>, schema: &str, name: &str) -> Vec<u8> {
    let quoted = crate::mysql::quote::identifier(name);
    let scripts = held.scripts.iter();
    for (_, script) in scripts.filter(|(kind, _)| *kind == ScriptKind::Databases) {
        for statement in script.statements() {
            let Some((names, statement)) = names_of(statement) else {
                continue;
            };
            if names
                .first()
                .is_none_or(|found| held.case.fold(found) != schema)
            {
                continue;
            }
            let dialect = Dialect::of_scripts(held.version.clone());
            let staging = Staging::new([(schema.to_owned(), name.to_owned())], held.case);
            let read = Statement::parse(statement, None, &dialect, held.case);
            if let (Ok(staging), Ok(read)) = (staging, read)
                && let Ok(staged) = read.staged(&staging)
            {
                return staged.text;
            }
        }
    }
    format!("CREATE DATABASE {quoted}").into_bytes()
}

/// The place of a table's rows, if all of it is followed.
pub(super) fn rows_of(place: &Place<'_>, schema: &str, table: &str) -> bool {
    place.need(schema, table) == Some(Need::Rows)
}
