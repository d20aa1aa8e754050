//! From the source's events to drafts that are handed over.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::StreamError;
use super::super::report::beating;
use super::super::ship::Parcel;
use super::super::upstream::Dump;
use super::{AHEAD, BATCH, Follower, SLOWER};
use crate::archive::segment::{Block, Draft};
use crate::gtid::GtidSet;
use crate::mysql::wire::DumpPacket;
use crate::observe::fail_point::FailPoint;

impl Follower {
    /// Whether it is time to cut, after so many intervals.
    pub(super) fn is_due(&self, waited: u32) -> bool {
        match self.sent - self.shipped {
            // A source that waits for the archive is not kept waiting for the interval.
            0 if self.acknowledgements.wants_archive() => true,
            0 | 1 => waited > 0,
            _ => waited >= SLOWER,
        }
    }

    /// Takes a packet and those that have come with it; `false` if the source ended the stream.
    pub(super) async fn take_batch(
        &mut self,
        server: &str,
        first: DumpPacket,
        dump: &mut dyn Dump,
    ) -> Result<bool, StreamError> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(packet) = next {
            let DumpPacket::Event { bytes, acknowledge } = packet else {
                return Ok(false);
            };
            let cut = self.take(server, &bytes, acknowledge).await?;
            taken += 1;
            if taken == BATCH || cut && !self.shipper.has_room() {
                break;
            }
            next = dump.received()?;
        }
        Ok(true)
    }

    /// Takes an event; tells whether a draft was sent.
    pub(super) async fn take(
        &mut self,
        server: &str,
        event: &[u8],
        acknowledge: bool,
    ) -> Result<bool, StreamError> {
        if self.is_known(event)? {
            self.cutter.skip(event);
            if acknowledge {
                self.acknowledgements.want(self.cutter.position().clone());
            }
            return Ok(false);
        }
        let inside = self.cutter.is_inside();
        if self.acknowledgements.keeps_journal() {
            let received = match inside {
                // Looked at only where a file of the journal may begin or end.
                true => GtidSet::new(),
                false => self.cutter.received(),
            };
            let mut told = false;
            while !self.acknowledgements.journal(event, inside, &received)? {
                if !std::mem::replace(&mut told, true) {
                    self.warn("the spool's disk is full; the stream waits for room".to_owned());
                }
                self.wait_for_disk().await?;
            }
        }
        let taken = self.cutter.take(event);
        if acknowledge {
            self.acknowledgements.want(self.cutter.position().clone());
        }
        match taken {
            Ok(None) => {
                while let Some(block) = self.cutter.seal() {
                    self.pack(block).await?;
                }
                Ok(false)
            }
            Ok(Some(draft)) => {
                self.send(draft).await?;
                Ok(true)
            }
            Err(source) => {
                let at = self.cutter.position();
                Err(StreamError::Event {
                    server: server.to_owned(),
                    file: at.file.clone(),
                    position: at.position,
                    source,
                })
            }
        }
    }

    /// Whether the event belongs to a transaction that was asked for only to be compared.
    pub(super) fn is_known(&mut self, event: &[u8]) -> Result<bool, StreamError> {
        let Some(witness) = &mut self.witness else {
            return Ok(false);
        };
        let known = match witness.takes(event) {
            Ok(known) => known,
            Err(error) => {
                // What came before it on this connection is of another history as well.
                self.cutter.discard();
                self.packing.clear();
                self.sent -= self.held.len() as u64;
                self.held.clear();
                return Err(error);
            }
        };
        if witness.is_done() {
            self.witness = None;
        }
        Ok(known)
    }

    /// Has a block packed beside the reading, when a thread is free for it.
    pub(super) async fn pack(&mut self, block: Block) -> Result<(), StreamError> {
        // Those that are packed before one in front of them hold memory until it is: a thread
        // that gets no processor is waited for.
        let most = self.options.threads.max(1) * AHEAD;
        loop {
            let full = self.packing.len() >= most;
            let Some(first) = self.packing.front_mut() else {
                break;
            };
            if !full && !first.is_finished() {
                break;
            }
            let packed = first.await;
            self.packing.pop_front();
            packed??;
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let level = self.options.level;
        self.packing.push_back(tokio::task::spawn_blocking(move || {
            let packed = block.pack(level);
            drop(permit);
            packed
        }));
        Ok(())
    }

    /// A segment without events, when it is time for one: at first, after a quiet interval, and
    /// at the end of a run with `once`.
    pub(super) fn silence_if_due(&mut self) -> Option<Draft> {
        let reached = self.horizon.reached();
        if self.sent > self.shipped || reached.is_none() {
            return None;
        }
        // A standby takes the segment for a sign of life too, even if the source's clock went
        // back.
        let is_news = reached > self.report.complete_to;
        let due = self.options.once && is_news
            || self.report.segments == 0
            || self.last_put.elapsed() >= self.options.idle_interval;
        due.then(|| self.cutter.silence()).flatten()
    }

    /// Says at the end of a run that nothing happened since what was archived last, if that is so
    /// and news: else the moment of the last transaction would stay without a voucher.
    pub(super) async fn last_word(&mut self) -> Result<(), StreamError> {
        if !self.cutter.is_inside() {
            self.horizon
                .pass(self.cutter.position(), || self.cutter.received());
        }
        let is_news = self.horizon.reached() > self.report.complete_to;
        if self.sent > self.shipped || !is_news || !self.shipper.has_room() {
            return Ok(());
        }
        match self.cutter.silence() {
            Some(draft) => self.send(draft).await,
            None => Ok(()),
        }
    }

    /// Hands a draft over, when there is room for it.
    pub(super) async fn send(&mut self, draft: Draft) -> Result<(), StreamError> {
        self.options.fail_points.pass(FailPoint::Cut);
        // Read now: a draft ends where it was cut, and the horizon may move on meanwhile.
        let complete_to = match draft.part() {
            Some(part) if part.unfinished => None,
            _ => self.horizon.reached(),
        };
        self.sent += 1;
        self.acknowledgements.sent(self.sent);
        let parcel = Parcel {
            draft,
            packing: std::mem::take(&mut self.packing),
            complete_to,
        };
        let held: usize = self.held.iter().map(|held| held.draft.raw_bytes()).sum();
        self.held.push(parcel);
        if self.is_held_back() && held < self.options.segment_bytes {
            return Ok(());
        }
        self.release().await
    }

    /// Whether drafts wait, for a while, until it is sure that the source's history is the
    /// archive's: what is compared may come behind what is new.
    fn is_held_back(&self) -> bool {
        self.witness.is_some() && Instant::now() < self.compared_by
    }

    /// Hands over what was held back, if it need not wait any more.
    pub(super) async fn release_compared(&mut self) -> Result<(), StreamError> {
        if self.held.is_empty() || self.is_held_back() {
            return Ok(());
        }
        self.release().await
    }

    /// Hands over what was held back.
    pub(super) async fn release(&mut self) -> Result<(), StreamError> {
        for parcel in std::mem::take(&mut self.held) {
            if !beating(&self.observer, self.shipper.send(parcel)).await {
                self.shipper.join().await?;
                return Err(StreamError::Stopped);
            }
        }
        Ok(())
    }

    /// Acknowledges what is safe here already: synced to the journal, or in the archive before
    /// it came.
    pub(super) async fn acknowledge_received(
        &mut self,
        dump: &mut dyn Dump,
    ) -> Result<(), StreamError> {
        if self.sent == self.shipped && !self.cutter.has_events() {
            self.acknowledgements.sent(self.sent);
            self.acknowledgements
                .send_shipped(dump, self.shipped)
                .await?;
        }
        if self
            .acknowledgements
            .send_journaled(dump, &self.options.fail_points)
            .await?
        {
            self.options.fail_points.pass(FailPoint::Acknowledged);
        }
        Ok(())
    }
}
