//! Which file is loaded next.
//!
//! Files of one table go side by side in their order, which is that of the primary key. A thread
//! takes from the table that has the most left for each thread at work on it: so threads spread over
//! tables of a size, all gather at one that is much larger than the rest, and what is small fills the
//! end, when nothing large is left to wait for.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

/// One file to load, by the places of its table and its own in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) table: usize,
    pub(super) file: usize,
}

/// The files of a table that are to be loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct Lane {
    /// File and its raw bytes, in their order.
    pub(super) files: VecDeque<(usize, u64)>,
    /// Whether only one file at a time makes progress, such as where inserting locks the table.
    pub(super) alone: bool,
    left: u64,
    active: u64,
}

impl Lane {
    /// A lane of these files.
    pub(super) fn new(files: impl Iterator<Item = (usize, u64)>, alone: bool) -> Self {
        let files: VecDeque<(usize, u64)> = files.collect();
        Self {
            left: files.iter().map(|(_, bytes)| *bytes).sum(),
            files,
            alone,
            active: 0,
        }
    }

    /// How much it wants another thread, if it can use one.
    fn weight(&self) -> Option<u64> {
        let has_all = self.alone && self.active > 0;
        let can = !has_all && !self.files.is_empty();
        can.then(|| self.left / (self.active + 1))
    }
}

/// The files that are to be loaded, of all tables.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: Vec<Lane>,
    /// The lanes that can use a thread: their weight and place.
    waiting: BTreeSet<(u64, Reverse<usize>)>,
}

impl Queue {
    /// A queue of one lane a table.
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        let waiting = lanes
            .iter()
            .enumerate()
            .filter_map(|(table, lane)| Some((lane.weight()?, Reverse(table))))
            .collect();
        Self { lanes, waiting }
    }

    /// The files that nobody has taken.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.files.len()).sum()
    }

    /// Takes a file; `None` if there is nothing that this thread could do, now or later.
    pub(super) fn take(&mut self) -> Option<Work> {
        let (_, Reverse(table)) = self.waiting.pop_last()?;
        let lane = &mut self.lanes[table];
        let (file, bytes) = lane.files.pop_front()?;
        lane.left -= bytes;
        lane.active += 1;
        self.wait(table);
        Some(Work { table, file })
    }

    /// Says that a file which was taken is loaded.
    pub(super) fn end(&mut self, work: Work) {
        if let Some(weight) = self.lanes[work.table].weight() {
            self.waiting.remove(&(weight, Reverse(work.table)));
        }
        self.lanes[work.table].active -= 1;
        self.wait(work.table);
    }

    fn wait(&mut self, table: usize) {
        if let Some(weight) = self.lanes[table].weight() {
            self.waiting.insert((weight, Reverse(table)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(files: usize, bytes: u64, alone: bool) -> Lane {
        Lane::new((0..files).map(|file| (file, bytes)), alone)
    }

    fn take(queue: &mut Queue, count: usize) -> Vec<(usize, usize)> {
        (0..count)
            .map_while(|_| queue.take())
            .map(|work| (work.table, work.file))
            .collect()
    }

    #[test]
    fn threads_spread_over_equals_and_gather_at_a_giant() {
        let mut equals = Queue::new(vec![lane(4, 10, false), lane(4, 10, false)]);
        assert_eq!(take(&mut equals, 4), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        let mut giant = Queue::new(vec![lane(1, 10, false), lane(20, 10, false)]);
        assert_eq!(take(&mut giant, 4), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn a_table_that_takes_one_at_a_time_keeps_nobody_waiting() {
        let mut queue = Queue::new(vec![lane(3, 10, true), lane(2, 1, false)]);
        assert_eq!(take(&mut queue, 9), [(0, 0), (1, 0), (1, 1)]);
        queue.end(Work { table: 1, file: 0 });
        assert_eq!(queue.take(), None);
        queue.end(Work { table: 0, file: 0 });
        assert_eq!(take(&mut queue, 9), [(0, 1)]);
        queue.end(Work { table: 0, file: 1 });
        assert_eq!(take(&mut queue, 9), [(0, 2)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn every_file_is_taken_once_and_in_its_order() {
        for threads in 1..6 {
            let mut queue = Queue::new(vec![
                lane(7, 3, false),
                lane(0, 9, false),
                lane(5, 0, true),
                lane(30, 2, false),
            ]);
            let mut taken = Vec::new();
            let mut active = VecDeque::new();
            loop {
                while active.len() < threads
                    && let Some(work) = queue.take()
                {
                    taken.push((work.table, work.file));
                    active.push_back(work);
                }
                let Some(work) = active.pop_front() else {
                    break;
                };
                queue.end(work);
            }
            for (table, files) in [(0, 7), (2, 5), (3, 30)] {
                let of_table: Vec<usize> = taken
                    .iter()
                    .filter(|(of, _)| *of == table)
                    .map(|(_, file)| *file)
                    .collect();
                assert_eq!(of_table, (0..files).collect::<Vec<_>>(), "{threads}");
            }
            assert_eq!(taken.len(), 42);
        }
    }
}
