//! One source after the other: what its end means, and how long to wait before the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::claim::check_fence;
use super::super::error::StreamError;
use super::super::parting;
use super::super::pauses::{LONGEST_PAUSE, pauses};
use super::super::report::{StreamEnd, StreamEvent, beating, heartbeats};
use super::super::start::next_source;
use super::super::upstream::{Source, Upstream};
use super::{Ended, Follower};
use crate::archive::layout::{BranchNumber, Epoch};
use crate::error::{Classified as _, with_causes};
use crate::gtid::GtidSet;

/// A source that refuses the dump is asked again so often, in case the reason shows meanwhile.
const REFUSALS: u32 = 4;
/// The first pause between two tries to reach a source.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A store that does not answer in so long is not waited for before the next look for a source.
const FENCE_LIMIT: Duration = Duration::from_secs(5);
/// With `once`, a run gives up when nothing has come for so long since its source was lost.
const PATIENCE: Duration = Duration::from_secs(30);

impl Follower {
    /// Follows one server after the other.
    pub(super) async fn follow_all(
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
                Err(StreamError::OtherPayload {
                    server,
                    gtid,
                    difference,
                    ..
                }) => {
                    let parted = self.find_parting(upstream).await;
                    return Err(StreamError::OtherPayload {
                        server,
                        gtid,
                        difference,
                        parted,
                    });
                }
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
            let home = self.home.as_ref();
            let finding = next_source(upstream, home, &received, &*self.clock);
            next = tokio::select! {
                biased;
                found = beating(&self.observer, finding) => found,
                () = self.cancel.cancelled() => return Ok(StreamEnd::Stopped),
            };
            if next.is_err() {
                self.check_fence().await?;
            }
        }
    }

    /// Fails if the archive has been taken over. A stream that has lost its source and finds no
    /// other puts nothing, by which it would notice.
    async fn check_fence(&self) -> Result<(), StreamError> {
        let checking = check_fence(&self.repository, Epoch(self.report.epoch));
        let checked = tokio::select! {
            biased;
            checked = beating(&self.observer, checking) => checked,
            () = tokio::time::sleep(FENCE_LIMIT) => Ok(()),
            () = self.cancel.cancelled() => Ok(()),
        };
        match checked {
            Err(error) if error.class().is_transient() => Ok(()),
            checked => checked,
        }
    }

    /// What the archive holds and the source has another transaction for, as far as that can be
    /// found out.
    pub(super) async fn find_parting(&self, upstream: &mut dyn Upstream) -> GtidSet {
        let found = async {
            let mut source = upstream.find().await?;
            let branch = BranchNumber(self.report.branch);
            parting::find(&self.repository, branch, &mut *source, self.replica_uuid).await
        };
        let found = tokio::select! {
            biased;
            found = beating(&self.observer, found) => found,
            () = self.cancel.cancelled() => return GtidSet::new(),
        };
        found.unwrap_or_else(|error| {
            self.warn(format!(
                "where the histories part could not be found: {}",
                with_causes(&error)
            ));
            GtidSet::new()
        })
    }

    /// Waits before the next try; `false` if the run was cancelled.
    pub(super) async fn pause(&mut self, wait: Duration) -> Result<bool, StreamError> {
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
}

/// Whether the source refused the dump (`ER_SOURCE_FATAL_ERROR_READING_BINLOG`). It may have
/// purged what is asked for since it was looked at, which the next look tells as a gap; or it may
/// be unable to read its own binlog, which it says again.
fn is_refused_dump(error: &StreamError) -> bool {
    matches!(error, StreamError::Wire(error) if error.server_code() == Some(1236))
}
