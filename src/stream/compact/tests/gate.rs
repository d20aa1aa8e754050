//! A store whose deletions wait, for a process that is stopped in the middle.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::storage::{ListPage, ObjectWriter, Storage, StorageError};

/// Opens the way.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    reached: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gate {
    /// Returns once a deletion waits.
    pub(super) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it go on.
    pub(super) fn open(&self) {
        self.opened.notify_one();
    }
}

/// A store whose deletion after the first `skip` waits at the gate.
pub(super) fn gated(inner: Arc<dyn Storage>, skip: u64) -> (Gate, Arc<dyn Storage>) {
    let gate = Gate::default();
    let storage = Gated {
        inner,
        gate: gate.clone(),
        left: AtomicU64::new(skip + 1),
    };
    (gate, Arc::new(storage))
}

#[derive(Debug)]
struct Gated {
    inner: Arc<dyn Storage>,
    gate: Gate,
    left: AtomicU64,
}

#[async_trait::async_trait]
impl Storage for Gated {
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
        self.inner.upload(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListPage, StorageError> {
        self.inner.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), StorageError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.gate.reached.notify_one();
            self.gate.opened.notified().await;
        }
        self.inner.delete(key).await
    }
}
