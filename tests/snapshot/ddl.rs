//! DDL while a snapshot is taken: kept away, let through in time, and seen whatever it leaves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback::archive::manifest::{ConsistencyMethod, DdlGuard};
use quillback::error::{Class, Classified as _};
use quillback::mysql::ServerUrl;
use quillback::snapshot::{LockMode, SnapshotError, SnapshotOptions, SnapshotReport};
use quillback::storage::Storage;
use quillback_harness::{Random, Replicas, Server, Trio, until};

use crate::gate::Gate;
use crate::support::{exec_all, manifest, manifests, memory, on_primary, snapshot, url};

const LIMIT: Duration = Duration::from_secs(60);

/// Two small tables; with one thread the rows of `a` are read first.
const TABLES: [&str; 6] = [
    "CREATE DATABASE d",
    "CREATE DATABASE other",
    "CREATE TABLE d.a (id INT PRIMARY KEY, c INT)",
    "CREATE TABLE d.b (id INT PRIMARY KEY, c INT)",
    "INSERT INTO d.a VALUES (1, 1), (2, 2)",
    "INSERT INTO d.b VALUES (1, 10), (2, 20)",
];

/// A user that may take snapshots without the backup lock, with what more is granted.
async fn user(server: &Server, name: &str, more: &str) -> Result<ServerUrl> {
    let grants = "SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION CLIENT";
    exec_all(
        server,
        &[
            &format!("CREATE USER {name} IDENTIFIED BY 'pw'"),
            &format!("GRANT {grants}{more} ON *.* TO {name}"),
        ],
    )
    .await?;
    Ok(server.url_for(name, "pw").parse()?)
}

fn one_thread() -> SnapshotOptions {
    SnapshotOptions {
        threads: 1,
        filter: quillback::mysql::schema::Filter {
            include: Vec::new(),
            exclude: vec!["other".parse().expect("a pattern")],
        },
        ..on_primary()
    }
}

/// Takes a snapshot, and does something while the rows of `d.a` are being stored.
async fn while_reading(
    servers: &[ServerUrl],
    options: &SnapshotOptions,
    meanwhile: impl AsyncFnOnce() -> Result<()>,
) -> Result<(Result<SnapshotReport, SnapshotError>, Arc<dyn Storage>)> {
    let inner = memory();
    let gate = Gate::new(Arc::clone(&inner), "data/d/a/");
    let storage: Arc<dyn Storage> = gate.clone();
    let doing = gate.meanwhile(meanwhile);
    let taking = snapshot(servers, options, &storage);
    // A snapshot that gives up does not come to its end behind the gate.
    let (taken, done) = tokio::join!(taking, doing);
    done?;
    Ok((taken, inner))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_that_was_undone_is_seen_in_the_binlog() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    exec_all(
        &server,
        &[
            "CREATE TABLE d.twin (id INT PRIMARY KEY, c INT)",
            "INSERT INTO d.twin VALUES (3, 30)",
        ],
    )
    .await?;
    let follower = user(&server, "follower", ", REPLICATION SLAVE").await?;
    let blind = user(&server, "blind", "").await?;
    let undone: [(&[&str], &str); 3] = [
        (
            &[
                "ALTER TABLE d.b DROP COLUMN c, ALGORITHM=INSTANT",
                "ALTER TABLE d.b ADD COLUMN c INT DEFAULT 7, ALGORITHM=INSTANT",
                "ALTER TABLE d.b ALTER COLUMN c DROP DEFAULT, ALGORITHM=INSTANT",
                "ALTER TABLE d.b ALTER COLUMN c SET DEFAULT NULL, ALGORITHM=INSTANT",
            ],
            "ALTER TABLE of d.b",
        ),
        (
            &[
                "RENAME TABLE d.b TO d.gone, d.twin TO d.b",
                "RENAME TABLE d.b TO d.twin, d.gone TO d.b",
            ],
            "RENAME TABLE of d.b",
        ),
        (&["TRUNCATE TABLE d.b"], "TRUNCATE TABLE of d.b"),
    ];
    for (statements, said) in undone {
        let (taken, store) =
            while_reading(std::slice::from_ref(&follower), &one_thread(), async || {
                exec_all(&server, statements).await
            })
            .await?;
        let error = taken.expect_err(said);
        ensure!(
            matches!(error, SnapshotError::Ddl { .. }) && error.to_string().contains(said),
            "{error:?}"
        );
        assert_eq!(error.class(), Class::Transient, "{error}");
        assert!(manifests(&*store).await?.is_empty(), "{said}");
    }
    // Without the binlog a swap that was swapped back goes unseen; it is said that it would.
    let (taken, _) = while_reading(&[blind], &one_thread(), async || {
        exec_all(&server, undone[1].0).await
    })
    .await?;
    let report = taken?;
    assert_eq!(report.consistency.ddl_guards, [DdlGuard::Comparison]);
    assert!(
        report.warnings.iter().any(|w| w.contains("goes unseen")),
        "{:?}",
        report.warnings
    );

    // What cannot harm does not: other schemas, new tables, texts and accounts.
    let harmless = [
        "ALTER TABLE other.t ADD COLUMN c INT",
        "CREATE TABLE d.new (id INT)",
        "CREATE VIEW d.v AS SELECT 1",
        "CREATE USER another",
        "GRANT SELECT ON d.* TO another",
        "DROP TABLE d.new",
        "ALTER DATABASE other COLLATE utf8mb4_bin",
    ];
    server.exec("CREATE TABLE other.t (id INT)").await?;
    let (taken, store) = while_reading(&[follower], &one_thread(), async || {
        exec_all(&server, &harmless).await
    })
    .await?;
    let report = taken?;
    assert_eq!(report.consistency.ddl_guards, [DdlGuard::Binlog]);
    let manifest = manifest(&*store, &report).await?;
    let names: Vec<&str> = manifest.tables.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "twin"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_waits_for_us_no_longer_than_it_is_told() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (source, replica) = (replicas.source(), &replicas.replicas()[0]);
    exec_all(source, &TABLES).await?;
    exec_all(source, &["CREATE TABLE other.t (id INT)"]).await?;
    replicas.wait_caught_up().await?;
    let servers = [url(source), url(replica)];
    lets_go(&servers, source, &[replica]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_waits_for_us_no_longer_than_it_is_told() -> Result<()> {
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    exec_all(primary, &TABLES).await?;
    exec_all(primary, &["CREATE TABLE other.t (id INT)"]).await?;
    let executed = primary.gtid_executed().await?;
    for member in trio.members() {
        member.wait_for_gtids(&executed, LIMIT).await?;
    }
    let servers: Vec<ServerUrl> = trio.members().iter().map(url).collect();
    lets_go(&servers, primary, &trio.secondaries().await?).await
}

/// The server whose backup lock is held.
async fn locked<'a>(servers: &[&'a Server]) -> Result<&'a Server> {
    for server in servers {
        let locks: u64 = server
            .one(
                "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                 WHERE OBJECT_TYPE = 'BACKUP LOCK'",
            )
            .await?;
        if locks > 0 {
            return Ok(server);
        }
    }
    anyhow::bail!("nobody's is")
}

/// DDL on the source while the secondary is read: it is applied after `--ddl-wait`, and then
/// counts only if it concerns the snapshot.
async fn lets_go(servers: &[ServerUrl], source: &Server, secondaries: &[&Server]) -> Result<()> {
    let options = SnapshotOptions {
        allow_primary: false,
        ddl_wait: Duration::from_secs(2),
        ..one_thread()
    };
    let apply = async |statement: &str| {
        let secondary = locked(secondaries).await?;
        source.exec(statement).await?;
        source
            .exec("INSERT INTO d.a SELECT MAX(id) + 1, 0 FROM d.a")
            .await?;
        let executed = source.gtid_executed().await?;
        // The dump stands still all the while: only the lock can have been in the way.
        secondary.wait_for_gtids(&executed, LIMIT).await
    };
    let (taken, store) = while_reading(servers, &options, async || {
        apply("ALTER TABLE other.t ADD COLUMN c INT").await
    })
    .await?;
    let report = taken?;
    ensure!(report.server.to_string() != source.address());
    let consistency = &report.consistency;
    assert_eq!(
        consistency.ddl_guards,
        [DdlGuard::BackupLock, DdlGuard::Binlog],
        "{consistency:?}"
    );
    ensure!(
        (2.0..20.0).contains(&consistency.ddl_wait_seconds),
        "{consistency:?}"
    );
    ensure!(consistency.backup_lock_seconds >= 2.0, "{consistency:?}");
    assert_eq!(manifest(&*store, &report).await?.tables[0].rows, 2);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);

    let (taken, store) = while_reading(servers, &options, async || {
        apply("ALTER TABLE d.b ADD COLUMN more INT").await
    })
    .await?;
    let error = taken.expect_err("it concerns the snapshot");
    ensure!(
        error.to_string().contains("ALTER TABLE of d.b"),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Transient);
    assert!(manifests(&*store).await?.is_empty());
    Ok(())
}

/// DDL that a replica applies waits for our lock, and no view can be opened meanwhile: it has its
/// GTID, and holds the global lock in part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_in_the_way_of_the_views_is_let_by() -> Result<()> {
    let replicas = Replicas::start(1).await?;
    let (source, replica) = (replicas.source(), &replicas.replicas()[0]);
    exec_all(source, &TABLES).await?;
    let servers = [url(source), url(replica)];
    for (round, lock, method) in [
        (1, LockMode::Flush, ConsistencyMethod::GlobalReadLock),
        (2, LockMode::Auto, ConsistencyMethod::LockFree),
        (3, LockMode::None, ConsistencyMethod::LockFree),
    ] {
        // As long as this is prepared the snapshot waits, holding the backup lock.
        exec_all(
            source,
            &[
                "XA START 'x'",
                &format!("INSERT INTO d.a VALUES ({round}00, 0)"),
                "XA END 'x'",
                "XA PREPARE 'x'",
            ],
        )
        .await?;
        replicas.wait_caught_up().await?;
        let options = SnapshotOptions {
            allow_primary: false,
            lock,
            ..one_thread()
        };
        let storage = memory();
        let doing = async {
            until("the backup lock to be held", LIMIT, async || {
                Ok(locked(&[replica]).await.ok().map(|_| ()))
            })
            .await?;
            source
                .exec(&format!(
                    "ALTER TABLE d.b ADD COLUMN c{round} INT DEFAULT {round}"
                ))
                .await?;
            // Before any view is open, for the snapshot waits still.
            replicas.wait_caught_up().await?;
            source.exec("XA COMMIT 'x'").await
        };
        let (taken, done) = tokio::join!(snapshot(&servers, &options, &storage), doing);
        done?;
        let report = taken?;
        let consistency = &report.consistency;
        assert!(consistency.ddl_let_by >= 1, "{consistency:?}");
        assert_eq!(consistency.ddl_guards, [DdlGuard::BackupLock]);
        assert_eq!(consistency.method, method);
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let executed = source.gtid_executed().await?;
        assert_eq!(report.gtid_executed, executed.parse()?, "{lock:?}");
        // It is in the snapshot, as its GTID says.
        let manifest = manifest(&*storage, &report).await?;
        let rows: Vec<u64> = manifest.tables.iter().map(|table| table.rows).collect();
        assert_eq!(rows, [2 + round, 2]);
        let columns = manifest.tables[1].columns.iter();
        let last = columns.last().map(|column| column.name.clone());
        assert_eq!(last, Some(format!("c{round}")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_lost_is_noticed() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let kill = async || {
        let holders: Vec<u64> = server
            .query(
                "SELECT t.PROCESSLIST_ID FROM performance_schema.metadata_locks l \
                 JOIN performance_schema.threads t ON t.THREAD_ID = l.OWNER_THREAD_ID \
                 WHERE l.OBJECT_TYPE = 'BACKUP LOCK'",
            )
            .await?;
        ensure!(holders.len() == 1, "{holders:?}");
        server.exec(&format!("KILL {}", holders[0])).await
    };
    let (taken, _) = while_reading(&[url(&server)], &one_thread(), async || {
        kill().await?;
        exec_all(
            &server,
            &[
                "ALTER TABLE d.b DROP COLUMN c, ALGORITHM=INSTANT",
                "ALTER TABLE d.b ADD COLUMN c INT, ALGORITHM=INSTANT",
            ],
        )
        .await
    })
    .await?;
    let error = taken.expect_err("DDL ran");
    assert!(matches!(error, SnapshotError::Ddl { .. }), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_that_waits_for_a_table_in_reading_is_given_way() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    // More than is under way between a reader and the store, so that it is still being read.
    server
        .exec("ALTER TABLE d.a ADD COLUMN much LONGTEXT")
        .await?;
    let mut random = Random::new(1);
    for id in 100..116 {
        let noise: String = (0..1 << 16)
            .map(|_| format!("{:016x}", random.next()))
            .collect();
        server
            .exec(&format!(
                "INSERT INTO d.a (id, much) VALUES ({id}, '{noise}')"
            ))
            .await?;
    }
    let follower = user(&server, "follower", ", REPLICATION SLAVE").await?;
    let options = SnapshotOptions {
        ddl_wait: Duration::from_secs(2),
        ..one_thread()
    };
    let inner = memory();
    let gate = Gate::new(Arc::clone(&inner), "data/d/a/");
    let storage: Arc<dyn Storage> = gate.clone();
    let servers = [follower];
    let taking = snapshot(&servers, &options, &storage);
    let altering = async {
        gate.reached().await?;
        // The gate stays shut: the statement has its turn only if the snapshot gives up.
        server.exec("ALTER TABLE d.a ADD COLUMN more INT").await
    };
    let (taken, altered) = tokio::join!(taking, altering);
    altered?;
    let error = taken.expect_err("it gave way");
    assert!(matches!(error, SnapshotError::GaveWay { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_done_is_free_for_ddl() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let follower = user(&server, "follower", ", REPLICATION SLAVE").await?;
    let gate = Gate::new(memory(), "data/d/b/");
    let storage: Arc<dyn Storage> = gate.clone();
    let servers = [follower];
    let options = one_thread();
    let taking = snapshot(&servers, &options, &storage);
    let altering = gate.meanwhile(async || {
        let mut conn = server.conn().await?;
        conn.query_drop("SET SESSION lock_wait_timeout = 1").await?;
        Ok(conn
            .query_drop("ALTER TABLE d.a ADD COLUMN more INT")
            .await?)
    });
    let (taken, altered) = tokio::join!(taking, altering);
    altered?;
    let error = taken.expect_err("DDL on one of its tables");
    assert!(
        error.to_string().contains("ALTER TABLE of d.a"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_statement_is_not_queued_behind() -> Result<()> {
    let server = Server::start().await?;
    exec_all(&server, &TABLES).await?;
    let mut long = server.conn().await?;
    let id: u64 = long
        .query_first("SELECT CONNECTION_ID()")
        .await?
        .expect("one");
    let running = tokio::spawn(async move {
        long.query_drop("SELECT COUNT(*) FROM d.a WHERE SLEEP(120) = 0")
            .await
    });
    until("the long statement to be long", LIMIT, async || {
        let time: Vec<u64> = server
            .query(&format!(
                "SELECT PROCESSLIST_TIME FROM performance_schema.threads \
                 WHERE PROCESSLIST_ID = {id} AND PROCESSLIST_STATE = 'User sleep'"
            ))
            .await?;
        Ok(time.first().is_some_and(|time| *time >= 3).then_some(()))
    })
    .await?;
    let flushes = async || {
        let counted: (String, u64) = server.one("SHOW GLOBAL STATUS LIKE 'Com_flush'").await?;
        Ok::<_, anyhow::Error>(counted.1)
    };
    let before = flushes().await?;
    let storage = memory();
    let options = SnapshotOptions {
        lock: LockMode::Flush,
        ..on_primary()
    };
    let error = snapshot(&[url(&server)], &options, &storage)
        .await
        .expect_err("the lock is not to be had");
    let said = error.to_string();
    ensure!(
        said.contains(&format!("connection {id} of root@")) && !said.contains("SLEEP"),
        "{said}"
    );
    assert_eq!(error.class(), Class::Transient);
    // Nobody was made to wait in vain, and nobody was killed.
    assert_eq!(flushes().await?, before);
    assert!(!running.is_finished());
    // Without the lock it is not in the way.
    let options = SnapshotOptions {
        lock: LockMode::Auto,
        ..on_primary()
    };
    snapshot(&[url(&server)], &options, &storage).await?;
    server.exec(&format!("KILL {id}")).await?;
    let _ = running.await?;
    Ok(())
}
