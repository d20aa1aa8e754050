//! Conditions against a naive reading of them, and literals.

use super::*;
use proptest::prelude::*;

fn key(descending: &[bool]) -> TableKey {
    let column = |(n, descending): (usize, &bool)| KeyColumn {
        name: ["a", "b", "c"][n].to_owned(),
        descending: *descending,
        kind: Some(KeyKind::Integer),
    };
    TableKey {
        index: "PRIMARY".to_owned(),
        columns: descending.iter().enumerate().map(column).collect(),
    }
}

fn at(literals: &[i64]) -> Option<Boundary> {
    (!literals.is_empty()).then(|| Boundary(literals.iter().map(ToString::to_string).collect()))
}

fn condition(descending: &[bool], from: &[i64], before: &[i64]) -> String {
    let range = Range {
        partitions: Vec::new(),
        from: at(from),
        before: at(before),
    };
    range.condition(&key(descending)).expect("it has an end")
}

#[test]
fn comparisons_are_written_out_and_what_is_fixed_is_said_once() {
    let asc = &[false, false, false];
    assert_eq!(condition(asc, &[5], &[]), "`a` >= 5");
    assert_eq!(condition(asc, &[], &[5]), "`a` < 5");
    assert_eq!(
        condition(asc, &[1, 2], &[]),
        "(`a` > 1 OR (`a` = 1 AND `b` >= 2))"
    );
    assert_eq!(
        condition(asc, &[1, 2], &[3, 4]),
        "(`a` > 1 OR (`a` = 1 AND `b` >= 2)) AND (`a` < 3 OR (`a` = 3 AND `b` < 4))"
    );
    assert_eq!(
        condition(asc, &[1, 2], &[1, 7]),
        "`a` = 1 AND `b` >= 2 AND `b` < 7"
    );
    assert_eq!(condition(asc, &[1], &[1, 7]), "`a` = 1 AND `b` < 7");
    assert_eq!(
        condition(&[true, false], &[9, 2], &[7]),
        "(`a` < 9 OR (`a` = 9 AND `b` >= 2)) AND `a` > 7"
    );
}

#[test]
fn columns_of_one_value_are_known() {
    for (from, before, fixed) in [
        (&[][..], &[5][..], 0),
        (&[1, 2], &[], 0),
        (&[1, 2], &[3, 4], 0),
        (&[1, 2], &[1, 7], 1),
        (&[1], &[1, 7], 1),
        (&[1, 2, 3], &[1, 2, 4], 2),
        (&[1, 2], &[1], 0),
    ] {
        let range = Range {
            partitions: Vec::new(),
            from: at(from),
            before: at(before),
        };
        assert_eq!(range.fixed(), fixed, "{from:?} {before:?}");
        let equal = condition(&[false; 3], from, before).matches(" = ").count();
        assert!(equal >= fixed, "{from:?} {before:?}");
    }
}

#[test]
fn an_enum_is_compared_with_each_of_its_members() {
    let mut key = key(&[false, false]);
    key.columns[0].kind = Some(KeyKind::Enum(3));
    let condition = |from: &[i64], before: &[i64]| {
        let range = Range {
            partitions: Vec::new(),
            from: at(from),
            before: at(before),
        };
        range.condition(&key).expect("it has an end")
    };
    assert_eq!(condition(&[], &[2]), "`a` IN (0, 1)");
    assert_eq!(condition(&[2], &[]), "`a` IN (2, 3)");
    assert_eq!(condition(&[], &[0]), "FALSE");
    assert_eq!(condition(&[3, 9], &[]), "(FALSE OR (`a` = 3 AND `b` >= 9))");
    assert_eq!(
        condition(&[1, 9], &[3]),
        "(`a` IN (2, 3) OR (`a` = 1 AND `b` >= 9)) AND `a` IN (0, 1, 2)"
    );
}

/// Evaluates what [`compare`] writes.
fn holds(condition: &str, row: [i64; 3]) -> bool {
    let condition = condition.replace("TRUE", "1 = 1").replace("FALSE", "1 < 1");
    let tokens: Vec<&str> = condition.split_whitespace().collect();
    let joined = tokens.join(" ").replace('(', "( ").replace(')', " )");
    let tokens: Vec<&str> = joined.split_whitespace().collect();
    fn or(tokens: &[&str], at: &mut usize, row: [i64; 3]) -> bool {
        let mut value = and(tokens, at, row);
        while tokens.get(*at) == Some(&"OR") {
            *at += 1;
            value |= and(tokens, at, row);
        }
        value
    }
    fn and(tokens: &[&str], at: &mut usize, row: [i64; 3]) -> bool {
        let mut value = atom(tokens, at, row);
        while tokens.get(*at) == Some(&"AND") {
            *at += 1;
            value &= atom(tokens, at, row);
        }
        value
    }
    fn atom(tokens: &[&str], at: &mut usize, row: [i64; 3]) -> bool {
        if tokens[*at] == "(" {
            *at += 1;
            let value = or(tokens, at, row);
            assert_eq!(tokens[*at], ")");
            *at += 1;
            return value;
        }
        let left = match tokens[*at] {
            "`a`" => row[0],
            "`b`" => row[1],
            "`c`" => row[2],
            number => number.parse().expect("a number"),
        };
        let right: i64 = tokens[*at + 2].parse().expect("a number");
        let value = match tokens[*at + 1] {
            "<" => left < right,
            ">" => left > right,
            "=" => left == right,
            "<=" => left <= right,
            ">=" => left >= right,
            other => panic!("{other}"),
        };
        *at += 3;
        value
    }
    let mut at = 0;
    let value = or(&tokens, &mut at, row);
    assert_eq!(at, tokens.len(), "{condition}");
    value
}

#[test]
fn literals_are_exact_or_there_is_none() {
    let text = |set: &str| KeyKind::Text(set.to_owned());
    assert_eq!(literal(&KeyKind::Integer, b"-5").as_deref(), Some("-5"));
    assert_eq!(literal(&KeyKind::Integer, b"00042").as_deref(), Some("42"));
    assert_eq!(literal(&KeyKind::Integer, b"1; DROP"), None);
    assert_eq!(literal(&KeyKind::Number, b"9007199254740993"), None);
    assert_eq!(
        literal(&KeyKind::Decimal, b"-0.50").as_deref(),
        Some("-0.50")
    );
    assert_eq!(literal(&KeyKind::Decimal, b"1e5"), None);
    assert_eq!(literal(&KeyKind::Decimal, b""), None);
    assert_eq!(
        literal(&KeyKind::Temporal, b"-838:59:59.000000").as_deref(),
        Some("'-838:59:59.000000'")
    );
    assert_eq!(literal(&KeyKind::Temporal, b"' OR '1'='1"), None);
    assert_eq!(
        literal(&text("ucs2"), &[0x01, 0x7C]).as_deref(),
        Some("_ucs2 X'017C'")
    );
    assert_eq!(
        literal(&KeyKind::Varbinary, b"").as_deref(),
        Some("_binary X''")
    );
}

proptest! {
    #[test]
    fn sorted_cuts_part_all_rows(
        descending in prop::array::uniform3(any::<bool>()),
        mut cuts in prop::collection::vec(prop::array::uniform3(0_i64..4), 1..6),
        length in 1_usize..4,
        row in prop::array::uniform3(-1_i64..5),
    ) {
        let directed = |row: &[i64; 3]| {
            let mut row = *row;
            for (value, descending) in row.iter_mut().zip(descending) {
                *value = if descending { -*value } else { *value };
            }
            row
        };
        cuts.sort_by_key(directed);
        cuts.dedup_by_key(|cut| cut[..length].to_vec());
        let mut ends: Vec<Option<Boundary>> = vec![None];
        ends.extend(cuts.iter().map(|cut| at(&cut[..length])));
        ends.push(None);
        let key = key(&descending);
        let inside = ends.windows(2).filter(|ends| {
            let range = Range { partitions: Vec::new(), from: ends[0].clone(), before: ends[1].clone() };
            range.condition(&key).is_none_or(|condition| holds(&condition, row))
        });
        prop_assert_eq!(inside.count(), 1);
    }

    #[test]
    fn what_lies_between_is_behind_the_first_and_not_behind_the_last(
        a in any::<i64>(), b in any::<u64>(), share in 1_u64..9,
    ) {
        let (a, b) = (i128::from(a), i128::from(b));
        for (first, last) in [(a, b), (b, a)] {
            let between = interpolate(
                &KeyKind::Integer,
                first.to_string().as_bytes(),
                last.to_string().as_bytes(),
                (share, 9),
            );
            let between = between.map(|text| text.parse::<i128>().expect("a number"));
            match between {
                None => prop_assert_eq!(first, last),
                Some(n) if first < last => prop_assert!(first < n && n <= last),
                Some(n) => prop_assert!(last <= n && n < first),
            }
        }
    }

    #[test]
    fn bytes_between_are_behind_the_first_and_not_behind_the_last(
        mut a in prop::collection::vec(0_u8..4, 0..12),
        mut b in prop::collection::vec(0_u8..4, 0..12),
        share in 1_u64..9,
    ) {
        if a > b {
            std::mem::swap(&mut a, &mut b);
        }
        let part = |width: u128| width * u128::from(share) / 9;
        if let Some(between) = between_bytes(&a, &b, part) {
            prop_assert!(a < between && between <= b, "{a:?} {between:?} {b:?}");
        }
    }
}
