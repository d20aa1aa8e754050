//! What follows from leaving a transaction out.
//!
//! A later transaction that changes a row which the one left out had made finds no row, or another
//! one, and stops the replay, or goes on from other values. The lists of the log tell the tables
//! ([`consequences`]), the row images which of those transactions touched the very rows ([`rows`]).

mod rows;

use super::error::RestoreError;
use super::plan::Way;
use super::prepare::read_lines;
use crate::archive::history::History;
use crate::archive::repository::Repository;
use crate::archive::segment::IndexedTransaction;
use crate::gtid::{Gtid, GtidSet};

use rows::SameRows;

/// So many later transactions are named.
const NAMED: usize = 5;
/// Rows are looked into as long as that means to read no more binlog than this.
const LOOKED_INTO_BYTES: u64 = 1 << 30;

/// One note for each transaction that is left out.
pub(super) async fn consequences(
    repository: &Repository,
    history: &History,
    way: &Way<'_>,
) -> Result<Vec<String>, RestoreError> {
    let is_wanted = |at: &usize| {
        let added = &history.members[*at].added;
        !added.is_disjoint(&way.skipped) || !added.is_disjoint(&way.set)
    };
    let first =
        (0..history.members.len()).find(|at| !history.members[*at].added.is_disjoint(&way.skipped));
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let mut left_out: Vec<LeftOut> = Vec::new();
    // One segment at a time, for there may be very many behind the first one.
    for at in (first..history.members.len()).filter(is_wanted) {
        let lines = read_lines(repository, history, &[at]).await?;
        for line in lines.into_values().flatten() {
            if way.skipped.contains(&line.gtid) {
                left_out.push(LeftOut::new(line));
            } else if way.set.contains(&line.gtid) {
                for one in &mut left_out {
                    one.add(&line);
                }
            }
        }
    }
    let mut notes = Vec::with_capacity(left_out.len());
    for one in &left_out {
        let same = match one.may_be_looked_into() {
            true => {
                let own = GtidSet::from(one.line.gtid.clone());
                Some(rows::same_rows(repository, history, &own, &one.later).await?)
            }
            false => None,
        };
        notes.push(one.tell(same.as_ref()));
    }
    Ok(notes)
}

/// A transaction that is left out, and who touched its tables later.
struct LeftOut {
    line: IndexedTransaction,
    later: GtidSet,
    first: Vec<Gtid>,
    bytes: u64,
}

impl LeftOut {
    fn new(line: IndexedTransaction) -> Self {
        Self {
            bytes: line.bytes,
            line,
            later: GtidSet::new(),
            first: Vec::new(),
        }
    }

    fn add(&mut self, line: &IndexedTransaction) {
        let own = &self.line.summary;
        let touches = own.tables.iter().any(|table| {
            let mut tables = line.summary.tables.iter();
            tables.any(|other| other.name == table.name)
        });
        if touches || own.incomplete || line.summary.incomplete {
            self.later.insert(&line.gtid);
            self.bytes = self.bytes.saturating_add(line.bytes);
            if self.first.len() < NAMED {
                self.first.push(line.gtid.clone());
            }
        }
    }

    fn may_be_looked_into(&self) -> bool {
        let is_rows = self.line.summary.statement.is_none();
        is_rows && !self.later.is_empty() && self.bytes <= LOOKED_INTO_BYTES
    }

    fn tell(&self, same: Option<&SameRows>) -> String {
        let what = format!("{} ({})", self.line.gtid, self.line.summary.brief());
        if self.line.summary.statement.is_some() {
            return format!(
                "{what} is left out: it is a statement, and whatever later leans on what it did \
                 stops the replay"
            );
        }
        let later = self.later.count();
        if later == 0 {
            return format!("{what} is left out, and no later transaction touched its tables");
        }
        let Some(same) = same else {
            return format!(
                "{what} is left out, and {later} later transactions touched the same tables ({}): \
                 one that changes a row which it made or changed may stop the replay",
                named(&self.first, later)
            );
        };
        let more = match same.incomplete {
            true => " at least",
            false => "",
        };
        match same.transactions.len() {
            0 => format!(
                "{what} is left out; {later} later transactions touched its tables, and none of \
                 them a row that it had changed, as far as their images tell"
            ),
            count => format!(
                "{what} is left out, and{more} {count} later transactions touched the same rows \
                 ({}): the replay stops at the first one that does not find its row, or goes on from \
                 other values",
                named(&same.transactions, count as u128)
            ),
        }
    }
}

/// The first few of many.
fn named(gtids: &[Gtid], count: u128) -> String {
    let names: Vec<String> = gtids.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match count > NAMED as u128 {
        true => ", ...",
        false => "",
    };
    format!("{}{more}", names.join(", "))
}
