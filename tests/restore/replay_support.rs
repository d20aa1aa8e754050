//! A log and servers to replay it on, without the rest of a restore.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback::archive::layout::BranchNumber;
use quillback::archive::repository::Repository;
use quillback::gtid::GtidSet;
use quillback::mysql::{ServerFacts, ServerUrl, Session};
use quillback::restore::replay::{
    self, Advertise, CHANNEL, ReplayError, ReplayJob, ReplayKind, TUNED,
};
use quillback_harness::{Server, ServerOptions, checksum, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Archive, LIMIT, State, exec_all, executed, on_primary, snapshot, state, stream_once, url,
};

/// Both kinds, for tests that hold of each.
pub(crate) const KINDS: [ReplayKind; 2] = [ReplayKind::Replication, ReplayKind::Sql];

/// What is on the source and on each target before the log begins, without GTIDs.
const BEFORE: &[&str] = &[
    "SET SESSION sql_log_bin = 0",
    "CREATE DATABASE gate",
    "CREATE TABLE gate.keeper (id INT PRIMARY KEY AUTO_INCREMENT)",
    "SET SESSION sql_log_bin = 1",
];

/// A log, with what the source held before and after it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) archive: Archive,
    /// The source's GTIDs before the log.
    pub(crate) before: GtidSet,
    pub(crate) end: State,
    /// The source, as it was at the end.
    pub(crate) source: Server,
}

impl Log {
    /// Writes a log by what is done between.
    pub(crate) async fn write(
        options: ServerOptions,
        work: impl AsyncFnOnce(&Server, &Archive) -> Result<()>,
    ) -> Result<Self> {
        let source = Server::start_with(options).await?;
        exec_all(&source, BEFORE).await?;
        let archive = Archive::new().await?;
        snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
        let before = executed(&source).await?;
        work(&source, &archive).await?;
        stream_once(&archive.repository, &source).await?;
        let end = state(&source).await?;
        Ok(Self {
            archive,
            before,
            end,
            source,
        })
    }

    /// The transactions of the log.
    pub(crate) fn set(&self) -> GtidSet {
        self.end.set.subtract(&self.before)
    }

    /// A server that is where the log begins.
    pub(crate) async fn target(&self, options: ServerOptions) -> Result<Server> {
        let server = Server::start_with(options).await?;
        exec_all(&server, BEFORE).await?;
        let purged = format!("SET GLOBAL gtid_purged = '{}'", self.before);
        exec_all(&server, &["RESET BINARY LOGS AND GTIDS", &purged]).await?;
        Ok(server)
    }

    /// Replays all of it and fails unless the end is the source's, without a trace of the replay.
    pub(crate) async fn replay(&self, server: &Server, kind: ReplayKind) -> Result<()> {
        let settings = settings(server).await?;
        Replaying::start(self, server, kind, How::default())
            .join()
            .await
            .with_context(|| format!("{kind:?}"))?;
        self.check(server)
            .await
            .with_context(|| format!("{kind:?}"))?;
        assert_eq!(self::settings(server).await?, settings, "{kind:?}");
        Ok(())
    }

    /// Fails unless a server is where the source ended.
    pub(crate) async fn check(&self, server: &Server) -> Result<()> {
        let found = state(server).await?;
        ensure!(
            found.set == self.end.set,
            "missing {:#}, unexpected {:#}",
            self.end.set.subtract(&found.set),
            found.set.subtract(&self.end.set)
        );
        let differences = checksum::differences(&self.end.tables, &found.tables);
        ensure!(differences.is_empty(), "{differences:?}");
        no_trace(server).await
    }
}

/// Fails if the channel left anything behind.
pub(crate) async fn no_trace(server: &Server) -> Result<()> {
    for table in [
        "mysql.slave_master_info",
        "mysql.slave_relay_log_info",
        "mysql.slave_worker_info",
        "performance_schema.replication_connection_configuration",
        "performance_schema.replication_applier_filters",
    ] {
        let count: u64 = server.one(&format!("SELECT COUNT(*) FROM {table}")).await?;
        ensure!(count == 0, "{table} has {count} rows");
    }
    for entry in std::fs::read_dir(server.data_dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.contains(CHANNEL), "{name} is left");
    }
    Ok(())
}

/// The settings that a replay changes.
pub(crate) async fn settings(server: &Server) -> Result<Vec<(String, String)>> {
    let names: Vec<String> = TUNED.iter().map(|name| format!("'{name}'")).collect();
    server
        .query(&format!(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})",
            names.join(", ")
        ))
        .await
}

/// How a server is told to reach us.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) advertise: Option<Advertise>,
}

/// A replay in the background.
#[derive(Debug)]
pub(crate) struct Replaying {
    task: JoinHandle<Result<(), ReplayError>>,
    pub(crate) cancel: CancellationToken,
    applied: Arc<AtomicU64>,
}

impl Replaying {
    pub(crate) fn start(log: &Log, server: &Server, kind: ReplayKind, how: How) -> Self {
        Self::of(&log.archive.repository, log.set(), url(server), kind, how)
    }

    pub(crate) fn of(
        repository: &Repository,
        set: GtidSet,
        server: ServerUrl,
        kind: ReplayKind,
        how: How,
    ) -> Self {
        let cancel = CancellationToken::new();
        let applied = Arc::new(AtomicU64::new(0));
        let task = {
            let (repository, cancel) = (repository.clone(), cancel.clone());
            let applied = Arc::clone(&applied);
            tokio::spawn(async move {
                let mut session = Session::connect(&server).await?;
                let facts = ServerFacts::load(&mut session).await?;
                let history = repository.history(BranchNumber(1)).await?;
                let members = history.needed(&set);
                let job = ReplayJob {
                    repository: &repository,
                    branch: BranchNumber(1),
                    members: &members,
                    set: &set,
                    server: &server,
                    facts: &facts,
                    workers: 4,
                    listen: how.listen,
                    advertise: how.advertise.as_ref(),
                    progress: &|progress| applied.store(progress.applied, Ordering::Relaxed),
                    cancel: &cancel,
                };
                match kind {
                    ReplayKind::Replication => replay::by_replication(&job, &mut session).await,
                    ReplayKind::Sql => replay::by_sql(&job, &mut session).await,
                }
            })
        };
        Self {
            task,
            cancel,
            applied,
        }
    }

    /// How many transactions the server has, as the replay tells it.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn join(self) -> Result<(), ReplayError> {
        tokio::time::timeout(LIMIT, self.task)
            .await
            .expect("the replay ends")
            .expect("it does not panic")
    }

    /// Ends it as a killed process ends: nothing more is done.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A lock on a server that stops a replay where the log writes to `gate.keeper`.
#[derive(Debug)]
pub(crate) struct Gate(mysql_async::Conn);

impl Gate {
    pub(crate) async fn close(server: &Server) -> Result<Self> {
        let mut conn = server.conn().await?;
        conn.query_drop("SET SESSION lock_wait_timeout = 60")
            .await?;
        conn.query_drop("LOCK TABLES gate.keeper READ").await?;
        Ok(Self(conn))
    }

    /// Waits until something stands before the gate.
    pub(crate) async fn wait(server: &Server) -> Result<()> {
        until("the replay to reach the gate", LIMIT, async || {
            let waiting: u64 = server
                .one(
                    "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                     WHERE OBJECT_SCHEMA = 'gate' AND LOCK_STATUS = 'PENDING'",
                )
                .await?;
            Ok((waiting > 0).then_some(()))
        })
        .await
    }

    pub(crate) async fn open(mut self) -> Result<()> {
        self.0.query_drop("UNLOCK TABLES").await?;
        self.0.disconnect().await?;
        Ok(())
    }
}

/// Waits a moment in which something must not happen.
pub(crate) async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}
