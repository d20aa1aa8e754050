//! Events: none is lost because its time is over, and none fails for a time zone after hours of
//! loading.

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback::restore::load::LoadError;
use quillback_harness::Server;

use super::compare::assert_same;
use crate::support::{exec_all, load_into, manifest, memory, on_primary, snapshot, url};

/// A time zone of the zoo's own, so that no package of zones is needed.
const ZONE: &[&str] = &[
    "SET sql_log_bin = 0",
    "INSERT INTO mysql.time_zone VALUES (9001, 'N')",
    "INSERT INTO mysql.time_zone_name VALUES ('Zoo/Lodge', 9001)",
    "INSERT INTO mysql.time_zone_transition_type VALUES (9001, 0, 12600, 0, 'ZOO')",
    "SET sql_log_bin = 1",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_back_whatever_the_time_is() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, ZONE).await?;
    exec_all(
        &source,
        &[
            "SET GLOBAL event_scheduler = OFF",
            "CREATE DATABASE d",
            "USE d",
            "CREATE EVENT soon ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 1 SECOND DO SET @a = 1",
            "CREATE EVENT soon_kept ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 1 SECOND ON COMPLETION PRESERVE DO SET @a = 1",
            "CREATE EVENT ends ON SCHEDULE EVERY 1 SECOND ENDS CURRENT_TIMESTAMP + INTERVAL 1 SECOND DO SET @a = 1",
            "CREATE EVENT ends_kept ON SCHEDULE EVERY '1:30' HOUR_MINUTE STARTS CURRENT_TIMESTAMP - INTERVAL 1 DAY \
             ENDS CURRENT_TIMESTAMP + INTERVAL 1 SECOND ON COMPLETION PRESERVE DISABLE COMMENT 'it''s' DO SET @a = 1",
            "SET time_zone = 'Zoo/Lodge'",
            "CREATE DEFINER = 'gone'@'nowhere' EVENT zoned ON SCHEDULE EVERY 1 MONTH STARTS '2031-02-28 23:59:59' DO SET @a = 'ż'",
            "SET time_zone = 'SYSTEM'",
            "CREATE EVENT of_system ON SCHEDULE EVERY 2 WEEK STARTS '2031-02-28 23:59:59' DISABLE DO SET @a = 'ż'",
        ],
    )
    .await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    assert_eq!(manifest.needs.time_zones, ["Zoo/Lodge"]);

    // A server that does not know the zone is refused before anything is done to it.
    let target = Server::start().await?;
    let error = load_into(&target, &storage, &manifest)
        .await
        .expect_err("an unknown zone");
    assert!(matches!(error, LoadError::NoTimeZones { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("Zoo/Lodge"), "{error}");
    let schemas: u64 = target
        .one("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'd'")
        .await?;
    assert_eq!(schemas, 0);

    exec_all(&target, ZONE).await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let compared = assert_same(&source, &target, &[]).await?;
    assert!(compared.objects >= 7, "{compared:?}");
    Ok(())
}
