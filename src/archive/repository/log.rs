//! Reading a history's log while others write and compact it.
//!
//! A listing comes in pages and is no picture of one moment: between two pages a compacted
//! segment may appear behind the first and those that it stands for vanish from the second. Each
//! object is put before those are deleted whose transactions it holds, so at every moment the log
//! is whole; a hole is believed only if two listings, one behind the other, say the same. (What
//! both list was there all the time between, so each page of the first listing is true of the
//! moment between them, but for what had come and was already replaced by something listed.)

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{ArchiveError, READERS, Repository};
use crate::archive::catalog::{Chain, Place, StoredSegment};
use crate::archive::layout::{self, BranchNumber, Epoch, SegmentName};
use crate::archive::segment::{
    HeadRead, IndexedTransaction, SegmentError, SegmentIndex, TransactionLines, read_details,
    read_head,
};
use crate::error::with_causes;
use crate::storage::{StorageError, list_all};

/// Most indexes are within so many bytes of an object's start.
const HEAD_GUESS: u64 = 8 * 1024;
/// How often a log that changes is listed again.
const LISTINGS: u32 = 24;
/// An object that so many listings, one behind the other, name and that is never there is damage
/// and not compaction.
const GHOST: u32 = 4;

/// Reads the log of a history again and again, each index once.
#[derive(Debug, Clone)]
pub struct LogReader {
    repository: Repository,
    branch: BranchNumber,
    known: BTreeMap<SegmentName, StoredSegment>,
}

/// What one listing gave.
#[derive(Debug, Default)]
struct Listing {
    names: BTreeSet<SegmentName>,
    /// Those that were gone when they were read.
    gone: Vec<SegmentName>,
    /// Those that are not what was written, and why.
    damaged: Vec<(SegmentName, ArchiveError)>,
}

/// What reading an index gave.
enum Read {
    Index(Box<StoredSegment>),
    Gone(SegmentName),
    Damaged(SegmentName, ArchiveError),
}

impl Repository {
    /// Every segment of a history, with its index, those that do not count among them.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`], also for an index that cannot be read.
    pub async fn segments(&self, branch: BranchNumber) -> Result<Vec<StoredSegment>, ArchiveError> {
        let mut reader = LogReader::new(self.clone(), branch);
        let (_, damaged) = reader.read().await?;
        match damaged.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(reader.known.into_values().collect()),
        }
    }

    /// The index of the last segment that was put under a claim.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn newest_segment(
        &self,
        branch: BranchNumber,
        epoch: Epoch,
    ) -> Result<Option<SegmentIndex>, ArchiveError> {
        let prefix = layout::log_of_epoch(branch, epoch);
        for _ in 0..LISTINGS {
            let objects = list_all(&*self.storage, &prefix, None).await?;
            let newest = objects
                .into_iter()
                .filter_map(|object| Some((SegmentName::parse(&object.key)?, object.size)))
                .max_by_key(|(name, _)| name.last);
            let Some((name, size)) = newest else {
                return Ok(None);
            };
            match self.index(&name, size).await {
                Ok(index) => return Ok(Some(index)),
                // Compacted meanwhile.
                Err(ArchiveError::Storage(StorageError::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The chain of a history. An index that cannot be read is one of its problems.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn chain(&self, branch: BranchNumber) -> Result<Chain, ArchiveError> {
        LogReader::new(self.clone(), branch).chain().await
    }

    /// Reads only the lines of a segment's transactions.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn read_transactions(
        &self,
        stored: &StoredSegment,
    ) -> Result<Vec<IndexedTransaction>, ArchiveError> {
        let frame = self.details(stored).await?;
        read_details(&stored.index, &frame).map_err(|source| ArchiveError::Segment {
            key: stored.name.key(),
            source,
        })
    }

    /// The same, to be taken one by one.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn transaction_lines(
        &self,
        stored: &StoredSegment,
    ) -> Result<TransactionLines, ArchiveError> {
        let frame = self.details(stored).await?;
        TransactionLines::open(&stored.index, &frame).map_err(|source| ArchiveError::Segment {
            key: stored.name.key(),
            source,
        })
    }

    async fn details(&self, stored: &StoredSegment) -> Result<Bytes, StorageError> {
        let start = stored.size.saturating_sub(stored.index.details_bytes);
        let key = stored.name.key();
        self.storage.get_range(&key, start..stored.size).await
    }

    /// Reads the index of an object of `size` bytes; one of another length than its index says is
    /// damaged, which need not wait until it is read.
    pub(super) async fn index(
        &self,
        name: &SegmentName,
        size: u64,
    ) -> Result<SegmentIndex, ArchiveError> {
        let key = name.key();
        let damaged = |source| ArchiveError::Segment {
            key: key.clone(),
            source,
        };
        let mut wanted = HEAD_GUESS;
        loop {
            let head = self.storage.get_range(&key, 0..wanted).await?;
            match read_head(&head).map_err(damaged)? {
                HeadRead::Done(index, head) => {
                    let whole = head + index.body_bytes;
                    if size != whole {
                        return Err(damaged(SegmentError::Mismatch {
                            what: "bytes",
                            said: whole,
                            found: size,
                        }));
                    }
                    let named_so = index.branch == name.branch
                        && index.epoch == name.epoch
                        && index.first_sequence == name.first
                        && index.last_sequence == name.last;
                    return if named_so {
                        Ok(*index)
                    } else {
                        Err(ArchiveError::Misnamed { key })
                    };
                }
                HeadRead::Needs(more) if more > wanted => wanted = more,
                HeadRead::Needs(_) => return Err(damaged(SegmentError::Truncated)),
            }
        }
    }
}

impl LogReader {
    /// A reader that knows nothing yet.
    #[must_use]
    pub const fn new(repository: Repository, branch: BranchNumber) -> Self {
        Self {
            repository,
            branch,
            known: BTreeMap::new(),
        }
    }

    /// The chain, as it is now. An index that cannot be read is one of its problems.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn chain(&mut self) -> Result<Chain, ArchiveError> {
        let (chain, damaged) = self.read().await?;
        let damaged = damaged
            .into_iter()
            .map(|(name, error)| (name.key(), with_causes(&error)));
        Ok(chain.with_unreadable(damaged))
    }

    /// The chain without the objects that cannot be read, and those.
    async fn read(&mut self) -> Result<(Chain, Vec<(SegmentName, ArchiveError)>), ArchiveError> {
        let mut before: Option<BTreeSet<SegmentName>> = None;
        let mut ghosts: BTreeMap<SegmentName, u32> = BTreeMap::new();
        for _ in 0..LISTINGS {
            let mut listing = self.list().await?;
            ghosts = listing
                .gone
                .iter()
                .map(|name| (name.clone(), ghosts.get(name).map_or(1, |times| times + 1)))
                .collect();
            if ghosts.values().any(|times| *times < GHOST) {
                before = Some(listing.names);
                continue;
            }
            let segments = self.known.values().cloned().collect();
            let chain = Chain::compute(self.branch, segments);
            // A store may list what has been deleted for a while: what is compacted is not missed.
            let missed = listing.gone.into_iter().filter(|name| !chain.covers(name));
            listing.damaged.extend(missed.map(|name| {
                let key = name.key();
                (name, StorageError::NotFound { key }.into())
            }));
            let is_steady = before
                .as_ref()
                .is_some_and(|before| says_the_same(before, &listing.names));
            if is_steady || !chain.lacks_objects() && listing.damaged.is_empty() {
                return Ok((chain, listing.damaged));
            }
            before = Some(listing.names);
        }
        Err(ArchiveError::Restless {
            branch: self.branch,
        })
    }

    /// Lists, and reads the indexes that are not known yet.
    async fn list(&mut self) -> Result<Listing, ArchiveError> {
        let storage = &*self.repository.storage;
        let objects = list_all(storage, &layout::log(self.branch), None).await?;
        let named: BTreeMap<SegmentName, u64> = objects
            .into_iter()
            .filter_map(|object| Some((SegmentName::parse(&object.key)?, object.size)))
            .collect();
        self.known.retain(|name, _| named.contains_key(name));
        let unknown: Vec<(SegmentName, u64)> = named
            .iter()
            .filter(|(name, _)| !self.known.contains_key(name))
            .map(|(name, size)| (name.clone(), *size))
            .collect();
        let repository = &self.repository;
        let read: Vec<Read> =
            futures_util::stream::iter(unknown.into_iter().map(|(name, size)| async move {
                match repository.index(&name, size).await {
                    Ok(index) => {
                        let stored = StoredSegment { name, size, index };
                        Ok(Read::Index(Box::new(stored)))
                    }
                    Err(ArchiveError::Storage(StorageError::NotFound { .. })) => {
                        Ok(Read::Gone(name))
                    }
                    Err(
                        error @ (ArchiveError::Segment {
                            source: SegmentError::TooNew { .. },
                            ..
                        }
                        | ArchiveError::Storage(_)),
                    ) => Err(error),
                    Err(error) => Ok(Read::Damaged(name, error)),
                }
            }))
            .buffered(READERS)
            .try_collect()
            .await?;
        let mut listing = Listing {
            names: named.into_keys().collect(),
            ..Listing::default()
        };
        for read in read {
            match read {
                Read::Index(stored) => {
                    self.known.insert(stored.name.clone(), *stored);
                }
                Read::Gone(name) => listing.gone.push(name),
                Read::Damaged(name, error) => listing.damaged.push((name, error)),
            }
        }
        Ok(listing)
    }
}

/// Whether a listing names what the one before it did, and besides only what was written behind
/// it since.
fn says_the_same(before: &BTreeSet<SegmentName>, now: &BTreeSet<SegmentName>) -> bool {
    let end = |name: &SegmentName| -> Place { (name.epoch, name.last) };
    let last = before.iter().map(end).max();
    before.is_subset(now)
        && now
            .difference(before)
            .all(|name| !name.compacted && Some(end(name)) > last)
}

#[cfg(test)]
mod tests;
