//! Segments into the store: in order, linked, and only as long as the claim is the newest.
//!
//! One segment is on its way at a time, while the next one fills. The invariant: a segment is
//! reported only when it is durable and no newer claim was there afterwards, so a streamer that
//! was overtaken while it slept reports nothing more.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::error::StreamError;
use crate::archive::hash::Sha256;
use crate::archive::layout::{Epoch, SegmentName};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::{Draft, SegmentIndex};
use crate::clock::Clock;
use crate::error::Classified as _;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A segment that is durable and counts.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// Its name.
    pub name: SegmentName,
    /// Its index.
    pub index: SegmentIndex,
    /// The object's size in bytes.
    pub stored_bytes: u64,
    /// When it was durable.
    pub durable: DateTime<Utc>,
}

/// Stores one claim's segments.
#[derive(Debug)]
pub struct Uploader {
    repository: Repository,
    clock: Arc<dyn Clock>,
    epoch: Epoch,
    previous: Option<Sha256>,
    continues: Option<(Epoch, u64)>,
    level: i32,
    cancel: CancellationToken,
}

impl Uploader {
    /// An uploader for a claim. `previous` and `continues` tell the segment that it goes on from;
    /// `cancel` ends the waiting for a store that is gone.
    #[must_use]
    pub fn new(
        repository: Repository,
        clock: Arc<dyn Clock>,
        epoch: Epoch,
        previous: Option<Sha256>,
        continues: Option<(Epoch, u64)>,
        level: i32,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            repository,
            clock,
            epoch,
            previous,
            continues,
            level,
            cancel,
        }
    }

    /// Compresses and stores a draft, waiting out a store that fails for now.
    ///
    /// # Errors
    ///
    /// [`StreamError::Fenced`] when a newer claim exists; the store's refusal; what cannot be
    /// encoded.
    pub async fn upload(
        mut self,
        mut draft: Draft,
        complete_to: Option<DateTime<Utc>>,
    ) -> Result<(Self, Uploaded), StreamError> {
        draft.previous = self.previous;
        draft.continues = self.continues.take();
        let (level, written) = (self.level, self.clock.now());
        let encoded =
            tokio::task::spawn_blocking(move || draft.encode(level, complete_to, written))
                .await??;
        let name = encoded.name.clone();
        let index = encoded.index.clone();
        let stored_bytes = encoded.bytes.len() as u64;
        let sha256 = encoded.sha256;
        let body = bytes::Bytes::from(encoded.bytes);
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .build();
        loop {
            match self.store(&name, &body).await {
                Ok(()) => break,
                Err(error) if error.class().is_transient() && !self.cancel.is_cancelled() => {
                    let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
                    tracing::warn!(
                        segment = name.key(),
                        error = &error as &dyn std::error::Error,
                        "the store fails; trying again in {:.1} s",
                        pause.as_secs_f64()
                    );
                    tokio::select! {
                        () = self.clock.sleep(pause) => {}
                        () = self.cancel.cancelled() => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.previous = Some(sha256);
        let durable = self.clock.now();
        let uploaded = Uploaded {
            name,
            index,
            stored_bytes,
            durable,
        };
        Ok((self, uploaded))
    }

    async fn store(&self, name: &SegmentName, body: &bytes::Bytes) -> Result<(), StreamError> {
        self.repository.put_segment(name, body.clone()).await?;
        self.check_fence().await
    }

    /// Fails if a newer claim exists.
    async fn check_fence(&self) -> Result<(), StreamError> {
        match self.repository.newest_epoch(Some(self.epoch)).await? {
            Some(newer) if newer > self.epoch => Err(StreamError::Fenced {
                own: self.epoch.0,
                newer: newer.0,
            }),
            _ => Ok(()),
        }
    }
}

impl From<crate::storage::StorageError> for StreamError {
    fn from(error: crate::storage::StorageError) -> Self {
        Self::Archive(ArchiveError::Storage(error))
    }
}
