//! What to compact next, and what can go. Pure.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::archive::catalog::{Chain, StoredSegment};
use crate::gtid::GtidSet;
use crate::mysql::binlog::Checksum;

/// A weight of 1: an object as large as it may be.
const FULL: u64 = 1 << 30;
/// What weighs so much is not merged any more, unless its file has ended.
const HEAVY: u64 = FULL / 2;
/// How many times as heavy the next tier is.
const TIER: u64 = 16;
/// How many tiers there are below [`HEAVY`].
const TIERS: u32 = 5;

/// How large objects become, and what is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactOptions {
    /// The bytes of binlog in an object, at most.
    pub raw_bytes: u64,
    /// The bytes of an object in the store, at most: it is made in memory.
    pub stored_bytes: u64,
    /// The transactions in an object, at most.
    pub transactions: u64,
    /// So many of a size are merged at once.
    pub min_run: usize,
    /// So many of the newest segments are left alone.
    pub keep_newest: usize,
    /// Segments younger than this are left alone.
    pub min_age: Duration,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self {
            raw_bytes: 256 << 20,
            stored_bytes: 64 << 20,
            transactions: 200_000,
            min_run: 16,
            keep_newest: 8,
            min_age: Duration::from_secs(60),
        }
    }
}

/// Segments that are merged together or not at all.
#[derive(Debug, Clone)]
struct Unit {
    range: Range<usize>,
    size: Size,
    file: File,
    /// Whether transactions are missing before it for ever.
    behind_gap: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    raw: u64,
    stored: u64,
    transactions: u64,
}

/// What the events of a unit are of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum File {
    /// It has none.
    Silent,
    /// A server's binlog file.
    Of(Uuid, String, String, Checksum),
    /// It cannot be merged.
    Fixed,
}

impl Size {
    fn of(segment: &StoredSegment) -> Self {
        Self {
            raw: segment.index.raw_bytes,
            stored: segment.size,
            transactions: segment.index.transactions,
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            raw: self.raw.saturating_add(other.raw),
            stored: self.stored.saturating_add(other.stored),
            transactions: self.transactions.saturating_add(other.transactions),
        }
    }

    const fn fits(self, options: &CompactOptions) -> bool {
        self.raw <= options.raw_bytes
            && self.stored <= options.stored_bytes
            && self.transactions <= options.transactions
    }

    /// The share of the limit that is nearest.
    fn weight(self, options: &CompactOptions) -> u64 {
        let share = |part: u64, of: u64| {
            u64::try_from(u128::from(part) * u128::from(FULL) / u128::from(of.max(1)))
                .unwrap_or(u64::MAX)
        };
        share(self.raw, options.raw_bytes)
            .max(share(self.stored, options.stored_bytes))
            .max(share(self.transactions, options.transactions))
    }
}

impl File {
    fn of(segment: &StoredSegment) -> Self {
        let index = &segment.index;
        match &index.source {
            _ if index.is_silence() => Self::Silent,
            Some(source) => Self::Of(
                source.uuid,
                source.version.clone(),
                source.file.clone(),
                index.checksum,
            ),
            None => Self::Fixed,
        }
    }

    /// What both are of, if they are of one file.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Silent, file) | (file, Self::Silent) => file,
            (file, other) if file == other => file,
            _ => Self::Fixed,
        }
    }
}

/// The segments of the chain, by number, that are to become one object; `None` if all is well.
pub(super) fn next_run(
    chain: &Chain,
    options: &CompactOptions,
    now: DateTime<Utc>,
) -> Option<Range<usize>> {
    let units = units(chain, candidates(chain, options, now));
    let mut stretch: Vec<Unit> = Vec::new();
    let mut file = File::Silent;
    for unit in units {
        let with = file.clone().with(unit.file.clone());
        if unit.behind_gap || with == File::Fixed {
            // Nothing will be appended to what is before.
            if let Some(run) = closed_run(&stretch, options) {
                return Some(run);
            }
            stretch.clear();
            file = unit.file.clone();
        } else {
            file = with;
        }
        if unit.file == File::Fixed {
            file = File::Silent;
        } else {
            stretch.push(unit);
        }
    }
    open_run(&stretch, options)
}

/// How many segments from the start may be merged.
fn candidates(chain: &Chain, options: &CompactOptions, now: DateTime<Utc>) -> usize {
    let resume = chain.resume_point().map(|stored| stored.span().to);
    let resume = resume.and_then(|place| chain.place_of(place)).unwrap_or(0);
    let old = now - options.min_age;
    let young = chain
        .segments
        .iter()
        .position(|segment| segment.index.written > old)
        .unwrap_or(chain.segments.len());
    resume.saturating_sub(options.keep_newest).min(young)
}

/// The first `count` segments of the chain as units; one that reaches beyond is left out.
fn units(chain: &Chain, count: usize) -> Vec<Unit> {
    let segments = &chain.segments;
    let mut joined = vec![false; segments.len()];
    let mut fixed = vec![false; segments.len()];
    join_parts(segments, &mut joined, &mut fixed);
    for overlap in overlaps(chain) {
        for at in overlap.clone() {
            joined[at] |= at + 1 < overlap.end;
        }
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut start = 0;
    while start < count {
        let mut end = start + 1;
        while end < segments.len() && joined[end - 1] {
            end += 1;
        }
        if end > count {
            break;
        }
        let within = &segments[start..end];
        let is_fixed = fixed[start..end].iter().any(|fixed| *fixed)
            || within[1..].iter().any(|s| !s.index.gap.is_empty());
        let file = within
            .iter()
            .map(File::of)
            .fold(File::Silent, |file, other| file.with(other));
        units.push(Unit {
            range: start..end,
            size: within
                .iter()
                .map(Size::of)
                .fold(Size::default(), Size::plus),
            file: if is_fixed { File::Fixed } else { file },
            behind_gap: !within[0].index.gap.is_empty(),
        });
        start = end;
    }
    units
}

/// Joins the parts of each transaction that is whole, and fixes the others.
fn join_parts(segments: &[StoredSegment], joined: &mut [bool], fixed: &mut [bool]) {
    let part = |at: usize| segments.get(at).and_then(|s| s.index.part.as_ref());
    let mut at = 0;
    while at < segments.len() {
        let Some(first) = part(at) else {
            at += 1;
            continue;
        };
        let mut last = at;
        while part(last).is_some_and(|p| p.unfinished)
            && part(last + 1).is_some_and(|p| p.continued && p.gtid == first.gtid)
        {
            last += 1;
        }
        let is_whole = !first.continued && part(last).is_some_and(|p| !p.unfinished);
        for number in at..=last {
            fixed[number] = !is_whole;
            joined[number] |= is_whole && number < last;
        }
        at = last + 1;
    }
}

/// The segments of the chain that meet an object which is not within one of them.
fn overlaps(chain: &Chain) -> Vec<Range<usize>> {
    let segments = &chain.segments;
    let mut found = Vec::new();
    for span in chain.beside.iter().map(StoredSegment::span) {
        let first = segments.partition_point(|segment| segment.span().to <= span.from);
        let end = segments.partition_point(|segment| segment.span().from < span.to);
        let is_within = segments
            .get(first)
            .is_some_and(|segment| segment.span().contains(&span));
        if !is_within && first < end {
            found.push(first..end);
        }
    }
    found
}

/// A run of units of which nothing more will come: as few objects as fit.
fn closed_run(units: &[Unit], options: &CompactOptions) -> Option<Range<usize>> {
    let mut from = 0;
    while from < units.len() {
        let (run, next) = fill(units, from, options);
        if run.len() > 1 {
            return Some(run);
        }
        from = next;
    }
    None
}

/// A run of units of a file that goes on: enough of one tier, with what is lighter between.
fn open_run(units: &[Unit], options: &CompactOptions) -> Option<Range<usize>> {
    let mut below = 0;
    for tier in 1..=TIERS {
        let limit = HEAVY / TIER.pow(TIERS - tier);
        let weights: Vec<u64> = units.iter().map(|u| u.size.weight(options)).collect();
        let mut at = 0;
        while at < units.len() {
            let light = weights[at..].iter().take_while(|w| **w < limit).count();
            let of_tier = weights[at..at + light].iter().filter(|w| **w >= below);
            let many = options.min_run.saturating_mul(tier as usize);
            if of_tier.count() >= options.min_run || light >= many {
                let run = closed_run(&units[at..at + light], options);
                if run.is_some() {
                    return run;
                }
            }
            at += light + 1;
        }
        below = limit;
    }
    None
}

/// The segments of the units from `from` on that fit into an object, and the unit behind them.
fn fill(units: &[Unit], from: usize, options: &CompactOptions) -> (Range<usize>, usize) {
    let start = units[from].range.start;
    let mut size = units[from].size;
    if !size.fits(options) {
        return (start..start, from + 1);
    }
    let mut next = from + 1;
    while let Some(unit) = units.get(next) {
        size = size.plus(unit.size);
        if !size.fits(options) {
            break;
        }
        next += 1;
    }
    (start..units[next - 1].range.end, next)
}

/// The objects beside the chain that nobody needs: all that they stand for, and every transaction
/// in them, is in the chain, within one object of it that no other overlaps.
pub(super) fn garbage(chain: &Chain) -> Vec<StoredSegment> {
    let mut clear = vec![true; chain.segments.len()];
    for overlap in overlaps(chain) {
        clear[overlap].fill(false);
    }
    let held: GtidSet = chain.held();
    chain
        .beside
        .iter()
        .filter(|segment| {
            let span = segment.span();
            let holder = chain.place_of(span.to);
            holder.is_some_and(|at| clear[at] && chain.segments[at].span().contains(&span))
                && segment.index.added.is_subset(&held)
        })
        .cloned()
        .collect()
}
