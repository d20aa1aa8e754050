//! The follower: one server after the other into one unbroken log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim::{self, Claimant};
use super::cutter::Cutter;
use super::error::StreamError;
use super::horizon::Horizon;
use super::report::{Observer, StreamEvent, StreamOptions, StreamPlan, StreamReport};
use super::source::{Finder, Source};
use super::upload::{Uploaded, Uploader};
use crate::archive::layout::BranchNumber;
use crate::archive::repository::Repository;
use crate::archive::segment::Draft;
use crate::clock::Clock;
use crate::error::{Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::wire::{
    BinlogDump, DumpOptions, DumpPacket, WireConnection, WireError, WireOptions,
};

/// How often the source says that there is nothing new.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A source that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// A source that refuses the dump is asked again so often, in case the reason shows meanwhile.
const REFUSALS: u32 = 4;
/// The longest pause between two tries to reach a source.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Finds the source and checks that the archive can go on from it; nothing is changed.
///
/// # Errors
///
/// [`StreamError`], as the run itself would fail.
pub async fn plan(
    repository: &Repository,
    servers: Vec<ServerUrl>,
    options: &StreamOptions,
    clock: &dyn Clock,
) -> Result<StreamPlan, StreamError> {
    let start = Start::find(repository, servers, options, clock).await?;
    let newest = repository.newest_epoch(None).await?;
    Ok(StreamPlan {
        server: start.source.name(),
        uuid: start.source.facts.server_uuid,
        version: start.source.facts.version.to_string(),
        topology: start.source.kind.to_string(),
        branch: start.branch.0,
        epoch: newest.map_or(0, |epoch| epoch.0) + 1,
        start: start.have,
    })
}

/// Where a stream begins: what is known before the claim, so that a run that would be refused
/// does not push another one out.
struct Start {
    branch: BranchNumber,
    finder: Finder,
    source: Source,
    origin: GtidSet,
    have: GtidSet,
    complete_to: Option<DateTime<Utc>>,
}

impl Start {
    async fn find(
        repository: &Repository,
        servers: Vec<ServerUrl>,
        options: &StreamOptions,
        clock: &dyn Clock,
    ) -> Result<Self, StreamError> {
        let branch = repository.newest_branch().await?;
        let mut finder = Finder::new(servers, options.from);
        let mut source = finder.find().await?;
        let snapshots = repository.snapshots().await?;
        let origin = snapshots.first().map_or_else(
            || source.facts.gtid_executed.clone(),
            |snapshot| snapshot.gtid_executed.clone(),
        );
        let chain = repository.chain(branch).await?;
        // Behind this point nothing but parts of an unfinished transaction may stand.
        let have = chain
            .resume_point()
            .map_or_else(|| origin.clone(), |stored| stored.index.after());
        source.check_history(&have, clock).await?;
        Ok(Self {
            branch,
            finder,
            source,
            origin,
            have,
            complete_to: chain.complete_to(),
        })
    }
}

/// Follows the servers until `cancel`, or with `once` until the source's present state is
/// archived.
///
/// # Errors
///
/// [`StreamError`]; what was received whole before is archived even then, if the store lets us.
pub async fn run(
    repository: Repository,
    servers: Vec<ServerUrl>,
    options: StreamOptions,
    clock: Arc<dyn Clock>,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<StreamReport, StreamError> {
    let Start {
        branch,
        mut finder,
        source,
        origin,
        complete_to,
        ..
    } = Start::find(&repository, servers, &options, &*clock).await?;
    let claimant = Claimant {
        source: source.facts.server_uuid,
        address: source.name(),
        host: options.host.clone(),
        now: clock.now(),
    };
    let claimed = claim::acquire(&repository, branch, &origin, &claimant).await?;
    observer(StreamEvent::Claimed {
        epoch: claimed.claim.epoch.0,
        branch: branch.0,
        start: claimed.start.clone(),
    });
    let epoch = claimed.claim.epoch;
    let uploader = Uploader::new(
        repository,
        Arc::clone(&clock),
        epoch,
        claimed.previous,
        claimed.continues,
        options.level,
        cancel.clone(),
    );
    let mut follower = Follower {
        cutter: Cutter::new(branch, epoch, claimed.start.clone(), options.segment_bytes),
        report: StreamReport {
            epoch: epoch.0,
            branch: branch.0,
            gtid_set: claimed.start,
            complete_to,
            ..StreamReport::default()
        },
        uploading: Uploading::Idle(Box::new(uploader)),
        horizon: Horizon::default(),
        replica_uuid: Uuid::new_v4(),
        last_put: Instant::now(),
        options,
        clock,
        observer,
        cancel,
    };
    let outcome = follower.follow_all(&mut finder, source).await;
    let flushed = follower.flush().await;
    outcome.and(flushed)?;
    Ok(follower.report)
}

/// Why following one server ended.
enum Ended {
    Cancelled,
    CaughtUp,
    Lost(String),
}

/// The uploader, at rest or at work.
enum Uploading {
    Idle(Box<Uploader>),
    Busy(JoinHandle<Result<(Uploader, Uploaded), StreamError>>),
    Failed,
}

struct Follower {
    cutter: Cutter,
    uploading: Uploading,
    horizon: Horizon,
    options: StreamOptions,
    clock: Arc<dyn Clock>,
    observer: Observer,
    cancel: CancellationToken,
    report: StreamReport,
    replica_uuid: Uuid,
    last_put: Instant,
}

impl Follower {
    /// Follows one server after the other.
    async fn follow_all(&mut self, finder: &mut Finder, first: Source) -> Result<(), StreamError> {
        let pauses = || {
            ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(LONGEST_PAUSE)
                .without_max_times()
                .build()
        };
        let mut pause = pauses();
        let mut refusals = 0;
        let mut next = Ok(first);
        loop {
            let started = Instant::now();
            let followed = match next {
                Ok(source) => self.follow(source).await,
                Err(error) => Err(error),
            };
            let reason = match followed {
                Ok(Ended::Cancelled | Ended::CaughtUp) => return Ok(()),
                Ok(Ended::Lost(reason)) => reason,
                // Without the uploader nothing more can be kept.
                Err(error) if matches!(self.uploading, Uploading::Failed) => return Err(error),
                Err(error) if error.class().is_transient() => with_causes(&error),
                Err(error) if is_refused_dump(&error) && refusals < REFUSALS => {
                    refusals += 1;
                    with_causes(&error)
                }
                Err(error) => return Err(error),
            };
            if started.elapsed() > LONGEST_PAUSE {
                pause = pauses();
                refusals = 0;
            }
            let wait = pause.next().unwrap_or(LONGEST_PAUSE);
            (self.observer)(StreamEvent::Interrupted {
                reason,
                retry_seconds: wait.as_secs_f64(),
            });
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                () = self.cancel.cancelled() => return Ok(()),
            }
            // What was received is not kept waiting for the next source.
            if matches!(self.uploading, Uploading::Idle(_))
                && let Some(draft) = self.cutter.finish()
            {
                self.submit(draft).await?;
            }
            next = finder.find().await;
            if let Ok(source) = &mut next
                && let Err(error) = source
                    .check_history(&self.cutter.received(), &*self.clock)
                    .await
            {
                next = Err(error);
            }
        }
    }

    /// Follows one server until it is lost.
    async fn follow(&mut self, mut source: Source) -> Result<Ended, StreamError> {
        let server = source.name();
        if source.facts.may_lose_sent_transactions() {
            (self.observer)(StreamEvent::Warning {
                message: format!(
                    "{server} runs with sync_binlog={}: after a crash it may have lost \
                     transactions that the archive holds",
                    source.facts.sync_binlog
                ),
            });
        }
        let options = WireOptions {
            program_name: "quillback stream".to_owned(),
            // The start of a dump has no heartbeats that would be missed.
            read_timeout: Some(SILENCE),
            ..WireOptions::default()
        };
        let connection = WireConnection::connect(&source.url, &options).await?;
        let dump_options = DumpOptions {
            // Above the ids that people give; what keeps dumps apart is the UUID.
            server_id: 0xF000_0000 | (self.replica_uuid.as_fields().0 & 0x0FFF_FFFF),
            replica_uuid: self.replica_uuid,
            heartbeat: HEARTBEAT,
            semi_sync: false,
        };
        self.horizon.forget_question();
        let have = self.cutter.received();
        let mut dump = BinlogDump::start(connection, &dump_options, &have).await?;
        let turned = self.cutter.turn_to(
            source.facts.server_uuid,
            source.facts.version.to_string(),
            dump.checksum(),
        );
        if let Some(draft) = turned {
            self.submit(draft).await?;
        }
        (self.observer)(StreamEvent::Following {
            server: server.clone(),
            uuid: source.facts.server_uuid,
            version: source.facts.version.to_string(),
        });
        let mut ticks = tokio::time::interval(self.options.flush_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut flush_due = false;
        loop {
            tokio::select! {
                packet = dump.next() => {
                    heard = Instant::now();
                    match packet? {
                        DumpPacket::Event { bytes, .. } => self.take(&server, &bytes).await?,
                        DumpPacket::End => {
                            return Ok(Ended::Lost(format!("{server} ended the stream")));
                        }
                    }
                }
                done = self.uploading.done() => self.settle(done)?,
                _ = ticks.tick() => {
                    flush_due = true;
                    if heard.elapsed() > SILENCE {
                        return Err(WireError::Silent {
                            address: server,
                            seconds: SILENCE.as_secs(),
                        }
                        .into());
                    }
                    if !source.is_still(self.options.from).await? {
                        return Ok(Ended::Lost(format!("{server} has another role now")));
                    }
                    if self.horizon.wants_asking() {
                        let (time, end) = source.horizon().await?;
                        self.horizon.ask(time, end);
                    }
                }
                () = self.cancel.cancelled() => {
                    while let Some(DumpPacket::Event { bytes, .. }) = dump.received()? {
                        self.take(&server, &bytes).await?;
                    }
                    return Ok(Ended::Cancelled);
                }
            }
            if self.cutter.is_inside() {
                continue;
            }
            self.horizon.pass(self.cutter.position());
            let caught_up = self.options.once && self.horizon.reached().is_some();
            if (flush_due || caught_up) && matches!(self.uploading, Uploading::Idle(_)) {
                flush_due = false;
                if let Some(draft) = self.cutter.cut().or_else(|| self.silence_if_due()) {
                    self.submit(draft).await?;
                }
                if caught_up {
                    return Ok(Ended::CaughtUp);
                }
            }
        }
    }

    async fn take(&mut self, server: &str, event: &[u8]) -> Result<(), StreamError> {
        let taken = self.cutter.take(event);
        match taken {
            Ok(None) => Ok(()),
            Ok(Some(draft)) => self.submit(draft).await,
            Err(source) => {
                let at = self.cutter.position();
                Err(StreamError::Event {
                    server: server.to_owned(),
                    file: at.file.clone(),
                    position: at.position,
                    source,
                })
            }
        }
    }

    /// A segment without events, when it is time for one: at first, after a quiet interval, and
    /// at the end of a run with `once`.
    fn silence_if_due(&mut self) -> Option<Draft> {
        let reached = self.horizon.reached();
        if reached.is_none() || reached <= self.report.complete_to && self.report.segments > 0 {
            return None;
        }
        let due = self.options.once
            || self.report.segments == 0
            || self.last_put.elapsed() >= self.options.idle_interval;
        due.then(|| self.cutter.silence()).flatten()
    }

    /// Gives a draft to the uploader, after the one before it is done.
    async fn submit(&mut self, draft: Draft) -> Result<(), StreamError> {
        if let Uploading::Busy(_) = self.uploading {
            let done = self.uploading.done().await;
            self.settle(done)?;
        }
        // Read now: a draft ends where it was cut, and the horizon may move on meanwhile.
        let complete_to = match draft.part() {
            Some(part) if part.unfinished => None,
            _ => self.horizon.reached(),
        };
        self.uploading = match std::mem::replace(&mut self.uploading, Uploading::Failed) {
            Uploading::Idle(uploader) => {
                Uploading::Busy(tokio::spawn(uploader.upload(draft, complete_to)))
            }
            other => other,
        };
        Ok(())
    }

    fn settle(
        &mut self,
        done: Result<(Uploader, Uploaded), StreamError>,
    ) -> Result<(), StreamError> {
        let (uploader, uploaded) = done?;
        self.uploading = Uploading::Idle(Box::new(uploader));
        self.last_put = Instant::now();
        let index = &uploaded.index;
        let report = &mut self.report;
        report.segments += 1;
        report.transactions += index.transactions;
        report.raw_bytes += index.raw_bytes;
        report.stored_bytes += uploaded.stored_bytes;
        report.gtid_set = index.after();
        report.complete_to = report.complete_to.max(index.complete_to);
        let lag = index.last_commit.map(|commit| {
            let micros = (uploaded.durable - commit).num_microseconds();
            // A source whose clock runs ahead of ours has no negative lag.
            micros.map_or(0.0, |micros| (micros as f64 / 1e6).max(0.0))
        });
        (self.observer)(StreamEvent::Segment {
            key: uploaded.name.key(),
            transactions: index.transactions,
            raw_bytes: index.raw_bytes,
            stored_bytes: uploaded.stored_bytes,
            last_commit: index.last_commit,
            complete_to: self.report.complete_to,
            lag_seconds: lag,
        });
        Ok(())
    }

    /// Stores what was received whole and waits for it.
    async fn flush(&mut self) -> Result<(), StreamError> {
        if matches!(self.uploading, Uploading::Failed) {
            return Ok(());
        }
        if let Some(draft) = self.cutter.finish() {
            self.submit(draft).await?;
        }
        if let Uploading::Busy(_) = self.uploading {
            let done = self.uploading.done().await;
            self.settle(done)?;
        }
        Ok(())
    }
}

impl Uploading {
    /// Waits for the upload under way; for ever if there is none.
    async fn done(&mut self) -> Result<(Uploader, Uploaded), StreamError> {
        match self {
            Self::Busy(task) => {
                let done = task.await;
                *self = Self::Failed;
                done?
            }
            Self::Idle(_) | Self::Failed => std::future::pending().await,
        }
    }
}

/// Whether the source refused the dump (`ER_SOURCE_FATAL_ERROR_READING_BINLOG`). It may have
/// purged what is asked for since it was looked at, which the next look tells as a gap; or it may
/// be unable to read its own binlog, which it says again.
fn is_refused_dump(error: &StreamError) -> bool {
    matches!(error, StreamError::Wire(error) if error.server_code() == Some(1236))
}
