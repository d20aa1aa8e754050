//! What a semi-synchronous source waits for, and when it is told.
//!
//! The invariant: a position is acknowledged only when every transaction up to it is durable in
//! the place that the operator has chosen: the archive, or this host's spool.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::cutter::SourcePosition;
use super::error::StreamError;
use super::journal::Journal;
use super::options::SemiSync;
use super::spool::{Room, Spool, SpoolError};
use super::upstream::Dump;
use crate::archive::layout::{BranchNumber, Epoch};
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
    spool: Option<(PathBuf, Arc<Room>)>,
    journal: Option<Journal>,
    /// What the journals' names carry.
    claim: (BranchNumber, Epoch),
}

impl Acknowledgements {
    pub(super) fn new(mode: SemiSync, spool: Option<&Spool>, claim: (BranchNumber, Epoch)) -> Self {
        Self {
            mode,
            wanted: None,
            on_their_way: VecDeque::new(),
            spool: spool.map(|spool| (spool.folder().to_owned(), Arc::clone(spool.room()))),
            journal: None,
            claim,
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
        match (&mut self.journal, &self.spool) {
            (Some(journal), _) => journal
                .turn_to(source, checksum, received)
                .map_err(|error| failed(&self.spool, error)),
            (None, Some((folder, room))) => {
                let room = Arc::clone(room);
                self.journal = Some(Journal::new(folder, room, self.claim, source, checksum));
                Ok(())
            }
            (None, None) => Err(failed(&None, io::Error::other("there is no spool"))),
        }
    }

    pub(super) const fn keeps_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether the journal has room for another transaction. One that has begun goes on beyond
    /// it: nothing is let go before its end.
    pub(super) fn has_room(&self, inside: bool) -> bool {
        inside || self.journal.as_ref().is_none_or(Journal::has_room)
    }

    /// What ends a run that is stopped while the disk is full.
    pub(super) fn disk_is_full(&self) -> StreamError {
        failed(&self.spool, io::ErrorKind::StorageFull.into())
    }

    /// Writes an event that comes next to the journal; `false` if the disk is full.
    pub(super) fn journal(
        &mut self,
        event: &[u8],
        inside: bool,
        received: &GtidSet,
    ) -> Result<bool, StreamError> {
        match &mut self.journal {
            None => Ok(true),
            Some(journal) => journal
                .append(event, inside, received)
                .map_err(|error| failed(&self.spool, error)),
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
        if let Some(file) = journal.unsynced() {
            tokio::task::spawn_blocking(move || file.sync_data())
                .await?
                .map_err(|error| failed(&self.spool, error))?;
            // Nothing was appended meanwhile: the stream waits here.
            journal.synced();
        }
        fail_points.pass(FailPoint::Journaled);
        dump.acknowledge(&position).await?;
        Ok(true)
    }

    /// Lets go of what the journal holds and that is `safe` elsewhere.
    pub(super) fn forget(
        &mut self,
        safe: &GtidSet,
        received: &GtidSet,
        inside: bool,
    ) -> Result<(), StreamError> {
        match &mut self.journal {
            None => Ok(()),
            Some(journal) => journal
                .forget(safe, received, inside)
                .map_err(|error| failed(&self.spool, error)),
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
                .map_err(|error| failed(&self.spool, error)),
            _ => Ok(()),
        }
    }
}

fn failed(spool: &Option<(PathBuf, Arc<Room>)>, source: io::Error) -> StreamError {
    let folder = spool.as_ref().map(|(folder, _)| folder.clone());
    SpoolError {
        path: folder.unwrap_or_default(),
        source,
    }
    .into()
}
