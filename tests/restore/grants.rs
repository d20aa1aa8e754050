//! What `quillback grants --for restore` prints is enough, and each part of it that is taken away is
//! refused by name before anything is written.

use anyhow::{Context as _, Result, ensure};
use mysql_async::Row;
use mysql_async::prelude::Queryable as _;
use quillback::error::{Class, Classified as _};
use quillback::mysql::grants::{AccountName, Purpose, Statements};
use quillback::mysql::{ServerUrl, ServerVersion};
use quillback::restore::target::Target;
use quillback::restore::{RestoreRequest, prepare};
use quillback_harness::{Server, ServerOptions};

use crate::support::{
    Archive, assert_restored, assert_untouched, begun, exec_all, executed, on_primary, restore,
    snapshot, state, url,
};

/// Makes the account as an administrator would, and gives its login.
pub(crate) async fn make(server: &Server, purpose: Purpose, version: &str) -> Result<ServerUrl> {
    let account: AccountName = "filler".parse()?;
    let printed = Statements::compute(&account, &[purpose], &ServerVersion::parse(version)?);
    let mut conn = server.conn().await?;
    conn.query_drop("SET SESSION sql_log_bin = 0").await?;
    let rows: Vec<Row> = conn.query(&printed.create).await?;
    let password: String = rows
        .first()
        .and_then(|row| row.get("generated password"))
        .context("no password is shown")?;
    for grant in &printed.grants {
        conn.query_drop(&grant.sql)
            .await
            .with_context(|| grant.sql.clone())?;
    }
    conn.disconnect().await?;
    Ok(url(server).with_login("filler", Some(password.as_str().into())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_privilege_that_is_missing_is_refused_by_name() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
            "CREATE USER ann IDENTIFIED BY 'ann-for-tests'",
            "GRANT BACKUP_ADMIN, FILE ON *.* TO ann",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    let end = state(&source).await?;
    drop(source);

    let server = Server::start().await?;
    let login = make(&server, Purpose::Restore, "8.4.0").await?;
    let before = executed(&server).await?;
    let asked = || RestoreRequest::new(Target::Latest, login.clone());
    prepare(archive.repository.clone(), asked()).await?;
    let known: Vec<(String, String, String)> = server.query("SHOW PRIVILEGES").await?;
    let mut tried = 0;
    for (name, ..) in known {
        let name = name.to_ascii_uppercase();
        if matches!(name.as_str(), "USAGE" | "PROXY" | "GRANT OPTION") {
            continue;
        }
        let revoke = format!("REVOKE {name} ON *.* FROM filler");
        let grant = format!("GRANT {name} ON *.* TO filler WITH GRANT OPTION");
        exec_all(&server, &["SET sql_log_bin = 0", &revoke]).await?;
        let refused = prepare(archive.repository.clone(), asked()).await;
        exec_all(&server, &["SET sql_log_bin = 0", &grant]).await?;
        // Root of the source has nearly all of them, and shall have them again.
        let error = match refused {
            Err(error) => error,
            // Neither used nor handed on.
            Ok(_) => continue,
        };
        tried += 1;
        assert_eq!(
            error.class(),
            Class::Authentication,
            "without {name}: {error}"
        );
        ensure!(error.to_string().contains(&name), "without {name}: {error}");
    }
    ensure!(tried > 40, "only {tried} privileges were missed");
    for (revoke, word) in [
        ("REVOKE GRANT OPTION ON *.* FROM filler", "GRANT OPTION"),
        ("REVOKE PROXY ON ''@'' FROM filler", "PROXY"),
        ("REVOKE ALL PRIVILEGES ON *.* FROM filler", "SELECT"),
    ] {
        exec_all(&server, &["SET sql_log_bin = 0", revoke]).await?;
        let error = prepare(archive.repository.clone(), asked())
            .await
            .err()
            .context(revoke)?;
        assert_eq!(error.class(), Class::Authentication, "{revoke}: {error}");
        ensure!(error.to_string().contains(word), "{revoke}: {error}");
        exec_all(
            &server,
            &[
                "SET sql_log_bin = 0",
                "GRANT ALL PRIVILEGES ON *.* TO filler WITH GRANT OPTION",
                "GRANT PROXY ON ''@'' TO filler WITH GRANT OPTION",
            ],
        )
        .await?;
    }
    assert_untouched(&server, &before).await?;
    // What it does not use itself it can hand on all the same.
    let without = [
        "SET sql_log_bin = 0",
        "REVOKE BACKUP_ADMIN ON *.* FROM filler",
    ];
    exec_all(&server, &without).await?;
    let report = restore(&archive.repository, asked()).await?;
    assert_restored(&server, &report, &end).await
}

/// All that is wrong is told at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_is_told_at_once() -> Result<()> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (1)"]).await?;
    crate::support::stream_once(&archive.repository, &source).await?;
    let options = ServerOptions::new()
        .server_id(source.server_id())
        .line("gtid_mode=OFF_PERMISSIVE")
        .line("enforce_gtid_consistency=ON")
        .line("log_replica_updates=OFF");
    let server = Server::start_with(options).await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE precious",
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'nowhere.example'",
            "CREATE USER half IDENTIFIED BY 'half-for-tests'",
            "GRANT ALL PRIVILEGES ON *.* TO half",
            "REVOKE TRIGGER ON *.* FROM half",
        ],
    )
    .await?;
    let before = executed(&server).await?;
    let login = url(&server).with_login("half", Some("half-for-tests".into()));
    let error = prepare(
        archive.repository.clone(),
        RestoreRequest::new(Target::Latest, login),
    )
    .await
    .expect_err("so much is wrong");
    assert_eq!(error.class(), Class::Refused, "{error}");
    let text = error.to_string();
    for word in [
        "precious",
        "gtid_mode is OFF_PERMISSIVE",
        "replication channels (the default one)",
        "lacks TRIGGER ON *.*",
        "lacks GRANT OPTION",
        "lacks PROXY",
    ] {
        ensure!(text.contains(word), "{word}: {text}");
    }
    ensure!(text.lines().count() >= 6, "{text}");
    assert_eq!(executed(&server).await?, before);
    Ok(())
}
