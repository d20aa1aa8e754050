//! The events of a plan's segments, in order, without those that are not asked for.
//!
//! One segment is played while those behind it are fetched and verified, several at a time as long
//! as all of them together stay below a bound; so memory holds that much compressed data, or one
//! segment that is larger. Nothing of a segment comes out before each of its bytes has been
//! checked. A segment may be compacted away meanwhile: then the history is read again
//! and the feed goes on with the segments that hold what was not played yet. The invariant: what
//! comes out are whole transactions of the asked set, each once; a transaction of which only parts
//! were archived never comes out.

mod walk;

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use crate::archive::history::{History, Member};
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::{Segment, SegmentError, SegmentEvents};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{Checksum, EventError, Piece, RawEvent, Splitter};
use crate::storage::StorageError;

pub use walk::{Step, Walk};

/// How often in a row the history is read again because a segment is not there.
const SEARCHES: u32 = 8;
/// So many segments are fetched at a time.
const AHEAD_SEGMENTS: usize = 8;
/// The stored bytes of the segment that is played and of those that are fetched stay below this.
const AHEAD_BYTES: u64 = 96 << 20;

/// So much memory of an event is kept for the next one.
const KEPT_BYTES: usize = 4 << 20;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// The FORMAT_DESCRIPTION event of a new file of the source; what follows has its own logical
    /// clock and this checksum.
    File(Checksum),
    /// An event of an asked transaction.
    Event,
    /// There is nothing more.
    End,
}

/// Plays segments.
#[derive(Debug)]
pub struct Feed {
    repository: Repository,
    branch: BranchNumber,
    waiting: VecDeque<Member>,
    /// The first ones of `waiting`, on their way.
    fetching: VecDeque<JoinHandle<Result<Fetched, ArchiveError>>>,
    wanted: GtidSet,
    /// What of it came out whole.
    played: GtidSet,
    playing: Option<Playing>,
    splitter: Splitter,
    /// Whether the open transaction is asked for.
    passing: bool,
    /// The transaction that is coming out, and how many of its events did.
    open: Option<(Gtid, u64)>,
    /// How many events of the transaction that comes next have come out before.
    again: Option<(Gtid, u64)>,
    /// How often in a row a segment was not there.
    searches: u32,
    /// What is played and fetched stays below so many bytes.
    ahead_bytes: u64,
    /// The source's server and file that the last segment came from.
    file: Option<(uuid::Uuid, String)>,
}

/// What fetching the next segment gave.
#[derive(Debug)]
enum Fetched {
    Segment(Box<Segment>),
    /// It is not there; the history as it is now.
    Gone(Box<History>),
}

#[derive(Debug)]
struct Playing {
    key: String,
    member: Member,
    events: SegmentEvents,
    /// A transaction of which the archive holds only parts.
    dangling: Option<Gtid>,
    /// Whether the head of this segment opens a new file.
    opens_file: bool,
}

impl Feed {
    /// Plays the transactions of `wanted` out of `members` of the history of `branch`, which are
    /// in its order. Members that hold none of them are not fetched.
    #[must_use]
    pub fn new(
        repository: Repository,
        branch: BranchNumber,
        members: Vec<Member>,
        wanted: GtidSet,
    ) -> Self {
        Self {
            repository,
            branch,
            waiting: members
                .into_iter()
                .filter(|member| holds(member, &wanted))
                .collect(),
            fetching: VecDeque::new(),
            wanted,
            played: GtidSet::new(),
            playing: None,
            splitter: Splitter::default(),
            passing: false,
            open: None,
            again: None,
            searches: 0,
            ahead_bytes: AHEAD_BYTES,
            file: None,
        }
    }

    /// Fetches less ahead, for whoever needs the memory more than the time.
    const fn ahead(mut self, bytes: u64) -> Self {
        self.ahead_bytes = bytes;
        self
    }

    /// The checksum of the first segment's events.
    #[must_use]
    pub fn first_checksum(&self) -> Checksum {
        self.waiting
            .front()
            .map_or(Checksum::Crc32, |member| member.stored.index.checksum)
    }

    /// Whether no transaction has begun to come out and not ended.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.open.is_none() && self.again.is_none()
    }

    /// Puts the next event into `bytes` and says what it is. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] if a segment cannot be read or is not what was written.
    pub async fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Fed, ArchiveError> {
        loop {
            if self.playing.is_none() && !self.open_next().await? {
                return Ok(Fed::End);
            }
            let Some(playing) = &mut self.playing else {
                continue;
            };
            let damaged = |source| ArchiveError::Segment {
                key: playing.key.clone(),
                source,
            };
            // The event before is given back first: of large ones memory holds one.
            bytes.clear();
            bytes.shrink_to(KEPT_BYTES);
            if playing.events.next_event().map_err(damaged)?.is_none() {
                self.playing = None;
                continue;
            }
            playing.events.swap_event(bytes);
            let checksum = playing.member.stored.index.checksum;
            let event = RawEvent::new(bytes).map_err(|e| self.broken(e))?;
            let piece = match self.splitter.take(&event, checksum) {
                Ok(piece) => piece,
                Err(error) => return Err(self.broken(error)),
            };
            match piece {
                Piece::File => {
                    let opens = self.playing.as_ref().is_some_and(|p| p.opens_file);
                    let is_format =
                        event.kind() == crate::mysql::binlog::EventKind::FORMAT_DESCRIPTION;
                    if opens && is_format {
                        return Ok(Fed::File(checksum));
                    }
                }
                Piece::First(first) => {
                    let dangling = self
                        .playing
                        .as_ref()
                        .is_some_and(|p| p.dangling.as_ref() == Some(&first.gtid));
                    if dangling {
                        // The rest of the segment is the start of a transaction that never ended.
                        self.playing = None;
                        self.splitter.reset();
                        continue;
                    }
                    let is_given = self
                        .playing
                        .as_ref()
                        .is_some_and(|p| p.member.gives(&first.gtid));
                    self.passing = is_given
                        && self.wanted.contains(&first.gtid)
                        && !self.played.contains(&first.gtid);
                    self.open = self.passing.then_some((first.gtid, 0));
                    if self.came_out(false) {
                        return Ok(Fed::Event);
                    }
                }
                Piece::Inside => {
                    if self.came_out(false) {
                        return Ok(Fed::Event);
                    }
                }
                Piece::Last => {
                    if self.came_out(true) {
                        return Ok(Fed::Event);
                    }
                }
            }
        }
    }

    /// Counts an event of the open transaction; `false` if it does not come out, or did before.
    fn came_out(&mut self, is_last: bool) -> bool {
        if !self.passing {
            return false;
        }
        let Some((gtid, events)) = &mut self.open else {
            return false;
        };
        *events += 1;
        let is_new = match &self.again {
            Some((again, before)) if again == gtid => *events > *before,
            _ => true,
        };
        if is_last {
            self.played.insert(gtid);
            self.open = None;
            self.again = None;
        }
        is_new
    }

    /// Goes on with what `history` holds of what has not come out.
    fn go_on(&mut self, history: &History) -> Result<(), ArchiveError> {
        let key = self
            .waiting
            .front()
            .map(|member| member.stored.name.key())
            .unwrap_or_default();
        let rest = self.wanted.subtract(&self.played);
        self.searches += 1;
        if self.searches > SEARCHES || !rest.is_subset(&history.held()) {
            return Err(StorageError::NotFound { key }.into());
        }
        tracing::info!(segment = key, "compacted away; reading the log again");
        self.forget_fetched();
        self.waiting = history.needed(&rest).into();
        self.again = self.open.take().or(self.again.take());
        self.passing = false;
        self.splitter.reset();
        Ok(())
    }

    /// Opens the next segment; `false` after the last.
    async fn open_next(&mut self) -> Result<bool, ArchiveError> {
        let (segment, member) = loop {
            self.fetch_ahead();
            let Some(fetching) = self.fetching.front_mut() else {
                return Ok(false);
            };
            let fetched = fetching.await;
            self.fetching.pop_front();
            match joined(fetched)? {
                Fetched::Gone(history) => self.go_on(&history)?,
                Fetched::Segment(segment) => match self.waiting.pop_front() {
                    Some(member) => break (segment, member),
                    None => return Ok(false),
                },
            }
        };
        self.searches = 0;
        let stored = &member.stored;
        let key = stored.name.key();
        let dangling = self.dangling_part(&member);
        if dangling.is_some() && member.part().is_some_and(|p| p.continued) {
            self.splitter.reset();
            return Box::pin(self.open_next()).await;
        }
        let continues = member.part().is_some_and(|p| p.continued);
        if !continues {
            self.splitter.reset();
        }
        let file = stored
            .index
            .source
            .as_ref()
            .map(|source| (source.uuid, source.file.clone()));
        let opens_file = !continues && (file.is_none() || self.file != file);
        self.file = file;
        let mut events = segment.events().map_err(|source| ArchiveError::Segment {
            key: key.clone(),
            source,
        })?;
        if continues {
            // Inside a transaction the head of the file must not reach the splitter.
            for _format_and_previous_gtids in 0..2 {
                events
                    .next_event()
                    .map_err(|source| ArchiveError::Segment {
                        key: key.clone(),
                        source,
                    })?;
            }
        }
        self.playing = Some(Playing {
            key,
            member,
            events,
            dangling,
            opens_file,
        });
        self.fetch_ahead();
        Ok(true)
    }

    /// Starts to fetch the next segments, as many as may be.
    fn fetch_ahead(&mut self) {
        let size = |member: &Member| member.stored.index.body_bytes;
        let mut bytes = self.playing.as_ref().map_or(0, |p| size(&p.member));
        for (at, next) in self.waiting.iter().take(AHEAD_SEGMENTS).enumerate() {
            bytes = bytes.saturating_add(size(next));
            if at < self.fetching.len() {
                continue;
            }
            // One that is too large for the bound comes when nothing else is there.
            let is_first = at == 0 && self.playing.is_none();
            if bytes > self.ahead_bytes && !is_first {
                break;
            }
            let (repository, branch) = (self.repository.clone(), self.branch);
            let next = next.stored.clone();
            self.fetching.push_back(tokio::spawn(async move {
                match repository.read_segment(&next).await {
                    Ok(segment) => Ok(Fetched::Segment(Box::new(segment))),
                    Err(ArchiveError::Storage(StorageError::NotFound { .. })) => {
                        let history = repository.history(branch).await?;
                        Ok(Fetched::Gone(Box::new(history)))
                    }
                    Err(error) => Err(error),
                }
            }));
        }
    }

    fn forget_fetched(&mut self) {
        for fetching in self.fetching.drain(..) {
            fetching.abort();
        }
    }

    /// The transaction that ends inside `member` unfinished and is not finished by the segments
    /// behind it.
    fn dangling_part(&self, member: &Member) -> Option<Gtid> {
        let part = member.part().filter(|part| part.unfinished)?;
        for next in &self.waiting {
            match next.part() {
                Some(next) if next.continued && next.gtid == part.gtid => {
                    if !next.unfinished {
                        return None;
                    }
                }
                _ => break,
            }
        }
        Some(part.gtid.clone())
    }

    fn broken(&self, error: EventError) -> ArchiveError {
        let key = self.playing.as_ref().map(|playing| playing.key.clone());
        ArchiveError::Segment {
            key: key.unwrap_or_default(),
            source: SegmentError::Event {
                offset: 0,
                source: error,
            },
        }
    }
}

/// Whether a member holds any of `wanted`, or a part of one of them.
fn holds(member: &Member, wanted: &GtidSet) -> bool {
    !member.added.is_disjoint(wanted)
        || member
            .part()
            .is_some_and(|part| wanted.contains(&part.gtid))
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.forget_fetched();
    }
}

fn joined(
    result: Result<Result<Fetched, ArchiveError>, tokio::task::JoinError>,
) -> Result<Fetched, ArchiveError> {
    result.unwrap_or_else(|error| {
        Err(StorageError::Unavailable {
            action: "reading",
            key: "a segment".to_owned(),
            source: Box::new(error),
        }
        .into())
    })
}

#[cfg(test)]
mod tests;
