//! Under which names tables are built.
//!
//! Each schema has one of its own that stands for it, so that tables keep their names and two of the
//! same name do not meet.

use crate::archive::hash::sha256;

/// What the schemas' names begin with.
pub(super) const PREFIX: &str = "quillback_parts_";
/// The characters of a schema's name.
const LONGEST: usize = 64;
/// Those that are left of one that is too long, before a part of its digest.
const LEFT: usize = 30;

/// The schema in which tables of a schema are built.
pub(super) fn staged_schema(schema: &str) -> String {
    let whole = format!("{PREFIX}{schema}");
    if whole.chars().count() <= LONGEST {
        return whole;
    }
    let left: String = schema.chars().take(LEFT).collect();
    let digest = sha256(schema.as_bytes()).to_string();
    format!("{PREFIX}{left}_{}", &digest[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_has_one_of_its_own() {
        assert_eq!(staged_schema("shop"), "quillback_parts_shop");
        let long = "ż".repeat(64);
        let other = format!("{}x", "ż".repeat(63));
        let (a, b) = (staged_schema(&long), staged_schema(&other));
        assert_ne!(a, b);
        for name in [a, b] {
            assert!(name.chars().count() <= LONGEST, "{name}");
        }
    }
}
