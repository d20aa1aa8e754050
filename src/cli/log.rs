//! `quillback log`: which transaction did it.

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::parse_moment;
use crate::archive::catalog::{AcceptedGap, Problem};
use crate::archive::history::{History, Member};
use crate::archive::layout::BranchNumber;
use crate::archive::segment::IndexedTransaction;
use crate::error::Class;
use crate::gtid::GtidSet;

/// The options of `log`.
#[derive(Debug, Args)]
pub(super) struct LogArguments {
    /// Only transactions committed at or after this moment.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only transactions committed at or before this moment.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only transactions that touched this table, db.table; "db.*" takes all of a schema.
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only these transactions.
    #[arg(long, value_name = "SET")]
    gtid: Option<GtidSet>,
    /// Only statements, or only changes of rows.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only statements that hold this text, whatever its case.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only the last N of those found.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// The history to read, if not the newest.
    #[arg(long, value_name = "N")]
    branch: Option<u32>,
}

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A statement: DDL, accounts.
    Ddl,
    /// Changes of rows.
    Dml,
}

/// What is looked for.
#[derive(Debug)]
struct Filter {
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    table: Option<String>,
    gtid: Option<GtidSet>,
    kind: Option<Kind>,
    grep: Option<String>,
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    transaction: &'a IndexedTransaction,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ddl: Option<&'a str>,
    source: Option<uuid::Uuid>,
    segment: String,
}

/// A line of `--json` for transactions that are missing for ever.
#[derive(Debug, Serialize)]
struct GapLine<'a> {
    kind: &'static str,
    #[serde(flatten)]
    gap: &'a AcceptedGap,
}

pub(super) async fn run(context: &Context, arguments: LogArguments) -> anyhow::Result<Done> {
    let filter = Filter::new(&arguments)?;
    let repository = context.repository().await?;
    let branch = match arguments.branch {
        Some(number) => BranchNumber(number),
        None => repository.newest_branch().await?,
    };
    let history = repository.history(branch).await?;
    let mut found = 0_u64;
    let mut last_statement: Option<IndexedTransaction> = None;
    let mut kept = std::collections::VecDeque::new();
    for member in &history.members {
        if arguments.last.is_none() && filter.is_open() {
            print_gaps(context, &history.gaps, member);
        }
        if !filter.may_match(member) {
            continue;
        }
        let lines = repository.read_transactions(&member.stored).await?;
        for transaction in member.own_lines(lines) {
            if !filter.matches(&transaction) {
                continue;
            }
            found += 1;
            if transaction.summary.statement.is_some() {
                last_statement = Some(transaction.clone());
            }
            match arguments.last {
                None => print(context, member, &transaction),
                Some(limit) => {
                    kept.push_back((member, transaction));
                    if kept.len() > limit {
                        kept.pop_front();
                    }
                }
            }
        }
    }
    for (member, transaction) in &kept {
        print(context, member, transaction);
    }
    tell_end(context, &history, found, last_statement.as_ref());
    let is_unreadable = |p: &Problem| matches!(p, Problem::Unreadable { .. });
    Ok(if history.problems.iter().any(is_unreadable) {
        Done::With(Class::Integrity)
    } else {
        Done::Fine
    })
}

/// The accepted gaps before a segment: where the log goes on, transactions are missing for ever.
fn print_gaps(context: &Context, gaps: &[AcceptedGap], member: &Member) {
    let key = member.stored.name.key();
    for gap in gaps.iter().filter(|gap| gap.segment == key) {
        if context.json {
            render::data(&GapLine { kind: "gap", gap });
        } else {
            render::say(&format!("-- no segment holds {gap}"));
        }
    }
}

fn print(context: &Context, member: &Member, transaction: &IndexedTransaction) {
    let segment = &member.stored;
    let statement = transaction.summary.statement.as_deref();
    if context.json {
        render::data(&Line {
            transaction,
            kind: if statement.is_some() { "ddl" } else { "dml" },
            ddl: statement,
            source: segment.index.source.as_ref().map(|source| source.uuid),
            segment: segment.name.key(),
        });
    } else {
        render::say(&format!(
            "{}  {}  {:>9}  {}",
            crate::clock::rfc3339(transaction.time),
            transaction.gtid,
            render::bytes(transaction.bytes),
            transaction.summary.brief()
        ));
    }
}

fn tell_end(
    context: &Context,
    history: &History,
    found: u64,
    last_statement: Option<&IndexedTransaction>,
) {
    if context.json {
        return;
    }
    let held = history.transactions();
    context.talk(&format!(
        "{} of {} archived{}",
        render::plural(found, "transaction"),
        render::count(held),
        history.complete_to().map_or_else(String::new, |to| format!(
            ", complete to {}",
            crate::clock::rfc3339(to)
        ))
    ));
    for problem in &history.problems {
        render::talk(&format!("warning: {problem}"));
    }
    if let Some(statement) = last_statement {
        context.talk(&format!(
            "to restore to just before the last statement shown:\n  quillback restore --before-gtid {} --to mysql://user@new-server:3306",
            statement.gtid
        ));
    }
}

impl Filter {
    fn new(arguments: &LogArguments) -> anyhow::Result<Self> {
        let moment = |text: &Option<String>| -> anyhow::Result<Option<DateTime<Utc>>> {
            text.as_deref()
                .map(|text| {
                    parse_moment(text).map_err(|error| {
                        UsageError::new(error, "--since 2026-11-20T14:30:00Z").into()
                    })
                })
                .transpose()
        };
        Ok(Self {
            since: moment(&arguments.since)?,
            until: moment(&arguments.until)?,
            table: arguments.table.clone(),
            gtid: arguments.gtid.clone(),
            kind: arguments.kind,
            grep: arguments.grep.as_ref().map(|text| text.to_lowercase()),
        })
    }

    /// Whether all transactions are asked for, so that gaps between them are of interest too.
    const fn is_open(&self) -> bool {
        self.gtid.is_none() && self.table.is_none() && self.kind.is_none() && self.grep.is_none()
    }

    /// Whether a segment can hold what is looked for, by its index alone.
    fn may_match(&self, member: &Member) -> bool {
        let index = &member.stored.index;
        if member.transactions == 0 {
            return false;
        }
        // Commit times are in order within a source except for steps of its clock, and then
        // `first_commit` may not be the least: only the greatest is safe to compare.
        if self
            .since
            .is_some_and(|since| member.last_commit < Some(since))
        {
            return false;
        }
        if self
            .gtid
            .as_ref()
            .is_some_and(|set| member.added.is_disjoint(set))
        {
            return false;
        }
        if (self.kind == Some(Kind::Ddl) || self.grep.is_some()) && !index.statements {
            return false;
        }
        match &self.table {
            Some(table) if !index.tables_incomplete && !index.statements => {
                index.tables.iter().any(|name| is_table(name, table))
            }
            _ => true,
        }
    }

    fn matches(&self, transaction: &IndexedTransaction) -> bool {
        let summary = &transaction.summary;
        let statement = summary.statement.as_deref();
        self.since.is_none_or(|since| transaction.time >= since)
            && self.until.is_none_or(|until| transaction.time <= until)
            && self
                .gtid
                .as_ref()
                .is_none_or(|set| set.contains(&transaction.gtid))
            && match self.kind {
                None => true,
                Some(Kind::Ddl) => statement.is_some(),
                Some(Kind::Dml) => statement.is_none(),
            }
            && self.grep.as_ref().is_none_or(|text| {
                statement.is_some_and(|statement| statement.to_lowercase().contains(text))
            })
            && self.table.as_ref().is_none_or(|table| {
                summary.tables.iter().any(|t| is_table(&t.name, table))
                    || statement.is_some_and(|statement| names(statement, table))
            })
    }
}

/// Whether `name` (`db.table`) is what `wanted` asks for.
fn is_table(name: &str, wanted: &str) -> bool {
    match wanted.strip_suffix(".*") {
        Some(schema) => name.split_once('.').is_some_and(|(s, _)| s == schema),
        None => name == wanted,
    }
}

/// Whether a statement's text names the table; a statement is not parsed, so this may find more.
fn names(statement: &str, wanted: &str) -> bool {
    let (schema, table) = wanted.split_once('.').unwrap_or(("", wanted));
    let word = if table == "*" { schema } else { table };
    statement
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .any(|part| part.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_in_rows_and_in_statements() {
        assert!(is_table("sin_pluma.page", "sin_pluma.page"));
        assert!(is_table("sin_pluma.page", "sin_pluma.*"));
        assert!(!is_table("sin_pluma.page", "sin_pluma.pages"));
        assert!(names(
            "DROP TABLE `sin_pluma`.`page` /* x */",
            "sin_pluma.page"
        ));
        assert!(!names("DROP TABLE pages", "sin_pluma.page"));
    }
}
