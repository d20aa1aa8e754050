//! Under load, what a snapshot holds is what its GTID set says, whichever way it took.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use mysql_async::prelude::Queryable as _;
use quillback::archive::manifest::{ConsistencyMethod, Manifest, TableEntry};
use quillback::gtid::GtidSet;
use quillback::mysql::ServerUrl;
use quillback::snapshot::{LockMode, SnapshotError, SnapshotOptions};
use quillback::storage::{ListPage, ObjectWriter, Storage, StorageError};
use quillback_harness::{Proxy, Server, Trio};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::support::{exec_all, manifest, manifests, memory, on_primary, snapshot, url};

const ACCOUNTS: i64 = 40;
const WRITERS: u64 = 3;

/// Moves money between two tables and writes one line a transaction, until told to stop.
async fn transfer(
    url: String,
    writer: u64,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Result<()> {
    let mut conn = mysql_async::Conn::from_url(&url).await?;
    let mut n = writer * 7919;
    while !stop.load(Ordering::Relaxed) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (from, to) = ((n >> 33) as i64 % ACCOUNTS, (n >> 43) as i64 % ACCOUNTS);
        let mut transaction = conn
            .start_transaction(mysql_async::TxOpts::default())
            .await?;
        transaction
            .query_drop(format!(
                "UPDATE bank.a SET balance = balance - 5 WHERE id = {from}"
            ))
            .await?;
        transaction
            .query_drop(format!(
                "UPDATE bank.b SET balance = balance + 5 WHERE id = {to}"
            ))
            .await?;
        transaction
            .query_drop("INSERT INTO bank.ledger (amount) VALUES (5)")
            .await?;
        match transaction.commit().await {
            Ok(()) => done.fetch_add(1, Ordering::Relaxed),
            Err(error) => return Err(error.into()),
        };
    }
    conn.disconnect().await?;
    Ok(())
}

async fn lines(storage: &dyn Storage, manifest: &Manifest, table: &str) -> Result<Vec<String>> {
    let entry: &TableEntry = manifest
        .tables
        .iter()
        .find(|entry| entry.display_name() == table)
        .expect("the table is in the manifest");
    let mut lines = Vec::new();
    for file in &entry.files {
        let object = storage
            .get(&file.file.key.in_snapshot(&manifest.id))
            .await?;
        let text = String::from_utf8(zstd::decode_all(&object[..])?)?;
        lines.extend(text.lines().map(ToOwned::to_owned));
    }
    ensure!(
        lines.len() as u64 == entry.rows,
        "{table}: rows of the manifest"
    );
    Ok(lines)
}

/// How often a snapshot is taken under load.
const ROUNDS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_are_those_of_the_gtid_set() -> Result<()> {
    let server = Server::start().await?;
    rounds(&server, &server, &[url(&server)], &on_primary()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rows_of_a_secondary_are_those_of_its_gtid_set() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    let secondary = *trio.secondaries().await?.first().expect("two secondaries");
    let servers: Vec<_> = trio.members().iter().map(url).collect();
    let options = SnapshotOptions {
        allow_primary: false,
        ..on_primary()
    };
    rounds(primary, secondary, &servers, &options).await
}

/// Money is moved on the `primary` while snapshots are taken, of which each must hold the sum, and
/// as many lines in its ledger as its GTID set has transactions.
async fn rounds(
    primary: &Server,
    secondary: &Server,
    servers: &[ServerUrl],
    options: &SnapshotOptions,
) -> Result<()> {
    exec_all(
        primary,
        &[
            "CREATE DATABASE bank",
            "CREATE TABLE bank.a (id INT PRIMARY KEY, balance INT)",
            "CREATE TABLE bank.b (id INT PRIMARY KEY, balance INT)",
            "CREATE TABLE bank.ledger (id INT AUTO_INCREMENT PRIMARY KEY, amount INT)",
        ],
    )
    .await?;
    for id in 0..ACCOUNTS {
        primary
            .exec(&format!("INSERT INTO bank.a VALUES ({id}, 1000)"))
            .await?;
        primary
            .exec(&format!("INSERT INTO bank.b VALUES ({id}, 1000)"))
            .await?;
    }
    let base = primary.gtid_executed().await?;
    secondary
        .wait_for_gtids(&base, std::time::Duration::from_secs(60))
        .await?;
    let base: GtidSet = base.parse()?;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(transfer(
            primary.url(),
            writer + 1,
            Arc::clone(&stop),
            Arc::clone(&done),
        ));
    }
    let storage = memory();
    let mut lock_free = 0;
    let mut locked = 0;
    let mut taken = 0;
    for round in 0..ROUNDS {
        let lock = [
            LockMode::Auto,
            LockMode::None,
            LockMode::Flush,
            LockMode::Auto,
        ][round % 4];
        let options = SnapshotOptions {
            lock,
            // One connection reads all tables, or each its own.
            threads: 1 + round % 3,
            ..options.clone()
        };
        let (report, lock) = match snapshot(servers, &options, &storage).await {
            Ok(report) => (report, lock),
            // On a busy server that is an honest answer, but only where no lock was allowed.
            Err(SnapshotError::NeverQuiet { .. }) if lock == LockMode::None => {
                let lock = LockMode::Auto;
                let options = SnapshotOptions { lock, ..options };
                (snapshot(servers, &options, &storage).await?, lock)
            }
            Err(error) => return Err(error.into()),
        };
        taken += 1;
        match report.consistency.method {
            ConsistencyMethod::LockFree => {
                ensure!(lock != LockMode::Flush);
                ensure!(report.consistency.global_lock_seconds == 0.0);
                lock_free += 1;
            }
            ConsistencyMethod::GlobalReadLock => {
                ensure!(lock != LockMode::None);
                ensure!(report.consistency.global_lock_seconds > 0.0);
                locked += 1;
            }
        }
        let manifest = manifest(&*storage, &report).await?;
        let mut sum = 0;
        for table in ["bank.a", "bank.b"] {
            for line in lines(&*storage, &manifest, table).await? {
                sum += line
                    .split('\t')
                    .nth(1)
                    .expect("two columns")
                    .parse::<i64>()?;
            }
        }
        ensure!(
            sum == 2 * ACCOUNTS * 1000,
            "round {round}: the sum is {sum}"
        );
        let ledger = lines(&*storage, &manifest, "bank.ledger").await?.len() as u128;
        let transactions = manifest.gtid_executed.subtract(&base).count();
        ensure!(
            ledger == transactions,
            "round {round} ({lock:?}, {}): {ledger} lines for {transactions} transactions",
            report.consistency.method
        );
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(joined) = writers.join_next().await {
        joined??;
    }
    let done = done.load(Ordering::Relaxed);
    assert_eq!(taken, ROUNDS, "each of them holds");
    ensure!(done > 200, "only {done} transactions ran meanwhile");
    ensure!(
        locked >= 12,
        "{lock_free} lock-free, {locked} with the lock"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_xa_transaction_is_waited_for() -> Result<()> {
    let server = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    let mut other = server.conn().await?;
    for sql in [
        "XA START 'x'",
        "INSERT INTO d.t VALUES (2)",
        "XA END 'x'",
        "XA PREPARE 'x'",
    ] {
        other.query_drop(sql).await?;
    }
    let storage = memory();
    let ending = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        other.query_drop("XA COMMIT 'x'").await
    };
    let options = on_primary();
    let servers = [url(&server)];
    let (report, ended) = tokio::join!(snapshot(&servers, &options, &storage), ending);
    ended?;
    let manifest = manifest(&*storage, &report?).await?;
    // It was waited for: its row and its GTIDs are both there.
    assert_eq!(manifest.tables[0].rows, 2);
    assert_eq!(
        manifest.gtid_executed.to_string(),
        server.gtid_executed().await?.replace('\n', "")
    );

    Ok(())
}

/// XA transactions are prepared and committed all the time: a view that is opened in between would
/// have the GTID of the one half and lack its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xa_transactions_that_come_and_go_are_never_cut_in_two() -> Result<()> {
    let server = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)",
        ],
    )
    .await?;
    let base: GtidSet = server.gtid_executed().await?.parse()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, address) = (Arc::clone(&stop), server.url());
    let writer = tokio::spawn(async move {
        let mut conn = mysql_async::Conn::from_url(&address).await?;
        let mut n = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            n += 1;
            for sql in [
                format!("XA START 'x{n}'"),
                "INSERT INTO d.t VALUES (NULL)".to_owned(),
                format!("XA END 'x{n}'"),
                format!("XA PREPARE 'x{n}'"),
                format!("XA COMMIT 'x{n}'"),
            ] {
                conn.query_drop(sql).await?;
            }
        }
        conn.disconnect().await?;
        Ok::<_, mysql_async::Error>(n)
    });
    // Each question takes its time, so that a half may end between any two of them.
    let proxy = Proxy::start(&server.address()).await?;
    proxy.delay(std::time::Duration::from_millis(10));
    let servers = [proxy.url(&server.url()).parse()?];
    let storage = memory();
    let mut taken = 0;
    for round in 0..8 {
        let options = SnapshotOptions {
            lock: [LockMode::Flush, LockMode::Auto][round % 2],
            threads: 2,
            ..on_primary()
        };
        let report = match snapshot(&servers, &options, &storage).await {
            Ok(report) => report,
            Err(SnapshotError::PreparedXa { .. } | SnapshotError::LockBusy { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        taken += 1;
        let manifest = manifest(&*storage, &report).await?;
        let transactions = manifest.gtid_executed.subtract(&base).count();
        // Both halves of each, or none.
        ensure!(
            transactions == 2 * u128::from(manifest.tables[0].rows),
            "round {round}: {} rows for {transactions} transactions",
            manifest.tables[0].rows
        );
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.await??;
    ensure!(
        taken >= 2 && written > 30,
        "{taken} snapshots, {written} written"
    );
    Ok(())
}

/// A store that runs a statement on a server when the first rows arrive.
#[derive(Debug)]
struct Meanwhile {
    inner: Arc<dyn Storage>,
    url: String,
    statement: &'static str,
    outcome: Mutex<Option<Result<(), mysql_async::Error>>>,
}

#[async_trait::async_trait]
impl Storage for Meanwhile {
    fn url(&self) -> String {
        self.inner.url()
    }
    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.inner.get_range(key, range).await
    }
    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.inner.size(key).await
    }
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        self.inner.put_if_absent(key, body).await
    }
    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        let mut outcome = self.outcome.lock().await;
        if outcome.is_none() {
            let run = async {
                let mut conn = mysql_async::Conn::from_url(&self.url).await?;
                conn.query_drop("SET SESSION lock_wait_timeout = 1").await?;
                conn.query_drop(self.statement).await?;
                conn.disconnect().await
            };
            *outcome = Some(run.await);
        }
        drop(outcome);
        self.inner.upload(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage, StorageError> {
        self.inner.list(prefix, after).await
    }
    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.inner.delete(key).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_is_kept_away_or_fails_the_snapshot() -> Result<()> {
    let server = Server::start().await?;
    exec_all(
        &server,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "CREATE USER few IDENTIFIED BY 'pw'",
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION CLIENT ON *.* TO few",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    let statements = [
        "CREATE TABLE d.x (id INT)",
        "DROP TABLE d.x",
        "ALTER TABLE d.t ADD COLUMN c INT",
        "CREATE VIEW d.v AS SELECT 1",
        "CREATE PROCEDURE d.p() SELECT 1",
        "ALTER DATABASE d COLLATE utf8mb4_bin",
        "CREATE USER another",
        "GRANT SELECT ON d.* TO another",
    ];
    let mut failures = 0;
    for statement in statements {
        let meanwhile = |url| {
            Arc::new(Meanwhile {
                inner: memory(),
                url,
                statement,
                outcome: Mutex::new(None),
            })
        };
        // With BACKUP_ADMIN the statement waits until the snapshot is over, here for a second.
        let store = meanwhile(server.url());
        let storage: Arc<dyn Storage> = store.clone();
        let report = snapshot(&[url(&server)], &on_primary(), &storage).await?;
        assert!(report.consistency.backup_lock && report.consistency.backup_lock_seconds >= 1.0);
        let outcome = store.outcome.lock().await.take().expect("it ran");
        let refused =
            matches!(&outcome, Err(mysql_async::Error::Server(error)) if error.code == 1205);
        assert!(refused, "{statement} was not kept away: {outcome:?}");

        // Without it the statement runs and the snapshot fails, unless the statement waits for
        // what the snapshot has read.
        let store = meanwhile(server.url());
        let storage: Arc<dyn Storage> = store.clone();
        let few = server.url_for("few", "pw").parse()?;
        let failed = snapshot(&[few], &on_primary(), &storage).await;
        let Some(outcome) = store.outcome.lock().await.take() else {
            panic!("{statement}: the snapshot did not come so far: {failed:?}");
        };
        if is_lock_wait(&outcome) {
            assert!(failed.is_ok(), "{statement}: {failed:?}");
            continue;
        }
        outcome?;
        failures += 1;
        let error = failed.expect_err(statement);
        assert!(
            matches!(
                error,
                SnapshotError::SchemaChanged { .. } | SnapshotError::Table { .. }
            ),
            "{statement}: {error:?}"
        );
        assert!(
            manifests(&*storage).await?.is_empty(),
            "{statement}: a failed snapshot has a manifest"
        );
    }
    assert!(failures >= 6, "only {failures} statements ran");
    Ok(())
}

fn is_lock_wait(outcome: &Result<(), mysql_async::Error>) -> bool {
    matches!(outcome, Err(mysql_async::Error::Server(error)) if error.code == 1205)
}
