//! What `quillback grants --for snapshot` prints is enough, and nothing of it is too much: each
//! privilege that is taken away is refused by name before anything is begun, or costs what is said.

use anyhow::{Context as _, Result};
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use quillback::archive::manifest::{Manifest, ScriptKind};
use quillback::error::{Class, Classified as _};
use quillback::mysql::grants::{AccountName, Purpose, Statements, needs};
use quillback::mysql::{ServerUrl, ServerVersion};
use quillback::snapshot::{LockMode, SnapshotError, SnapshotOptions};
use quillback::storage::list_all;
use quillback_harness::{Server, ServerOptions};

use crate::support::{exec_all, manifest, memory, on_primary, snapshot, url};

/// A little of everything that an account may fail to see, made by others than it.
const OBJECTS: &[&str] = &[
    "CREATE DATABASE shop",
    "CREATE DATABASE secret",
    "CREATE TABLE shop.item (id INT PRIMARY KEY, n INT, twice INT AS (n * 2))",
    "INSERT INTO shop.item (id, n) VALUES (1, 10), (2, 20)",
    "CREATE TABLE shop.log (id INT PRIMARY KEY AUTO_INCREMENT, what TEXT)",
    "CREATE TABLE secret.note (id INT PRIMARY KEY, text TEXT)",
    "INSERT INTO secret.note VALUES (1, 'hush')",
    "CREATE TABLESPACE apart ADD DATAFILE 'apart.ibd'",
    "CREATE TABLE shop.apart (id INT PRIMARY KEY) TABLESPACE apart",
    "CREATE RESOURCE GROUP slow TYPE = USER",
    "CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', HOST 'h')",
    "ANALYZE TABLE shop.item UPDATE HISTOGRAM ON n",
    "CREATE ROLE clerk",
    "CREATE USER ann IDENTIFIED BY 'ann-for-tests' DEFAULT ROLE clerk",
    "GRANT SELECT ON shop.* TO clerk",
    "CREATE DEFINER = ann SQL SECURITY INVOKER VIEW shop.dear AS SELECT id FROM shop.item WHERE n > 10",
    "CREATE VIEW shop.dearer AS SELECT id FROM shop.dear",
    "CREATE DEFINER = ann TRIGGER shop.noted AFTER INSERT ON shop.item FOR EACH ROW \
     INSERT INTO shop.log (what) VALUES ('item')",
    "CREATE TRIGGER secret.noted BEFORE INSERT ON secret.note FOR EACH ROW SET NEW.text = 'x'",
    "CREATE DEFINER = ann PROCEDURE shop.tidy() DELETE FROM shop.log",
    "CREATE DEFINER = ann FUNCTION shop.one() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE DEFINER = ann EVENT shop.nightly ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM shop.log",
];

/// The statements that an administrator would run.
fn statements(account: &str) -> Result<Statements> {
    let version = ServerVersion::parse("8.4.0")?;
    Ok(Statements::compute(
        &account.parse::<AccountName>()?,
        &[Purpose::Snapshot],
        &version,
    ))
}

/// Runs them, and gives the password that the server has made up.
async fn make(server: &Server, statements: &Statements) -> Result<String> {
    let mut conn = server.conn().await?;
    let rows: Vec<Row> = conn.query(&statements.create).await?;
    let password: String = rows
        .first()
        .and_then(|row| row.get("generated password"))
        .context("no password is shown")?;
    for grant in &statements.grants {
        conn.query_drop(&grant.sql)
            .await
            .with_context(|| grant.sql.clone())?;
    }
    conn.disconnect().await?;
    Ok(password)
}

fn login(server: &Server, user: &str, password: &str) -> ServerUrl {
    url(server).with_login(user, Some(password.into()))
}

/// How often the server was told to lock something or to open a view for reading.
async fn begun(server: &Server) -> Result<u64> {
    server
        .one(
            "SELECT CAST(SUM(COUNT_STAR) AS UNSIGNED) \
             FROM performance_schema.events_statements_summary_global_by_event_name \
             WHERE EVENT_NAME IN ('statement/sql/begin', 'statement/sql/flush', \
             'statement/sql/lock_instance', 'statement/sql/lock_tables')",
        )
        .await
}

/// What a snapshot holds besides the accounts, whose grants the tests change, and the GTID set,
/// which that moves on.
fn content(manifest: &Manifest) -> Vec<String> {
    let scripts = manifest
        .schema
        .iter()
        .filter(|script| script.kind != ScriptKind::Gtids)
        .map(|script| format!("{}: {} {}", script.kind, script.objects, script.file.sha256));
    let tables = manifest.tables.iter().map(|table| {
        format!(
            "{}: {} {} {}",
            table.display_name(),
            table.rows,
            table.row_checksum,
            table.create_sha256
        )
    });
    scripts.chain(tables).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_and_each_privilege_counts() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, OBJECTS).await?;
    let printed = statements("backup")?;
    let password = make(&server, &printed).await?;
    let login = [login(&server, "backup", &password)];
    let options = on_primary();

    let storage = memory();
    let report = snapshot(&[url(&server)], &options, &storage).await?;
    let by_root = manifest(&*storage, &report).await?;
    let storage = memory();
    let report = snapshot(&login, &options, &storage).await?;
    assert_eq!(report.warnings, by_root.warnings, "nothing is lost");
    let by_backup = manifest(&*storage, &report).await?;
    let whole = content(&by_root);
    let has = |what: &str| whole.iter().any(|line| line.starts_with(what));
    for what in [
        "tablespaces",
        "resource groups",
        "foreign servers",
        "histograms",
        "events",
    ] {
        assert!(has(what), "no {what} in {whole:#?}");
    }
    assert_eq!(content(&by_backup), whole);
    assert_eq!(by_backup.accounts.file.sha256, by_root.accounts.file.sha256);

    for (grant, need) in printed
        .grants
        .iter()
        .flat_map(|grant| grant.needs.iter().map(move |(_, need)| (grant, need)))
    {
        let name = need.privilege;
        let revoke = format!("REVOKE {name} ON {} FROM backup", need.on);
        server.exec(&revoke).await.with_context(|| revoke.clone())?;
        let before = begun(&server).await?;
        let storage = memory();
        let taken = snapshot(&login, &options, &storage).await;
        match taken {
            Err(error) => {
                assert!(need.is_required(), "without {name}: {error}");
                assert_eq!(error.class(), Class::Authentication, "{name}: {error}");
                assert!(
                    matches!(error, SnapshotError::MissingPrivileges { .. }),
                    "{name}: {error}"
                );
                let text = error.to_string();
                assert!(text.contains(&format!("lacks {name} on *.*")), "{text}");
                assert!(text.contains("backup@%"), "{text}");
                assert_eq!(begun(&server).await?, before, "without {name}");
                let objects = list_all(&*storage, "", None).await?;
                assert!(objects.is_empty(), "without {name}: {objects:?}");
            }
            Ok(report) => {
                assert!(!need.is_required(), "without {name}: {report:?}");
                assert!(begun(&server).await? > before, "a view is opened");
                let told = format!("without {name} {}", need.loss().unwrap_or_default());
                assert!(report.warnings.contains(&told), "{:?}", report.warnings);
                let manifest = manifest(&*storage, &report).await?;
                let mut expected = whole.clone();
                if name == "RESOURCE_GROUP_USER" {
                    expected.retain(|line| !line.starts_with("resource groups"));
                }
                assert_eq!(content(&manifest), expected, "without {name}");
                if name == "BACKUP_ADMIN" {
                    assert!(!manifest.consistency.backup_lock);
                }
            }
        }
        server.exec(&grant.sql).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_asked_for_needs_its_privilege() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, OBJECTS).await?;
    let password = make(&server, &statements("backup")?).await?;
    let login = [login(&server, "backup", &password)];
    let flush = SnapshotOptions {
        lock: LockMode::Flush,
        ..on_primary()
    };
    snapshot(&login, &flush, &memory()).await?;
    server
        .exec("REVOKE FLUSH_TABLES ON *.* FROM backup")
        .await?;
    let error = snapshot(&login, &flush, &memory())
        .await
        .expect_err("a lock is asked for");
    assert!(error.to_string().contains("lacks FLUSH_TABLES"), "{error}");
    assert_eq!(error.class(), Class::Authentication);
    // What serves as well.
    server.exec("GRANT RELOAD ON *.* TO backup").await?;
    snapshot(&login, &flush, &memory()).await?;
    // Who wants no lock is not told that there can be none.
    server.exec("REVOKE RELOAD ON *.* FROM backup").await?;
    let none = SnapshotOptions {
        lock: LockMode::None,
        ..on_primary()
    };
    let report = snapshot(&login, &none, &memory()).await?;
    let told = report.warnings.iter().any(|text| text.contains("FLUSH"));
    assert!(!told, "{:?}", report.warnings);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileges_by_roles_count_when_the_roles_are_active() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, OBJECTS).await?;
    for user in ["by_role", "mandatory"] {
        server
            .exec(&format!("CREATE USER {user} IDENTIFIED BY 'pw-for-tests'"))
            .await?;
    }
    server.exec("CREATE ROLE `backup ON *.* TO`").await?;
    for grant in statements("backup ON *.* TO")?.grants {
        server.exec(&grant.sql).await?;
    }
    server.exec("GRANT `backup ON *.* TO` TO by_role").await?;
    let take = async |user: &str| {
        let login = [login(&server, user, "pw-for-tests")];
        snapshot(&login, &on_primary(), &memory()).await
    };
    let error = take("by_role").await.expect_err("the role sleeps");
    assert_eq!(error.class(), Class::Authentication, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("its role backup ON *.* TO@% is not active"),
        "{text}"
    );
    server.exec("SET DEFAULT ROLE ALL TO by_role").await?;
    let report = take("by_role").await?;
    assert_eq!(report.warnings, [""; 0]);

    // The server may wake roles by itself, and give some to everybody.
    server.exec("SET DEFAULT ROLE NONE TO by_role").await?;
    server
        .exec("SET GLOBAL activate_all_roles_on_login = ON")
        .await?;
    take("by_role").await?;
    take("mandatory").await.expect_err("it has nothing");
    server
        .exec("SET GLOBAL mandatory_roles = '`backup ON *.* TO`'")
        .await?;
    take("mandatory").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_partial_revoke_hides_is_not_left_out_in_silence() -> Result<()> {
    let server = Server::start_with(ServerOptions::new().line("partial_revokes=ON")).await?;
    exec_all(&server, OBJECTS).await?;
    let password = make(&server, &statements("backup")?).await?;
    let login = [login(&server, "backup", &password)];
    let everything = on_primary();
    let mut without_secret = on_primary();
    without_secret.filter.exclude.push("secret".parse()?);
    snapshot(&login, &everything, &memory()).await?;
    let on = "secret";
    for name in ["SELECT", "TRIGGER", "EVENT", "SHOW VIEW"] {
        server
            .exec(&format!("REVOKE {name} ON {on}.* FROM backup"))
            .await?;
        let error = snapshot(&login, &everything, &memory())
            .await
            .expect_err(name);
        assert_eq!(error.class(), Class::Authentication, "{error}");
        let named = format!("lacks {name} on `{on}`.*");
        assert!(error.to_string().contains(&named), "{error}");
        let report = snapshot(&login, &without_secret, &memory()).await?;
        assert_eq!(report.warnings, [""; 0], "{name}");
        server
            .exec(&format!("GRANT {name} ON {on}.* TO backup"))
            .await?;
        snapshot(&login, &everything, &memory()).await?;
    }
    // The accounts are read from there.
    server.exec("REVOKE SELECT ON mysql.* FROM backup").await?;
    let error = snapshot(&login, &without_secret, &memory())
        .await
        .expect_err("no accounts");
    assert!(error.to_string().contains("SELECT on `mysql`.*"), "{error}");
    Ok(())
}

/// So that the table and the test above do not both forget one.
#[test]
fn the_table_names_what_a_snapshot_of_today_needs() {
    let names: Vec<&str> = needs(Purpose::Snapshot)
        .iter()
        .map(|need| need.privilege)
        .collect();
    for known in [
        "SELECT",
        "SHOW VIEW",
        "TRIGGER",
        "EVENT",
        "PROCESS",
        "REPLICATION CLIENT",
    ] {
        assert!(names.contains(&known), "{known}");
    }
}
