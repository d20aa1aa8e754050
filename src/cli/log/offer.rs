//! The restore that brings back what a transaction took.

use super::super::context::Context;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::Repository;
use crate::archive::segment::IndexedTransaction;
use crate::gtid::Gtid;
use crate::mysql::ddl::{Ddl, DdlKind};

/// What is offered at the end: for the only transaction shown, or for the most destructive one.
#[derive(Debug)]
pub(super) struct Offer {
    /// The history, if it is not the newest.
    branch: Option<BranchNumber>,
    is_json: bool,
    best: Option<Best>,
}

/// The transaction that the offer is for.
#[derive(Debug)]
struct Best {
    harm: Harm,
    gtid: Gtid,
    /// It, in short.
    what: String,
    /// What brings only its tables back, if those can be named.
    tables: Option<String>,
}

/// So many tables are named in an offer.
const TABLES: usize = 5;
/// The schema that tables are offered to be restored into where they are still there themselves.
const BESIDE: &str = "restored";

/// How much a transaction destroys; the order is from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// It takes nothing away.
    None,
    /// It overwrites so many rows.
    Overwrites(u64),
    /// It changes a schema.
    Alters,
    /// It deletes so many rows.
    Deletes(u64),
    /// It takes columns or partitions away.
    Shrinks,
    /// It empties or drops tables.
    Empties,
    /// It drops a schema.
    DropsSchema,
}

impl Offer {
    pub(super) const fn new(context: &Context, branch: Option<BranchNumber>) -> Self {
        Self {
            branch,
            is_json: context.json,
            best: None,
        }
    }

    /// Looks at a transaction that is shown. Of two that destroy as much the later one counts.
    pub(super) fn take(&mut self, transaction: &IndexedTransaction) {
        if self.is_json {
            return;
        }
        let harm = Harm::of(transaction);
        if self.best.as_ref().is_none_or(|best| harm >= best.harm) {
            self.best = Some(Best {
                harm,
                gtid: transaction.gtid.clone(),
                what: transaction.summary.brief(),
                tables: only_tables(transaction),
            });
        }
    }

    /// The lines to show behind `found` transactions.
    pub(super) fn lines(&self, repository: &Repository, found: u64) -> Vec<String> {
        let Some(best) = &self.best else {
            return Vec::new();
        };
        let Best { gtid, what, .. } = best;
        if found > 1 && best.harm == Harm::None {
            return Vec::new();
        }
        let which = match found {
            1 => "it".to_owned(),
            _ => format!("the most destructive one, {what}"),
        };
        let archive = quoted(&repository.storage().url());
        let branch = match self.branch {
            Some(branch) => format!(" --branch {}", branch.0),
            None => String::new(),
        };
        let to = "--to mysql://user@new-server:3306";
        let restore = format!("  quillback restore --archive {archive}{branch}");
        let mut lines = vec![
            format!("to restore to just before {which}:"),
            format!("{restore} --before-gtid {gtid} {to}"),
            "with all that came since, but without it:".to_owned(),
            format!("{restore} --until latest --skip-gtid {gtid} {to}"),
        ];
        if let Some(tables) = &best.tables {
            lines.push("only what it changed, as it was, on the server in use:".to_owned());
            lines.push(format!(
                "{restore} {tables} --before-gtid {gtid} --to mysql://user@server:3306"
            ));
        }
        lines
    }
}

/// The options that bring back the tables that a transaction took something from, and only those:
/// under their own names if it dropped them, else into a schema beside them.
fn only_tables(transaction: &IndexedTransaction) -> Option<String> {
    let summary = &transaction.summary;
    let statement = summary.statement.as_deref();
    let ddl = Ddl::parse(
        summary.schema.as_deref().unwrap_or_default(),
        statement.unwrap_or_default(),
    );
    let (names, are_gone) = match &ddl {
        Some(ddl) => match &ddl.verb[..] {
            "DROP DATABASE" | "DROP TABLE" => (names(ddl), true),
            "TRUNCATE TABLE" | "ALTER TABLE" => (names(ddl), false),
            _ => return None,
        },
        None => {
            let lost = summary.tables.iter().filter(|table| {
                let rows = table.rows.as_ref();
                rows.is_some_and(|rows| rows.delete > 0 || rows.update > 0)
            });
            (lost.map(|table| table.name.clone()).collect(), false)
        }
    };
    let is_plain = |name: &String| {
        name.chars()
            .all(|c| c.is_alphanumeric() || "_$.*-".contains(c))
    };
    if names.is_empty() || names.len() > TABLES || !names.iter().all(is_plain) {
        return None;
    }
    let tables = format!("--tables {}", quoted(&names.join(",")));
    Some(match are_gone {
        true => tables,
        false => format!("{tables} --into-schema {BESIDE}"),
    })
}

/// The tables of a statement as `--tables` takes them.
fn names(ddl: &Ddl) -> Vec<String> {
    let names = ddl.names.iter();
    names
        .map(|name| match &name.table {
            Some(_) => name.to_string(),
            None => format!("{name}.*"),
        })
        .collect()
}

impl Harm {
    fn of(transaction: &IndexedTransaction) -> Self {
        let summary = &transaction.summary;
        let counts = |of: fn(&crate::mysql::binlog::RowCounts) -> u64| -> u64 {
            let tables = summary
                .tables
                .iter()
                .filter_map(|table| table.rows.as_ref());
            tables.map(of).fold(0, u64::saturating_add)
        };
        let by_rows = match (counts(|rows| rows.delete), counts(|rows| rows.update)) {
            (0, 0) => Self::None,
            (0, updated) => Self::Overwrites(updated),
            (deleted, _) => Self::Deletes(deleted),
        };
        let schema = summary.schema.as_deref().unwrap_or_default();
        let statement = summary.statement.as_deref();
        let ddl = statement.and_then(|text| Ddl::parse(schema, text));
        let by_statement = match &ddl {
            None => Self::None,
            Some(ddl) => match (&ddl.verb[..], ddl.kind) {
                ("DROP DATABASE", _) => Self::DropsSchema,
                ("DROP TABLE" | "TRUNCATE TABLE", _) => Self::Empties,
                ("ALTER TABLE", _) if shrinks(statement.unwrap_or_default()) => Self::Shrinks,
                (verb, _) if verb.starts_with("CREATE") => Self::None,
                (_, DdlKind::Table | DdlKind::Database) => Self::Alters,
                (verb, _) if verb.starts_with("DROP") => Self::Alters,
                _ => Self::None,
            },
        };
        by_rows.max(by_statement)
    }
}

/// Whether an ALTER TABLE takes something away that holds data.
fn shrinks(statement: &str) -> bool {
    let upper = statement.to_ascii_uppercase();
    let words: Vec<&str> = upper
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(2).any(|pair| match pair {
        ["TRUNCATE", "PARTITION"] => true,
        ["DROP", what] => !matches!(
            *what,
            "INDEX" | "KEY" | "FOREIGN" | "CONSTRAINT" | "CHECK" | "PRIMARY" | "DEFAULT"
        ),
        _ => false,
    })
}

/// A text as a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-=%+@~,".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::{RowCounts, Summary, TableTouch};

    fn harm(statement: &str, deleted: u64) -> Harm {
        Harm::of(&transaction(statement, deleted))
    }

    fn transaction(statement: &str, deleted: u64) -> IndexedTransaction {
        let rows = RowCounts {
            delete: deleted,
            ..RowCounts::default()
        };
        IndexedTransaction {
            gtid: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
                .parse()
                .expect("a GTID"),
            time: chrono::DateTime::UNIX_EPOCH,
            original_time: None,
            server_id: 1,
            bytes: 1,
            summary: Summary {
                statement: (!statement.is_empty()).then(|| statement.to_owned()),
                tables: vec![TableTouch {
                    name: "a.t".to_owned(),
                    operations: Vec::new(),
                    bytes: 1,
                    rows: Some(rows),
                }],
                ..Summary::default()
            },
        }
    }

    #[test]
    fn the_worse_comes_behind_the_better() {
        let order = [
            harm("CREATE TABLE t (a INT)", 0),
            harm("ALTER TABLE t ADD b INT", 0),
            harm("", 1),
            harm("", 1_000_000),
            harm("ALTER TABLE t DROP COLUMN b", 0),
            harm("TRUNCATE t", 0),
            harm("DROP DATABASE d", 0),
        ];
        assert!(order.is_sorted_by(|one, next| one < next), "{order:?}");
        assert_eq!(harm("ALTER TABLE t DROP INDEX i", 0), Harm::Alters);
        assert_eq!(harm("ALTER TABLE t TRUNCATE PARTITION p", 0), Harm::Shrinks);
        assert_eq!(harm("DROP TABLE t", 0), harm("TRUNCATE TABLE t", 0));
    }

    #[test]
    fn tables_come_back_alone_under_names_that_are_free() {
        for (statement, deleted, expected) in [
            ("DROP TABLE a.t, `b`.u", 0, Some("--tables a.t,b.u")),
            ("DROP DATABASE a", 0, Some("--tables 'a.*'")),
            (
                "TRUNCATE a.t",
                0,
                Some("--tables a.t --into-schema restored"),
            ),
            ("", 7, Some("--tables a.t --into-schema restored")),
            ("", 0, None),
            ("CREATE TABLE a.t (id INT)", 0, None),
            ("DROP TABLE a.`odd,name`", 0, None),
            ("DROP USER u", 0, None),
        ] {
            let found = only_tables(&transaction(statement, deleted));
            assert_eq!(found.as_deref(), expected, "{statement}");
        }
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("s3://bucket/a-b_c"), "s3://bucket/a-b_c");
        assert_eq!(quoted("file:///a b"), "'file:///a b'");
        assert_eq!(quoted("file:///it's"), "'file:///it'\\''s'");
    }
}
