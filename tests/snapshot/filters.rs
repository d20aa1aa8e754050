//! Filters: what passes is whole, what depends on the rest is named, and a pattern that matches
//! nothing is no silent success.

use anyhow::Result;
use quillback::archive::manifest::ScriptKind;
use quillback::error::{Class, Classified as _};
use quillback::mysql::schema::Filter;
use quillback::snapshot::{SnapshotError, SnapshotOptions};
use quillback_harness::Server;

use crate::support::{exec_all, load_into, manifest, manifests, memory, on_primary, snapshot, url};

fn with(include: &[&str], exclude: &[&str]) -> SnapshotOptions {
    let patterns = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse().expect("a pattern"))
            .collect()
    };
    SnapshotOptions {
        filter: Filter {
            include: patterns(include),
            exclude: patterns(exclude),
        },
        ..on_primary()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_restored_and_the_rest_is_named() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE DATABASE crm",
            "CREATE DATABASE other",
            "USE shop",
            "CREATE TABLE secret (id INT PRIMARY KEY)",
            "CREATE TABLE item (id INT PRIMARY KEY, s INT, FOREIGN KEY (s) REFERENCES secret (id))",
            "CREATE TABLE tmp_1 (id INT)",
            "INSERT INTO secret VALUES (1)",
            "INSERT INTO item VALUES (1, 1)",
            "CREATE TRIGGER on_item BEFORE INSERT ON item FOR EACH ROW SET @a = 1",
            "CREATE TRIGGER on_secret BEFORE INSERT ON secret FOR EACH ROW SET @a = 1",
            "CREATE FUNCTION f() RETURNS INT NO SQL RETURN 1",
            "CREATE FUNCTION tmp_f() RETURNS INT NO SQL RETURN 1",
            "CREATE PROCEDURE p() SELECT * FROM secret",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO DELETE FROM secret",
            "CREATE EVENT tmp_e ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO DELETE FROM secret",
            "CREATE VIEW good AS SELECT i.id, f() AS f FROM item i",
            "CREATE VIEW reads_secret AS SELECT * FROM secret",
            "CREATE VIEW reads_that AS SELECT * FROM reads_secret",
            "CREATE VIEW calls_tmp AS SELECT tmp_f() AS t",
            "CREATE TABLE crm.user (id INT PRIMARY KEY)",
            "CREATE TABLE crm.mail (id INT PRIMARY KEY)",
            "CREATE VIEW crm.mails AS SELECT * FROM crm.mail",
            "CREATE TABLE other.t (id INT PRIMARY KEY)",
            "CREATE USER app IDENTIFIED BY 'pw'",
            "GRANT SELECT ON shop.secret TO app",
            "GRANT SELECT ON other.* TO app",
            "GRANT INSERT ON shop.item TO app",
        ],
    )
    .await?;
    let storage = memory();
    let options = with(
        &["shop", "crm.user"],
        &["shop.secret", "shop.tmp_*", "*.nothing"],
    );
    let report = snapshot(&[url(&source)], &options, &storage).await?;
    for expected in [
        "table shop.item has a foreign key to shop.secret",
        "view shop.reads_secret reads shop.secret",
        "view shop.reads_that reads shop.reads_secret",
        "view shop.calls_tmp reads shop.tmp_f",
        "--exclude *.nothing matches nothing",
    ] {
        let told = report.warnings.iter().any(|w| w.contains(expected));
        assert!(told, "{expected}: {:?}", report.warnings);
    }
    assert_eq!(report.warnings.len(), 5, "{:?}", report.warnings);
    let manifest = manifest(&*storage, &report).await?;
    let tables: Vec<String> = manifest.tables.iter().map(|t| t.display_name()).collect();
    assert_eq!(tables, ["crm.user", "shop.item"]);
    let objects = |kind| {
        let script = manifest.schema.iter().find(|script| script.kind == kind);
        script.map_or(0, |script| script.objects)
    };
    for (kind, count) in [
        (ScriptKind::Databases, 2),
        (ScriptKind::Routines, 2),
        (ScriptKind::Views, 1),
        (ScriptKind::InvalidViews, 3),
        (ScriptKind::Triggers, 1),
        (ScriptKind::Events, 1),
    ] {
        assert_eq!(objects(kind), count, "{kind}");
    }
    let target = Server::start().await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    for expected in [
        "shop.reads_secret",
        "shop.reads_that",
        "shop.calls_tmp",
        "a grant of app@%",
    ] {
        let told = loaded.warnings.iter().any(|w| w.contains(expected));
        assert!(told, "{expected}: {:?}", loaded.warnings);
    }
    let (id, f): (i32, i32) = target.one("SELECT id, f FROM shop.good").await?;
    assert_eq!((id, f), (1, 1));
    let grants: Vec<String> = target.query("SHOW GRANTS FOR app").await?;
    assert_eq!(grants.len(), 3, "{grants:?}");

    // What was meant and is not there is an error, not a small snapshot.
    for include in ["shpo", "shop.itme", "crm.user,shop"] {
        let error = snapshot(&[url(&source)], &with(&["crm", include], &[]), &storage)
            .await
            .expect_err(include);
        assert!(
            matches!(error, SnapshotError::NothingMatches { .. }),
            "{error:?}"
        );
        assert_eq!(error.class(), Class::Usage);
        assert!(error.to_string().contains(include), "{error}");
    }

    // And a filter that leaves nothing is no snapshot of nothing.
    for (include, exclude, said) in [
        (
            &[][..],
            &["*"][..],
            "--exclude * leaves nothing of what there is",
        ),
        (
            &[],
            &["shop", "crm.*", "other", "x"],
            "--exclude shop, crm.*, other leave nothing",
        ),
        (
            &["crm"],
            &["*.user", "*.mail*"],
            "nothing of what --include crm takes",
        ),
    ] {
        let error = snapshot(&[url(&source)], &with(include, exclude), &storage)
            .await
            .expect_err(said);
        assert_eq!(error.class(), Class::Usage, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(manifests(&*storage).await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_anything_is_a_snapshot_of_nothing() -> Result<()> {
    let source = Server::start().await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    assert_eq!((report.totals.tables, report.totals.rows), (0, 0));
    // There is nothing that the pattern could have left.
    let report = snapshot(&[url(&source)], &with(&[], &["*"]), &storage).await?;
    assert_eq!(
        report.warnings,
        ["--exclude * matches nothing on the server"]
    );
    Ok(())
}
