//! The lines that are on their way between all readers and their compressors, bounded in bytes.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lines that are handed over at once. A buffer of this size stays in the caches between the one
/// who fills it and the one who compresses it.
pub(in crate::snapshot) const PIECE_BYTES: usize = 256 << 10;
/// What a buffer has room for beyond that: a row or a part of one that came from the wire at once,
/// with its escapes.
const ROOM: usize = 64 << 10;
/// Lines under way, of all readers together.
const BUDGET: usize = 32 << 20;
/// The unit of the budget, in bytes.
const UNIT: usize = 1 << 10;
/// Buffers that are kept to be used again.
const KEPT: usize = 64;

/// Buffers that are used again and again.
#[derive(Debug)]
pub(in crate::snapshot) struct Buffers {
    budget: Arc<Semaphore>,
    free: Mutex<Vec<Vec<u8>>>,
}

/// Lines that count against the budget until they are dropped; the memory then serves others.
#[derive(Debug)]
pub(in crate::snapshot) struct Lines {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
    home: Arc<Buffers>,
}

impl Buffers {
    pub(in crate::snapshot) fn new() -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::new(Semaphore::new(BUDGET / UNIT)),
            free: Mutex::default(),
        })
    }

    /// An empty buffer.
    pub(in crate::snapshot) fn take(&self) -> Vec<u8> {
        let free = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        free.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES + ROOM))
    }

    /// Waits until the budget has room for the lines.
    pub(in crate::snapshot) async fn admit(self: &Arc<Self>, bytes: Vec<u8>) -> Lines {
        let units = bytes.len().div_ceil(UNIT).min(BUDGET / UNIT);
        let permits = Arc::clone(&self.budget)
            .acquire_many_owned(u32::try_from(units).expect("the budget is smaller"))
            .await;
        Lines {
            bytes,
            _permit: permits.expect("the budget is never closed"),
            home: Arc::clone(self),
        }
    }
}

impl std::ops::Deref for Lines {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // One that has grown beyond its kind would stay big for ever.
        if bytes.capacity() > 4 * PIECE_BYTES {
            return;
        }
        bytes.clear();
        let mut free = self
            .home
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn no_more_is_under_way_than_the_budget_allows() {
        let buffers = Buffers::new();
        let mut under_way = Vec::new();
        for _ in 0..BUDGET / (8 << 20) {
            under_way.push(buffers.admit(vec![7; 8 << 20]).await);
        }
        let wait = Duration::from_millis(20);
        let full = tokio::time::timeout(wait, buffers.admit(vec![7])).await;
        assert!(full.is_err());
        under_way.pop();
        let lines = tokio::time::timeout(wait, buffers.admit(vec![7])).await;
        assert_eq!(&*lines.expect("there is room"), [7]);
    }

    #[tokio::test]
    async fn memory_is_used_again() {
        let buffers = Buffers::new();
        let mut bytes = buffers.take();
        bytes.push(1);
        let place = bytes.as_ptr();
        drop(buffers.admit(bytes).await);
        let again = buffers.take();
        assert!(again.is_empty() && again.as_ptr() == place);
    }
}
