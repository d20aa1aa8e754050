//! The steps on files and folders, in the order that makes them safe.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use uuid::Uuid;

use super::super::StorageError;

/// The folder of temporary files: `#` is in no valid key.
pub(super) const TEMPORARY: &str = "#tmp";

/// A temporary file so much older than a new one belongs to nobody.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a write goes on when a delete removes the folders that it just made.
const FOLDER_RACES: usize = 100;

/// The store's folder.
pub(super) struct Root {
    path: PathBuf,
    /// The folder was seen, so it is never made anew.
    seen: AtomicBool,
    swept: Once,
    /// Folders that were synced.
    #[cfg(test)]
    synced: std::sync::atomic::AtomicUsize,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        let seen = path.is_dir();
        Self {
            path,
            seen: AtomicBool::new(seen),
            swept: Once::new(),
            #[cfg(test)]
            synced: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn url(&self) -> String {
        url::Url::from_file_path(&self.path).map_or_else(
            |()| format!("file://{}", self.path.display()),
            |url| url.to_string(),
        )
    }

    pub(super) fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StorageError> {
        let read = || {
            let mut file = File::open(self.file(key))?;
            let size = object_size(&file.metadata()?)?;
            let range = range.unwrap_or(0..size);
            let (start, end) = (range.start.min(size), range.end.min(size));
            let length = end.saturating_sub(start);
            if start > 0 {
                file.seek(SeekFrom::Start(start))?;
            }
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(&mut bytes)?;
            if bytes.len() as u64 == length {
                Ok(Bytes::from(bytes))
            } else {
                Err(ErrorKind::UnexpectedEof.into())
            }
        };
        read().map_err(|error| self.missing_or("reading", key, error))
    }

    pub(super) fn size(&self, key: &str) -> Result<u64, StorageError> {
        fs::metadata(self.file(key))
            .and_then(|metadata| object_size(&metadata))
            .map_err(|error| self.missing_or("reading", key, error))
    }

    /// A new temporary file for the object `key`.
    pub(super) fn temporary(&self, key: &str) -> Result<(Temporary, File), StorageError> {
        let failure = |error| self.missing_or("writing", key, error);
        let folder = self.path.join(TEMPORARY);
        if !folder.is_dir() {
            self.make_root().map_err(failure)?;
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(failure(error));
                }
                _ => {}
            }
        }
        self.seen.store(true, Ordering::Relaxed);
        let path = folder.join(Uuid::new_v4().simple().to_string());
        let file = File::create_new(&path).map_err(failure)?;
        self.swept.call_once(|| sweep(&folder, &path));
        Ok((Temporary { path }, file))
    }

    /// Makes the root with its parents, but not one that was there and vanished.
    fn make_root(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        if self.seen.load(Ordering::Relaxed) {
            return Err(ErrorKind::NotFound.into());
        }
        fs::create_dir_all(&self.path)?;
        for folder in self.path.ancestors().skip(1) {
            sync_folder(folder)?;
        }
        Ok(())
    }

    /// Gives the written file the name of the object `key` if that is free, durably.
    pub(super) fn publish(
        &self,
        key: &str,
        temporary: Temporary,
        file: &File,
    ) -> Result<(), StorageError> {
        let failure = |error| self.failure("writing", key, error);
        file.sync_all().map_err(failure)?;
        let target = self.file(key);
        let folder = target.parent().unwrap_or(&self.path);
        let mut races = 0;
        loop {
            let made = fs::create_dir_all(folder);
            let in_the_way = |path: &Path| path != self.path && path.is_file();
            if target.is_dir() || made.is_err() && folder.ancestors().any(in_the_way) {
                return Err(failure(ErrorKind::NotADirectory.into()));
            }
            let linked = match made {
                // It was there, and then a delete removed it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    Err(ErrorKind::NotFound.into())
                }
                Err(error) => Err(error),
                Ok(()) => fs::hard_link(&temporary.path, &target),
            };
            match linked {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // It may be our own, linked by a try that could not sync the folders then.
                    self.sync_object(&target, folder).map_err(failure)?;
                    return Err(StorageError::AlreadyExists {
                        key: key.to_owned(),
                    });
                }
                // A delete removed the folder that it had emptied.
                Err(error) if error.kind() == ErrorKind::NotFound && races < FOLDER_RACES => {
                    if !temporary.path.exists() {
                        return Err(self.missing_or("writing", key, error));
                    }
                    races += 1;
                }
                Err(error) if no_links(&error) => {
                    return Err(StorageError::UnconditionalWrites {
                        url: self.url(),
                        evidence: format!("its file system makes no hard links ({error})"),
                    });
                }
                Err(error) => return Err(failure(error)),
            }
        }
        self.sync_folders(folder).map_err(failure)
    }

    /// Makes an object durable that somebody else, or an earlier try, has linked.
    fn sync_object(&self, target: &Path, folder: &Path) -> io::Result<()> {
        let synced = File::open(target)
            .and_then(|file| file.sync_all())
            .and_then(|()| self.sync_folders(folder));
        match synced {
            // Deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }

    /// Syncs a folder and those above it. Others may have made them a moment ago, so all of them
    /// are synced each time.
    fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        for folder in folder.ancestors() {
            #[cfg(test)]
            self.synced.fetch_add(1, Ordering::Relaxed);
            sync_folder(folder)?;
            if folder == self.path {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, key: &str) -> Result<(), StorageError> {
        let failure = |error| self.missing_or("deleting", key, error);
        let target = self.file(key);
        match fs::metadata(&target).and_then(|metadata| object_size(&metadata)) {
            Ok(_) => {}
            Err(error) => {
                return match failure(error) {
                    StorageError::NotFound { .. } => Ok(()),
                    other => Err(other),
                };
            }
        }
        match fs::remove_file(&target) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failure(error)),
            _ => {}
        }
        // The order of deletes must survive a crash too. Folders go when they are empty.
        for folder in target.ancestors().skip(1) {
            match sync_folder(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failure(error)),
                _ => {}
            }
            if folder == self.path || fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn file(&self, key: &str) -> PathBuf {
        self.path.join(key)
    }

    /// The error for a path that may just not be there: the object or the whole folder.
    fn missing_or(&self, action: &'static str, key: &str, error: io::Error) -> StorageError {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                if self.path.is_dir() {
                    StorageError::NotFound {
                        key: key.to_owned(),
                    }
                } else {
                    StorageError::NoSuchPlace { url: self.url() }
                }
            }
            _ => self.failure(action, key, error),
        }
    }

    pub(super) fn failure(
        &self,
        action: &'static str,
        key: &str,
        error: io::Error,
    ) -> StorageError {
        let key = key.to_owned();
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StorageError::Denied {
                action,
                key,
                source: error.into(),
            },
            // An object of one key and a folder for longer ones cannot both be there.
            ErrorKind::NotADirectory => StorageError::InvalidKey { key },
            _ => StorageError::Unavailable {
                action,
                key,
                source: error.into(),
            },
        }
    }
}

/// A file that is removed with this value.
pub(super) struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        let _ = fs::remove_file(&self.path);
    }
}

/// The size, if it is a file.
pub(super) fn object_size(metadata: &fs::Metadata) -> io::Result<u64> {
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(ErrorKind::IsADirectory.into())
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether the file system refused the link itself: `link(2)` gives EPERM where there are none.
fn no_links(error: &io::Error) -> bool {
    const EPERM: i32 = 1;
    matches!(
        error.kind(),
        ErrorKind::Unsupported | ErrorKind::TooManyLinks | ErrorKind::CrossesDevices
    ) || error.raw_os_error() == Some(EPERM)
}

/// Removes what crashed processes left, by the file system's own clock: its age beside that of
/// the file that was just made.
fn sweep(folder: &Path, new: &Path) {
    let modified = |path: &Path| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let (Some(now), Ok(entries)) = (modified(new), fs::read_dir(folder)) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let abandoned = modified(&path)
            .and_then(|then| now.duration_since(then).ok())
            .is_some_and(|age| age > ABANDONED);
        if abandoned {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A try that failed after its link may have left an object that no disk holds yet: the next
    /// one, which finds it, is what says that it is there.
    #[test]
    fn what_is_there_already_is_synced_before_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::new(folder.path().to_owned());
        let put = || {
            let (temporary, mut file) = root.temporary("log/a")?;
            file.write_all(b"a").expect("writes");
            root.publish("log/a", temporary, &file)
        };
        put().expect("puts");
        let before = root.synced.load(Ordering::Relaxed);
        let again = put();
        assert!(
            matches!(again, Err(StorageError::AlreadyExists { .. })),
            "{again:?}"
        );
        assert_eq!(root.synced.load(Ordering::Relaxed), 2 * before);
    }
}
