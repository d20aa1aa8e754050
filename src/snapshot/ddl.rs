//! The schema and the accounts as scripts.

use crate::archive::manifest::{Needs, ScriptKind, TableEntry};
use crate::archive::rows::load_statement;
use crate::archive::script::{Script, of_account, of_object};
use crate::gtid::GtidSet;
use crate::mysql::quote;
use crate::mysql::schema::{
    Account, Context, Database, Histogram, InstanceObject, Schema, StoredObject, Table,
};

use super::changes::without_auto_increment;

/// A script with what it makes.
pub(super) struct KindScript {
    pub(super) kind: ScriptKind,
    pub(super) objects: u64,
    pub(super) script: Script,
}

/// The scripts of a schema in the order of running; kinds without objects are left out.
pub(super) fn scripts(schema: &Schema) -> Vec<KindScript> {
    let instance = |kind, objects: &[InstanceObject]| KindScript {
        kind,
        objects: objects.len() as u64,
        script: instance_objects(objects),
    };
    let stored = |kind, objects: &[StoredObject]| KindScript {
        kind,
        objects: objects.len() as u64,
        script: stored_objects(objects, &schema.databases),
    };
    let cut = schema.cut_views.iter().map(|cut| cut.view.clone());
    let doubtful: Vec<StoredObject> = schema.invalid_views.iter().cloned().chain(cut).collect();
    let of = &schema.instance;
    let scripts = [
        instance(ScriptKind::Tablespaces, &of.tablespaces),
        instance(
            ScriptKind::SpatialReferenceSystems,
            &of.spatial_reference_systems,
        ),
        instance(ScriptKind::LoadableFunctions, &of.loadable_functions),
        instance(ScriptKind::ResourceGroups, &of.resource_groups),
        instance(ScriptKind::Servers, &of.servers),
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
        KindScript {
            kind: ScriptKind::Histograms,
            objects: schema.histograms.len() as u64,
            script: histograms(&schema.histograms),
        },
        stored(ScriptKind::Routines, &schema.routines),
        stored(ScriptKind::Views, &schema.views),
        stored(ScriptKind::InvalidViews, &doubtful),
        stored(ScriptKind::Triggers, &schema.triggers),
        stored(ScriptKind::Events, &schema.events),
        read_only(&schema.databases),
    ];
    scripts
        .into_iter()
        .filter(|script| script.objects > 0)
        .collect()
}

/// The statements that load the rows and set the GTIDs. Quillback's own load does without them;
/// they are for whoever restores with the `mysql` client, from within the snapshot's folder.
pub(super) fn by_hand(tables: &[TableEntry], gtid_executed: &GtidSet) -> Vec<KindScript> {
    let mut rows = Script::new();
    rows.push(
        "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', foreign_key_checks = 0, \
         unique_checks = 0, time_zone = '+00:00'",
    );
    let mut files = 0;
    for table in tables {
        for file in &table.files {
            let key = file.file.key.to_string();
            let path = key.strip_suffix(".zst").unwrap_or(&key);
            let load = load_statement(table).replacen("'quillback'", &quote::string(path), 1);
            rows.push(of_object(&[&table.database, &table.name], load.as_bytes()));
            files += 1;
        }
    }
    let mut gtids = Script::new();
    let set = gtid_executed.to_string().replace(['\n', ' '], "");
    gtids.push(format!("SET GLOBAL gtid_purged = {}", quote::string(&set)));
    let mut scripts = vec![KindScript {
        kind: ScriptKind::Gtids,
        objects: 1,
        script: gtids,
    }];
    if files > 0 {
        scripts.push(KindScript {
            kind: ScriptKind::Rows,
            objects: files,
            script: rows,
        });
    }
    scripts
}

/// What the server of a restore must have.
pub(super) fn needs(schema: &Schema) -> Needs {
    let tablespaces = schema.instance.tablespaces.iter();
    let tablespaces = tablespaces
        .filter(|tablespace| tablespace.encrypted)
        .map(|tablespace| format!("tablespace {}", tablespace.name));
    let tables = schema.tables.iter().filter(|table| table.encrypted);
    let tables = tables.map(|table| format!("table {}", table.display_name()));
    let zones = schema.events.iter();
    let mut time_zones: Vec<String> = zones
        .filter_map(|event| event.context.time_zone.clone())
        .filter(|zone| zone != "SYSTEM" && !zone.starts_with(['+', '-']))
        .collect();
    time_zones.sort();
    time_zones.dedup();
    Needs {
        keyring: tablespaces.chain(tables).collect(),
        time_zones,
    }
}

/// The accounts: first all CREATE USER, then second passwords and all grants, since a grant names
/// roles; last what passwords were, which the statements before add to.
pub(super) fn accounts(schema: &Schema) -> KindScript {
    let mut script = Script::new();
    script.push("SET NAMES utf8mb4, SESSION sql_mode = ''");
    let mut push = |account: &Account, statement: &[u8]| {
        script.push(of_account(&account.user, &account.host, statement));
    };
    for account in &schema.accounts {
        push(account, &account.create);
    }
    for account in &schema.accounts {
        for statement in second_password(account) {
            push(account, statement.as_bytes());
        }
    }
    for account in &schema.accounts {
        for grant in &account.grants {
            push(account, grant);
        }
    }
    for account in &schema.accounts {
        for statement in used_passwords(account) {
            push(account, statement.as_bytes());
        }
    }
    KindScript {
        kind: ScriptKind::Accounts,
        objects: schema.accounts.len() as u64,
        script,
    }
}

/// The older password is set, and then the present one beside it.
fn second_password(account: &Account) -> Vec<String> {
    let Some(second) = &account.second_password else {
        return Vec::new();
    };
    let set = |hash: &[u8], retain: &str| {
        format!(
            "ALTER USER {} IDENTIFIED WITH {} AS {}{retain}",
            account.quoted(),
            quote::escaped(&second.plugin),
            quote::bytes(hash)
        )
    };
    vec![
        set(&second.older, ""),
        set(&second.present, " RETAIN CURRENT PASSWORD"),
    ]
}

/// There is no statement for them but an INSERT into the server's own table.
fn used_passwords(account: &Account) -> Vec<String> {
    if account.used_passwords.is_empty() {
        return Vec::new();
    }
    let (user, host) = (quote::string(&account.user), quote::string(&account.host));
    let rows: Vec<String> = account
        .used_passwords
        .iter()
        .map(|used| {
            let hash = used
                .hash
                .as_deref()
                .map_or("NULL".to_owned(), quote::string);
            format!("({host}, {user}, {}, {hash})", quote::string(&used.set))
        })
        .collect();
    vec![
        format!("DELETE FROM mysql.password_history WHERE User = {user} AND Host = {host}"),
        format!(
            "INSERT INTO mysql.password_history (Host, User, Password_timestamp, Password) VALUES {}",
            rows.join(", ")
        ),
    ]
}

/// A backslash in a text of these statements is an escape.
const ESCAPED_TEXTS: &str = "SET SESSION sql_mode = ''";

fn instance_objects(objects: &[InstanceObject]) -> Script {
    let mut script = Script::new();
    script.push("SET NAMES utf8mb4");
    script.push(ESCAPED_TEXTS);
    for object in objects {
        script.push(of_object(&[&object.name], &object.create));
    }
    script
}

fn histograms(histograms: &[Histogram]) -> Script {
    let mut script = Script::new();
    script.push("SET NAMES utf8mb4");
    script.push(ESCAPED_TEXTS);
    for histogram in histograms {
        let names = [
            histogram.database.as_str(),
            histogram.table.as_str(),
            histogram.column.as_str(),
        ];
        script.push(of_object(&names, &histogram.create));
    }
    script
}

fn read_only(databases: &[Database]) -> KindScript {
    let mut script = Script::new();
    let mut objects = 0;
    for database in databases.iter().filter(|database| database.read_only) {
        let sql = format!(
            "ALTER DATABASE {} READ ONLY = 1",
            quote::identifier(&database.name)
        );
        script.push(of_object(&[&database.name], sql.as_bytes()));
        objects += 1;
    }
    KindScript {
        kind: ScriptKind::ReadOnly,
        objects,
        script,
    }
}

fn databases(databases: &[Database]) -> Script {
    let mut script = Script::new();
    script.push("SET NAMES utf8mb4");
    for database in databases {
        script.push(of_object(&[&database.name], &database.create));
    }
    script
}

/// What the dump holds was legal once: neither order nor today's strictness may refuse it, and no
/// table may end up in another engine or with a key that it does not have. (A version comment is a
/// setting that came with that version.)
const FOR_TABLES: &str = "SET SESSION sql_mode = \
     'NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES', \
     foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00', innodb_strict_mode = 0\
     /*!80013 , sql_require_primary_key = 0 */\
     /*!80030 , sql_generate_invisible_primary_key = 0 */";

fn tables(tables: &[Table]) -> Script {
    let mut script = Script::new();
    script.push("SET NAMES utf8mb4");
    script.push(FOR_TABLES);
    let mut current: Option<&str> = None;
    for table in tables {
        if current != Some(table.database.as_str()) {
            script.push(format!("USE {}", quote::identifier(&table.database)));
            current = Some(&table.database);
        }
        let create = table.corrected.as_ref().unwrap_or(&table.create);
        // ARCHIVE takes no row below its next AUTO_INCREMENT value, and finds that value itself.
        let is_archive = table.engine.eq_ignore_ascii_case("ARCHIVE");
        if is_archive {
            let create = without_auto_increment(create);
            script.push(of_object(&[&table.database, &table.name], &create));
        } else {
            script.push(of_object(&[&table.database, &table.name], create));
        }
        let moved = table.auto_increment_moved && !is_archive;
        if let Some(next) = table.auto_increment.filter(|_| moved) {
            let quoted = quote::qualified(&table.database, &table.name);
            let sql = format!("ALTER TABLE {quoted} AUTO_INCREMENT = {next}");
            script.push(of_object(&[&table.database, &table.name], sql.as_bytes()));
        }
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
        script.push(of_object(&[&object.database, &object.name], &object.create));
        if let (Some(_), Some(now)) = (other, now) {
            script.push("SET NAMES utf8mb4");
            script.push(format!(
                "ALTER DATABASE {quoted} COLLATE {}",
                quote::identifier(now)
            ));
        }
    }
    if objects
        .iter()
        .any(|object| object.context.created.is_some())
    {
        script.push("SET SESSION timestamp = DEFAULT");
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
    if let Some(created) = &context.created {
        sql.push_str(", timestamp = ");
        sql.push_str(created);
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::schema::ObjectKind;

    fn table(engine: &str) -> Table {
        Table {
            database: "d".to_owned(),
            name: "t".to_owned(),
            engine: engine.to_owned(),
            columns: Vec::new(),
            primary_key: Vec::new(),
            create: b"CREATE TABLE `t` (\n) ENGINE=X AUTO_INCREMENT=7".to_vec(),
            auto_increment: Some(9),
            auto_increment_moved: true,
            encrypted: false,
            corrected: None,
            created: String::new(),
            estimated_rows: 0,
            data_bytes: 0,
        }
    }

    #[test]
    fn no_value_of_auto_increment_is_given_out_twice() {
        let texts = |table: Table| -> Vec<String> {
            let script = tables(&[table]);
            let statements = script.statements().iter().skip(3);
            statements
                .map(|statement| String::from_utf8_lossy(statement).into_owned())
                .collect()
        };
        assert_eq!(
            texts(table("InnoDB")),
            [
                "-- object [\"d\",\"t\"]\nCREATE TABLE `t` (\n) ENGINE=X AUTO_INCREMENT=7",
                "-- object [\"d\",\"t\"]\nALTER TABLE `d`.`t` AUTO_INCREMENT = 9",
            ]
        );
        assert_eq!(
            texts(table("ARCHIVE")),
            ["-- object [\"d\",\"t\"]\nCREATE TABLE `t` (\n) ENGINE=X"]
        );
        let mut still = table("InnoDB");
        still.auto_increment_moved = false;
        assert_eq!(texts(still).len(), 1);
    }

    #[test]
    fn second_passwords_are_put_back_in_their_order() {
        let account = Account {
            user: "u".to_owned(),
            host: "%".to_owned(),
            create: Vec::new(),
            grants: Vec::new(),
            second_password: Some(crate::mysql::schema::SecondPassword {
                plugin: "p".to_owned(),
                older: b"\x01old".to_vec(),
                present: b"new".to_vec(),
            }),
            used_passwords: vec![crate::mysql::schema::UsedPassword {
                set: "2026-01-01 00:00:00.000001".to_owned(),
                hash: None,
            }],
        };
        assert_eq!(
            second_password(&account),
            [
                "ALTER USER `u`@`%` IDENTIFIED WITH 'p' AS 0x016F6C64",
                "ALTER USER `u`@`%` IDENTIFIED WITH 'p' AS 0x6E6577 RETAIN CURRENT PASSWORD",
            ]
        );
        let used = used_passwords(&account);
        assert!(used[0].starts_with("DELETE FROM mysql.password_history WHERE User = 'u'"));
        assert!(used[1].ends_with("('%', 'u', '2026-01-01 00:00:00.000001', NULL)"));
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
                created: Some("1700000000".to_owned()),
            },
        };
        let database = Database {
            name: "d".to_owned(),
            create: Vec::new(),
            collation: "utf8mb4_bin".to_owned(),
            encrypted: false,
            read_only: false,
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
                 SESSION sql_mode = 'ANSI', time_zone = 'SYSTEM', timestamp = 1700000000",
                "-- object [\"d\",\"e\"]\nCREATE EVENT `e` ...",
                "SET NAMES utf8mb4",
                "ALTER DATABASE `d` COLLATE `utf8mb4_bin`",
                "SET SESSION timestamp = DEFAULT",
            ]
        );
    }
}
