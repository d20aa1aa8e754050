//! Which tables a view names, as a server prints it (`SHOW CREATE VIEW`).

use std::collections::BTreeSet;

use super::lexer::{Dialect, Kind, Lexer, Misunderstood, Piece};
use super::statement::{NameCase, TableName};
use crate::mysql::version::ServerVersion;

/// The tables (or views) that a view reads, each once and in the order of the text; its schema is `database`.
///
/// A server prints what is read behind FROM and JOIN, with the schema before each name; a name without one (as
/// in a session whose default schema is the view's) is of the view's own schema. Names of `WITH`
/// are among them then: hold the answer against the tables that there are.
///
/// # Errors
///
/// [`Misunderstood`] if the text cannot be cut up.
pub fn reads(
    create: &[u8],
    database: &str,
    version: &ServerVersion,
) -> Result<Vec<TableName>, Misunderstood> {
    let dialect = Dialect::of_scripts(version.clone());
    let pieces = Lexer::new(create, &dialect)?.pieces()?;
    let mut found = Vec::new();
    for at in 0..pieces.len() {
        if !is_behind_from(&pieces, at) {
            continue;
        }
        let (Some(first), is_qualified) = (
            name(pieces.get(at)),
            pieces.get(at + 1).is_some_and(|piece| piece.is_sign(b'.')),
        ) else {
            continue;
        };
        let read = match (is_qualified, name(pieces.get(at + 2))) {
            (true, Some(table)) => TableName::new(first, table),
            (true, None) => continue,
            (false, _) => TableName::new(database, first),
        };
        if !found.contains(&read) {
            found.push(read);
        }
    }
    Ok(found)
}

/// Those of the known tables that a view reads, as they are known.
///
/// # Errors
///
/// As [`reads`].
pub fn reads_of<'a>(
    create: &[u8],
    database: &str,
    version: &ServerVersion,
    case: NameCase,
    known: impl IntoIterator<Item = &'a TableName>,
) -> Result<Vec<&'a TableName>, Misunderstood> {
    let read = reads(create, database, version)?;
    let read: BTreeSet<TableName> = read.iter().map(|name| case.key(name)).collect();
    let known = known.into_iter();
    Ok(known
        .filter(|name| read.contains(&case.key(name)))
        .collect())
}

fn name(piece: Option<&Piece>) -> Option<&str> {
    match &piece?.kind {
        Kind::Quoted(name) => Some(name),
        _ => None,
    }
}

/// Whether FROM or JOIN stands before, with nothing but parentheses between.
fn is_behind_from(pieces: &[Piece], at: usize) -> bool {
    let before = pieces[..at].iter().rev();
    let mut before = before.skip_while(|piece| piece.is_sign(b'('));
    before.next().is_some_and(|piece| {
        let words = ["FROM", "JOIN", "STRAIGHT_JOIN"];
        words.iter().any(|word| piece.is_word(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_view_reads_stands_behind_from_and_join() {
        let version = ServerVersion::parse("8.4.6").expect("a version");
        let view = "CREATE ALGORITHM=UNDEFINED DEFINER=`a`@`%` SQL SECURITY DEFINER VIEW `d`.`v` AS select `p`.`id` AS `id`,\
            concat(`d`.`q`.`x`,' from `d`.`z`') AS `y`,(select max(`r`.`n`) from `e`.`r`) AS `m` from \
            ((`d`.`pages` `p` join `d`.`q` on((`p`.`id` = `d`.`q`.`id`))) left join `e`.`r` on(true)) where exists(select 1 from `local` union select 2 from `x`.`y`)";
        let read = reads(view.as_bytes(), "d", &version).expect("good");
        let names: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["e.r", "d.pages", "d.q", "d.local", "x.y"]);
        let known = ["p", "Q", "z", "v"].map(|table| TableName::new("d", table));
        let of = |case| {
            let read = reads_of(view.as_bytes(), "d", &version, case, &known).expect("good");
            read.into_iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert!(of(NameCase::Distinct).is_empty());
        assert_eq!(of(NameCase::Folded), ["d.Q"]);
    }
}
