//! What a semi-synchronous source waits for, and when it is told.
//!
//! The invariant: a position is acknowledged only when every transaction up to it is durable in
//! the place that the operator has chosen: the archive, or this host's spool.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use super::cutter::SourcePosition;
use super::error::StreamError;
use super::journal::Journal;
use super::options::SemiSync;
use super::spool::{Spool, SpoolError};
use super::upstream::Dump;
use crate::archive::layout::Epoch;
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;
use crate::observe::fail_point::{FailPoint, FailPoints};

/// Keeps count of what is to be acknowledged.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    mode: SemiSync,
    /// The end of the last transaction that the source waits for.
    wanted: Option<SourcePosition>,
    /// With the number of the parcel that makes it durable.
    on_their_way: VecDeque<(u64, SourcePosition)>,
    folder: Option<PathBuf>,
    journal: Option<Journal>,
    /// Journals of different claims do not share numbers.
    first_number: u64,
}

impl Acknowledgements {
    pub(super) fn new(mode: SemiSync, spool: Option<&Spool>, epoch: Epoch) -> Self {
        Self {
            mode,
            wanted: None,
            on_their_way: VecDeque::new(),
            folder: spool.map(|spool| spool.folder().to_owned()),
            journal: None,
            first_number: epoch.0.saturating_mul(1_000_000),
        }
    }

    /// Turns to a new connection; what the old one waited for, nobody waits for any more.
    pub(super) fn turn_to(
        &mut self,
        source: Uuid,
        checksum: Checksum,
        received: &GtidSet,
    ) -> Result<(), StreamError> {
        self.wanted = None;
        self.on_their_way.clear();
        if self.mode != SemiSync::Spool {
            return Ok(());
        }
        match (&mut self.journal, &self.folder) {
            (Some(journal), _) => journal
                .turn_to(source, checksum, received)
                .map_err(|error| failed(self.folder.as_ref(), error)),
            (None, Some(folder)) => {
                self.journal = Some(Journal::new(folder, source, checksum, self.first_number));
                Ok(())
            }
            (None, None) => Err(failed(None, io::Error::other("there is no spool"))),
        }
    }

    pub(super) const fn keeps_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Writes an event that comes next to the journal.
    pub(super) fn journal(
        &mut self,
        event: &[u8],
        inside: bool,
        received: &GtidSet,
    ) -> Result<(), StreamError> {
        match &mut self.journal {
            None => Ok(()),
            Some(journal) => journal
                .append(event, inside, received)
                .map_err(|error| failed(self.folder.as_ref(), error)),
        }
    }

    /// Notes that the source waits for everything up to `position`.
    pub(super) fn want(&mut self, position: SourcePosition) {
        self.wanted = Some(position);
    }

    /// Whether the source waits for something that is not on its way into the archive.
    pub(super) fn wants_archive(&self) -> bool {
        self.mode == SemiSync::Archive && self.wanted.is_some()
    }

    /// Notes that everything so far leaves with this parcel.
    pub(super) fn sent(&mut self, number: u64) {
        if self.mode == SemiSync::Archive
            && let Some(position) = self.wanted.take()
        {
            self.on_their_way.push_back((number, position));
        }
    }

    /// Acknowledges what the parcels up to `number` have made durable.
    pub(super) async fn send_shipped(
        &mut self,
        dump: &mut dyn Dump,
        number: u64,
    ) -> Result<(), StreamError> {
        let mut last = None;
        while let Some((_, position)) = self.on_their_way.pop_front_if(|(sent, _)| *sent <= number)
        {
            last = Some(position);
        }
        match last {
            Some(position) => dump.acknowledge(&position).await,
            None => Ok(()),
        }
    }

    /// Syncs the journal and acknowledges what is in it; tells whether there was something.
    pub(super) async fn send_journaled(
        &mut self,
        dump: &mut dyn Dump,
        fail_points: &FailPoints,
    ) -> Result<bool, StreamError> {
        let Some(journal) = &mut self.journal else {
            return Ok(false);
        };
        let Some(position) = self.wanted.take() else {
            return Ok(false);
        };
        journal
            .sync()
            .map_err(|error| failed(self.folder.as_ref(), error))?;
        fail_points.pass(FailPoint::Journaled);
        dump.acknowledge(&position).await?;
        Ok(true)
    }

    /// Lets go of what the journal holds and that is `safe` elsewhere.
    pub(super) fn forget(&mut self, safe: &GtidSet, received: &GtidSet) -> Result<(), StreamError> {
        match &mut self.journal {
            None => Ok(()),
            Some(journal) => journal
                .forget(safe, received)
                .map_err(|error| failed(self.folder.as_ref(), error)),
        }
    }

    /// Removes the journal at the end of a run, if the archive holds all of it.
    pub(super) fn finish(
        &mut self,
        archived: &GtidSet,
        received: &GtidSet,
    ) -> Result<(), StreamError> {
        match self.journal.take() {
            Some(journal) if received.is_subset(archived) => journal
                .remove_all(received)
                .map_err(|error| failed(self.folder.as_ref(), error)),
            _ => Ok(()),
        }
    }
}

fn failed(folder: Option<&PathBuf>, source: io::Error) -> StreamError {
    SpoolError {
        path: folder.cloned().unwrap_or_default(),
        source,
    }
    .into()
}
