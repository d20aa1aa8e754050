//! A store whose changes wait, for a process that is stopped in the middle.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::archive::layout::SegmentName;
use crate::storage::{ListPage, ObjectWriter, Storage, StorageError};

/// Opens the way.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    reached: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gate {
    /// Returns once a change waits.
    pub(super) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it go on.
    pub(super) fn open(&self) {
        self.opened.notify_one();
    }
}

/// What waits at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A compacted segment is put.
    Put,
    /// An object is deleted.
    Delete,
}

/// A store in which the change after the first `skip` of its kind waits at the gate.
pub(super) fn gated(
    inner: Arc<dyn Storage>,
    change: Change,
    skip: u64,
) -> (Gate, Arc<dyn Storage>) {
    let gate = Gate::default();
    let storage = Gated {
        inner,
        gate: gate.clone(),
        change,
        left: AtomicU64::new(skip + 1),
    };
    (gate, Arc::new(storage))
}

#[derive(Debug)]
struct Gated {
    inner: Arc<dyn Storage>,
    gate: Gate,
    change: Change,
    left: AtomicU64,
}

impl Gated {
    async fn pass(&self, change: Change) {
        if change == self.change && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.gate.reached.notify_one();
            self.gate.opened.notified().await;
        }
    }
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
        if SegmentName::parse(key).is_some_and(|name| name.compacted) {
            self.pass(Change::Put).await;
        }
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
        self.pass(Change::Delete).await;
        self.inner.delete(key).await
    }
}
