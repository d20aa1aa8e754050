//! Object storage: one trait over S3, a folder and memory.
//!
//! The archive asks for little: read a range, put an object that must not exist yet, list by
//! prefix in order, delete. [`Storage::put_if_absent`] is the only way to write, so nothing is
//! ever overwritten, and it is what fences streamers from each other. Every implementation passes
//! the same contract suite (`tests/storage`). What the bytes mean is left to [`crate::archive`].

mod faulty;
mod local;
mod memory;
mod open;
mod probe;
mod s3;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Class, Classified};

pub use faulty::{Fault, FaultyStorage, Operation, Rule};
pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use open::open;
pub use probe::probe_conditional_writes;
pub use s3::{S3Config, S3Credentials, S3Storage};

/// A place for immutable objects.
///
/// Keys are relative paths of `/`-separated parts (`log/0001/x.binlog.zst`), never empty, with
/// no empty part, no `.` or `..`, and only the characters that [`is_valid_key`] lets pass; every
/// implementation refuses others with [`StorageError::InvalidKey`].
#[async_trait::async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// Where this is, as an operator would write it (`s3://bucket/prefix`, `file:///dir`); never
    /// with a secret in it.
    fn url(&self) -> String;

    /// The whole object.
    async fn get(&self, key: &str) -> Result<Bytes, StorageError>;

    /// The bytes of `range`, cut at the object's end; an object shorter than `range.start` gives
    /// no bytes.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError>;

    /// The object's size in bytes, or [`StorageError::NotFound`].
    async fn size(&self, key: &str) -> Result<u64, StorageError>;

    /// Writes the object if there is none under this key, else fails with
    /// [`StorageError::AlreadyExists`] and changes nothing.
    ///
    /// When it returns `Ok` the object is durable and visible to every reader. A lost reply is
    /// resolved inside: an object that this very call wrote counts as success. After
    /// [`StorageError::Unavailable`] it is unknown whether the object was written or will yet
    /// appear.
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError>;

    /// Starts an object that is too large to hold in memory; nothing is visible before
    /// [`ObjectWriter::commit`], which has the meaning of [`Storage::put_if_absent`].
    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError>;

    /// How many bytes each [`ObjectWriter`] may hold in memory; who has many of them at a time must
    /// reckon with it.
    fn upload_bytes(&self) -> usize {
        0
    }

    /// One page of the objects whose keys start with `prefix` and are greater than
    /// `start_after`, in the order of their keys' bytes.
    async fn list(&self, prefix: &str, start_after: Option<&str>)
    -> Result<ListPage, StorageError>;

    /// Removes the object; removing what is not there is a success.
    async fn delete(&self, key: &str) -> Result<(), StorageError>;
}

/// An upload in parts. Dropping it without [`ObjectWriter::commit`] leaves no visible object.
#[async_trait::async_trait]
pub trait ObjectWriter: Send {
    /// Appends bytes; waits while earlier parts are still on their way.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError>;

    /// Makes the object visible if there is none under the key.
    async fn commit(self: Box<Self>) -> Result<(), StorageError>;

    /// Gives the upload up and removes what was sent.
    async fn abort(self: Box<Self>);
}

/// What a listing says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The key, relative to the archive's root.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The objects, ordered by key.
    pub objects: Vec<ObjectMeta>,
    /// Where the next page starts (to be given as `start_after`), or `None` at the end.
    pub next: Option<String>,
}

/// Every object whose key starts with `prefix` and is greater than `start_after`, in order.
///
/// # Errors
///
/// What [`Storage::list`] fails with.
pub async fn list_all(
    storage: &dyn Storage,
    prefix: &str,
    start_after: Option<&str>,
) -> Result<Vec<ObjectMeta>, StorageError> {
    let mut objects = Vec::new();
    let mut after = start_after.map(ToOwned::to_owned);
    loop {
        let page = storage.list(prefix, after.as_deref()).await?;
        objects.extend(page.objects);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(objects),
        }
    }
}

/// Whether `key` is one that every store takes as it is: parts of ASCII letters, digits and
/// `.`, `_`, `-`, `=`, `%`, `+`, `@`, `~`, none of them empty, `.` or `..`, at most 900 bytes.
#[must_use]
pub fn is_valid_key(key: &str) -> bool {
    key.len() <= 900
        && key.split('/').all(|part| {
            !matches!(part, "" | "." | "..")
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-=%+@~".contains(&b))
        })
}

/// Lets through the keys that every store takes.
fn check_key(key: &str) -> Result<(), StorageError> {
    if is_valid_key(key) {
        Ok(())
    } else {
        Err(StorageError::InvalidKey {
            key: key.to_owned(),
        })
    }
}

/// The bytes of `range`, as far as there are any.
fn cut(object: &Bytes, range: &Range<u64>) -> Bytes {
    let within = |at: u64| usize::try_from(at).map_or(object.len(), |at| at.min(object.len()));
    let (start, end) = (within(range.start), within(range.end));
    object.slice(start..end.max(start))
}

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no such object.
    #[error("no object {key}")]
    NotFound {
        /// The key that was asked for.
        key: String,
    },
    /// [`Storage::put_if_absent`] met an object of another writer.
    #[error("object {key} exists already")]
    AlreadyExists {
        /// The key that was to be written.
        key: String,
    },
    /// The key is none that every store takes.
    #[error("{key:?} is not a valid object key")]
    InvalidKey {
        /// The offending key.
        key: String,
    },
    /// The archive's URL cannot be used.
    #[error("{url}: {reason}")]
    InvalidUrl {
        /// The URL without its secrets.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store does not honour conditional writes, so it cannot keep two streamers apart.
    #[error("{url} does not honour conditional writes: {evidence}")]
    UnconditionalWrites {
        /// The store.
        url: String,
        /// What the probe saw.
        evidence: String,
    },
    /// The store refused the credentials or the permission.
    #[error("{action} {key} was refused by the store")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The key or prefix.
        key: String,
        /// The store's own words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bucket or the folder itself is not there.
    #[error("{url} does not exist")]
    NoSuchPlace {
        /// The bucket or folder.
        url: String,
    },
    /// The store could not be reached or failed for now.
    #[error("{action} {key} failed")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// The key or prefix.
        key: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Classified for StorageError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::Integrity,
            Self::AlreadyExists { .. } | Self::UnconditionalWrites { .. } => Class::Refused,
            Self::InvalidKey { .. } => Class::Failure,
            Self::InvalidUrl { .. } => Class::Usage,
            Self::Denied { .. } => Class::Authentication,
            Self::NoSuchPlace { .. } => Class::NoArchive,
            Self::Unavailable { .. } => Class::Transient,
        }
    }
}
