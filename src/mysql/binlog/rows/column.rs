//! The types of a table's columns: as much as is needed to find where each value ends.

use super::super::event::{Checksum, EventError, EventKind, RawEvent};
use super::malformed;
use crate::mysql::wire::packet::{Fields, Truncated};

/// The numbers of `enum_field_types`.
pub(super) mod kind {
    pub(in crate::mysql::binlog::rows) const TINY: u8 = 1;
    pub(in crate::mysql::binlog::rows) const SHORT: u8 = 2;
    pub(in crate::mysql::binlog::rows) const LONG: u8 = 3;
    pub(in crate::mysql::binlog::rows) const FLOAT: u8 = 4;
    pub(in crate::mysql::binlog::rows) const DOUBLE: u8 = 5;
    pub(in crate::mysql::binlog::rows) const NULL: u8 = 6;
    pub(in crate::mysql::binlog::rows) const TIMESTAMP: u8 = 7;
    pub(in crate::mysql::binlog::rows) const LONGLONG: u8 = 8;
    pub(in crate::mysql::binlog::rows) const INT24: u8 = 9;
    pub(in crate::mysql::binlog::rows) const DATE: u8 = 10;
    pub(in crate::mysql::binlog::rows) const TIME: u8 = 11;
    pub(in crate::mysql::binlog::rows) const DATETIME: u8 = 12;
    pub(in crate::mysql::binlog::rows) const YEAR: u8 = 13;
    pub(in crate::mysql::binlog::rows) const NEWDATE: u8 = 14;
    pub(in crate::mysql::binlog::rows) const VARCHAR: u8 = 15;
    pub(in crate::mysql::binlog::rows) const BIT: u8 = 16;
    pub(in crate::mysql::binlog::rows) const TIMESTAMP2: u8 = 17;
    pub(in crate::mysql::binlog::rows) const DATETIME2: u8 = 18;
    pub(in crate::mysql::binlog::rows) const TIME2: u8 = 19;
    pub(in crate::mysql::binlog::rows) const TYPED_ARRAY: u8 = 20;
    pub(in crate::mysql::binlog::rows) const VECTOR: u8 = 242;
    pub(in crate::mysql::binlog::rows) const JSON: u8 = 245;
    pub(in crate::mysql::binlog::rows) const NEWDECIMAL: u8 = 246;
    pub(in crate::mysql::binlog::rows) const ENUM: u8 = 247;
    pub(in crate::mysql::binlog::rows) const SET: u8 = 248;
    pub(in crate::mysql::binlog::rows) const TINY_BLOB: u8 = 249;
    pub(in crate::mysql::binlog::rows) const MEDIUM_BLOB: u8 = 250;
    pub(in crate::mysql::binlog::rows) const LONG_BLOB: u8 = 251;
    pub(in crate::mysql::binlog::rows) const BLOB: u8 = 252;
    pub(in crate::mysql::binlog::rows) const VAR_STRING: u8 = 253;
    pub(in crate::mysql::binlog::rows) const STRING: u8 = 254;
    pub(in crate::mysql::binlog::rows) const GEOMETRY: u8 = 255;
}

/// The type of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    /// One of [`kind`]; ENUM and SET by themselves, not as the STRING that the binlog calls them.
    pub(super) kind: u8,
    /// What the type needs besides: a length, digits, the bytes before a value.
    pub(super) meta: u16,
}

/// A table's columns, enough to count its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub(super) columns: Vec<Column>,
    pub(super) json_columns: usize,
}

impl Layout {
    /// The columns that a TABLE_MAP event announces.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes make no sense, or for a type that no server logs.
    pub fn parse(event: &RawEvent<'_>, checksum: Checksum) -> Result<Self, EventError> {
        let mut fields = Fields::new(event.body(checksum)?);
        fields.bytes(8)?;
        for _ in 0..2 {
            fields.lenenc_bytes()?;
            fields.bytes(1)?;
        }
        Self::take(&mut fields)
    }

    /// Reads the columns, up to the bits that tell which may be NULL.
    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, EventError> {
        let count = usize::try_from(fields.lenenc()?).map_err(|_| Truncated)?;
        let kinds = fields.bytes(count)?;
        let mut metadata = Fields::new(fields.lenenc_bytes()?);
        let mut columns = Vec::with_capacity(count);
        let mut json_columns = 0;
        for &kind in kinds {
            let column = column(kind, &mut metadata)?;
            json_columns += usize::from(column.kind == kind::JSON);
            columns.push(column);
        }
        fields.bytes(count.div_ceil(8))?;
        Ok(Self {
            columns,
            json_columns,
        })
    }
}

/// Reads a column's metadata (`read_field_metadata`, `libs/mysql/binlog/event/rows_event.cpp`).
fn column(binlog_kind: u8, metadata: &mut Fields<'_>) -> Result<Column, EventError> {
    let mut byte = || -> Result<u16, Truncated> {
        let byte = metadata.bytes(1)?[0];
        Ok(u16::from(byte))
    };
    let (kind, meta) = match binlog_kind {
        kind::TINY
        | kind::SHORT
        | kind::LONG
        | kind::NULL
        | kind::TIMESTAMP
        | kind::LONGLONG
        | kind::INT24
        | kind::DATE
        | kind::TIME
        | kind::DATETIME
        | kind::YEAR
        | kind::NEWDATE => (binlog_kind, 0),
        kind::FLOAT
        | kind::DOUBLE
        | kind::TINY_BLOB
        | kind::MEDIUM_BLOB
        | kind::LONG_BLOB
        | kind::BLOB
        | kind::GEOMETRY
        | kind::JSON
        | kind::VECTOR => (binlog_kind, byte()?),
        kind::TIME2 | kind::DATETIME2 | kind::TIMESTAMP2 => match byte()? {
            digits @ 0..=6 => (binlog_kind, digits),
            _ => {
                return Err(malformed(
                    EventKind::TABLE_MAP,
                    "a time with more than six digits behind the point",
                ));
            }
        },
        kind::BIT | kind::VARCHAR | kind::VAR_STRING => {
            let low = byte()?;
            (binlog_kind, low | byte()? << 8)
        }
        kind::NEWDECIMAL => {
            let precision = byte()?;
            (binlog_kind, precision << 8 | byte()?)
        }
        kind::STRING | kind::ENUM | kind::SET => {
            let (first, second) = (byte()?, byte()?);
            // The upper bits of a long CHAR's length are hidden, inverted, in its real type.
            if first & 0x30 == 0x30 {
                (u8::try_from(first).unwrap_or(kind::STRING), second)
            } else {
                let real = u8::try_from(first | 0x30).unwrap_or(kind::STRING);
                (real, second | ((first & 0x30) ^ 0x30) << 4)
            }
        }
        // The index of a JSON array: logged as the array.
        kind::TYPED_ARRAY => {
            let inner = u8::try_from(byte()?).unwrap_or(0);
            if inner == kind::VARCHAR {
                // Its length has three bytes here.
                metadata.bytes(3)?;
            } else {
                column(inner, metadata)?;
            }
            (kind::TYPED_ARRAY, 4)
        }
        other => {
            return Err(malformed(
                EventKind::TABLE_MAP,
                &format!("a column of type {other}"),
            ));
        }
    };
    Ok(Column { kind, meta })
}

impl Column {
    /// Takes the bytes of a value that is not NULL, without those that tell its length.
    pub(super) fn take<'a>(self, fields: &mut Fields<'a>) -> Result<&'a [u8], EventError> {
        let fraction = usize::from(self.meta).div_ceil(2);
        let length = match self.kind {
            kind::NULL => 0,
            kind::TINY | kind::YEAR => 1,
            kind::SHORT => 2,
            kind::INT24 | kind::DATE | kind::NEWDATE | kind::TIME => 3,
            kind::LONG | kind::FLOAT | kind::TIMESTAMP => 4,
            kind::LONGLONG | kind::DOUBLE | kind::DATETIME => 8,
            kind::TIME2 => 3 + fraction,
            kind::TIMESTAMP2 => 4 + fraction,
            kind::DATETIME2 => 5 + fraction,
            kind::NEWDECIMAL => super::decimal::length(self.meta).ok_or(Truncated)?,
            kind::BIT => self.bits().div_ceil(8),
            kind::ENUM | kind::SET => usize::from(self.meta & 0xff),
            kind::VARCHAR | kind::VAR_STRING | kind::STRING => match self.meta {
                0..256 => to_usize(fields.uint::<1>()?)?,
                _ => to_usize(fields.uint::<2>()?)?,
            },
            _ => match self.meta {
                1 => to_usize(fields.uint::<1>()?)?,
                2 => to_usize(fields.uint::<2>()?)?,
                3 => to_usize(fields.uint::<3>()?)?,
                4 => to_usize(fields.uint::<4>()?)?,
                _ => {
                    return Err(malformed(
                        EventKind::TABLE_MAP,
                        "a length of no sensible size before a value",
                    ));
                }
            },
        };
        Ok(fields.bytes(length)?)
    }

    /// How many bits a BIT column has.
    pub(super) fn bits(self) -> usize {
        usize::from(self.meta >> 8) * 8 + usize::from(self.meta & 0xff)
    }

    /// Whether it counts among those whose signs are told (YEAR is among them).
    pub(super) const fn is_numeric(self) -> bool {
        matches!(
            self.kind,
            kind::TINY
                | kind::SHORT
                | kind::INT24
                | kind::LONG
                | kind::LONGLONG
                | kind::NEWDECIMAL
                | kind::FLOAT
                | kind::DOUBLE
                | kind::YEAR
        )
    }

    /// Whether it counts among those whose character sets are told.
    pub(super) const fn is_character(self) -> bool {
        matches!(
            self.kind,
            kind::STRING
                | kind::VAR_STRING
                | kind::VARCHAR
                | kind::BLOB
                | kind::TINY_BLOB
                | kind::MEDIUM_BLOB
                | kind::LONG_BLOB
        )
    }
}

fn to_usize(length: u64) -> Result<usize, Truncated> {
    usize::try_from(length).map_err(|_| Truncated)
}
