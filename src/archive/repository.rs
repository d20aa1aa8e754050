//! The archive on a store: finds, reads and writes its objects.
//!
//! Commit points are put last and nothing is overwritten; what is read is verified before it is
//! handed on. Decisions (what counts, what to restore, what to remove) are left to pure code.

mod branches;
mod log;
mod records;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::catalog::StoredSegment;
use super::hash::Sha256;
use super::identity::{ARCHIVE_FORMAT, Branch, Claim, Identity};
use super::layout::{self, BranchNumber, Epoch, SegmentName};
use super::manifest::{MANIFEST_FORMAT, Manifest};
use super::marks::MarkName;
use super::segment::{Segment, SegmentError};
use super::work::beside;
use crate::error::{Class, Classified};
use crate::gtid::GtidSet;
use crate::storage::{Storage, StorageError, list_all};

pub use branches::Fencer;
pub use log::LogReader;

/// How many small reads run at once.
const READERS: usize = 16;

/// A failure of the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no archive at this place.
    #[error("{url} holds no archive")]
    NotAnArchive {
        /// The place.
        url: String,
    },
    /// There is an archive already.
    #[error("{url} holds an archive already (made {created})")]
    Exists {
        /// The place.
        url: String,
        /// When it was made.
        created: String,
    },
    /// A newer Quillback made it.
    #[error("{url} has archive format {found}; this version reads up to {ARCHIVE_FORMAT}")]
    TooNew {
        /// The place.
        url: String,
        /// The format it says.
        found: u32,
    },
    /// A newer Quillback took a snapshot into it.
    #[error("{key} has manifest format {found}; this version reads up to {MANIFEST_FORMAT}")]
    NewerManifest {
        /// The manifest.
        key: String,
        /// The format it says.
        found: u32,
    },
    /// An object is not what was written.
    #[error("{key} is damaged")]
    Segment {
        /// The object.
        key: String,
        /// What is wrong with it.
        #[source]
        source: SegmentError,
    },
    /// An object's name and content do not belong together.
    #[error("{key} holds another segment than its name says")]
    Misnamed {
        /// The object.
        key: String,
    },
    /// There is no such history.
    #[error("the archive has no branch {branch}")]
    NoBranch {
        /// Its number.
        branch: BranchNumber,
    },
    /// A history that was recorded is not recorded any more.
    #[error("{key} is missing")]
    LostBranch {
        /// Its object.
        key: String,
    },
    /// The log changed each time that it was listed.
    #[error("the log of branch {branch} changed each time while it was read")]
    Restless {
        /// The history.
        branch: BranchNumber,
    },
    /// There is a mark of this name.
    #[error("there is a mark {name} already (made {created})")]
    MarkExists {
        /// The name.
        name: MarkName,
        /// When it was made.
        created: String,
    },
    /// A JSON object cannot be read.
    #[error("{key} is malformed")]
    Json {
        /// The object.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Classified for ArchiveError {
    fn class(&self) -> Class {
        match self {
            Self::Storage(error) => error.class(),
            Self::NotAnArchive { .. } | Self::TooNew { .. } | Self::NewerManifest { .. } => {
                Class::NoArchive
            }
            Self::Exists { .. } | Self::MarkExists { .. } => Class::Refused,
            Self::Segment { source, .. } => source.class(),
            Self::NoBranch { .. } => Class::NotCovered,
            Self::Restless { .. } => Class::Transient,
            Self::LostBranch { .. } | Self::Misnamed { .. } | Self::Json { .. } => Class::Integrity,
        }
    }
}

/// An archive that is there.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    identity: Identity,
}

impl Repository {
    /// Makes an archive with its first, empty history.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Exists`] if there is one.
    pub async fn init(storage: Arc<dyn Storage>, now: DateTime<Utc>) -> Result<Self, ArchiveError> {
        let identity = Identity {
            format: ARCHIVE_FORMAT,
            archive: Uuid::new_v4(),
            created: now,
            quillback: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let first = Branch {
            branch: BranchNumber(1),
            parent: None,
            fork: GtidSet::new(),
            lost: GtidSet::new(),
            reason: "the archive was made".to_owned(),
            group: None,
            server: None,
            created: now,
        };
        match Self::open(Arc::clone(&storage)).await {
            Ok(there) => return Err(there.exists()),
            Err(ArchiveError::NotAnArchive { .. }) => {}
            Err(error) => return Err(error),
        }
        // An init that died after the first object is finished by the next one.
        match put_json(&*storage, &layout::branch(BranchNumber(1)), &first).await {
            Ok(()) | Err(ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {}
            Err(error) => return Err(error),
        }
        match put_json(&*storage, layout::IDENTITY, &identity).await {
            Ok(()) => Ok(Self { storage, identity }),
            Err(ArchiveError::Storage(StorageError::AlreadyExists { .. })) => {
                Err(Self::open(storage).await?.exists())
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the archive at a store.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::NotAnArchive`] if there is none.
    pub async fn open(storage: Arc<dyn Storage>) -> Result<Self, ArchiveError> {
        let url = storage.url();
        match get_json::<Identity>(&*storage, layout::IDENTITY).await {
            Ok(identity) if identity.format > ARCHIVE_FORMAT => Err(ArchiveError::TooNew {
                url,
                found: identity.format,
            }),
            Ok(identity) => Ok(Self { storage, identity }),
            Err(ArchiveError::Storage(
                StorageError::NotFound { .. } | StorageError::NoSuchPlace { .. },
            )) => Err(ArchiveError::NotAnArchive { url }),
            Err(error) => Err(error),
        }
    }

    fn exists(&self) -> ArchiveError {
        ArchiveError::Exists {
            url: self.storage.url(),
            created: crate::clock::rfc3339(self.identity.created),
        }
    }

    /// The archive's identity.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The store.
    #[must_use]
    pub const fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The newest claim's number, or `None` before the first. `after` skips those that are known.
    ///
    /// Claims are numbered without holes and never removed, so there may be very many; but a
    /// listing from some number on says whether there is a greater one, so a few of them find the
    /// greatest.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn newest_epoch(&self, after: Option<Epoch>) -> Result<Option<Epoch>, ArchiveError> {
        let Some(mut found) = self.claims_after(after).await? else {
            return Ok(None);
        };
        // Nothing is above this number.
        let mut limit: Option<u64> = None;
        let mut step = 1;
        while !found.is_last {
            let known = found.greatest.0;
            let ask = match limit {
                None => known.saturating_add(step),
                Some(limit) if limit <= known + 1 => known,
                Some(limit) => known + (limit - known) / 2,
            };
            step = step.saturating_mul(2);
            match self.claims_after(Some(Epoch(ask))).await? {
                Some(more) => found = more,
                None if ask == known => break,
                None => limit = Some(ask),
            }
        }
        Ok(Some(found.greatest))
    }

    /// The first claims above a number; `None` if there is none.
    async fn claims_after(&self, after: Option<Epoch>) -> Result<Option<Claims>, ArchiveError> {
        let mut from = after.map(layout::epoch);
        loop {
            let page = self.storage.list(layout::EPOCHS, from.as_deref()).await?;
            let greatest = page
                .objects
                .iter()
                .filter_map(|object| layout::parse_epoch(&object.key))
                .max();
            match (greatest, page.next) {
                (Some(greatest), next) => {
                    return Ok(Some(Claims {
                        greatest,
                        is_last: next.is_none(),
                    }));
                }
                (None, None) => return Ok(None),
                (None, Some(next)) => from = Some(next),
            }
        }
    }

    /// The claim of an epoch.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn claim(&self, epoch: Epoch) -> Result<Claim, ArchiveError> {
        get_json(&*self.storage, &layout::epoch(epoch)).await
    }

    /// Puts a claim; `AlreadyExists` tells that another streamer was faster.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn put_claim(&self, claim: &Claim) -> Result<(), ArchiveError> {
        put_json(&*self.storage, &layout::epoch(claim.epoch), claim).await
    }

    /// Puts a segment. When it returns, the segment is durable; whether it counts is for the
    /// caller to see (a newer claim may exist).
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn put_segment(&self, name: &SegmentName, body: Bytes) -> Result<(), ArchiveError> {
        match self.storage.put_if_absent(&name.key(), body.clone()).await {
            Err(StorageError::AlreadyExists { .. }) => self.is_there(name, &body).await,
            other => Ok(other?),
        }
    }

    /// Fails unless the object of this name is what was to be written. A store's word that something
    /// is there is not enough: what does not count is then missing for ever.
    async fn is_there(&self, name: &SegmentName, body: &Bytes) -> Result<(), ArchiveError> {
        let key = name.key();
        match self.storage.get(&key).await {
            Ok(found) if found == *body => Ok(()),
            Ok(_) => Err(ArchiveError::Misnamed { key }),
            Err(StorageError::NotFound { .. }) => {
                Err(ArchiveError::Storage(StorageError::Unavailable {
                    action: "writing",
                    source: format!("the store says that {key} is there, and does not have it")
                        .into(),
                    key,
                }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a segment and verifies every byte of it.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn read_segment(&self, stored: &StoredSegment) -> Result<Segment, ArchiveError> {
        let key = stored.name.key();
        let object = self.storage.get(&key).await?;
        let opened = beside(move || Segment::open(&object))
            .await
            .map_err(|error| StorageError::Unavailable {
                action: "hashing",
                key: key.clone(),
                source: Box::new(error),
            })?;
        let segment = opened.map_err(|source| ArchiveError::Segment {
            key: key.clone(),
            source,
        })?;
        if segment.sha256().short() == stored.name.hash8 && *segment.index() == stored.index {
            Ok(segment)
        } else {
            Err(ArchiveError::Misnamed { key })
        }
    }

    /// What the segment behind this one says of it: the digest of the last fresh object that it
    /// is or stands for.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn link_of(&self, stored: &StoredSegment) -> Result<Sha256, ArchiveError> {
        match stored.index.ends_with {
            Some(digest) => Ok(digest),
            None => Ok(*self.read_segment(stored).await?.sha256()),
        }
    }

    /// Every whole snapshot, oldest first. Two whose names tell the same second are in the order of
    /// their own times.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`].
    pub async fn snapshots(&self) -> Result<Vec<Manifest>, ArchiveError> {
        let keys = self.manifests().await?.into_iter();
        let mut snapshots: Vec<Manifest> = self.get_all(keys).await?;
        snapshots.sort_by_key(|snapshot| snapshot.started);
        Ok(snapshots)
    }

    /// The names of all snapshots, the oldest first; cheap enough to be asked for often.
    ///
    /// # Errors
    ///
    /// What the listing fails with.
    pub async fn snapshot_ids(&self) -> Result<Vec<layout::SnapshotId>, ArchiveError> {
        let keys = self.manifests().await?;
        let ids = keys
            .iter()
            .filter_map(|key| layout::parse_snapshot_manifest(key));
        Ok(ids.collect())
    }

    /// The keys of the snapshots' manifests.
    async fn manifests(&self) -> Result<Vec<String>, ArchiveError> {
        let objects = list_all(&*self.storage, layout::SNAPSHOTS, None).await?;
        Ok(objects
            .into_iter()
            .map(|object| object.key)
            .filter(|key| layout::parse_snapshot_manifest(key).is_some())
            .collect())
    }

    async fn get_all<T: DeserializeOwned>(
        &self,
        keys: impl Iterator<Item = String>,
    ) -> Result<Vec<T>, ArchiveError> {
        futures_util::stream::iter(
            keys.map(|key| async move { get_json(&*self.storage, &key).await }),
        )
        .buffered(READERS)
        .try_collect()
        .await
    }
}

/// The first claims above some number.
struct Claims {
    /// The greatest of them.
    greatest: Epoch,
    /// Whether those are all.
    is_last: bool,
}

async fn get_json<T: DeserializeOwned>(
    storage: &dyn Storage,
    key: &str,
) -> Result<T, ArchiveError> {
    /// What every version of a manifest has.
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let bytes = storage.get(key).await?;
    serde_json::from_slice(&bytes).map_err(|source| {
        let key = key.to_owned();
        match serde_json::from_slice(&bytes) {
            Ok(Format { format: found })
                if found > MANIFEST_FORMAT && layout::parse_snapshot_manifest(&key).is_some() =>
            {
                ArchiveError::NewerManifest { key, found }
            }
            _ => ArchiveError::Json { key, source },
        }
    })
}

async fn put_json<T: Serialize + Sync>(
    storage: &dyn Storage,
    key: &str,
    value: &T,
) -> Result<(), ArchiveError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|source| ArchiveError::Json {
        key: key.to_owned(),
        source,
    })?;
    bytes.push(b'\n');
    storage.put_if_absent(key, Bytes::from(bytes)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::SnapshotId;
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn a_snapshot_of_a_newer_version_is_told_from_a_damaged_one() {
        for (text, newer) in [
            ("{\"format\": 99, \"new\": 1}", true),
            ("{\"format\": ", false),
        ] {
            let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            let now = DateTime::UNIX_EPOCH;
            let repository = Repository::init(Arc::clone(&store), now).await;
            let repository = repository.expect("an empty store");
            let key = layout::snapshot_manifest(&SnapshotId::new(now, 1));
            let put = store.put_if_absent(&key, Bytes::from_static(text.as_bytes()));
            put.await.expect("it is not there");
            let error = repository.snapshots().await.expect_err("it cannot be read");
            match newer {
                true => assert!(matches!(
                    error,
                    ArchiveError::NewerManifest { found: 99, .. }
                )),
                false => assert!(matches!(error, ArchiveError::Json { .. })),
            }
        }
    }

    #[tokio::test]
    async fn snapshots_of_one_second_are_in_the_order_of_their_times() {
        let golden = include_str!(
            "../../tests/golden/snapshot-2/snapshots/20261121T215722Z-321c517b/manifest.json"
        );
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let repository = Repository::init(Arc::clone(&store), DateTime::UNIX_EPOCH).await;
        let repository = repository.expect("an empty store");
        let second: DateTime<Utc> = "2026-11-20T14:30:00Z".parse().expect("a time");
        let mut ids = Vec::new();
        // The random part of the first one's name is the greater.
        for (random, micros) in [(2, 100), (1, 200)] {
            let id = SnapshotId::new(second, random);
            let mut manifest: serde_json::Value = serde_json::from_str(golden).expect("JSON");
            manifest["id"] = id.as_str().into();
            manifest["started"] = format!("2026-11-20T14:30:00.{micros:06}Z").into();
            let key = layout::snapshot_manifest(&id);
            let put = store.put_if_absent(&key, Bytes::from(manifest.to_string()));
            put.await.expect("it is not there");
            ids.push(id);
        }
        let listed = repository.snapshots().await.expect("whole");
        let listed: Vec<SnapshotId> = listed.into_iter().map(|manifest| manifest.id).collect();
        assert_eq!(listed, ids);
    }
}
