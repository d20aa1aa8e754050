//! Which tables become which: the names of a log's tables, from a snapshot to a cut.
//!
//! Each table of the snapshot, and each that is created in the log, has an identity of its own
//! ([`TableId`]) that it keeps under every name; a table that is dropped and made anew is another
//! one. A [`Lineage`] is fed with all statements in their order. Then it is asked for the tables of
//! some patterns at the cut ([`Lineage::choose`]) and told which of them are wanted ([`Lineage::follow`]):
//! that makes known which others these come out of, and so which ones are *followed*, from the
//! snapshot or from their creation on. A walk along the same statements ([`Place`]) says at each
//! moment what a name means, and [`Lineage::stage`] what is to be run for a statement.
//!
//! Renames are really run in the staging schemas (see `staging`), but only those of followed tables. So a
//! staging schema holds, at any moment, the followed tables of its schema under the very names that they
//! had on the source at that moment, and nothing else.

mod place;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::statement::{NameCase, TableName};
use crate::mysql::schema::Pattern;
use place::{Change, Names};
pub use place::{Place, Start};

/// The identity of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub(super) usize);

/// Where a table comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was in the snapshot.
    Snapshot,
    /// A statement made it.
    Created {
        /// The number of the statement.
        statement: usize,
    },
    /// It was not in the snapshot, but there when a statement named it: the snapshot was of a part only.
    Unseen {
        /// The number of the first statement that named it.
        statement: usize,
    },
}

/// How much of a table is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Only its definition: another one is created `LIKE` it. No row of it need be loaded or replayed.
    Structure,
    /// All of it.
    Rows,
}

/// What a name led to, and leads to no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The name.
    pub name: TableName,
    /// What became of it.
    pub fate: Fate,
    /// The number of the statement.
    pub statement: usize,
}

/// What became of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was dropped.
    Dropped,
    /// Its schema was dropped.
    SchemaDropped,
    /// It was given another name.
    Renamed(TableName),
}

/// What a pattern matches at the cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The pattern.
    pub pattern: Pattern,
    /// The tables, by name.
    pub tables: Vec<TableId>,
    /// Views, which have no rows.
    pub views: Vec<TableName>,
    /// Names that were there, and are not at the cut.
    pub gone: Vec<Gone>,
}

/// A schema that tables are followed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedSchema {
    /// Its name.
    pub name: String,
    /// Whether it is there from the snapshot on; else a statement makes it.
    pub from_start: bool,
}

#[derive(Debug, Clone)]
struct Life {
    first_name: TableName,
    origin: Origin,
    /// All schemas that it was ever in.
    schemas: BTreeSet<String>,
}

/// Two tables of which one needs the other.
#[derive(Debug, Clone, Copy)]
enum Link {
    /// The first was created LIKE the second.
    Like(TableId, TableId),
    /// They exchanged rows.
    Exchange(TableId, TableId),
}

/// The names of tables through a log.
#[derive(Debug, Clone)]
pub struct Lineage {
    case: NameCase,
    start: Names,
    end: Names,
    lives: Vec<Life>,
    /// What each statement does to names.
    changes: Vec<Vec<Change>>,
    links: Vec<Link>,
    /// By the folded name.
    gone: BTreeMap<TableName, Gone>,
    /// The schemas that are named by what refers to a table's parents, with the table.
    parents: Vec<(TableId, String)>,
    /// Names of temporary tables, folded.
    temporary: BTreeSet<TableName>,
    needs: BTreeMap<TableId, Need>,
}

impl Lineage {
    /// How many statements it was fed with.
    #[must_use]
    pub const fn statements(&self) -> usize {
        self.changes.len()
    }

    /// What the patterns match at the cut, each by itself.
    #[must_use]
    pub fn choose(&self, patterns: &[Pattern]) -> Vec<Choice> {
        let of = |pattern: &Pattern| {
            // Names are folded where they are compared so.
            let folded = self.case.fold(&pattern.to_string());
            let folded: Pattern = folded.parse().unwrap_or_else(|_| pattern.clone());
            let hits = |key: &TableName| folded.hits(&key.database, Some(&key.table));
            let tables = self.end.tables.iter().filter(|(key, _)| hits(key));
            let views = self.end.views.iter().filter(|(key, _)| hits(key));
            let gone = self.gone.iter().filter(|(key, _)| hits(key));
            Choice {
                pattern: pattern.clone(),
                tables: tables.map(|(_, (_, id))| *id).collect(),
                views: views.map(|(_, name)| name.clone()).collect(),
                gone: gone.map(|(_, gone)| gone.clone()).collect(),
            }
        };
        patterns.iter().map(of).collect()
    }

    /// Follows these tables, and those that they come out of. What was followed before stays so.
    pub fn follow(&mut self, tables: impl IntoIterator<Item = TableId>) {
        for id in tables {
            self.needs.insert(id, Need::Rows);
        }
        let mut is_growing = true;
        while is_growing {
            is_growing = false;
            for link in &self.links {
                let wanted = match *link {
                    Link::Like(new, source) if self.needs.contains_key(&new) => {
                        vec![(source, Need::Structure)]
                    }
                    Link::Like(..) => Vec::new(),
                    Link::Exchange(a, b) => {
                        let need = self.needs.get(&a).max(self.needs.get(&b)).copied();
                        need.map_or_else(Vec::new, |need| vec![(a, need), (b, need)])
                    }
                };
                for (id, need) in wanted {
                    if self.needs.get(&id).is_none_or(|known| *known < need) {
                        self.needs.insert(id, need);
                        is_growing = true;
                    }
                }
            }
        }
    }

    /// What is needed of a table; nothing if it is not followed.
    #[must_use]
    pub fn need(&self, table: TableId) -> Option<Need> {
        self.needs.get(&table).copied()
    }

    /// The followed tables, by identity.
    pub fn followed(&self) -> impl Iterator<Item = (TableId, Need)> {
        self.needs.iter().map(|(id, need)| (*id, *need))
    }

    /// The followed tables that are to be made from the snapshot, with their names in it.
    pub fn from_snapshot(&self) -> impl Iterator<Item = (TableId, &TableName, Need)> {
        self.followed().filter_map(|(id, need)| {
            let life = self.lives.get(id.0)?;
            (life.origin == Origin::Snapshot).then_some((id, &life.first_name, need))
        })
    }

    /// The followed tables that the snapshot does not hold though it should, with their first
    /// names: they cannot be restored from it.
    pub fn unseen(&self) -> impl Iterator<Item = (TableId, &TableName)> {
        self.followed().filter_map(|(id, _)| {
            let life = self.lives.get(id.0)?;
            let is_unseen = matches!(life.origin, Origin::Unseen { .. });
            is_unseen.then_some((id, &life.first_name))
        })
    }

    /// Where a table comes from, and its first name.
    #[must_use]
    pub fn origin(&self, table: TableId) -> Option<(Origin, &TableName)> {
        let life = self.lives.get(table.0)?;
        Some((life.origin, &life.first_name))
    }

    /// A table's name at the cut; none if it is gone by then.
    #[must_use]
    pub fn name_at_cut(&self, table: TableId) -> Option<&TableName> {
        self.end.name_of(table)
    }

    /// The schemas that need a staging schema: those that a followed table is ever in, and those of the
    /// tables that it refers to in the log. Those of [`definition::foreign_keys`] of the snapshot's
    /// tables are the caller's to add.
    ///
    /// [`definition::foreign_keys`]: super::definition::foreign_keys
    #[must_use]
    pub fn schemas(&self) -> Vec<FollowedSchema> {
        let mut schemas: BTreeMap<String, String> = BTreeMap::new();
        let lives = self.followed().filter_map(|(id, _)| self.lives.get(id.0));
        let own = lives.flat_map(|life| life.schemas.iter());
        let parents = self.parents.iter();
        let parents = parents.filter(|(id, _)| self.needs.contains_key(id));
        for name in own.chain(parents.map(|(_, schema)| schema)) {
            schemas.entry(self.case.fold(name)).or_insert(name.clone());
        }
        let from_start = |key: &String| self.start.schemas.contains(key);
        schemas
            .into_iter()
            .map(|(key, name)| FollowedSchema {
                from_start: from_start(&key),
                name,
            })
            .collect()
    }

    /// The state before the first statement.
    #[must_use]
    pub fn beginning(&self) -> Place<'_> {
        Place::new(self)
    }
}
