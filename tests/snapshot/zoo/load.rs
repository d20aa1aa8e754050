//! The whole zoo, dumped while everything moves: restored and brought up to date by replication, it
//! must be the source again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback::error::{Class, Classified as _};
use quillback::mysql::schema::Filter;
use quillback::snapshot::SnapshotOptions;
use quillback_harness::{ROOT_PASSWORD, Server};
use tokio::task::JoinSet;

use super::compare::assert_same;
use super::{objects, values};
use crate::support::{exec_all, load_into, manifest, memory, on_primary, snapshot, url};

/// Changes to tables of all sorts, again and again.
const WRITES: &[&str] = &[
    "INSERT INTO zoo.documents (j, n, g, tags, hidden) VALUES (JSON_OBJECT('a', UUID()), '[1]', ST_GeomFromText('POINT(3 4)', 4326), '[7]', 3)",
    "DELETE FROM zoo.documents WHERE id > 503 ORDER BY id LIMIT 1",
    "UPDATE zoo.texts SET bl = REPEAT(RANDOM_BYTES(20), 50), l1 = LEFT(UUID(), 9) WHERE id = 1",
    "UPDATE zoo.numbers SET g = RAND() * 1e10, f = RAND(), d = d - 0.1 WHERE id IN (2, 3)",
    "UPDATE zoo.times SET dt = NOW(6), ts = NOW(6) WHERE id = 3",
    "REPLACE INTO zoo.parts VALUES (FLOOR(RAND() * 20), LEFT(UUID(), 3))",
    "INSERT INTO zoo.without_key VALUES (LEFT(UUID(), 9), 1)",
    "DELETE FROM zoo.without_key WHERE b = 1 LIMIT 1",
    "INSERT INTO zoo.zparent (name) VALUES (LEFT(UUID(), 9))",
    "DELETE FROM zoo.zparent WHERE id > 1 LIMIT 1",
    "INSERT INTO zoo.hidden_key (a) VALUES (FLOOR(RAND() * 100))",
    "INSERT INTO farm.computed (id, j, d, name) VALUES (FLOOR(RAND() * 1e9), '{\"tags\": [\"z\"]}', RAND(), UUID()) \
     ON DUPLICATE KEY UPDATE d = 1",
    "UPDATE farm.tree SET parent = IF(parent IS NULL, 2, NULL) WHERE id = 1",
    "INSERT INTO farm.behind (k) VALUES (9)",
    "DELETE FROM farm.behind WHERE k = 9",
    "UPDATE farm.shapes SET b = ST_GeomFromText(CONCAT('LINESTRING(0 0, 1 ', FLOOR(RAND() * 9), ')')) WHERE id = 1",
    "REPLACE INTO farm.by_hash VALUES (FLOOR(RAND() * 50))",
    "INSERT INTO farm.in_ts VALUES (FLOOR(RAND() * 1e6), 'w') ON DUPLICATE KEY UPDATE b = 'x'",
];

/// DDL that goes on meanwhile, in a schema of its own.
const DDL: &[&str] = &[
    "CREATE TABLE busy.t (id INT PRIMARY KEY, a INT)",
    "ALTER TABLE busy.t ADD COLUMN b INT",
    "INSERT INTO busy.t VALUES (1, 2, 3)",
    "CREATE VIEW busy.v AS SELECT b FROM busy.t",
    "DROP VIEW busy.v",
    "DROP TABLE busy.t",
];

/// Between two statements of a connection: traffic, and not a siege.
const PAUSE: Duration = Duration::from_millis(3);

async fn repeat(
    url: String,
    statements: &'static [&'static str],
    start: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Result<()> {
    let mut conn = mysql_async::Conn::from_url(&url).await?;
    conn.query_drop("SET NAMES utf8mb4, SESSION sql_mode = ''")
        .await?;
    // A round is always finished, so that DDL leaves nothing behind.
    while !stop.load(Ordering::Relaxed) {
        for n in 0..statements.len() {
            let statement = statements[(start + n) % statements.len()];
            conn.query_drop(statement)
                .await
                .with_context(|| statement.to_owned())?;
            done.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }
    conn.disconnect().await?;
    Ok(())
}

struct Traffic {
    tasks: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    ddl: Arc<AtomicU64>,
}

impl Traffic {
    async fn start(server: &Server) -> Result<Self> {
        exec_all(server, &["CREATE DATABASE busy"]).await?;
        let mut traffic = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            writes: Arc::default(),
            ddl: Arc::default(),
        };
        for writer in 0..2 {
            let (stop, done) = (Arc::clone(&traffic.stop), Arc::clone(&traffic.writes));
            traffic
                .tasks
                .spawn(repeat(server.url(), WRITES, writer * 7, stop, done));
        }
        let (stop, done) = (Arc::clone(&traffic.stop), Arc::clone(&traffic.ddl));
        traffic
            .tasks
            .spawn(repeat(server.url(), DDL, 0, stop, done));
        Ok(traffic)
    }

    async fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Lets the target replicate from the source until it has everything.
async fn catch_up(source: &Server, target: &Server) -> Result<()> {
    exec_all(
        target,
        &[
            &format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'root', \
                 SOURCE_PASSWORD = '{ROOT_PASSWORD}', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
                source.port()
            ),
            "START REPLICA",
        ],
    )
    .await?;
    let set = source.gtid_executed().await?;
    if let Err(late) = target.wait_for_gtids(&set, Duration::from_secs(120)).await {
        let why: Vec<(u16, String)> = target
            .query(
                "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker \
                 WHERE LAST_ERROR_NUMBER > 0",
            )
            .await?;
        return Err(late.context(format!("{why:?}")));
    }
    target.exec("STOP REPLICA").await?;
    target.exec("RESET REPLICA ALL").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_zoo_moves_and_comes_back_all_the_same() -> Result<()> {
    let source = Server::start().await?;
    values::fill(&source).await?;
    objects::fill(&source).await?;
    let traffic = Traffic::start(&source).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let storage = memory();
    // The backup lock keeps the DDL waiting for as long as the snapshot takes.
    let writes = traffic.writes.load(Ordering::Relaxed);
    let mut tries = 0;
    let report = loop {
        tries += 1;
        match snapshot(&[url(&source)], &on_primary(), &storage).await {
            // A statement of DDL that waits for the backup lock keeps FLUSH TABLES WITH READ LOCK away:
            // an honest answer, after which a cron job tries again.
            Err(error) if error.class() == Class::Transient && tries < 4 => {}
            ended => break ended?,
        }
    };
    ensure!(report.consistency.backup_lock);
    let meanwhile = traffic.writes.load(Ordering::Relaxed) - writes;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ddl = traffic.ddl.load(Ordering::Relaxed);
    traffic.end().await?;
    ensure!(
        meanwhile > 10,
        "only {meanwhile} writes during the snapshot"
    );
    ensure!(ddl > 5, "only {ddl} statements of DDL");
    let manifest = manifest(&*storage, &report).await?;

    let target = Server::start().await?;
    load_into(&target, &storage, &manifest).await?;
    catch_up(&source, &target).await?;
    let compared = assert_same(&source, &target, &["a_broken", "b_on_nobody"]).await?;
    ensure!(compared.objects >= 90, "{compared:?}");
    // One of them came and went meanwhile.
    ensure!(compared.tables + 1 >= manifest.tables.len(), "{compared:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_in_schemas_that_are_left_out_does_no_harm() -> Result<()> {
    let source = Server::start().await?;
    values::fill(&source).await?;
    objects::fill(&source).await?;
    // Without BACKUP_ADMIN nothing keeps DDL away.
    exec_all(
        &source,
        &[
            "CREATE USER few IDENTIFIED BY 'pw'",
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION CLIENT ON *.* TO few",
        ],
    )
    .await?;
    let traffic = Traffic::start(&source).await?;
    let storage = memory();
    let options = SnapshotOptions {
        filter: Filter {
            include: Vec::new(),
            exclude: vec!["busy".parse()?],
        },
        ..on_primary()
    };
    let few = source.url_for("few", "pw").parse()?;
    let before = traffic.ddl.load(Ordering::Relaxed);
    let report = snapshot(&[few], &options, &storage).await?;
    let ddl = traffic.ddl.load(Ordering::Relaxed) - before;
    traffic.end().await?;
    ensure!(!report.consistency.backup_lock);
    ensure!(ddl > 0, "no DDL ran meanwhile");
    let manifest = manifest(&*storage, &report).await?;
    ensure!(manifest.tables.iter().all(|table| table.database != "busy"));

    let target = Server::start().await?;
    load_into(&target, &storage, &manifest).await?;
    // What the filter left out is the operator's to bring.
    exec_all(&target, &["SET sql_log_bin = 0", "CREATE DATABASE busy"]).await?;
    Ok(())
}
