//! Snapshots of older versions stay readable: `tests/golden/snapshot-1` was taken before scripts had
//! two digits, named their objects and came with anything beyond schemas and accounts.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use quillback::archive::layout;
use quillback::archive::manifest::{Manifest, ScriptKind};
use quillback::storage::{LocalStorage, Storage, list_all};
use quillback_harness::{Server, programs};

use crate::support::load_into;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_snapshot_is_restored() -> Result<()> {
    let folder = programs::repository().join("tests/golden/snapshot-1");
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(folder));
    let objects = list_all(&*storage, layout::SNAPSHOTS, None).await?;
    let key = objects
        .iter()
        .map(|object| &object.key)
        .find(|key| layout::parse_snapshot_manifest(key).is_some())
        .context("the golden snapshot has a manifest")?;
    let manifest: Manifest = serde_json::from_slice(&storage.get(key).await?)?;
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
    for expected in ["VIEW `broken`", "a grant of app@% names what is gone"] {
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
