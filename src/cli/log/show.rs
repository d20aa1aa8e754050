//! A transaction as a line of JSON, or as a tired person reads it.

use chrono::{DateTime, Local, Offset as _, Utc};
use serde::Serialize;

use super::super::context::Context;
use super::super::render;
use crate::archive::catalog::AcceptedGap;
use crate::archive::history::{History, Member};
use crate::archive::layout::BranchNumber;
use crate::archive::search::Kinds;
use crate::archive::segment::IndexedTransaction;
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Operation, Summary, TableTouch};

/// So many characters of a statement are shown.
const STATEMENT_WIDTH: usize = 110;
/// So many tables of a transaction are shown.
const TABLES_SHOWN: usize = 5;

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    transaction: &'a IndexedTransaction,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ddl: Option<&'a str>,
    /// All rows; left out if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    source: Option<uuid::Uuid>,
    branch: BranchNumber,
    segment: String,
}

/// A line of `--json` for transactions that are missing for ever.
#[derive(Debug, Serialize)]
struct GapLine<'a> {
    kind: &'static str,
    #[serde(flatten)]
    gap: &'a AcceptedGap,
}

/// What was shown so far, as far as it decides what is shown next.
#[derive(Debug)]
pub(super) struct Page {
    json: bool,
    verbose: bool,
    /// Whether statements, and tables with their counts, are shown; else they follow with the rows.
    counts: bool,
    /// The source of the last transaction that was shown.
    source: Option<(BranchNumber, Option<uuid::Uuid>)>,
    /// The gaps that were shown.
    gaps: Vec<GtidSet>,
}

impl Page {
    pub(super) const fn new(context: &Context, counts: bool) -> Self {
        Self {
            json: context.json,
            verbose: context.verbose,
            counts,
            source: None,
            gaps: Vec::new(),
        }
    }

    /// Whether a gap stood among the transactions.
    pub(super) fn showed(&self, gap: &AcceptedGap) -> bool {
        self.gaps.contains(&gap.missing)
    }

    /// Adds a transaction, and before it what changed since the last one.
    pub(super) fn transaction(
        &mut self,
        history: &History,
        member: &Member,
        transaction: &IndexedTransaction,
        with_gaps: bool,
        out: &mut String,
    ) {
        if with_gaps {
            self.gaps_before(history, member, out);
        }
        if self.json {
            self.line(member, transaction, out);
            return;
        }
        self.source_of(history, member, out);
        out.push_str(&head(transaction));
        out.push('\n');
        for line in self.body(&transaction.summary) {
            out.push_str("    ");
            out.push_str(&line);
            out.push('\n');
        }
    }

    fn line(&self, member: &Member, transaction: &IndexedTransaction, out: &mut String) {
        let stored = &member.stored;
        let summary = &transaction.summary;
        let kinds = Kinds::of(summary);
        let statement = summary.statement.as_deref();
        let line = Line {
            transaction,
            kind: if kinds.ddl { "ddl" } else { "dml" },
            ddl: statement.filter(|_| kinds.ddl),
            rows: summary.rows(),
            source: stored.index.source.as_ref().map(|source| source.uuid),
            branch: stored.name.branch,
            segment: stored.name.key(),
        };
        out.push_str(&json(&line));
    }

    /// The accepted gaps before a segment: where the log goes on, transactions are missing for ever.
    fn gaps_before(&mut self, history: &History, member: &Member, out: &mut String) {
        for gap in &history.gaps {
            if !gap.missing.is_subset(&member.before) || self.showed(gap) {
                continue;
            }
            self.gaps.push(gap.missing.clone());
            if self.json {
                out.push_str(&gap_line(gap));
            } else {
                out.push_str(&format!("-- no segment holds {gap}\n"));
            }
        }
    }

    /// Where another server's binlog begins, or another branch.
    fn source_of(&mut self, history: &History, member: &Member, out: &mut String) {
        let source = member.stored.index.source.as_ref();
        let branch = member.stored.name.branch;
        let now = (branch, source.map(|source| source.uuid));
        if self.source == Some(now) {
            return;
        }
        if let Some((before, _)) = self.source
            && before != branch
            && let Some(step) = history
                .lineage
                .iter()
                .find(|step| step.branch.branch == branch)
        {
            out.push_str(&format!(
                "-- branch {branch} begins: {}",
                step.branch.reason
            ));
            if !step.branch.lost.is_empty() {
                out.push_str(&format!("; not in it: {:#}", step.branch.lost));
            }
            out.push('\n');
        }
        if let Some(source) = source {
            out.push_str(&format!(
                "-- from the binlog of {}, MySQL {}\n",
                source.uuid, source.version
            ));
        }
        self.source = Some(now);
    }

    fn body(&self, summary: &Summary) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.counts {
            return lines;
        }
        if let Some(statement) = &summary.statement {
            let schema = summary
                .schema
                .as_ref()
                .map(|schema| format!("USE {schema}; "));
            lines.extend(self.statement(statement, schema.unwrap_or_default(), summary.incomplete));
        }
        let shown = match self.verbose {
            true => usize::MAX,
            false => TABLES_SHOWN,
        };
        lines.extend(summary.tables.iter().take(shown).map(table));
        if summary.tables.len() > shown {
            lines.push(format!(
                "and {} more tables (-v shows them)",
                summary.tables.len() - shown
            ));
        }
        if summary.incomplete && summary.statement.is_none() {
            lines.push("and more than the archive's index tells (--rows shows all)".to_owned());
        }
        if lines.is_empty() {
            lines.push("no rows".to_owned());
        }
        lines
    }

    fn statement(&self, statement: &str, schema: String, is_cut: bool) -> Vec<String> {
        if self.verbose {
            let mut lines: Vec<String> = format!("{schema}{statement}")
                .lines()
                .map(str::to_owned)
                .collect();
            if is_cut {
                lines.push("... (the index holds no more of it; --rows shows all)".to_owned());
            }
            return lines;
        }
        // A statement that names its schema needs no other.
        let words: Vec<&str> = statement.split_whitespace().collect();
        let mut text = words.join(" ");
        if let Some((cut, _)) = text.char_indices().nth(STATEMENT_WIDTH) {
            text.truncate(cut);
            text.push_str("...");
        }
        vec![text]
    }
}

/// A gap as a document.
pub(super) fn gap_line(gap: &AcceptedGap) -> String {
    json(&GapLine { kind: "gap", gap })
}

/// A document on a line.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_else(|error| {
        serde_json::json!({ "error": { "message": error.to_string() } }).to_string()
    });
    line.push('\n');
    line
}

/// When, which, where, how much.
fn head(transaction: &IndexedTransaction) -> String {
    format!(
        "{}{}  {}  server {}  {}",
        crate::clock::rfc3339(transaction.time),
        local(transaction.time.with_timezone(&Local)),
        transaction.gtid,
        transaction.server_id,
        render::bytes(transaction.bytes)
    )
}

/// The clock on the wall where this runs, if it is another one: `(15:30:00 +01:00)`.
fn local<Zone: chrono::TimeZone>(moment: DateTime<Zone>) -> String
where
    Zone::Offset: std::fmt::Display,
{
    if moment.offset().fix().local_minus_utc() == 0 {
        return String::new();
    }
    let utc = moment.with_timezone(&Utc);
    let format = match moment.date_naive() == utc.date_naive() {
        true => " (%H:%M:%S %:z)",
        false => " (%e %b %H:%M:%S %:z)",
    };
    moment.format(format).to_string().replace("( ", "(")
}

/// `shop.page: 12 inserted, 3 updated`.
fn table(touch: &TableTouch) -> String {
    let parts: Vec<String> = match touch.rows {
        Some(rows) => [
            (rows.insert, "inserted"),
            (rows.update, "updated"),
            (rows.delete, "deleted"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, done)| format!("{} {done}", render::count(*count)))
        .collect(),
        None => touch
            .operations
            .iter()
            .map(|operation| {
                let done = match operation {
                    Operation::Insert => "inserted",
                    Operation::Update => "updated",
                    Operation::Delete => "deleted",
                };
                format!("rows {done}, not counted")
            })
            .collect(),
    };
    format!("{}: {}", touch.name, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::FixedOffset;

    #[test]
    fn the_clock_on_the_wall_is_shown_where_it_differs() {
        let moment: DateTime<Utc> = "2026-11-20T14:30:05.123456Z".parse().expect("a time");
        let east = |hours: i32| FixedOffset::east_opt(hours * 3600).expect("a zone");
        assert_eq!(local(moment.with_timezone(&east(0))), "");
        assert_eq!(local(moment.with_timezone(&east(1))), " (15:30:05 +01:00)");
        assert_eq!(local(moment.with_timezone(&east(-5))), " (09:30:05 -05:00)");
        let next = local(moment.with_timezone(&east(11)));
        assert_eq!(next, " (21 Nov 01:30:05 +11:00)");
    }
}
