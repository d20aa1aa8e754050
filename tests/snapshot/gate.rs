//! A store that stands still at a place of the dump until it is told to go on: what happens
//! meanwhile happens in the middle, and not by luck.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use quillback::storage::{ListPage, ObjectWriter, Storage, StorageError};
use tokio::sync::Semaphore;

const LIMIT: Duration = Duration::from_secs(120);

/// A store with a gate before the first file of rows whose key contains a text.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Arc<dyn Storage>,
    at: String,
    met: AtomicBool,
    reached: Semaphore,
    open: Semaphore,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn Storage>, at: &str) -> Arc<Self> {
        Arc::new(Self {
            inner,
            at: at.to_owned(),
            met: AtomicBool::new(false),
            reached: Semaphore::new(0),
            open: Semaphore::new(0),
        })
    }

    /// Waits until the dump stands at the gate.
    pub(crate) async fn reached(&self) -> Result<()> {
        tokio::time::timeout(LIMIT, self.reached.acquire())
            .await
            .context("the dump did not come to the gate")??
            .forget();
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }

    /// Does something while the dump stands at the gate, and then lets it go on, come what may.
    pub(crate) async fn meanwhile<T>(&self, doing: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        self.reached().await?;
        let done = doing().await;
        self.open();
        done
    }
}

#[async_trait::async_trait]
impl Storage for Gate {
    fn url(&self) -> String {
        self.inner.url()
    }
    async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.inner.get_range(key, range).await
    }
    async fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.inner.size(key).await
    }
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StorageError> {
        self.inner.put_if_absent(key, body).await
    }
    async fn upload(&self, key: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        if key.contains(&self.at) && !self.met.swap(true, Ordering::SeqCst) {
            self.reached.add_permits(1);
            self.open
                .acquire()
                .await
                .expect("a gate is never closed for good")
                .forget();
        }
        self.inner.upload(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage, StorageError> {
        self.inner.list(prefix, after).await
    }
    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.inner.delete(key).await
    }
}
