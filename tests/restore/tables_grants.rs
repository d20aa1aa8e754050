//! What `quillback grants --for restore-tables` prints is enough for tables alone, and each part of it
//! that is taken away is refused by name before anything is written.

use anyhow::{Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::mysql::ServerVersion;
use quillback::mysql::grants::{Purpose, needs};
use quillback::restore::parts::PartsRequest;
use quillback::restore::target::Target;
use quillback_harness::Server;

use crate::grants::make;
use crate::support::{Archive, exec_all, on_primary, snapshot, stream_once, url};
use crate::tables_support::{assert_nothing_left, bring_back, looks, plan, tables};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_enough_for_tables_and_nothing_of_it_is_too_much() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.p (id INT PRIMARY KEY)",
            "CREATE TABLE d.t (id INT PRIMARY KEY, p INT, KEY by_p (p), FOREIGN KEY (p) REFERENCES d.p (id))",
            "INSERT INTO d.p VALUES (1)",
            "INSERT INTO d.t VALUES (1, 1), (2, 1)",
            "CREATE USER ann IDENTIFIED BY 'ann-for-tests'",
            "CREATE DEFINER = ann TRIGGER d.a BEFORE INSERT ON d.t FOR EACH ROW SET @x = 1",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "UPDATE d.t SET p = NULL WHERE id = 2",
            "ALTER TABLE d.t ADD COLUMN v INT, ADD KEY by_v (v)",
            "DELETE FROM d.t WHERE id = 1",
            "CREATE TABLE d.u LIKE d.t",
            "RENAME TABLE d.u TO d.w",
        ],
    )
    .await?;
    stream_once(&archive.repository, &source).await?;
    let expected = looks(&source, "d", &["t", "p", "w"]).await?;
    exec_all(&source, &["DROP TABLE d.t, d.w", "DROP TABLE d.p"]).await?;
    let login = make(&source, Purpose::RestoreTables, "9.7.0").await?;
    let asked = || PartsRequest {
        server: login.clone(),
        ..tables(Target::Latest, &source, &["d.*"])
    };
    let version = ServerVersion::parse("9.7.0")?;
    let required = needs(Purpose::RestoreTables)
        .iter()
        .filter(|need| need.is_required());
    for name in required.filter_map(|need| need.name_on(&version)) {
        exec_all(&source, &[&format!("REVOKE {name} ON *.* FROM filler")]).await?;
        let refused = if name == "SESSION_VARIABLES_ADMIN" {
            // Whoever may set the server's variables may set a session's.
            exec_all(
                &source,
                &["REVOKE SYSTEM_VARIABLES_ADMIN ON *.* FROM filler"],
            )
            .await?;
            let refused = plan(&archive, asked()).await;
            exec_all(&source, &["GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO filler"]).await?;
            refused
        } else {
            plan(&archive, asked()).await
        };
        exec_all(&source, &[&format!("GRANT {name} ON *.* TO filler")]).await?;
        let error = refused.expect_err(name);
        assert_eq!(
            error.class(),
            Class::Authentication,
            "without {name}: {error}"
        );
        // Without SELECT not even the question can be asked.
        ensure!(
            name == "SELECT" || error.to_string().contains(name),
            "without {name}: {error}"
        );
    }
    // A server that writes a binlog asks for SUPER before it lets anybody make a trigger.
    let told = plan(&archive, asked()).await?.notes.join("\n");
    ensure!(told.contains("lacks SUPER: d.a"), "{told}");
    exec_all(
        &source,
        &["SET GLOBAL log_bin_trust_function_creators = ON"],
    )
    .await?;
    let report = bring_back(&archive, asked()).await?;
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(looks(&source, "d", &["t", "p", "w"]).await?, expected);
    let definer: String = source
        .one("SELECT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'd'")
        .await?;
    assert_eq!(definer, "ann@%");
    assert_nothing_left(&source).await
}
