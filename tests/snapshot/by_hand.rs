//! No lock-in: the script of docs/RESTORE-BY-HAND.md restores a snapshot with zstd and the `mysql`
//! client alone.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::layout;
use quillback::archive::manifest::StoredFile;
use quillback::storage::{LocalStorage, Storage};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, ServerOptions, programs};

use crate::support::{exec_all, manifest, on_primary, raw_rows, snapshot, url};

/// The first script of the page.
fn page() -> Result<String> {
    let page = programs::repository().join("docs/RESTORE-BY-HAND.md");
    let page = std::fs::read_to_string(page)?;
    let (_, rest) = page
        .split_once("```sh\n")
        .context("the page has a script")?;
    let (script, _) = rest.split_once("```").context("the script has an end")?;
    Ok(script.to_owned())
}

async fn restore(target: &Server, folder: &std::path::Path) -> Result<()> {
    let mysql = programs::find("mysql")?;
    // The page says `zstd`; a machine without it has it from `tests/setup`.
    let zstd = programs::find("zstd")?;
    let own = zstd.parent().context("a folder of programs")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::env::split_paths(&path).chain([own.to_owned()]))?;
    let output = tokio::process::Command::new("sh")
        .args(["-xc", &page()?])
        .env("PATH", path)
        .env("SNAPSHOT", folder)
        .env(
            "MYSQL",
            format!(
                "{} --no-defaults --user=root --host=127.0.0.1 --port={}",
                mysql.display(),
                target.port()
            ),
        )
        .env("MYSQL_PWD", ROOT_PASSWORD)
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the script says {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_restores_a_snapshot() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd' ENGINE = InnoDB",
            "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'it''s', PASSWORD 'a\\\\b')",
            "CREATE DATABASE `sh``op 'x'`",
            "USE `sh``op 'x'`",
            "CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(20), doc JSON, f FLOAT, b BLOB, twice INT AS (id * 2))",
            "INSERT INTO item (id, name, doc, f, b) VALUES (1, 'ż\\t\\\\N', '{\"a\": \"\\\\n\"}', 0.1, x'000a5c09'), (2, NULL, NULL, NULL, '')",
            "CREATE TABLE `it's \"odd\" -- \nx` (id INT PRIMARY KEY) TABLESPACE ts",
            "INSERT INTO `it's \"odd\" -- \nx` VALUES (7)",
            "ANALYZE TABLE item UPDATE HISTOGRAM ON name WITH 2 BUCKETS",
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
            "CREATE TABLE days (id INT PRIMARY KEY, d DATE NOT NULL DEFAULT '2024-02-30', t DATETIME)",
            "INSERT INTO days VALUES (1, '2023-02-31', '2022-04-31 01:02:03'), (2, '0000-00-00', '2024-00-10 00:00:00')",
            "INSERT INTO days (id) VALUES (3)",
            "SET SESSION sql_mode = DEFAULT",
            "CREATE PROCEDURE p() BEGIN /* $$ ; */ SELECT 'a\n$$\n\\\\!'; END",
            "CREATE TRIGGER t BEFORE INSERT ON item FOR EACH ROW SET NEW.f = 1",
            "CREATE VIEW v AS SELECT id FROM item",
            "CREATE DEFINER = nobody VIEW of_nobody AS SELECT id FROM item",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO DELETE FROM item WHERE id > 9",
            "CREATE USER 'o''neil `x'@'localhost' IDENTIFIED BY 'pw' PASSWORD HISTORY 2",
            "GRANT SELECT ON `sh``op 'x'`.* TO 'o''neil `x'@'localhost'",
            "ALTER DATABASE `sh``op 'x'` READ ONLY = 1",
        ],
    )
    .await?;
    let archive = Scratch::new("by-hand")?;
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(archive.path()));
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let first = manifest(&*storage, &report).await?;
    let raw = async |file: &StoredFile| -> Result<Vec<u8>> {
        let object = storage.get(&file.key.in_snapshot(&first.id)).await?;
        Ok(zstd::decode_all(&object[..])?)
    };
    let mut texts = Vec::new();
    for script in &first.schema {
        texts.push(raw(&script.file).await?);
    }

    let target = Server::start_with(ServerOptions::new().line("local_infile=ON")).await?;
    restore(&target, &archive.path().join(layout::snapshot(&first.id))).await?;
    assert_eq!(target.gtid_executed().await?, source.gtid_executed().await?);

    let storage: Arc<dyn Storage> = crate::support::memory();
    let again = snapshot(&[url(&target)], &on_primary(), &storage).await?;
    let second = manifest(&*storage, &again).await?;
    assert_eq!(first.gtid_executed, second.gtid_executed);
    assert_eq!(first.tables.len(), 3);
    for (a, b) in first.tables.iter().zip(&second.tables) {
        assert_eq!(
            (a.rows, a.row_checksum, a.create_sha256),
            (b.rows, b.row_checksum, b.create_sha256)
        );
    }
    // The scripts are the same, byte for byte, but for what an ANALYZE says of its own time.
    let kinds = |manifest: &quillback::archive::manifest::Manifest| {
        let scripts = manifest.schema.iter();
        scripts.map(|script| script.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&first), kinds(&second));
    for ((script, a), b) in first.schema.iter().zip(texts).zip(&second.schema) {
        if script.kind == quillback::archive::manifest::ScriptKind::Histograms {
            continue;
        }
        let b = storage.get(&b.file.key.in_snapshot(&second.id)).await?;
        assert_eq!(
            a.escape_ascii().to_string(),
            zstd::decode_all(&b[..])?.escape_ascii().to_string(),
            "{}",
            script.kind
        );
    }
    for question in [
        "SHOW CREATE USER 'o''neil `x'@'localhost'",
        "SHOW GRANTS FOR 'o''neil `x'@'localhost'",
        "SELECT * FROM mysql.password_history",
        "SELECT * FROM mysql.servers",
    ] {
        assert_eq!(
            raw_rows(&source, question).await?,
            raw_rows(&target, question).await?,
            "{question}"
        );
    }
    Ok(())
}
