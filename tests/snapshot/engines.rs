//! Tables of other engines than InnoDB: refused by name, or taken with a warning.

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback::snapshot::SnapshotOptions;
use quillback_harness::{ROOT_PASSWORD, Server, ServerOptions};

use crate::support::{exec_all, load_into, manifest, memory, on_primary, raw_rows, snapshot, url};

const TABLES: [&str; 10] = [
    "archived", "away", "black", "csv", "heap", "isam", "isam2", "merged", "plain", "words",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_engines_are_refused_or_taken_by_name() -> Result<()> {
    let options = || ServerOptions::new().line("federated");
    let source = Server::start_with(options()).await?;
    let away = format!(
        "CREATE TABLE away (id INT PRIMARY KEY) ENGINE = FEDERATED CONNECTION = 'mysql://root:{ROOT_PASSWORD}@127.0.0.1:{}/d/plain'",
        source.port()
    );
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "USE d",
            "CREATE TABLE plain (id INT PRIMARY KEY)",
            "INSERT INTO plain VALUES (1)",
            "CREATE TABLE isam (id INT, t VARCHAR(9), KEY (id), KEY (t)) ENGINE = MyISAM",
            "CREATE TABLE isam2 LIKE isam",
            "CREATE TABLE words (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(9), FULLTEXT (t)) ENGINE = MyISAM AUTO_INCREMENT = 50",
            "INSERT INTO isam VALUES (1, 'a'), (2, 'ż\\t\\n')",
            "INSERT INTO isam2 VALUES (1, 'b')",
            "INSERT INTO words VALUES (7, 'x'), (0, NULL)",
            "CREATE TABLE merged (id INT, t VARCHAR(9), KEY (id), KEY (t)) ENGINE = MERGE UNION = (isam, isam2) INSERT_METHOD = LAST",
            "CREATE TABLE heap (id INT PRIMARY KEY, t VARCHAR(9), KEY (t) USING BTREE) ENGINE = MEMORY MAX_ROWS = 100",
            "INSERT INTO heap VALUES (3, 'x'), (1, 'y'), (2, NULL)",
            "CREATE TABLE csv (id INT NOT NULL, t VARCHAR(20) NOT NULL) ENGINE = CSV",
            "INSERT INTO csv VALUES (1, 'a\"b,c'), (1, ''), (2, 'x\\\\y\\n')",
            "CREATE TABLE archived (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT) ENGINE = ARCHIVE",
            "INSERT INTO archived VALUES (5, 'ż'), (6, NULL)",
            "CREATE TABLE black (id INT PRIMARY KEY) ENGINE = BLACKHOLE",
            "INSERT INTO black VALUES (1)",
            &away,
        ],
    )
    .await?;
    let storage = memory();
    let error = snapshot(&[url(&source)], &on_primary(), &storage)
        .await
        .expect_err("other engines");
    assert_eq!(error.class(), Class::Refused, "{error:?}");
    for name in [
        "d.isam (MyISAM)",
        "d.heap (MEMORY)",
        "d.merged (MRG_MYISAM)",
        "d.black (BLACKHOLE)",
    ] {
        assert!(error.to_string().contains(name), "{error}");
    }

    let allowed = SnapshotOptions {
        allow_non_innodb: true,
        ..on_primary()
    };
    let report = snapshot(&[url(&source)], &allowed, &storage).await?;
    let manifest = manifest(&*storage, &report).await?;
    for table in TABLES.iter().filter(|table| **table != "plain") {
        let named = report
            .warnings
            .iter()
            .any(|warning| warning.contains(&format!("d.{table} (")));
        assert!(named, "{table}: {:?}", report.warnings);
    }
    assert_eq!(report.warnings.len(), 9, "{:?}", report.warnings);
    for table in &manifest.tables {
        let (rows, engine) = match table.name.as_str() {
            "archived" => (2, Some("ARCHIVE")),
            "csv" => (3, Some("CSV")),
            "heap" => (3, Some("MEMORY")),
            "isam" | "words" => (2, Some("MyISAM")),
            "isam2" => (1, Some("MyISAM")),
            "plain" => (1, None),
            "merged" => (0, Some("MRG_MYISAM")),
            "away" => (0, Some("FEDERATED")),
            _ => (0, Some("BLACKHOLE")),
        };
        assert_eq!(
            (table.rows, table.engine.as_deref()),
            (rows, engine),
            "{}",
            table.name
        );
    }

    let target = Server::start_with(options()).await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    for table in TABLES {
        for question in [
            format!("SHOW CREATE TABLE d.{table}"),
            format!("SELECT * FROM d.{table}"),
        ] {
            if table == "away" && question.starts_with("SELECT") {
                continue;
            }
            assert_eq!(
                raw_rows(&source, &question).await?,
                raw_rows(&target, &question).await?,
                "{question}"
            );
        }
    }

    // What cannot be opened is told by its name.
    source
        .exec("ALTER TABLE d.isam2 ADD COLUMN other INT")
        .await?;
    let error = snapshot(&[url(&source)], &allowed, &storage)
        .await
        .expect_err("a MERGE table of other columns");
    let text = quillback::error::with_causes(&error);
    assert!(text.contains("`d`.`merged`"), "{text}");

    // A server without the engine is told of by the table's name, and no other engine takes its place.
    let without = Server::start().await?;
    let error = load_into(&without, &storage, &manifest)
        .await
        .expect_err("no FEDERATED");
    assert!(error.to_string().contains("d.away"), "{error}");
    Ok(())
}
