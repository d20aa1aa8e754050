//! A part of a table as a condition, and values of its key as literals.

#[cfg(test)]
mod tests;

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

    /// How many of the key's leading columns have one value in all of the part. They say nothing of the
    /// order, and the optimizer would sort the rows by some of them all the same.
    pub(in crate::snapshot) fn fixed(&self) -> usize {
        let (Some(from), Some(before)) = (&self.from, &self.before) else {
            return 0;
        };
        let most = before.0.len().saturating_sub(1);
        let pairs = from.0.iter().zip(&before.0).take(most);
        pairs.take_while(|(a, b)| a == b).count()
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
