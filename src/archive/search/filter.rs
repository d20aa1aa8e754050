//! What is looked for, and whether a segment, a line's bytes or a line can be it.

use chrono::{DateTime, Utc};
use memchr::memmem;

use super::statement::{self, Kind, Kinds};
use crate::archive::history::Member;
use crate::archive::segment::IndexedTransaction;
use crate::gtid::GtidSet;
use crate::mysql::binlog::Summary;
use crate::mysql::schema::Filter as Tables;

/// What is looked for: all that is set must be so.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Committed at or after this moment.
    pub since: Option<DateTime<Utc>>,
    /// Committed at or before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Touched one of these tables (of its `include` patterns; none: any), by rows or by a statement.
    pub tables: Tables,
    /// Does this.
    pub kind: Option<Kind>,
    /// Has a statement, whatever it does.
    pub statements: bool,
    /// Is one of these.
    pub gtids: Option<GtidSet>,
    /// Has this text, in lower case, in its statement or in the name of a table whose rows it changed.
    pub text: Option<String>,
    /// Changed at least so many rows.
    pub min_rows: u64,
}

/// Whether a transaction is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not.
    No,
    /// It is.
    Yes,
    /// Its line does not tell: rows were not counted when it was archived, or it has more tables than
    /// a line holds.
    Unclear,
}

impl Filter {
    /// Whether nothing but time limits what is looked for.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.gtids.is_none()
            && self.tables.include.is_empty()
            && self.kind.is_none()
            && !self.statements
            && self.text.is_none()
            && self.min_rows == 0
    }

    /// Whether a segment's share in a history can hold what is looked for, by its index alone.
    #[must_use]
    pub fn may_match(&self, member: &Member) -> bool {
        let index = &member.stored.index;
        if member.transactions == 0 {
            return false;
        }
        // Commit times are in order within a source except for steps of its clock: only the greatest
        // and the least are safe to compare.
        if self
            .since
            .is_some_and(|since| member.last_commit < Some(since))
        {
            return false;
        }
        if let (Some(until), Some(least)) = (self.until, index.least_commit)
            && least > until
        {
            return false;
        }
        if self
            .gtids
            .as_ref()
            .is_some_and(|set| member.added.is_disjoint(set))
        {
            return false;
        }
        if self.asks_for_statements() && !index.statements {
            return false;
        }
        // A statement may name any table, and a full list may lack one.
        if index.statements || index.tables_incomplete {
            return true;
        }
        let tables = &index.tables;
        (self.tables.include.is_empty() || tables.iter().any(|name| self.hits(name)))
            && self
                .text
                .as_ref()
                .is_none_or(|text| tables.iter().any(|name| name.to_lowercase().contains(text)))
    }

    /// Whether a transaction is looked for.
    #[must_use]
    pub fn verdict(&self, transaction: &IndexedTransaction) -> Verdict {
        let summary = &transaction.summary;
        let is_outside = self.since.is_some_and(|since| transaction.time < since)
            || self.until.is_some_and(|until| transaction.time > until)
            || self
                .gtids
                .as_ref()
                .is_some_and(|set| !set.contains(&transaction.gtid))
            || self.kind.is_some_and(|kind| !Kinds::of(summary).has(kind))
            || self.statements && summary.statement.is_none();
        if is_outside {
            return Verdict::No;
        }
        // More tables than the line holds; a statement that was cut is another matter.
        let lacks_tables = summary.incomplete && summary.statement.is_none();
        let unclear_if_lacking = match lacks_tables {
            true => Verdict::Unclear,
            false => Verdict::No,
        };
        let mut verdict = Verdict::Yes;
        if !self.tables.include.is_empty() && !self.touches(summary) {
            verdict = unclear_if_lacking;
        }
        if verdict != Verdict::No && self.text.as_ref().is_some_and(|text| !has(summary, text)) {
            verdict = unclear_if_lacking;
        }
        if verdict != Verdict::No && self.min_rows > 0 {
            match summary.rows() {
                Some(rows) if rows < self.min_rows => verdict = Verdict::No,
                Some(_) => {}
                // What was counted may do.
                None if counted(summary) >= self.min_rows => {}
                None => verdict = Verdict::Unclear,
            }
        }
        verdict
    }

    fn asks_for_statements(&self) -> bool {
        self.statements || self.kind == Some(Kind::Ddl)
    }

    /// Whether a table whose rows changed, `schema.table`, is one of those that are looked for.
    #[must_use]
    pub fn hits(&self, name: &str) -> bool {
        // Either part may hold a dot.
        name.match_indices('.')
            .any(|(dot, _)| self.tables.passes(&name[..dot], &name[dot + 1..]))
    }

    fn touches(&self, summary: &Summary) -> bool {
        summary.tables.iter().any(|table| self.hits(&table.name))
            || statement::concerns(summary, &self.tables)
    }

    /// What the bytes of a line must hold one of, to be worth reading; empty if any line is.
    #[must_use]
    pub(super) fn needles(&self) -> Needles {
        const STATEMENT: &str = "\"statement\":";
        let of = |texts: Vec<String>| {
            let finders = texts
                .iter()
                .map(|text| memmem::Finder::new(text.as_bytes()).into_owned());
            Needles(finders.collect())
        };
        if self.asks_for_statements() {
            return of(vec![STATEMENT.to_owned()]);
        }
        if self.tables.include.is_empty() {
            return Needles::default();
        }
        let mut texts = vec![STATEMENT.to_owned(), "\"incomplete\":true".to_owned()];
        for pattern in &self.tables.include {
            let pattern = pattern.to_string();
            let end = pattern.find(['*', '?']).unwrap_or(pattern.len());
            let start = &pattern[..end];
            // JSON may write such characters in more than one way.
            if start.is_empty()
                || start.contains(['"', '\\', '/'])
                || start.contains(char::is_control)
            {
                return Needles::default();
            }
            texts.push(format!("\"name\":\"{start}"));
        }
        of(texts)
    }
}

/// Texts one of which a line must hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Needles(Vec<memmem::Finder<'static>>);

impl Needles {
    pub(super) fn are_in(&self, line: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|needle| needle.find(line).is_some())
    }
}

/// How many rows were counted at least.
fn counted(summary: &Summary) -> u64 {
    let counts = summary.tables.iter().filter_map(|table| table.rows);
    counts.fold(0, |sum, counts| sum.saturating_add(counts.total()))
}

fn has(summary: &Summary, text: &str) -> bool {
    let in_statement = summary
        .statement
        .as_ref()
        .is_some_and(|statement| statement.to_lowercase().contains(text));
    in_statement
        || summary
            .tables
            .iter()
            .any(|table| table.name.to_lowercase().contains(text))
}
