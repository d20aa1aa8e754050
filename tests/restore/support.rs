//! What these tests share: an archive, a stream into it, restores out of it, a server's state.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback::archive::catalog::{Chain, StoredSegment};
use quillback::archive::layout::{BranchNumber, SnapshotId};
use quillback::archive::repository::Repository;
use quillback::clock::{Clock as _, SystemClock};
use quillback::gtid::GtidSet;
use quillback::mysql::ServerUrl;
use quillback::restore::target::Target;
use quillback::restore::{self, RestoreError, RestoreOptions, RestoreReport, RestoreRequest};
use quillback::snapshot::{
    SnapshotOptions, SnapshotPlan, SnapshotProgress, SnapshotReport, load_facts,
};
use quillback::storage::{LocalStorage, Storage};
use quillback::stream::{self, StreamError, StreamEvent, StreamOptions, StreamReport};
use quillback_harness::checksum::{self, Sums};
use quillback_harness::{Scratch, Server, ServerOptions, until};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take here before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The URL of a server of the harness.
pub(crate) fn url(server: &Server) -> ServerUrl {
    server.url().parse().expect("the harness gives good URLs")
}

/// An archive in a folder of its own.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) repository: Repository,
    folder: Scratch,
}

impl Archive {
    pub(crate) async fn new() -> Result<Self> {
        let folder = Scratch::new("a")?;
        let repository = make(Arc::new(LocalStorage::new(folder.path().join("archive")))).await?;
        Ok(Self { repository, folder })
    }

    /// A copy, to be damaged.
    pub(crate) async fn copy(&self) -> Result<Self> {
        let folder = Scratch::new("a")?;
        let status = tokio::process::Command::new("cp")
            .arg("-a")
            .arg(self.folder.path().join("archive"))
            .arg(folder.path())
            .status()
            .await?;
        ensure!(status.success(), "cp failed");
        let storage = Arc::new(LocalStorage::new(folder.path().join("archive")));
        let repository = Repository::open(storage).await?;
        Ok(Self { repository, folder })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        self.folder.file_url("archive")
    }

    /// The file of an object.
    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("archive").join(key)
    }
}

/// A server with the empty table `d.t`, and an archive with its snapshot.
pub(crate) async fn begun(options: ServerOptions) -> Result<(Server, Archive)> {
    let source = Server::start_with(options).await?;
    let archive = begun_on(&source).await?;
    Ok((source, archive))
}

/// Makes the empty table `d.t` on a server, and an archive with its snapshot.
pub(crate) async fn begun_on(source: &Server) -> Result<Archive> {
    exec_all(
        source,
        &["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(source)], &on_primary()).await?;
    Ok(archive)
}

/// Makes an archive in a store.
pub(crate) async fn make(storage: Arc<dyn Storage>) -> Result<Repository> {
    Ok(Repository::init(storage, SystemClock.now()).await?)
}

/// The log's only history.
pub(crate) async fn chain(repository: &Repository) -> Result<Chain> {
    Ok(repository.chain(BranchNumber(1)).await?)
}

/// Waits until the log holds a set.
pub(crate) async fn wait_archived(repository: &Repository, set: &GtidSet) -> Result<()> {
    until("the archive to catch up", LIMIT, async || {
        let end = chain(repository).await?.end().unwrap_or_default();
        let missing = set.subtract(&end);
        ensure!(missing.is_empty(), "not archived: {missing:#}");
        Ok(Some(()))
    })
    .await
}

/// Waits until the log vouches for the moment of its own last transaction: that nothing else was
/// committed in the same microsecond.
pub(crate) async fn wait_covered(repository: &Repository) -> Result<()> {
    until("the archive to cover its end", LIMIT, async || {
        let chain = chain(repository).await?;
        let last = chain.segments.iter().filter_map(|s| s.index.last_commit);
        Ok((chain.complete_to() >= last.max()).then_some(()))
    })
    .await
}

/// Small segments, so that a few rows are many of them.
pub(crate) fn stream_options() -> StreamOptions {
    StreamOptions {
        flush_interval: Duration::from_millis(200),
        segment_bytes: 256 << 10,
        idle_interval: Duration::from_secs(1),
        host: "test".to_owned(),
        ..StreamOptions::default()
    }
}

/// A stream in the background.
#[derive(Debug)]
pub(crate) struct Streaming {
    task: JoinHandle<Result<StreamReport, StreamError>>,
    cancel: CancellationToken,
    events: Arc<Mutex<Vec<StreamEvent>>>,
}

impl Streaming {
    pub(crate) fn start(
        repository: &Repository,
        servers: Vec<ServerUrl>,
        options: StreamOptions,
    ) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let cancel = CancellationToken::new();
        let observer: stream::Observer = {
            let events = Arc::clone(&events);
            Arc::new(move |event| {
                events
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(event);
            })
        };
        let task = tokio::spawn(stream::run(
            repository.clone(),
            servers,
            options,
            Arc::new(SystemClock),
            observer,
            cancel.clone(),
        ));
        Self {
            task,
            cancel,
            events,
        }
    }

    /// What happened so far.
    pub(crate) fn events(&self) -> Vec<StreamEvent> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until something has happened.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        is: impl Fn(&StreamEvent) -> bool + Sync,
    ) -> Result<()> {
        until(what, LIMIT, async || {
            ensure!(!self.task.is_finished(), "the stream has ended");
            Ok(self.events().iter().any(&is).then_some(()))
        })
        .await
    }

    /// Asks it to stop and waits for its report.
    pub(crate) async fn stop(self) -> Result<StreamReport> {
        self.cancel.cancel();
        self.join().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn join(self) -> Result<StreamReport> {
        Ok(tokio::time::timeout(LIMIT, self.task)
            .await
            .context("the stream does not end")???)
    }

    /// Ends it as a killed process ends: nothing more is done.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Catches up with a server and ends.
pub(crate) async fn stream_once(repository: &Repository, server: &Server) -> Result<StreamReport> {
    let options = StreamOptions {
        once: true,
        ..stream_options()
    };
    Streaming::start(repository, vec![url(server)], options)
        .join()
        .await
}

/// Takes a snapshot.
pub(crate) async fn snapshot(
    repository: &Repository,
    servers: &[ServerUrl],
    options: &SnapshotOptions,
) -> Result<SnapshotReport> {
    let (facts, url) = load_facts(servers, options).await?;
    let random = uuid::Uuid::new_v4().as_fields().0;
    let plan = SnapshotPlan::compute(&facts, options, SystemClock.now(), random)?;
    Ok(quillback::snapshot::run(
        &plan,
        &url,
        Arc::clone(repository.storage()),
        Arc::new(SystemClock),
        Arc::new(SnapshotProgress::default()),
        &CancellationToken::new(),
    )
    .await?)
}

/// For a server without fellows.
pub(crate) fn on_primary() -> SnapshotOptions {
    SnapshotOptions {
        allow_primary: true,
        ..SnapshotOptions::default()
    }
}

/// A request without any of the finer options.
pub(crate) fn request(target: Target, server: &Server) -> RestoreRequest {
    RestoreRequest::new(target, url(server))
}

/// Plans and restores.
pub(crate) async fn restore(
    repository: &Repository,
    request: RestoreRequest,
) -> Result<RestoreReport, RestoreError> {
    let prepared = restore::prepare(repository.clone(), request).await?;
    let wanted = prepared.plan.result.clone();
    let options = RestoreOptions::default();
    let observer: restore::Observer = Arc::new(|_| {});
    let report = restore::run(prepared, options, observer, CancellationToken::new()).await?;
    assert_eq!(report.gtid_executed, wanted, "the report is the plan's");
    assert!(!report.open);
    Ok(report)
}

/// [`restore`] from a snapshot that is not the newest.
pub(crate) async fn restore_from(
    repository: &Repository,
    snapshot: &SnapshotId,
    target: Target,
    server: &Server,
) -> Result<RestoreReport, RestoreError> {
    let request = RestoreRequest {
        snapshot: Some(snapshot.clone()),
        ..request(target, server)
    };
    restore(repository, request).await
}

/// What a server holds, read without Quillback while nobody writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) set: GtidSet,
    pub(crate) tables: Sums,
}

/// Reads a server's state.
pub(crate) async fn state(server: &Server) -> Result<State> {
    let mut conn = server.conn().await?;
    let tables = checksum::all(&mut conn).await?;
    conn.disconnect().await?;
    Ok(State {
        set: executed(server).await?,
        tables,
    })
}

/// `gtid_executed` as the server tells it.
pub(crate) async fn executed(server: &Server) -> Result<GtidSet> {
    Ok(server.gtid_executed().await?.parse()?)
}

/// Fails unless a restored server is in this state, read-only, and free of what a restore needs
/// once it is opened.
pub(crate) async fn assert_restored(
    server: &Server,
    report: &RestoreReport,
    expected: &State,
) -> Result<()> {
    let read_only: bool = server.one("SELECT @@GLOBAL.super_read_only").await?;
    ensure!(read_only, "it takes writes");
    let opening: Vec<&str> = report.open_with.iter().map(String::as_str).collect();
    exec_all(server, &opening).await?;
    let found = state(server).await?;
    ensure!(
        found.set == expected.set,
        "missing {:#}, unexpected {:#}",
        expected.set.subtract(&found.set),
        found.set.subtract(&expected.set)
    );
    let differences = checksum::differences(&expected.tables, &found.tables);
    ensure!(differences.is_empty(), "{differences:?}");
    assert_tidy(server).await
}

/// Fails if a restore left its tools behind.
pub(crate) async fn assert_tidy(server: &Server) -> Result<()> {
    let channels: Vec<String> = server
        .query("SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration")
        .await?;
    ensure!(channels.is_empty(), "channels are left: {channels:?}");
    assert_settings(server).await
}

/// Fails unless a server has the settings that a restore changes for its own time as they were.
pub(crate) async fn assert_settings(server: &Server) -> Result<()> {
    let settings: (u64, u64, String, bool, bool) = server
        .one(
            "SELECT @@GLOBAL.sync_binlog, @@GLOBAL.innodb_flush_log_at_trx_commit, \
             @@GLOBAL.event_scheduler, @@GLOBAL.read_only, @@GLOBAL.super_read_only",
        )
        .await?;
    ensure!(
        settings == (1, 1, "ON".to_owned(), false, false),
        "settings are left: {settings:?}"
    );
    Ok(())
}

/// Fails if anything was done to an empty server.
pub(crate) async fn assert_untouched(server: &Server, before: &GtidSet) -> Result<()> {
    ensure!(executed(server).await? == *before, "its GTIDs changed");
    let schemas: Vec<String> = server
        .query(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN \
             ('mysql', 'sys', 'information_schema', 'performance_schema')",
        )
        .await?;
    ensure!(schemas.is_empty(), "it has {schemas:?}");
    Ok(())
}

/// Runs statements one by one over one connection.
pub(crate) async fn exec_all(server: &Server, statements: &[&str]) -> Result<()> {
    let mut conn = server.conn().await?;
    conn.query_drop("SET NAMES utf8mb4").await?;
    for statement in statements {
        conn.query_drop(*statement)
            .await
            .with_context(|| format!("at {statement}"))?;
    }
    conn.disconnect().await?;
    Ok(())
}

/// The GTIDs that a piece of work added, while nobody else writes.
pub(crate) async fn gtids_of(server: &Server, statements: &[&str]) -> Result<GtidSet> {
    let before = executed(server).await?;
    exec_all(server, statements).await?;
    Ok(executed(server).await?.subtract(&before))
}

/// The one GTID of a set.
pub(crate) fn only(set: &GtidSet) -> quillback::gtid::Gtid {
    assert_eq!(set.count(), 1, "{set:#}");
    set.iter().next().expect("it has one")
}

/// The segments that hold transactions.
pub(crate) fn full(chain: &Chain) -> Vec<&StoredSegment> {
    chain
        .segments
        .iter()
        .filter(|segment| segment.index.transactions > 0)
        .collect()
}
