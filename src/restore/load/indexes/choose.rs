//! Which indexes of a table can wait until its rows are there. Pure.
//!
//! Kept from the start is what MySQL does not let go (an index of a foreign key or of the
//! AUTO_INCREMENT column), what the rows lie in, and what stands before such a one: a server lists
//! unique, plain and full-text keys each in the order of their making, so that only the last ones of
//! each kind come back to their places when they are added again.

use std::collections::BTreeSet;

use super::text::{Key, Kind};

/// What is known of a table besides its text.
#[derive(Debug, Clone, Default)]
pub(super) struct TableFacts {
    /// Each index's name and first column, if that is one.
    pub(super) first_columns: Vec<(String, Option<String>)>,
    /// Columns, in small letters, which an index must begin with: the first ones of foreign keys from and to this table.
    pub(super) needed: BTreeSet<String>,
    /// The AUTO_INCREMENT column, in small letters.
    pub(super) auto_increment: Option<String>,
}

/// Lists of keys that may wait, the longest first; none that is empty.
pub(super) fn candidates<'a>(keys: &'a [Key], facts: &TableFacts) -> Vec<Vec<&'a Key>> {
    let mut candidates: Vec<Vec<&Key>> = Vec::new();
    for with_computed in [true, false] {
        let chosen = choose(keys, facts, with_computed);
        if !chosen.is_empty() && candidates.last() != Some(&chosen) {
            candidates.push(chosen);
        }
    }
    candidates
}

fn choose<'a>(keys: &'a [Key], facts: &TableFacts, with_computed: bool) -> Vec<&'a Key> {
    let has_primary = keys.iter().any(|key| key.kind == Kind::Primary);
    let first_column = |key: &Key| {
        let mut known = facts.first_columns.iter();
        let (_, column) = known.find(|(name, _)| name.eq_ignore_ascii_case(&key.name))?;
        column.as_ref().map(|column| column.to_lowercase())
    };
    let by_primary = keys
        .iter()
        .find(|key| key.kind == Kind::Primary)
        .and_then(first_column);
    let counted = facts
        .auto_increment
        .as_ref()
        .filter(|column| Some(*column) != by_primary.as_ref());
    let stays = |key: &Key| {
        // InnoDB's own rows of FULLTEXT keys are found by it.
        let of_documents = key.name.eq_ignore_ascii_case("FTS_DOC_ID_INDEX");
        // Without a primary key the rows may lie in any unique key that takes no NULL.
        let holds_rows = key.kind == Kind::Unique && !has_primary;
        let column = first_column(key);
        let is_needed = column
            .as_ref()
            .is_some_and(|column| facts.needed.contains(column) || Some(column) == counted);
        // What the catalogue does not know better stays.
        let unknown = !facts
            .first_columns
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(&key.name));
        of_documents || holds_rows || is_needed || unknown || (key.computed && !with_computed)
    };
    let mut chosen = Vec::new();
    for kind in [Kind::Unique, Kind::Plain, Kind::Fulltext] {
        let of_kind: Vec<&Key> = keys.iter().filter(|key| key.kind == kind).collect();
        let from = of_kind
            .iter()
            .rposition(|key| stays(key))
            .map_or(0, |at| at + 1);
        chosen.extend_from_slice(&of_kind[from..]);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind, name: &str) -> Key {
        Key {
            kind,
            name: name.to_owned(),
            definition: Vec::new(),
            computed: name.starts_with("computed"),
        }
    }

    /// Each key begins with the column of its own name.
    fn facts(keys: &[Key]) -> TableFacts {
        TableFacts {
            first_columns: keys
                .iter()
                .map(|key| {
                    let column = (!key.computed).then(|| key.name.to_uppercase());
                    (key.name.clone(), column)
                })
                .collect(),
            ..TableFacts::default()
        }
    }

    fn names(candidates: &[Vec<&Key>]) -> Vec<Vec<String>> {
        let name = |key: &&Key| key.name.clone();
        candidates
            .iter()
            .map(|keys| keys.iter().map(name).collect())
            .collect()
    }

    #[test]
    fn what_is_needed_stays_and_so_does_what_stands_before_it() {
        let keys = [
            key(Kind::Primary, "PRIMARY"),
            key(Kind::Unique, "u1"),
            key(Kind::Unique, "u2"),
            key(Kind::Plain, "a"),
            key(Kind::Plain, "b"),
            key(Kind::Plain, "computed"),
            key(Kind::Plain, "c"),
            key(Kind::Fulltext, "w"),
        ];
        let all = facts(&keys);
        assert_eq!(
            names(&candidates(&keys, &all)),
            [
                vec!["u1", "u2", "a", "b", "computed", "c", "w"],
                vec!["u1", "u2", "c", "w"]
            ]
        );
        let needed = TableFacts {
            needed: BTreeSet::from(["b".to_owned(), "u2".to_owned()]),
            ..all.clone()
        };
        assert_eq!(
            names(&candidates(&keys, &needed)),
            [vec!["computed", "c", "w"], vec!["c", "w"]]
        );
        // A key that counts, and one that only repeats what the primary key begins with.
        let counted = |column: &str| TableFacts {
            auto_increment: Some(column.to_owned()),
            ..all.clone()
        };
        assert_eq!(
            names(&candidates(&keys, &counted("c"))),
            [vec!["u1", "u2", "w"]]
        );
        assert_eq!(candidates(&keys, &counted("primary"))[0].len(), 7);
    }

    #[test]
    fn without_a_primary_key_unique_ones_stay() {
        let keys = [key(Kind::Unique, "u"), key(Kind::Plain, "a")];
        assert_eq!(names(&candidates(&keys, &facts(&keys))), [vec!["a"]]);
        // What the catalogue does not know stays.
        assert!(candidates(&keys, &TableFacts::default()).is_empty());
        let documents = [
            key(Kind::Primary, "PRIMARY"),
            key(Kind::Unique, "FTS_DOC_ID_INDEX"),
            key(Kind::Fulltext, "w"),
        ];
        assert_eq!(
            names(&candidates(&documents, &facts(&documents))),
            [vec!["w"]]
        );
    }
}
