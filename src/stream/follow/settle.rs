//! What became of drafts that were handed over, and the end of a run.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::error::StreamError;
use super::super::report::{HEARTBEAT, StreamEvent, beating};
use super::super::ship::{Note, Shipped};
use super::Follower;
use crate::mysql::purge::PurgeFacts;

impl Follower {
    pub(super) fn watch_purge(&mut self, facts: Option<PurgeFacts>) {
        let Some(facts) = facts else { return };
        let archived = match self.sent - self.shipped {
            0 => self.cutter.last_commit(),
            _ => self.report.last_commit,
        };
        let archived = Some(archived.unwrap_or(self.since));
        let waiting = self.sent > self.shipped;
        let position = self.cutter.position();
        let (event, warning) = self.purge.look(&facts, position, archived, waiting);
        (self.observer)(event);
        if let Some(message) = warning {
            self.warn(message);
        }
    }

    pub(super) async fn wait_for_note(&mut self) -> Result<(), StreamError> {
        let note = beating(&self.observer, self.shipper.next_note()).await?;
        self.settle(note)
    }

    pub(super) fn settle(&mut self, note: Option<Note>) -> Result<(), StreamError> {
        match note {
            Some(Note::Shipped(shipped)) => self.settle_segment(*shipped),
            Some(Note::Failing {
                reason,
                retry,
                waiting,
                spooled_bytes,
            }) => {
                (self.observer)(StreamEvent::StoreFailing {
                    reason,
                    retry_seconds: retry.as_secs_f64(),
                    waiting,
                    spooled_bytes,
                });
                Ok(())
            }
            Some(Note::Spooled {
                added,
                spooled_bytes,
            }) => {
                (self.observer)(StreamEvent::Spooled { spooled_bytes });
                self.safe.extend_from(&added);
                self.forget_safe()
            }
            None => Err(StreamError::Stopped),
        }
    }

    pub(super) fn settle_segment(&mut self, shipped: Shipped) -> Result<(), StreamError> {
        self.shipped += 1;
        self.last_put = Instant::now();
        let index = &shipped.index;
        let report = &mut self.report;
        report.segments += 1;
        report.transactions += index.transactions;
        report.raw_bytes += index.raw_bytes;
        report.stored_bytes += shipped.stored_bytes;
        report.gtid_set.extend_from(&index.added);
        report.complete_to = report.complete_to.max(index.complete_to);
        report.last_commit = report.last_commit.max(index.last_commit);
        let lag = index.last_commit.map(|commit| {
            let micros = (shipped.durable - commit).num_microseconds();
            // A source whose clock runs ahead of ours has no negative lag.
            micros.map_or(0.0, |micros| (micros as f64 / 1e6).max(0.0))
        });
        (self.observer)(StreamEvent::Segment {
            key: shipped.name.key(),
            transactions: index.transactions,
            raw_bytes: index.raw_bytes,
            stored_bytes: shipped.stored_bytes,
            last_commit: index.last_commit,
            complete_to: self.report.complete_to,
            lag_seconds: lag,
            spooled_bytes: shipped.spooled_bytes,
        });
        self.safe.extend_from(&shipped.index.added);
        self.forget_safe()
    }

    pub(super) fn forget_safe(&mut self) -> Result<(), StreamError> {
        if !self.acknowledgements.keeps_journal() {
            return Ok(());
        }
        let received = self.cutter.received();
        let inside = self.cutter.is_inside();
        self.acknowledgements.forget(&self.safe, &received, inside)
    }

    /// Waits a moment while the spool's disk is full; what becomes safe meanwhile makes room.
    pub(super) async fn wait_for_disk(&mut self) -> Result<(), StreamError> {
        if self.cancel.is_cancelled() {
            return Err(self.acknowledgements.disk_is_full());
        }
        let clock = Arc::clone(&self.clock);
        (self.observer)(StreamEvent::Alive);
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            note = self.shipper.next_note() => self.settle(note?)?,
            () = clock.sleep(HEARTBEAT) => {}
        }
        Ok(())
    }

    pub(super) fn warn(&self, message: String) {
        (self.observer)(StreamEvent::Warning { message });
    }

    /// Stores what was received whole and waits for it.
    pub(super) async fn finish(&mut self) -> Result<(), StreamError> {
        if self.shipper.has_ended() {
            return Ok(());
        }
        if let Some(draft) = self.cutter.finish() {
            self.send(draft).await?;
        }
        self.release().await?;
        self.shipper.close();
        while self.shipped < self.sent {
            self.wait_for_note().await?;
        }
        self.shipper.join().await?;
        if self.options.once
            && !self.cancel.is_cancelled()
            && let Some(event) = beating(&self.observer, self.housekeeping.last_pass()).await?
        {
            (self.observer)(event);
        }
        self.acknowledgements
            .finish(&self.report.gtid_set, &self.cutter.received())
    }
}
