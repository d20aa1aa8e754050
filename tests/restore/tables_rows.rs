//! Rows that the log has as statements: what may concern the tables is refused in the plan.

use anyhow::{Context as _, Result, ensure};
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::restore::RestoreError;
use quillback::restore::target::Target;
use quillback_harness::{Server, ServerOptions};

use crate::support::{Archive, exec_all, gtids_of, on_primary, only, snapshot, stream_once, url};
use crate::tables_support::{bring_back, looks, plan, tables};

/// Objects by which a statement comes to `d.audit` without naming it.
const BEFORE: &[&str] = &[
    "CREATE DATABASE d",
    "CREATE DATABASE other",
    "USE d",
    "CREATE TABLE audit (id INT PRIMARY KEY AUTO_INCREMENT, w VARCHAR(40))",
    "CREATE TABLE orders (id INT PRIMARY KEY, v INT)",
    "CREATE TABLE quiet (id INT PRIMARY KEY, v INT)",
    "CREATE TABLE plain (id INT PRIMARY KEY, w VARCHAR(40))",
    "CREATE TABLE parent (id INT PRIMARY KEY)",
    "CREATE TABLE child (id INT PRIMARY KEY, p INT, \
     CONSTRAINT c_p FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
    "CREATE TABLE other.audit (id INT PRIMARY KEY)",
    "INSERT INTO parent VALUES (1), (2)",
    "INSERT INTO child VALUES (1, 1), (2, 2)",
    "CREATE TRIGGER told AFTER INSERT ON orders FOR EACH ROW INSERT INTO audit (w) VALUES ('order')",
    "CREATE TRIGGER idle AFTER INSERT ON quiet FOR EACH ROW SET @n = 1",
    "CREATE VIEW seen AS SELECT id, w FROM audit",
    "CREATE FUNCTION noted() RETURNS INT MODIFIES SQL DATA BEGIN \
     INSERT INTO audit (w) VALUES ('noted'); RETURN 1; END",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_statement_reaches_only_by_other_things_is_refused_in_the_plan() -> Result<()> {
    let options = ServerOptions::default()
        .line("secure_file_priv=\"\"")
        .line("log_bin_trust_function_creators=ON");
    let source = Server::start_with(options).await?;
    exec_all(&source, BEFORE).await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(
        &source,
        &[
            "USE d",
            "CREATE TABLE late (id INT PRIMARY KEY)",
            "CREATE TRIGGER late_told AFTER INSERT ON late FOR EACH ROW \
             INSERT INTO audit (w) VALUES ('late')",
            "CREATE FUNCTION late_noted() RETURNS INT MODIFIES SQL DATA RETURN noted()",
            "RENAME TABLE orders TO renamed",
            "SELECT 100, 'by a file' INTO OUTFILE 'rows.txt'",
        ],
    )
    .await?;
    // A statement, the table that it must be refused for, and what the refusal says.
    let cases = [
        (
            "LOAD DATA INFILE 'rows.txt' INTO TABLE audit",
            "d.audit",
            "LOAD DATA",
        ),
        (
            "INSERT INTO renamed VALUES (1, 1)",
            "d.audit",
            "the trigger d.told on d.orders names d.audit",
        ),
        (
            "UPDATE seen SET w = CONCAT(w, 'x')",
            "d.audit",
            "the view d.seen",
        ),
        (
            "INSERT INTO quiet VALUES (noted(), 1)",
            "d.audit",
            "d.noted",
        ),
        (
            "INSERT INTO late VALUES (1)",
            "d.audit",
            "a trigger on d.late",
        ),
        (
            "INSERT INTO quiet VALUES (late_noted() + 1, 1)",
            "d.audit",
            "d.late_noted",
        ),
        (
            "DELETE FROM parent WHERE id = 1",
            "d.child",
            "the foreign key c_p",
        ),
        // What the transaction's line does not hold.
        (
            "BEGIN; INSERT INTO quiet VALUES (7, 7); UPDATE audit SET w = 'second'; COMMIT",
            "d.audit",
            "d.audit",
        ),
    ];
    let mut logged = Vec::new();
    for (statements, table, words) in cases {
        let mut all = vec!["USE d", "SET SESSION binlog_format = STATEMENT"];
        all.extend(statements.split("; "));
        let gtids = gtids_of(&source, &all).await.context(statements)?;
        logged.push((only(&gtids), table, words, statements));
    }
    exec_all(
        &source,
        &[
            "USE d",
            "SET SESSION binlog_format = STATEMENT",
            "INSERT INTO quiet VALUES (50, 50)",
            "INSERT INTO other.audit VALUES (5)",
            "LOAD DATA INFILE 'rows.txt' INTO TABLE plain",
        ],
    )
    .await?;
    stream_once(&archive.repository, &source).await?;
    let server = Server::start().await?;
    let mut skip = GtidSet::new();
    for (gtid, ..) in &logged {
        skip.insert(gtid);
    }
    for (gtid, table, words, statements) in &logged {
        let mut asked = tables(Target::Latest, &server, &[*table]);
        asked.skip = skip.clone();
        asked.skip = asked.skip.subtract(&GtidSet::from(gtid.clone()));
        let error = plan(&archive, asked).await;
        let error = error
            .err()
            .with_context(|| format!("planned: {statements}"))?;
        assert_eq!(error.class(), Class::Refused, "{error}");
        let said = error.to_string();
        ensure!(said.contains(&gtid.to_string()), "{statements}: {said}");
        ensure!(said.contains(*words), "{statements}: {said}");
        let RestoreError::Parts(parts) = &error else {
            anyhow::bail!("{statements}: {error:?}");
        };
        let hint = parts.hint().unwrap_or_default();
        ensure!(hint.contains("scratch server"), "{statements}: {hint}");
    }
    // Nothing was written, and without all of them the tables come: what else was logged as a
    // statement reaches none of them.
    let left: u64 = server
        .one("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'quillback%'")
        .await?;
    assert_eq!(left, 0);
    let mut asked = tables(Target::Latest, &server, &["d.audit", "d.child"]);
    asked.skip = skip;
    bring_back(&archive, asked).await?;
    let rows: u64 = server.one("SELECT COUNT(*) FROM d.child").await?;
    assert_eq!(rows, 2);
    looks(&server, "d", &["audit", "child"]).await?;
    Ok(())
}

/// Constraints have names of their own in a schema, and an encrypted table needs a keyring.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn constraints_of_the_same_name_and_a_missing_keyring_are_refused() -> Result<()> {
    let source = Server::start_with(ServerOptions::default().encrypted_binlog()).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, CONSTRAINT positive CHECK (id > 0))",
            "CREATE TABLE d.secret (id INT PRIMARY KEY) ENCRYPTION = 'Y'",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    stream_once(&archive.repository, &source).await?;
    let server = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.elsewhere (id INT PRIMARY KEY, CONSTRAINT positive CHECK (id > 1))",
        ],
    )
    .await?;
    let asked = tables(Target::Latest, &server, &["d.t", "d.secret"]);
    let error = plan(&archive, asked).await.err().context("planned")?;
    let said = error.to_string();
    assert_eq!(error.class(), Class::Refused, "{said}");
    for words in [
        "constraints of the same names: d.positive",
        "no keyring",
        "d.secret",
    ] {
        ensure!(said.contains(words), "{words}: {said}");
    }
    exec_all(&server, &["DROP TABLE d.elsewhere"]).await?;
    plan(&archive, tables(Target::Latest, &server, &["d.t"])).await?;
    Ok(())
}
