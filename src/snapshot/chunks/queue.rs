//! The parts that wait for a reader.
//!
//! Who takes a part may cut it and give the rest back; so the queue is over only when it is empty
//! and nobody cuts any more.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::range::Range;

/// A part of a table that some reader will take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::snapshot) struct Part {
    /// The table's number in the schema.
    pub(in crate::snapshot) table: usize,
    /// Which of its rows.
    pub(in crate::snapshot) range: Range,
}

/// Parts in the order in which they are taken.
#[derive(Debug)]
pub(in crate::snapshot) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Part>,
    /// Readers that may still give something back.
    cutting: usize,
}

impl Queue {
    pub(in crate::snapshot) fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: parts.into_iter().collect(),
                cutting: 0,
            }),
            changed: Notify::new(),
        }
    }

    /// The next part, or none when there will be none. Who gets one says [`Queue::settled`] once
    /// it gives nothing back any more.
    pub(in crate::snapshot) async fn take(&self) -> Option<Part> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(part) = state.waiting.pop_front() {
                    state.cutting += 1;
                    return Some(part);
                }
                if state.cutting == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Gives a part back; it is the next that is taken.
    pub(in crate::snapshot) fn give_back(&self, part: Part) {
        self.state().waiting.push_front(part);
        self.changed.notify_waiters();
    }

    /// Says that what was taken is cut no further.
    pub(in crate::snapshot) fn settled(&self) {
        self.state().cutting -= 1;
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn part(table: usize) -> Part {
        Part {
            table,
            range: Range::default(),
        }
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back_or_hears_that_it_is_over() {
        let queue = Arc::new(Queue::new([part(1)]));
        assert_eq!(queue.take().await, Some(part(1)));
        let other = Arc::clone(&queue);
        let mut waiting = tokio::spawn(async move {
            let got = other.take().await;
            other.settled();
            (got, other.take().await)
        });
        let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(early.is_err(), "the first may still give something back");
        queue.give_back(part(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiting.is_finished());
        queue.settled();
        let got = waiting.await.expect("it does not panic");
        assert_eq!(got, (Some(part(2)), None));
        assert_eq!(queue.take().await, None);
    }
}
