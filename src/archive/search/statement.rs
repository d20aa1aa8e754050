//! What a logged statement is, and whether it concerns a table.

use crate::mysql::binlog::Summary;
use crate::mysql::ddl::{Ddl, DdlKind};
use crate::mysql::schema::Filter as Tables;

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A statement that changes the schema or accounts, or administers the server.
    Ddl,
    /// Changes of rows, logged as rows or as a statement.
    Dml,
}

/// What a transaction does; `CREATE TABLE ... SELECT` does both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// It has a statement that is not one of rows.
    pub ddl: bool,
    /// It changes rows.
    pub dml: bool,
}

impl Kinds {
    /// What a transaction does, by its line.
    #[must_use]
    pub fn of(summary: &Summary) -> Self {
        let statement = summary.statement.as_deref();
        let of_rows = statement.is_some_and(changes_rows);
        Self {
            ddl: statement.is_some() && !of_rows,
            dml: of_rows || !summary.tables.is_empty(),
        }
    }

    pub(super) const fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Ddl => self.ddl,
            Kind::Dml => self.dml,
        }
    }
}

/// Whether a statement changes rows, by its first word.
fn changes_rows(text: &str) -> bool {
    let mut rest = text.trim_start();
    while let Some(comment) = rest.strip_prefix("/*").filter(|c| !c.starts_with('!')) {
        let Some(end) = comment.find("*/") else {
            return false;
        };
        rest = comment[end + 2..].trim_start();
    }
    let word = rest
        .split(|c: char| !c.is_ascii_alphabetic())
        .next()
        .unwrap_or_default();
    [
        "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH", "CALL", "DO",
    ]
    .iter()
    .any(|verb| word.eq_ignore_ascii_case(verb))
}

/// Whether a statement concerns one of the tables; where it cannot be told, it may.
pub(super) fn concerns(summary: &Summary, tables: &Tables) -> bool {
    let Some(text) = summary.statement.as_deref() else {
        return false;
    };
    let schema = summary.schema.as_deref().unwrap_or_default();
    match Ddl::parse(schema, text) {
        Some(ddl) if ddl.kind == DdlKind::Table => {
            // A list of names may go on where the text was cut.
            let is_cut_list =
                summary.incomplete && matches!(&ddl.verb[..], "DROP TABLE" | "RENAME TABLE");
            ddl.names.is_empty()
                || is_cut_list
                || ddl.names.iter().any(|name| {
                    let table = name.table.as_deref().unwrap_or_default();
                    tables.passes(&name.database, table)
                })
        }
        Some(ddl) if ddl.kind == DdlKind::Database => ddl.names.iter().any(|name| {
            // A schema that goes takes its tables with it; one that comes has none.
            ddl.verb == "DROP DATABASE" && tables.passes_database(&name.database)
                || of_schemas(tables, &name.database)
        }),
        _ => mentions(text, schema, tables),
    }
}

/// Whether all of a schema is asked for: `shop` or `shop.*`.
fn of_schemas(tables: &Tables, schema: &str) -> bool {
    tables.include.iter().any(|pattern| {
        pattern.hits(schema, None)
            || pattern.to_string().ends_with(".*") && pattern.hits(schema, Some(""))
    })
}

/// Whether a statement that is not understood names one of the tables (views, triggers, routines,
/// grants, statements on rows).
fn mentions(text: &str, schema: &str, tables: &Tables) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let words: Vec<(usize, &str)> = text
        .split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
        .collect();
    let literal = |pattern: &str| !pattern.contains(['*', '?']);
    words.iter().enumerate().any(|(at, (start, word))| {
        let qualified = at.checked_sub(1).is_some_and(|before| {
            let (from, qualifier) = words[before];
            let between = &text[from + qualifier.len()..*start];
            let is_dot = between.chars().all(|c| matches!(c, '.' | '`' | '"' | ' '))
                && between.contains('.');
            is_dot && tables.passes(qualifier, word)
        });
        // A name alone is one of the default schema; patterns would take any word for one.
        qualified
            || tables.include.iter().any(|pattern| {
                let text = pattern.to_string();
                text.split_once('.').is_some_and(|(database, table)| {
                    literal(table)
                        && word.eq_ignore_ascii_case(table)
                        && (schema.is_empty()
                            || !literal(database)
                            || schema.eq_ignore_ascii_case(database)
                            || tables.passes(schema, word))
                })
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(schema: &str, text: &str) -> Summary {
        Summary {
            statement: Some(text.to_owned()),
            schema: Some(schema.to_owned()),
            ..Summary::default()
        }
    }

    #[test]
    fn statements_are_told_apart() {
        for (text, ddl) in [
            ("DROP TABLE t", true),
            ("/* x */ INSERT INTO t VALUES (1)", false),
            ("update t set a = 1", false),
            ("CREATE USER a", true),
            ("ANALYZE TABLE t", true),
            ("/*!80000 DROP */ TABLE t", true),
            ("/* never closed", true),
        ] {
            let kinds = Kinds::of(&summary("d", text));
            assert_eq!((kinds.ddl, kinds.dml), (ddl, !ddl), "{text}");
        }
    }

    #[test]
    fn statements_concern_the_tables_that_they_name() {
        let of = |patterns: &[&str]| Tables {
            include: patterns
                .iter()
                .map(|text| text.parse().expect("a pattern"))
                .collect(),
            exclude: Vec::new(),
        };
        for (schema, text, pattern, expected) in [
            ("", "DROP TABLE `shop`.`page` /* x */", "shop.page", true),
            ("shop", "DROP TABLE pages", "shop.page", false),
            ("shop", "DROP TABLE a, page", "shop.page", true),
            ("shop", "TRUNCATE page", "*.page", true),
            ("other", "TRUNCATE page", "shop.page", false),
            ("other", "DROP DATABASE shop", "shop.page", true),
            ("other", "DROP DATABASE shop2", "shop.page", false),
            ("other", "CREATE DATABASE shop", "shop.page", false),
            ("other", "CREATE DATABASE shop", "shop.*", true),
            ("other", "ALTER DATABASE shop COLLATE x", "shop", true),
            (
                "shop",
                "CREATE VIEW v AS SELECT * FROM page",
                "shop.page",
                true,
            ),
            (
                "x",
                "CREATE VIEW v AS SELECT * FROM `shop`.`page`",
                "shop.page",
                true,
            ),
            (
                "x",
                "CREATE VIEW v AS SELECT * FROM shop.page",
                "shop.p*",
                true,
            ),
            ("shop", "CREATE USER a", "shop.*", false),
            ("shop", "GRANT SELECT ON shop.page TO a", "shop", true),
            ("shop", "DROP TABLE 'x'", "other.t", true),
        ] {
            let said = concerns(&summary(schema, text), &of(&[pattern]));
            assert_eq!(said, expected, "{text} {pattern}");
        }
        let mut cut = summary("shop", "DROP TABLE a, b");
        cut.incomplete = true;
        assert!(concerns(&cut, &of(&["shop.z"])));
    }
}
