//! Files outside the data directory: where the target has such a place they are there, else in its
//! data directory, with a warning.

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback::restore::load::LoadError;
use quillback_harness::{Scratch, Server, ServerOptions};

use super::compare::assert_same;
use crate::support::{exec_all, load_into, manifest, memory, on_primary, raw_rows, snapshot, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_elsewhere_come_back_or_move_home() -> Result<()> {
    let elsewhere = Scratch::new("elsewhere")?;
    let place = elsewhere.path().display().to_string();
    let known = || ServerOptions::new().line(format!("innodb_directories={place}"));
    let source = Server::start_with(known()).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            &format!("CREATE TABLESPACE far ADD DATAFILE '{place}/far.ibd' ENGINE = InnoDB"),
            "CREATE TABLE d.in_far (id INT PRIMARY KEY) TABLESPACE far",
            &format!("CREATE TABLE d.alone (id INT PRIMARY KEY) DATA DIRECTORY = '{place}'"),
            &format!(
                "CREATE TABLE d.parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) \
                 (PARTITION p0 VALUES LESS THAN (5) DATA DIRECTORY = '{place}', PARTITION p1 VALUES LESS THAN MAXVALUE)"
            ),
            "INSERT INTO d.in_far VALUES (1)",
            "INSERT INTO d.alone VALUES (2)",
            "INSERT INTO d.parts VALUES (3), (7)",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;

    // The target does not know the folder (and the files in it are another server's).
    let other = Server::start().await?;
    let loaded = load_into(&other, &storage, &manifest).await?;
    assert_eq!(loaded.rows, 4);
    for name in ["files of far ", "files of d.alone ", "files of d.parts "] {
        let told = loaded.warnings.iter().any(|warning| warning.contains(name));
        assert!(told, "{name}: {:?}", loaded.warnings);
    }
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    let table = raw_rows(&other, "SHOW CREATE TABLE d.in_far").await?;
    let table = String::from_utf8_lossy(&table[0][1]).into_owned();
    assert!(table.contains("TABLESPACE `far`"), "{table}");

    // A server that may use the folder, once the source has left it.
    exec_all(&source, &["DROP DATABASE d", "DROP TABLESPACE far"]).await?;
    let same = Server::start_with(known()).await?;
    let loaded = load_into(&same, &storage, &manifest).await?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let table = raw_rows(&same, "SHOW CREATE TABLE d.alone").await?;
    let table = String::from_utf8_lossy(&table[0][1]).into_owned();
    assert!(
        table.contains(&format!("DATA DIRECTORY='{place}")),
        "{table}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_tables_need_a_keyring() -> Result<()> {
    let source = Server::start_with(ServerOptions::new().encrypted_binlog()).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE safe DEFAULT ENCRYPTION = 'Y'",
            "CREATE DATABASE open",
            "CREATE TABLESPACE vault ADD DATAFILE 'vault.ibd' ENCRYPTION = 'Y' ENGINE = InnoDB",
            "CREATE TABLE safe.by_default (id INT PRIMARY KEY, t TEXT)",
            "CREATE TABLE open.by_option (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
            "CREATE TABLE open.in_vault (id INT PRIMARY KEY) TABLESPACE vault ENCRYPTION = 'Y'",
            "CREATE TABLE open.clear (id INT PRIMARY KEY, encryption VARCHAR(9) COMMENT 'ENCRYPTION=''Y''')",
            "INSERT INTO safe.by_default VALUES (1, 'secret')",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    assert_eq!(
        manifest.needs.keyring,
        [
            "tablespace vault",
            "table open.by_option",
            "table open.in_vault",
            "table safe.by_default",
        ]
    );

    let plain = Server::start().await?;
    let error = load_into(&plain, &storage, &manifest)
        .await
        .expect_err("no keyring");
    assert!(matches!(error, LoadError::NoKeyring { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("open.by_option"), "{error}");
    let schemas: u64 = plain
        .one("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('safe', 'open')")
        .await?;
    assert_eq!(schemas, 0);

    let target = Server::start_with(ServerOptions::new().encrypted_binlog()).await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_same(&source, &target, &[]).await?;
    Ok(())
}
