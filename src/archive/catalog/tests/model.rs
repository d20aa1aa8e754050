//! Random histories against a naive model.
//!
//! The model knows which transactions were streamed, in order. Whatever is compacted, whatever of
//! what was replaced is deleted, and whatever an overtaken compactor leaves behind: the chain gives
//! those transactions, each once and in order, and tells of no problem. And whatever object is
//! taken away without which they cannot be had, it is missed.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::archive::layout::Epoch;

/// What happens, one thing after the other.
#[derive(Debug, Clone)]
enum Happening {
    /// The streamer puts a segment with so many transactions.
    Segment(u64),
    /// Another one takes over, behind all but the last so many segments, which come late.
    Takeover(usize),
    /// Adjacent segments of the chain are compacted: from this one (of all, in parts of 256) so
    /// many; the replaced ones are deleted as this mask says.
    Compact(u8, usize, u64),
    /// The same by a compactor that knows only the first so many happenings' state and was
    /// overtaken: it deletes nothing.
    Stale(usize, u8, usize),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        6 => (0..4_u64).prop_map(Happening::Segment),
        1 => (0..3_usize).prop_map(Happening::Takeover),
        2 => (any::<u8>(), 2..8_usize, any::<u64>())
            .prop_map(|(at, count, mask)| Happening::Compact(at, count, mask)),
        2 => (0..60_usize, any::<u8>(), 2..8_usize)
            .prop_map(|(when, at, count)| Happening::Stale(when, at, count)),
    ];
    proptest::collection::vec(one, 1..60)
}

#[derive(Debug, Default, Clone)]
struct World {
    /// What is in the store.
    stored: Vec<StoredSegment>,
    /// What the streamers wrote that counts, in order.
    log: Vec<StoredSegment>,
    epoch: u64,
    transactions: u64,
    number: u64,
    /// What was compacted up to here nobody overtook afterwards.
    compacted_to: (u64, u64),
}

impl World {
    fn append(&mut self, count: u64) {
        let before = self.log.last().cloned();
        let before = before.as_ref();
        let own = before.filter(|last| last.name.epoch.0 == self.epoch);
        let sequence = own.map_or(1, |last| last.name.last + 1);
        let mut fresh = self.make((self.epoch, sequence), count);
        fresh.index.previous = before.map(digest_of);
        fresh.index.continues = before
            .filter(|_| sequence == 1)
            .map(|last| (last.name.epoch, last.name.last));
        self.log.push(fresh.clone());
        self.stored.push(fresh);
    }

    fn make(&mut self, (epoch, sequence): (u64, u64), count: u64) -> StoredSegment {
        let before = if self.transactions == 0 {
            String::new()
        } else {
            format!("1-{}", self.transactions)
        };
        let added = match count {
            0 => String::new(),
            _ => format!("{}-{}", self.transactions + 1, self.transactions + count),
        };
        self.transactions += count;
        self.number += 1;
        let mut fresh = segment((epoch, sequence, sequence), (&before, &added), None);
        fresh.name.hash8 = format!("{:08x}", self.number);
        fresh.index.transactions = count;
        fresh
    }

    fn takeover(&mut self, late: usize) {
        // The late ones are of the newest epoch, and not yet there when the next one looks.
        let own = self
            .log
            .iter()
            .rev()
            .take_while(|s| s.name.epoch.0 == self.epoch && s.name.first > 1)
            .take_while(|s| (s.name.epoch.0, s.name.last) > self.compacted_to)
            .count();
        for _ in 0..late.min(own) {
            if let Some(gone) = self.log.pop() {
                self.transactions -= gone.index.transactions;
            }
        }
        // What was compacted of them does not count either: it was put too late.
        self.epoch += 1;
    }

    fn chain(&self) -> Chain {
        chain(&self.stored.iter().collect::<Vec<_>>())
    }

    /// An object for a run of the chain, which the caller's chain has.
    fn compact(&mut self, chain: &Chain, at: u8, count: usize) -> Option<Vec<StoredSegment>> {
        let segments = &chain.segments;
        let at = usize::from(at) * segments.len() / 256;
        let run: Vec<StoredSegment> = segments.iter().skip(at).take(count).cloned().collect();
        if run.len() < 2 {
            return None;
        }
        self.number += 1;
        let made = compacted(&run, self.number);
        if !self.stored.iter().any(|s| s.name == made.name) {
            self.stored.push(made);
        }
        Some(run)
    }

    fn run(happenings: &[Happening]) -> Self {
        let mut world = Self {
            epoch: 1,
            ..Self::default()
        };
        world.append(1);
        let mut past = vec![world.chain()];
        for happening in happenings {
            match happening {
                Happening::Segment(count) => world.append(*count),
                Happening::Takeover(late) => {
                    world.takeover(*late);
                    world.append(1);
                }
                Happening::Compact(at, count, mask) => {
                    let chain = world.chain();
                    // A compactor works on what counts and leaves what overlaps alone.
                    let clear = clear_of_overlaps(&chain);
                    if let Some(run) = world.compact(&clear, *at, *count) {
                        let last = run.last().expect("two at least").span().to;
                        world.compacted_to = world.compacted_to.max((last.0.0, last.1));
                        world.stored.retain(|stored| {
                            let place = run.iter().position(|s| s.name == stored.name);
                            place.is_none_or(|place| mask >> (place % 64) & 1 == 0)
                        });
                    }
                }
                Happening::Stale(when, at, count) => {
                    let then = past[*when % past.len()].clone();
                    world.compact(&then, *at, *count);
                }
            }
            past.push(world.chain());
        }
        world
    }
}

/// The digest that the next segment repeats.
fn digest_of(segment: &StoredSegment) -> crate::archive::hash::Sha256 {
    match segment.index.ends_with {
        Some(digest) => digest,
        None => {
            let hex = format!("{}{}", segment.name.hash8, "0".repeat(56));
            hex.parse().expect("a digest")
        }
    }
}

fn compacted(run: &[StoredSegment], number: u64) -> StoredSegment {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let mut made = first.clone();
    let is_across = first.name.epoch != last.name.epoch;
    let from = first.span().from;
    made.name.epoch = last.name.epoch;
    made.name.first = if is_across { 1 } else { first.name.first };
    made.name.last = last.name.last;
    made.name.compacted = true;
    made.name.hash8 = format!("{number:08x}");
    made.index.epoch = made.name.epoch;
    made.index.first_sequence = made.name.first;
    made.index.last_sequence = made.name.last;
    made.index.continues = Some(from).filter(|from| made.name.first == 1 && from.0 > Epoch(0));
    made.index.ends_with = Some(digest_of(last));
    for source in &run[1..] {
        made.index.added.extend_from(&source.index.added);
        made.index.transactions += source.index.transactions;
    }
    made
}

/// The chain's longest stretch that no other object overlaps without being within one of it.
fn clear_of_overlaps(chain: &Chain) -> Chain {
    let mut clear = chain.clone();
    let bad: Vec<Span> = chain
        .beside
        .iter()
        .map(StoredSegment::span)
        .filter(|span| !chain.segments.iter().any(|s| s.span().contains(span)))
        .collect();
    let stretches = chain
        .segments
        .split(|segment| bad.iter().any(|span| span.meets(&segment.span())));
    clear.segments = stretches
        .max_by_key(|stretch| stretch.len())
        .map(<[StoredSegment]>::to_vec)
        .unwrap_or_default();
    clear
}

fn gtids(segments: &[StoredSegment]) -> Vec<crate::gtid::Gtid> {
    segments
        .iter()
        .flat_map(|segment| segment.index.added.iter().collect::<Vec<_>>())
        .collect()
}

/// Whether the transactions of the log can still be had from what is there: by trying, from the
/// end back, every object that ends at a place.
fn can_be_had(stored: &[&StoredSegment], end: Place) -> bool {
    let mut reached = BTreeSet::from([end]);
    let mut todo = vec![end];
    while let Some(place) = todo.pop() {
        if place == (Epoch(0), 0) {
            return true;
        }
        for segment in stored.iter().filter(|s| s.span().to == place) {
            if reached.insert(segment.span().from) {
                todo.push(segment.span().from);
            }
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_chain_is_what_was_streamed(happenings in happenings()) {
        let world = World::run(&happenings);
        let chain = world.chain();
        prop_assert_eq!(&chain.problems, &[]);
        prop_assert_eq!(gtids(&chain.segments), gtids(&world.log));
        prop_assert_eq!(chain.end(), world.log.last().map(|s| s.index.after()));
        prop_assert_eq!(chain.segments.len() + chain.beside.len(), world.stored.len());
    }

    #[test]
    fn what_is_taken_away_is_missed_exactly_if_it_is_needed(
        happenings in happenings(),
        victims in proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let world = World::run(&happenings);
        let end = world.log.last().expect("never empty").span().to;
        let mut left: Vec<&StoredSegment> = world.stored.iter().collect();
        for victim in victims {
            if left.len() > 1 {
                left.remove(victim.index(left.len()));
            }
        }
        // That the very end is gone nothing in the log can tell.
        prop_assume!(left.iter().any(|s| s.span().to == end));
        let chain = chain(&left);
        if can_be_had(&left, end) {
            prop_assert_eq!(&chain.problems, &[]);
            prop_assert_eq!(gtids(&chain.segments), gtids(&world.log));
        } else {
            prop_assert!(!chain.problems.is_empty());
        }
    }
}
