//! The rows of a rows event: an image before, an image after, or both.

use super::super::event::{Checksum, EventError, EventKind, RawEvent};
use super::super::summary::Operation;
use super::column::{Column, Layout, kind};
use super::malformed;
use super::table::TableMap;
use super::value::Value;
use crate::mysql::wire::packet::{Fields, Truncated};

/// `value_options`: JSON columns of the image behind may be logged as changes.
const PARTIAL_JSON: u64 = 1;

/// The columns of an image that were logged, by their numbers, with their values.
pub type Image<'a> = Vec<(usize, Value<'a>)>;

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// What it was; none for an insertion.
    pub before: Option<Image<'a>>,
    /// What it became; none for a deletion.
    pub after: Option<Image<'a>>,
}

/// The rows of one event.
#[derive(Debug, Clone, Copy)]
pub struct RowsEvent<'a> {
    /// What was done to them.
    pub operation: Operation,
    /// The number of their table.
    pub table_id: u64,
    kind: EventKind,
    width: usize,
    /// Which columns the first image of a row has, and which the second.
    first: &'a [u8],
    second: &'a [u8],
    data: &'a [u8],
}

impl<'a> RowsEvent<'a> {
    /// Reads an event of rows; `None` for another one.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes make no sense.
    pub fn parse(event: &RawEvent<'a>, checksum: Checksum) -> Result<Option<Self>, EventError> {
        let kind = event.kind();
        let Some(operation) = Operation::of(kind) else {
            return Ok(None);
        };
        let mut fields = Fields::new(event.body(checksum)?);
        let table_id = fields.uint::<6>()?;
        fields.bytes(2)?;
        let is_old = matches!(
            kind,
            EventKind::WRITE_ROWS_V1 | EventKind::UPDATE_ROWS_V1 | EventKind::DELETE_ROWS_V1
        );
        if !is_old {
            let extra = fields.uint::<2>()?;
            let extra = extra.checked_sub(2).ok_or(Truncated)?;
            fields.bytes(usize::try_from(extra).map_err(|_| Truncated)?)?;
        }
        let width = usize::try_from(fields.lenenc()?).map_err(|_| Truncated)?;
        let first = fields.bytes(width.div_ceil(8))?;
        let second = match operation {
            Operation::Update => fields.bytes(width.div_ceil(8))?,
            _ => &[],
        };
        Ok(Some(Self {
            operation,
            table_id,
            kind,
            width,
            first,
            second,
            data: fields.rest(),
        }))
    }

    /// How many rows there are.
    ///
    /// # Errors
    ///
    /// [`EventError`] if they are none of a table of this layout.
    pub fn count(&self, layout: &Layout) -> Result<u64, EventError> {
        let mut fields = Fields::new(self.data);
        let mut count = 0;
        while !fields.is_empty() {
            self.walk(layout, &mut fields, |_, _, _, _| Ok(()))?;
            count += 1;
        }
        Ok(count)
    }

    /// The rows with their values.
    #[must_use]
    pub const fn rows<'t>(&self, table: &'t TableMap) -> Rows<'a, 't> {
        Rows {
            event: *self,
            fields: Fields::new(self.data),
            table,
            is_broken: false,
        }
    }

    /// Goes over one row and tells each value: whether it is of the second image, the column's
    /// number, whether it is logged as a change, and the bytes (none for NULL).
    fn walk(
        &self,
        layout: &Layout,
        fields: &mut Fields<'a>,
        mut each: impl FnMut(bool, usize, bool, Option<&'a [u8]>) -> Result<(), EventError>,
    ) -> Result<(), EventError> {
        if layout.columns.len() != self.width {
            return Err(malformed(
                self.kind,
                "it has another number of columns than its table",
            ));
        }
        let before = fields.rest().len();
        let images = match self.operation {
            Operation::Update => 2,
            _ => 1,
        };
        for image in 0..images {
            let is_second = image == 1;
            let partial = match (is_second, self.kind) {
                (true, EventKind::PARTIAL_UPDATE_ROWS) => {
                    if fields.lenenc()? & PARTIAL_JSON == 0 {
                        &[]
                    } else {
                        fields.bytes(layout.json_columns.div_ceil(8))?
                    }
                }
                _ => &[],
            };
            let present = if is_second { self.second } else { self.first };
            let logged = count_bits(present, self.width);
            let nulls = fields.bytes(logged.div_ceil(8))?;
            let (mut place, mut json) = (0, 0);
            for (number, column) in layout.columns.iter().enumerate() {
                // One bit for each JSON column of the table, whether the image has it or not.
                let mut is_change = false;
                if column.kind == kind::JSON {
                    is_change = bit(partial, json);
                    json += 1;
                }
                if !bit(present, number) {
                    continue;
                }
                let is_null = bit(nulls, place);
                place += 1;
                let value = match is_null {
                    true => None,
                    false => Some(column.take(fields)?),
                };
                each(is_second, number, is_change, value)?;
            }
        }
        if fields.rest().len() == before {
            return Err(malformed(self.kind, "a row without a byte"));
        }
        Ok(())
    }
}

/// The rows of an event, one by one.
#[derive(Debug)]
pub struct Rows<'a, 't> {
    event: RowsEvent<'a>,
    fields: Fields<'a>,
    table: &'t TableMap,
    is_broken: bool,
}

impl<'a> Iterator for Rows<'a, '_> {
    type Item = Result<Row<'a>, EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken || self.fields.is_empty() {
            return None;
        }
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let table = self.table;
        let columns: &[Column] = &table.layout.columns;
        let walked = self.event.walk(
            &table.layout,
            &mut self.fields,
            |is_second, number, is_change, bytes| {
                let value = match bytes {
                    None => Value::Null,
                    Some(bytes) if is_change => Value::JsonChange(bytes),
                    Some(bytes) => Value::read(columns[number], number, table, bytes)?,
                };
                let image = if is_second { &mut second } else { &mut first };
                image.push((number, value));
                Ok(())
            },
        );
        if let Err(error) = walked {
            self.is_broken = true;
            return Some(Err(error));
        }
        Some(Ok(match self.event.operation {
            Operation::Insert => Row {
                before: None,
                after: Some(first),
            },
            Operation::Delete => Row {
                before: Some(first),
                after: None,
            },
            Operation::Update => Row {
                before: Some(first),
                after: Some(second),
            },
        }))
    }
}

fn bit(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8)
        .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

/// How many of the first `width` bits are set.
fn count_bits(bits: &[u8], width: usize) -> usize {
    let whole: u32 = bits[..width / 8].iter().map(|byte| byte.count_ones()).sum();
    let rest = match width % 8 {
        0 => 0,
        some => (bits[width / 8] & ((1 << some) - 1)).count_ones(),
    };
    (whole + rest) as usize
}
