//! [`MemoryStorage`]: objects in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::{ListPage, ObjectMeta, ObjectWriter, Storage, StorageError, check_key, cut};

/// A store in this process's memory; clones share their objects.
#[derive(Clone)]
pub struct MemoryStorage {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    page_size: usize,
}

impl MemoryStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            objects: Arc::default(),
            page_size: 1000,
        }
    }

    /// The same store, listing at most so many objects a page.
    #[must_use]
    pub fn with_page_size(mut self, page_size: usize) -> Self {
        self.page_size = page_size.max(1);
        self
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // Every change is a single call on the map, so that a panic elsewhere leaves it whole.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &str) -> Result<Bytes, StorageError> {
        check_key(key)?;
        self.objects()
            .get(key)
            .cloned()
            .ok_or_else(|| StorageError::NotFound {
                key: key.to_owned(),
            })
    }

    fn insert(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(StorageError::AlreadyExists {
                key: key.to_owned(),
            });
        }
        objects.insert(key.to_owned(), body);
        Ok(())
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStorage({} objects)", self.objects().len())
    }
}

#[async_trait::async_trait]
impl Storage for MemoryStorage {
    fn url(&self) -> String {
        "memory://".to_owned()
    }

    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        self.find(key)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        Ok(cut(&self.find(key)?, &range))
    }

    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        Ok(self.find(key)?.len() as u64)
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        check_key(key)?;
        self.insert(key, body)
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        check_key(key)?;
        Ok(Box::new(MemoryUpload {
            storage: self.clone(),
            key: key.to_owned(),
            body: BytesMut::new(),
        }))
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        // The later of the two bounds: where the prefix begins, or behind the last page.
        let start = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut objects: Vec<ObjectMeta> = self
            .objects()
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(self.page_size + 1)
            .map(|(key, body)| ObjectMeta {
                key: key.clone(),
                size: body.len() as u64,
            })
            .collect();
        let more = objects.len() > self.page_size;
        objects.truncate(self.page_size);
        let next = objects.last().filter(|_| more).map(|last| last.key.clone());
        Ok(ListPage { objects, next })
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        check_key(key)?;
        self.objects().remove(key);
        Ok(())
    }
}

struct MemoryUpload {
    storage: MemoryStorage,
    key: String,
    body: BytesMut,
}

#[async_trait::async_trait]
impl ObjectWriter for MemoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.body.extend_from_slice(&bytes);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.storage.insert(&self.key, self.body.freeze())
    }

    async fn abort(self: Box<Self>) {}
}
