//! Is this the transaction that the archive has under the same GTID?
//!
//! Two histories that were written apart can use the same GTIDs: a server that was restored or
//! copied with its UUID, a group that was bootstrapped twice under one name. To go on with such a
//! server would make an archive that is neither. The invariant: what differs between members of
//! one group for one transaction is never called a difference, so an alarm means what it says.
//!
//! Members differ in `immediate_commit_timestamp`, in positions, table ids, lengths, logical
//! clocks, checksums, row images and the compression of payloads: none of that is looked at. What
//! stays is the moment at which the transaction was first committed, in microseconds, and the
//! server on which that was. Where both are known and equal, it is the same transaction, and only
//! the tables that it touched are compared besides (a replica that filters logs less). Where the
//! moment is unknown, the tables and the statement must do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::summary::{Operation, Summary};

/// What is known of a transaction on one side.
#[derive(Debug, Clone, Copy)]
pub struct TransactionFacts<'a> {
    /// `original_commit_timestamp`: microseconds since the epoch; 0 is unknown.
    pub original_commit_micros: u64,
    /// `server_id` in the transaction's GTID event: that of the server where it began.
    pub server_id: u32,
    /// `@@version` of the server whose binlog it is from, if it is known.
    pub source_version: Option<&'a str>,
    /// What it did.
    pub summary: &'a Summary,
}

/// How the payloads of one GTID differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// They were committed at different moments.
    #[error(
        "it was first committed at {archived} us since 1970 by the archive, and at {received} us \
         by the server"
    )]
    OriginalCommit {
        /// In the archive.
        archived: u64,
        /// On the server.
        received: u64,
    },
    /// They began on different servers.
    #[error("it began on server_id {archived} by the archive, and on {received} by the server")]
    ServerId {
        /// In the archive.
        archived: u32,
        /// On the server.
        received: u32,
    },
    /// They changed other tables, or changed them otherwise.
    #[error("it did {archived} by the archive, and {received} by the server")]
    Tables {
        /// In the archive.
        archived: Touched,
        /// On the server.
        received: Touched,
    },
    /// They are other statements.
    #[error("it was {archived:?} by the archive, and is {received:?} on the server")]
    Statement {
        /// In the archive.
        archived: String,
        /// On the server.
        received: String,
    },
}

/// Tables, in lower case, with what was done to their rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched(BTreeMap<String, BTreeSet<Operation>>);

impl Touched {
    fn of(summary: &Summary) -> Self {
        let mut tables: BTreeMap<String, BTreeSet<Operation>> = BTreeMap::new();
        for table in &summary.tables {
            // Replicas may run with another lower_case_table_names.
            let operations = tables.entry(table.name.to_lowercase()).or_default();
            operations.extend(&table.operations);
        }
        Self(tables)
    }

    fn is_part_of(&self, other: &Self) -> bool {
        self.0.iter().all(|(name, operations)| {
            let there = other.0.get(name);
            there.is_some_and(|there| operations.is_subset(there))
        })
    }
}

impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, (name, operations)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let words: Vec<&str> = operations
                .iter()
                .map(|operation| match operation {
                    Operation::Insert => "insert",
                    Operation::Update => "update",
                    Operation::Delete => "delete",
                })
                .collect();
            write!(f, "{comma}{} in {name}", words.join(" and "))?;
        }
        Ok(())
    }
}

/// Compares what the archive and a server have under one GTID.
///
/// # Errors
///
/// The first [`Difference`] found. Without one the two may still differ in the values of rows,
/// which an index does not hold.
pub fn same_transaction(
    archived: TransactionFacts<'_>,
    received: TransactionFacts<'_>,
) -> Result<(), Difference> {
    let (old, new) = (archived.summary, received.summary);
    // Each member logs a change of the group's view by itself, with its own time and server_id;
    // and nothing at all is the same as nothing.
    if is_empty(old) && is_empty(new) {
        return Ok(());
    }
    let times = (
        archived.original_commit_micros,
        received.original_commit_micros,
    );
    let known = times.0 != 0 && times.1 != 0;
    // An empty transaction in place of one with changes is told as that.
    if known && times.0 != times.1 && is_empty(old) == is_empty(new) {
        return Err(Difference::OriginalCommit {
            archived: times.0,
            received: times.1,
        });
    }
    same_tables(archived, received)?;
    if known && times.0 != times.1 {
        return Err(Difference::OriginalCommit {
            archived: times.0,
            received: times.1,
        });
    }
    if archived.server_id != received.server_id {
        return Err(Difference::ServerId {
            archived: archived.server_id,
            received: received.server_id,
        });
    }
    // Servers word statements anew (defaults, comments, quotes): with the moment known they are
    // not needed.
    match (&old.statement, &new.statement) {
        (Some(archived), Some(received)) if !known && !same_words(old, new) => {
            Err(Difference::Statement {
                archived: archived.clone(),
                received: received.clone(),
            })
        }
        _ => Ok(()),
    }
}

fn is_empty(summary: &Summary) -> bool {
    summary.tables.is_empty() && summary.statement.is_none() && !summary.incomplete
}

fn same_tables(
    archived: TransactionFacts<'_>,
    received: TransactionFacts<'_>,
) -> Result<(), Difference> {
    let (old, new) = (archived.summary, received.summary);
    // A statement may be logged as rows elsewhere, and tables beyond the limit are not known.
    let unclear = |one: &Summary| one.incomplete || one.statement.is_some();
    if unclear(old) || unclear(new) {
        return Ok(());
    }
    let (old, new) = (Touched::of(old), Touched::of(new));
    // Newer servers log more of what foreign keys cascade to, and say it as their own version.
    let same_series = match (archived.source_version, received.source_version) {
        (Some(one), Some(other)) => series(one).is_some() && series(one) == series(other),
        _ => false,
    };
    let nothing = old.0.is_empty() || new.0.is_empty();
    let related = old.is_part_of(&new) || new.is_part_of(&old);
    if old == new || (!same_series && !nothing && related) {
        return Ok(());
    }
    Err(Difference::Tables {
        archived: old,
        received: new,
    })
}

/// The first two numbers of a version.
fn series(version: &str) -> Option<(u16, u16)> {
    let mut numbers = version.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

/// Whether two statements are the same but for spaces and case, as far as both are kept.
fn same_words(old: &Summary, new: &Summary) -> bool {
    let words = |summary: &Summary| -> String {
        let text = summary.statement.as_deref().unwrap_or_default();
        let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
        words.join(" ")
    };
    let (one, other) = (words(old), words(new));
    if old.incomplete || new.incomplete {
        // One of them may be cut where the other is not.
        return one.starts_with(&other) || other.starts_with(&one);
    }
    one == other && old.schema == new.schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::TableTouch;

    fn rows(tables: &[(&str, &[Operation])]) -> Summary {
        Summary {
            tables: tables
                .iter()
                .map(|(name, operations)| TableTouch {
                    name: (*name).to_owned(),
                    operations: operations.to_vec(),
                    bytes: name.len() as u64,
                    rows: None,
                })
                .collect(),
            ..Summary::default()
        }
    }

    fn text(statement: &str) -> Summary {
        Summary {
            statement: Some(statement.to_owned()),
            ..Summary::default()
        }
    }

    const fn facts<'a>(micros: u64, server_id: u32, summary: &'a Summary) -> TransactionFacts<'a> {
        TransactionFacts {
            original_commit_micros: micros,
            server_id,
            source_version: Some("9.7.4"),
            summary,
        }
    }

    use Operation::{Delete, Insert, Update};

    #[test]
    fn what_members_log_differently_is_no_difference() {
        let one = rows(&[("a.T", &[Insert, Update]), ("a.u", &[Delete])]);
        let mut other = rows(&[("a.u", &[Delete]), ("a.t", &[Update, Insert])]);
        other.tables[0].bytes = 1;
        let many = Summary {
            incomplete: true,
            ..rows(&[("a.x", &[Insert])])
        };
        let empty = Summary::default();
        for (archived, received) in [
            (facts(5, 1, &one), facts(5, 1, &other)),
            (facts(0, 1, &one), facts(5, 1, &other)),
            (facts(5, 1, &one), facts(0, 1, &other)),
            (facts(5, 1, &one), facts(5, 1, &many)),
            // A change of the view.
            (facts(5, 1, &empty), facts(9, 2, &empty)),
            // A statement that the replica logged as rows.
            (
                facts(5, 1, &text("INSERT INTO t SELECT 1")),
                facts(5, 1, &one),
            ),
            // A statement in other words.
            (
                facts(5, 1, &text("DROP TABLE t")),
                facts(5, 1, &text("DROP TABLE `t` /* generated by server */")),
            ),
            (
                facts(0, 1, &text("DROP  TABLE t")),
                facts(5, 1, &text("drop table\nt")),
            ),
        ] {
            assert_eq!(same_transaction(archived, received), Ok(()), "{archived:?}");
            assert_eq!(same_transaction(received, archived), Ok(()), "{archived:?}");
        }
    }

    #[test]
    fn a_newer_server_may_log_more_and_one_of_the_same_series_may_not() {
        let less = rows(&[("a.parent", &[Delete])]);
        let more = rows(&[("a.parent", &[Delete]), ("a.child", &[Delete])]);
        let old = TransactionFacts {
            source_version: Some("8.4.6-log"),
            ..facts(5, 1, &less)
        };
        assert_eq!(same_transaction(old, facts(5, 1, &more)), Ok(()));
        let difference = same_transaction(facts(5, 1, &less), facts(5, 1, &more));
        let difference = difference.expect_err("filtered");
        assert_eq!(
            difference.to_string(),
            "it did delete in a.parent by the archive, and delete in a.child, delete in a.parent \
             by the server"
        );
        // Nothing is no part of something.
        assert!(same_transaction(old, facts(5, 1, &Summary::default())).is_err());
    }

    #[test]
    fn another_payload_is_told() {
        let one = rows(&[("a.t", &[Insert])]);
        let other = rows(&[("a.u", &[Insert])]);
        let empty = Summary::default();
        let original = |archived, received| Difference::OriginalCommit { archived, received };
        let server = |archived, received| Difference::ServerId { archived, received };
        for (archived, received, expected) in [
            (facts(5, 1, &one), facts(6, 1, &one), Some(original(5, 6))),
            (facts(5, 1, &one), facts(6, 2, &other), Some(original(5, 6))),
            (facts(5, 1, &one), facts(5, 2, &one), Some(server(1, 2))),
            (facts(0, 1, &one), facts(5, 2, &one), Some(server(1, 2))),
            (facts(5, 1, &one), facts(5, 1, &other), None),
            (facts(0, 1, &one), facts(0, 1, &other), None),
            // An empty transaction put in its place, with whatever time.
            (facts(5, 1, &one), facts(6, 2, &empty), None),
            (facts(6, 2, &empty), facts(5, 1, &one), None),
            (
                facts(0, 1, &text("DROP TABLE a")),
                facts(0, 1, &text("DROP TABLE b")),
                Some(Difference::Statement {
                    archived: "DROP TABLE a".to_owned(),
                    received: "DROP TABLE b".to_owned(),
                }),
            ),
            (
                facts(5, 1, &text("DROP TABLE a")),
                facts(6, 1, &text("DROP TABLE a")),
                Some(original(5, 6)),
            ),
        ] {
            let difference = same_transaction(archived, received).expect_err("they differ");
            match expected {
                Some(expected) => assert_eq!(difference, expected),
                None => assert!(
                    matches!(difference, Difference::Tables { .. }),
                    "{difference}"
                ),
            }
        }
    }
}
