//! Random interleavings of streamers, compactors and deletions, at the level of indexes.
//!
//! Every step of every compactor (list, put, look for a newer epoch, each single deletion) happens at
//! a random moment, whoever has taken over meanwhile; a compactor may sleep between any two of them, and a
//! put may come long after its compactor has given it up. After each step a reader finds exactly what was streamed.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::plan::{CompactOptions, garbage, next_run};
use super::*;
use crate::archive::catalog::StoredSegment;
use crate::archive::layout::SegmentName;
use crate::archive::merge::Stand;
use crate::archive::segment::{SegmentIndex, SegmentSource};
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The newest streamer puts a segment.
    Stream(u64),
    /// Another claims the archive; the overtaken one puts so many segments afterwards.
    Takeover(u64),
    /// This one of the compactors does its next step.
    Compact(prop::sample::Index),
    /// This one gives its put up, and it may come later; or it dies.
    Fail(prop::sample::Index),
    /// A put that was given up comes after all.
    Late(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let one = prop_oneof![
        8 => (0..3_u64).prop_map(Step::Stream),
        1 => (0..3_u64).prop_map(Step::Takeover),
        16 => index().prop_map(Step::Compact),
        1 => index().prop_map(Step::Fail),
        1 => index().prop_map(Step::Late),
    ];
    proptest::collection::vec(one, 50..250)
}

/// Where a compactor is.
#[derive(Debug, Clone)]
enum State {
    Idle,
    Planned(Chain, std::ops::Range<usize>),
    /// It has put; it will look, and then delete what the chain does not need.
    Put(Chain),
    Deleting(Vec<StoredSegment>),
    Gone,
}

#[derive(Debug, Default)]
struct World {
    stored: Vec<StoredSegment>,
    expected: Vec<u64>,
    epoch: u64,
    sequence: u64,
    number: u64,
    gno: u64,
    /// The last segment that counts.
    tail: Option<StoredSegment>,
    compactors: Vec<(u64, State)>,
    late: Vec<StoredSegment>,
    deleted: u64,
}

fn options() -> CompactOptions {
    CompactOptions {
        min_run: 2,
        keep_newest: 1,
        min_age: Duration::ZERO,
        ..CompactOptions::default()
    }
}

impl World {
    fn chain(&self) -> Chain {
        Chain::compute(BranchNumber(1), self.stored.clone())
    }

    fn fresh(&mut self, (epoch, sequence): (u64, u64), gnos: (u64, u64)) -> StoredSegment {
        self.number += 1;
        let digest = sha256(&self.number.to_le_bytes());
        let range = |from: u64, to: u64| match from <= to {
            true => set(&format!("{from}-{to}")),
            false => GtidSet::new(),
        };
        StoredSegment {
            name: SegmentName {
                branch: BranchNumber(1),
                epoch: Epoch(epoch),
                first: sequence,
                last: sequence,
                hash8: digest.short(),
                compacted: false,
            },
            size: 100,
            index: SegmentIndex {
                format: 2,
                branch: BranchNumber(1),
                epoch: Epoch(epoch),
                first_sequence: sequence,
                last_sequence: sequence,
                previous: None,
                continues: None,
                gap: GtidSet::new(),
                ends_with: Some(digest),
                source: Some(SegmentSource {
                    uuid: Uuid::from_u128(1),
                    version: String::new(),
                    file: String::new(),
                    server_ids: Vec::new(),
                }),
                checksum: Checksum::Crc32,
                before: range(1, gnos.0),
                added: range(gnos.0 + 1, gnos.1),
                transactions: gnos.1 - gnos.0,
                first_commit: None,
                last_commit: None,
                least_commit: None,
                complete_to: None,
                part: None,
                tables: Vec::new(),
                tables_incomplete: false,
                statements: false,
                raw_bytes: 300,
                raw_sha256: digest,
                body_bytes: 0,
                body_sha256: digest,
                details_bytes: 0,
                details_sha256: digest,
                written: at(1),
            },
        }
    }

    /// Goes on behind `tail`, as the newest streamer.
    fn stream(&mut self, count: u64) {
        self.sequence += 1;
        let gnos = (self.gno, self.gno + count);
        let mut fresh = self.fresh((self.epoch, self.sequence), gnos);
        let digest = fresh.index.ends_with.take();
        if let Some(tail) = &self.tail {
            fresh.index.previous = tail.index.ends_with;
            fresh.index.continues = Some(tail.span().to).filter(|_| self.sequence == 1);
        }
        self.expected.extend(gnos.0 + 1..=gnos.1);
        self.gno += count;
        self.stored.push(fresh.clone());
        // What the next one links to.
        fresh.index.ends_with = digest;
        self.tail = Some(fresh);
    }

    fn takeover(&mut self, late: u64) {
        let old = (self.epoch, self.sequence, self.gno, self.tail.clone());
        for number in 1..=late {
            // They are put after the claim, so nobody counts them; the same transactions come
            // again from the new one.
            let gnos = (old.2 + number - 1, old.2 + number);
            let mut fresh = self.fresh((old.0, old.1 + number), gnos);
            fresh.index.ends_with = None;
            self.late.push(fresh);
        }
        self.epoch += 1;
        self.sequence = 0;
        self.stream(late + 1);
        self.compactors.push((self.epoch, State::Idle));
    }

    fn compact(&mut self, which: usize) {
        let (epoch, state) = self.compactors[which].clone();
        let is_newest = epoch == self.epoch;
        let next = match state {
            State::Gone => State::Gone,
            State::Idle if !is_newest => State::Gone,
            State::Idle => {
                let chain = self.chain();
                let trash = garbage(&chain);
                match next_run(&chain, &options(), at(100)) {
                    _ if !trash.is_empty() => State::Deleting(trash),
                    Some(run) => State::Planned(chain, run),
                    None => State::Idle,
                }
            }
            State::Planned(mut chain, run) => {
                let sources = chain.segments[run.clone()].to_vec();
                // It reads them before it puts.
                let are_there = |s: &StoredSegment| self.stored.iter().any(|t| t.name == s.name);
                if sources.iter().all(are_there) {
                    let made = self.made(&sources);
                    self.put(made.clone());
                    let replaced: Vec<_> = chain.segments.splice(run, [made]).collect();
                    chain.beside.extend(replaced);
                    State::Put(chain)
                } else {
                    State::Idle
                }
            }
            State::Put(_) if !is_newest => State::Gone,
            State::Put(chain) => State::Deleting(garbage(&chain)),
            State::Deleting(mut left) => match left.pop() {
                None => State::Idle,
                Some(victim) => {
                    self.stored.retain(|s| s.name != victim.name);
                    self.deleted += 1;
                    State::Deleting(left)
                }
            },
        };
        self.compactors[which].1 = next;
    }

    fn put(&mut self, made: StoredSegment) {
        if !self.stored.iter().any(|s| s.name == made.name) {
            self.stored.push(made);
        }
    }

    fn made(&self, sources: &[StoredSegment]) -> StoredSegment {
        let stand = Stand::of(sources).expect("a run");
        let mut made = sources[0].clone();
        made.name.epoch = stand.epoch;
        made.name.first = stand.first;
        made.name.last = stand.last;
        made.name.compacted = true;
        made.index.epoch = stand.epoch;
        made.index.first_sequence = stand.first;
        made.index.last_sequence = stand.last;
        made.index.continues = stand.continues;
        let names: Vec<_> = sources.iter().map(|s| s.name.key()).collect();
        made.name.hash8 = sha256(names.concat().as_bytes()).short();
        for source in &sources[1..] {
            made.index.added.extend_from(&source.index.added);
            made.index.transactions += source.index.transactions;
        }
        // Digests are checked elsewhere: nothing to compare here.
        made.index.ends_with = None;
        made
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Stream(count) => self.stream(count),
            Step::Takeover(late) => self.takeover(late),
            Step::Compact(which) => {
                let which = which.index(self.compactors.len());
                self.compact(which);
            }
            Step::Fail(which) => {
                let which = which.index(self.compactors.len());
                let (epoch, state) = self.compactors[which].clone();
                if let State::Planned(chain, run) = state {
                    // Nobody knows whether it was put: a later one of this process tries again.
                    let made = self.made(&chain.segments[run]);
                    self.late.push(made);
                    self.compactors[which].1 = State::Idle;
                } else if epoch < self.epoch {
                    self.compactors[which].1 = State::Gone;
                }
            }
            Step::Late(which) if !self.late.is_empty() => {
                let which = which.index(self.late.len());
                let made = self.late.swap_remove(which);
                self.put(made);
            }
            Step::Late(_) => {}
        }
    }

    fn check(&self) {
        let chain = self.chain();
        let found: Vec<u64> = chain
            .segments
            .iter()
            .flat_map(|s| {
                s.index
                    .added
                    .iter()
                    .map(|gtid| gtid.gno)
                    .collect::<Vec<_>>()
            })
            .collect();
        let problems: Vec<_> = chain
            .problems
            .iter()
            .filter(|p| !matches!(p, crate::archive::catalog::Problem::BrokenLink { .. }))
            .collect();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(found, self.expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_interleaves_the_log_is_what_was_streamed(steps in steps()) {
        let mut world = World {
            epoch: 1,
            compactors: vec![(1, State::Idle)],
            ..World::default()
        };
        world.stream(1);
        for step in steps {
            world.step(step);
            world.check();
        }
        // In the end one compactor is left, and nothing is in its way for ever.
        let keys: BTreeSet<_> = world.stored.iter().map(|s| s.name.key()).collect();
        prop_assert_eq!(keys.len(), world.stored.len());
    }
}
