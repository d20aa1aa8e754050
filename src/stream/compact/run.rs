//! A pass of compaction. The protocol is in the module's doc.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::plan::{CompactOptions, garbage, next_run};
use crate::archive::catalog::{Chain, StoredSegment};
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::merge::Merger;
use crate::archive::repository::{ArchiveError, LogReader, Repository};
use crate::archive::segment::{EncodedSegment, SegmentError};
use crate::archive::work::beside;
use crate::clock::Clock;
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::stream::claim::check_fence;
use crate::stream::error::StreamError;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// How many objects were made.
    pub made: u64,
    /// Their bytes.
    pub made_bytes: u64,
    /// How many segments they stand for.
    pub replaced: u64,
    /// How many objects were deleted, those from earlier runs among them.
    pub deleted: u64,
    /// How many segments of the log count now.
    pub segments: u64,
}

/// Compacts the log of the branch that a claim writes to.
#[derive(Debug)]
pub struct Compactor {
    repository: Repository,
    log: LogReader,
    epoch: Epoch,
    options: CompactOptions,
    clock: Arc<dyn Clock>,
    level: i32,
    fail_points: FailPoints,
}

impl Compactor {
    /// A compactor for the holder of `epoch`; `level` is zstd's.
    #[must_use]
    pub fn new(
        repository: Repository,
        epoch: Epoch,
        branch: BranchNumber,
        options: CompactOptions,
        clock: Arc<dyn Clock>,
        level: i32,
    ) -> Self {
        Self {
            log: LogReader::new(repository.clone(), branch),
            repository,
            epoch,
            options,
            clock,
            level,
            fail_points: FailPoints::default(),
        }
    }

    /// Passes the points at which a test may end the run.
    #[must_use]
    pub fn with_fail_points(mut self, fail_points: FailPoints) -> Self {
        self.fail_points = fail_points;
        self
    }

    #[cfg(test)]
    pub(super) const fn options_for_tests(&mut self) -> &mut CompactOptions {
        &mut self.options
    }

    /// Deletes what an earlier run left, and then compacts until nothing is worth it or `cancel`.
    ///
    /// It waits for nothing; a pass that fails leaves an archive that is whole, and the next one
    /// goes on.
    ///
    /// # Errors
    ///
    /// [`StreamError::Fenced`] when a newer claim exists; [`StreamError::Damaged`] if the log is
    /// not whole; what reading and writing fail with.
    pub async fn pass(&mut self, cancel: &CancellationToken) -> Result<CompactReport, StreamError> {
        let mut report = CompactReport::default();
        let mut chain = self.log.chain().await?;
        check_fence(&self.repository, self.epoch).await?;
        if let Some(problem) = chain.problems.first() {
            return Err(StreamError::Damaged {
                problem: problem.to_string(),
            });
        }
        report.segments = chain.segments.len() as u64;
        // Only with our own first segment it is settled what of the epochs before counts.
        let is_ours = chain
            .segments
            .last()
            .is_some_and(|s| s.name.epoch == self.epoch);
        if !is_ours {
            return Ok(report);
        }
        self.sweep(&mut chain, &mut report, cancel).await?;
        while !cancel.is_cancelled()
            && let Some(run) = next_run(&chain, &self.options, self.clock.now())
        {
            let sources = chain.segments[run.clone()].to_vec();
            let Some(made) = self.merge(&sources, cancel).await? else {
                break;
            };
            let stored = StoredSegment {
                name: made.name,
                size: made.bytes.len() as u64,
                index: made.index,
            };
            let body = Bytes::from(made.bytes);
            self.fail_points.pass(FailPoint::Merged);
            self.repository.put_segment(&stored.name, body).await?;
            self.fail_points.pass(FailPoint::Compacted);
            check_fence(&self.repository, self.epoch).await?;
            tracing::info!(
                segment = stored.name.key(),
                sources = sources.len(),
                bytes = stored.size,
                "compacted"
            );
            report.made += 1;
            report.made_bytes += stored.size;
            report.replaced += sources.len() as u64;
            chain.beside.retain(|beside| beside.name != stored.name);
            let replaced = chain.segments.splice(run, [stored]);
            chain.beside.extend(replaced);
            self.sweep(&mut chain, &mut report, cancel).await?;
            report.segments = chain.segments.len() as u64;
        }
        Ok(report)
    }

    /// Deletes what nobody needs; no newer claim was there a moment ago.
    async fn sweep(
        &self,
        chain: &mut Chain,
        report: &mut CompactReport,
        cancel: &CancellationToken,
    ) -> Result<(), StreamError> {
        for segment in garbage(chain) {
            if cancel.is_cancelled() {
                break;
            }
            let key = segment.name.key();
            self.repository.storage().delete(&key).await?;
            self.fail_points.pass(FailPoint::Replaced);
            chain.beside.retain(|beside| beside.name != segment.name);
            report.deleted += 1;
        }
        Ok(())
    }

    /// Reads, verifies and joins; `None` if it was cancelled.
    async fn merge(
        &self,
        sources: &[StoredSegment],
        cancel: &CancellationToken,
    ) -> Result<Option<EncodedSegment>, StreamError> {
        let Some(mut merger) = Merger::begin(sources, self.level) else {
            return Ok(None);
        };
        for source in sources {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            let segment = match self.repository.read_segment(source).await {
                Ok(segment) => segment,
                Err(error) => {
                    // A successor may have compacted it away.
                    check_fence(&self.repository, self.epoch).await?;
                    return Err(error.into());
                }
            };
            let added = beside(move || {
                let added = merger.add(&segment);
                (merger, added)
            });
            let added = added.await?;
            added.1.map_err(|error| damaged(source, error))?;
            merger = added.0;
        }
        let made = beside(move || merger.finish()).await??;
        Ok(Some(made))
    }
}

fn damaged(segment: &StoredSegment, source: SegmentError) -> StreamError {
    ArchiveError::Segment {
        key: segment.name.key(),
        source,
    }
    .into()
}
