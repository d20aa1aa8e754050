//! Compaction beside the stream.
//!
//! It runs in a task of its own and never holds the stream up. What it fails with delays it; only
//! the loss of the claim is the stream's business too.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compact::{CompactOptions, CompactReport, Compactor};
use super::error::StreamError;
use super::report::StreamEvent;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::repository::Repository;
use crate::clock::Clock;
use crate::error::with_causes;
use crate::observe::fail_point::FailPoints;

/// The pause between two passes.
const PAUSE: Duration = Duration::from_secs(60);

type Pass = JoinHandle<(Compactor, Result<CompactReport, StreamError>)>;

/// Runs compaction from time to time.
#[derive(Debug)]
pub(super) struct Housekeeping {
    compactor: Option<Compactor>,
    running: Option<Pass>,
    next: Instant,
    pause: Duration,
    cancel: CancellationToken,
    /// The last failure that was told, and when.
    told: Option<(String, Instant)>,
}

/// The same failure is not told again sooner.
const REPEAT: Duration = Duration::from_secs(3600);

impl Housekeeping {
    /// Compacts what is older than `age`; nothing without one.
    pub(super) fn new(
        repository: Repository,
        place: (BranchNumber, Epoch),
        age: Option<Duration>,
        clock: Arc<dyn Clock>,
        level: i32,
        fail_points: FailPoints,
    ) -> Self {
        let (branch, epoch) = place;
        let pause = age.map_or(PAUSE, |age| age.min(PAUSE));
        let compactor = age.map(|min_age| {
            let options = CompactOptions {
                min_age,
                ..CompactOptions::default()
            };
            Compactor::new(repository, epoch, branch, options, clock, level)
                .with_fail_points(fail_points)
        });
        Self {
            compactor,
            running: None,
            next: Instant::now() + pause,
            pause,
            cancel: CancellationToken::new(),
            told: None,
        }
    }

    /// Starts a pass if it is time for one, and waits for its end; what it did or failed with is
    /// told. Dropping the future loses nothing.
    pub(super) async fn pass(&mut self) -> Result<Option<StreamEvent>, StreamError> {
        if self.running.is_none() {
            let Some(mut compactor) = self.compactor.take() else {
                return std::future::pending().await;
            };
            if self.next > Instant::now() {
                self.compactor = Some(compactor);
                tokio::time::sleep_until(self.next).await;
                return Ok(None);
            }
            let cancel = self.cancel.clone();
            self.running = Some(tokio::spawn(async move {
                let outcome = compactor.pass(&cancel).await;
                (compactor, outcome)
            }));
        }
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let (compactor, outcome) = running.await?;
        self.running = None;
        self.compactor = Some(compactor);
        self.next = Instant::now() + self.pause;
        match outcome {
            Ok(report) if report.made == 0 => Ok(None),
            Ok(report) => Ok(Some(StreamEvent::Compacted {
                replaced: report.replaced,
                made: report.made,
                segments: report.segments,
            })),
            Err(error @ StreamError::Fenced { .. }) => Err(error),
            Err(error) => Ok(self.put_off(&error)),
        }
    }

    fn put_off(&mut self, error: &StreamError) -> Option<StreamEvent> {
        let message = format!("compaction is put off: {}", with_causes(error));
        let is_old = |(told, at): &(String, Instant)| *told == message && at.elapsed() < REPEAT;
        if self.told.as_ref().is_some_and(is_old) {
            return None;
        }
        self.told = Some((message.clone(), Instant::now()));
        Some(StreamEvent::Warning { message })
    }

    /// Runs one pass now, if compaction is wanted at all.
    pub(super) async fn last_pass(&mut self) -> Result<Option<StreamEvent>, StreamError> {
        self.next = Instant::now();
        if self.compactor.is_none() && self.running.is_none() {
            return Ok(None);
        }
        self.pass().await
    }

    /// Ends a pass at its next step and waits for that.
    pub(super) async fn stop(&mut self) {
        self.cancel.cancel();
        if let Some(running) = self.running.take() {
            // What it did was made good or will be by the next pass.
            let _ = running.await;
        }
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
