//! Snapshots of older versions stay readable: `tests/golden/snapshot-1` was taken before scripts had
//! two digits, named their objects and came with anything beyond schemas and accounts, and has the
//! row checksums of format 1; `snapshot-2` has those of format 2, a file of several frames, and
//! nearly every kind of script.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use quillback::archive::layout;
use quillback::archive::manifest::{Manifest, RowHash, ScriptKind};
use quillback::storage::{LocalStorage, Storage, list_all};
use quillback_harness::{Server, programs};

use crate::support::load_into;

async fn golden(name: &str) -> Result<(Arc<dyn Storage>, Manifest)> {
    let folder = programs::repository().join("tests/golden").join(name);
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(folder));
    let objects = list_all(&*storage, layout::SNAPSHOTS, None).await?;
    let key = objects
        .iter()
        .map(|object| &object.key)
        .find(|key| layout::parse_snapshot_manifest(key).is_some())
        .context("the golden snapshot has a manifest")?;
    let manifest = serde_json::from_slice(&storage.get(key).await?)?;
    Ok((storage, manifest))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_format_1_is_restored() -> Result<()> {
    let (storage, manifest) = golden("snapshot-1").await?;
    assert_eq!(manifest.format.row_hash(), RowHash::Sha256);
    assert!(manifest.needs.is_nothing());
    assert_eq!(manifest.schema[0].kind, ScriptKind::Databases);
    assert!(
        manifest.schema[0]
            .file
            .key
            .to_string()
            .contains("/1-databases")
    );

    let target = Server::start().await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert_eq!(loaded.rows, 3);
    assert_eq!(
        target.gtid_executed().await?,
        manifest.gtid_executed.to_string().replace('\n', "")
    );
    for expected in [
        "VIEW `shop`.`broken`",
        "a grant of app@% names what is gone",
    ] {
        let told = loaded.warnings.iter().any(|w| w.contains(expected));
        assert!(told, "{expected}: {:?}", loaded.warnings);
    }
    let row: (i32, i32) = target.one("SELECT id, f FROM shop.a WHERE id = 2").await?;
    assert_eq!(row, (2, 7));
    let next: u64 = target
        .one("SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_NAME = 'item'")
        .await?;
    assert_eq!(next, 50);
    for (what, count) in [
        ("TRIGGERS WHERE TRIGGER_SCHEMA", 1),
        ("EVENTS WHERE EVENT_SCHEMA", 1),
        ("VIEWS WHERE TABLE_SCHEMA", 2),
    ] {
        let found: u64 = target
            .one(&format!(
                "SELECT COUNT(*) FROM information_schema.{what} = 'shop'"
            ))
            .await?;
        assert_eq!(found, count, "{what}");
    }
    let grants: Vec<String> = target.query("SHOW GRANTS FOR app").await?;
    assert_eq!(grants.len(), 3, "{grants:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_format_2_is_restored() -> Result<()> {
    let (storage, manifest) = golden("snapshot-2").await?;
    assert_eq!(manifest.format.row_hash(), RowHash::Xxh3);
    assert_eq!(manifest.schema.len(), 14, "{:?}", manifest.schema);
    let target = Server::start().await?;
    // It fails if the rows of a table do not have the checksum of the manifest.
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert_eq!(loaded.rows, 6_005);
    let told = loaded.warnings.iter().any(|w| w.contains("broken"));
    assert!(told, "{:?}", loaded.warnings);
    let row: (String, String, String, String, String) = target
        .one(
            "SELECT HEX(name), CAST(doc AS CHAR), CONCAT_WS(' ', f * 1e0, d), HEX(b), \
             CONVERT_TZ(at, @@time_zone, '+00:00') FROM shop.item WHERE id = 1",
        )
        .await?;
    assert_eq!(row.0, "6109620A635C64");
    assert_eq!(row.1, r#"{"k": [1, null, "x"]}"#);
    assert_eq!(row.2, "0.10000000149011612 1.50");
    assert_eq!(row.3, "00FF0A095C");
    assert_eq!(row.4, "2026-11-21 10:11:12.123456");
    let lines: (u64, u64) = target
        .one("SELECT COUNT(*), SUM(LENGTH(line)) FROM shop.log")
        .await?;
    assert_eq!(lines, (6_000, 672_000));
    let place: (u32, f64) = target
        .one("SELECT ST_SRID(p), ST_Y(p) FROM shop.place")
        .await?;
    assert_eq!(place, (1_000_001, 2.0));
    let role: u64 = target
        .one("SELECT COUNT(*) FROM mysql.default_roles WHERE USER = 'app'")
        .await?;
    assert_eq!(role, 1);
    let tablespace: u64 = target
        .one("SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES WHERE NAME = 'gt'")
        .await?;
    assert_eq!(tablespace, 1);
    Ok(())
}
