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
