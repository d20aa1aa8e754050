//! Views, each after those that it reads.
//!
//! The server knows which tables, views and functions a view reads. From that comes the order in
//! which views can be made again, and which ones cannot, since the filter leaves out what they
//! read. Views that the server calls invalid (what they read is gone, or their definer is) are kept
//! apart, and so are those that read through a definer who is gone, of which it does not say so: each may
//! be made again or not.

use std::collections::{BTreeMap, BTreeSet};

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::objects::{Context, ObjectKind, StoredObject};
use super::order::topological;
use super::{Filter, is_system, not_system, shown};

/// Schema and name.
type Key = (String, String);

/// A view that reads what the filter leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutView {
    /// The view.
    pub view: StoredObject,
    /// One of the things that it reads and that are left out, as `schema.name`.
    pub lacks: String,
}

/// The views that pass, by what can be expected of them.
pub(super) struct Views {
    pub(super) sound: Vec<StoredObject>,
    pub(super) broken: Vec<StoredObject>,
    pub(super) cut: Vec<CutView>,
}

/// Reads the views.
pub(super) async fn load(session: &mut Session, filter: &Filter) -> Result<Views, MysqlError> {
    // The server says in the comment of a view that what it reads is gone.
    let rows: Vec<(String, String, String)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_COMMENT FROM information_schema.TABLES \
             WHERE TABLE_TYPE = 'VIEW' AND {} ORDER BY BINARY TABLE_SCHEMA, BINARY TABLE_NAME",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let mut views = Vec::new();
    let mut broken: BTreeSet<Key> = BTreeSet::new();
    for (database, name, comment) in rows {
        if !filter.passes(&database, &name) {
            continue;
        }
        if comment.contains("references invalid table(s) or column(s)") {
            broken.insert((database.clone(), name.clone()));
        }
        let quoted = quote::qualified(&database, &name);
        let (_, create, client, collation): (Vec<u8>, Option<Vec<u8>>, String, String) = session
            .query_one(format!("SHOW CREATE VIEW {quoted}"))
            .await
            .map_err(|error| error.of(format!("view {quoted}")))?;
        views.push(StoredObject {
            kind: ObjectKind::View,
            create: shown(create, "view", &quoted)?,
            database,
            name,
            context: Context {
                character_set_client: client,
                collation_connection: collation,
                ..Context::default()
            },
        });
    }
    let tables = needs(
        session,
        "VIEW_TABLE_USAGE",
        "VIEW_SCHEMA, VIEW_NAME, TABLE_SCHEMA, TABLE_NAME",
    )
    .await?;
    let functions = needs(
        session,
        "VIEW_ROUTINE_USAGE",
        "TABLE_SCHEMA, TABLE_NAME, SPECIFIC_SCHEMA, SPECIFIC_NAME",
    )
    .await?;
    let orphans = orphans(session).await?;
    Ok(sort(views, &broken, &orphans, &tables, &functions, filter))
}

/// Views and functions that act for a definer who does not exist: nothing can be made that reads
/// through them.
async fn orphans(session: &mut Session) -> Result<BTreeSet<Key>, MysqlError> {
    let rows: Vec<Key> = session
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS \
             WHERE SECURITY_TYPE = 'DEFINER' AND CONVERT(DEFINER USING utf8mb4) NOT IN \
             (SELECT CONVERT(CONCAT(User, '@', Host) USING utf8mb4) FROM mysql.user) \
             UNION SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES \
             WHERE SECURITY_TYPE = 'DEFINER' AND ROUTINE_TYPE = 'FUNCTION' \
             AND CONVERT(DEFINER USING utf8mb4) NOT IN \
             (SELECT CONVERT(CONCAT(User, '@', Host) USING utf8mb4) FROM mysql.user)",
        )
        .await?;
    Ok(rows.into_iter().collect())
}

fn key(view: &StoredObject) -> Key {
    (view.database.clone(), view.name.clone())
}

fn sort(
    views: Vec<StoredObject>,
    broken: &BTreeSet<Key>,
    orphans: &BTreeSet<Key>,
    tables: &BTreeMap<Key, BTreeSet<Key>>,
    functions: &BTreeMap<Key, BTreeSet<Key>>,
    filter: &Filter,
) -> Views {
    let mut sorted = Views {
        sound: Vec::new(),
        broken: Vec::new(),
        cut: Vec::new(),
    };
    let mut cut: BTreeSet<Key> = BTreeSet::new();
    let mut lost = broken.clone();
    // In this order a view comes after all views that it reads, so one look at each is enough.
    for view in topological(views, key, tables) {
        let own = key(&view);
        let none = BTreeSet::new();
        let read = tables.get(&own).unwrap_or(&none);
        let called = functions.get(&own).unwrap_or(&none);
        let lacks = read.iter().chain(called).find(|(database, name)| {
            let needed = (database.clone(), name.clone());
            cut.contains(&needed) || (!is_system(database) && !filter.passes(database, name))
        });
        match lacks {
            Some((database, name)) => {
                let lacks = format!("{database}.{name}");
                cut.insert(own);
                sorted.cut.push(CutView { view, lacks });
            }
            None if lost.contains(&own)
                || read
                    .iter()
                    .chain(called)
                    .any(|needed| orphans.contains(needed) || lost.contains(needed)) =>
            {
                lost.insert(own);
                sorted.broken.push(view);
            }
            None => sorted.sound.push(view),
        }
    }
    sorted
}

async fn needs(
    session: &mut Session,
    usage: &str,
    columns: &str,
) -> Result<BTreeMap<Key, BTreeSet<Key>>, MysqlError> {
    let rows: Vec<(String, String, String, String)> = session
        .query(format!("SELECT {columns} FROM information_schema.{usage}"))
        .await?;
    let mut needs: BTreeMap<Key, BTreeSet<Key>> = BTreeMap::new();
    for (view_database, view, database, name) in rows {
        needs
            .entry((view_database, view))
            .or_default()
            .insert((database, name));
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str) -> StoredObject {
        StoredObject {
            kind: ObjectKind::View,
            database: "d".to_owned(),
            name: name.to_owned(),
            create: Vec::new(),
            context: Context::default(),
        }
    }

    fn of(database: &str, name: &str) -> Key {
        (database.to_owned(), name.to_owned())
    }

    #[test]
    fn what_reads_what_is_left_out_is_known_through_other_views() {
        let filter = Filter {
            include: Vec::new(),
            exclude: vec![
                "d.secret".parse().expect("a pattern"),
                "d.f".parse().expect("a pattern"),
            ],
        };
        let tables = BTreeMap::from([
            (of("d", "a"), BTreeSet::from([of("d", "c")])),
            (
                of("d", "b"),
                BTreeSet::from([of("mysql", "user"), of("d", "item")]),
            ),
            (of("d", "c"), BTreeSet::from([of("d", "secret")])),
            (of("d", "h"), BTreeSet::from([of("d", "i")])),
        ]);
        let functions = BTreeMap::from([(of("d", "e"), BTreeSet::from([of("d", "f")]))]);
        let broken = BTreeSet::from([of("d", "g")]);
        let orphans = BTreeSet::from([of("d", "b"), of("d", "i")]);
        let views = ["a", "b", "c", "e", "g", "h", "i"].map(view).to_vec();
        let sorted = sort(views, &broken, &orphans, &tables, &functions, &filter);
        let names =
            |views: &[StoredObject]| views.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&sorted.sound), ["b", "i"]);
        assert_eq!(names(&sorted.broken), ["g", "h"]);
        let cut: Vec<(&str, &str)> = sorted
            .cut
            .iter()
            .map(|cut| (cut.view.name.as_str(), cut.lacks.as_str()))
            .collect();
        assert_eq!(cut, [("c", "d.secret"), ("e", "d.f"), ("a", "d.c")]);
    }
}
