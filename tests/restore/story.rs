//! One eventful life of a server, told once for all tests that restore some point of it.
//!
//! Meanwhile bank transfers never stop, except where a state is noted down: there everything is
//! known, the GTID set, the moment and the sum of each table.

use anyhow::{Result, ensure};
use chrono::{DateTime, SubsecRound as _, Utc};
use mysql_async::prelude::Queryable as _;
use quillback::gtid::Gtid;
use quillback_harness::ledger::{Cut, fixed};
use quillback_harness::sinpluma::SinPluma;
use quillback_harness::{Ledger, Server, checksum};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OnceCell;

use quillback::archive::layout::SnapshotId;

use crate::support::{
    Archive, LIMIT, State, Streaming, chain, exec_all, gtids_of, on_primary, only, snapshot, state,
    stream_options, url, wait_archived, wait_covered,
};

/// What happened, and where.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) archive: Archive,
    /// Taken at the beginning.
    pub(crate) first_snapshot: SnapshotId,
    /// Taken near the end.
    pub(crate) last_snapshot: SnapshotId,
    /// After all the oddities.
    pub(crate) odd: State,
    /// A moment at which that was so.
    pub(crate) odd_moment: DateTime<Utc>,
    /// Two insertions right behind it, into a table that nobody else writes.
    pub(crate) aside: [Gtid; 2],
    /// Just before a table was dropped.
    pub(crate) before_drop: State,
    /// The transaction that dropped it.
    pub(crate) drop: Gtid,
    /// The end.
    pub(crate) end: State,
    /// Every definition at the end.
    pub(crate) definitions: BTreeMap<String, String>,
    ledger: Ledger,
}

/// Whatever a binlog may hold, besides plain rows.
pub(crate) const ODDITIES: &[&str] = &[
    "CREATE DATABASE odd",
    "USE odd",
    "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(2000), b BLOB)",
    "CREATE TABLE aside (id INT PRIMARY KEY)",
    "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, pad VARCHAR(4000), noise BLOB)",
    // Compressed, also beyond a segment's size.
    "SET SESSION binlog_transaction_compression = ON",
    "INSERT INTO t (a) VALUES (REPEAT('squeeze ', 200)), ('ż😀')",
    "CREATE TABLE made_compressed (id INT)",
    "INSERT INTO big (noise) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 700) \
     SELECT RANDOM_BYTES(1000) FROM n",
    "SET SESSION binlog_transaction_compression = OFF",
    // Larger than a segment, in many events.
    "INSERT INTO big (pad) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
     SELECT REPEAT(SHA2(i, 256), 30) FROM n",
    // Tags.
    "SET GTID_NEXT = 'AUTOMATIC:tag1'",
    "INSERT INTO t (a) VALUES ('tagged')",
    "CREATE TABLE made_with_tag (id INT)",
    "SET GTID_NEXT = 'AUTOMATIC:another_tag'",
    "INSERT INTO t (a) VALUES ('tagged otherwise')",
    "SET GTID_NEXT = 'AUTOMATIC'",
    // Another server's GTID, and nothing in it.
    "SET GTID_NEXT = 'deadbeef-0000-4000-8000-000000000001:7'",
    "BEGIN",
    "COMMIT",
    "SET GTID_NEXT = 'AUTOMATIC'",
    "FLUSH BINARY LOGS",
    // XA: in two steps, in one, and taken back.
    "XA START 'two', 'steps', 3",
    "INSERT INTO t (a) VALUES ('xa in two steps')",
    "XA END 'two', 'steps', 3",
    "XA PREPARE 'two', 'steps', 3",
    "XA COMMIT 'two', 'steps', 3",
    "XA START 'one'",
    "INSERT INTO t (a) VALUES ('xa in one step')",
    "XA END 'one'",
    "XA COMMIT 'one' ONE PHASE",
    "XA START 'back'",
    "INSERT INTO t (a) VALUES ('xa taken back')",
    "XA END 'back'",
    "XA PREPARE 'back'",
    "XA ROLLBACK 'back'",
    // Statements with what they lean on: INSERT_ID, RAND, user variables, the clock.
    "SET SESSION binlog_format = STATEMENT",
    "SET @v = 'from a variable', @n = NULL",
    "INSERT INTO t (a, b) VALUES (@v, @n), (RAND(), NOW())",
    "UPDATE t SET a = CONCAT(a, LAST_INSERT_ID()) WHERE a LIKE 'from%'",
    "SET SESSION binlog_format = MIXED",
    "INSERT INTO t (a) VALUES (UUID())",
    "SET SESSION binlog_format = ROW",
    // Other ways to write rows down.
    "SET SESSION binlog_row_image = MINIMAL",
    "UPDATE t SET b = 'minimal' WHERE id = 1",
    "SET SESSION binlog_row_image = FULL",
    "SET SESSION binlog_rows_query_log_events = ON",
    "INSERT INTO t (a) VALUES ('with its query')",
    "SET SESSION binlog_rows_query_log_events = OFF",
    "SET SESSION binlog_row_value_options = PARTIAL_JSON",
    "UPDATE sinpluma.page SET content = JSON_SET(content, '$.partial', 1) LIMIT 5",
    "SET SESSION binlog_row_value_options = ''",
    // DDL that carries rows, and rows without transactions.
    "CREATE TABLE copied AS SELECT * FROM t",
    "CREATE TABLE shelf (id INT, a VARCHAR(20)) ENGINE = MyISAM",
    "INSERT INTO shelf VALUES (1, 'no transaction'), (2, 'at all')",
    "UPDATE shelf SET a = 'changed' WHERE id = 2",
    "ALTER TABLE shelf ENGINE = InnoDB",
    "START TRANSACTION",
    "INSERT INTO t (a) VALUES ('before the savepoint')",
    "SAVEPOINT here",
    "INSERT INTO t (a) VALUES ('never seen')",
    "ROLLBACK TO here",
    "INSERT INTO t (a) VALUES ('after the savepoint')",
    "COMMIT",
    "CREATE TEMPORARY TABLE passing (id INT)",
    "DROP TEMPORARY TABLE passing",
    // DDL.
    "ALTER TABLE t ADD COLUMN c INT DEFAULT 5, ADD INDEX by_a (a(20))",
    "UPDATE t SET c = id",
    "CREATE TABLE renamed_later (id INT PRIMARY KEY)",
    "INSERT INTO renamed_later VALUES (1), (2)",
    "RENAME TABLE renamed_later TO renamed",
    "CREATE TABLE emptied (id INT)",
    "INSERT INTO emptied VALUES (1)",
    "TRUNCATE TABLE emptied",
    "CREATE TABLE parent (id INT PRIMARY KEY)",
    "CREATE TABLE child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE)",
    "INSERT INTO parent VALUES (1), (2)",
    "INSERT INTO child VALUES (10, 1), (20, 2)",
    "DELETE FROM parent WHERE id = 1",
    "CREATE DATABASE short_lived",
    "CREATE TABLE short_lived.t (id INT)",
    "DROP DATABASE short_lived",
    "ANALYZE TABLE t",
    "OPTIMIZE TABLE t",
    "FLUSH TABLES",
    // Programs.
    "CREATE TABLE noted (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(20))",
    "CREATE TRIGGER note AFTER INSERT ON renamed FOR EACH ROW INSERT INTO noted (a) VALUES (NEW.id)",
    "INSERT INTO renamed VALUES (3), (4)",
    "CREATE PROCEDURE fill(n INT) BEGIN WHILE n > 0 DO INSERT INTO noted (a) VALUES ('called'); SET n = n - 1; END WHILE; END",
    "CALL fill(3)",
    "CREATE VIEW seen AS SELECT id, a FROM t",
    "CREATE EVENT never ON SCHEDULE AT '2099-01-01 00:00:00' DO DELETE FROM t",
    // Accounts.
    "CREATE USER ann@'%' IDENTIFIED BY 'ann-secret'",
    "CREATE ROLE reader",
    "GRANT SELECT ON odd.* TO reader",
    "GRANT reader TO ann@'%'",
    "SET DEFAULT ROLE reader TO ann@'%'",
    "CREATE USER gone@'%' IDENTIFIED BY 'gone-secret'",
    "DROP USER gone@'%'",
];

/// Tells the story, or gives the one that was told.
pub(crate) async fn story() -> Result<&'static Story> {
    static STORY: OnceCell<Story> = OnceCell::const_new();
    STORY.get_or_try_init(tell).await
}

async fn tell() -> Result<Story> {
    let server = Server::start().await?;
    let mut conn = server.conn().await?;
    let mut pluma = SinPluma::create(&mut conn, 1).await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    let archive = Archive::new().await?;
    let repository = &archive.repository;
    let streaming = Streaming::start(repository, vec![url(&server)], stream_options());
    streaming
        .wait_for("the stream to follow", |event| {
            matches!(event, quillback::stream::StreamEvent::Following { .. })
        })
        .await?;
    let first_snapshot = snapshot(repository, &[url(&server)], &on_primary())
        .await?
        .id;

    exec_all(&server, ODDITIES).await?;
    for _ in 0..10 {
        pluma.write_some(&mut conn).await?;
    }
    let paused = ledger.pause().await;
    let odd = state(&server).await?;
    let odd_moment = Utc::now().trunc_subsecs(6);
    let aside = [
        only(&gtids_of(&server, &["INSERT INTO odd.aside VALUES (1)"]).await?),
        only(&gtids_of(&server, &["INSERT INTO odd.aside VALUES (2)"]).await?),
    ];
    drop(paused);

    ledger.wait_acknowledged(20, LIMIT).await?;
    exec_all(&server, &["FLUSH BINARY LOGS"]).await?;
    pluma.write_some(&mut conn).await?;
    let paused = ledger.pause().await;
    let before_drop = state(&server).await?;
    let drop_gtid = only(&gtids_of(&server, &["DROP TABLE odd.big"]).await?);
    drop(paused);

    ledger.wait_acknowledged(20, LIMIT).await?;
    let last_snapshot = snapshot(repository, &[url(&server)], &on_primary())
        .await?
        .id;
    exec_all(&server, &["FLUSH BINARY LOGS"]).await?;
    for _ in 0..5 {
        pluma.write_some(&mut conn).await?;
    }
    ledger.wait_acknowledged(20, LIMIT).await?;
    ledger.stop().await;
    let end = state(&server).await?;
    let definitions = checksum::schema_fingerprint(&mut conn).await?;
    conn.disconnect().await?;
    wait_archived(repository, &end.set).await?;
    wait_covered(repository).await?;
    let report = streaming.stop().await?;
    ensure!(report.gtid_set == end.set, "{report:?}");

    let chain = chain(repository).await?;
    ensure!(chain.problems.is_empty(), "{:?}", chain.problems);
    let parts = chain.segments.iter().filter(|s| s.index.part.is_some());
    ensure!(
        parts.count() >= 4,
        "no transaction was larger than a segment"
    );
    Ok(Story {
        archive,
        first_snapshot,
        last_snapshot,
        odd,
        odd_moment,
        aside,
        before_drop,
        drop: drop_gtid,
        end,
        definitions,
        ledger,
    })
}

impl Story {
    /// Holds a restored server against the ledger's account of what was acknowledged.
    pub(crate) async fn check_ledger(&self, server: &Server) -> Result<()> {
        let mut conn = server.conn().await?;
        let cut = Cut::Gtids(server.gtid_executed().await?);
        let report = self.ledger.check(&mut conn, &cut).await?;
        ensure!(report.present > 0, "{report:?}");
        conn.disconnect().await?;
        Ok(())
    }

    /// When transfers were known to be committed, in microseconds, with their GTIDs.
    pub(crate) fn transfers(&self) -> Vec<quillback_harness::ledger::Transfer> {
        self.ledger.transfers()
    }
}

/// Logs in as the account that the story made, and reads with its role.
pub(crate) async fn check_account(server: &Server) -> Result<()> {
    let url = server.url_for("ann", "ann-secret");
    let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(&url)?)
        .prefer_socket(Some(false));
    let login = mysql_async::Conn::new(opts);
    let mut conn = tokio::time::timeout(Duration::from_secs(20), login).await??;
    let rows: Option<u64> = conn.query_first("SELECT COUNT(*) FROM odd.t").await?;
    ensure!(rows > Some(0), "{rows:?}");
    conn.disconnect().await?;
    Ok(())
}
