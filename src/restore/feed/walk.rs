//! Transactions for whoever looks at their events rather than sends them on.

use super::{Fed, Feed};
use crate::archive::history::History;
use crate::archive::repository::{ArchiveError, Repository};
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Checksum, EventError, GtidEvent, RawEvent};

/// The stored bytes that are held: what is looked at may have rows of as many bytes again.
const AHEAD_BYTES: u64 = 24 << 20;

/// Goes through the events of some transactions, in the history's order.
#[derive(Debug)]
pub struct Walk {
    feed: Feed,
    checksum: Checksum,
    bytes: Vec<u8>,
}

/// What is met next.
#[derive(Debug)]
pub enum Step<'a> {
    /// A transaction begins.
    Begins(GtidEvent),
    /// Another event of it, and what stands behind each event here.
    Inside(RawEvent<'a>, Checksum),
}

impl Walk {
    /// Through those `wanted`.
    #[must_use]
    pub fn new(repository: &Repository, history: &History, wanted: GtidSet) -> Self {
        let members = history.needed(&wanted);
        let feed =
            Feed::new(repository.clone(), history.branch, members, wanted).ahead(AHEAD_BYTES);
        Self {
            checksum: feed.first_checksum(),
            feed,
            bytes: Vec::new(),
        }
    }

    /// The next step; `None` behind the last transaction.
    ///
    /// # Errors
    ///
    /// As [`Feed::next`].
    pub async fn next(&mut self) -> Result<Option<Step<'_>>, ArchiveError> {
        loop {
            match self.feed.next(&mut self.bytes).await? {
                Fed::End => return Ok(None),
                Fed::File(checksum) => self.checksum = checksum,
                Fed::Event => break,
            }
        }
        let broken = |error| self.feed.broken(error);
        let event = RawEvent::new(&self.bytes).map_err(broken)?;
        if event.kind().is_gtid() {
            let begins = GtidEvent::parse(&event, self.checksum).map_err(broken)?;
            return Ok(Some(Step::Begins(begins)));
        }
        Ok(Some(Step::Inside(event, self.checksum)))
    }

    /// The error of an event here that cannot be read.
    #[must_use]
    pub fn damaged(&self, source: EventError) -> ArchiveError {
        self.feed.broken(source)
    }
}
