//! One try to put a segment.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;

use crate::archive::hash::Sha256;
use crate::archive::layout::{Epoch, SegmentName};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::SegmentError;
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::storage::StorageError;
use crate::stream::error::StreamError;
use crate::stream::spool::Spool;

/// The longest pause between two tries.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Where a segment's bytes are.
#[derive(Debug)]
pub(super) enum Body {
    Memory(Bytes),
    /// In the spool, with this digest.
    Disk(Arc<Spool>, Sha256),
}

impl Body {
    async fn read(self, name: SegmentName) -> Result<Bytes, StreamError> {
        let (spool, sha256) = match self {
            Self::Memory(body) => return Ok(body),
            Self::Disk(spool, sha256) => (spool, sha256),
        };
        tokio::task::spawn_blocking(move || {
            let body = spool.read(&name)?;
            if crate::archive::hash::sha256(&body) != sha256 {
                return Err(SegmentError::NotTheSame.into());
            }
            Ok(body)
        })
        .await?
    }
}

/// One try.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) repository: Repository,
    pub(super) name: SegmentName,
    pub(super) body: Body,
    /// Whether the store is asked for something small before.
    pub(super) asks_first: bool,
    pub(super) epoch: Epoch,
    pub(super) fail_points: FailPoints,
}

impl Put {
    pub(super) async fn run(self) -> Result<(), StreamError> {
        self.fail_points.pass(FailPoint::BeforePut);
        if self.asks_first {
            check_fence(&self.repository, self.epoch).await?;
        }
        let body = self.body.read(self.name.clone()).await?;
        self.repository.put_segment(&self.name, body).await?;
        self.fail_points.pass(FailPoint::AfterPut);
        check_fence(&self.repository, self.epoch).await
    }
}

/// Fails if a newer claim exists.
async fn check_fence(repository: &Repository, own: Epoch) -> Result<(), StreamError> {
    match repository.newest_epoch(Some(own)).await? {
        Some(newer) if newer > own => Err(StreamError::Fenced {
            own: own.0,
            newer: newer.0,
        }),
        _ => Ok(()),
    }
}

impl From<StorageError> for StreamError {
    fn from(error: StorageError) -> Self {
        Self::Archive(ArchiveError::Storage(error))
    }
}

/// The pauses between tries.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}
