//! Whether the streamer that has the archive still lives.
//!
//! Fencing does not depend on the answer: a streamer that was taken for gone and is not loses its
//! claim and stops. The answer keeps a second one from pushing a healthy one out. The signs are
//! the dump that is registered at the source under the claim's UUID, and the segments that the
//! claim's holder puts at least once in an idle interval.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::StreamError;
use super::options::StreamOptions;
use super::report::{Observer, StreamEvent};
use super::upstream::Upstream;
use crate::archive::identity::Claim;
use crate::archive::layout::Epoch;
use crate::archive::repository::Repository;
use crate::archive::segment::SegmentIndex;
use crate::clock::Clock;

/// How often a standby looks.
const LOOK: Duration = Duration::from_secs(2);
/// A dump whose streamer is gone may be registered for so long.
const FAREWELL: Duration = Duration::from_secs(6);
/// A streamer whose source was lost is given so long to come back elsewhere.
const RECONNECT_GRACE: Duration = Duration::from_secs(20);

/// Returns when the archive may be claimed; `false` if `cancel` came first.
///
/// # Errors
///
/// [`StreamError::Occupied`] if another streamer lives and [`StreamOptions::standby`] is not set.
pub(super) async fn wait_for_turn(
    repository: &Repository,
    upstream: &mut dyn Upstream,
    options: &StreamOptions,
    clock: &dyn Clock,
    observer: &Observer,
    cancel: &CancellationToken,
) -> Result<bool, StreamError> {
    let mut watch: Option<Watch> = None;
    loop {
        let Some(epoch) = repository.newest_epoch(None).await? else {
            return Ok(true);
        };
        let claim = repository.claim(epoch).await?;
        if claim.fence {
            return Ok(true);
        }
        let segment = repository.newest_segment(claim.branch, epoch).await?;
        let sign = (epoch, segment.as_ref().map(|index| index.last_sequence));
        if watch.as_ref().is_none_or(|watch| watch.sign != sign) {
            let changed = Instant::now();
            let seen = match &segment {
                Some(index) => index.written.max(claim.claimed),
                None => claim.claimed,
            };
            if options.standby {
                say(observer, &claim, watch.as_ref());
            }
            let age = match &watch {
                None => since(seen, clock.now()),
                Some(_) => Duration::ZERO,
            };
            watch = Some(Watch {
                sign,
                claim,
                changed,
                age,
                connected: changed,
                begun: watch.as_ref().map_or(changed, |watch| watch.begun),
                moved: watch.is_some(),
            });
        }
        let Some(watch) = &mut watch else { continue };
        // A question that nobody answers says nothing: there is no source to follow either.
        let registered = match watch.claim.replica_uuid {
            None => false,
            Some(uuid) => match upstream.is_registered(uuid).await {
                Ok(registered) => registered,
                Err(_) if options.standby => true,
                Err(error) => return Err(error),
            },
        };
        if registered {
            watch.connected = Instant::now();
        }
        // Clocks of two hosts may differ, so of one that is connected only a silence counts that
        // we have heard.
        let silent = match registered {
            true => watch.changed.elapsed(),
            false => watch.age + watch.changed.elapsed(),
        };
        let unconnected = match options.standby {
            true => watch.connected.elapsed() >= RECONNECT_GRACE,
            false => !registered,
        };
        let gone = unconnected
            || silent >= options.takeover_after
                && (!registered
                    || silent >= options.idle_interval * 3 / 2
                    || has_more(upstream, &watch.claim, segment.as_ref()).await);
        if gone {
            return Ok(true);
        }
        // A source notices only at its next sign of life to a dump that the other end is gone.
        let proven = watch.moved || watch.begun.elapsed() >= FAREWELL;
        if !options.standby && proven {
            return Err(StreamError::Occupied {
                epoch: watch.claim.epoch.0,
                host: watch.claim.host.clone(),
                process: watch.claim.process,
                address: watch.claim.address.clone(),
                life: format!("last seen {:.0} s ago", silent.as_secs_f64()),
            });
        }
        tokio::select! {
            biased;
            () = clock.sleep(if options.standby { LOOK } else { LOOK / 8 }) => {}
            () = cancel.cancelled() => return Ok(false),
        }
    }
}

/// Whether the source has something to archive: without that, one that is connected and silent
/// is merely idle.
async fn has_more(
    upstream: &mut dyn Upstream,
    claim: &Claim,
    segment: Option<&SegmentIndex>,
) -> bool {
    let held = segment.map_or_else(|| claim.start.clone(), SegmentIndex::after);
    let history = async { upstream.find().await?.history().await };
    // If nobody answers there is nothing to take over for.
    history
        .await
        .is_ok_and(|history| !history.executed.is_subset(&held))
}

/// The other streamer, as far as it was seen.
#[derive(Debug)]
struct Watch {
    /// Its claim, and the newest segment under it.
    sign: (Epoch, Option<u64>),
    claim: Claim,
    /// When that was first seen.
    changed: Instant,
    /// How old it was then, by the clocks of both hosts.
    age: Duration,
    /// When its dump was last seen.
    connected: Instant,
    /// When we began to look.
    begun: Instant,
    /// Whether it has done something since.
    moved: bool,
}

fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}

fn say(observer: &Observer, claim: &Claim, before: Option<&Watch>) {
    if before.is_some_and(|before| before.claim.epoch == claim.epoch) {
        return;
    }
    observer(StreamEvent::Standby {
        epoch: claim.epoch.0,
        host: claim.host.clone(),
        process: claim.process,
    });
}
