//! Statements run under other names: each schema has a staging schema that stands for it.
//!
//! A table keeps its own name and is in the staging schema of the schema that it would be in; a
//! RENAME is run there too. So the names that MySQL makes out of a table's (`pages_ibfk_1`,
//! `pages_chk_1`) are those of the source, a column's `table.column` stays right, names that are
//! unique in a schema stay so, and only schemas are put into a statement. The invariant: what comes
//! out of here was read again, and names nothing but staging schemas.

use std::collections::BTreeMap;
use std::ops::Range;

use super::lexer::Misunderstood;
use super::statement::{NameCase, NameUse, Refusal, Role, Statement, StatementKind, TableName};
use crate::mysql::quote;

/// Which staging schema stands for which schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    case: NameCase,
    /// By the folded name.
    schemas: BTreeMap<String, String>,
}

/// The schemas cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two schemas have the staging schema {0}, or it is one of them")]
pub struct StagingClash(pub String);

impl Staging {
    /// Takes pairs of a schema and its staging schema.
    ///
    /// # Errors
    ///
    /// [`StagingClash`] if a staging schema is given twice, or is one of the schemas that it stands for.
    pub fn new(
        pairs: impl IntoIterator<Item = (String, String)>,
        case: NameCase,
    ) -> Result<Self, StagingClash> {
        let mut schemas: BTreeMap<String, String> = BTreeMap::new();
        for (schema, staged) in pairs {
            let is_taken = schemas
                .iter()
                .any(|(known, other)| case.same(other, &staged) && *known != case.fold(&schema));
            if is_taken {
                return Err(StagingClash(staged));
            }
            schemas.insert(case.fold(&schema), staged);
        }
        let is_own = |staged: &&String| schemas.contains_key(&case.fold(staged));
        match schemas.values().find(is_own) {
            Some(staged) => Err(StagingClash(staged.clone())),
            None => Ok(Self { case, schemas }),
        }
    }

    /// The staging schema of a schema.
    #[must_use]
    pub fn schema(&self, schema: &str) -> Option<&str> {
        self.schemas
            .get(&self.case.fold(schema))
            .map(String::as_str)
    }

    /// Where a table of this name is.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<TableName> {
        let database = self.schema(&name.database)?;
        Some(TableName::new(database, &name.table))
    }

    fn is_staging(&self, schema: &str) -> bool {
        self.schemas.values().any(|staged| staged == schema)
    }
}

/// A statement for the staging schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedStatement {
    /// The text, in the character set of the statement's session.
    pub text: Vec<u8>,
    /// The default schema to run it under; none for a statement on a schema.
    pub schema: Option<String>,
    /// It starts a transaction, which the rows and the COMMIT that follow in the log end.
    pub starts_transaction: bool,
}

/// Why a statement cannot be run in the staging schemas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// It does something that cannot be done under other names.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It names a schema that has no staging schema.
    #[error("it names {0}, whose schema has no staging schema")]
    NoStaging(TableName),
    /// As [`StageError::NoStaging`], of a statement on a schema.
    #[error("the schema {0} has no staging schema")]
    NoStagingSchema(String),
    /// It is not a statement on tables or schemas.
    #[error("it is no statement on tables")]
    NotOfTables,
    /// It changes rows, and was logged as a statement.
    #[error("it changes rows as a statement (the source's binlog_format was not ROW)")]
    Rows,
    /// A temporary table has the name of a table that is followed, and hides it.
    #[error("a temporary table hides {0}")]
    Hidden(TableName),
    /// It takes the definition of, or partitions from, a table whose content is not known.
    #[error("{table} comes out of {other}, which was not in the snapshot")]
    NotFollowed {
        /// The table that is wanted.
        table: TableName,
        /// The one that it needs.
        other: TableName,
    },
    /// The staging schema's name cannot be written in the statement's character set.
    #[error("the name {0:?} cannot be written in the statement's character set")]
    Charset(String),
    /// What came out is not what was meant: a mistake here.
    #[error("rewritten, it would read {text:?}, which is not the same: {reason}")]
    Changed {
        /// The text that was not run.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<Misunderstood> for StageError {
    fn from(error: Misunderstood) -> Self {
        Self::Refused(Refusal::Unknown(error))
    }
}

impl Statement {
    /// The statement for the staging schemas, with all tables that it names: those of a list must all be
    /// followed, else see [`Lineage::stage`](super::lineage::Lineage::stage).
    ///
    /// # Errors
    ///
    /// [`StageError`].
    pub fn staged(&self, staging: &Staging) -> Result<StagedStatement, StageError> {
        self.staged_with(staging, |_| true)
    }

    /// As [`Statement::staged`], with only those of a list that are asked for by their place in
    /// [`Statement::names`]; of a RENAME, by the place of the old name.
    pub(super) fn staged_with(
        &self,
        staging: &Staging,
        keeps: impl Fn(usize) -> bool,
    ) -> Result<StagedStatement, StageError> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().into());
        }
        if !self.kind.is_staged() {
            return Err(StageError::NotOfTables);
        }
        let kept: Vec<&NameUse> = match self.kind {
            StatementKind::DropTable => {
                let names = self.names.iter().enumerate();
                names.filter(|(at, _)| keeps(*at)).map(|(_, n)| n).collect()
            }
            StatementKind::RenameTable => {
                let names = self.names.iter().enumerate();
                let names = names.filter(|(at, _)| keeps(at - at % 2));
                names.map(|(_, found)| found).collect()
            }
            _ => self.names.iter().collect(),
        };
        let mut quoted = Vec::new();
        for found in &kept {
            let staged = staging.table(&found.name);
            let staged = staged.ok_or_else(|| StageError::NoStaging(found.name.clone()))?;
            quoted.push(quote::qualified(&staged.database, &staged.table));
        }
        let text = match self.kind {
            // Nothing of their texts is needed but the names.
            StatementKind::DropTable => format!("DROP TABLE {}", quoted.join(", ")).into_bytes(),
            StatementKind::TruncateTable => {
                format!("TRUNCATE TABLE {}", quoted.join(", ")).into_bytes()
            }
            StatementKind::RenameTable => {
                let pairs: Vec<String> = quoted.chunks(2).map(|pair| pair.join(" TO ")).collect();
                format!("RENAME TABLE {}", pairs.join(", ")).into_bytes()
            }
            _ => self.with_schemas(staging)?,
        };
        let schema = kept
            .first()
            .and_then(|found| staging.schema(&found.name.database));
        let staged = StagedStatement {
            text,
            schema: schema.map(ToOwned::to_owned),
            starts_transaction: matches!(
                self.kind,
                StatementKind::CreateTable {
                    starts_transaction: true,
                    ..
                }
            ),
        };
        self.check(&staged, &kept, staging)?;
        Ok(staged)
    }

    /// The text with staging schemas in the place of schemas, and nothing else changed but quotes.
    fn with_schemas(&self, staging: &Staging) -> Result<Vec<u8>, StageError> {
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        for found in &self.names {
            let schema = staging.schema(&found.name.database);
            let schema = schema.ok_or_else(|| StageError::NoStaging(found.name.clone()))?;
            // The name is put in backticks too: behind some, `.2024_log` would be a number.
            let table = quote::identifier(&found.name.table);
            let schema = quote::identifier(schema);
            match &found.database_span {
                Some(span) => {
                    edits.push((span.clone(), schema));
                    edits.push((found.table_span.clone(), table));
                }
                None => edits.push((found.table_span.clone(), format!("{schema}.{table}"))),
            }
        }
        if let Some(database) = &self.database {
            let schema = staging.schema(database);
            let schema = schema.ok_or_else(|| StageError::NoStagingSchema(database.clone()))?;
            let space = if self.database_span.is_empty() {
                " "
            } else {
                ""
            };
            let quoted = format!("{}{space}", quote::identifier(schema));
            edits.push((self.database_span.clone(), quoted));
        }
        edits.sort_by_key(|(span, _)| span.start);
        let mut text = Vec::with_capacity(self.text.len() + 40 * edits.len());
        let mut at = 0;
        for (span, new) in edits {
            if !new.is_ascii() && self.dialect.charset() != super::lexer::Charset::Utf8 {
                return Err(StageError::Charset(new));
            }
            text.extend_from_slice(self.text.get(at..span.start).unwrap_or_default());
            text.extend_from_slice(new.as_bytes());
            at = span.end;
        }
        text.extend_from_slice(self.text.get(at..).unwrap_or_default());
        Ok(text)
    }

    /// Reads the new text and compares what it names with what it should.
    fn check(
        &self,
        staged: &StagedStatement,
        kept: &[&NameUse],
        staging: &Staging,
    ) -> Result<(), StageError> {
        let wrong = |reason: &str| StageError::Changed {
            text: String::from_utf8_lossy(&staged.text).into_owned(),
            reason: reason.to_owned(),
        };
        // Without a default schema: nothing may lean on one.
        let again = Self::parse(&staged.text, None, &self.dialect, staging.case);
        let again = again.map_err(|error| wrong(&error.to_string()))?;
        if again.kind != self.kind || again.refusal.is_some() {
            return Err(wrong("it does something else"));
        }
        let expected: Vec<(Role, Option<TableName>)> = kept
            .iter()
            .map(|found| (found.role, staging.table(&found.name)))
            .collect();
        let names: Vec<(Role, Option<TableName>)> = again
            .names
            .iter()
            .map(|found| (found.role, Some(found.name.clone())))
            .collect();
        if names != expected {
            return Err(wrong("it names other tables"));
        }
        let is_staging = |found: &NameUse| staging.is_staging(&found.name.database);
        let schema = again.database.as_deref();
        if !again.names.iter().all(is_staging)
            || schema.is_some_and(|schema| !staging.is_staging(schema))
            || schema != self.database.as_deref().and_then(|own| staging.schema(own))
        {
            return Err(wrong("it is about another schema"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::ddl::Dialect;
    use crate::mysql::version::ServerVersion;

    fn stage(
        text: &[u8],
        sql_mode: u64,
        charset: u16,
        staged: &str,
    ) -> Result<Vec<u8>, StageError> {
        let version = ServerVersion::parse("8.4.6").expect("a version");
        let dialect = Dialect::of_session(sql_mode, charset, version);
        let pairs = [("d", staged), ("x", "s2")];
        let pairs = pairs.map(|(a, b)| (a.to_owned(), b.to_owned()));
        let staging = Staging::new(pairs, NameCase::Distinct).expect("distinct");
        let read = Statement::parse(text, Some("d"), &dialect, NameCase::Distinct)?;
        read.staged(&staging).map(|staged| staged.text)
    }

    #[test]
    fn only_schemas_are_put_into_a_text() {
        for (text, expected) in [
            (
                "CREATE TABLE/**/t(a INT,CHECK(`d` . `t`.a>0))COMMENT='d.t'",
                "CREATE TABLE/**/`s``1`.`t`(a INT,CHECK(`s``1` . `t`.a>0))COMMENT='d.t'",
            ),
            (
                "ALTER TABLE x.`t` RENAME d.`u`, ADD FOREIGN KEY (a) REFERENCES p (b) -- d.x",
                "ALTER TABLE `s2`.`t` RENAME `s``1`.`u`, ADD FOREIGN KEY (a) REFERENCES `s2`.`p` (b) -- d.x",
            ),
            (
                "/*!50000 CREATE */ INDEX i ON d.t (a) /*!80000 INVISIBLE */",
                "/*!50000 CREATE */ INDEX i ON `s``1`.`t` (a) /*!80000 INVISIBLE */",
            ),
            ("TRUNCATE`t`", "TRUNCATE TABLE `s``1`.`t`"),
            (
                "RENAME TABLE t TO x.`żółw`",
                "RENAME TABLE `s``1`.`t` TO `s2`.`żółw`",
            ),
            (
                "ALTER DATABASE COLLATE utf8mb4_bin",
                "ALTER DATABASE `s``1` COLLATE utf8mb4_bin",
            ),
            ("DROP DATABASE d", "DROP DATABASE `s``1`"),
        ] {
            let staged = stage(text.as_bytes(), 0, 45, "s`1").expect(text);
            assert_eq!(String::from_utf8_lossy(&staged), expected);
        }
        let ansi = br#"ALTER TABLE "d"."t" COMMENT "d""#;
        assert!(
            stage(ansi, 4, 45, "s").is_ok(),
            "the comment is a name here, which only the server minds"
        );
        let ansi = br#"ALTER TABLE "d"."t" ADD "d" INT"#;
        assert_eq!(
            stage(ansi, 4, 45, "s").expect("good"),
            br#"ALTER TABLE `s`.`t` ADD "d" INT"#
        );
    }

    #[test]
    fn texts_of_one_byte_characters_keep_their_bytes() {
        let staged = stage(b"ALTER TABLE t COMMENT '\xe9'", 0, 8, "s").expect("good");
        assert_eq!(staged, b"ALTER TABLE `s`.`t` COMMENT '\xe9'");
        assert!(matches!(
            stage(b"ALTER TABLE t COMMENT 'e'", 0, 8, "ż"),
            Err(StageError::Charset(_))
        ));
    }

    #[test]
    fn what_is_not_on_tables_is_not_staged() {
        for text in [
            "CREATE VIEW v AS SELECT 1",
            "DROP TRIGGER g",
            "COMMIT",
            "GRANT a TO b",
        ] {
            assert_eq!(
                stage(text.as_bytes(), 0, 45, "s"),
                Err(StageError::NotOfTables),
                "{text}"
            );
        }
        assert!(matches!(
            stage(b"CREATE TABLE t SELECT 1", 0, 45, "s"),
            Err(StageError::Refused(Refusal::Query))
        ));
    }
}
