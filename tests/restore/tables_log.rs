//! What the log does to tables is done again on them alone: DDL, renames, payloads, XA.

use anyhow::{Context as _, Result, ensure};
use quillback::restore::target::Target;
use quillback_harness::{Server, ServerOptions};
use tokio::sync::OnceCell;

use crate::program;
use crate::support::{Archive, exec_all, on_primary, snapshot, stream_once, url};
use crate::tables_support::{Looks, assert_nothing_left, bring_back, looks, plan, tables, truth};

/// Tables with a life between the snapshot and the end.
struct World {
    archive: Archive,
    end: Looks,
    /// The source, with a transaction in doubt.
    _source: Server,
}

/// The tables at the end.
const NAMES: [&str; 11] = [
    "pages",
    "parts",
    "swapped_a",
    "swapped_b",
    "emptied",
    "made",
    "selected",
    "liked",
    "moved",
    "packed",
    "twice",
];

async fn world() -> Result<&'static World> {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_try_init(|| async {
            let source = Server::start().await?;
            exec_all(&source, BEFORE).await?;
            let archive = Archive::new().await?;
            snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
            exec_all(&source, LOG).await?;
            in_doubt(&source).await?;
            exec_all(&source, &["INSERT INTO d.twice VALUES (90, 'behind')"]).await?;
            stream_once(&archive.repository, &source).await?;
            let end = looks(&source, "d", &NAMES).await?;
            Ok::<_, anyhow::Error>(World {
                archive,
                end,
                _source: source,
            })
        })
        .await
}

/// A transaction that is prepared and stays so.
async fn in_doubt(source: &Server) -> Result<()> {
    exec_all(
        source,
        &[
            "XA START 'doubt'",
            "INSERT INTO d.twice VALUES (99, 'in doubt')",
            "XA END 'doubt'",
            "XA PREPARE 'doubt'",
        ],
    )
    .await
}

const BEFORE: &[&str] = &[
    "CREATE DATABASE d",
    "CREATE DATABASE elsewhere CHARACTER SET latin1",
    "USE d",
    "CREATE TABLE pages (id INT PRIMARY KEY AUTO_INCREMENT, t VARCHAR(40), KEY by_t (t))",
    "INSERT INTO pages (t) VALUES ('a'), ('b'), ('c')",
    "CREATE TABLE parts (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) \
     (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))",
    "INSERT INTO parts VALUES (1, 1), (11, 11)",
    "CREATE TABLE loose (id INT PRIMARY KEY, v INT)",
    "INSERT INTO loose VALUES (2, 22), (3, 33)",
    "CREATE TABLE swapped_a (id INT PRIMARY KEY)",
    "CREATE TABLE swapped_b (id INT PRIMARY KEY)",
    "INSERT INTO swapped_a VALUES (1)",
    "INSERT INTO swapped_b VALUES (2), (3)",
    "CREATE TABLE emptied (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
    "INSERT INTO emptied (v) VALUES (1), (2)",
    "CREATE TABLE elsewhere.moved (id INT PRIMARY KEY, t VARCHAR(10))",
    "INSERT INTO elsewhere.moved VALUES (1, 'x')",
    "CREATE TABLE packed (id INT PRIMARY KEY, pad TEXT)",
    "CREATE TABLE twice (id INT PRIMARY KEY, v VARCHAR(20))",
    "CREATE TABLE noise (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
];

const LOG: &[&str] = &[
    "USE d",
    // As gh-ost and pt-online-schema-change do.
    "CREATE TABLE _pages_gho LIKE pages",
    "ALTER TABLE _pages_gho ADD COLUMN n INT NOT NULL DEFAULT 7, DROP KEY by_t, ADD KEY by_n (n)",
    "INSERT INTO _pages_gho (id, t) SELECT id, t FROM pages",
    "INSERT INTO pages (t) VALUES ('late')",
    "INSERT INTO _pages_gho (t) VALUES ('late')",
    "RENAME TABLE pages TO _pages_del, _pages_gho TO pages",
    "DROP TABLE _pages_del",
    "UPDATE pages SET t = CONCAT(t, '!') WHERE id > 1",
    // Rows of two tables in one statement, the last event being of either.
    "INSERT INTO noise (v) VALUES (1), (2)",
    "UPDATE pages, noise SET pages.n = 8, noise.v = 8 WHERE pages.id = noise.id",
    "UPDATE noise, pages SET pages.n = 9, noise.v = 9 WHERE pages.id = noise.id",
    "ALTER TABLE parts EXCHANGE PARTITION p0 WITH TABLE loose",
    "INSERT INTO parts VALUES (5, 55)",
    "INSERT INTO loose VALUES (6, 66)",
    "ALTER TABLE parts EXCHANGE PARTITION p0 WITH TABLE loose",
    "ALTER TABLE parts ADD PARTITION (PARTITION p2 VALUES LESS THAN (30))",
    "INSERT INTO parts VALUES (25, 25)",
    "RENAME TABLE swapped_a TO tmp, swapped_b TO swapped_a, tmp TO swapped_b",
    "INSERT INTO swapped_a VALUES (100)",
    "TRUNCATE emptied",
    "INSERT INTO emptied (v) VALUES (3)",
    "CREATE TABLE made (id INT PRIMARY KEY, v DECIMAL(10, 2)) COMMENT 'made; in the `log`'",
    "INSERT INTO made VALUES (1, 1.5)",
    "CREATE TABLE selected AS SELECT id, t FROM pages",
    "ALTER TABLE selected ADD PRIMARY KEY (id)",
    "DELETE FROM selected WHERE id = 1",
    "CREATE TABLE template (id INT PRIMARY KEY, e ENUM('x', 'y') DEFAULT 'y')",
    "INSERT INTO template VALUES (1, 'x')",
    "CREATE TABLE liked LIKE template",
    "INSERT INTO liked (id) VALUES (5)",
    "RENAME TABLE elsewhere.moved TO d.moved",
    "INSERT INTO moved VALUES (2, 'y')",
    "CREATE UNIQUE INDEX by_t ON moved (t)",
    "SET SESSION binlog_transaction_compression = ON",
    "INSERT INTO packed SELECT id, REPEAT('packed ', 4000) FROM pages",
    "UPDATE packed SET pad = CONCAT(pad, id)",
    "SET SESSION binlog_transaction_compression = OFF",
    // The same name twice, for two tables.
    "DROP TABLE twice",
    "CREATE TABLE twice (id INT PRIMARY KEY, v VARCHAR(20)) CHARACTER SET latin2",
    "INSERT INTO twice VALUES (1, 'second')",
    "BEGIN",
    "INSERT INTO noise (v) VALUES (5)",
    "SAVEPOINT s",
    "INSERT INTO twice VALUES (2, 'taken back')",
    "ROLLBACK TO s",
    "INSERT INTO twice VALUES (3, 'kept')",
    "COMMIT",
    "XA START 'good'",
    "INSERT INTO twice VALUES (4, 'xa')",
    "XA END 'good'",
    "XA PREPARE 'good'",
    "XA COMMIT 'good'",
    "XA START 'bad'",
    "INSERT INTO twice VALUES (5, 'rolled back')",
    "XA END 'bad'",
    "XA PREPARE 'bad'",
    "XA ROLLBACK 'bad'",
    "XA START 'one'",
    "INSERT INTO twice VALUES (6, 'one phase')",
    "XA END 'one'",
    "XA COMMIT 'one' ONE PHASE",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_does_to_tables_is_done_again() -> Result<()> {
    let world = world().await?;
    let patterns: Vec<String> = NAMES.iter().map(|name| format!("d.{name}")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let server = Server::start().await?;
    let report = bring_back(&world.archive, tables(Target::Latest, &server, &patterns)).await?;
    // All of them as the source has them, and as a whole restore makes them.
    let found = looks(&server, "d", &NAMES).await?;
    for (name, look) in &world.end {
        ensure!(
            found.get(name) == Some(look),
            "{name}: {:?} not {look}",
            found.get(name)
        );
    }
    ensure!(
        matches!(&report.notes[..], [only] if only.contains("XA transaction")),
        "{:?}",
        report.notes
    );
    assert_nothing_left(&server).await?;
    let whole = truth(&world.archive, Target::Latest, "d", &NAMES).await?;
    assert_eq!(found, whole);
    // One alone brings those that it came out of, and leaves only itself.
    let server = Server::start().await?;
    let asked = || tables(Target::Latest, &server, &["d.parts", "d.liked"]);
    let plan = plan(&world.archive, asked()).await?;
    assert_eq!(plan.besides, ["d.loose", "d.template"]);
    bring_back(&world.archive, asked()).await?;
    let there: Vec<String> = server
        .query("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd'")
        .await?;
    assert_eq!(there, ["liked", "parts"]);
    assert_eq!(
        looks(&server, "d", &["parts"]).await?["parts"],
        whole["parts"]
    );
    Ok(())
}

/// We die at every point, and the next run goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_at_any_point_is_gone_on_with() -> Result<()> {
    let world = world().await?;
    let server = Server::start_with(ServerOptions::default().line("local_infile = OFF")).await?;
    let ask = ["--tables", "d.*", "--into-schema", "b"];
    let points = [
        "begun",
        "load-schema",
        "load-sent",
        "load-committed",
        "loaded",
        "replaying",
        "parts-statement",
        "parts-statement-done",
        "replayed",
        "checked",
        "parts-placing",
        "parts-placed",
        "finished",
    ];
    for point in points {
        let round = async {
            let begin = [&["--until", "latest"], &ask[..]].concat();
            let armed = [("QUILLBACK_FAIL_POINT", point)];
            let said = program::restore(&world.archive, &server, &begin, &armed).await?;
            said.aborted()?;
            if point != "finished" {
                let plain = program::restore(&world.archive, &server, &begin, &[]).await?;
                plain.ended(&[23])?;
                ensure!(plain.err().contains("--resume"), "{}", plain.err());
                // A whole restore does not take it for its own.
                let whole = ["--until", "latest"];
                let whole = program::restore(&world.archive, &server, &whole, &[]).await?;
                whole.ended(&[23])?;
                for words in [
                    "a restore of tables to it (--tables) did not come to its end",
                    "--resume with the same --tables",
                    "DROP DATABASE `quillback_restore_tables`",
                ] {
                    ensure!(whole.err().contains(words), "{words}: {}", whole.err());
                }
                ensure!(
                    !whole.err().contains("has quillback_"),
                    "told as contents: {}",
                    whole.err()
                );
                let other = ["--resume", "--tables", "d.made", "--into-schema", "b"];
                let other = program::restore(&world.archive, &server, &other, &[]).await?;
                other.ended(&[23])?;
                ensure!(other.err().contains("another restore"), "{}", other.err());
                let again = [&["--resume"], &ask[..]].concat();
                let said = program::restore(&world.archive, &server, &again, &[]).await?;
                said.ended(&[3])?;
            }
            let found = looks(&server, "b", &NAMES).await?;
            for (name, look) in &world.end {
                ensure!(
                    found.get(name) == Some(look),
                    "{name}: {:?} not {look}",
                    found.get(name)
                );
            }
            let open: bool = server.one("SELECT @@GLOBAL.local_infile").await?;
            ensure!(!open || point.starts_with("load-"), "local_infile is on");
            exec_all(
                &server,
                &["DROP DATABASE b", "SET GLOBAL local_infile = OFF"],
            )
            .await?;
            assert_nothing_left(&server).await
        };
        round.await.with_context(|| format!("at {point}"))?;
    }
    Ok(())
}

/// The statements that a failure prints give it up, and nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_given_up_leaves_nothing() -> Result<()> {
    let world = world().await?;
    let server = Server::start().await?;
    let begin = ["--until", "latest", "--tables", "d.made,d.pages", "--json"];
    let armed = [("QUILLBACK_FAIL_POINT", "replaying")];
    program::restore(&world.archive, &server, &begin, &armed)
        .await?
        .aborted()?;
    let said = program::restore(&world.archive, &server, &begin, &[]).await?;
    said.ended(&[23])?;
    let text = said.err();
    let (_, statements) = text.split_once("on the server: ").context(text.clone())?;
    let statements = statements
        .split(';')
        .filter(|text| text.trim_start().starts_with("DROP"));
    for statement in statements {
        server.exec(statement).await?;
    }
    assert_nothing_left(&server).await?;
    program::restore(&world.archive, &server, &begin, &[])
        .await?
        .ended(&[0])?;
    assert_eq!(
        looks(&server, "d", &["made"]).await?["made"],
        world.end["made"]
    );
    Ok(())
}
