//! The events of a plan's segments, in order, without those that are not asked for.
//!
//! One segment is played while the next one is fetched and verified, so memory holds at most two
//! compressed segments. The invariant: what comes out are whole transactions of the asked set,
//! each once; a transaction of which only parts were archived never comes out.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use crate::archive::catalog::StoredSegment;
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::segment::{Segment, SegmentError, SegmentEvents};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{Checksum, EventError, Piece, RawEvent, Splitter};

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
    waiting: VecDeque<StoredSegment>,
    fetching: Option<JoinHandle<Result<Segment, ArchiveError>>>,
    wanted: GtidSet,
    playing: Option<Playing>,
    splitter: Splitter,
    /// Whether the open transaction is asked for.
    passing: bool,
    /// The source's server and file that the last segment came from.
    file: Option<(uuid::Uuid, String)>,
}

#[derive(Debug)]
struct Playing {
    key: String,
    stored: StoredSegment,
    events: SegmentEvents,
    /// A transaction of which the archive holds only parts.
    dangling: Option<Gtid>,
    /// Whether the head of this segment opens a new file.
    opens_file: bool,
}

impl Feed {
    /// Plays the transactions of `wanted` out of `segments`, which are in the archive's order.
    #[must_use]
    pub fn new(repository: Repository, segments: Vec<StoredSegment>, wanted: GtidSet) -> Self {
        Self {
            repository,
            waiting: segments.into(),
            fetching: None,
            wanted,
            playing: None,
            splitter: Splitter::default(),
            passing: false,
            file: None,
        }
    }

    /// The checksum of the first segment's events.
    #[must_use]
    pub fn first_checksum(&self) -> Checksum {
        self.waiting
            .front()
            .map_or(Checksum::Crc32, |segment| segment.index.checksum)
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
            let Some(event) = playing.events.next_event().map_err(damaged)? else {
                self.playing = None;
                continue;
            };
            bytes.clear();
            bytes.extend_from_slice(event.bytes());
            let checksum = playing.stored.index.checksum;
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
                    self.passing = self.wanted.contains(&first.gtid);
                    if self.passing {
                        return Ok(Fed::Event);
                    }
                }
                Piece::Inside | Piece::Last => {
                    if self.passing {
                        return Ok(Fed::Event);
                    }
                }
            }
        }
    }

    /// Opens the next segment; `false` after the last.
    async fn open_next(&mut self) -> Result<bool, ArchiveError> {
        self.fetch_front();
        let Some(fetching) = &mut self.fetching else {
            return Ok(false);
        };
        let segment = fetching.await;
        self.fetching = None;
        let Some(stored) = self.waiting.pop_front() else {
            return Ok(false);
        };
        let segment = joined(segment)?;
        self.fetch_front();
        let key = stored.name.key();
        let dangling = self.dangling_part(&stored);
        if dangling.is_some() && stored.index.part.as_ref().is_some_and(|p| p.continued) {
            self.splitter.reset();
            return Box::pin(self.open_next()).await;
        }
        let continues = stored.index.part.as_ref().is_some_and(|p| p.continued);
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
            stored,
            events,
            dangling,
            opens_file,
        });
        Ok(true)
    }

    /// Starts to fetch the next segment, unless that is under way.
    fn fetch_front(&mut self) {
        if self.fetching.is_none()
            && let Some(next) = self.waiting.front()
        {
            let (repository, next) = (self.repository.clone(), next.clone());
            self.fetching = Some(tokio::spawn(
                async move { repository.read_segment(&next).await },
            ));
        }
    }

    /// The transaction that ends inside `stored` unfinished and is not finished by the segments
    /// behind it.
    fn dangling_part(&self, stored: &StoredSegment) -> Option<Gtid> {
        let part = stored.index.part.as_ref().filter(|part| part.unfinished)?;
        for next in &self.waiting {
            match &next.index.part {
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

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(fetching) = &self.fetching {
            fetching.abort();
        }
    }
}

fn joined(
    result: Result<Result<Segment, ArchiveError>, tokio::task::JoinError>,
) -> Result<Segment, ArchiveError> {
    result.unwrap_or_else(|error| {
        Err(crate::storage::StorageError::Unavailable {
            action: "reading",
            key: "a segment".to_owned(),
            source: Box::new(error),
        }
        .into())
    })
}
