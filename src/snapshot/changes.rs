//! The proof that the schema did not change while it was read.

use crate::archive::hash::{Sha256, sha256};
use crate::mysql::schema::{Schema, Table};

/// The SHA-256 of a table's CREATE statement without its moving part, the next AUTO_INCREMENT.
pub(super) fn create_digest(table: &Table) -> Sha256 {
    sha256(&without_auto_increment(&table.create))
}

/// The first difference that DDL made, if there is any.
pub(super) fn difference(before: &Schema, after: &Schema) -> Option<String> {
    if before.databases != after.databases {
        return Some("the list of schemas".to_owned());
    }
    let (a, b) = (&before.instance, &after.instance);
    for (what, a, b) in [
        ("general tablespaces", &a.tablespaces, &b.tablespaces),
        (
            "spatial reference systems",
            &a.spatial_reference_systems,
            &b.spatial_reference_systems,
        ),
        (
            "loadable functions",
            &a.loadable_functions,
            &b.loadable_functions,
        ),
        ("resource groups", &a.resource_groups, &b.resource_groups),
        ("foreign servers", &a.servers, &b.servers),
    ] {
        if a != b {
            return Some(what.to_owned());
        }
    }
    for (a, b) in before.tables.iter().zip(&after.tables) {
        let same = (&a.database, &a.name, &a.created, &a.columns)
            == (&b.database, &b.name, &b.created, &b.columns)
            && create_digest(a) == create_digest(b);
        if !same {
            return Some(format!("table {}", a.display_name()));
        }
    }
    if before.tables.len() != after.tables.len() {
        return Some("the list of tables".to_owned());
    }
    for (what, a, b) in [
        ("routines", &before.routines, &after.routines),
        ("views", &before.views, &after.views),
        ("invalid views", &before.invalid_views, &after.invalid_views),
        ("triggers", &before.triggers, &after.triggers),
        ("events", &before.events, &after.events),
    ] {
        if a != b {
            return Some(what.to_owned());
        }
    }
    if before.cut_views != after.cut_views {
        return Some("views".to_owned());
    }
    (before.accounts != after.accounts).then(|| "accounts".to_owned())
}

/// The statement without the next AUTO_INCREMENT value.
pub(super) fn without_auto_increment(create: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b" AUTO_INCREMENT=";
    // The option stands behind the last parenthesis of the columns; a comment that holds the
    // same text only loses its digits in the digest.
    let Some(at) = memchr::memmem::rfind(create, NAME) else {
        return create.to_vec();
    };
    let digits = create[at + NAME.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let mut without = create[..at].to_vec();
    without.extend_from_slice(&create[at + NAME.len() + digits..]);
    without
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_auto_increment_is_no_change_of_the_schema() {
        let create = b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=12 DEFAULT CHARSET=utf8mb4";
        assert_eq!(
            without_auto_increment(create),
            b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        );
        assert_eq!(without_auto_increment(b"CREATE TABLE x"), b"CREATE TABLE x");
    }
}
