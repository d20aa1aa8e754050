//! Made-up sources through the cutter, into segments and back.

mod model;

use proptest::prelude::*;

use self::model::{ORIGIN, Run, Source, Transaction, check, read_back, store, store_behind};
use super::*;
use crate::archive::catalog::Chain;
use crate::mysql::binlog::testing::{SourceLog, Work};

/// What is done to a stream between two events.
#[derive(Debug, Clone, Copy)]
enum Act {
    Go,
    Cut,
    Silence,
    Reconnect(usize),
}

fn work() -> impl Strategy<Value = Work> {
    let rows = || {
        let bytes = prop::collection::vec(any::<u8>(), 0..400);
        let table = prop::sample::select(vec!["shop.page", "shop.user", "a`b.c d", "x.y"]);
        prop::collection::vec((table, bytes), 1..6)
    };
    prop_oneof![
        4 => rows().prop_map(Work::Rows),
        1 => (rows(), any::<bool>()).prop_map(|(rows, zip)| Work::Payload(rows, zip)),
        1 => "[a-z ]{0,60}".prop_map(|text| Work::Statement("shop", format!("ALTER TABLE {text}"))),
        1 => rows().prop_map(Work::XaPrepare),
        1 => Just(Work::Empty),
    ]
}

/// The same transactions on two servers that differ in order, files, checksum and times.
fn sources() -> impl Strategy<Value = Vec<Source>> {
    let transactions = prop::collection::vec((0..3_usize, work(), 0..3_u64), 1..14);
    let transactions = transactions.prop_map(|list| {
        let origins = [
            "3e11fa47-71ca-11e1-9e33-c80aa9429562",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag_1",
            "ffffffff-71ca-11e1-9e33-c80aa9429562",
        ];
        let mut gnos = [10, 0, 0];
        let mut all: Vec<Transaction> = Vec::new();
        for (number, (origin, work, original)) in list.into_iter().enumerate() {
            gnos[origin] += 1;
            let gtid = format!("{}:{}", origins[origin], gnos[origin]);
            let micros = 1_795_000_000_000_000 + number as u64 * 10;
            all.push(Transaction {
                gtid: gtid.parse().expect("a GTID"),
                micros: (micros, [0, micros, micros - 5][original as usize]),
                work,
            });
        }
        all
    });
    let server = |number: u32| {
        let crc = any::<bool>();
        let files = prop::collection::btree_set(0..14_usize, 0..3);
        (Just(number), crc, files)
    };
    (transactions, any::<u64>(), server(1), server(2)).prop_map(|(all, seed, one, two)| {
        [one, two]
            .into_iter()
            .map(|(number, crc, files)| {
                let checksum = if crc { Checksum::Crc32 } else { Checksum::None };
                let mut order = all.clone();
                if number == 2 && seed & 1 == 1 {
                    // Neighbours that do not depend on each other change places.
                    for pair in order.chunks_mut(2) {
                        pair.reverse();
                    }
                }
                let mut files: Vec<usize> =
                    files.into_iter().filter(|at| *at < order.len()).collect();
                if files.first() != Some(&0) {
                    files.insert(0, 0);
                }
                Source {
                    uuid: Uuid::from_u128(number.into()),
                    log: SourceLog::new(checksum, number),
                    files,
                    order,
                }
            })
            .collect()
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => Just(Act::Go),
        2 => Just(Act::Cut),
        1 => Just(Act::Silence),
        1 => (0..2_usize).prop_map(Act::Reconnect),
    ];
    prop::collection::vec(act, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_transaction_is_archived_once_and_in_order(
        sources in sources(),
        acts in acts(),
        limit in prop_oneof![Just(0_usize), 200..3_000_usize, Just(1_usize << 20)],
    ) {
        let mut run = Run::new(limit);
        let mut stream = run.turn_to(&sources[0]).into_iter();
        for act in acts {
            match act {
                Act::Go => {}
                Act::Cut => {
                    let cut = run.cutter.cut();
                    run.drafts.extend(cut);
                }
                Act::Silence => {
                    let silence = run.cutter.silence();
                    run.drafts.extend(silence);
                }
                Act::Reconnect(other) => stream = run.turn_to(&sources[other]).into_iter(),
            }
            if let Some(event) = stream.next() {
                run.feed(&event).expect("a valid event");
            }
        }
        // Here the streamer may die: what it cut is whole.
        let last = run.cutter.finish();
        run.drafts.extend(last);
        let mut segments = store(std::mem::take(&mut run.drafts));
        check(&run, &segments, limit)?;
        // Or the source may send all that is left.
        for event in run.turn_to(&sources[1]) {
            run.feed(&event).expect("a valid event");
        }
        let last = run.cutter.cut();
        run.drafts.extend(last);
        let mut all: GtidSet = ORIGIN.parse().expect("a set");
        all.extend(sources[0].order.iter().map(|t| t.gtid.clone()));
        prop_assert_eq!(run.cutter.received(), all);
        store_behind(&mut segments, std::mem::take(&mut run.drafts));
        check(&run, &segments, limit)?;
    }

    #[test]
    fn an_event_that_is_lost_doubled_or_strange_stops_the_stream(
        sources in sources(),
        at in any::<prop::sample::Index>(),
        fault in 0..3_u8,
    ) {
        let mut run = Run::new(1 << 20);
        let mut events = run.turn_to(&sources[0]);
        let inside: Vec<usize> = (0..events.len())
            .filter(|at| !RawEvent::new(&events[*at]).expect("an event").kind().is_file_event())
            .collect();
        let at = inside[at.index(inside.len())];
        match fault {
            0 => {
                events.remove(at);
            }
            1 => events.insert(at, events[at].clone()),
            _ => {
                let mut log = SourceLog::new(sources[0].log.checksum, 1);
                let alien = log.event(1, &(EventKind::XID, vec![0; 8]));
                events.insert(at, alien);
            }
        }
        // The source goes on, so that a missing end shows.
        events.push(SourceLog::new(sources[0].log.checksum, 1).close_file("binlog.9"));
        let stopped = events.iter().any(|event| run.feed(event).is_err());
        prop_assert!(stopped);
        let last = run.cutter.finish();
        run.drafts.extend(last);
        let end = run.cutter.received();
        let segments = store(run.drafts);
        prop_assert_eq!(read_back(&segments), run.whole.clone());
        let held = run.whole.into_iter().map(|(gtid, _)| gtid);
        let mut expected: GtidSet = ORIGIN.parse().expect("a set");
        expected.extend(held);
        prop_assert_eq!(end, expected);
    }
}

fn one_source(checksum: Checksum, order: Vec<Transaction>) -> Source {
    Source {
        uuid: Uuid::from_u128(1),
        log: SourceLog::new(checksum, 1),
        files: vec![0],
        order,
    }
}

fn rows(gno: u64, sizes: &[usize]) -> Transaction {
    let gtid = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{gno}");
    Transaction {
        gtid: gtid.parse().expect("a GTID"),
        micros: (1_795_000_000_000_000 + gno, 0),
        work: Work::Rows(sizes.iter().map(|n| ("a.t", vec![7; *n])).collect()),
    }
}

#[test]
fn a_flipped_bit_stops_the_stream() {
    let source = one_source(Checksum::Crc32, vec![rows(11, &[30])]);
    let events = source.dump(&GtidSet::new());
    let mut tried = 0;
    for (at, bytes) in events.iter().enumerate() {
        for bit in 0..bytes.len() * 8 {
            let mut run = Run::new(1 << 20);
            run.turn_to(&source);
            for event in &events[..at] {
                run.feed(event).expect("a valid event");
            }
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // What a server without checksums says of itself is not covered by one.
            assert!(run.feed(&flipped).is_err(), "event {at}, bit {bit}");
            tried += 1;
        }
    }
    assert!(tried > 3_000, "{tried} flips");
}

#[test]
fn a_transaction_that_comes_twice_stops_the_stream() {
    let source = one_source(Checksum::Crc32, vec![rows(11, &[30]), rows(12, &[5])]);
    let mut run = Run::new(1 << 20);
    for event in run.turn_to(&source) {
        run.feed(&event).expect("a valid event");
    }
    for cut_first in [false, true] {
        if cut_first {
            let cut = run.cutter.cut();
            run.drafts.extend(cut);
        }
        let mut again = run.turn_to(&source);
        again.truncate(3);
        again.extend(source.dump(&GtidSet::new()).drain(3..));
        let refused = again.iter().find_map(|event| run.feed(event).err());
        assert!(
            matches!(&refused, Some(EventError::Order(why)) if why.contains("a second time")),
            "{refused:?}"
        );
    }
    let before_the_archive = one_source(Checksum::Crc32, vec![rows(3, &[30])]);
    run.turn_to(&before_the_archive);
    let sent = before_the_archive.dump(&GtidSet::new());
    assert!(sent.iter().any(|event| run.feed(event).is_err()));
}

/// Whole transactions never share a segment with a part of another one: a claim that goes on
/// before the unfinished one would ask for them again, and the source may have purged them.
#[test]
fn whole_transactions_leave_before_the_parts_of_a_large_one() {
    let source = one_source(
        Checksum::Crc32,
        vec![rows(11, &[30]), rows(12, &[400; 10]), rows(13, &[30])],
    );
    let mut run = Run::new(1_500);
    let events = run.turn_to(&source);
    for event in &events[..events.len() - 8] {
        run.feed(event).expect("a valid event");
    }
    let parts: Vec<_> = run
        .drafts
        .iter()
        .map(|draft| {
            let flags = draft.part().map(|part| (part.continued, part.unfinished));
            (draft.transactions(), flags)
        })
        .collect();
    assert_eq!(parts[0], (1, None));
    assert_eq!(parts[1], (0, Some((false, true))));
    assert_eq!(parts[2], (0, Some((true, true))));
    let segments = store(std::mem::take(&mut run.drafts));
    let chain = Chain::compute(
        BranchNumber(1),
        segments.into_iter().map(|(stored, _)| stored).collect(),
    );
    assert_eq!(chain.resume_point().map(|s| s.name.first), Some(1));
}

#[test]
fn positions_follow_the_file_beyond_four_gigabytes() {
    let source = one_source(Checksum::Crc32, vec![rows(11, &[30]), rows(12, &[5])]);
    let mut run = Run::new(1 << 20);
    for event in run.turn_to(&source) {
        run.feed(&event).expect("a valid event");
    }
    let at = run.cutter.position().clone();
    assert_eq!(at.file, "binlog.000001");
    let file: usize = source.dump(&GtidSet::new())[1..].iter().map(Vec::len).sum();
    assert_eq!(at.position, 4 + file as u64);
    // Heartbeats move it on, also past what the header's 32 bits can say.
    let builder = crate::mysql::binlog::EventBuilder::new(Checksum::Crc32, 1);
    for (said, position) in [
        (0xffff_fff0, 0xffff_fff0),
        (0x100, 0x1_0000_0100),
        (0x104, 0x1_0000_0104),
        (0x4, 0x1_0000_0104),
    ] {
        run.feed(&builder.heartbeat("binlog.000001", said))
            .expect("a valid event");
        assert_eq!(run.cutter.position().position, position);
    }
}

/// What we have already is left out by the source, which says how far that reaches.
#[test]
fn a_reconnect_into_a_file_of_more_than_four_gigabytes_finds_its_place() {
    let builder = crate::mysql::binlog::EventBuilder::new(Checksum::Crc32, 1);
    let source = one_source(Checksum::Crc32, vec![]);
    let mut run = Run::new(1 << 20);
    run.turn_to(&source);
    let mut log = source.log.clone();
    let before = ORIGIN.parse().expect("a set");
    let transaction = rows(11, &[30]);
    let mut events = log.open_file("binlog.000001", &before, Checksum::Crc32);
    let skipped = 9 * (1 << 30) + 77;
    // Of another file: it says nothing about this one.
    events.push(builder.heartbeat_v2("binlog.000009", 1 << 40));
    events.push(builder.heartbeat_v2("binlog.000001", skipped));
    log.go_to(skipped);
    let sent = log.transaction(&transaction.gtid, transaction.micros, &transaction.work);
    let length: usize = sent.iter().map(Vec::len).sum();
    events.extend(sent);
    for event in events {
        run.feed(&event).expect("a valid event");
    }
    let end = skipped + length as u64;
    assert_eq!(run.cutter.position().file, "binlog.000001");
    assert_eq!(run.cutter.position().position, end);
    // One that was under way when more came says nothing new.
    run.feed(&builder.heartbeat_v2("binlog.000001", skipped))
        .expect("a valid event");
    assert_eq!(run.cutter.position().position, end);
    run.feed(&builder.heartbeat_v2("binlog.000001", end + (1 << 33)))
        .expect("a valid event");
    assert_eq!(run.cutter.position().position, end + (1 << 33));
}

/// As a server without checksums sends a file from its middle on.
#[test]
fn a_format_event_with_a_stale_checksum_is_mended() {
    for (checksum, accepted) in [(Checksum::None, true), (Checksum::Crc32, false)] {
        let source = one_source(checksum, vec![rows(11, &[30])]);
        let mut run = Run::new(1 << 20);
        let mut events = run.turn_to(&source);
        events[1][HEADER_LENGTH + 52] = 0;
        run.feed(&events[0]).expect("a valid event");
        assert_eq!(run.feed(&events[1]).is_ok(), accepted);
        if accepted {
            for event in &events[2..] {
                run.feed(event).expect("a valid event");
            }
            let last = run.cutter.cut();
            run.drafts.extend(last);
            assert_eq!(read_back(&store(run.drafts)), run.whole);
        }
    }
}

/// Blocks leave while the segment fills and come back packed, also when the source is lost
/// within a transaction of which blocks have left.
#[test]
fn blocks_that_leave_early_change_nothing() {
    use crate::archive::segment::{BLOCK_BYTES, Block};
    let pack_all = |away: &mut Vec<Block>| {
        // The last one first.
        for block in away.drain(..).rev() {
            block.pack(1).expect("packs");
        }
    };
    let sizes = [3 << 20, 2 << 20, 5 << 20, 300, 6 << 20];
    let order = vec![
        rows(11, &sizes),
        rows(12, &[400; 3]),
        rows(13, &[1 << 20; 14]),
        rows(14, &sizes),
    ];
    let source = one_source(Checksum::Crc32, order);
    for limit in [3 * BLOCK_BYTES, 64 << 20] {
        for lost_after in [usize::MAX, 4, 9, 17, 23, 28] {
            let mut run = Run::new(limit);
            let mut events = run.turn_to(&source).into_iter();
            let (mut away, mut left) = (Vec::new(), 0);
            let (mut fed, mut cut) = (0, 0);
            while let Some(event) = events.next() {
                run.feed(&event).expect("a valid event");
                if run.drafts.len() > cut {
                    cut = run.drafts.len();
                    pack_all(&mut away);
                }
                while let Some(block) = run.cutter.seal() {
                    away.push(block);
                    left += 1;
                }
                fed += 1;
                if fed == lost_after {
                    events = run.turn_to(&source).into_iter();
                    if run.drafts.len() > cut {
                        cut = run.drafts.len();
                        pack_all(&mut away);
                    }
                }
            }
            if let Some(draft) = run.cutter.finish() {
                pack_all(&mut away);
                run.drafts.push(draft);
            }
            assert!(left > 4, "{left} blocks left early");
            assert_eq!(read_back(&store(run.drafts)), run.whole);
        }
    }
}

/// A commit that waits for its segment does not wait for a large transaction behind it.
#[test]
fn what_is_whole_can_be_cut_off_while_another_one_has_begun() {
    let source = one_source(
        Checksum::Crc32,
        vec![rows(11, &[30]), rows(12, &[400; 10]), rows(13, &[30])],
    );
    let mut run = Run::new(1 << 20);
    let events = run.turn_to(&source);
    let (begun, rest) = events.split_at(events.len() - 8);
    for event in begun {
        run.feed(event).expect("a valid event");
    }
    assert!(run.cutter.is_inside());
    let cut = run.cutter.cut().expect("a whole one");
    assert_eq!(cut.transactions(), 1);
    run.drafts.push(cut);
    assert!(run.cutter.cut().is_none(), "nothing else is whole");
    for event in rest {
        run.feed(event).expect("a valid event");
    }
    run.drafts.extend(run.cutter.cut());
    let segments = store(std::mem::take(&mut run.drafts));
    let transactions: Vec<_> = segments
        .iter()
        .map(|(stored, _)| stored.index.transactions)
        .collect();
    assert_eq!(transactions, [1, 2]);
}
