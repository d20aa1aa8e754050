//! No lock-in: zstd and the `mysql` client restore a snapshot without Quillback.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::manifest::StoredFile;
use quillback::archive::rows::load_statement;
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, ServerOptions, programs};
use tokio::io::AsyncWriteExt as _;

use crate::support::{exec_all, manifest, memory, on_primary, snapshot, url};

/// Runs a script in the client, as FORMAT.md says.
async fn client(server: &Server, script: &[u8]) -> Result<()> {
    let mut mysql = tokio::process::Command::new(programs::find("mysql")?)
        .args([
            "--no-defaults",
            "--binary-mode",
            "--comments",
            "--local-infile=1",
            "-uroot",
        ])
        .arg(format!("--port={}", server.port()))
        .args(["--host=127.0.0.1", "--default-character-set=utf8mb4"])
        .env("MYSQL_PWD", ROOT_PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = mysql.stdin.take().context("it is piped")?;
    stdin.write_all(script).await?;
    drop(stdin);
    let output = mysql.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the client says {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_restores_a_snapshot() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE `sh``op`",
            "USE `sh``op`",
            "CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(20), doc JSON, f FLOAT, b BLOB, twice INT AS (id * 2))",
            "INSERT INTO item (id, name, doc, f, b) VALUES (1, 'ż\\t\\\\N', '{\"a\": \"\\\\n\"}', 0.1, x'000a5c09'), (2, NULL, NULL, NULL, '')",
            "CREATE PROCEDURE p() BEGIN /* $$ ; */ SELECT 'a\n$$\n\\\\!'; END",
            "CREATE TRIGGER t BEFORE INSERT ON item FOR EACH ROW SET NEW.f = 1",
            "CREATE VIEW v AS SELECT id FROM item",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO DELETE FROM item WHERE id > 9",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let first = manifest(&*storage, &report).await?;
    let raw = async |file: &StoredFile| -> Result<Vec<u8>> {
        let object = storage.get(&file.key.in_snapshot(&first.id)).await?;
        Ok(zstd::decode_all(&object[..])?)
    };
    let target = Server::start_with(ServerOptions::new().line("local_infile=ON")).await?;
    let folder = Scratch::new("by-hand")?;
    let quiet = b"SET sql_log_bin = 0;\n".to_vec();
    for script in &first.schema {
        let text = raw(&script.file).await?;
        client(&target, &[&quiet[..], &text].concat()).await?;
        if script.file.key.to_string().contains("2-tables") {
            for (table, file) in first
                .tables
                .iter()
                .flat_map(|t| t.files.iter().map(move |f| (t, f)))
            {
                let path = folder.path().join("rows.tsv");
                std::fs::write(&path, raw(&file.file).await?)?;
                let load = load_statement(table).replacen(
                    "'quillback'",
                    &format!("'{}'", path.display()),
                    1,
                );
                let settings = "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00';\n";
                client(
                    &target,
                    &[&quiet[..], settings.as_bytes(), load.as_bytes(), b";"].concat(),
                )
                .await?;
            }
        }
    }
    let set = format!("SET GLOBAL gtid_purged = '{}'", first.gtid_executed);
    target.exec(&set).await?;

    let again = snapshot(&[url(&target)], &on_primary(), &storage).await?;
    let second = manifest(&*storage, &again).await?;
    assert_eq!(first.gtid_executed, second.gtid_executed);
    assert_eq!(first.tables.len(), 1);
    for (a, b) in first.tables.iter().zip(&second.tables) {
        assert_eq!(
            (a.rows, a.row_checksum, a.create_sha256),
            (b.rows, b.row_checksum, b.create_sha256)
        );
    }
    // The other scripts are the same, byte for byte.
    for (a, b) in first.schema.iter().zip(&second.schema) {
        let (a, b) = (
            raw(&a.file).await?,
            storage.get(&b.file.key.in_snapshot(&second.id)).await?,
        );
        assert_eq!(
            a.escape_ascii().to_string(),
            zstd::decode_all(&b[..])?.escape_ascii().to_string()
        );
    }
    assert_eq!(first.schema.len(), second.schema.len());
    Ok(())
}
