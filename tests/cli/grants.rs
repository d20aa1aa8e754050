//! `quillback grants`: SQL that runs, and what becomes of a command without each line of it.

use anyhow::{Context as _, Result};
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use quillback_harness::Server;
use serde_json::Value;

use crate::support::Shell;

#[tokio::test]
async fn what_is_printed_is_sql_with_its_reasons() -> Result<()> {
    let shell = Shell::new()?;
    shell
        .run(&["grants", "--for", "stream", "--user", "streamer@10.0.0.%"])
        .await?
        .is(
            0,
            "-- An account for quillback stream.\n\
             -- Run this on the primary: the other members get it by replication.\n\
             -- The server invents the password and shows it, once.\n\
             CREATE USER IF NOT EXISTS `streamer`@`10.0.0.%` IDENTIFIED BY RANDOM PASSWORD;\n\
             -- required: reads the binlog, and sees whether another streamer does.\n\
             GRANT REPLICATION SLAVE ON *.* TO `streamer`@`10.0.0.%`;\n\
             -- required: asks where the binlog ends, what is purged, and who replicates from whom.\n\
             GRANT REPLICATION CLIENT ON *.* TO `streamer`@`10.0.0.%`;\n\
             -- required: finds the primary of a group.\n\
             GRANT SELECT ON `performance_schema`.`replication_group_members` TO `streamer`@`10.0.0.%`;\n\
             -- required: finds the secondary that is least behind (--from secondary).\n\
             GRANT SELECT ON `performance_schema`.`replication_group_member_stats` TO `streamer`@`10.0.0.%`;\n\
             -- optional: waits for a new primary to apply what it has received. Without it what a new \
             primary has received and not applied looks as though it were lost.\n\
             GRANT SELECT ON `performance_schema`.`replication_connection_status` TO `streamer`@`10.0.0.%`;",
            "",
        );
    let both = shell
        .run(&["grants", "--for", "snapshot", "--for", "stream"])
        .await?;
    assert_eq!((both.code, both.err.as_str()), (0, ""));
    let twice: Vec<&str> = both
        .out
        .lines()
        .filter(|line| line.starts_with("GRANT REPLICATION SLAVE"))
        .collect();
    assert_eq!(twice.len(), 1, "{}", both.out);
    let old = shell
        .run(&["grants", "--for", "snapshot", "--mysql-version", "8.0.16"])
        .await?;
    assert!(old.out.contains("GRANT RELOAD ON *.*"), "{}", old.out);
    assert!(!old.out.contains("RANDOM PASSWORD"), "{}", old.out);
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_is_explained() -> Result<()> {
    let shell = Shell::new()?;
    let grants = |more: &[&'static str]| [&["grants", "--for", "snapshot"], more].concat();
    shell.run(&grants(&["--user", "'b'@'%'"])).await?.is(
        2,
        "",
        "error: \"'b'@'%'\" names no account: it is written without quotes, as backup@10.0.0.%\n  \
         try: --user backup@10.0.0.%",
    );
    shell.run(&grants(&["--for", "restore"])).await?.is(
        2,
        "",
        "error: restore needs an account on another server, with far more than the others\n  \
         try: --for restore alone",
    );
    shell.run(&grants(&["--mysql-version", "five"])).await?.is(
        2,
        "",
        "error: unsupported server: \"five\" is no version of MySQL\n  \
         try: --mysql-version 8.0.22",
    );
    let said = shell.run(&["grants", "--for", "reseed"]).await?;
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    // What is made on a restored server must not give it transactions of its own.
    assert!(
        said.out.contains("\nSET SESSION sql_log_bin = OFF;\n"),
        "{}",
        said.out
    );
    let said = shell.run(&["grants", "--for", "migrate"]).await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(
        said.err
            .contains("[possible values: snapshot, stream, restore, restore-tables, reseed]"),
        "{}",
        said.err
    );
    let said = shell.run(&["grants"]).await?;
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("--for <COMMAND>"), "{}", said.err);
    Ok(())
}

/// The document, and the password that the server makes up when its statements are run in one
/// session.
async fn make(shell: &Shell, server: &Server, purpose: &str) -> Result<(Value, String)> {
    let (code, document) = shell.json(&["grants", "--for", purpose]).await?;
    assert_eq!(code, 0);
    let statements = document["statements"].as_array().context("no statements")?;
    let mut conn = server.conn().await?;
    let mut password = None;
    for statement in statements {
        let sql = statement.as_str().context("no text")?;
        let rows: Vec<Row> = conn.query(sql).await.with_context(|| sql.to_owned())?;
        let shown = rows.first().and_then(|row| row.get("generated password"));
        password = password.or(shown);
    }
    conn.disconnect().await?;
    Ok((document, password.context("no password was shown")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_needs_each_of_its_privileges() -> Result<()> {
    let server = Server::start().await?;
    let shell = Shell::new()?;
    let (document, password) = make(&shell, &server, "stream").await?;
    let archive = shell.archive();
    let folder = std::path::PathBuf::from(archive.trim_start_matches("file://"));
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env(
            "QUILLBACK_SERVER",
            format!("mysql://quillback@{}", server.address()),
        )
        .env("QUILLBACK_PASSWORD", password);
    shell.run(&["init"]).await?;
    let said = shell.run(&["stream", "--once"]).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    let claims = || -> Result<usize> { Ok(std::fs::read_dir(folder.join("epochs"))?.count()) };
    for grant in document["grants"].as_array().context("no grants")? {
        let need = &grant["needs"][0];
        let text = |field: &str| need[field].as_str().unwrap_or_default().to_owned();
        let (name, on) = (text("privilege"), text("on"));
        server
            .exec(&format!("REVOKE {name} ON {on} FROM quillback"))
            .await?;
        let before = claims()?;
        let said = shell.run(&["stream", "--once"]).await?;
        if need["required"] == true {
            let why = text("why");
            said.is(
                12,
                "",
                &format!(
                    "error: the account quillback@% at {} lacks {name} on {on} ({why})\n  \
                     try: GRANT {name} ON {on} to that account; quillback grants --for stream \
                     prints all that is needed, with the reasons",
                    server.address()
                ),
            );
            assert_eq!(claims()?, before, "a run that is refused claims nothing");
        } else {
            assert_eq!(said.code, 0, "without {name} on {on}: {said:?}");
            let told = format!("without {name} on {on} {}", text("without"));
            assert!(said.err.contains(&told), "{}", said.err);
        }
        let statement = grant["statement"].as_str().context("no statement")?;
        server.exec(statement).await?;
    }
    // All at once, and not one by one.
    server
        .exec("REVOKE ALL PRIVILEGES, GRANT OPTION FROM quillback")
        .await?;
    let said = shell.run(&["stream", "--once"]).await?;
    assert_eq!(said.code, 12, "{said:?}");
    for named in [
        "lacks REPLICATION SLAVE on *.* (",
        "; REPLICATION CLIENT on *.* (",
        "; SELECT on performance_schema.replication_group_members (",
        "try: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* and GRANT SELECT ON performance_schema.",
    ] {
        assert!(said.err.contains(named), "{named}: {}", said.err);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_needs_no_more_than_is_printed() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.item (id INT PRIMARY KEY)",
        "INSERT INTO shop.item VALUES (1)",
        "CREATE USER boss IDENTIFIED BY 'boss-for-tests'",
        "GRANT ALL ON *.* TO boss WITH GRANT OPTION",
        "CREATE DEFINER = gone@nowhere VIEW shop.seen AS SELECT id FROM shop.item",
    ] {
        source.exec(statement).await?;
    }
    let shell = Shell::new()?.with_server(&source, "source").await?;
    let archive = shell.archive();
    let (_, password) = make(&shell, &target, "restore").await?;
    assert_eq!(
        target.gtid_executed().await?,
        "",
        "it has no transaction of its own"
    );
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", source.url_without_password())
        .env("QUILLBACK_TO_PASSWORD", password);
    shell.run(&["init"]).await?;
    let said = shell.run(&["snapshot", "--allow-primary"]).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    source.exec("INSERT INTO shop.item VALUES (2)").await?;
    let said = shell.run(&["stream", "--once"]).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    let to = format!("mysql://quillback@{}", target.address());
    let said = shell
        .run(&["restore", "--until", "latest", "--to", &to])
        .await?;
    // The account that restores is not the snapshot's: that is told.
    assert_eq!(said.code, 3, "{} {}", said.out, said.err);
    assert_eq!(target.gtid_executed().await?, source.gtid_executed().await?);
    let rows: Vec<u32> = target.query("SELECT id FROM shop.item ORDER BY id").await?;
    assert_eq!(rows, [1, 2]);
    Ok(())
}
