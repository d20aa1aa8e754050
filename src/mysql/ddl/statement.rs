//! A statement of the log with every table that it names, and where.
//!
//! This is for statements that are to be run elsewhere under other names (see `rewrite`). The
//! invariant: each name of a table in the text is in [`Statement::names`] with its place, or the statement
//! has a [`Statement::refusal`], or it is not read at all ([`Misunderstood`]). A refusal is no
//! error before somebody wants to run the statement: what it does to names is known nevertheless.
//!
//! What is known of SQL is only where names of tables can stand. In definitions that is behind words
//! that are reserved, so that no column can be taken for one (`REFERENCES`, `RENAME`, `UNION`,
//! `SELECT` ...); whatever else has a dot must be a column of the table itself, or is refused.

mod body;
mod cursor;
mod heads;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::lexer::{Dialect, Misunderstood};

/// The full name of a table, view or trigger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema.
    pub database: String,
    /// The name in it.
    pub table: String,
}

impl TableName {
    /// A name.
    #[must_use]
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            table: table.into(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// Whether names that differ in case are the same (`lower_case_table_names`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameCase {
    /// They are not: 0.
    Distinct,
    /// They are: 1 and 2.
    Folded,
}

impl NameCase {
    /// By the value of `lower_case_table_names`.
    #[must_use]
    pub const fn of(lower_case_table_names: u8) -> Self {
        match lower_case_table_names {
            0 => Self::Distinct,
            _ => Self::Folded,
        }
    }

    /// A name in the form in which names are compared.
    #[must_use]
    pub fn fold(self, name: &str) -> String {
        match self {
            Self::Distinct => name.to_owned(),
            Self::Folded => name.to_lowercase(),
        }
    }

    pub(super) fn same(self, a: &str, b: &str) -> bool {
        match self {
            Self::Distinct => a == b,
            Self::Folded => a.to_lowercase() == b.to_lowercase(),
        }
    }

    pub(super) fn key(self, name: &TableName) -> TableName {
        TableName::new(self.fold(&name.database), self.fold(&name.table))
    }
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// `CREATE TABLE`; its first name is the new one.
    CreateTable {
        /// `IF NOT EXISTS`.
        if_not_exists: bool,
        /// `START TRANSACTION`: the rows follow in the same transaction (`CREATE TABLE ... SELECT`).
        starts_transaction: bool,
    },
    /// `CREATE TEMPORARY TABLE`.
    CreateTemporary,
    /// `DROP TEMPORARY TABLE`.
    DropTemporary,
    /// `ALTER TABLE`; its first name is the table.
    AlterTable,
    /// `DROP TABLE`, of a list.
    DropTable,
    /// `RENAME TABLE`: old and new names by turns, from left to right.
    RenameTable,
    /// `TRUNCATE TABLE`.
    TruncateTable,
    /// `CREATE INDEX`.
    CreateIndex,
    /// `DROP INDEX`.
    DropIndex,
    /// `OPTIMIZE` or `REPAIR TABLE`, of a list.
    Maintain,
    /// `ANALYZE TABLE`, of a list.
    Analyze,
    /// `CREATE TRIGGER`; its name is the table that it is on.
    CreateTrigger,
    /// `DROP TRIGGER`; its name is the trigger.
    DropTrigger,
    /// `CREATE VIEW`; its name is the view. What it reads is not read.
    CreateView,
    /// `DROP VIEW`, of a list.
    DropView,
    /// `CREATE DATABASE`.
    CreateDatabase {
        /// `IF NOT EXISTS`.
        if_not_exists: bool,
    },
    /// `ALTER DATABASE`.
    AlterDatabase,
    /// `DROP DATABASE`.
    DropDatabase,
    /// Something that touches no table: accounts, routines, events, tablespaces, plugins.
    Elsewhere,
    /// The frame of a transaction: `BEGIN`, `COMMIT`, `SAVEPOINT`, `XA` and their like.
    Frame,
    /// A change of rows logged as a statement. Which tables it touches is not read.
    Rows,
}

impl StatementKind {
    /// Whether it is of a kind that is run in staging schemas.
    pub(super) const fn is_staged(self) -> bool {
        matches!(
            self,
            Self::CreateTable { .. }
                | Self::AlterTable
                | Self::DropTable
                | Self::RenameTable
                | Self::TruncateTable
                | Self::CreateIndex
                | Self::DropIndex
                | Self::Maintain
                | Self::Analyze
                | Self::CreateDatabase { .. }
                | Self::AlterDatabase
                | Self::DropDatabase
        )
    }
}

/// What a name does in its statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What the statement is on; in a `RENAME`, the old name.
    Subject,
    /// The name that a `RENAME` gives.
    NewName,
    /// The table that `LIKE` copies the definition of.
    LikeSource,
    /// The table that a foreign key refers to.
    Parent,
    /// The other table of `EXCHANGE PARTITION`.
    ExchangePartner,
    /// The qualifier of a column of the table itself, in an expression (`db.table.column`).
    ColumnOf,
}

/// A name in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameUse {
    /// What it does there.
    pub role: Role,
    /// The name, with the schema that it has by default.
    pub name: TableName,
    /// Where its schema stands, if it does.
    pub(super) database_span: Option<Range<usize>>,
    /// Where the name itself stands.
    pub(super) table_span: Range<usize>,
}

/// Why a statement cannot be run under other names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The content of the new table comes out of a query.
    #[error("it takes rows from a query (the source's binlog_format was not ROW)")]
    Query,
    /// A table that is made of others.
    #[error("its table is of the {0} engine, whose rows are not its own")]
    ForeignRows(&'static str),
    /// The content comes out of a file of the source's host.
    #[error("it takes rows from a tablespace file")]
    Tablespace,
    /// Something with a dot, or a keyword in an unknown place.
    #[error(transparent)]
    Unknown(#[from] Misunderstood),
}

/// A statement that was understood as far as the names of tables go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it does.
    pub kind: StatementKind,
    /// The tables that it names, in the order of the text.
    pub names: Vec<NameUse>,
    /// The schema that it is about, of a statement on a schema.
    pub database: Option<String>,
    /// Why it cannot be run under other names, if so.
    pub refusal: Option<Refusal>,
    pub(super) text: Vec<u8>,
    pub(super) dialect: Dialect,
    /// Where the schema's name stands, of a statement on a schema; empty, and where it can be put, if
    /// it is the default one.
    pub(super) database_span: Range<usize>,
}

impl Refusal {
    const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

impl Statement {
    /// Reads a statement, whose default schema is `database`, compared under `case`.
    ///
    /// The default schema is that of the QUERY event, also if its flags say that it is not to be used:
    /// `ALTER DATABASE` may name none and means that one.
    ///
    /// # Errors
    ///
    /// [`Misunderstood`] if not even what it does to which tables is understood.
    pub fn parse(
        text: &[u8],
        database: Option<&str>,
        dialect: &Dialect,
        case: NameCase,
    ) -> Result<Self, Misunderstood> {
        heads::read(text, database, dialect, case)
    }

    /// The text, in the character set of its session.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The names of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &TableName> {
        let names = self.names.iter().filter(move |found| found.role == role);
        names.map(|found| &found.name)
    }

    /// The first name: the table of a statement on one table.
    #[must_use]
    pub fn subject(&self) -> Option<&TableName> {
        self.of_role(Role::Subject).next()
    }
}
