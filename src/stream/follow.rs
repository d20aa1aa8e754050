//! The follower: one server after the other into one unbroken log.
//!
//! One loop takes events from the source, cuts them and hands drafts to the [`Shipper`]; beside
//! it a task asks the source how it stands. The loop reads only while the shipper has room, so a
//! store that is away slows the reading down and nothing else. What ends a source leads to the
//! next one; what ends the stream is told after everything that was received whole is archived.

mod receive;
mod recovery;
mod settle;
mod sources;

use std::collections::VecDeque;
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
use super::home::{Home, explain};
use super::horizon::Horizon;
use super::housekeeping::Housekeeping;
use super::monitor::Monitor;
use super::options::{SemiSync, StreamOptions};
use super::purge::PurgeWatch;
use super::report::{
    Observer, StreamEnd, StreamEvent, StreamPlan, StreamReport, beating, heartbeats,
};
use super::ship::{Packing, Parcel, ShipOptions, Shipper};
use super::source::{SILENCE, Servers};
use super::start::{Begun, Environment, Start, begin, check_fork};
use super::upstream::{DumpWish, Source, Upstream};
use super::witness::Witness;
use crate::archive::repository::Repository;
use crate::clock::Clock;
use crate::gtid::GtidSet;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::wire::{DumpPacket, WireError};
use crate::observe::fail_point::FailPoint;

/// Drafts wait no longer than this for what is compared.
const COMPARING: Duration = Duration::from_secs(10);
/// Events that are taken before the loop looks up.
const BATCH: usize = 256;
/// Blocks that are handed to be packed before the first of them is, for each thread.
const AHEAD: usize = 2;
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
    let start = Start::find(
        repository,
        &mut upstream,
        options,
        clock,
        &[],
        Uuid::new_v4(),
    )
    .await?;
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
    for problem in &claimed.problems {
        observer(StreamEvent::Warning {
            message: format!(
                "the archive's log is damaged: {problem}; the stream goes on behind that, but \
                 what lies before can be restored only from a snapshot taken later: take one now"
            ),
        });
    }
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
    let acknowledgements =
        Acknowledgements::new(options.semi_sync, spool.as_ref(), (start.branch, epoch));
    let shipper = Shipper::start(
        repository.clone(),
        Arc::clone(&clock),
        ship_options,
        spool,
        cancel.clone(),
    );
    let housekeeping = Housekeeping::new(
        repository.clone(),
        (start.branch, epoch),
        options.compact_after,
        Arc::clone(&clock),
        options.level,
        options.fail_points.clone(),
    );
    let mut follower = Follower {
        repository,
        cutter,
        housekeeping,
        shipper,
        packing: VecDeque::new(),
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
        compared_by: Instant::now(),
        held: Vec::new(),
        acknowledgements,
        purge: PurgeWatch::default(),
        since: start.since,
        replica_uuid,
        last_put: Instant::now(),
        home: start.home,
        options,
        clock,
        observer,
        cancel,
    };
    let outcome = async {
        for left in leftovers {
            if !follower.recover(left).await? {
                return Ok(StreamEnd::Stopped);
            }
        }
        follower.follow_all(upstream, start.source).await
    }
    .await;
    let flushed = follower.finish().await;
    follower.housekeeping.stop().await;
    match outcome.and_then(|ended| flushed.map(|()| ended)) {
        Ok(ended) => follower.report.ended = ended,
        Err(error) => return Err(explain(&follower.repository, start.branch, error).await),
    }
    Ok(follower.report)
}

/// Why following one server ended.
enum Ended {
    Cancelled,
    CaughtUp,
    Lost(String),
}

struct Follower {
    repository: Repository,
    cutter: Cutter,
    shipper: Shipper,
    housekeeping: Housekeeping,
    /// Blocks of the draft that is being filled and may still be in packing, in order.
    packing: VecDeque<Packing>,
    /// One for each block that may be packed at a time.
    permits: Arc<Semaphore>,
    /// Drafts that were handed over.
    sent: u64,
    /// How many of them are durable.
    shipped: u64,
    horizon: Horizon,
    /// Compares what the source sends again.
    witness: Option<Witness>,
    /// Until then nothing is handed over before everything has been compared.
    compared_by: Instant,
    /// Drafts that wait for that.
    held: Vec<Parcel>,
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
    /// The reseed that the history comes from.
    home: Option<Home>,
}

impl Follower {
    /// Follows one server until it is lost.
    async fn follow(&mut self, mut source: Box<dyn Source>) -> Result<Ended, StreamError> {
        let info = source.info().clone();
        for warning in &info.warnings {
            self.warn(warning.clone());
        }
        self.horizon.turn();
        let have = self.cutter.received();
        let wish = DumpWish {
            replica_uuid: self.replica_uuid,
            semi_sync: self.options.semi_sync != SemiSync::Off,
        };
        // Since it was chosen, the set may have grown by what was on disk or came from another
        // streamer.
        let checked = beating(
            &self.observer,
            check_fork(&mut *source, &have, &*self.clock),
        );
        tokio::select! {
            biased;
            checked = checked => checked?,
            () = self.cancel.cancelled() => return Ok(Ended::Cancelled),
        }
        let history = beating(&self.observer, source.history()).await?;
        // What it has sent and not committed it sends again; asked to leave out what it does not
        // know, it would refuse.
        let again = have.subtract(&history.executed);
        let mut witness = Witness::new(&info.name, self.cutter.latest(), &history.purged, again);
        let asked = have.subtract(&witness.asks_for());
        let mut dump = beating(&self.observer, source.dump(wish, &asked)).await?;
        witness.expect(dump.checksum());
        // What the source before has sent cannot be compared any more.
        self.release().await?;
        self.compared_by = Instant::now() + COMPARING;
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
            let has_room = self.shipper.has_room();
            let inside = self.cutter.is_inside();
            let reading = has_room && self.acknowledgements.has_room(inside);
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
                    self.last_word().await?;
                    return Ok(Ended::Cancelled);
                }
                () = inlet.room(), if !has_room => {}
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
                    if let Some(message) = answer.warning {
                        self.warn(message);
                    }
                    if let Some(mark) = answer.mark {
                        self.horizon.ask(mark);
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
            if !self.cutter.is_inside() {
                self.horizon
                    .pass(self.cutter.position(), || self.cutter.received());
                if let Some(until) = &info.until
                    && until.is_subset(&self.cutter.received())
                {
                    return Ok(Ended::Lost(format!(
                        "{} has sent what it was asked for",
                        info.name
                    )));
                }
            }
            self.release_compared().await?;
            self.acknowledge_received(&mut *dump).await?;
            let caught_up = self.options.once && self.horizon.is_caught_up();
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
