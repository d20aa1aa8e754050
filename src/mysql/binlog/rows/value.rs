//! One column's value in a row's image.

use super::super::event::{EventError, EventKind};
use super::charset::Charset;
use super::column::{Column, kind};
use super::table::TableMap;
use super::{decimal, malformed, time};

/// A value, with as much of its type as the binlog tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// An integer, of a column with a sign or of one of which that is not known.
    Signed(i64),
    /// An integer of a column without a sign.
    Unsigned(u64),
    /// DECIMAL, with all its digits.
    Decimal(String),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// YEAR; 0 is the year 0000.
    Year(u16),
    /// DATE, TIME, DATETIME as they are, TIMESTAMP in UTC.
    Moment(String),
    /// BIT: its bytes, the highest first, and how many bits there are.
    Bits(&'a [u8], usize),
    /// CHAR, VARCHAR, TEXT in a character set; BINARY, VARBINARY, BLOB.
    Text(Text<'a>),
    /// ENUM: its number, and its word where the binlog has it.
    Enum(u64, Option<String>),
    /// SET: its bits, how many there can be, and its words where the binlog has them.
    Set(u64, usize, Option<String>),
    /// JSON as MySQL stores it.
    Json(&'a [u8]),
    /// Changes to a JSON value.
    JsonChange(&'a [u8]),
    /// GEOMETRY: SRID and WKB.
    Geometry(&'a [u8]),
    /// VECTOR: numbers of four bytes.
    Vector(&'a [u8]),
}

/// Bytes with the character set that they are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) charset: Charset,
}

impl<'a> Value<'a> {
    /// Reads the bytes of column `number` of a table.
    pub(super) fn read(
        column: Column,
        number: usize,
        table: &TableMap,
        bytes: &'a [u8],
    ) -> Result<Self, EventError> {
        let broken = |what: &str| malformed(EventKind::TABLE_MAP, what);
        Ok(match column.kind {
            kind::NULL => Self::Null,
            kind::TINY | kind::SHORT | kind::INT24 | kind::LONG | kind::LONGLONG => {
                let whole = low_first(bytes);
                if table.is_unsigned(number) {
                    Self::Unsigned(whole)
                } else {
                    let unused = 64 - 8 * bytes.len() as u32;
                    Self::Signed((whole << unused) as i64 >> unused)
                }
            }
            kind::YEAR => match low_first(bytes) {
                0 => Self::Year(0),
                year => Self::Year(1900 + year as u16),
            },
            kind::FLOAT => Self::Float(f32::from_bits(low_first(bytes) as u32)),
            kind::DOUBLE => Self::Double(f64::from_bits(low_first(bytes))),
            kind::NEWDECIMAL => Self::Decimal(
                decimal::text(column.meta, bytes)
                    .ok_or_else(|| broken("bytes that are no decimal"))?,
            ),
            kind::DATE | kind::NEWDATE => Self::Moment(time::date(bytes)),
            kind::TIME => Self::Moment(time::old_time(bytes)),
            kind::DATETIME => Self::Moment(time::old_datetime(low_first(bytes))),
            kind::TIMESTAMP => {
                let seconds = i64::try_from(low_first(bytes)).unwrap_or(0);
                Self::Moment(time::timestamp(seconds, 0, 0))
            }
            kind::TIME2 => Self::Moment(time::time2(bytes, column.meta)),
            kind::DATETIME2 => Self::Moment(time::datetime2(bytes, column.meta)),
            kind::TIMESTAMP2 => Self::Moment(time::timestamp2(bytes, column.meta)),
            kind::BIT => Self::Bits(bytes, column.bits()),
            kind::ENUM => {
                let index = low_first(bytes);
                let at = usize::try_from(index).ok().and_then(|at| at.checked_sub(1));
                let label = at.and_then(|at| table.labels(number).get(at)).cloned();
                Self::Enum(index, label)
            }
            kind::SET => {
                let bits = low_first(bytes);
                let labels = table.labels(number);
                let words = (!labels.is_empty()).then(|| {
                    let set = labels.iter().take(64).enumerate();
                    let words: Vec<&str> = set
                        .filter(|(at, _)| bits >> at & 1 == 1)
                        .map(|(_, label)| label.as_str())
                        .collect();
                    words.join(",")
                });
                Self::Set(bits, bytes.len() * 8, words)
            }
            kind::JSON | kind::TYPED_ARRAY => Self::Json(bytes),
            kind::GEOMETRY => Self::Geometry(bytes),
            kind::VECTOR => Self::Vector(bytes),
            _ => Self::Text(Text {
                bytes,
                charset: table.charset(number),
            }),
        })
    }
}

/// A number of at most eight bytes, low byte first.
pub(super) fn low_first(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
