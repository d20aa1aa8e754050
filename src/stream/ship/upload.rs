//! Putting segments into the store, one at a time and in order, and the spool for those that wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::claim::check_fence;
use super::super::error::StreamError;
use super::super::memory::Memory;
use super::super::pauses::{LONGEST_PAUSE, pauses};
use super::super::spool::Spool;
use super::{Note, Sealed, Shipped};
use crate::archive::hash::Sha256;
use crate::archive::layout::{Epoch, SegmentName};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::SegmentError;
use crate::clock::Clock;
use crate::error::{Classified as _, with_causes};
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::storage::StorageError;

/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Segments that may wait in memory behind the one that is on its way.
const WAITING: usize = 1;
/// A store that keeps memory without room for so long hangs, and what waits for it goes to disk.
/// One that is merely slow is not meant: beside what it is putting, memory holds another segment.
const SLOW: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Uploader {
    pub(super) repository: Repository,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) epoch: Epoch,
    pub(super) cancel: CancellationToken,
    pub(super) fail_points: FailPoints,
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) memory: Memory,
    pub(super) tell: mpsc::UnboundedSender<Note>,
    /// In order; the front one is on its way.
    pub(super) queue: VecDeque<Sealed>,
    /// Whether the last try failed.
    pub(super) failing: bool,
    /// Whether the spool had no room for the last one.
    pub(super) spool_full: bool,
    pub(super) jitter_seed: Option<u64>,
    /// When the present try began.
    pub(super) put_began: Instant,
}

type Putting = JoinHandle<Result<(), StreamError>>;

impl Uploader {
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Sealed>,
    ) -> Result<(), StreamError> {
        let mut putting: Option<Putting> = None;
        let mut next_pauses = pauses(FIRST_PAUSE, self.jitter_seed);
        let mut open = true;
        loop {
            if putting.is_none() && !self.queue.is_empty() {
                putting = Some(self.put_front(None)?);
            }
            if !open && putting.is_none() {
                return Ok(());
            }
            let takes = open && self.takes_more();
            let waits = putting.is_some() && self.waits_for_memory();
            let slow_at = self.put_began + SLOW;
            tokio::select! {
                biased;
                sealed = incoming.recv(), if takes => match sealed {
                    Some(sealed) => {
                        self.queue.push_back(sealed);
                        self.spool_waiting().await?;
                    }
                    None => open = false,
                },
                done = finished(&mut putting), if putting.is_some() => {
                    putting = None;
                    match done {
                        Ok(()) => {
                            next_pauses = pauses(FIRST_PAUSE, self.jitter_seed);
                            self.failing = false;
                            self.settle_front()?;
                        }
                        Err(error) if error.class().is_transient() => {
                            self.failing = true;
                            self.spool_waiting().await?;
                            if self.cancel.is_cancelled() {
                                return Err(self.give_up(error));
                            }
                            let pause = next_pauses.next().unwrap_or(LONGEST_PAUSE);
                            self.say_failing(&error, pause);
                            putting = Some(self.put_front(Some(pause))?);
                        }
                        Err(error) => return Err(error),
                    }
                }
                () = tokio::time::sleep_until(slow_at), if waits => self.spool_waiting().await?,
            }
        }
    }

    /// Whether memory has no room and the spool could give it some.
    fn waits_for_memory(&self) -> bool {
        let has_unspooled = || {
            self.queue
                .iter()
                .any(|sealed| !sealed.spooled && sealed.body.is_some())
        };
        self.spool.is_some() && !self.spool_full && !self.memory.has_room() && has_unspooled()
    }

    /// Whether another segment can be held: in memory, or because the last one went to disk.
    fn takes_more(&self) -> bool {
        // The front one is held in memory while it is put, wherever else it is.
        let waiting = self.queue.iter().skip(1);
        let in_memory = waiting.filter(|sealed| sealed.body.is_some()).count();
        let disk = self.spool.is_some() && !self.spool_full;
        in_memory < WAITING || disk
    }

    /// Writes to the spool what has to wait, when the store fails, when more waits than memory
    /// shall hold, or when the store is too slow for what memory holds. Then everything goes
    /// there, from the front one on: what a crash leaves has no hole.
    async fn spool_waiting(&mut self) -> Result<(), StreamError> {
        let Some(spool) = &self.spool else {
            return Ok(());
        };
        let slow = || self.put_began.elapsed() >= SLOW && self.waits_for_memory();
        if !self.failing && self.queue.len() <= 1 + WAITING && !slow() {
            return Ok(());
        }
        for (place, sealed) in self.queue.iter_mut().enumerate() {
            let Some(body) = sealed.body.clone().filter(|_| !sealed.spooled) else {
                continue;
            };
            let (disk, name) = (Arc::clone(spool), sealed.name.clone());
            let written = tokio::task::spawn_blocking(move || disk.write(&name, &body)).await??;
            self.spool_full = !written;
            if !written {
                break;
            }
            sealed.spooled = true;
            sealed.body = None;
            if place == 0 {
                // It is being put: the memory is still held, and is let go a step later.
                self.memory.keep_for_put(&mut sealed.held);
            } else {
                sealed.held = None;
            }
            self.fail_points.pass(FailPoint::Spooled);
            let _ = self.tell.send(Note::Spooled {
                added: sealed.index.added.clone(),
                spooled_bytes: spool.used(),
            });
        }
        Ok(())
    }

    /// Starts to put the front segment, after a pause if there is one.
    fn put_front(&mut self, pause: Option<Duration>) -> Result<Putting, StreamError> {
        let Some(front) = self.queue.front_mut() else {
            return Ok(tokio::spawn(async { Ok(()) }));
        };
        let body = match (&front.body, &self.spool) {
            (Some(body), _) => Body::Memory(body.clone()),
            (None, Some(spool)) => {
                if front.held.is_none() {
                    front.held = self.memory.take_for_put(front.bytes as usize);
                }
                Body::Disk(Arc::clone(spool), front.sha256)
            }
            (None, None) => return Err(SegmentError::Unfilled.into()),
        };
        self.put_began = Instant::now();
        let put = Put {
            // While the store is away no try takes the memory of a segment.
            asks_first: self.failing && matches!(body, Body::Disk(..)),
            repository: self.repository.clone(),
            name: front.name.clone(),
            body,
            epoch: self.epoch,
            fail_points: self.fail_points.clone(),
        };
        let (clock, cancel) = (Arc::clone(&self.clock), self.cancel.clone());
        Ok(tokio::spawn(async move {
            if let Some(pause) = pause {
                tokio::select! {
                    biased;
                    () = clock.sleep(pause) => {}
                    () = cancel.cancelled() => {}
                }
            }
            put.run().await
        }))
    }

    /// The front segment is durable and counts.
    fn settle_front(&mut self) -> Result<(), StreamError> {
        let Some(front) = self.queue.pop_front() else {
            return Ok(());
        };
        self.fail_points.pass(FailPoint::Durable);
        if front.spooled
            && let Some(spool) = &self.spool
        {
            spool.remove(&front.name, front.bytes)?;
            self.spool_full = false;
            self.fail_points.pass(FailPoint::Unspooled);
        }
        let shipped = Shipped {
            name: front.name,
            index: front.index,
            stored_bytes: front.bytes,
            durable: self.clock.now(),
            spooled_bytes: self.spool.as_ref().map_or(0, |spool| spool.used()),
        };
        // Nobody listens only when the stream ends.
        let _ = self.tell.send(Note::Shipped(Box::new(shipped)));
        Ok(())
    }

    fn say_failing(&self, error: &StreamError, retry: Duration) {
        let reason = with_causes(error);
        tracing::warn!(
            reason,
            "the store fails; trying again in {:.1} s",
            retry.as_secs_f64()
        );
        let _ = self.tell.send(Note::Failing {
            reason,
            retry,
            waiting: self.queue.len(),
            spooled_bytes: self.spool.as_ref().map_or(0, |spool| spool.used()),
        });
    }

    /// What is said when the run ends while the store is away.
    fn give_up(&self, error: StreamError) -> StreamError {
        let all_on_disk = self.queue.iter().all(|sealed| sealed.spooled);
        match &self.spool {
            Some(spool) if all_on_disk => StreamError::LeftInSpool {
                segments: self.queue.len(),
                folder: spool.folder().to_owned(),
                source: Box::new(error),
            },
            _ => error,
        }
    }
}

/// Waits for what is being put.
async fn finished(putting: &mut Option<Putting>) -> Result<(), StreamError> {
    match putting {
        Some(task) => task.await?,
        None => std::future::pending().await,
    }
}

/// Where a segment's bytes are.
#[derive(Debug)]
enum Body {
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
struct Put {
    repository: Repository,
    name: SegmentName,
    body: Body,
    /// Whether the store is asked for something small before.
    asks_first: bool,
    epoch: Epoch,
    fail_points: FailPoints,
}

impl Put {
    async fn run(self) -> Result<(), StreamError> {
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

impl From<StorageError> for StreamError {
    fn from(error: StorageError) -> Self {
        Self::Archive(ArchiveError::Storage(error))
    }
}
