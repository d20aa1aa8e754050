//! Targets against a made-up log of three segments.

use chrono::TimeDelta;

use super::*;
use crate::archive::catalog::Chain;
use crate::archive::hash::sha256;
use crate::archive::layout::{BranchNumber, Epoch, SegmentName};
use crate::archive::segment::SegmentIndex;
use crate::mysql::binlog::{Checksum, Summary};

mod edges;

const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(gnos: &str) -> GtidSet {
    format!("{UUID}:{gnos}").parse().expect("a GTID set")
}

fn gtid(gno: u64) -> Gtid {
    format!("{UUID}:{gno}").parse().expect("a GTID")
}

/// `micros` microseconds after the log's beginning.
fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000, 0).expect("in range") + TimeDelta::microseconds(micros)
}

fn transaction(gno: u64, micros: i64) -> IndexedTransaction {
    IndexedTransaction {
        gtid: gtid(gno),
        time: at(micros),
        original_time: None,
        server_id: 1,
        bytes: 100,
        summary: Summary::default(),
    }
}

/// The transactions of each segment: (GNO, commit time).
type Log = Vec<Vec<(u64, i64)>>;

struct World {
    history: History,
    details: Vec<Vec<IndexedTransaction>>,
    snapshots: Vec<SnapshotSet>,
}

/// A log that begins behind transaction 10, and a snapshot of that moment.
fn world(log: &Log, complete_to: i64) -> World {
    let mut before = set("1-10");
    let mut segments = Vec::new();
    let mut details = Vec::new();
    for (number, transactions) in log.iter().enumerate() {
        let lines: Vec<_> = transactions
            .iter()
            .map(|(gno, micros)| transaction(*gno, *micros))
            .collect();
        let added: GtidSet = lines.iter().map(|line| line.gtid.clone()).collect();
        let sequence = number as u64 + 1;
        let digest = sha256(b"");
        segments.push(crate::archive::catalog::StoredSegment {
            name: SegmentName {
                branch: BranchNumber(1),
                epoch: Epoch(1),
                first: sequence,
                last: sequence,
                hash8: digest.short(),
                compacted: false,
            },
            size: 0,
            index: SegmentIndex {
                format: 1,
                branch: BranchNumber(1),
                epoch: Epoch(1),
                first_sequence: sequence,
                last_sequence: sequence,
                previous: (number > 0).then_some(digest),
                continues: None,
                gap: GtidSet::new(),
                ends_with: None,
                source: None,
                checksum: Checksum::Crc32,
                before: before.clone(),
                added: added.clone(),
                transactions: lines.len() as u64,
                first_commit: lines.first().map(|line| line.time),
                last_commit: lines.iter().map(|line| line.time).max(),
                least_commit: None,
                complete_to: (sequence == log.len() as u64).then(|| at(complete_to)),
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
                written: at(0),
            },
        });
        before.extend_from(&added);
        details.push(lines);
    }
    World {
        history: History::of(Chain::compute(BranchNumber(1), segments)),
        details,
        snapshots: vec![SnapshotSet {
            set: set("1-10"),
            started: at(0),
            finished: at(0),
        }],
    }
}

fn three_segments() -> World {
    world(
        &vec![
            vec![(11, 100), (12, 200)],
            vec![(13, 300), (14, 300), (15, 300)],
            vec![(17, 400), (16, 500)],
        ],
        1000,
    )
}

fn cut(world: &World, target: &Target) -> Result<Cut, TargetError> {
    let lookup = lookup(&world.history, &world.snapshots, target)?;
    let read = |at: &usize| (*at, world.details[*at].clone());
    let lines: Lines = lookup.members.iter().map(read).collect();
    resolve(&world.history, &world.snapshots, target, &lookup, &lines)
}

fn until(micros: i64) -> Target {
    Target::Until { moment: at(micros) }
}

#[test]
fn the_made_up_log_is_whole() {
    assert_eq!(three_segments().history.problems, []);
}

#[test]
fn a_moment_takes_all_up_to_it_and_nothing_behind() {
    let world = three_segments();
    for (micros, expected) in [
        (0, "1-10"),
        (99, "1-10"),
        (100, "1-11"),
        (299, "1-12"),
        (300, "1-15"),
        (301, "1-15"),
        (400, "1-15:17"),
        (499, "1-15:17"),
        (500, "1-17"),
        (1000, "1-17"),
    ] {
        let cut = cut(&world, &until(micros)).expect("covered");
        assert_eq!(cut.set, set(expected), "{micros}");
        assert_eq!(cut.notes, Vec::<String>::new(), "{micros}");
    }
    let edge = cut(&world, &until(400)).expect("covered");
    assert_eq!(edge.last_in.map(|e| e.gtid), Some(gtid(17)));
    assert_eq!(edge.first_out.map(|e| e.gtid), Some(gtid(16)));
}

#[test]
fn a_moment_before_the_first_state_is_refused_with_that_state_s_time() {
    let mut world = three_segments();
    let refused = |asked, begins| TargetError::BeforeFirst {
        asked: at(asked),
        begins: at(begins),
    };
    assert_eq!(cut(&world, &until(-1)), Err(refused(-1, 0)));
    world.snapshots[0].finished = at(50);
    assert_eq!(cut(&world, &until(49)), Err(refused(49, 50)));
    assert_eq!(cut(&world, &until(50)).expect("covered").set, set("1-10"));
    // A transaction that is in proves the age of all before it.
    world.snapshots[0].finished = at(150);
    assert_eq!(cut(&world, &until(100)).expect("covered").set, set("1-11"));
    // The same where the log holds no transaction at all.
    let world = self::world(&vec![vec![]], 1000);
    assert_eq!(cut(&world, &until(-1)), Err(refused(-1, 0)));
    assert_eq!(cut(&world, &until(0)).expect("covered").set, set("1-10"));
}

#[test]
fn a_moment_in_a_hole_is_refused_even_if_a_snapshot_bridges_it() {
    let mut world = three_segments();
    world.history.members.remove(1);
    world.details.remove(1);
    world.snapshots.push(SnapshotSet {
        set: set("1-15"),
        started: at(0),
        finished: at(350),
    });
    let in_gap = |asked| TargetError::InGap {
        asked: at(asked),
        missing: set("13-15"),
    };
    assert_eq!(cut(&world, &until(250)), Err(in_gap(250)));
    assert_eq!(cut(&world, &until(399)), Err(in_gap(399)));
    assert_eq!(
        cut(&world, &until(400)).expect("covered").set,
        set("1-15:17")
    );
    assert_eq!(cut(&world, &until(150)).expect("covered").set, set("1-11"));
}

#[test]
fn a_moment_behind_the_end_is_refused_with_the_end() {
    let world = three_segments();
    let error = cut(&world, &until(1001)).expect_err("behind the end");
    assert_eq!(
        error,
        TargetError::Beyond {
            asked: at(1001),
            ends: at(1000)
        }
    );
}

#[test]
fn without_a_promise_the_last_transaction_s_own_moment_is_not_covered() {
    let mut world = three_segments();
    for member in &mut world.history.members {
        member.complete_to = None;
    }
    assert!(cut(&world, &until(500)).is_err());
    assert_eq!(
        cut(&world, &until(499)).expect("covered").set,
        set("1-15:17")
    );
}

#[test]
fn a_clock_that_went_back_cuts_at_the_first_one_out_and_says_so() {
    let world = world(
        &vec![vec![(11, 100), (12, 900)], vec![(13, 200), (14, 950)]],
        1000,
    );
    let cut = cut(&world, &until(500)).expect("covered");
    assert_eq!(cut.set, set("1-11"));
    assert_eq!(cut.notes.len(), 1);
}

#[test]
fn before_a_transaction_means_the_archive_s_order() {
    let world = three_segments();
    for (gno, expected) in [(11, "1-10"), (14, "1-13"), (17, "1-15"), (16, "1-15:17")] {
        let target = Target::BeforeGtid { gtid: gtid(gno) };
        assert_eq!(
            cut(&world, &target).expect("known").set,
            set(expected),
            "{gno}"
        );
    }
    assert_eq!(
        cut(&world, &Target::BeforeGtid { gtid: gtid(10) }),
        Err(TargetError::BeforeLog { gtid: gtid(10) })
    );
    assert_eq!(
        cut(&world, &Target::BeforeGtid { gtid: gtid(99) }),
        Err(TargetError::Unknown { unknown: set("99") })
    );
}

#[test]
fn a_whole_set_is_exact_and_a_part_means_up_to_its_last() {
    let world = three_segments();
    let gtid_set = |gnos: &str| Target::UntilGtid { set: set(gnos) };
    assert_eq!(
        cut(&world, &gtid_set("1-12:16")).expect("known").set,
        set("1-12:16")
    );
    assert_eq!(
        cut(&world, &gtid_set("14")).expect("known").set,
        set("1-14")
    );
    assert_eq!(
        cut(&world, &gtid_set("12:16")).expect("known").set,
        set("1-17")
    );
    assert_eq!(cut(&world, &gtid_set("5")).expect("known").set, set("1-10"));
    assert_eq!(
        cut(&world, &gtid_set("1-20")),
        Err(TargetError::Unknown {
            unknown: set("18-20")
        })
    );
}

#[test]
fn the_newest_state_takes_what_only_a_snapshot_has() {
    let mut world = three_segments();
    assert_eq!(
        cut(&world, &Target::Latest).expect("covered").set,
        set("1-17")
    );
    world.snapshots.push(SnapshotSet {
        set: set("1-19"),
        started: at(0),
        finished: at(5000),
    });
    assert_eq!(
        cut(&world, &Target::Latest).expect("covered").set,
        set("1-19")
    );
    // For an older moment it is too new, and no stranger: the log has just not caught up.
    assert_eq!(
        cut(&world, &until(450)).expect("covered").set,
        set("1-15:17")
    );
}

#[test]
fn what_never_comes_through_the_log_belongs_to_every_later_cut() {
    let mut world = three_segments();
    let stranger: GtidSet = "11111111-71ca-11e1-9e33-c80aa9429562:1"
        .parse()
        .expect("a set");
    world.snapshots.push(SnapshotSet {
        set: set("1-12").union(&stranger),
        started: at(0),
        finished: at(250),
    });
    let later = cut(&world, &until(450)).expect("covered");
    assert_eq!(later.set, set("1-15:17").union(&stranger));
    assert_eq!(later.notes.len(), 1);
    assert_eq!(cut(&world, &until(150)).expect("covered").set, set("1-11"));
}

#[test]
fn snapshots_alone_restore_to_themselves() {
    let mut world = world(&vec![], 0);
    assert_eq!(
        cut(&world, &Target::Latest).expect("covered").set,
        set("1-10")
    );
    assert!(matches!(
        cut(&world, &until(5)),
        Err(TargetError::NoLog { .. })
    ));
    world.snapshots.clear();
    assert_eq!(cut(&world, &Target::Latest), Err(TargetError::Empty));
}

#[test]
fn the_edges_are_told_wherever_the_cut_stands() {
    let world = three_segments();
    let edges = |target: &Target| {
        let cut = cut(&world, target).expect("covered");
        let gno = |edge: Option<Edge>| edge.map(|edge| edge.gtid);
        (gno(cut.last_in), gno(cut.first_out))
    };
    let pair = |last: Option<u64>, first: Option<u64>| (last.map(gtid), first.map(gtid));
    assert_eq!(edges(&until(50)), pair(None, Some(11)));
    // Between two segments the one before is looked into.
    assert_eq!(edges(&until(299)), pair(Some(12), Some(13)));
    assert_eq!(edges(&until(1000)), pair(Some(16), None));
    assert_eq!(edges(&Target::Latest), pair(Some(16), None));
    let before = |gno| Target::BeforeGtid { gtid: gtid(gno) };
    assert_eq!(edges(&before(13)), pair(Some(12), Some(13)));
    assert_eq!(edges(&before(11)), pair(None, Some(11)));
    let up_to = |gnos| Target::UntilGtid { set: set(gnos) };
    assert_eq!(edges(&up_to("12")), pair(Some(12), Some(13)));
    assert_eq!(edges(&up_to("1-15")), pair(Some(15), Some(17)));
    assert_eq!(edges(&up_to("1-12:14")), pair(Some(14), Some(13)));
}

#[test]
fn a_shared_microsecond_is_told() {
    let world = three_segments();
    let remarks = |target: &Target| cut(&world, target).expect("covered").remarks;
    let told = remarks(&until(300));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("3 transactions"), "{told:?}");
    assert!(
        told[0].contains(&format!("{} to {}", gtid(13), gtid(15))),
        "{told:?}"
    );
    assert_eq!(remarks(&until(301)), [""; 0]);
    assert_eq!(remarks(&until(200)), [""; 0]);
    let told = remarks(&Target::BeforeGtid { gtid: gtid(15) });
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("2 that are in and 1 that are out"),
        "{told:?}"
    );
    let divided = remarks(&Target::UntilGtid {
        set: set("1-12:14"),
    });
    assert!(divided[0].contains("no stretch of the log"), "{divided:?}");
}

#[test]
fn what_a_clock_that_went_back_leaves_out_is_counted_with_the_way_to_have_it() {
    let world = world(
        &vec![
            vec![(11, 100), (12, 900), (13, 400)],
            vec![(14, 450), (15, 950)],
            vec![(16, 480), (17, 990)],
        ],
        1000,
    );
    let found = cut(&world, &until(500)).expect("covered");
    assert_eq!(found.set, set("1-11"));
    let [note] = found.notes.as_slice() else {
        panic!("{:?}", found.notes);
    };
    assert!(note.contains("there are 3 with commit times"), "{note}");
    assert!(
        note.contains(&format!(
            "({} to {}",
            crate::clock::rfc3339(at(400)),
            crate::clock::rfc3339(at(480))
        )),
        "{note}"
    );
    let way = format!("--until-gtid {}", gtid(16));
    assert!(note.ends_with(&way), "{note}");
    // That target takes what came between, too.
    let all = Target::UntilGtid { set: set("16") };
    assert_eq!(cut(&world, &all).expect("known").set, set("1-16"));
    assert_eq!(cut(&world, &until(99)).expect("covered").notes, [""; 0]);
}

#[test]
fn a_mark_is_exact_or_nothing() {
    let world = three_segments();
    let mark = |gnos: &str| Target::UntilMark {
        mark: "m".parse().expect("a name"),
        time: at(0),
        set: set(gnos),
    };
    assert_eq!(
        cut(&world, &mark("1-13:17")).expect("known").set,
        set("1-13:17")
    );
    assert!(matches!(
        cut(&world, &mark("1-9")),
        Err(TargetError::MarkTooOld { .. })
    ));
    assert_eq!(
        cut(&world, &mark("1-18")),
        Err(TargetError::Unknown { unknown: set("18") })
    );
}
