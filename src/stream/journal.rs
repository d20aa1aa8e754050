//! Received events on disk before anything else happens to them.
//!
//! With `--semi-sync spool` a transaction is acknowledged to its source as soon as its events are
//! in the journal and synced; the segment that holds it may follow later. A journal file is what
//! the source sent, event behind event, begun by the ROTATE and FORMAT_DESCRIPTION that were in
//! force and by a PREVIOUS_GTIDS of what had been received before. Its name carries the source.
//!
//! The invariant: a file is removed only when every transaction that was completed in it is in
//! the archive or in a segment of the spool.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::spool::sync_folder;
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Checksum, EventBuilder, EventKind, HEADER_LENGTH, RawEvent};

/// A file as large as this is followed by another at the next transaction.
const FILE_BYTES: u64 = 64 << 20;
/// The largest event of a source (`max_allowed_packet` plus what a header needs).
const EVENT_LIMIT: usize = (1 << 30) + (1 << 20);

/// Writes events as they come.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    number: u64,
    source: Uuid,
    checksum: Checksum,
    rotate: Vec<u8>,
    format: Vec<u8>,
    current: Option<Current>,
    closed: Vec<Closed>,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
    dirty: bool,
}

#[derive(Debug)]
struct Closed {
    path: PathBuf,
    /// What had been received when it was closed.
    received: GtidSet,
}

impl Journal {
    pub(super) fn new(folder: &Path, source: Uuid, checksum: Checksum, number: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            number,
            source,
            checksum,
            rotate: Vec::new(),
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
        self.source = source;
        self.checksum = checksum;
        self.rotate.clear();
        self.format.clear();
        Ok(())
    }

    /// Appends an event that the cutter has taken; `received` is the set before it.
    pub(super) fn append(
        &mut self,
        event: &[u8],
        inside: bool,
        received: &GtidSet,
    ) -> io::Result<()> {
        match RawEvent::new(event).map(|event| event.kind()) {
            Ok(EventKind::ROTATE) => {
                self.rotate = event.to_vec();
                return self.close(received);
            }
            Ok(EventKind::FORMAT_DESCRIPTION) => {
                self.format = event.to_vec();
                if let Ok(event) = RawEvent::new(event)
                    && let Ok(checksum) = event.announced_checksum()
                {
                    self.checksum = checksum;
                }
                return self.close(received);
            }
            Ok(kind) if kind.is_file_event() => return Ok(()),
            _ => {}
        }
        let full = self
            .current
            .as_ref()
            .is_some_and(|file| file.bytes >= FILE_BYTES);
        if full && !inside {
            self.close(received)?;
        }
        let current = self.current(received)?;
        current.file.write_all(event)?;
        current.bytes += event.len() as u64;
        current.dirty = true;
        Ok(())
    }

    fn current(&mut self, received: &GtidSet) -> io::Result<&mut Current> {
        if self.current.is_none() {
            self.number += 1;
            let crc = match self.checksum {
                Checksum::Crc32 => "crc32",
                Checksum::None => "none",
            };
            let name = format!("{:012}-{}-{crc}.journal", self.number, self.source);
            let path = self.folder.join(name);
            let mut file = File::create_new(&path)?;
            let mut head = self.rotate.clone();
            head.extend_from_slice(&self.format);
            let before = EventBuilder::new(self.checksum, 1).previous_gtids(received, 1, 4);
            head.extend_from_slice(&before);
            file.write_all(&head)?;
            sync_folder(&self.folder)?;
            self.current = Some(Current {
                path,
                file,
                bytes: head.len() as u64,
                dirty: true,
            });
        }
        self.current
            .as_mut()
            .ok_or_else(|| io::Error::other("no journal file"))
    }

    /// Makes durable what was appended.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        match &mut self.current {
            Some(current) if current.dirty => {
                current.file.sync_data()?;
                current.dirty = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self, received: &GtidSet) -> io::Result<()> {
        self.sync()?;
        if let Some(current) = self.current.take() {
            self.closed.push(Closed {
                path: current.path,
                received: received.clone(),
            });
        }
        Ok(())
    }

    /// Removes the files whose transactions are all safe elsewhere.
    pub(super) fn forget(&mut self, safe: &GtidSet, received: &GtidSet) -> io::Result<()> {
        let all = received.is_subset(safe);
        // A current file is closed once nothing of it is open, so that it does not stay for ever.
        if all
            && self
                .current
                .as_ref()
                .is_some_and(|file| file.bytes >= FILE_BYTES / 64)
        {
            self.close(received)?;
        }
        let mut kept = Vec::new();
        for file in self.closed.drain(..) {
            if file.received.is_subset(safe) {
                fs::remove_file(&file.path)?;
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
        }
        Ok(())
    }
}

/// A journal that a dead run has left.
#[derive(Debug)]
pub(super) struct JournalReader {
    pub(super) source: Uuid,
    pub(super) checksum: Checksum,
    file: io::BufReader<File>,
}

impl JournalReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let name = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let parsed = name.split_once('-').and_then(|(_, rest)| {
            let (source, crc) = rest.rsplit_once('-')?;
            let checksum = match crc {
                "crc32" => Checksum::Crc32,
                "none" => Checksum::None,
                _ => return None,
            };
            Some((source.parse().ok()?, checksum))
        });
        let (source, checksum) =
            parsed.ok_or_else(|| io::Error::other("the file's name is no journal's"))?;
        Ok(Self {
            source,
            checksum,
            file: io::BufReader::new(File::open(path)?),
        })
    }

    /// The next event, or `None` where the file ends or was torn by the crash.
    pub(super) fn next_event(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut event = vec![0; HEADER_LENGTH];
        if !fill(&mut self.file, &mut event)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes([event[9], event[10], event[11], event[12]]) as usize;
        if !(HEADER_LENGTH..=EVENT_LIMIT).contains(&length) {
            return Ok(None);
        }
        let rest = (length - HEADER_LENGTH) as u64;
        let read = (&mut self.file).take(rest).read_to_end(&mut event)?;
        Ok((read as u64 == rest).then_some(event))
    }
}

fn fill(file: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
