//! Chance, time and the record of one history.

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::archive::hash::sha256;
use crate::clock::{Clock, from_micros};

/// The first moment of every history, in microseconds.
const BEGINNING: u64 = 1_795_000_000_000_000;

/// What everything in a history draws from and tells to.
#[derive(Debug)]
pub(super) struct World {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: StdRng,
    trace: Vec<String>,
    failure: Option<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            started: Instant::now(),
            inner: Mutex::new(Inner {
                random: StdRng::seed_from_u64(seed),
                trace: Vec::new(),
                failure: None,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of `range`.
    pub(super) fn draw(&self, range: Range<u64>) -> u64 {
        self.inner().random.random_range(range)
    }

    /// True once in so many times; never for 0.
    pub(super) fn once_in(&self, times: u64) -> bool {
        times > 0 && self.draw(0..times) == 0
    }

    /// So many milliseconds.
    pub(super) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    /// One of the choices.
    pub(super) fn pick<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.draw(0..choices.len() as u64) as usize]
    }

    /// Waits so many milliseconds.
    pub(super) async fn wait(&self, range: Range<u64>) {
        tokio::time::sleep(self.millis(range)).await;
    }

    /// The servers' time in microseconds.
    pub(super) fn micros(&self) -> u64 {
        BEGINNING + self.started.elapsed().as_micros() as u64
    }

    /// The servers' time.
    pub(super) fn now(&self) -> DateTime<Utc> {
        from_micros(self.micros()).expect("in range")
    }

    /// Writes a line of the record.
    pub(super) fn tell(&self, line: impl fmt::Display) {
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("{seconds:9.3} {line}");
        self.inner().trace.push(line);
    }

    /// Notes that something is not as it must be; the first one counts.
    pub(super) fn fail(&self, what: impl fmt::Display) {
        self.tell(format_args!("VIOLATION: {what}"));
        let mut inner = self.inner();
        if inner.failure.is_none() {
            inner.failure = Some(what.to_string());
        }
    }

    /// What is not as it must be.
    pub(super) fn failure(&self) -> Option<String> {
        self.inner().failure.clone()
    }

    /// The record.
    pub(super) fn trace(&self) -> Vec<String> {
        self.inner().trace.clone()
    }

    /// What tells one record from another.
    pub(super) fn fingerprint(&self) -> String {
        sha256(self.inner().trace.join("\n").as_bytes()).to_string()
    }
}

/// A host's clock: the servers' time, but for so much.
#[derive(Debug)]
pub(super) struct HostClock {
    pub(super) world: std::sync::Arc<World>,
    pub(super) ahead: TimeDelta,
}

#[async_trait::async_trait]
impl Clock for HostClock {
    fn now(&self) -> DateTime<Utc> {
        self.world.now() + self.ahead
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

/// Whether a process can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Running,
    /// SIGSTOP: nothing leaves it and nothing comes in, until SIGCONT.
    Frozen,
    /// SIGKILL: for ever.
    Dead,
}

/// What all that a process does outside of itself passes through.
#[derive(Debug, Clone)]
pub(super) struct Gate(watch::Sender<Life>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Life::Running))
    }

    pub(super) fn life(&self) -> Life {
        *self.0.borrow()
    }

    /// Nobody comes back from the dead.
    pub(super) fn set(&self, life: Life) {
        self.0.send_if_modified(|now| {
            let changes = *now != Life::Dead && *now != life;
            if changes {
                *now = life;
            }
            changes
        });
    }

    /// Returns when the process runs, never when it is dead.
    pub(super) async fn pass(&self) {
        let mut life = self.0.subscribe();
        if life.wait_for(|life| *life == Life::Running).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
