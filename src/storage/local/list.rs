//! Listing a folder tree in the order of the keys' bytes.
//!
//! That is not the order folder by folder: `/` sorts between other characters, so that `a-b`
//! comes before `a/b` and that before `a0`. Entries are therefore ordered by their names with a
//! `/` behind those of folders: all keys below a folder begin with that, so they stand together.

use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::super::{ListPage, ObjectMeta, StorageError, is_valid_key};
use super::files::{Root, object_size};

/// At most `size` objects that start with `prefix` and come after `after`.
pub(super) fn page(
    root: &Root,
    prefix: &str,
    after: Option<&str>,
    size: usize,
) -> Result<ListPage, StorageError> {
    if !root.path().is_dir() {
        return Err(StorageError::NoSuchPlace { url: root.url() });
    }
    let mut walk = Walk {
        prefix,
        after,
        // One more tells whether there is another page.
        wanted: size.saturating_add(1),
        objects: Vec::new(),
    };
    walk.folder(root.path(), "")
        .map_err(|error| root.failure("listing", prefix, error))?;
    let mut objects = walk.objects;
    let more = objects.len() > size;
    objects.truncate(size);
    let next = objects.last().filter(|_| more).map(|last| last.key.clone());
    Ok(ListPage { objects, next })
}

struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    wanted: usize,
    objects: Vec<ObjectMeta>,
}

impl Walk<'_> {
    /// Adds the objects below `path`, whose keys start with `key` (empty or ending in `/`).
    fn folder(&mut self, path: &Path, key: &str) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            if let Some(found) = self.key_of(key, &entry?)? {
                keys.push(found);
            }
        }
        keys.sort_unstable();
        for found in keys {
            if self.objects.len() >= self.wanted {
                break;
            }
            let path = path.join(&found[key.len()..]);
            if found.ends_with('/') {
                self.folder(&path, &found)?;
                continue;
            }
            match fs::metadata(&path).and_then(|metadata| object_size(&metadata)) {
                Ok(size) => self.objects.push(ObjectMeta { key: found, size }),
                // Deleted meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The key of an entry, with a `/` behind a folder's, if anything asked for can be there.
    fn key_of(&self, folder: &str, entry: &DirEntry) -> io::Result<Option<String>> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Ok(None);
        };
        let mut key = format!("{folder}{name}");
        // Neither temporary files nor anything else that cannot be an object of ours, nor the
        // folder of a disk's own that only root may read.
        if !is_valid_key(&key) || key == "lost+found" {
            return Ok(None);
        }
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            match fs::metadata(entry.path()) {
                Ok(metadata) => kind = metadata.file_type(),
                Err(_) => return Ok(None),
            }
        }
        let wanted = if kind.is_dir() {
            key.push('/');
            (key.starts_with(self.prefix) || self.prefix.starts_with(&key))
                && self
                    .after
                    .is_none_or(|after| after < key.as_str() || after.starts_with(&key))
        } else {
            kind.is_file()
                && key.starts_with(self.prefix)
                && self.after.is_none_or(|after| after < key.as_str())
        };
        Ok(wanted.then_some(key))
    }
}
