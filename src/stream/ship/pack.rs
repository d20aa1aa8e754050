//! Drafts are finished, and each is linked to the one before.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Parcel, Sealed, ShipOptions};
use crate::archive::segment::EncodedSegment;
use crate::clock::Clock;
use crate::observe::fail_point::FailPoint;
use crate::stream::error::StreamError;
use crate::stream::memory::{Held, shrink};

/// A smaller draft is packed where it is: a thread would cost more than the work.
const SMALL: usize = 128 << 10;

#[derive(Debug)]
pub(super) struct Packer {
    pub(super) options: ShipOptions,
    pub(super) clock: Arc<dyn Clock>,
}

impl Packer {
    pub(super) async fn run(
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
        let blocks = !parcel.packing.is_empty();
        for packing in parcel.packing {
            draft.fill(packing.await??);
        }
        draft.previous = self.options.previous;
        draft.continues = self.options.continues.take();
        draft.gap = std::mem::take(&mut self.options.gap);
        let (level, written) = (self.options.level, self.clock.now());
        let complete_to = parcel.complete_to;
        let encoded = if blocks || draft.raw_bytes() > SMALL {
            tokio::task::spawn_blocking(move || draft.encode(level, complete_to, written)).await??
        } else {
            draft.encode(level, complete_to, written)?
        };
        self.options.previous = Some(encoded.sha256);
        Ok(encoded)
    }
}
