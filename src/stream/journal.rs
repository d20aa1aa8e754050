//! Received events on disk before anything else happens to them.
//!
//! With `--semi-sync spool` a transaction is acknowledged to its source as soon as its events are
//! in the journal and synced; the segment that holds it may follow later. A journal file is what
//! the source sent, event behind event, begun by a ROTATE, the FORMAT_DESCRIPTION that was in
//! force and a PREVIOUS_GTIDS of what had been received before. Its name carries the history, the
//! claim and the source.
//!
//! The invariant: a file is removed only when every transaction that began in it is in the
//! archive or in segments of the spool, or will come again.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::spool::{Room, is_full, sync_folder};
use crate::archive::layout::{BranchNumber, Epoch};
use crate::gtid::GtidSet;
use crate::mysql::binlog::{
    Checksum, EVENT_LIMIT, EventBuilder, EventKind, HEADER_LENGTH, RawEvent,
};

/// A file as large as this is followed by another at the next transaction.
const FILE_BYTES: u64 = 64 << 20;
/// What a GTID event never is larger than.
const GTID_LIMIT: usize = 4096;

/// What a journal's file name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalName {
    /// The history that its transactions belong to.
    pub(super) branch: BranchNumber,
    /// The claim under which it was written.
    pub(super) epoch: Epoch,
    /// Its place among those of the claim.
    pub(super) number: u64,
    /// Where the events came from.
    pub(super) source: Uuid,
    /// What stands behind each of them.
    pub(super) checksum: Checksum,
}

impl JournalName {
    fn file(&self) -> String {
        let crc = match self.checksum {
            Checksum::Crc32 => "crc32",
            Checksum::None => "none",
        };
        let (branch, epoch) = (self.branch.0, self.epoch.0);
        let (number, source) = (self.number, self.source);
        format!("{branch:04}-{epoch:08}-{number:012}-{source}-{crc}.journal")
    }

    /// Reads a file's name; `None` if it is not one of these.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_stem()?.to_str()?;
        let mut parts = name.splitn(4, '-');
        let branch = BranchNumber(parts.next()?.parse().ok()?);
        let epoch = Epoch(parts.next()?.parse().ok()?);
        let number = parts.next()?.parse().ok()?;
        let (source, crc) = parts.next()?.rsplit_once('-')?;
        let checksum = match crc {
            "crc32" => Checksum::Crc32,
            "none" => Checksum::None,
            _ => return None,
        };
        Some(Self {
            branch,
            epoch,
            number,
            source: source.parse().ok()?,
            checksum,
        })
    }
}

/// Writes events as they come.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    room: Arc<Room>,
    /// Of the present file, or of the next one before it is begun.
    name: JournalName,
    /// The source's binlog file, and where it was entered.
    rotate: Option<(u64, String)>,
    format: Vec<u8>,
    current: Option<Current>,
    closed: Vec<Closed>,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
    dirty: bool,
    /// Whether an event is written behind `bytes` in part, for want of room on the disk.
    torn: bool,
}

#[derive(Debug)]
struct Closed {
    path: PathBuf,
    bytes: u64,
    /// What had been received when it was closed.
    received: GtidSet,
}

impl Journal {
    pub(super) fn new(
        folder: &Path,
        room: Arc<Room>,
        (branch, epoch): (BranchNumber, Epoch),
        source: Uuid,
        checksum: Checksum,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            room,
            name: JournalName {
                branch,
                epoch,
                number: 0,
                source,
                checksum,
            },
            rotate: None,
            format: Vec::new(),
            current: None,
            closed: Vec::new(),
        }
    }

    /// Turns to a new connection: what was begun and not ended will come again.
    pub(super) fn turn_to(
        &mut self,
        source: Uuid,
        checksum: Checksum,
        received: &GtidSet,
    ) -> io::Result<()> {
        self.close(received)?;
        self.name.source = source;
        self.name.checksum = checksum;
        self.rotate = None;
        self.format.clear();
        Ok(())
    }

    /// Whether another transaction may begin.
    pub(super) fn has_room(&self) -> bool {
        self.room.has(1)
    }

    /// Appends an event that the cutter takes next; `received` is the set before it. `false` if
    /// the disk is full: then nothing of it counts, and it may be tried again.
    pub(super) fn append(
        &mut self,
        event: &[u8],
        inside: bool,
        received: &GtidSet,
    ) -> io::Result<bool> {
        let parsed = RawEvent::new(event);
        match parsed.as_ref().map(RawEvent::kind) {
            // Inside a transaction the cutter refuses them.
            Ok(kind) if kind.is_file_event() && inside => return Ok(true),
            Ok(EventKind::ROTATE) => {
                let checksum = self.name.checksum;
                if let Ok(target) = parsed.and_then(|event| event.rotate_target(checksum)) {
                    self.rotate = Some(target);
                }
                self.close(received)?;
                return Ok(true);
            }
            Ok(EventKind::FORMAT_DESCRIPTION) => {
                self.close(received)?;
                self.format = event.to_vec();
                if let Ok(checksum) = parsed.and_then(|event| event.announced_checksum()) {
                    self.name.checksum = checksum;
                }
                return Ok(true);
            }
            Ok(kind) if kind.is_file_event() => return Ok(true),
            _ => {}
        }
        let full = self
            .current
            .as_ref()
            .is_some_and(|file| file.bytes >= FILE_BYTES);
        if full && !inside {
            self.close(received)?;
        }
        if self.current.is_none() && !self.begin(received)? {
            return Ok(false);
        }
        match &mut self.current {
            Some(current) => current.append(event, &self.room),
            None => Err(io::Error::other("no journal file")),
        }
    }

    /// Begins a file; `false` if the disk is full.
    fn begin(&mut self, received: &GtidSet) -> io::Result<bool> {
        self.name.number += 1;
        let path = self.folder.join(self.name.file());
        // Made here, so that each fits the checksum in the file's name, however it came.
        let builder = EventBuilder::new(self.name.checksum, 1);
        let mut head = match &self.rotate {
            Some((position, file)) => builder.rotate(file, *position, 0),
            None => Vec::new(),
        };
        head.extend_from_slice(&self.format);
        head.extend_from_slice(&builder.previous_gtids(received, 1, 4));
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(&head)?;
            sync_folder(&self.folder)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                let bytes = head.len() as u64;
                self.room.count(bytes);
                self.current = Some(Current {
                    path,
                    file: Arc::new(file),
                    bytes,
                    dirty: true,
                    torn: false,
                });
                Ok(true)
            }
            Err(error) if is_full(&error) => {
                let _ = fs::remove_file(&path);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The file that holds what is not known to be on disk.
    pub(super) fn unsynced(&self) -> Option<Arc<File>> {
        let current = self.current.as_ref().filter(|current| current.dirty)?;
        Some(Arc::clone(&current.file))
    }

    /// Notes that [`Journal::unsynced`] was synced, and nothing was appended since.
    pub(super) const fn synced(&mut self) {
        if let Some(current) = &mut self.current {
            current.dirty = false;
        }
    }

    fn close(&mut self, received: &GtidSet) -> io::Result<()> {
        if let Some(current) = &mut self.current {
            current.mend()?;
            if current.dirty {
                current.file.sync_data()?;
                current.dirty = false;
            }
        }
        if let Some(current) = self.current.take() {
            self.closed.push(Closed {
                path: current.path,
                bytes: current.bytes,
                received: received.clone(),
            });
        }
        Ok(())
    }

    /// Removes the files whose transactions are all safe elsewhere. While one is `inside`, its
    /// beginning is in the current file, and `received` does not name it.
    pub(super) fn forget(
        &mut self,
        safe: &GtidSet,
        received: &GtidSet,
        inside: bool,
    ) -> io::Result<()> {
        // A current file is closed once nothing of it is open, so that it does not stay for ever.
        let closes = |file: &Current| file.bytes >= FILE_BYTES / 64 || !self.room.has(1);
        if !inside && received.is_subset(safe) && self.current.as_ref().is_some_and(closes) {
            self.close(received)?;
        }
        let mut kept = Vec::new();
        for file in self.closed.drain(..) {
            if file.received.is_subset(safe) {
                fs::remove_file(&file.path)?;
                self.room.give_back(file.bytes);
            } else {
                kept.push(file);
            }
        }
        self.closed = kept;
        Ok(())
    }

    /// Removes every file: all that was received is in the archive.
    pub(super) fn remove_all(mut self, received: &GtidSet) -> io::Result<()> {
        self.close(received)?;
        for file in &self.closed {
            fs::remove_file(&file.path)?;
            self.room.give_back(file.bytes);
        }
        Ok(())
    }
}

impl Current {
    fn append(&mut self, event: &[u8], room: &Room) -> io::Result<bool> {
        self.mend()?;
        match (&*self.file).write_all(event) {
            Ok(()) => {
                let bytes = event.len() as u64;
                self.bytes += bytes;
                self.dirty = true;
                room.count(bytes);
                Ok(true)
            }
            Err(error) if is_full(&error) => {
                self.torn = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes away what was written of an event in part.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            (&*self.file).seek(SeekFrom::Start(self.bytes))?;
            self.torn = false;
        }
        Ok(())
    }
}

/// What comes next in a journal.
#[derive(Debug)]
pub(super) enum Next {
    /// An event; whether its bytes are those that were sent is for the caller to check.
    Event(Vec<u8>),
    /// The file ends behind an event.
    End,
    /// The file ends within an event, as a crash leaves it.
    Torn,
    /// What is there is no event.
    Broken(&'static str),
}

/// A journal that a dead run has left.
#[derive(Debug)]
pub(super) struct JournalReader {
    file: io::BufReader<File>,
    /// Where the next event begins.
    at: u64,
    size: u64,
    /// Where the last event ended in the source's file, as far as it told.
    source_at: Option<u32>,
}

impl JournalReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            file: io::BufReader::with_capacity(1 << 20, file),
            at: 0,
            source_at: None,
        })
    }

    /// Where the next event begins.
    pub(super) const fn position(&self) -> u64 {
        self.at
    }

    pub(super) fn next_event(&mut self) -> io::Result<Next> {
        let left = self.size - self.at;
        if left == 0 {
            return Ok(Next::End);
        }
        if left < HEADER_LENGTH as u64 {
            return Ok(Next::Torn);
        }
        let mut event = vec![0; HEADER_LENGTH];
        self.file.read_exact(&mut event)?;
        let field = |at: usize| {
            u32::from_le_bytes([event[at], event[at + 1], event[at + 2], event[at + 3]])
        };
        let (length, end, kind) = (field(9), field(13), EventKind(event[4]));
        if !(HEADER_LENGTH..=EVENT_LIMIT).contains(&(length as usize)) {
            if self.is_zero_from(self.at)? {
                return Ok(Next::Torn);
            }
            return Ok(Next::Broken("an event of an impossible length"));
        }
        // Events of a transaction stand behind one another in the source's file. A length that
        // reaches beyond the end is a torn event's only if it is the one that was written.
        let starts_at = end.wrapping_sub(length);
        let fits = match kind.is_gtid() {
            true => length as usize <= GTID_LIMIT,
            false => self.source_at.is_none_or(|at| at == starts_at),
        };
        if u64::from(length) > left {
            return Ok(match fits {
                true => Next::Torn,
                false => Next::Broken("an event that reaches beyond the end"),
            });
        }
        let rest = u64::from(length) - HEADER_LENGTH as u64;
        (&mut self.file).take(rest).read_to_end(&mut event)?;
        self.at += u64::from(length);
        self.source_at = (!kind.is_file_event()).then_some(end);
        Ok(Next::Event(event))
    }

    /// Whether the event that was read last ends in zeros and nothing else is behind it: the
    /// machine went down before the disk had that part of the file.
    pub(super) fn is_torn_behind(&mut self, event: &[u8]) -> io::Result<bool> {
        const CRC: usize = 4;
        let ends_in_zeros = event.ends_with(&[0; CRC]);
        Ok(ends_in_zeros && self.is_zero_from(self.at)?)
    }

    fn is_zero_from(&mut self, at: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(at))?;
        let mut buffer = [0; 1 << 16];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer[..read].iter().all(|byte| *byte == 0) => {}
                _ => return Ok(false),
            }
        }
    }
}

#[cfg(test)]
mod tests;
