//! Accounts come back with their hashes, roles and grants, whatever the target had before.

use anyhow::Result;
use quillback_harness::{Server, ServerOptions};

use crate::support::{exec_all, load_into, manifest, memory, on_primary, raw_rows, snapshot, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_roles_and_grants_come_back() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.item (id INT PRIMARY KEY, price INT)",
            "CREATE TABLE shop.gone (id INT)",
            "CREATE PROCEDURE shop.p() SELECT 1",
            "CREATE ROLE 'z_reader', 'a_writer'",
            "GRANT SELECT ON shop.* TO z_reader",
            "GRANT z_reader TO a_writer WITH ADMIN OPTION",
            "GRANT INSERT (id), UPDATE (price) ON shop.item TO a_writer",
            "CREATE USER 'app'@'10.%' IDENTIFIED WITH caching_sha2_password BY 'secret' DEFAULT ROLE a_writer \
             REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 7 PASSWORD EXPIRE INTERVAL 90 DAY FAILED_LOGIN_ATTEMPTS 3 \
             PASSWORD_LOCK_TIME 2 ATTRIBUTE '{\"team\": \"it''s\"}'",
            "GRANT EXECUTE ON PROCEDURE shop.p TO 'app'@'10.%'",
            "GRANT SELECT ON shop.gone TO 'app'@'10.%'",
            "GRANT SELECT ON `sh\\_p`.* TO 'app'@'10.%'",
            "CREATE USER 'o''neil `x'@'localhost' IDENTIFIED BY 'pw' ACCOUNT LOCK",
            "CREATE USER ''@'anon' IDENTIFIED BY 'pw'",
            "CREATE USER 'both'@'%' IDENTIFIED BY 'as on the source'",
            "GRANT BACKUP_ADMIN, CREATE USER ON *.* TO 'both'@'%' WITH GRANT OPTION",
            "SET GLOBAL partial_revokes = ON",
            "GRANT INSERT ON *.* TO 'both'@'%'",
            "REVOKE INSERT ON shop.* FROM 'both'@'%'",
            "DROP TABLE shop.gone",
            "CREATE DEFINER = 'both'@'%' VIEW shop.cheap AS SELECT * FROM shop.item WHERE price < 5",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;

    let options = ServerOptions::new()
        .line("partial_revokes=ON")
        .account("both", "as on the target", &["ALL ON *.*"])
        .account("only_here", "pw", &["SELECT ON *.*"]);
    let target = Server::start_with(options).await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    let names: Vec<(String, String)> = source
        .query("SELECT User, Host FROM mysql.user WHERE User NOT LIKE 'mysql.%'")
        .await?;
    assert!(names.len() >= 7, "{names:?}");
    for (user, host) in names {
        let account = format!("`{}`@`{host}`", user.replace('`', "``"));
        for question in [
            format!("SHOW CREATE USER {account}"),
            format!("SHOW GRANTS FOR {account}"),
        ] {
            let here: Vec<_> = raw_rows(&source, &question)
                .await?
                .into_iter()
                // The server keeps a grant on a table that is gone, but takes no new one.
                .filter(|row| !row[0].windows(6).any(|window| window == b"`gone`"))
                .collect();
            let there = raw_rows(&target, &question).await?;
            assert_eq!(here, there, "{question}");
        }
    }
    for expected in [
        "only_here@% is not the snapshot's",
        "app@10.% names what is gone",
    ] {
        assert!(
            loaded
                .warnings
                .iter()
                .any(|warning| warning.contains(expected)),
            "{expected}: {:?}",
            loaded.warnings
        );
    }
    assert_eq!(target.gtid_executed().await?, source.gtid_executed().await?);
    Ok(())
}

/// Statements that make accounts with everything that an account can have.
const ZOO: &[&str] = &[
    "SET GLOBAL partial_revokes = ON",
    "CREATE DATABASE shop",
    "CREATE TABLE shop.item (id INT PRIMARY KEY, price INT, name VARCHAR(9))",
    "CREATE PROCEDURE shop.p() SELECT 1",
    "CREATE FUNCTION shop.f() RETURNS INT NO SQL RETURN 1",
    "CREATE ROLE reader, writer@'%', 'boss'@'localhost'",
    "GRANT SELECT, SHOW VIEW ON shop.* TO reader",
    "GRANT reader TO writer WITH ADMIN OPTION",
    "GRANT INSERT, UPDATE (price, name), REFERENCES (id) ON shop.item TO writer WITH GRANT OPTION",
    "GRANT EXECUTE, ALTER ROUTINE ON FUNCTION shop.f TO writer",
    "GRANT EXECUTE ON PROCEDURE shop.p TO writer WITH GRANT OPTION",
    // Two passwords, and some that were.
    "CREATE USER two IDENTIFIED WITH caching_sha2_password BY 'first' PASSWORD HISTORY 5 PASSWORD REUSE INTERVAL 100 DAY",
    "ALTER USER two IDENTIFIED BY 'second'",
    "ALTER USER two IDENTIFIED BY 'third' RETAIN CURRENT PASSWORD",
    "CREATE USER limited IDENTIFIED BY 'pw' REQUIRE SUBJECT '/CN=it''s' AND ISSUER '/CN=CA' AND CIPHER 'X' \
     WITH MAX_QUERIES_PER_HOUR 1 MAX_UPDATES_PER_HOUR 2 MAX_CONNECTIONS_PER_HOUR 3 MAX_USER_CONNECTIONS 4 \
     PASSWORD EXPIRE INTERVAL 30 DAY PASSWORD REQUIRE CURRENT FAILED_LOGIN_ATTEMPTS 5 PASSWORD_LOCK_TIME UNBOUNDED \
     COMMENT 'it''s a \\\\ \\n \"comment\" ż😀'",
    "CREATE USER expired IDENTIFIED BY 'pw' PASSWORD EXPIRE PASSWORD HISTORY 0 PASSWORD REUSE INTERVAL 0 DAY PASSWORD REQUIRE CURRENT OPTIONAL",
    "CREATE USER never IDENTIFIED BY 'pw' REQUIRE X509 PASSWORD EXPIRE NEVER ACCOUNT LOCK",
    "CREATE USER `back``tick 'quote' \"x\" \\\\ ż`@'%.example.com' ATTRIBUTE '{\"a\": \"b\\\\\\\\c\", \"n\": [1, null]}'",
    "CREATE USER `net`@'10.0.0.0/255.0.0.0' IDENTIFIED BY 'pw'",
    "CREATE USER nopass IDENTIFIED BY ''",
    "CREATE USER factors IDENTIFIED WITH caching_sha2_password BY 'pw' AND IDENTIFIED WITH auth_socket AS 'ro''ot'",
    "CREATE USER ''@'anon.host'",
    "CREATE USER many IDENTIFIED BY 'pw' DEFAULT ROLE writer, boss@localhost",
    "GRANT reader TO many",
    "GRANT PROXY ON limited TO many WITH GRANT OPTION",
    "GRANT SELECT, INSERT, DELETE ON *.* TO many",
    "REVOKE INSERT, DELETE ON mysql.* FROM many",
    "REVOKE SELECT ON shop.* FROM many",
    "GRANT XA_RECOVER_ADMIN, BACKUP_ADMIN ON *.* TO many WITH GRANT OPTION",
    "GRANT SHUTDOWN, RELOAD, CREATE TABLESPACE ON *.* TO never",
    "GRANT ALL ON shop.* TO `net`@'10.0.0.0/255.0.0.0' WITH GRANT OPTION",
    "GRANT SELECT ON `sh\\_p`.* TO limited",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_an_account_can_have_comes_back() -> Result<()> {
    let options = || ServerOptions::new().line("plugin_load_add=auth_socket.so");
    let source = Server::start_with(options()).await?;
    exec_all(&source, ZOO).await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let manifest = manifest(&*storage, &report).await?;

    // The target has no partial revokes; that is told, and they are there all the same.
    let target = Server::start_with(options()).await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("partial_revokes"));
    let names: Vec<(String, String)> = source
        .query("SELECT User, Host FROM mysql.user WHERE User NOT LIKE 'mysql.%'")
        .await?;
    assert!(names.len() >= 13, "{names:?}");
    let mut questions: Vec<String> = names
        .iter()
        .flat_map(|(user, host)| {
            let account = format!("`{}`@`{host}`", user.replace('`', "``"));
            [
                format!("SHOW CREATE USER {account}"),
                format!("SHOW GRANTS FOR {account}"),
            ]
        })
        .collect();
    // The server's own tables hold what no statement shows.
    let whole = "password_last_changed";
    let columns: Vec<String> = source
        .query(&format!(
            "SELECT CONCAT('`', COLUMN_NAME, '`') FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = 'mysql' AND TABLE_NAME = 'user' AND COLUMN_NAME <> '{whole}'"
        ))
        .await?;
    questions.push(format!(
        "SELECT {} FROM mysql.user WHERE User NOT LIKE 'mysql.%'",
        columns.join(", ")
    ));
    for (table, columns) in [
        ("db", "*"),
        (
            "tables_priv",
            "Host, Db, User, Table_name, Grantor, Table_priv, Column_priv",
        ),
        (
            "columns_priv",
            "Host, Db, User, Table_name, Column_name, Column_priv",
        ),
        (
            "procs_priv",
            "Host, Db, User, Routine_name, Routine_type, Grantor, Proc_priv",
        ),
        (
            "proxies_priv",
            "Host, User, Proxied_host, Proxied_user, With_grant",
        ),
        ("global_grants", "*"),
        ("role_edges", "*"),
        ("default_roles", "*"),
        ("password_history", "*"),
    ] {
        questions.push(format!("SELECT {columns} FROM mysql.{table}"));
    }
    for question in questions {
        assert_eq!(
            text(&raw_rows(&source, &question).await?),
            text(&raw_rows(&target, &question).await?),
            "{question}"
        );
    }
    // Both passwords work, and the first one may not come back.
    for password in ["second", "third"] {
        let opts = mysql_async::Opts::from_url(&target.url_for("two", password))?;
        mysql_async::Conn::new(opts).await?.disconnect().await?;
    }
    let refused = target.exec("ALTER USER two IDENTIFIED BY 'first'").await;
    assert!(format!("{:?}", refused.expect_err("used before")).contains("3638"));
    Ok(())
}

/// Views on views ask for their definers' privileges when they are made, and some of those are on
/// views.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_and_grants_wait_for_each_other() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "USE d",
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "INSERT INTO t VALUES (1)",
            "CREATE USER one IDENTIFIED BY 'pw'",
            "CREATE USER two IDENTIFIED BY 'pw'",
            "CREATE ROLE r",
            "GRANT SELECT ON d.t TO one",
            "CREATE DEFINER = one VIEW y_of_one AS SELECT id FROM t",
            "GRANT SELECT ON d.y_of_one TO two",
            "CREATE DEFINER = two VIEW x_of_two AS SELECT id FROM y_of_one",
            "GRANT SELECT (id) ON d.x_of_two TO one",
            "CREATE DEFINER = one VIEW w_of_one AS SELECT id FROM x_of_two",
            "CREATE VIEW v_top AS SELECT id FROM w_of_one",
            "CREATE DEFINER = one FUNCTION f() RETURNS INT READS SQL DATA RETURN (SELECT MAX(id) FROM v_top)",
            "GRANT EXECUTE ON FUNCTION d.f TO one, two",
            "CREATE DEFINER = two VIEW u_calls AS SELECT f() AS top",
            "CREATE VIEW t_calls AS SELECT top FROM u_calls",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let manifest = manifest(&*storage, &report).await?;
    let target = Server::start().await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    for question in [
        "SELECT id FROM d.v_top",
        "SHOW GRANTS FOR one",
        "SHOW GRANTS FOR two",
    ] {
        assert_eq!(
            text(&raw_rows(&source, question).await?),
            text(&raw_rows(&target, question).await?),
            "{question}"
        );
    }
    let views: u64 = target
        .one("SELECT COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'd'")
        .await?;
    assert_eq!(views, 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_does_not_know_is_named() -> Result<()> {
    let source = Server::start_with(
        ServerOptions::new()
            .line("plugin_load_add=mysql_no_login.so")
            .line("plugin_load_add=rewriter.so"),
    )
    .await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "CREATE USER old IDENTIFIED WITH mysql_no_login",
            "GRANT INSERT ON d.t TO old",
            "CREATE DEFINER = old VIEW d.v AS SELECT 1 AS one",
            "GRANT SKIP_QUERY_REWRITE, BACKUP_ADMIN ON *.* TO old WITH GRANT OPTION",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    let target = Server::start().await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    let told = |what: &str| loaded.warnings.iter().any(|w| w.contains(what));
    assert!(
        told("account old@% was made locked"),
        "{:?}",
        loaded.warnings
    );
    let locked: String = target
        .one("SELECT account_locked FROM mysql.user WHERE User = 'old'")
        .await?;
    assert_eq!(locked, "Y");
    let grants: Vec<String> = target.query("SHOW GRANTS FOR old").await?;
    assert!(
        grants
            .iter()
            .any(|grant| grant.contains("INSERT ON `d`.`t`")),
        "{grants:?}"
    );
    assert!(
        grants.iter().any(|grant| grant.contains("BACKUP_ADMIN")),
        "{grants:?}"
    );
    Ok(())
}

fn text(rows: &[Vec<Vec<u8>>]) -> Vec<Vec<String>> {
    rows.iter()
        .map(|row| {
            row.iter()
                .map(|value| value.escape_ascii().to_string())
                .collect()
        })
        .collect()
}
