//! The follower: one server after the other into one unbroken log.
//!
//! One loop takes events from the source, cuts them and hands drafts to the [`Shipper`]; beside
//! it a task asks the source how it stands. The loop reads only while the shipper has room, so a
//! store that is away slows the reading down and nothing else. What ends a source leads to the
//! next one; what ends the stream is told after everything that was received whole is archived.

mod receive;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::acknowledge::Acknowledgements;
use super::cutter::Cutter;
use super::error::StreamError;
use super::horizon::Horizon;
use super::housekeeping::Housekeeping;
use super::monitor::Monitor;
use super::options::{SemiSync, StreamOptions};
use super::pauses::{LONGEST_PAUSE, pauses};
use super::purge::PurgeWatch;
use super::report::{
    Observer, StreamEnd, StreamEvent, StreamPlan, StreamReport, beating, heartbeats,
};
use super::ship::{Packing, ShipOptions, Shipper};
use super::source::{SILENCE, Servers};
use super::start::{Begun, Environment, Start, begin, next_source};
use super::upstream::{DumpWish, Source, Upstream};
use super::witness::Witness;
use crate::archive::repository::Repository;
use crate::clock::Clock;
use crate::error::{Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::wire::{DumpPacket, WireError};
use crate::observe::fail_point::FailPoint;

/// A source that refuses the dump is asked again so often, in case the reason shows meanwhile.
const REFUSALS: u32 = 4;
/// The first pause between two tries to reach a source.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// With `once`, a run gives up when nothing has come for so long since its source was lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that are taken before the loop looks up.
const BATCH: usize = 256;
/// While segments queue up they are cut less often, by this factor.
const SLOWER: u32 = 10;

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
    let mut upstream = real(servers, options);
    let start = Start::find(repository, &mut upstream, options, clock, &GtidSet::new()).await?;
    start.plan(repository).await
}

fn real(servers: Vec<ServerUrl>, options: &StreamOptions) -> Servers {
    let semi_sync = options.semi_sync != SemiSync::Off;
    Servers::new(servers, options.from, semi_sync)
}

/// Follows real servers; see [`run_from`].
///
/// # Errors
///
/// As [`run_from`].
pub async fn run(
    repository: Repository,
    servers: Vec<ServerUrl>,
    options: StreamOptions,
    clock: Arc<dyn Clock>,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<StreamReport, StreamError> {
    let mut upstream = real(servers, &options);
    run_from(repository, &mut upstream, options, clock, observer, cancel).await
}

/// Follows the servers until `cancel`, or with `once` until the source's present state is
/// archived.
///
/// # Errors
///
/// [`StreamError`]; what was received whole before is archived even then, if the store lets us.
pub async fn run_from(
    repository: Repository,
    upstream: &mut dyn Upstream,
    options: StreamOptions,
    clock: Arc<dyn Clock>,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<StreamReport, StreamError> {
    let replica_uuid = Uuid::new_v4();
    let environment = Environment {
        repository: &repository,
        options: &options,
        clock: &*clock,
        observer: &observer,
        cancel: &cancel,
    };
    let beginning = beating(&observer, begin(&environment, upstream, replica_uuid));
    let begun = tokio::select! {
        biased;
        begun = beginning => begun?,
        () = cancel.cancelled() => None,
    };
    let Some(begun) = begun else {
        return Ok(StreamReport::default());
    };
    let Begun {
        start,
        claimed,
        spool,
        leftovers,
    } = begun;
    let epoch = claimed.claim.epoch;
    let accepted_gap = start.accepted_gap.subtract(&claimed.start);
    observer(StreamEvent::Claimed {
        epoch: epoch.0,
        branch: start.branch.0,
        start: claimed.start.clone(),
        accepted_gap: accepted_gap.clone(),
        complete_to: start.complete_to,
    });
    let before = claimed.start.union(&accepted_gap);
    let mut cutter = Cutter::new(start.branch, epoch, before.clone(), options.segment_bytes);
    for line in claimed.latest {
        cutter.remember(line);
    }
    let ship_options = ShipOptions {
        epoch,
        previous: claimed.previous,
        continues: claimed.continues,
        gap: accepted_gap,
        level: options.level,
        segment_bytes: options.segment_bytes,
        fail_points: options.fail_points.clone(),
        jitter_seed: options.jitter_seed,
    };
    let acknowledgements = Acknowledgements::new(options.semi_sync, spool.as_ref(), epoch);
    let shipper = Shipper::start(
        repository.clone(),
        Arc::clone(&clock),
        ship_options,
        spool,
        cancel.clone(),
    );
    let housekeeping = Housekeeping::new(
        repository,
        (start.branch, epoch),
        options.compact_after,
        Arc::clone(&clock),
        options.level,
        options.fail_points.clone(),
    );
    let mut follower = Follower {
        cutter,
        housekeeping,
        shipper,
        packing: Vec::new(),
        safe: before.clone(),
        permits: Arc::new(Semaphore::new(options.threads.max(1))),
        sent: 0,
        shipped: 0,
        report: StreamReport {
            epoch: epoch.0,
            branch: start.branch.0,
            gtid_set: before,
            complete_to: start.complete_to,
            ..StreamReport::default()
        },
        horizon: Horizon::default(),
        witness: None,
        acknowledgements,
        purge: PurgeWatch::default(),
        since: start.since,
        replica_uuid,
        last_put: Instant::now(),
        options,
        clock,
        observer,
        cancel,
    };
    let outcome = async {
        for left in leftovers {
            follower.recover(left).await?;
        }
        follower.follow_all(upstream, start.source).await
    }
    .await;
    let flushed = follower.finish().await;
    follower.housekeeping.stop().await;
    follower.report.ended = outcome.and_then(|ended| flushed.map(|()| ended))?;
    Ok(follower.report)
}

/// Why following one server ended.
enum Ended {
    Cancelled,
    CaughtUp,
    Lost(String),
}

struct Follower {
    cutter: Cutter,
    shipper: Shipper,
    housekeeping: Housekeeping,
    /// Blocks of the draft that is being filled.
    packing: Vec<Packing>,
    /// One for each block that may be packed at a time.
    permits: Arc<Semaphore>,
    /// Drafts that were handed over.
    sent: u64,
    /// How many of them are durable.
    shipped: u64,
    horizon: Horizon,
    /// Compares what the source sends again.
    witness: Option<Witness>,
    acknowledgements: Acknowledgements,
    /// What is in the archive or in a segment of the spool.
    safe: GtidSet,
    purge: PurgeWatch,
    /// What the archive lacked at the start is not older than this.
    since: DateTime<Utc>,
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
    async fn follow_all(
        &mut self,
        upstream: &mut dyn Upstream,
        first: Box<dyn Source>,
    ) -> Result<StreamEnd, StreamError> {
        let jitter_seed = self.options.jitter_seed;
        let pauses = || pauses(FIRST_PAUSE, jitter_seed);
        let mut pause = pauses();
        let mut refusals = 0;
        let mut next = Ok(first);
        let mut lost: Option<(Instant, GtidSet)> = None;
        loop {
            let started = Instant::now();
            let followed = match next {
                Ok(source) => self.follow(source).await,
                Err(error) => Err(error),
            };
            let received = self.cutter.received();
            let since = match lost.take() {
                Some((since, before)) if before == received => since,
                _ => Instant::now(),
            };
            lost = Some((since, received.clone()));
            let reason = match followed {
                Ok(Ended::Cancelled) => return Ok(StreamEnd::Stopped),
                Ok(Ended::CaughtUp) => return Ok(StreamEnd::CaughtUp),
                Ok(Ended::Lost(reason)) => reason,
                // Without the shipper nothing more can be kept.
                Err(error) if self.shipper.has_ended() => return Err(error),
                // Whoever called it will call again.
                Err(error) if self.options.once && since.elapsed() > PATIENCE => {
                    return Err(error);
                }
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
            // What was received is not kept waiting for the next source.
            if let Some(draft) = self.cutter.finish() {
                self.send(draft).await?;
            }
            if !self.pause(wait).await? {
                return Ok(StreamEnd::Stopped);
            }
            let finding = next_source(upstream, &received, &*self.clock);
            next = tokio::select! {
                biased;
                found = beating(&self.observer, finding) => found,
                () = self.cancel.cancelled() => return Ok(StreamEnd::Stopped),
            };
        }
    }

    /// Waits before the next try; `false` if the run was cancelled.
    async fn pause(&mut self, wait: Duration) -> Result<bool, StreamError> {
        let clock = Arc::clone(&self.clock);
        let over = clock.sleep(wait);
        tokio::pin!(over);
        let mut beats = heartbeats();
        loop {
            tokio::select! {
                biased;
                _ = beats.tick() => (self.observer)(StreamEvent::Alive),
                () = &mut over => return Ok(true),
                () = self.cancel.cancelled() => return Ok(false),
                note = self.shipper.next_note() => self.settle(note?)?,
            }
        }
    }

    /// Follows one server until it is lost.
    async fn follow(&mut self, mut source: Box<dyn Source>) -> Result<Ended, StreamError> {
        let info = source.info().clone();
        for warning in &info.warnings {
            self.warn(warning.clone());
        }
        self.horizon.forget_question();
        let have = self.cutter.received();
        let wish = DumpWish {
            replica_uuid: self.replica_uuid,
            semi_sync: self.options.semi_sync != SemiSync::Off,
        };
        let history = source.history().await?;
        // What it has sent and not committed it sends again; asked to leave out what it does not
        // know, it would refuse.
        let again = have.subtract(&history.executed);
        let mut witness = Witness::new(&info.name, self.cutter.latest(), &history.purged, again);
        let asked = have.subtract(&witness.asks_for());
        let mut dump = source.dump(wish, &asked).await?;
        witness.expect(dump.checksum());
        self.witness = Some(witness);
        self.options.fail_points.pass(FailPoint::Following);
        let turned = self
            .cutter
            .turn_to(info.uuid, info.version.clone(), dump.checksum());
        if let Some(draft) = turned {
            self.send(draft).await?;
        }
        self.acknowledgements
            .turn_to(info.uuid, dump.checksum(), &have)?;
        (self.observer)(StreamEvent::Following {
            server: info.name.clone(),
            uuid: info.uuid,
            version: info.version.clone(),
        });
        let inlet = self.shipper.inlet();
        let mut monitor = Monitor::start(source, self.options.flush_interval);
        let mut ticks = tokio::time::interval(self.options.flush_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = heartbeats();
        let mut heard = Instant::now();
        let mut waited = 0;
        loop {
            let reading = self.shipper.has_room();
            if !reading {
                // A source that we do not listen to has not fallen silent.
                heard = Instant::now();
            }
            tokio::select! {
                // What is rare comes first: a source that sends without a pause is never idle.
                biased;
                () = self.cancel.cancelled() => {
                    while let Some(DumpPacket::Event { bytes, acknowledge }) = dump.received()? {
                        self.take(&info.name, &bytes, acknowledge).await?;
                    }
                    return Ok(Ended::Cancelled);
                }
                () = inlet.room(), if !reading => {}
                told = self.housekeeping.pass() => {
                    if let Some(event) = told? {
                        (self.observer)(event);
                    }
                }
                note = self.shipper.next_note() => {
                    self.settle(note?)?;
                    self.acknowledgements.send_shipped(&mut *dump, self.shipped).await?;
                }
                answer = monitor.next() => {
                    let answer = answer?;
                    if let Some(reason) = answer.unfit {
                        return Ok(Ended::Lost(reason));
                    }
                    self.watch_purge(answer.purge);
                    // One that is followed for what it still has may lag behind the right one.
                    if self.horizon.wants_asking() && info.until.is_none() {
                        self.horizon.ask(answer.time, answer.end);
                    }
                }
                _ = ticks.tick() => {
                    waited += 1;
                    if heard.elapsed() > SILENCE {
                        let seconds = SILENCE.as_secs();
                        let address = info.name;
                        return Err(WireError::Silent { address, seconds }.into());
                    }
                }
                _ = beats.tick() => {
                    (self.observer)(StreamEvent::Alive);
                    continue;
                }
                packet = dump.next(), if reading => {
                    heard = Instant::now();
                    if !self.take_batch(&info.name, packet?, &mut *dump).await? {
                        return Ok(Ended::Lost(format!("{} ended the stream", info.name)));
                    }
                }
            }
            if self.cutter.is_inside() {
                continue;
            }
            self.horizon.pass(self.cutter.position());
            if let Some(until) = &info.until
                && until.is_subset(&self.cutter.received())
            {
                return Ok(Ended::Lost(format!(
                    "{} has sent what it was asked for",
                    info.name
                )));
            }
            self.acknowledge_received(&mut *dump).await?;
            let caught_up = self.options.once && self.horizon.reached().is_some();
            if (self.is_due(waited) || caught_up) && self.shipper.has_room() {
                waited = 0;
                let draft = self.cutter.cut().or_else(|| self.silence_if_due());
                // Without events the last word waits for those before it.
                let ends = caught_up && (draft.is_some() || self.sent == self.shipped);
                if let Some(draft) = draft {
                    self.send(draft).await?;
                }
                if ends {
                    return Ok(Ended::CaughtUp);
                }
            }
        }
    }
}

/// Whether the source refused the dump (`ER_SOURCE_FATAL_ERROR_READING_BINLOG`). It may have
/// purged what is asked for since it was looked at, which the next look tells as a gap; or it may
/// be unable to read its own binlog, which it says again.
fn is_refused_dump(error: &StreamError) -> bool {
    matches!(error, StreamError::Wire(error) if error.server_code() == Some(1236))
}
