//! What names mean at one moment, and how statements change that.

use std::collections::{BTreeMap, BTreeSet};

use super::super::statement::{NameCase, NameUse, Role, Statement, StatementKind, TableName};
use super::{Fate, Gone, Life, Lineage, Link, Need, Origin, TableId};

/// What there is in the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// All schemas.
    pub schemas: Vec<String>,
    /// All tables; [`TableId`]s are given in this order.
    pub tables: Vec<TableName>,
    /// All views.
    pub views: Vec<TableName>,
}

/// What names mean. The keys are folded.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) schemas: BTreeSet<String>,
    pub(super) tables: BTreeMap<TableName, (TableName, TableId)>,
    pub(super) views: BTreeMap<TableName, TableName>,
}

/// What a statement does to names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Made(TableName, TableId),
    /// By its key.
    Left(TableName),
    MadeView(TableName),
    LeftView(TableName),
    MadeSchema(String),
    LeftSchema(String),
}

impl Names {
    pub(super) fn name_of(&self, id: TableId) -> Option<&TableName> {
        let mut tables = self.tables.values();
        let found = tables.find(|(_, known)| *known == id);
        found.map(|(name, _)| name)
    }

    fn apply(&mut self, case: NameCase, change: &Change) {
        match change {
            Change::Made(name, id) => {
                self.tables.insert(case.key(name), (name.clone(), *id));
            }
            Change::Left(key) => {
                self.tables.remove(key);
            }
            Change::MadeView(name) => {
                self.views.insert(case.key(name), name.clone());
            }
            Change::LeftView(key) => {
                self.views.remove(key);
            }
            Change::MadeSchema(key) => {
                self.schemas.insert(key.clone());
            }
            Change::LeftSchema(key) => {
                self.schemas.remove(key);
            }
        }
    }
}

/// A moment in the log: before the statement [`Place::next_statement`].
#[derive(Debug, Clone)]
pub struct Place<'a> {
    lineage: &'a Lineage,
    names: Names,
    next: usize,
}

impl<'a> Place<'a> {
    pub(super) fn new(lineage: &'a Lineage) -> Self {
        Self {
            lineage,
            names: lineage.start.clone(),
            next: 0,
        }
    }

    /// The number of the statement that comes next.
    #[must_use]
    pub const fn next_statement(&self) -> usize {
        self.next
    }

    /// Goes behind the next statement.
    pub fn pass(&mut self) {
        for change in self.changes() {
            self.names.apply(self.lineage.case, change);
        }
        self.next += 1;
    }

    /// Goes on until a statement is the next one.
    pub fn pass_to(&mut self, statement: usize) {
        while self.next < statement {
            self.pass();
        }
    }

    /// What the next statement does to names.
    pub(super) fn changes(&self) -> &'a [Change] {
        let changes = self.lineage.changes.get(self.next);
        changes.map(Vec::as_slice).unwrap_or_default()
    }

    /// The table that has this name here.
    #[must_use]
    pub fn table(&self, database: &str, table: &str) -> Option<TableId> {
        let key = self.lineage.case.key(&TableName::new(database, table));
        self.names.tables.get(&key).map(|(_, id)| *id)
    }

    /// What is needed of the table that has this name here; nothing if it is not followed.
    #[must_use]
    pub fn need(&self, database: &str, table: &str) -> Option<Need> {
        self.lineage.need(self.table(database, table)?)
    }

    /// The name that a table has here; none if it is gone, or not there yet.
    #[must_use]
    pub fn name_of(&self, table: TableId) -> Option<&TableName> {
        self.names.name_of(table)
    }

    /// Whether there is a schema of this name here.
    #[must_use]
    pub fn has_schema(&self, schema: &str) -> bool {
        self.names.schemas.contains(&self.lineage.case.fold(schema))
    }
}

impl Lineage {
    /// Begins with what is in the snapshot.
    #[must_use]
    pub fn new(start: Start, case: NameCase) -> Self {
        let mut lineage = Self {
            case,
            start: Names::default(),
            end: Names::default(),
            lives: Vec::new(),
            changes: Vec::new(),
            links: Vec::new(),
            gone: BTreeMap::new(),
            parents: Vec::new(),
            temporary: BTreeSet::new(),
            needs: BTreeMap::new(),
        };
        let names = &mut lineage.start;
        for schema in start.schemas {
            names.schemas.insert(case.fold(&schema));
        }
        for name in start.tables {
            names.schemas.insert(case.fold(&name.database));
            let id = TableId(lineage.lives.len());
            names.tables.insert(case.key(&name), (name.clone(), id));
            lineage.lives.push(Life::new(name, Origin::Snapshot));
        }
        for name in start.views {
            names.views.insert(case.key(&name), name);
        }
        lineage.end = lineage.start.clone();
        lineage
    }

    /// Takes the next statement, and gives its number.
    pub fn read(&mut self, statement: &Statement) -> usize {
        let number = self.changes.len();
        self.changes.push(Vec::new());
        match statement.kind {
            StatementKind::CreateTable { if_not_exists, .. } => {
                self.create(statement, if_not_exists);
            }
            StatementKind::AlterTable => self.alter(statement),
            StatementKind::DropTable => {
                for name in statement.of_role(Role::Subject) {
                    self.take(name, Fate::Dropped);
                }
            }
            StatementKind::RenameTable => {
                for pair in statement.names.chunks_exact(2) {
                    self.rename(&pair[0].name, &pair[1].name);
                }
            }
            StatementKind::TruncateTable
            | StatementKind::CreateIndex
            | StatementKind::DropIndex => {
                if let Some(name) = statement.subject() {
                    self.meet(name);
                }
            }
            StatementKind::CreateTemporary => {
                let names = statement.of_role(Role::Subject);
                let keys = names.map(|name| self.case.key(name));
                self.temporary.extend(keys);
            }
            StatementKind::CreateView => {
                for name in statement.of_role(Role::Subject) {
                    let key = self.case.key(name);
                    if !self.end.tables.contains_key(&key) {
                        self.gone.remove(&key);
                        self.change(Change::MadeView(name.clone()));
                    }
                }
            }
            StatementKind::DropView => {
                for name in statement.of_role(Role::Subject) {
                    self.change(Change::LeftView(self.case.key(name)));
                }
            }
            StatementKind::CreateDatabase { .. } => {
                let schema = statement.database.as_deref().unwrap_or_default();
                let key = self.case.fold(schema);
                if !self.end.schemas.contains(&key) {
                    self.change(Change::MadeSchema(key));
                }
            }
            StatementKind::DropDatabase => self.drop_schema(statement),
            StatementKind::AlterDatabase
            | StatementKind::DropTemporary
            | StatementKind::Maintain
            | StatementKind::Analyze
            | StatementKind::CreateTrigger
            | StatementKind::DropTrigger
            | StatementKind::Elsewhere
            | StatementKind::Frame
            | StatementKind::Rows => {}
        }
        number
    }

    fn change(&mut self, change: Change) {
        self.end.apply(self.case, &change);
        if let Some(changes) = self.changes.last_mut() {
            changes.push(change);
        }
    }

    const fn number(&self) -> usize {
        self.changes.len().saturating_sub(1)
    }

    /// A schema that is named must be there; one that was never spoken of was there from the start.
    fn know_schema(&mut self, schema: &str) {
        let key = self.case.fold(schema);
        if self.end.schemas.insert(key.clone()) {
            self.start.schemas.insert(key);
        }
    }

    /// A new identity for a name.
    fn make(&mut self, name: &TableName, origin: Origin) -> TableId {
        let id = TableId(self.lives.len());
        self.lives.push(Life::new(name.clone(), origin));
        self.know_schema(&name.database);
        id
    }

    fn put(&mut self, name: &TableName, id: TableId) {
        self.know_schema(&name.database);
        if let Some(life) = self.lives.get_mut(id.0) {
            life.schemas.insert(name.database.clone());
        }
        self.gone.remove(&self.case.key(name));
        self.change(Change::Made(name.clone(), id));
    }

    /// The table of a name that an existing table must have; what was not in the snapshot gets its
    /// identity now, as one that was there all the time.
    fn meet(&mut self, name: &TableName) -> Option<TableId> {
        let key = self.case.key(name);
        if let Some((_, id)) = self.end.tables.get(&key) {
            return Some(*id);
        }
        if self.end.views.contains_key(&key) || self.temporary.contains(&key) {
            return None;
        }
        let statement = self.number();
        let id = self.make(name, Origin::Unseen { statement });
        self.put(name, id);
        Some(id)
    }

    fn take(&mut self, name: &TableName, fate: Fate) -> Option<TableId> {
        let key = self.case.key(name);
        let (name, id) = self.end.tables.get(&key)?.clone();
        self.change(Change::Left(key.clone()));
        let statement = self.number();
        let gone = Gone {
            name,
            fate,
            statement,
        };
        self.gone.insert(key, gone);
        Some(id)
    }

    fn create(&mut self, statement: &Statement, if_not_exists: bool) {
        let Some(name) = statement.subject() else {
            return;
        };
        let key = self.case.key(name);
        let is_there = self.end.tables.contains_key(&key) || self.end.views.contains_key(&key);
        if if_not_exists && is_there {
            return;
        }
        let source = statement.of_role(Role::LikeSource).next();
        let source = source.and_then(|source| self.meet(source));
        let number = self.number();
        let id = self.make(name, Origin::Created { statement: number });
        self.know_parents(id, &statement.names);
        if let Some(source) = source {
            self.links.push(Link::Like(id, source));
        }
        self.put(name, id);
    }

    fn know_parents(&mut self, id: TableId, names: &[NameUse]) {
        let parents = names.iter().filter(|found| found.role == Role::Parent);
        let schemas = parents.map(|found| (id, found.name.database.clone()));
        self.parents.extend(schemas);
    }

    fn alter(&mut self, statement: &Statement) {
        let Some(name) = statement.subject() else {
            return;
        };
        let Some(id) = self.meet(name) else {
            return;
        };
        self.know_parents(id, &statement.names);
        for partner in statement.of_role(Role::ExchangePartner) {
            if let Some(partner) = self.meet(partner) {
                self.links.push(Link::Exchange(id, partner));
            }
        }
        if let Some(new) = statement.of_role(Role::NewName).next() {
            self.rename(name, new);
        }
    }

    fn rename(&mut self, old: &TableName, new: &TableName) {
        let key = self.case.key(old);
        if self.end.views.contains_key(&key) {
            self.change(Change::LeftView(key));
            self.change(Change::MadeView(new.clone()));
            return;
        }
        if self.meet(old).is_none() {
            return;
        }
        if let Some(id) = self.take(old, Fate::Renamed(new.clone())) {
            self.put(new, id);
        }
    }

    fn drop_schema(&mut self, statement: &Statement) {
        let schema = statement.database.as_deref().unwrap_or_default();
        let schema = self.case.fold(schema);
        let tables: Vec<TableName> = self.end.tables.keys().cloned().collect();
        for key in tables.iter().filter(|key| key.database == schema) {
            self.take(key, Fate::SchemaDropped);
        }
        let views: Vec<TableName> = self.end.views.keys().cloned().collect();
        for key in views.into_iter().filter(|key| key.database == schema) {
            self.change(Change::LeftView(key));
        }
        self.change(Change::LeftSchema(schema));
    }
}

impl Life {
    fn new(name: TableName, origin: Origin) -> Self {
        Self {
            schemas: [name.database.clone()].into(),
            first_name: name,
            origin,
        }
    }
}
