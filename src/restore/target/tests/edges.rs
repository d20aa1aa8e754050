//! The end of the log, its holes, and what is offered beside them.

use super::*;

#[test]
fn the_last_transaction_s_own_moment_is_covered_as_soon_as_the_source_vouches_for_it() {
    let mut world = three_segments();
    let last = world.history.members.len() - 1;
    world.history.members[last].complete_to = Some(at(500));
    assert_eq!(cut(&world, &until(500)).expect("covered").set, set("1-17"));
    let beyond = |asked, ends| TargetError::Beyond {
        asked: at(asked),
        ends: at(ends),
    };
    assert_eq!(cut(&world, &until(501)), Err(beyond(501, 500)));
    // An answer of before the last commit vouches for less than that commit itself proves.
    world.history.members[last].complete_to = Some(at(450));
    assert_eq!(cut(&world, &until(500)), Err(beyond(500, 499)));
    // The state with that transaction is nearer than the last moment of which all is known.
    let found = nearest::candidates(
        &world.history,
        &world.snapshots,
        &until(500),
        &nearest::NoWay::Target(&beyond(500, 499)),
    );
    assert_eq!(found.before[0].target, Target::Latest);
    assert_eq!(found.before[1].target, until(499));
}

#[test]
fn a_hole_behind_a_moment_is_none_of_its_state() {
    let log = vec![
        vec![(11, 100), (12, 200)],
        vec![(13, 300)],
        vec![],
        vec![(14, 400)],
        vec![],
    ];
    for missing in [1, 3] {
        let mut world = world(&log, 500);
        for (at, micros) in [(0, 250), (1, 320), (2, 350), (3, 450)] {
            world.history.members[at].complete_to = Some(self::at(micros));
        }
        world.history.members.remove(missing);
        world.details.remove(missing);
        let (before, moment) = match missing {
            1 => ("1-12", 250),
            _ => ("1-13", 350),
        };
        // The silence behind the hole tells of what is missing, but that came later.
        assert_eq!(
            cut(&world, &until(moment)).expect("covered").set,
            set(before)
        );
        // Up to where a transaction stands behind the hole nobody knows, whatever the silence says.
        let (unknown, lost) = match missing {
            1 => ([251, 350, 399], "13"),
            _ => ([351, 450, 500], "14"),
        };
        for micros in unknown {
            let in_gap = TargetError::InGap {
                asked: self::at(micros),
                missing: set(lost),
            };
            assert_eq!(cut(&world, &until(micros)), Err(in_gap), "{micros}");
        }
        if missing == 1 {
            let later = cut(&world, &until(400)).expect("covered").set;
            assert_eq!(later, set("1-14"));
        }
    }
}

#[test]
fn beside_what_cannot_be_had_stands_what_can() {
    use super::nearest::{NoWay, candidates};
    let mut world = three_segments();
    let first = |world: &World, target: &Target| {
        let error = cut(world, target).expect_err("it cannot be had");
        let found = candidates(
            &world.history,
            &world.snapshots,
            target,
            &NoWay::Target(&error),
        );
        let first = |offers: Vec<nearest::Offer>| offers.into_iter().next().map(|o| o.target);
        (first(found.before), first(found.after))
    };
    let up_to = |gnos: &str| Some(Target::UntilGtid { set: set(gnos) });
    assert_eq!(first(&world, &until(5000)), (Some(until(1000)), None));
    assert_eq!(first(&world, &until(-1)), (None, Some(until(0))));
    let unknown = |gno| Target::BeforeGtid { gtid: gtid(gno) };
    assert_eq!(first(&world, &unknown(99)), (Some(Target::Latest), None));
    assert_eq!(first(&world, &unknown(10)), (None, up_to("1-10")));
    // A hole: the last moment before it, and the snapshot that has what is missing.
    world.history.members.remove(1);
    world.details.remove(1);
    world.snapshots.push(SnapshotSet {
        set: set("1-15"),
        started: at(0),
        finished: at(350),
    });
    assert_eq!(
        first(&world, &until(250)),
        (Some(until(199)), up_to("1-15"))
    );
    let unknown = Target::UntilGtid { set: set("20") };
    let error = TargetError::Unknown { unknown: set("20") };
    let found = candidates(
        &world.history,
        &world.snapshots,
        &unknown,
        &NoWay::Target(&error),
    );
    assert_eq!(found.before[1].target, Target::UntilGtid { set: set("17") });
}

/// The log lacks its beginning: what it goes on from is older than a moment only if a snapshot is
/// that has it.
#[test]
fn what_the_log_goes_on_from_must_be_older_than_the_moment() {
    let mut world = three_segments();
    world.history.members.remove(0);
    world.details.remove(0);
    let in_gap = |asked| TargetError::InGap {
        asked: at(asked),
        missing: set("11-12"),
    };
    assert_eq!(cut(&world, &until(150)), Err(in_gap(150)));
    world.snapshots.push(SnapshotSet {
        set: set("1-12"),
        started: at(0),
        finished: at(250),
    });
    assert_eq!(cut(&world, &until(150)), Err(in_gap(150)));
    assert_eq!(cut(&world, &until(250)).expect("covered").set, set("1-12"));
}
