//! Cut segments on their way into the store: packed, linked, spooled if need be, put in order.
//!
//! Two tasks stand behind each other. The packer finishes drafts and links each to the one
//! before; the uploader puts them, one at a time and in order, and looks for a newer claim after
//! each. While the store is away, or so slow that memory has no room left, what waits goes to the
//! spool; when that is full too, the tasks take nothing more, and the stream stops reading from
//! its source. The invariants: what
//! counts in the archive is always a beginning of what was cut; a segment is said to be durable
//! only when no newer claim was there afterwards.

mod pack;
mod put;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::pack::Packer;
use self::put::{Body, LONGEST_PAUSE, Put};
use super::error::StreamError;
use super::memory::{Held, Memory};
use super::spool::Spool;
use crate::archive::hash::Sha256;
use crate::archive::layout::{Epoch, SegmentName};
use crate::archive::repository::Repository;
use crate::archive::segment::{Draft, PackedBlock, SegmentError, SegmentIndex};
use crate::clock::Clock;
use crate::error::{Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::observe::fail_point::{FailPoint, FailPoints};

/// Segments that may wait in memory behind the one that is on its way.
const WAITING: usize = 1;
/// A store that keeps memory without room for so long hangs, and what waits for it goes to disk.
/// One that is merely slow is not meant: beside what it is putting, memory holds another segment.
const SLOW: Duration = Duration::from_secs(15);

/// A block that is being packed.
pub(super) type Packing = JoinHandle<Result<PackedBlock, SegmentError>>;

/// A draft on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) draft: Draft,
    pub(super) packing: Vec<Packing>,
    pub(super) complete_to: Option<DateTime<Utc>>,
}

/// A segment that is durable and counts.
#[derive(Debug, Clone)]
pub(super) struct Shipped {
    pub(super) name: SegmentName,
    pub(super) index: SegmentIndex,
    pub(super) stored_bytes: u64,
    pub(super) durable: DateTime<Utc>,
    /// Bytes that still wait on disk.
    pub(super) spooled_bytes: u64,
}

/// What the uploader tells.
#[derive(Debug)]
pub(super) enum Note {
    Shipped(Box<Shipped>),
    /// The store fails; so many segments wait, so many bytes of them on disk.
    Failing {
        reason: String,
        retry: Duration,
        waiting: usize,
        spooled_bytes: u64,
    },
    /// A segment was written to the spool.
    Spooled {
        added: GtidSet,
        spooled_bytes: u64,
    },
}

/// How segments are made and sent.
#[derive(Debug, Clone)]
pub(super) struct ShipOptions {
    pub(super) epoch: Epoch,
    pub(super) previous: Option<Sha256>,
    pub(super) continues: Option<(Epoch, u64)>,
    /// What was accepted as lost before the first segment.
    pub(super) gap: GtidSet,
    pub(super) level: i32,
    /// Bytes of a full segment.
    pub(super) segment_bytes: usize,
    pub(super) fail_points: FailPoints,
}

/// The sender's side.
#[derive(Debug)]
pub(super) struct Shipper {
    parcels: Option<mpsc::Sender<(Parcel, Option<Held>)>>,
    memory: Memory,
    notes: mpsc::UnboundedReceiver<Note>,
    packer: Option<JoinHandle<Result<(), StreamError>>>,
    uploader: Option<JoinHandle<Result<(), StreamError>>>,
}

impl Shipper {
    /// Starts the tasks. `cancel` ends the waiting for a store that is away.
    pub(super) fn start(
        repository: Repository,
        clock: Arc<dyn Clock>,
        options: ShipOptions,
        spool: Option<Spool>,
        cancel: CancellationToken,
    ) -> Self {
        let (parcels, incoming) = mpsc::channel(1);
        let (sealed, waiting) = mpsc::channel(1);
        let (tell, notes) = mpsc::unbounded_channel();
        let fail_points = options.fail_points.clone();
        let epoch = options.epoch;
        let memory = Memory::new(options.segment_bytes);
        let packer = Packer {
            options,
            clock: Arc::clone(&clock),
        };
        let uploader = Uploader {
            repository,
            clock,
            epoch,
            cancel,
            fail_points,
            spool: spool.map(Arc::new),
            memory: memory.clone(),
            tell,
            queue: VecDeque::new(),
            failing: false,
            spool_full: false,
            put_began: Instant::now(),
        };
        Self {
            parcels: Some(parcels),
            memory,
            notes,
            packer: Some(tokio::spawn(packer.run(incoming, sealed))),
            uploader: Some(tokio::spawn(uploader.run(waiting))),
        }
    }

    /// Whether a parcel can be sent without waiting.
    pub(super) fn has_room(&self) -> bool {
        self.parcels
            .as_ref()
            .is_some_and(|parcels| parcels.capacity() > 0)
            && self.memory.has_room()
    }

    /// Where parcels go in, to wait for room beside the notes.
    pub(super) fn inlet(&self) -> Inlet {
        Inlet {
            parcels: self.parcels.clone(),
            memory: self.memory.clone(),
        }
    }

    /// Whether the tasks have ended and were joined.
    pub(super) const fn has_ended(&self) -> bool {
        self.uploader.is_none()
    }

    /// Sends a parcel, waiting for room; `false` if the tasks have ended, which
    /// [`Shipper::next_note`] then tells why.
    pub(super) async fn send(&self, parcel: Parcel) -> bool {
        let Some(parcels) = &self.parcels else {
            return false;
        };
        let held = self.memory.take(parcel.draft.raw_bytes()).await;
        parcels.send((parcel, held)).await.is_ok()
    }

    /// Says that no parcel comes any more: what is on its way is sent, then the tasks end.
    pub(super) fn close(&mut self) {
        self.parcels = None;
    }

    /// The next note, `None` when all is sent after [`Shipper::close`].
    ///
    /// # Errors
    ///
    /// What ended the tasks.
    pub(super) async fn next_note(&mut self) -> Result<Option<Note>, StreamError> {
        if let Some(note) = self.notes.recv().await {
            return Ok(Some(note));
        }
        self.join().await.map(|()| None)
    }

    /// Waits for the tasks.
    pub(super) async fn join(&mut self) -> Result<(), StreamError> {
        self.close();
        let packed = match self.packer.take() {
            Some(packer) => packer.await?,
            None => Ok(()),
        };
        let uploaded = match self.uploader.take() {
            Some(uploader) => uploader.await?,
            None => Ok(()),
        };
        // If the uploader failed, that is why the packer could not go on.
        uploaded.and(packed)
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        if let Some(packer) = &self.packer {
            packer.abort();
        }
        if let Some(uploader) = &self.uploader {
            uploader.abort();
        }
    }
}

/// The shipper's opening. While one is held the shipper does not end.
#[derive(Debug)]
pub(super) struct Inlet {
    parcels: Option<mpsc::Sender<(Parcel, Option<Held>)>>,
    memory: Memory,
}

impl Inlet {
    /// Waits until a parcel can be sent; for ever if the tasks have ended.
    pub(super) async fn room(&self) {
        let room = match &self.parcels {
            Some(parcels) => self.memory.room().await && parcels.reserve().await.is_ok(),
            None => false,
        };
        if !room {
            std::future::pending::<()>().await;
        }
    }
}

/// A segment that waits to be put.
#[derive(Debug)]
struct Sealed {
    name: SegmentName,
    index: SegmentIndex,
    sha256: Sha256,
    bytes: u64,
    /// In memory, unless it is in the spool.
    body: Option<Bytes>,
    /// The memory that the body holds.
    held: Option<Held>,
    spooled: bool,
}

#[derive(Debug)]
struct Uploader {
    repository: Repository,
    clock: Arc<dyn Clock>,
    epoch: Epoch,
    cancel: CancellationToken,
    fail_points: FailPoints,
    spool: Option<Arc<Spool>>,
    memory: Memory,
    tell: mpsc::UnboundedSender<Note>,
    /// In order; the front one is on its way.
    queue: VecDeque<Sealed>,
    /// Whether the last try failed.
    failing: bool,
    /// Whether the spool had no room for the last one.
    spool_full: bool,
    /// When the present try began.
    put_began: Instant,
}

type Putting = JoinHandle<Result<(), StreamError>>;

impl Uploader {
    async fn run(mut self, mut incoming: mpsc::Receiver<Sealed>) -> Result<(), StreamError> {
        let mut putting: Option<Putting> = None;
        let mut pauses = put::pauses();
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
                            pauses = put::pauses();
                            self.failing = false;
                            self.settle_front()?;
                        }
                        Err(error) if error.class().is_transient() => {
                            self.failing = true;
                            self.spool_waiting().await?;
                            if self.cancel.is_cancelled() {
                                return Err(self.give_up(error));
                            }
                            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
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

#[cfg(test)]
mod tests;
