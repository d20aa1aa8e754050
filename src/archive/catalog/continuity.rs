//! Whether each segment goes on where the one before it ended.

use super::{AcceptedGap, Problem, StoredSegment};
use crate::gtid::GtidSet;

/// Checks the segments of a chain, and finds the gaps that somebody has accepted.
pub(super) fn check(segments: &[StoredSegment]) -> (Vec<Problem>, Vec<AcceptedGap>) {
    let (mut problems, mut gaps) = (Vec::new(), Vec::new());
    let Some(first) = segments.first() else {
        return (problems, gaps);
    };
    let mut running = first.index.before.subtract(&first.index.gap);
    let mut before: Option<&StoredSegment> = None;
    for (at, segment) in segments.iter().enumerate() {
        let key = || segment.name.key();
        let index = &segment.index;
        let accepted = index.gap.subtract(&running);
        if !accepted.is_empty() {
            gaps.push(AcceptedGap {
                segment: key(),
                last_commit: segments[..at]
                    .iter()
                    .rev()
                    .find_map(|segment| segment.index.last_commit),
                first_commit: segments[at..]
                    .iter()
                    .find_map(|segment| segment.index.first_commit),
                missing: accepted.clone(),
            });
            running.extend_from(&accepted);
        }
        if index.before != running {
            problems.extend(differences(
                &key(),
                &running.subtract(&index.before),
                &index.before.subtract(&running),
            ));
        } else if before.is_some_and(|before| !before.is_before(segment)) {
            problems.push(Problem::BrokenLink { segment: key() });
        }
        let again = index.added.intersect(&running);
        problems.extend(differences(&key(), &again, &GtidSet::new()));
        running.extend_from(&index.before);
        running.extend_from(&index.added);
        before = Some(segment);
    }
    (problems, gaps)
}

/// The problems of a segment that knows too little or holds something again (`unexpected`), or
/// that knows of transactions that no segment before it holds (`missing`).
pub(in crate::archive) fn differences(
    key: &str,
    unexpected: &GtidSet,
    missing: &GtidSet,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !unexpected.is_empty() {
        problems.push(Problem::Discontinuity {
            segment: key.to_owned(),
            unexpected: unexpected.clone(),
        });
    }
    if !missing.is_empty() {
        problems.push(Problem::Gap {
            before: key.to_owned(),
            missing: missing.clone(),
        });
    }
    problems
}
