//! The schema and the accounts as scripts, and the proof that they did not change meanwhile.

use crate::archive::hash::{Sha256, sha256};
use crate::archive::manifest::ScriptKind;
use crate::archive::script::{Script, of_account};
use crate::mysql::quote;
use crate::mysql::schema::{Context, Database, Schema, StoredObject, Table};

/// A script with what it makes.
pub(super) struct KindScript {
    pub(super) kind: ScriptKind,
    pub(super) objects: u64,
    pub(super) script: Script,
}

/// The scripts of a schema in the order of running; kinds without objects are left out.
pub(super) fn scripts(schema: &Schema) -> Vec<KindScript> {
    let stored = |kind, objects: &[StoredObject]| KindScript {
        kind,
        objects: objects.len() as u64,
        script: stored_objects(objects, &schema.databases),
    };
    let scripts = [
        KindScript {
            kind: ScriptKind::Databases,
            objects: schema.databases.len() as u64,
            script: databases(&schema.databases),
        },
        KindScript {
            kind: ScriptKind::Tables,
            objects: schema.tables.len() as u64,
            script: tables(&schema.tables),
        },
        stored(ScriptKind::Routines, &schema.routines),
        stored(ScriptKind::Views, &schema.views),
        stored(ScriptKind::InvalidViews, &schema.invalid_views),
        stored(ScriptKind::Triggers, &schema.triggers),
        stored(ScriptKind::Events, &schema.events),
    ];
    scripts
        .into_iter()
        .filter(|script| script.objects > 0)
        .collect()
}

/// The accounts: first all CREATE USER, then all grants, since a grant names roles.
pub(super) fn accounts(schema: &Schema) -> KindScript {
    let mut script = Script::new();
    for account in &schema.accounts {
        script.push(of_account(&account.user, &account.host, &account.create));
    }
    for account in &schema.accounts {
        for grant in &account.grants {
            script.push(of_account(&account.user, &account.host, grant));
        }
    }
    KindScript {
        kind: ScriptKind::Accounts,
        objects: schema.accounts.len() as u64,
        script,
    }
}

fn databases(databases: &[Database]) -> Script {
    let mut script = Script::new();
    for database in databases {
        script.push(database.create.clone());
    }
    script
}

fn tables(tables: &[Table]) -> Script {
    let mut script = Script::new();
    // What the dump holds was legal once: neither order nor today's strictness may refuse it.
    script.push("SET NAMES utf8mb4");
    script.push(
        "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, \
         unique_checks = 0, time_zone = '+00:00'",
    );
    let mut current: Option<&str> = None;
    for table in tables {
        if current != Some(table.database.as_str()) {
            script.push(format!("USE {}", quote::identifier(&table.database)));
            current = Some(&table.database);
        }
        script.push(table.create.clone());
    }
    script
}

fn stored_objects(objects: &[StoredObject], databases: &[Database]) -> Script {
    let mut script = Script::new();
    for object in objects {
        let quoted = quote::identifier(&object.database);
        script.push("SET NAMES utf8mb4");
        script.push(format!("USE {quoted}"));
        let now = databases
            .iter()
            .find(|database| database.name == object.database)
            .map(|database| database.collation.as_str());
        // The object remembers the schema's collation of its creation; where the schema has
        // another one by now, it is put back for a moment.
        let then = object.context.database_collation.as_deref();
        let other = then.filter(|then| now.is_some_and(|now| now != *then));
        if let Some(then) = other {
            script.push(format!(
                "ALTER DATABASE {quoted} COLLATE {}",
                quote::identifier(then)
            ));
        }
        script.push(settings(&object.context));
        script.push(object.create.clone());
        if let (Some(_), Some(now)) = (other, now) {
            script.push("SET NAMES utf8mb4");
            script.push(format!(
                "ALTER DATABASE {quoted} COLLATE {}",
                quote::identifier(now)
            ));
        }
    }
    script
}

fn settings(context: &Context) -> String {
    let mut sql = format!(
        "SET character_set_client = {}, collation_connection = {}, SESSION sql_mode = {}",
        quote::string(&context.character_set_client),
        quote::string(&context.collation_connection),
        quote::string(context.sql_mode.as_deref().unwrap_or_default()),
    );
    if let Some(zone) = &context.time_zone {
        sql.push_str(", time_zone = ");
        sql.push_str(&quote::string(zone));
    }
    sql
}

/// The SHA-256 of a table's CREATE statement without its moving part, the next AUTO_INCREMENT.
pub(super) fn create_digest(table: &Table) -> Sha256 {
    sha256(&without_auto_increment(&table.create))
}

/// The first difference that DDL made, if there is any.
pub(super) fn difference(before: &Schema, after: &Schema) -> Option<String> {
    if before.databases != after.databases {
        return Some("the list of schemas".to_owned());
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
    (before.accounts != after.accounts).then(|| "accounts".to_owned())
}

fn without_auto_increment(create: &[u8]) -> Vec<u8> {
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
    use crate::mysql::schema::ObjectKind;

    #[test]
    fn the_next_auto_increment_is_no_change_of_the_schema() {
        let create = b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=12 DEFAULT CHARSET=utf8mb4";
        assert_eq!(
            without_auto_increment(create),
            b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        );
        assert_eq!(without_auto_increment(b"CREATE TABLE x"), b"CREATE TABLE x");
    }

    #[test]
    fn an_object_is_made_under_the_settings_of_its_creation() {
        let event = StoredObject {
            kind: ObjectKind::Event,
            database: "d".to_owned(),
            name: "e".to_owned(),
            create: b"CREATE EVENT `e` ...".to_vec(),
            context: Context {
                sql_mode: Some("ANSI".to_owned()),
                character_set_client: "latin1".to_owned(),
                collation_connection: "latin1_swedish_ci".to_owned(),
                database_collation: Some("latin1_bin".to_owned()),
                time_zone: Some("SYSTEM".to_owned()),
            },
        };
        let database = Database {
            name: "d".to_owned(),
            create: Vec::new(),
            collation: "utf8mb4_bin".to_owned(),
        };
        let script = stored_objects(&[event], &[database]);
        let statements: Vec<&str> = script
            .statements()
            .iter()
            .map(|statement| std::str::from_utf8(statement).expect("ASCII"))
            .collect();
        assert_eq!(
            statements,
            [
                "SET NAMES utf8mb4",
                "USE `d`",
                "ALTER DATABASE `d` COLLATE `latin1_bin`",
                "SET character_set_client = 'latin1', collation_connection = 'latin1_swedish_ci', \
                 SESSION sql_mode = 'ANSI', time_zone = 'SYSTEM'",
                "CREATE EVENT `e` ...",
                "SET NAMES utf8mb4",
                "ALTER DATABASE `d` COLLATE `utf8mb4_bin`",
            ]
        );
    }
}
