//! Which segments make up the log: a path from its end back to its start.
//!
//! Each object leads from one place of the log to a later one: a fresh segment from the sequence
//! number before it to its own, an epoch's first one from where that epoch went on, a compacted
//! one from the start to the end of all that it stands for, epochs absorbed among them. What
//! counts is the path back from the newest place: what an overtaken streamer wrote later lies
//! on no such path, and of a compacted segment and those it was made from the path takes the
//! compacted one, since it has the fewest objects. A compactor that was overtaken may have left
//! objects that overlap newer ones; the path goes around them if it can. Only if there is no
//! whole path does it cross holes, as few sequence numbers as possible, and names them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Place, StoredSegment};
use crate::archive::layout::Epoch;

/// What lies before the first segment of a history.
const START: Place = (Epoch(0), 0);

/// The path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cover {
    /// The segments that count, in order, by their numbers in the input.
    pub(super) chosen: Vec<usize>,
    /// The sequence numbers that no object on the path has: epoch, first, last.
    pub(super) missing: Vec<(Epoch, u64, u64)>,
    /// Segments that do not say where their epoch went on, although they should.
    pub(super) unlinked: Vec<usize>,
}

/// How good a way is, best first: few sequence numbers missing, few jumps between epochs that
/// nothing proves, few objects.
type Cost = (u128, u64, u64);

/// The last step of the best way to a place.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Here the log begins.
    Begin,
    /// Over this segment.
    Segment(usize),
    /// Over sequence numbers that are not there.
    Hole,
    /// From the epoch before, although nothing says so.
    Jump,
}

/// Finds the path.
pub(super) fn cover(segments: &[StoredSegment]) -> Cover {
    let mut into: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    let mut places: BTreeSet<Place> = BTreeSet::from([START]);
    for (number, segment) in segments.iter().enumerate() {
        let span = segment.span();
        into.entry(span.to).or_default().push(number);
        for place in [span.from, span.to] {
            places.insert(place);
            places.insert((place.0, 0));
        }
    }
    let Some(end) = into.keys().next_back().copied() else {
        return Cover::default();
    };
    let mut best: BTreeMap<Place, (Cost, Step, Place)> = BTreeMap::new();
    let mut last = START;
    for place in places {
        let way = best_way(place, last, segments, into.get(&place), &best);
        best.insert(place, way);
        last = place;
    }
    walk(end, &best)
}

fn best_way(
    place: Place,
    last: Place,
    segments: &[StoredSegment],
    into: Option<&Vec<usize>>,
    best: &BTreeMap<Place, (Cost, Step, Place)>,
) -> (Cost, Step, Place) {
    let cost_of = |place: &Place| best.get(place).map_or((0, 0, 0), |way| way.0);
    let mut way = if place == START {
        ((0, 0, 0), Step::Begin, START)
    } else if place.1 == 0 {
        // Nothing tells where this epoch went on: at the end of the one before, if there is one.
        let (missing, jumps, objects) = cost_of(&last);
        ((missing, jumps + 1, objects), Step::Jump, last)
    } else {
        let (missing, jumps, objects) = cost_of(&last);
        let hole = u128::from(place.1 - last.1);
        ((missing + hole, jumps, objects), Step::Hole, last)
    };
    let over = into.into_iter().flatten().map(|number| {
        let from = segments[*number].span().from;
        let (missing, jumps, objects) = cost_of(&from);
        ((missing, jumps, objects + 1), *number, from)
    });
    // Of equal ways the one whose last object is the longest; between twins the name decides.
    let over = over.min_by_key(|(cost, number, from)| {
        let name = &segments[*number].name;
        (*cost, *from, Reverse(name.compacted), name.hash8.clone())
    });
    if let Some((cost, number, from)) = over
        && cost <= way.0
    {
        way = (cost, Step::Segment(number), from);
    }
    way
}

fn walk(end: Place, best: &BTreeMap<Place, (Cost, Step, Place)>) -> Cover {
    let mut cover = Cover::default();
    let mut at = end;
    let mut hole: Option<(Epoch, u64, u64)> = None;
    while let Some((_, step, from)) = best.get(&at).copied() {
        match step {
            Step::Begin => break,
            Step::Hole => {
                hole = match hole {
                    Some((epoch, _, to)) => Some((epoch, from.1 + 1, to)),
                    None => Some((at.0, from.1 + 1, at.1)),
                };
            }
            Step::Segment(number) => {
                cover.missing.extend(hole.take());
                cover.chosen.push(number);
            }
            Step::Jump => match (hole.take(), cover.chosen.last()) {
                (Some(hole), _) => cover.missing.push(hole),
                (None, Some(number)) => cover.unlinked.push(*number),
                (None, None) => {}
            },
        }
        at = from;
    }
    cover.missing.extend(hole);
    cover.chosen.reverse();
    cover.missing.reverse();
    cover.unlinked.reverse();
    cover
}
