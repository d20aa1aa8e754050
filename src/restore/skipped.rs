//! What follows from leaving a transaction out.
//!
//! A later transaction that changes a row which the one left out had made finds no row, or another
//! one, and stops the replay, or goes on from other values. The lists of the log tell the tables;
//! those that touched the same ones are told, so that somebody can look before the replay does.

use super::error::RestoreError;
use super::plan::Way;
use super::prepare::read_lines;
use crate::archive::history::History;
use crate::archive::repository::Repository;
use crate::archive::segment::IndexedTransaction;

/// So many later transactions are named.
const NAMED: usize = 5;

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
    let mut left_out: Vec<Consequence> = Vec::new();
    // One segment at a time, for there may be very many behind the first one.
    for at in (first..history.members.len()).filter(is_wanted) {
        for line in read_lines(repository, history, &[at])
            .await?
            .into_values()
            .flatten()
        {
            if way.skipped.contains(&line.gtid) {
                left_out.push(Consequence::new(line));
            } else if way.set.contains(&line.gtid) {
                for consequence in &mut left_out {
                    consequence.add(&line);
                }
            }
        }
    }
    Ok(left_out.iter().map(Consequence::tell).collect())
}

/// A transaction that is left out, and who touched its tables later.
struct Consequence {
    line: IndexedTransaction,
    later: u64,
    named: Vec<String>,
}

impl Consequence {
    const fn new(line: IndexedTransaction) -> Self {
        Self {
            line,
            later: 0,
            named: Vec::new(),
        }
    }

    fn add(&mut self, line: &IndexedTransaction) {
        let own = &self.line.summary;
        let touches = own.tables.iter().any(|table| {
            let mut tables = line.summary.tables.iter();
            tables.any(|other| other.name == table.name)
        });
        if touches || own.incomplete || line.summary.incomplete {
            self.later += 1;
            if self.named.len() < NAMED {
                self.named.push(line.gtid.to_string());
            }
        }
    }

    fn tell(&self) -> String {
        let what = format!("{} ({})", self.line.gtid, self.line.summary.brief());
        if self.line.summary.statement.is_some() {
            return format!(
                "{what} is left out: it is a statement, and whatever later leans on what it did \
                 stops the replay"
            );
        }
        match self.later {
            0 => format!("{what} is left out, and no later transaction touched its tables"),
            later => format!(
                "{what} is left out, and {later} later transactions touched the same tables ({}{}): \
                 one that changes a row which it made or changed may stop the replay",
                self.named.join(", "),
                if self.later > NAMED as u64 {
                    ", ..."
                } else {
                    ""
                }
            ),
        }
    }
}
