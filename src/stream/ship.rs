//! Cut segments on their way into the store: packed, linked, spooled if need be, put in order.
//!
//! Two tasks stand behind each other. The packer finishes drafts and links each to the one
//! before; the uploader puts them, one at a time and in order, and looks for a newer claim after
//! each. While the store is away, or so slow that memory has no room left, what waits goes to the
//! spool; when that is full too, the tasks take nothing more, and the stream stops reading from
//! its source. The invariants: what
//! counts in the archive is always a beginning of what was cut; a segment is said to be durable
//! only when no newer claim was there afterwards.

mod upload;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::StreamError;
use super::memory::{Held, Memory, shrink};
use super::spool::Spool;
use crate::archive::hash::Sha256;
use crate::archive::layout::{Epoch, SegmentName};
use crate::archive::repository::Repository;
use crate::archive::segment::{Draft, EncodedSegment, SegmentError, SegmentIndex};
use crate::archive::work::beside;
use crate::clock::Clock;
use crate::gtid::GtidSet;
use crate::observe::fail_point::{FailPoint, FailPoints};
use upload::Uploader;

/// A smaller draft is packed where it is: a thread would cost more than the work.
const SMALL: usize = 128 << 10;

/// A block that is being packed.
pub(super) type Packing = JoinHandle<Result<(), SegmentError>>;

/// A draft on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) draft: Draft,
    /// Blocks of it that may still be in packing.
    pub(super) packing: VecDeque<Packing>,
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
    pub(super) jitter_seed: Option<u64>,
}

/// The sender's side.
#[derive(Debug)]
pub(super) struct Shipper {
    parcels: Option<mpsc::Sender<(Parcel, Option<Held>)>>,
    memory: Memory,
    notes: mpsc::UnboundedReceiver<Note>,
    packer: Option<JoinHandle<Result<(), StreamError>>>,
    uploader: Option<JoinHandle<Result<(), StreamError>>>,
    /// How the packer ended.
    packed: Result<(), StreamError>,
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
        let (epoch, jitter_seed) = (options.epoch, options.jitter_seed);
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
            jitter_seed,
            put_began: Instant::now(),
        };
        Self {
            parcels: Some(parcels),
            memory,
            notes,
            packer: Some(tokio::spawn(packer.run(incoming, sealed))),
            uploader: Some(tokio::spawn(uploader.run(waiting))),
            packed: Ok(()),
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
            parcels: self.parcels.as_ref().map(mpsc::Sender::downgrade),
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

    /// Waits for the tasks. Dropping the future loses nothing.
    pub(super) async fn join(&mut self) -> Result<(), StreamError> {
        self.close();
        if let Some(packer) = &mut self.packer {
            let packed = packer.await;
            self.packer = None;
            self.packed = packed.map_err(StreamError::from).flatten();
        }
        let uploaded = match &mut self.uploader {
            Some(uploader) => uploader.await,
            None => return Ok(()),
        };
        self.uploader = None;
        // If the uploader failed, that is why the packer could not go on.
        uploaded??;
        std::mem::replace(&mut self.packed, Ok(()))
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

/// The shipper's opening, which does not keep it open.
#[derive(Debug)]
pub(super) struct Inlet {
    parcels: Option<mpsc::WeakSender<(Parcel, Option<Held>)>>,
    memory: Memory,
}

impl Inlet {
    /// Waits until a parcel can be sent; for ever if the tasks have ended.
    pub(super) async fn room(&self) {
        let parcels = self.parcels.as_ref().and_then(mpsc::WeakSender::upgrade);
        let room = match parcels {
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
struct Packer {
    options: ShipOptions,
    clock: Arc<dyn Clock>,
}

impl Packer {
    async fn run(
        mut self,
        mut incoming: mpsc::Receiver<(Parcel, Option<Held>)>,
        outgoing: mpsc::Sender<Sealed>,
    ) -> Result<(), StreamError> {
        loop {
            let received = tokio::select! {
                biased;
                received = incoming.recv() => received,
                // The uploader has ended, and says why.
                () = outgoing.closed() => None,
            };
            let Some((parcel, mut held)) = received else {
                break;
            };
            let encoded = self.pack(parcel).await?;
            shrink(&mut held, encoded.bytes.len());
            self.options.fail_points.pass(FailPoint::Encoded);
            let sealed = Sealed {
                bytes: encoded.bytes.len() as u64,
                name: encoded.name,
                index: encoded.index,
                sha256: encoded.sha256,
                body: Some(Bytes::from(encoded.bytes)),
                held,
                spooled: false,
            };
            if outgoing.send(sealed).await.is_err() {
                // The uploader has ended, and says why.
                break;
            }
        }
        Ok(())
    }

    async fn pack(&mut self, parcel: Parcel) -> Result<EncodedSegment, StreamError> {
        let mut draft = parcel.draft;
        for packing in parcel.packing {
            packing.await??;
        }
        draft.previous = self.options.previous;
        draft.continues = self.options.continues.take();
        draft.gap = std::mem::take(&mut self.options.gap);
        let (level, written) = (self.options.level, self.clock.now());
        let complete_to = parcel.complete_to;
        let encoded = if draft.raw_bytes() > SMALL {
            beside(move || draft.encode(level, complete_to, written)).await??
        } else {
            draft.encode(level, complete_to, written)?
        };
        self.options.previous = Some(encoded.sha256);
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests;
