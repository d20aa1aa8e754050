//! The memory that segments on their way may hold.
//!
//! The invariant: while [`Memory::has_room`] holds, the next draft can be handed over without
//! waiting, whatever its size; so the stream reads only then.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is on its way may hold so much memory, in relation to a full segment.
const IN_MEMORY: (usize, usize) = (3, 2);
/// Bytes that a permit stands for.
const PERMIT_BYTES: usize = 4 << 10;

/// Memory that something on its way holds.
pub(super) type Held = OwnedSemaphorePermit;

/// How much may be held, and what is left of it.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    permits: Arc<Semaphore>,
    all: u32,
    /// What a full segment takes.
    full: u32,
}

impl Memory {
    pub(super) fn new(segment_bytes: usize) -> Self {
        let (times, of) = IN_MEMORY;
        let full = permits(segment_bytes);
        let all = permits(segment_bytes.saturating_mul(times) / of).max(full);
        Self {
            permits: Arc::new(Semaphore::new(all as usize)),
            all,
            full,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.permits.available_permits() >= self.full as usize
    }

    /// Waits until there is room for a full segment.
    pub(super) async fn room(&self) -> bool {
        self.permits.acquire_many(self.full).await.is_ok()
    }

    /// Takes what so many bytes need. A draft may be larger than a full segment, by the event
    /// that filled it; it takes no more than was promised for it, or it would wait for what the
    /// stream has been told is there. Never closed.
    pub(super) async fn take(&self, bytes: usize) -> Option<Held> {
        let needed = permits(bytes).min(self.full);
        Arc::clone(&self.permits)
            .acquire_many_owned(needed)
            .await
            .ok()
    }

    /// Takes what can be had without waiting of what one that is being put from the disk needs.
    pub(super) fn take_for_put(&self, bytes: usize) -> Option<Held> {
        let needed = permits(bytes).min(self.for_put());
        Arc::clone(&self.permits)
            .try_acquire_many_owned(needed)
            .ok()
    }

    /// Gives back what one needs no more that is on disk and only still being put: a full segment
    /// has room beside it.
    pub(super) fn keep_for_put(&self, held: &mut Option<Held>) {
        keep(held, self.for_put());
    }

    const fn for_put(&self) -> u32 {
        self.all - self.full
    }
}

/// Gives back what `bytes` bytes do not need.
pub(super) fn shrink(held: &mut Option<Held>, bytes: usize) {
    keep(held, permits(bytes));
}

fn keep(held: &mut Option<Held>, permits: u32) {
    if let Some(held) = held {
        let more = held.num_permits().saturating_sub(permits as usize);
        drop(held.split(more));
    }
}

fn permits(bytes: usize) -> u32 {
    let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
    permits.clamp(1, u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_promised_is_there_for_a_draft_of_any_size() {
        for extra in [0, 1, 3 << 20, 1 << 30] {
            let memory = Memory::new(1 << 20);
            // As much as may be held while there is room.
            let beside = memory.take(512 << 10).await;
            assert!(memory.has_room());
            let taking = memory.take((1 << 20) + extra);
            let taken = tokio::time::timeout(std::time::Duration::from_secs(5), taking).await;
            assert!(taken.is_ok_and(|held| held.is_some()), "{extra} more");
            drop(beside);
        }
    }

    #[tokio::test]
    async fn one_that_is_put_from_the_disk_leaves_room_for_a_full_one() {
        let memory = Memory::new(1 << 20);
        let mut held = memory.take(1 << 20).await;
        assert!(!memory.has_room());
        memory.keep_for_put(&mut held);
        assert!(memory.has_room());
        drop(held);
        let held = memory.take_for_put(1 << 20);
        assert!(held.is_some() && memory.has_room());
        // It is never waited for.
        let _full = memory.take(1 << 20).await;
        assert!(memory.take_for_put(1 << 20).is_none());
    }
}
