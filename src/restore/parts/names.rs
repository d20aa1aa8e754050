//! Under which names tables are built.
//!
//! Each schema has one of its own that stands for it, so that tables keep their names and two of the
//! same name do not meet. A log may hold an earlier restore of tables, with the schemas that were its own:
//! so the names are such that none is a schema of the log.

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::hash::sha256;

/// What the schemas' names begin with.
const PREFIX: &str = "quillback_parts";
/// The characters of a schema's name.
const LONGEST: usize = 64;
/// Those that are left of one that is too long, before a part of its digest.
const LEFT: usize = 24;

/// The schema in which tables of each schema are built.
pub(super) fn staged_schemas(schemas: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut round = 0_u64;
    // Finitely many schemas take finitely many rounds.
    loop {
        let staged: BTreeMap<String, String> = schemas
            .iter()
            .map(|schema| (schema.clone(), staged_schema(schema, round)))
            .collect();
        if !staged.values().any(|name| schemas.contains(name)) {
            return staged;
        }
        round += 1;
    }
}

/// Whether a schema's name is one of those that tables are built in.
pub(in crate::restore) fn is_staging_schema(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX);
    rest.is_some_and(|rest| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit())
            .starts_with('_')
    })
}

fn staged_schema(schema: &str, round: u64) -> String {
    let prefix = match round {
        0 => format!("{PREFIX}_"),
        round => format!("{PREFIX}{round}_"),
    };
    let whole = format!("{prefix}{schema}");
    if whole.chars().count() <= LONGEST {
        return whole;
    }
    let left: String = schema.chars().take(LEFT).collect();
    let digest = sha256(schema.as_bytes()).to_string();
    format!("{prefix}{left}_{}", &digest[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schemas: &[&str]) -> BTreeMap<String, String> {
        staged_schemas(&schemas.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn every_schema_has_one_of_its_own() {
        assert_eq!(of(&["shop"])["shop"], "quillback_parts_shop");
        let long = "ż".repeat(64);
        let other = format!("{}x", "ż".repeat(63));
        let staged = of(&[&long, &other]);
        assert_ne!(staged[&long], staged[&other]);
        for name in staged.values() {
            assert!(name.chars().count() <= LONGEST, "{name}");
        }
    }

    #[test]
    fn those_of_an_earlier_restore_are_left_alone() {
        let staged = of(&["shop", "quillback_parts_shop"]);
        assert_eq!(staged["shop"], "quillback_parts1_shop");
        assert_eq!(
            staged["quillback_parts_shop"],
            "quillback_parts1_quillback_parts_shop"
        );
    }
}
