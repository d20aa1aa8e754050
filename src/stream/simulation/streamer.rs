//! A host that runs a streamer, again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::model::Model;
use super::source::Servers;
use super::store::FarStorage;
use super::world::{Gate, HostClock, Life};
use crate::archive::repository::Repository;
use crate::error::{Class, Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::stream::{StreamEnd, StreamError, StreamEvent, StreamOptions, StreamReport, run_from};

/// How a run ended.
type Outcome = Result<StreamReport, StreamError>;

/// A host.
pub(super) struct Host {
    pub(super) name: String,
    options: StreamOptions,
    ahead: TimeDelta,
    model: Arc<Model>,
    run: Option<Run>,
    next: Instant,
    runs: u64,
    /// A fail point at which something becomes of the next run, and how often it is passed before.
    pub(super) ends_at: Option<(FailPoint, u64, Life)>,
}

struct Run {
    gate: Gate,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    outcome: Arc<Mutex<Option<Outcome>>>,
    thaw: Option<Instant>,
    /// What the cluster had when it began, and how often something had been lost.
    expects: (GtidSet, usize),
}

impl Host {
    pub(super) fn new(number: u64, model: &Arc<Model>) -> Self {
        let world = &model.network.world;
        let name = format!("host{number}");
        let mut options = StreamOptions {
            flush_interval: world.millis(300..2_500),
            segment_bytes: world.pick(&[700, 3_000, 20_000, 60_000]),
            idle_interval: world.millis(3_000..40_000),
            host: name.clone(),
            standby: world.once_in(2),
            once: world.once_in(6),
            takeover_after: world.millis(15_000..60_000),
            compact_after: world
                .pick(&[None, Some(1), Some(4), Some(15)])
                .map(Duration::from_secs),
            ..StreamOptions::default()
        };
        if world.once_in(3) {
            options.semi_sync = crate::stream::SemiSync::Archive;
        }
        if options.once {
            options.standby = false;
        }
        Self {
            ahead: TimeDelta::milliseconds(world.draw(0..6_000) as i64 - 3_000),
            next: Instant::now() + world.millis(0..8_000),
            name,
            options,
            model: Arc::clone(model),
            run: None,
            runs: 0,
            ends_at: None,
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.run.is_some()
    }

    fn start(&mut self) {
        let world = Arc::clone(&self.model.network.world);
        self.runs += 1;
        let who = format!("{}.{}", self.name, self.runs);
        let gate = Gate::new();
        let storage = FarStorage {
            world: Arc::clone(&world),
            inner: self.model.storage.clone(),
            weather: Arc::clone(&self.model.weather),
            gate: gate.clone(),
            who: who.clone(),
            contents: Arc::clone(&self.model.contents),
        };
        let mut upstream = Servers {
            network: Arc::clone(&self.model.network),
            gate: gate.clone(),
        };
        let (accept_gap, new_branch) = self.model.decisions();
        let mut options = StreamOptions {
            accept_gap,
            new_branch,
            jitter_seed: Some(world.draw(0..u64::MAX)),
            ..self.options.clone()
        };
        if let Some((point, after, becomes)) = self.ends_at.take() {
            let (gate, left) = (gate.clone(), Mutex::new(after));
            let (world, who) = (Arc::clone(&world), who.clone());
            options.fail_points = FailPoints::new(move |passed| {
                let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                if passed == point && gate.life() == Life::Running {
                    if *left == 0 {
                        world.tell(format_args!("{who}: {becomes:?} at {}", point.name()));
                        gate.set(becomes);
                    }
                    // Once is enough: it goes on behind the point when it thaws.
                    *left = left.checked_sub(1).unwrap_or(u64::MAX);
                }
            });
        }
        let clock = Arc::new(HostClock {
            world: Arc::clone(&world),
            ahead: self.ahead,
        });
        let cancel = CancellationToken::new();
        let outcome = Arc::new(Mutex::new(None));
        let expects = {
            let cluster = self.model.network.cluster();
            let executed = cluster.the_primary().executed.clone();
            (executed, cluster.former.len())
        };
        let observer = {
            let (model, gate, who) = (Arc::clone(&self.model), gate.clone(), who.clone());
            Arc::new(move |event: StreamEvent| {
                if gate.life() == Life::Running {
                    model.hear(&who, &event);
                }
            })
        };
        world.tell(format_args!(
            "{who}: starts{}{}, gap {:?}, branch {:?}",
            if options.standby { ", standby" } else { "" },
            if options.once { ", once" } else { "" },
            options.accept_gap,
            options.new_branch,
        ));
        let (told, cancelled) = (Arc::clone(&outcome), cancel.clone());
        let task = tokio::spawn(async move {
            let result = match Repository::open(Arc::new(storage)).await {
                Err(error) => Err(error.into()),
                Ok(repository) => {
                    let observer = observer;
                    let upstream = &mut upstream;
                    run_from(repository, upstream, options, clock, observer, cancelled).await
                }
            };
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        self.run = Some(Run {
            gate,
            cancel,
            task,
            outcome,
            thaw: None,
            expects,
        });
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        if let Some(run) = self.run.take() {
            let (who, runs) = (&self.name, self.runs);
            let world = &self.model.network.world;
            world.tell(format_args!("{who}.{runs}: killed"));
            run.gate.set(Life::Dead);
            run.task.abort();
            self.next = Instant::now() + world.millis(100..15_000);
        }
    }

    /// SIGSTOP, for a while.
    pub(super) fn freeze(&mut self, pause: Duration) {
        if let Some(run) = &mut self.run {
            let world = &self.model.network.world;
            let seconds = pause.as_secs();
            world.tell(format_args!("{}: frozen for {seconds} s", self.name));
            run.gate.set(Life::Frozen);
            run.thaw = Some(Instant::now() + pause);
        }
    }

    pub(super) fn thaw(&mut self) {
        if let Some(run) = &mut self.run {
            run.gate.set(Life::Running);
            run.thaw = None;
        }
    }

    /// SIGTERM.
    pub(super) fn stop(&self) {
        if let Some(run) = &self.run {
            let world = &self.model.network.world;
            world.tell(format_args!("{}: asked to stop", self.name));
            run.cancel.cancel();
        }
    }

    /// Starts what is to be started and looks what has ended.
    pub(super) fn tend(&mut self) {
        let now = Instant::now();
        let Some(run) = &mut self.run else {
            if now >= self.next {
                self.start();
            }
            return;
        };
        if run.gate.life() == Life::Dead {
            return self.kill();
        }
        if run.thaw.is_none() && run.gate.life() == Life::Frozen {
            let pause = self.model.network.world.millis(1_000..100_000);
            return self.freeze(pause);
        }
        if run.thaw.is_some_and(|thaw| thaw <= now) {
            self.thaw();
            return;
        }
        if !run.task.is_finished() {
            return;
        }
        let outcome = run
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let expects = run.expects.clone();
        self.run = None;
        self.next = now + self.model.network.world.millis(200..12_000);
        self.judge(outcome, &expects);
    }

    fn judge(&self, outcome: Option<Outcome>, (executed, losses): &(GtidSet, usize)) {
        let (model, who) = (&self.model, format!("{}.{}", self.name, self.runs));
        let world = &model.network.world;
        match outcome {
            None => world.fail(format_args!("{who} panicked")),
            Some(Ok(report)) => {
                world.tell(format_args!("{who}: ends, {:?}", report.ended));
                let same = *losses == model.network.cluster().former.len();
                if report.ended == StreamEnd::CaughtUp
                    && same
                    && !executed.is_subset(&report.gtid_set)
                {
                    let lacks = executed.subtract(&report.gtid_set);
                    world.fail(format_args!("{who} says it caught up and lacks {lacks:#}"));
                }
            }
            Some(Err(error)) => {
                world.tell(format_args!("{who}: ends, {}", with_causes(&error)));
                self.judge_error(&who, &error);
            }
        }
    }

    fn judge_error(&self, who: &str, error: &StreamError) {
        let model = &self.model;
        match error {
            StreamError::Gap { server, missing } => model.decide_gap(server, missing),
            StreamError::Fork { server, missing } => model.decide_fork(server, missing),
            StreamError::DecisionTooSmall { .. } => model.decide_anew(),
            StreamError::OtherPayload { .. } => model.note_other_payload(who),
            StreamError::LeftBehind { own, history } if *own < history.branch => {}
            StreamError::Wire(error) if error.server_code() == Some(1236) => {}
            error if error.class().is_transient() || error.class() == Class::Fenced => {}
            error => {
                let world = &model.network.world;
                world.fail(format_args!("{who} failed: {}", with_causes(error)));
            }
        }
    }
}
