//! The stream on real servers: what the archive holds is what the servers wrote, byte for byte,
//! through rotations, deaths of the streamer, takeovers and failovers.

mod audit;
mod branches;
mod by_hand;
mod compaction;
mod decisions;
mod fail_points;
mod failover;
mod failovers;
mod giant;
mod observed;
mod outage;
mod place;
mod promotion;
mod refusals;
mod reseed;
mod semi_sync;
mod single;
mod source_log;
mod spool;
mod store_faults;
mod takeover;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use quillback::archive::layout::BranchNumber;
use quillback::archive::repository::{ArchiveError, Repository};
use quillback::clock::SystemClock;
use quillback::gtid::{Gtid, GtidSet};
use quillback::mysql::ServerUrl;
use quillback::mysql::binlog::{GtidEvent, Piece, Splitter};
use quillback::storage::{MemoryStorage, StorageError};
use quillback::stream::{StreamError, StreamOptions, StreamReport};
use quillback_harness::Server;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A transaction's identity and its events' bytes.
type Transaction = (Gtid, Vec<u8>);

async fn new_archive() -> Result<Repository> {
    Ok(Repository::init(Arc::new(MemoryStorage::new()), Utc::now()).await?)
}

/// Segments so small that transactions of some size are cut into parts.
fn options() -> StreamOptions {
    StreamOptions {
        flush_interval: Duration::from_millis(100),
        segment_bytes: 100_000,
        host: "tests".to_owned(),
        ..StreamOptions::default()
    }
}

fn urls(servers: &[String]) -> Result<Vec<ServerUrl>> {
    servers.iter().map(|url| Ok(url.parse()?)).collect()
}

/// Archives what the servers have and ends.
async fn once(repository: &Repository, servers: &[String]) -> Result<StreamReport, StreamError> {
    let options = StreamOptions {
        once: true,
        ..options()
    };
    let servers = urls(servers).expect("the harness's URLs are valid");
    let running = quillback::stream::run(
        repository.clone(),
        servers,
        options,
        Arc::new(SystemClock),
        Arc::new(|_| {}),
        CancellationToken::new(),
    );
    tokio::time::timeout(Duration::from_secs(120), running)
        .await
        .expect("a run with `once` ends")
}

/// A stream that runs until it is cancelled.
struct Running {
    task: JoinHandle<Result<StreamReport, StreamError>>,
    cancel: CancellationToken,
}

impl Running {
    fn start(repository: &Repository, servers: &[String]) -> Result<Self> {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(quillback::stream::run(
            repository.clone(),
            urls(servers)?,
            options(),
            Arc::new(SystemClock),
            Arc::new(|_| {}),
            cancel.clone(),
        ));
        Ok(Self { task, cancel })
    }

    /// Ends it in peace.
    async fn stop(self) -> Result<StreamReport> {
        self.cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(30), self.task);
        Ok(ended.await.context("the stream does not end")???)
    }
}

async fn gtid_executed(server: &Server) -> Result<GtidSet> {
    Ok(server.gtid_executed().await?.parse()?)
}

/// Every whole transaction of the archive, in its order.
async fn archived(repository: &Repository) -> Result<Vec<Transaction>> {
    for _ in 0..20 {
        match read_all(repository).await {
            // Compacted away since it was listed: what it was made into is listed now.
            Err(error) if is_gone(&error) => {}
            read => return read,
        }
    }
    read_all(repository).await
}

fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<ArchiveError>();
    matches!(
        error,
        Some(ArchiveError::Storage(StorageError::NotFound { .. }))
    )
}

async fn read_all(repository: &Repository) -> Result<Vec<Transaction>> {
    let chain = repository.chain(BranchNumber(1)).await?;
    ensure!(chain.problems.is_empty(), "{:?}", chain.problems);
    let mut whole = Vec::new();
    let mut open: Option<Transaction> = None;
    let mut splitter = Splitter::default();
    for stored in &chain.segments {
        let segment = repository.read_segment(stored).await?;
        let index = segment.index();
        if !index.part.as_ref().is_some_and(|part| part.continued) {
            open = None;
            splitter.reset();
        }
        let before = whole.len();
        let mut events = segment.events()?;
        while let Some(event) = events.next_event()? {
            if event.kind().is_file_event() {
                continue;
            }
            let piece = splitter.take(&event, index.checksum)?;
            if let Piece::First(GtidEvent { gtid, .. }) = &piece {
                open = Some((gtid.clone(), Vec::new()));
            }
            let (_, bytes) = open.as_mut().context("an event outside a transaction")?;
            bytes.extend_from_slice(event.bytes());
            if piece == Piece::Last {
                whole.extend(open.take());
            }
        }
        let gtids: Vec<Gtid> = whole[before..]
            .iter()
            .map(|(gtid, _)| gtid.clone())
            .collect();
        let lines = segment.details()?;
        ensure!(gtids == lines.into_iter().map(|line| line.gtid).collect::<Vec<_>>());
        ensure!(gtids.into_iter().collect::<GtidSet>() == index.added);
    }
    Ok(whole)
}
