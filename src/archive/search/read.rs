//! Reads the lines of the segments that can hold what is looked for.
//!
//! Some segments are read at once, and each hands its finds over a bounded channel, so memory holds
//! the frames of a few segments and some hundreds of lines, however long the history is. A segment may be
//! compacted away meanwhile: then the history is read again and the search goes on with the
//! segments that hold what it has not passed yet.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::filter::{Filter, Needles, Verdict};
use crate::archive::history::{History, Member};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::{IndexedTransaction, SegmentError, TransactionLines};
use crate::gtid::GtidSet;
use crate::storage::StorageError;

/// How many segments are read at once.
const READERS: usize = 16;
/// Together they hold no more bytes than this, as they are stored, unless one alone does.
const BYTES_AT_ONCE: u64 = 32 << 20;
/// So many finds are handed over at once.
const BATCH: usize = 256;
/// So many batches wait for whoever takes them, for each segment.
const BATCHES: usize = 2;
/// How often in a row the history is read again because a segment is not there.
const SEARCHES: u32 = 8;

/// A transaction that is looked for, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its line.
    pub transaction: IndexedTransaction,
    /// Whether its line does not tell all that is asked.
    pub is_unclear: bool,
}

/// Finds of one segment, in its order.
#[derive(Debug)]
pub struct Batch {
    /// The segment.
    pub member: Arc<Member>,
    /// What was found.
    pub found: Vec<Found>,
}

/// A segment whose lines cannot be read.
#[derive(Debug)]
pub struct Damage {
    /// The transactions that the history has from it.
    pub member: Arc<Member>,
    /// Why.
    pub error: ArchiveError,
}

/// A search through a history.
#[derive(Debug)]
pub struct Search {
    repository: Repository,
    filter: Arc<Filter>,
    needles: Needles,
    history: History,
    /// Whether the newest segments come first, and how many finds of each are kept then.
    newest: Option<usize>,
    waiting: VecDeque<Arc<Member>>,
    reading: VecDeque<Reading>,
    /// What was passed since the history was read again.
    passed: GtidSet,
    searches: u32,
    damage: Vec<Damage>,
}

#[derive(Debug)]
struct Reading {
    member: Arc<Member>,
    finds: mpsc::Receiver<Result<Vec<Found>, ArchiveError>>,
    task: JoinHandle<()>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Search {
    /// A search through a history, from its beginning; or from its end, segment by segment, with at
    /// most `newest` finds of each.
    #[must_use]
    pub fn new(
        repository: Repository,
        history: History,
        filter: Filter,
        newest: Option<usize>,
    ) -> Self {
        let needles = filter.needles();
        let mut search = Self {
            repository,
            filter: Arc::new(filter),
            needles,
            history,
            newest,
            waiting: VecDeque::new(),
            reading: VecDeque::new(),
            passed: GtidSet::new(),
            searches: 0,
            damage: Vec::new(),
        };
        search.wait_for_members();
        search
    }

    /// The history as it was read last.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The segments whose lines could not be read so far.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The error of the first segment whose lines could not be read, for whoever needs all of them.
    pub fn take_damage(&mut self) -> Option<ArchiveError> {
        let first = (!self.damage.is_empty()).then(|| self.damage.remove(0));
        first.map(|damage| damage.error)
    }

    /// The next finds; `None` when there are no more.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] if the store fails. A damaged segment is no error but [`Search::damage`].
    pub async fn next(&mut self) -> Result<Option<Batch>, ArchiveError> {
        loop {
            self.read_on();
            let Some(first) = self.reading.front_mut() else {
                return Ok(None);
            };
            match first.finds.recv().await {
                Some(Ok(found)) => {
                    self.searches = 0;
                    return Ok(Some(Batch {
                        member: Arc::clone(&first.member),
                        found,
                    }));
                }
                Some(Err(ArchiveError::Storage(StorageError::NotFound { key }))) => {
                    self.look_again(key).await?;
                }
                Some(Err(error @ ArchiveError::Segment { .. })) => {
                    let member = Arc::clone(&first.member);
                    self.damage.push(Damage { member, error });
                    self.pass_first();
                }
                Some(Err(error)) => return Err(error),
                None => self.pass_first(),
            }
        }
    }

    fn pass_first(&mut self) {
        if let Some(first) = self.reading.pop_front() {
            self.passed.extend_from(&first.member.added);
        }
    }

    fn wait_for_members(&mut self) {
        let members = self.history.members.iter();
        self.waiting = members
            .filter(|member| self.filter.may_match(member))
            .filter(|member| !member.added.is_subset(&self.passed))
            .map(|member| Arc::new(member.clone()))
            .collect();
        if self.newest.is_some() {
            self.waiting.make_contiguous().reverse();
        }
    }

    /// Reads the history anew: a segment has been compacted into another one.
    async fn look_again(&mut self, key: String) -> Result<(), ArchiveError> {
        self.searches += 1;
        if self.searches > SEARCHES {
            return Err(StorageError::NotFound { key }.into());
        }
        tracing::info!(segment = key, "compacted away; reading the log again");
        self.reading.clear();
        self.history = self.repository.history(self.history.branch).await?;
        self.wait_for_members();
        Ok(())
    }

    /// Starts as many readers as may be at once.
    fn read_on(&mut self) {
        let size = |member: &Member| member.stored.index.details_bytes;
        let mut bytes: u64 = self.reading.iter().map(|r| size(&r.member)).sum();
        while self.reading.len() < READERS {
            let fits = |member: &Arc<Member>| bytes + size(member) <= BYTES_AT_ONCE;
            if !self.reading.is_empty() && !self.waiting.front().is_some_and(fits) {
                return;
            }
            let Some(member) = self.waiting.pop_front() else {
                return;
            };
            bytes += size(&member);
            let (send, finds) = mpsc::channel(BATCHES);
            let work = Work {
                member: Arc::clone(&member),
                filter: Arc::clone(&self.filter),
                needles: self.needles.clone(),
                passed: self.passed.intersect(&member.added),
                newest: self.newest,
                send,
            };
            let task = tokio::spawn(work.read(self.repository.clone()));
            self.reading.push_back(Reading {
                member,
                finds,
                task,
            });
        }
    }
}

/// One segment's part of the search.
struct Work {
    member: Arc<Member>,
    filter: Arc<Filter>,
    needles: Needles,
    /// What of it was passed before, in a segment that is no more.
    passed: GtidSet,
    newest: Option<usize>,
    send: mpsc::Sender<Result<Vec<Found>, ArchiveError>>,
}

impl Work {
    async fn read(self, repository: Repository) {
        let lines = match repository.transaction_lines(&self.member.stored).await {
            Ok(lines) => lines,
            Err(error) => {
                // Nobody waits for it any more if it cannot be sent.
                let _ = self.send.send(Err(error)).await;
                return;
            }
        };
        let send = self.send.clone();
        let key = self.member.stored.name.key();
        let unfolded = tokio::task::spawn_blocking(move || self.unfold(lines)).await;
        if let Ok(Err(source)) = unfolded {
            let _ = send.send(Err(ArchiveError::Segment { key, source })).await;
        } else if let Err(error) = unfolded {
            let failed = StorageError::Unavailable {
                action: "reading",
                key,
                source: Box::new(error),
            };
            let _ = send.send(Err(failed.into())).await;
        }
    }

    fn unfold(self, mut lines: TransactionLines) -> Result<(), SegmentError> {
        let limited = self.member.is_limited();
        let mut batch: VecDeque<Found> = VecDeque::new();
        // What is unclear may turn out to be none: those that are kept count without it.
        let mut clear = 0;
        while let Some(transaction) = lines.next_wanted(|line| self.needles.are_in(line))? {
            if limited && !self.member.added.contains(&transaction.gtid)
                || self.passed.contains(&transaction.gtid)
            {
                continue;
            }
            let verdict = self.filter.verdict(&transaction);
            if verdict == Verdict::No {
                continue;
            }
            let is_unclear = verdict == Verdict::Unclear;
            clear += usize::from(!is_unclear);
            batch.push_back(Found {
                transaction,
                is_unclear,
            });
            match self.newest {
                Some(newest) if clear > newest => {
                    let oldest = batch.pop_front();
                    clear -= usize::from(oldest.is_some_and(|found| !found.is_unclear));
                }
                None if batch.len() >= BATCH => {
                    let full = std::mem::take(&mut batch);
                    if self.send.blocking_send(Ok(full.into())).is_err() {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        if !batch.is_empty() {
            let _ = self.send.blocking_send(Ok(batch.into()));
        }
        Ok(())
    }
}
