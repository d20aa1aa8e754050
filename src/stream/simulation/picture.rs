//! What a reader finds in the archive: every byte of the newest history.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::archive::history::Member;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::Segment;
use crate::clock::from_micros;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{GtidEvent, RawEvent};

/// A transaction as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) source: Uuid,
    pub(super) gtid: Gtid,
    pub(super) bytes: Vec<u8>,
    /// When it was committed on that source, in microseconds.
    time: u64,
}

/// A history of the archive.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) branch: BranchNumber,
    pub(super) problems: Vec<String>,
    /// What was before its first segment; none without one.
    pub(super) start: Option<GtidSet>,
    pub(super) transactions: Vec<Read>,
    pub(super) accepted: GtidSet,
    pub(super) lost: GtidSet,
    /// Up to which moment the segments so far say that nothing is missing behind them.
    claim: Option<DateTime<Utc>>,
}

impl Picture {
    /// Reads all of it.
    pub(super) async fn take(repository: &Repository) -> Result<Self, ArchiveError> {
        let branch = repository.newest_branch().await?;
        let history = repository.history(branch).await?;
        let mut picture = Self {
            branch,
            problems: history.problems.iter().map(ToString::to_string).collect(),
            start: history.start().cloned(),
            transactions: Vec::new(),
            accepted: history.accepted(),
            lost: history.lost.clone(),
            claim: None,
        };
        if !picture.problems.is_empty() {
            return Ok(picture);
        }
        let mut open = None;
        for member in &history.members {
            let segment = repository.read_segment(&member.stored).await?;
            if let Err(problem) = picture.add(member, &segment, &mut open) {
                let key = member.stored.name.key();
                picture.problems.push(format!("{key}: {problem}"));
            }
        }
        Ok(picture)
    }

    fn add(
        &mut self,
        member: &Member,
        segment: &Segment,
        open: &mut Option<Read>,
    ) -> Result<(), String> {
        let index = segment.index();
        let part = index.part.as_ref();
        if !part.is_some_and(|part| part.continued) {
            *open = None;
        }
        let source = index.source.as_ref().map(|s| s.uuid).unwrap_or_default();
        let mut events = segment.events().map_err(|error| error.to_string())?;
        let mut number = 0;
        let mut given = GtidSet::new();
        let mut claim = self.claim;
        let mut late = None;
        let mut complete = |read: Option<Read>, all: &mut Vec<Read>| {
            if let Some(read) = read {
                given.insert(&read.gtid);
                if member.gives(&read.gtid) {
                    // What is asked for at an earlier moment ends before this one, whatever
                    // comes behind it.
                    if claim.take() >= from_micros(read.time) {
                        late.get_or_insert_with(|| read.gtid.clone());
                    }
                    all.push(read);
                }
            }
        };
        while let Some(event) = events.next_event().map_err(|error| error.to_string())? {
            number += 1;
            // FORMAT_DESCRIPTION and PREVIOUS_GTIDS.
            if number <= 2 {
                continue;
            }
            let bytes = event.bytes();
            let event = RawEvent::new(bytes).map_err(|error| error.to_string())?;
            if event.kind().is_gtid() {
                complete(open.take(), &mut self.transactions);
                let first = GtidEvent::parse(&event, index.checksum);
                let first = first.map_err(|error| error.to_string())?;
                *open = Some(Read {
                    source,
                    gtid: first.gtid,
                    bytes: bytes.to_vec(),
                    time: first.immediate_commit_micros,
                });
            } else {
                let open = open.as_mut().ok_or("an event outside of a transaction")?;
                open.bytes.extend_from_slice(bytes);
            }
        }
        if !part.is_some_and(|part| part.unfinished) {
            complete(open.take(), &mut self.transactions);
        }
        if given != index.added {
            return Err(format!(
                "it says that it has {:#}, and has {given:#}",
                index.added
            ));
        }
        if let Some(gtid) = late {
            return Err(format!(
                "{gtid} was committed before {:?}, up to which nothing was missing without it",
                self.claim
            ));
        }
        self.claim = claim.max(member.complete_to);
        Ok(())
    }

    /// The GTIDs of the transactions.
    pub(super) fn held(&self) -> GtidSet {
        self.transactions.iter().map(|t| t.gtid.clone()).collect()
    }
}
