//! Chains of made-up segments: takeovers, holes, compaction, conflicts.

mod model;

use chrono::DateTime;

use super::*;
use crate::archive::hash::sha256;
use crate::mysql::binlog::Checksum;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    if text.is_empty() {
        return GtidSet::new();
    }
    format!("{UUID}:{text}").parse().expect("a GTID set")
}

/// A segment `epoch`/`first`-`last` with its GTIDs, linked to `previous`.
fn segment(
    (epoch, first, last): (u64, u64, u64),
    (before, added): (&str, &str),
    previous: Option<&StoredSegment>,
) -> StoredSegment {
    let unix_epoch = DateTime::UNIX_EPOCH;
    let digest = sha256(format!("{epoch}/{first}/{last}/{added}").as_bytes());
    StoredSegment {
        name: SegmentName {
            branch: BranchNumber(1),
            epoch: Epoch(epoch),
            first,
            last,
            hash8: digest.short(),
            compacted: first != last,
        },
        size: 100,
        index: SegmentIndex {
            format: 1,
            branch: BranchNumber(1),
            epoch: Epoch(epoch),
            first_sequence: first,
            last_sequence: last,
            previous: previous.map(|p| {
                let name = &p.name;
                let added = p.index.added.to_string();
                let added = added.split_once(':').map_or("", |(_, gnos)| gnos);
                sha256(format!("{}/{}/{}/{added}", name.epoch, name.first, name.last).as_bytes())
            }),
            continues: previous
                .filter(|_| first == 1)
                .map(|p| (p.name.epoch, p.name.last)),
            gap: GtidSet::new(),
            ends_with: None,
            source: None,
            checksum: Checksum::Crc32,
            before: set(before),
            added: set(added),
            transactions: 1,
            first_commit: None,
            last_commit: None,
            least_commit: None,
            complete_to: None,
            part: None,
            tables: Vec::new(),
            tables_incomplete: false,
            statements: false,
            raw_bytes: 0,
            raw_sha256: digest,
            body_bytes: 0,
            body_sha256: digest,
            details_bytes: 0,
            details_sha256: digest,
            written: unix_epoch,
        },
    }
}

fn chain(segments: &[&StoredSegment]) -> Chain {
    Chain::compute(
        BranchNumber(1),
        segments.iter().map(|s| (*s).clone()).collect(),
    )
}

fn places(chain: &Chain) -> Vec<(u64, u64, u64)> {
    chain
        .segments
        .iter()
        .map(|s| (s.name.epoch.0, s.name.first, s.name.last))
        .collect()
}

#[test]
fn a_takeover_leaves_out_what_the_overtaken_one_wrote_later() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let b = segment((1, 2, 2), ("1-5", "6-7"), Some(&a));
    let late = segment((1, 3, 3), ("1-7", "8"), Some(&b));
    let c = segment((2, 1, 1), ("1-7", "8-9"), Some(&b));
    let got = chain(&[&late, &c, &b, &a]);
    assert_eq!(places(&got), [(1, 1, 1), (1, 2, 2), (2, 1, 1)]);
    assert_eq!(got.problems, []);
    assert_eq!(got.end(), Some(set("1-9")));
    assert_eq!(got.held(), set("1-9"));
}

#[test]
fn a_claim_without_segments_and_one_that_was_skipped_change_nothing() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let lost = segment((2, 1, 1), ("1-5", "6"), Some(&a));
    let c = segment((3, 1, 1), ("1-5", "6-9"), Some(&a));
    let got = chain(&[&a, &lost, &c]);
    assert_eq!(places(&got), [(1, 1, 1), (3, 1, 1)]);
    assert_eq!(got.problems, []);
}

#[test]
fn every_hole_is_told() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let b = segment((1, 2, 2), ("1-5", "6-7"), Some(&a));
    let c = segment((1, 3, 3), ("1-7", "8"), Some(&b));
    let got = chain(&[&a, &c]);
    assert_eq!(
        got.problems,
        [
            Problem::MissingSegments {
                epoch: Epoch(1),
                from: 2,
                to: 2
            },
            Problem::Gap {
                before: c.name.key(),
                missing: set("6-7")
            }
        ]
    );
    assert_eq!(got.missing(), set("6-7"));

    let d = segment((2, 1, 1), ("1-8", "9"), Some(&c));
    let without_the_end = chain(&[&a, &b, &d]);
    assert!(
        without_the_end
            .problems
            .contains(&Problem::MissingSegments {
                epoch: Epoch(1),
                from: 3,
                to: 3
            })
    );
    assert_eq!(without_the_end.missing(), set("8"));
    // The oldest segments may be gone: retention removes them, and the chain starts later.
    let pruned = chain(&[&b, &c]);
    assert_eq!(pruned.missing(), GtidSet::new());
    assert_eq!(pruned.start(), Some(&set("1-5")));
}

#[test]
fn a_compacted_segment_stands_for_the_fresh_ones() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let b = segment((1, 2, 2), ("1-5", "6-7"), Some(&a));
    let c = segment((1, 3, 3), ("1-7", "8"), Some(&b));
    let compacted = segment((1, 1, 2), ("", "1-7"), None);
    for present in [
        vec![&compacted, &a, &b, &c],
        vec![&compacted, &b, &c],
        vec![&c, &compacted],
    ] {
        let got = chain(&present);
        assert_eq!(places(&got), [(1, 1, 2), (1, 3, 3)]);
        assert_eq!(got.problems, []);
        assert_eq!(got.held(), set("1-8"));
    }
}

#[test]
fn what_holds_transactions_twice_or_knows_too_little_is_told() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let twice = segment((1, 2, 2), ("1-5", "5-7"), Some(&a));
    assert_eq!(
        chain(&[&a, &twice]).problems,
        [Problem::Discontinuity {
            segment: twice.name.key(),
            unexpected: set("5")
        }]
    );
    let forgetful = segment((1, 2, 2), ("1-4", "6"), Some(&a));
    assert_eq!(
        chain(&[&a, &forgetful]).problems,
        [Problem::Discontinuity {
            segment: forgetful.name.key(),
            unexpected: set("5")
        }]
    );
    let other = segment((1, 1, 1), ("", "1-4"), None);
    let b = segment((1, 2, 2), ("1-5", "6-7"), Some(&a));
    let linked_elsewhere = segment((1, 2, 2), ("1-5", "6-7"), Some(&other));
    assert_eq!(chain(&[&a, &b]).problems, []);
    assert_eq!(
        chain(&[&a, &linked_elsewhere]).problems,
        [Problem::BrokenLink {
            segment: linked_elsewhere.name.key()
        }]
    );
}

#[test]
fn a_new_claim_goes_on_before_an_unfinished_transaction() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let mut half = segment((1, 2, 2), ("1-5", ""), Some(&a));
    half.index.part = Some(crate::archive::segment::Part {
        gtid: format!("{UUID}:6").parse().expect("a GTID"),
        continued: false,
        unfinished: true,
    });
    let got = chain(&[&a, &half]);
    assert_eq!(got.resume_point().map(|s| s.name.first), Some(1));
    assert_eq!(got.problems, []);
}

#[test]
fn an_accepted_gap_is_no_problem_and_is_never_forgotten() {
    let mut a = segment((1, 1, 1), ("", "1-5"), None);
    a.index.last_commit = DateTime::from_timestamp(100, 0);
    let mut b = segment((1, 2, 2), ("1-9", "10"), Some(&a));
    b.index.first_commit = DateTime::from_timestamp(200, 0);
    let without = chain(&[&a, &b]);
    assert_eq!(
        without.problems,
        [Problem::Gap {
            before: b.name.key(),
            missing: set("6-9")
        }]
    );
    b.index.gap = set("6-9");
    let got = chain(&[&a, &b]);
    assert_eq!(got.problems, []);
    assert_eq!(
        got.gaps,
        [AcceptedGap {
            missing: set("6-9"),
            segment: b.name.key(),
            last_commit: DateTime::from_timestamp(100, 0),
            first_commit: DateTime::from_timestamp(200, 0),
        }]
    );
    assert_eq!((got.accepted(), got.missing()), (set("6-9"), set("")));
    assert_eq!(got.held(), set("1-5:10"));
    // What was accepted excuses nothing else.
    b.index.gap = set("6-8");
    let got = chain(&[&a, &b]);
    assert_eq!((got.accepted(), got.missing()), (set("6-8"), set("9")));
    b.index.gap = set("6-12");
    let problems = chain(&[&a, &b]).problems;
    let is_told = |p: &Problem| matches!(p, Problem::Discontinuity { .. });
    assert!(!problems.is_empty() && problems.iter().all(is_told));
    // The link to the segment before is looked at all the same.
    b.index.gap = set("6-9");
    b.index.previous = None;
    assert_eq!(
        chain(&[&a, &b]).problems,
        [Problem::BrokenLink {
            segment: b.name.key()
        }]
    );
}

#[test]
fn a_link_reaches_over_compacted_segments() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let b = segment((1, 2, 2), ("1-5", "6-7"), Some(&a));
    let c = segment((1, 3, 3), ("1-7", "8"), Some(&b));
    let mut compacted = segment((1, 1, 2), ("", "1-7"), None);
    compacted.index.ends_with = c.index.previous;
    assert_eq!(chain(&[&compacted, &c]).problems, []);
    compacted.index.ends_with = b.index.previous;
    assert_eq!(
        chain(&[&compacted, &c]).problems,
        [Problem::BrokenLink {
            segment: c.name.key()
        }]
    );
}

#[test]
fn twins_are_a_conflict_only_if_they_are_fresh() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let mut twin = segment((1, 1, 1), ("", "1-5"), None);
    twin.name.hash8 = "ffffffff".to_owned();
    let conflict = Problem::Conflict {
        epoch: Epoch(1),
        sequence: 1,
    };
    assert_eq!(chain(&[&a, &twin]).problems, [conflict]);
    let (mut one, mut other) = (a.clone(), twin.clone());
    one.name.compacted = true;
    other.name.compacted = true;
    for present in [[&one, &other], [&other, &one]] {
        let got = chain(&present);
        assert_eq!(got.problems, []);
        assert_eq!(
            got.segments[0].name.hash8,
            one.name.hash8.clone().min(other.name.hash8.clone())
        );
        assert_eq!(got.beside.len(), 1);
    }
    assert_eq!(chain(&[&a, &other]).problems, []);
}

#[test]
fn an_epoch_that_is_gone_altogether_is_missed() {
    let a = segment((1, 1, 1), ("", "1-5"), None);
    let b = segment((1, 2, 2), ("1-5", "6-7"), Some(&a));
    let c = segment((2, 1, 1), ("1-7", "8"), Some(&b));
    let missing = Problem::MissingSegments {
        epoch: Epoch(1),
        from: 1,
        to: 2,
    };
    assert_eq!(chain(&[&c]).problems, [missing]);
}
