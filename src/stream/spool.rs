//! Segments on disk while the store is away.
//!
//! The spool is a folder of a bounded size. A segment is written beside its name, synced and then
//! renamed, so a name that is there stands for a whole object. Each running streamer has a folder
//! ("slot") of its own, held by a lock that the kernel lets go when the process dies; what lies
//! in a slot that nobody holds was left by a run that died, and the next one recovers it.
//!
//! The invariants: what [`Spool::write`] has accepted survives a crash of the process and of the
//! machine until [`Spool::remove`]; every file that lies there is counted in [`Room`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The bytes that the spool's files take and may take: segments, journals, and what dead runs
/// have left until it is recovered.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many bytes more fit in.
    #[must_use]
    pub fn has(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.limit
    }

    /// Counts bytes that lie on disk, whether or not there is room for them.
    pub(super) fn count(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes as gone.
    pub(super) fn give_back(&self, bytes: u64) {
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used.saturating_sub(bytes))
            });
    }
}

/// This run's folder.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    room: Arc<Room>,
    _lock: File,
}

/// A folder that a dead run has left.
#[derive(Debug, Clone)]
pub struct Leftovers {
    /// The folder.
    pub folder: PathBuf,
    /// Its segments, in the order in which they were cut.
    pub segments: Vec<PathBuf>,
    /// Its journals, in the order in which they were written.
    pub journals: Vec<PathBuf>,
    room: Arc<Room>,
    _lock: Option<Arc<File>>,
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
        make_folder(&base)?;
        let room = Arc::new(Room {
            limit: options.bytes,
            used: AtomicU64::new(0),
        });
        let mut own = None;
        let mut leftovers = Vec::new();
        for slot in 0..SLOTS {
            let folder = base.join(slot.to_string());
            if own.is_some() && !folder.is_dir() {
                continue;
            }
            make_folder(&folder)?;
            let Some(lock) = lock(&folder)? else {
                continue;
            };
            remove_unfinished(&folder)?;
            let mut found = list(&folder, &room)?;
            room.count(size_of(found.segments.iter().chain(&found.journals))?);
            if own.is_none() {
                own = Some(Self {
                    folder,
                    room: Arc::clone(&room),
                    _lock: lock,
                });
            } else {
                found._lock = Some(Arc::new(lock));
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

    /// What its files take, shared with whoever else keeps files there.
    #[must_use]
    pub const fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.room.used()
    }

    /// Writes a segment durably; `false` if there is no room for it, by the limit or on the disk.
    ///
    /// # Errors
    ///
    /// [`SpoolError`]; nothing of the segment is left then.
    pub fn write(&self, name: &SegmentName, body: &Bytes) -> Result<bool, SpoolError> {
        let bytes = body.len() as u64;
        if !self.room.has(bytes) {
            return Ok(false);
        }
        let path = self.path(name);
        let unfinished = path.with_extension("zst.new");
        match write_durably(&unfinished, &path, body) {
            Ok(()) => {
                self.room.count(bytes);
                Ok(true)
            }
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                let _ = fs::remove_file(&path);
                if is_full(&error) {
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
    pub fn remove(&self, name: &SegmentName, bytes: u64) -> Result<(), SpoolError> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(at(&path))?;
        self.room.give_back(bytes);
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

    /// Removes files of it whose transactions are all in the archive.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn remove(&self, files: &[PathBuf]) -> Result<(), SpoolError> {
        for path in files {
            let bytes = fs::metadata(path).map_err(at(path))?.len();
            fs::remove_file(path).map_err(at(path))?;
            self.room.give_back(bytes);
        }
        sync_folder(&self.folder).map_err(at(&self.folder))
    }

    /// Counts files no more that are left here for a person to look at: they must not take the
    /// room of what has to wait.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn leave<'a>(&self, files: impl Iterator<Item = &'a PathBuf>) -> Result<(), SpoolError> {
        self.room.give_back(size_of(files)?);
        Ok(())
    }
}

/// Whether the disk, or the user's share of it, is full: room may come back.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Makes a folder with its parents, so that they survive a crash of the machine.
fn make_folder(folder: &Path) -> Result<(), SpoolError> {
    let holders = holders_of_new(folder);
    fs::create_dir_all(folder).map_err(at(folder))?;
    for holder in holders {
        sync_folder(&holder).map_err(at(&holder))?;
    }
    Ok(())
}

/// The folders that will hold a new name once `folder` is made. The next one is among them
/// always: a run that died may have made `folder` and not got so far as to sync it.
fn holders_of_new(folder: &Path) -> Vec<PathBuf> {
    let holder = |folder: &Path| match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let missing = folder
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
    std::iter::once(folder)
        .chain(missing)
        .filter_map(holder)
        .collect()
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

fn list(folder: &Path, room: &Arc<Room>) -> Result<Leftovers, SpoolError> {
    let mut paths = files(folder)?;
    // Numbers in the names have one width each, so that this is the order of writing.
    paths.sort();
    let ends = |end: &'static str| move |path: &&PathBuf| path.to_string_lossy().ends_with(end);
    Ok(Leftovers {
        folder: folder.to_owned(),
        segments: paths.iter().filter(ends(".zst")).cloned().collect(),
        journals: paths.iter().filter(ends(".journal")).cloned().collect(),
        room: Arc::clone(room),
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
        let (first, none) = Spool::open(&options, archive).expect("opens");
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
        assert_eq!(third.used(), 9 + 10);
        // What was recovered makes room again.
        left.remove(&left.segments).expect("removes");
        assert_eq!(third.used(), 0);
        drop(left);
        drop(third);
        let (_, none) = Spool::open(&options, archive).expect("opens");
        assert!(none.is_empty());
        let (_, other) = Spool::open(&options, Uuid::from_u128(2)).expect("opens");
        assert!(other.is_empty());
    }

    #[test]
    fn a_full_spool_takes_nothing_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let (spool, _) = Spool::open(&options(folder.path()), Uuid::nil()).expect("opens");
        let body = Bytes::from(vec![7; 600]);
        assert!(spool.write(&name(1), &body).expect("writes"));
        assert!(!spool.write(&name(2), &body).expect("is asked"));
        assert!(spool.read(&name(2)).is_err());
        spool.remove(&name(1), 600).expect("removes");
        assert!(spool.write(&name(2), &body).expect("writes"));
        assert_eq!(spool.used(), 600);
    }

    #[test]
    fn what_lies_in_another_slot_is_counted_until_it_is_recovered() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        let (first, _) = Spool::open(&options, Uuid::nil()).expect("opens");
        let (second, _) = Spool::open(&options, Uuid::nil()).expect("opens");
        let body = Bytes::from(vec![7; 600]);
        assert!(second.write(&name(1), &body).expect("writes"));
        drop((first, second));
        let (spool, left) = Spool::open(&options, Uuid::nil()).expect("opens");
        assert!(!spool.write(&name(2), &body).expect("is asked"));
        left[0].remove(&left[0].segments).expect("removes");
        assert!(spool.write(&name(2), &body).expect("writes"));
    }

    #[test]
    fn a_full_disk_is_no_room_and_no_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let (spool, _) = Spool::open(&options(folder.path()), Uuid::nil()).expect("opens");
        let path = spool.path(&name(1));
        let full = path.with_extension("zst.new");
        std::os::unix::fs::symlink("/dev/full", &full).expect("links");
        let body = Bytes::from(vec![7; 600]);
        assert!(!spool.write(&name(1), &body).expect("is asked"));
        assert_eq!(spool.used(), 0);
        assert!(spool.write(&name(1), &body).expect("writes"));
        assert_eq!(spool.used(), 600);
    }

    #[test]
    fn a_folder_is_made_durable_with_its_parents() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("a/b/c");
        let expected = [
            folder.path().join("a/b"),
            folder.path().join("a"),
            folder.path().to_owned(),
        ];
        assert_eq!(holders_of_new(&at), expected);
        make_folder(&at).expect("makes");
        assert_eq!(holders_of_new(&at), [folder.path().join("a/b")]);
        assert_eq!(holders_of_new(Path::new("spool")), [PathBuf::from(".")]);
    }
}
