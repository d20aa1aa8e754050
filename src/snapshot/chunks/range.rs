//! A part of a table as a condition, and values of its key as literals.

use crate::mysql::quote;

use super::key::{KeyColumn, KeyKind, TableKey};

/// A place in a key: literals for its leading columns. Rows before it and rows from it on are all
/// rows, and none is both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::snapshot) struct Boundary(pub(in crate::snapshot) Vec<String>);

/// A part of a table: in some partitions, from a place on, up to before another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::snapshot) struct Range {
    /// The partitions; empty means all of them.
    pub(in crate::snapshot) partitions: Vec<String>,
    /// Where it begins, that place included; nothing means the table's beginning.
    pub(in crate::snapshot) from: Option<Boundary>,
    /// Where it ends, that place left out; nothing means the table's end.
    pub(in crate::snapshot) before: Option<Boundary>,
}

impl Range {
    /// The two parts that a cut makes of this one, in the key's order.
    pub(in crate::snapshot) fn cut(&self, at: &Boundary) -> (Self, Self) {
        let mut first = self.clone();
        first.before = Some(at.clone());
        let mut second = self.clone();
        second.from = Some(at.clone());
        (first, second)
    }

    /// What selects the part by its key, unless that is all of it.
    pub(in crate::snapshot) fn condition(&self, key: &TableKey) -> Option<String> {
        let columns = &key.columns;
        match (&self.from, &self.before) {
            (None, None) => None,
            (Some(from), None) => Some(from_on(columns, &from.0)),
            (None, Some(before)) => Some(until(columns, &before.0)),
            (Some(from), Some(before)) => Some(between(columns, &from.0, &before.0)),
        }
    }
}

/// Rows before a place.
pub(super) fn is_before(columns: &[KeyColumn], at: &Boundary) -> String {
    until(columns, &at.0)
}

/// Rows at a place or behind it.
pub(super) fn is_behind(columns: &[KeyColumn], at: &Boundary) -> String {
    compare(columns, &at.0, Side::Behind)
}

/// Rows at a place.
pub(super) fn is_at(columns: &[KeyColumn], at: &Boundary) -> String {
    let equal = |(column, literal): (&KeyColumn, &String)| {
        format!("{} = {literal}", quote::identifier(&column.name))
    };
    let all: Vec<String> = columns.iter().zip(&at.0).map(equal).collect();
    all.join(" AND ")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Strictly before.
    Before,
    /// At the place or behind it: what is not before it.
    From,
    /// Strictly behind.
    Behind,
}

fn from_on(columns: &[KeyColumn], at: &[String]) -> String {
    compare(columns, at, Side::From)
}

fn until(columns: &[KeyColumn], at: &[String]) -> String {
    compare(columns, at, Side::Before)
}

/// `(a, b) < (1, 2)` written out, for the optimizer makes no range of a comparison of rows:
/// `a < 1 OR (a = 1 AND b < 2)`. A descending column turns its comparison round.
fn compare(columns: &[KeyColumn], at: &[String], side: Side) -> String {
    let (Some((column, columns)), Some((literal, at))) = (columns.split_first(), at.split_first())
    else {
        // No column is left to compare by: a row that came so far stands at the place itself.
        return if side == Side::From { "TRUE" } else { "FALSE" }.to_owned();
    };
    let name = quote::identifier(&column.name);
    let less = (side == Side::Before) != column.descending;
    let sign = if less { "<" } else { ">" };
    if at.is_empty() {
        let sign = if side == Side::From {
            &format!("{sign}=")
        } else {
            sign
        };
        return differs(column, sign, literal);
    }
    let rest = compare(columns, at, side);
    let differs = differs(column, sign, literal);
    format!("({differs} OR ({name} = {literal} AND {rest}))")
}

/// A column's comparison with a literal. No range is made of one with an ENUM's numbers, but of a
/// list of them; 0 is the member that stands for what was none.
fn differs(column: &KeyColumn, sign: &str, literal: &str) -> String {
    let name = quote::identifier(&column.name);
    let (Some(KeyKind::Enum(members)), Ok(at)) = (&column.kind, literal.parse::<u32>()) else {
        return format!("{name} {sign} {literal}");
    };
    let numbers: Vec<String> = (0..=*members)
        .filter(|number| match sign {
            "<" => *number < at,
            "<=" => *number <= at,
            ">" => *number > at,
            _ => *number >= at,
        })
        .map(|number| number.to_string())
        .collect();
    if numbers.is_empty() {
        return "FALSE".to_owned();
    }
    format!("{name} IN ({})", numbers.join(", "))
}

/// Both ends at once: where both have the same literal, the column is fixed.
fn between(columns: &[KeyColumn], from: &[String], before: &[String]) -> String {
    match (from, before) {
        ([a, from @ ..], [b, before @ ..]) if a == b && !before.is_empty() => {
            let (column, columns) = columns
                .split_first()
                .expect("a place has no more literals than the key has columns");
            let fixed = format!("{} = {a}", quote::identifier(&column.name));
            if from.is_empty() {
                format!("{fixed} AND {}", until(columns, before))
            } else {
                format!("{fixed} AND {}", between(columns, from, before))
            }
        }
        _ => format!("{} AND {}", from_on(columns, from), until(columns, before)),
    }
}

/// How a key's column is asked for so that its value can be a literal again.
pub(super) fn select(column: &KeyColumn, kind: &KeyKind) -> String {
    let name = quote::identifier(&column.name);
    match kind {
        KeyKind::Number | KeyKind::Enum(_) => format!("CAST({name} AS UNSIGNED)"),
        _ => name,
    }
}

/// The value as a literal, or nothing if it is not one that is known to compare exactly.
pub(super) fn literal(kind: &KeyKind, value: &[u8]) -> Option<String> {
    let text = || std::str::from_utf8(value).ok();
    let only = |set: &[u8]| {
        text().filter(|text| {
            text.bytes().any(|b| b.is_ascii_digit())
                && text.bytes().all(|b| b.is_ascii_digit() || set.contains(&b))
        })
    };
    match kind {
        KeyKind::Integer => integer(value).map(|number| number.to_string()),
        // Exact even if it were compared as floating point.
        KeyKind::Number => integer(value)
            .filter(|number| (0..1 << 53).contains(number))
            .map(|number| number.to_string()),
        KeyKind::Enum(members) => integer(value)
            .filter(|number| (0..=i128::from(*members)).contains(number))
            .map(|number| number.to_string()),
        KeyKind::Decimal => only(b"-.").map(ToOwned::to_owned),
        KeyKind::Temporal => only(b"-.: ").map(|text| format!("'{text}'")),
        KeyKind::Text(character_set) => Some(format!("_{character_set} X'{}'", hex(value))),
        KeyKind::Binary(_) | KeyKind::Varbinary => Some(format!("_binary X'{}'", hex(value))),
    }
}

/// A value as a number; ZEROFILL's zeros do not count.
pub(super) fn integer(value: &[u8]) -> Option<i128> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// A value between the two, `share` of `of` of the way; behind `first` and not behind `last`. None if
/// the kind's values cannot be counted, or there is nothing between.
pub(super) fn interpolate(
    kind: &KeyKind,
    first: &[u8],
    last: &[u8],
    (share, of): (u64, u64),
) -> Option<String> {
    let part = |width: u128| {
        width / u128::from(of.max(1)) * u128::from(share)
            + width % u128::from(of.max(1)) * u128::from(share) / u128::from(of.max(1))
    };
    match kind {
        KeyKind::Integer => {
            let (first, last) = (integer(first)?, integer(last)?);
            // A descending column goes from its largest value down.
            let step = i128::try_from(part(first.abs_diff(last)).max(1)).ok()?;
            let between = match first.cmp(&last) {
                std::cmp::Ordering::Less => (first + step).min(last),
                std::cmp::Ordering::Greater => (first - step).max(last),
                std::cmp::Ordering::Equal => return None,
            };
            Some(between.to_string())
        }
        KeyKind::Binary(_) | KeyKind::Varbinary => {
            let bytes = between_bytes(first, last, part)?;
            literal(kind, &padded(kind, bytes))
        }
        _ => None,
    }
}

/// Counts in the eight bytes behind what both have in common.
fn between_bytes(first: &[u8], last: &[u8], part: impl Fn(u128) -> u128) -> Option<Vec<u8>> {
    let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    let number = |bytes: &[u8]| {
        let mut eight = [0; 8];
        let tail = &bytes[common..];
        let length = tail.len().min(8);
        eight[..length].copy_from_slice(&tail[..length]);
        u64::from_be_bytes(eight)
    };
    let (a, b) = (number(first), number(last));
    // A descending column would go the other way: it is rare, and stepping serves it.
    let width = u128::from(b.checked_sub(a).filter(|width| *width > 0)?);
    let step = u64::try_from(part(width).max(1)).ok()?;
    let middle = a.saturating_add(step).min(b).to_be_bytes();
    let mut bytes = first[..common].to_vec();
    bytes.extend_from_slice(&middle);
    // Behind the last byte that counts, zeros would only make it longer than its neighbours.
    while bytes.len() > common && bytes.last() == Some(&0) {
        bytes.pop();
    }
    Some(bytes)
}

fn padded(kind: &KeyKind, mut bytes: Vec<u8>) -> Vec<u8> {
    if let KeyKind::Binary(length) = kind {
        bytes.resize(*length as usize, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
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
}
