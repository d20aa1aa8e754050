//! Segments on disk while the store is away.
//!
//! The spool is a folder of a bounded size. A segment is written beside its name, synced and then
//! renamed, so a name that is there stands for a whole object. Each running streamer has a folder
//! ("slot") of its own, held by a lock that the kernel lets go when the process dies; what lies
//! in a slot that nobody holds was left by a run that died, and the next one recovers it.
//!
//! The invariant: what [`Spool::write`] has accepted survives a crash of the process and of the
//! machine until [`Spool::remove`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use crate::archive::layout::SegmentName;

/// More streamers of one archive than this do not run on one host.
const SLOTS: u32 = 64;
const LOCK: &str = "lock";
const UNFINISHED: &str = ".new";

/// Where the spool is and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// The folder; each archive has one of its own below it.
    pub folder: PathBuf,
    /// The most bytes that segments and journals may take there.
    pub bytes: u64,
    /// Whether a folder that cannot be used ends the run; else it goes on without a spool.
    pub required: bool,
}

/// A failure of the disk.
#[derive(Debug, thiserror::Error)]
#[error("the spool {path} cannot be used")]
pub struct SpoolError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError { path, source }
}

/// This run's folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limit: u64,
    used: u64,
    _lock: File,
}

/// A folder that a dead run has left.
#[derive(Debug)]
pub struct Leftovers {
    /// The folder.
    pub folder: PathBuf,
    /// Its segments, in the order in which they were cut.
    pub segments: Vec<PathBuf>,
    /// Its journals, in the order in which they were written.
    pub journals: Vec<PathBuf>,
    _lock: Option<File>,
}

impl Spool {
    /// Takes a folder for this run and finds those that dead runs have left.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] if the folder cannot be made or locked.
    pub fn open(
        options: &SpoolOptions,
        archive: Uuid,
    ) -> Result<(Self, Vec<Leftovers>), SpoolError> {
        let base = options.folder.join(archive.to_string());
        fs::create_dir_all(&base).map_err(at(&base))?;
        let mut own = None;
        let mut leftovers = Vec::new();
        for slot in 0..SLOTS {
            let folder = base.join(slot.to_string());
            let exists = folder.is_dir();
            if own.is_some() && !exists {
                continue;
            }
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            let Some(lock) = lock(&folder)? else {
                continue;
            };
            remove_unfinished(&folder)?;
            let mut found = list(&folder)?;
            if own.is_none() {
                let used = size_of(found.segments.iter().chain(&found.journals))?;
                own = Some(Self {
                    folder,
                    limit: options.bytes,
                    used,
                    _lock: lock,
                });
            } else {
                found._lock = Some(lock);
            }
            if !found.is_empty() {
                leftovers.push(found);
            }
        }
        let own = own.ok_or_else(|| SpoolError {
            path: base,
            source: io::Error::other("every one of its folders is in use"),
        })?;
        Ok((own, leftovers))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes in use.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Whether so many bytes more fit in.
    #[must_use]
    pub const fn has_room(&self, bytes: u64) -> bool {
        self.used.saturating_add(bytes) <= self.limit
    }

    /// Counts bytes that something else than a segment takes in the folder, or gives back.
    pub const fn count(&mut self, taken: u64, given_back: u64) {
        self.used = self.used.saturating_add(taken).saturating_sub(given_back);
    }

    /// Writes a segment durably; `false` if there is no room for it.
    ///
    /// # Errors
    ///
    /// [`SpoolError`]; nothing of the segment is left then.
    pub fn write(&mut self, name: &SegmentName, body: &Bytes) -> Result<bool, SpoolError> {
        if !self.has_room(body.len() as u64) {
            return Ok(false);
        }
        let path = self.path(name);
        let unfinished = path.with_extension("zst.new");
        match write_durably(&unfinished, &path, body) {
            Ok(()) => {
                self.used += body.len() as u64;
                Ok(true)
            }
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                if error.kind() == io::ErrorKind::StorageFull {
                    return Ok(false);
                }
                Err(SpoolError {
                    path,
                    source: error,
                })
            }
        }
    }

    /// Reads a segment back.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn read(&self, name: &SegmentName) -> Result<Bytes, SpoolError> {
        let path = self.path(name);
        fs::read(&path).map(Bytes::from).map_err(at(&path))
    }

    /// Removes a segment of `bytes` bytes that is in the archive.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn remove(&mut self, name: &SegmentName, bytes: u64) -> Result<(), SpoolError> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(at(&path))?;
        self.used = self.used.saturating_sub(bytes);
        Ok(())
    }

    fn path(&self, name: &SegmentName) -> PathBuf {
        let key = name.key();
        let file = key.rsplit('/').next().unwrap_or(&key);
        self.folder.join(format!("{:04}-{file}", name.branch.0))
    }
}

impl Leftovers {
    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.journals.is_empty()
    }

    /// Bytes of its files.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn bytes(&self) -> Result<u64, SpoolError> {
        size_of(self.segments.iter().chain(&self.journals))
    }

    /// Removes its files, whose transactions are all in the archive.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn remove(self) -> Result<(), SpoolError> {
        for path in self.journals.iter().chain(&self.segments) {
            fs::remove_file(path).map_err(at(path))?;
        }
        sync_folder(&self.folder).map_err(at(&self.folder))
    }
}

/// Locks a slot, or finds that another process has it.
fn lock(folder: &Path) -> Result<Option<File>, SpoolError> {
    let path = folder.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(SpoolError { path, source }),
    }
}

fn remove_unfinished(folder: &Path) -> Result<(), SpoolError> {
    for path in files(folder)? {
        if path.to_string_lossy().ends_with(UNFINISHED) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Leftovers, SpoolError> {
    let mut paths = files(folder)?;
    // Numbers in the names have one width each, so that this is the order of writing.
    paths.sort();
    let ends = |end: &'static str| move |path: &&PathBuf| path.to_string_lossy().ends_with(end);
    Ok(Leftovers {
        folder: folder.to_owned(),
        segments: paths.iter().filter(ends(".zst")).cloned().collect(),
        journals: paths.iter().filter(ends(".journal")).cloned().collect(),
        _lock: None,
    })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(at(folder))
}

fn size_of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<u64, SpoolError> {
    let mut bytes = 0;
    for path in paths {
        bytes += fs::metadata(path).map_err(at(path))?.len();
    }
    Ok(bytes)
}

fn write_durably(unfinished: &Path, path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = File::create(unfinished)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes new and removed names durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::{BranchNumber, Epoch};

    fn name(sequence: u64) -> SegmentName {
        SegmentName {
            branch: BranchNumber(1),
            epoch: Epoch(3),
            first: sequence,
            last: sequence,
            hash8: "0123abcd".to_owned(),
            compacted: false,
        }
    }

    fn options(folder: &Path) -> SpoolOptions {
        SpoolOptions {
            folder: folder.to_owned(),
            bytes: 1_000,
            required: true,
        }
    }

    #[test]
    fn what_was_written_is_found_by_the_next_run_and_only_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let (options, archive) = (options(folder.path()), Uuid::from_u128(1));
        let (mut first, none) = Spool::open(&options, archive).expect("opens");
        assert!(none.is_empty());
        for sequence in [1, 2, 10] {
            let body = Bytes::from(format!("segment {sequence}"));
            assert!(first.write(&name(sequence), &body).expect("writes"));
            assert_eq!(first.read(&name(sequence)).expect("reads"), body);
        }
        first.remove(&name(1), 9).expect("removes");
        fs::write(first.folder().join("x.zst.new"), b"torn").expect("writes");
        // While the first one lives its folder is its own.
        let (second, none) = Spool::open(&options, archive).expect("opens");
        assert!(none.is_empty());
        assert_ne!(first.folder(), second.folder());
        drop(second);
        drop(first);
        let (third, left) = Spool::open(&options, archive).expect("opens");
        let [left] = <[Leftovers; 1]>::try_from(left).expect("one folder was left");
        let names: Vec<_> = left.segments.iter().map(|p| p.file_name()).collect();
        assert_eq!(names.len(), 2, "the torn one is gone: {names:?}");
        assert!(left.segments[0].to_string_lossy().contains("000000000002"));
        assert_eq!(third.used(), left.bytes().expect("sizes"));
        left.remove().expect("removes");
        drop(third);
        let (_, none) = Spool::open(&options, archive).expect("opens");
        assert!(none.is_empty());
        let (_, other) = Spool::open(&options, Uuid::from_u128(2)).expect("opens");
        assert!(other.is_empty());
    }

    #[test]
    fn a_full_spool_takes_nothing_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut spool, _) = Spool::open(&options(folder.path()), Uuid::nil()).expect("opens");
        let body = Bytes::from(vec![7; 600]);
        assert!(spool.write(&name(1), &body).expect("writes"));
        assert!(!spool.write(&name(2), &body).expect("is asked"));
        assert!(spool.read(&name(2)).is_err());
        spool.remove(&name(1), 600).expect("removes");
        assert!(spool.write(&name(2), &body).expect("writes"));
        assert_eq!(spool.used(), 600);
    }
}
