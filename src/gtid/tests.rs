//! The algebra against a naive model, and MySQL's text and bytes.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::{Gtid, GtidError, GtidSet, MAX_GNO, Tag, Tsid};

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

fn set(text: &str) -> GtidSet {
    text.parse().expect("a valid set")
}

fn gtid(text: &str) -> Gtid {
    text.parse().expect("a valid GTID")
}

fn tsid(uuid: usize, tag: usize) -> Tsid {
    let tags = [None, Some("a"), Some("a_1"), Some("b")];
    Tsid {
        uuid: Uuid::from_u128([1, 0xff << 120][uuid]),
        tag: tags[tag].map(|tag| Tag::new(tag).expect("a valid tag")),
    }
}

type Model = BTreeSet<Gtid>;

/// Some ranges of a small universe, where overlaps and touching ends are frequent.
fn ranges() -> impl Strategy<Value = Vec<(Tsid, u64, u64)>> {
    let range = (0..2_usize, 0..4_usize, 1..40_u64, 0..6_u64)
        .prop_map(|(uuid, tag, start, length)| (tsid(uuid, tag), start, start + length));
    proptest::collection::vec(range, 0..24)
}

fn both(ranges: &[(Tsid, u64, u64)]) -> (GtidSet, Model) {
    let (mut set, mut model) = (GtidSet::new(), Model::new());
    for (tsid, start, end) in ranges {
        set.insert_range(tsid, *start..=*end);
        model.extend((*start..=*end).map(|gno| Gtid {
            tsid: tsid.clone(),
            gno,
        }));
    }
    (set, model)
}

fn check(set: &GtidSet, model: &Model) {
    let mut before: Option<(&Tsid, u64)> = None;
    for (tsid, start, end) in set.intervals() {
        assert!(start <= end, "{set:?}");
        if let Some((last_tsid, last)) = before {
            assert!(
                last_tsid < tsid || (last_tsid == tsid && last + 1 < start),
                "{set:?} is not sorted and merged"
            );
        }
        before = Some((tsid, end));
    }
    assert_eq!(set.iter().collect::<Model>(), *model);
    assert_eq!(set.count(), model.len() as u128);
    assert_eq!(set.is_empty(), model.is_empty());
    assert_eq!(*set, model.iter().cloned().collect::<GtidSet>());
    for tsid in set.tsids() {
        let last = model.iter().rfind(|gtid| gtid.tsid == *tsid);
        assert_eq!(set.last(tsid), last.map(|gtid| gtid.gno));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn operations_equal_the_model(left in ranges(), right in ranges()) {
        let ((a, ma), (b, mb)) = (both(&left), both(&right));
        check(&a, &ma);
        check(&a.union(&b), &(&ma | &mb));
        check(&a.subtract(&b), &(&ma - &mb));
        check(&a.intersect(&b), &(&ma & &mb));
        prop_assert_eq!(a.is_superset(&b), ma.is_superset(&mb));
        prop_assert_eq!(a.is_subset(&b), ma.is_subset(&mb));
        prop_assert_eq!(a.is_disjoint(&b), ma.is_disjoint(&mb));
        prop_assert_eq!(a == b, ma == mb);
        // Unrelated sets rarely contain each other, so try with those that do.
        prop_assert!(a.union(&b).is_superset(&b));
        prop_assert!(a.subtract(&b).is_disjoint(&b));
        prop_assert!(a.intersect(&b).is_subset(&b));
        for gtid in ma.union(&mb) {
            prop_assert_eq!(a.contains(gtid), ma.contains(gtid));
        }
    }

    #[test]
    fn insert_equals_the_model(
        start in ranges(), more in proptest::collection::vec((0..2_usize, 0..4_usize, 0..50_u64), 0..40),
    ) {
        let (mut set, mut model) = both(&start);
        for (uuid, tag, gno) in more {
            let gtid = Gtid { tsid: tsid(uuid, tag), gno };
            let new = gno > 0 && model.insert(gtid.clone());
            prop_assert_eq!(set.insert(&gtid), new);
        }
        check(&set, &model);
    }

    #[test]
    fn text_and_bytes_come_back(ranges in ranges()) {
        let (set, model) = both(&ranges);
        for text in [set.to_string(), format!("{set:#}"), set.to_string().to_uppercase()] {
            check(&text.parse().expect("what was printed parses"), &model);
        }
        let json = serde_json::to_string(&set).expect("a string");
        check(&serde_json::from_str(&json).expect("what was written parses"), &model);
        check(&GtidSet::decode(&set.encode()).expect("what was encoded decodes"), &model);
        check(&GtidSet::decode(&set.encode_tagged()).expect("what was encoded decodes"), &model);
    }

    #[test]
    fn pieces_in_any_order_parse_to_their_union(ranges in ranges()) {
        let text: Vec<String> =
            ranges.iter().map(|(tsid, start, end)| format!(" {tsid} : {start} - {end}\n")).collect();
        check(&set(&text.join(",")), &both(&ranges).1);
    }

    #[test]
    fn decode_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), tagged: bool) {
        let _ = GtidSet::decode(&bytes);
        // Most random headers claim an unknown format, so try with known ones too.
        let mut with_header = if tagged { vec![1, 2, 0, 0, 0, 0, 0, 1] } else { vec![2, 0, 0, 0, 0, 0, 0, 0] };
        with_header.extend(bytes);
        let _ = GtidSet::decode(&with_header);
    }

    #[test]
    fn decode_takes_damaged_bytes(ranges in ranges(), at: prop::sample::Index, bit in 0..8_u32, cut: bool) {
        let (set, _) = both(&ranges);
        let mut bytes = set.encode();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(GtidSet::decode(&bytes).is_err());
        } else {
            bytes[at] ^= 1 << bit;
            if let Ok(other) = GtidSet::decode(&bytes) {
                prop_assert_ne!(&other, &set);
                prop_assert_eq!(GtidSet::decode(&other.encode()), Ok(other));
            }
        }
    }

    #[test]
    fn parse_takes_any_text(text in "\\PC*", near in "[0-9a-f:,_ -]{0,60}") {
        let _ = text.parse::<GtidSet>();
        let _ = format!("{A}:1-5{near}").parse::<GtidSet>();
        let _ = format!("{A}:{near}").parse::<Gtid>();
        let _ = text.parse::<Tsid>();
    }
}

#[test]
fn prints_as_mysql_does() {
    let printed = set(&format!("{B}:7, {A}:tag_b:4:1-2:3,{A}:9:5-7:TAG_A:1-2:5")).to_string();
    assert_eq!(printed, format!("{A}:5-7:9:tag_a:1-2:5:tag_b:1-4,\n{B}:7"));
    assert_eq!(format!("{:#}", set(&printed)), printed.replace('\n', ""));
    assert_eq!(
        format!("{:?}", set(&format!("{A}:1"))),
        format!("GtidSet({A}:1)")
    );
    assert_eq!(set("").to_string(), "");
}

#[test]
fn parses_what_mysql_takes() {
    let one = set(&format!("{A}:1-5"));
    for text in [
        format!(",, ,\n{A}:1-5,,"),
        format!("\t{}\r\n : 1 - 5 ,", A.to_uppercase()),
        format!("{A}:5:4:3-3:1-2"),
        format!("{A}:1-5:1-5,{A}:2,{B},{B}:tag,{B}:9-3,{B}:7-0"),
    ] {
        assert_eq!(set(&text), one, "{text:?}");
    }
    assert_eq!(set(&format!("{A}:9223372036854775806")).count(), 1);
    assert_eq!(
        set(&format!("{A}:x:1:Y:2")),
        set(&format!("{A}:y:2,{A}:X:1"))
    );
}

#[test]
fn refuses_what_mysql_refuses() {
    let long = "x".repeat(33);
    for (text, position, expected) in [
        ("garbage".to_owned(), 1, "a UUID"),
        (format!("{A}x:1"), 37, "a colon, a comma or the end"),
        (A.replace('-', ""), 1, "a UUID"),
        (format!("{A}:"), 38, "a transaction number"),
        (format!("{A}:0"), 38, "a transaction number from 1"),
        (format!("{A}:1-"), 40, "a transaction number"),
        (format!("{A}:-1"), 38, "a transaction number"),
        (format!("{A}:1:tag:"), 44, "a transaction number"),
        (format!("{A}:1 2"), 40, "a colon, a comma or the end"),
        (
            format!("{A}:010"),
            38,
            "a transaction number without leading zeros",
        ),
        (
            format!("{A}:9223372036854775807"),
            38,
            "a transaction number up to 9223372036854775806",
        ),
        (
            format!("{A}:{long}:1"),
            38,
            "a tag of at most 32 characters",
        ),
        (format!("{A}:1,é"), 40, "a UUID"),
    ] {
        match text.parse::<GtidSet>() {
            Err(GtidError::Text {
                expected: e,
                position: p,
                ..
            }) => {
                assert_eq!((e, p), (expected, position), "{text:?}");
            }
            other => panic!("{text:?} gave {other:?}"),
        }
    }
    let error = format!("{A}:1-").parse::<GtidSet>().expect_err("no end");
    assert_eq!(
        error.to_string(),
        format!("expected a transaction number at character 40 of GTID text \"{A}:1-\"")
    );
}

#[test]
fn single_ids_parse_and_print() {
    for text in [format!("{A}:1"), format!("{A}:tag:23")] {
        assert_eq!(gtid(&text).to_string(), text);
        assert_eq!(set(&text), GtidSet::from(gtid(&text)));
    }
    assert_eq!(gtid(&format!("{A}:TAG:23 ")), gtid(&format!("{A}:tag:23")));
    for bad in [
        A.to_owned(),
        format!("{A}:1-2"),
        format!("{A}:tag"),
        format!("{A}:0"),
    ] {
        bad.parse::<Gtid>().expect_err(&bad);
    }
    for text in [A.to_owned(), format!("{A}:tag")] {
        assert_eq!(
            text.parse::<Tsid>().expect("a valid TSID").to_string(),
            text
        );
    }
    for bad in ["", "1a", "a-b", "é"] {
        Tag::new(bad).expect_err(bad);
    }
    Gtid::new(tsid(0, 0), 0).expect_err("no such number");
    Gtid::new(tsid(0, 0), MAX_GNO + 1).expect_err("no such number");
}

#[test]
fn numbers_out_of_range_are_in_no_set() {
    let mut set = GtidSet::new();
    for gno in [0, MAX_GNO + 1, u64::MAX] {
        assert!(!set.insert(&Gtid {
            tsid: tsid(0, 0),
            gno
        }));
    }
    set.insert_range(&tsid(0, 0), MAX_GNO + 1..=u64::MAX);
    assert!(set.is_empty());
    set.insert_range(&tsid(0, 0), 0..=u64::MAX);
    assert_eq!(set.count(), u128::from(MAX_GNO));
    assert_eq!(GtidSet::decode(&set.encode()), Ok(set));
}

#[test]
fn bytes_are_those_of_mysql() {
    let uuid = Uuid::parse_str(A).expect("a UUID");
    let mut legacy = vec![1, 0, 0, 0, 0, 0, 0, 0];
    legacy.extend(uuid.as_bytes());
    legacy.extend([
        1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
    ]);
    assert_eq!(set(&format!("{A}:2-4")).encode(), legacy);

    let tagged_set = set(&format!("{A}:tag:2-4"));
    let mut tagged = vec![1, 1, 0, 0, 0, 0, 0, 1];
    tagged.extend(uuid.as_bytes());
    tagged.extend(b"\x06tag");
    tagged.extend([
        1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
    ]);
    assert_eq!(tagged_set.encode(), tagged);
    assert_eq!(
        tagged_set.encode_legacy(),
        Err(GtidError::Tagged {
            tag: "tag".to_owned()
        })
    );
    assert_eq!(GtidSet::new().encode(), [0; 8]);
}

#[test]
fn counts_that_lie_take_no_memory() {
    let mut bytes = vec![0xff; 8];
    bytes[7] = 0;
    bytes.extend([7; 16]);
    bytes.extend([0xff; 8]);
    assert_eq!(
        GtidSet::decode(&bytes),
        Err(GtidError::Binary {
            offset: 32,
            reason: "cut short"
        })
    );
}

/// The body of a PREVIOUS_GTIDS event that a server 9.7.4 wrote.
#[test]
fn bytes_of_a_real_server_come_back() {
    let hex = "0104000000000001\
        3e11fa4771ca11e19e33c80aa9429562000200000000000000\
        01000000000000000600000000000000\
        08000000000000000900000000000000\
        3e11fa4771ca11e19e33c80aa94295620a7461675f610100000000000000\
        07000000000000000800000000000000\
        3e11fa4771ca11e19e33c80aa94295620a7461675f620100000000000000\
        01000000000000000300000000000000\
        aaaaaaaabbbbccccddddeeeeeeeeeeee40\
        6162636465666768696a6b6c6d6e6f707172737475767778797a303132333435\
        0200000000000000\
        01000000000000000300000000000000\
        feffffffffffff7fffffffffffffff7f";
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    let decoded = GtidSet::decode(&bytes).expect("a server's own bytes");
    assert_eq!(decoded.encode(), bytes);
    assert_eq!(
        decoded.to_string(),
        format!(
            "{A}:1-5:8:tag_a:7:tag_b:1-2,\n{B}:abcdefghijklmnopqrstuvwxyz012345:1-2:9223372036854775806"
        )
    );
}
