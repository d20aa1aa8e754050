//! A damaged snapshot is refused, and leaves no row of a damaged file behind.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use quillback::archive::manifest::Manifest;
use quillback::error::{Class, Classified as _};
use quillback::restore::load::LoadError;
use quillback::storage::{MemoryStorage, Storage, list_all};
use quillback_harness::Server;

use crate::support::{exec_all, load_into, manifest, memory, on_primary, snapshot, url};

/// A copy of the store in which one object is another one.
async fn with_object(
    from: &dyn Storage,
    key: &str,
    change: impl Fn(Vec<u8>) -> Option<Vec<u8>>,
) -> Result<Arc<dyn Storage>> {
    let copy = MemoryStorage::new();
    for object in list_all(from, "snapshots/", None).await? {
        let bytes = from.get(&object.key).await?;
        if object.key == key {
            if let Some(changed) = change(bytes.to_vec()) {
                copy.put_if_absent(key, Bytes::from(changed)).await?;
            }
        } else {
            copy.put_if_absent(&object.key, bytes).await?;
        }
    }
    Ok(Arc::new(copy))
}

async fn wipe(target: &Server) -> Result<()> {
    target.exec("SET sql_log_bin = 0").await?;
    for database in ["d"] {
        target
            .exec(&format!("DROP DATABASE IF EXISTS {database}"))
            .await?;
    }
    target.exec("RESET BINARY LOGS AND GTIDS").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_refused_and_nothing_of_the_file_stays() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, text VARCHAR(64))",
            "INSERT INTO d.t WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
             SELECT i, SHA2(i, 256) FROM n",
        ],
    )
    .await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let whole = manifest(&*storage, &report).await?;
    let data = whole.tables[0].files[0].file.key.in_snapshot(&whole.id);
    let script = whole.schema[1].file.key.in_snapshot(&whole.id);
    let target = Server::start().await?;
    type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
    let changes: [(&str, Change); 4] = [
        ("a flipped bit", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Some(bytes)
        }),
        ("a flipped last bit", |mut bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x80;
            Some(bytes)
        }),
        ("a cut", |mut bytes| {
            bytes.truncate(bytes.len() - 7);
            Some(bytes)
        }),
        ("a missing object", |_| None),
    ];
    for key in [&data, &script] {
        for (name, change) in changes {
            let damaged = with_object(&*storage, key, change).await?;
            let error = load_into(&target, &damaged, &whole).await.expect_err(name);
            assert_eq!(
                error.class(),
                Class::Integrity,
                "{name} of {key}: {error:?}"
            );
            let tables: u64 = target
                .one("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd'")
                .await?;
            if tables > 0 {
                assert_eq!(
                    target.one::<u64>("SELECT COUNT(*) FROM d.t").await?,
                    0,
                    "{name} of {key}"
                );
            }
            assert_eq!(target.gtid_executed().await?, "", "{name} of {key}");
            wipe(&target).await?;
        }
    }
    // A file that is whole but not the manifest's: other rows, the manifest's own sums disagree.
    let mut other: Manifest = whole.clone();
    other.tables[0].row_checksum = Default::default();
    let error = load_into(&target, &storage, &other)
        .await
        .expect_err("another checksum");
    assert_eq!(error.class(), Class::Integrity, "{error:?}");
    wipe(&target).await?;

    let loaded = load_into(&target, &storage, &whole).await?;
    assert_eq!(loaded.rows, 900);
    let error = load_into(&target, &storage, &whole)
        .await
        .expect_err("not empty any more");
    assert!(matches!(error, LoadError::NotEmpty { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(target.one::<u64>("SELECT COUNT(*) FROM d.t").await?, 900);
    Ok(())
}
