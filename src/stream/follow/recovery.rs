//! What an earlier run has left on disk goes into the archive before a source is followed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::cutter::Cutter;
use super::super::error::StreamError;
use super::super::recover::{Archived, replay};
use super::super::report::{StreamEvent, beating};
use super::super::spool::Leftovers;
use super::Follower;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::segment::Draft;
use crate::gtid::GtidSet;
use crate::observe::fail_point::FailPoint;

/// A draft, and who waits until it has been handed over.
type Handed = (Draft, oneshot::Sender<()>);

impl Follower {
    /// Archives what an earlier run has left on disk; `false` if the run was cancelled before,
    /// which leaves all of it there.
    pub(super) async fn recover(&mut self, left: Leftovers) -> Result<bool, StreamError> {
        let before = self.report.transactions;
        let observer = Arc::clone(&self.observer);
        let stop = self.cancel.child_token();
        let (drafts, mut incoming) = mpsc::channel::<Handed>(1);
        let archived = Archived::new(self.repository.clone());
        let placeholder = Cutter::new(
            BranchNumber(self.report.branch),
            Epoch(self.report.epoch),
            GtidSet::new(),
            0,
        );
        let mut cutter = std::mem::replace(&mut self.cutter, placeholder);
        let (files, stopped) = (left.clone(), stop.clone());
        let replaying = tokio::task::spawn_blocking(move || {
            let mut cut = |draft| {
                let (taken, until_taken) = oneshot::channel();
                // A run that ends meanwhile takes no more drafts.
                if drafts.blocking_send((draft, taken)).is_ok() {
                    let _ = until_taken.blocking_recv();
                }
            };
            let outcome = replay(&files, &archived, &mut cutter, &mut cut, &stopped);
            (outcome, cutter)
        });
        let mut failed = Ok(());
        while let Some((draft, taken)) = beating(&observer, incoming.recv()).await {
            if failed.is_ok() {
                failed = beating(&observer, self.hand_over(draft, &stop)).await;
            }
            if failed.is_err() {
                stop.cancel();
            }
            // The next one is begun only now.
            let _ = taken.send(());
        }
        let (outcome, cutter) = beating(&observer, replaying).await?;
        self.cutter = cutter;
        failed?;
        let outcome = outcome?;
        if outcome.cancelled {
            return Ok(false);
        }
        while self.shipped < self.sent {
            self.wait_for_note().await?;
        }
        self.options.fail_points.pass(FailPoint::Recovered);
        let folder = left.folder.clone();
        let complete = outcome.kept.is_empty();
        let (done, kept) = (outcome.done, outcome.kept);
        let kept = tokio::task::spawn_blocking(move || {
            left.remove(&done)?;
            left.leave(kept.iter().map(|(path, _)| path)).map(|()| kept)
        })
        .await??;
        for (path, reason) in kept {
            self.warn(format!("{} is left alone: {reason}", path.display()));
        }
        (self.observer)(StreamEvent::Recovered {
            folder,
            transactions: self.report.transactions - before,
            complete,
        });
        Ok(true)
    }

    /// Sends a draft, and waits until there is room for the next one or `stop`.
    async fn hand_over(
        &mut self,
        draft: Draft,
        stop: &CancellationToken,
    ) -> Result<(), StreamError> {
        self.send(draft).await?;
        let inlet = self.shipper.inlet();
        while !self.shipper.has_room() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                note = self.shipper.next_note() => self.settle(note?)?,
                () = inlet.room() => {}
            }
        }
        Ok(())
    }
}
