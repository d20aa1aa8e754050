//! Rows of a text result as the server sent them.
//!
//! A row is one packet of length-encoded strings; nothing is decoded or copied until somebody
//! asks for a field, and then the field is a slice of the packet.

use bytes::Bytes;

use super::connection::WireConnection;
use super::error::WireError;
use super::packet::{Fields, Truncated};

/// What the server says of a column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// The column's name or alias.
    pub name: String,
    /// `enum_field_types` of the protocol (0xF5 is JSON, 0xFC a BLOB, ...).
    pub column_type: u8,
    /// The collation's id; 63 is binary.
    pub character_set: u16,
    /// The column's flags (`NOT_NULL_FLAG` 1, `UNSIGNED_FLAG` 32, ...).
    pub flags: u16,
}

/// A result on its way.
///
/// Dropping it before the last row leaves the rest unread, so the connection serves no further
/// statement; that is meant for giving up.
#[derive(Debug)]
pub struct RawRows<'c> {
    connection: &'c mut WireConnection,
    columns: Vec<ColumnInfo>,
    current: Bytes,
    done: bool,
}

impl<'c> RawRows<'c> {
    /// Reads the column definitions that follow the `first` payload.
    pub(super) async fn begin(
        connection: &'c mut WireConnection,
        first: &[u8],
    ) -> Result<Self, WireError> {
        let count = Fields::new(first)
            .lenenc()
            .map_err(|e| connection.truncated(e))?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let payload = connection.read_payload().await?;
            connection.fail_on_error_packet(&payload)?;
            columns.push(parse_column(&payload).map_err(|e| connection.truncated(e))?);
        }
        Ok(Self {
            connection,
            columns,
            current: Bytes::new(),
            done: false,
        })
    }

    /// The columns of the result.
    #[must_use]
    pub fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    ///
    /// An error of the server in the middle of the result, or a broken connection.
    pub async fn next(&mut self) -> Result<Option<RawRow<'_>>, WireError> {
        if self.done {
            return Ok(None);
        }
        // The packet before is given back first, so that its memory serves the next one.
        self.current = Bytes::new();
        let payload = self.connection.read_payload().await?;
        match payload.first() {
            // A row can start with 0xFE too, but only if its first field has 16 MiB or more.
            Some(0xFE) if payload.len() < 0xFF_FFFF => {
                self.done = true;
                Ok(None)
            }
            Some(0xFF) => {
                self.done = true;
                self.connection.fail_on_error_packet(&payload)?;
                Ok(None)
            }
            _ => {
                self.current = payload;
                Ok(Some(RawRow {
                    payload: &self.current,
                    address: self.connection.address(),
                }))
            }
        }
    }
}

/// One row, still in its packet.
#[derive(Debug, Clone, Copy)]
pub struct RawRow<'a> {
    payload: &'a [u8],
    address: &'a str,
}

impl<'a> RawRow<'a> {
    /// The packet's bytes.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The fields in the order of the columns; `None` is SQL's NULL.
    #[must_use]
    pub const fn fields(&self) -> RawFields<'a> {
        RawFields {
            fields: Fields::new(self.payload),
        }
    }

    /// The error of a row whose packet ends inside a field.
    #[must_use]
    pub fn malformed(&self, error: Truncated) -> WireError {
        WireError::Malformed {
            address: self.address.to_owned(),
            reason: error.to_string(),
        }
    }
}

/// The fields of a row.
#[derive(Debug, Clone)]
pub struct RawFields<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for RawFields<'a> {
    type Item = Result<Option<&'a [u8]>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fields.rest().first() {
            None => None,
            Some(0xFB) => Some(self.fields.bytes(1).map(|_| None)),
            Some(_) => {
                let field = self.fields.lenenc_bytes();
                if field.is_err() {
                    // Nothing sensible can follow: end after the error.
                    self.fields = Fields::new(&[]);
                }
                Some(field.map(Some))
            }
        }
    }
}

fn parse_column(payload: &[u8]) -> Result<ColumnInfo, Truncated> {
    let mut fields = Fields::new(payload);
    for _catalog_schema_table_org_table in 0..4 {
        fields.lenenc_bytes()?;
    }
    let name = fields.lenenc_bytes()?;
    let _original_name = fields.lenenc_bytes()?;
    let _length_of_fixed_fields = fields.lenenc()?;
    let character_set = fields.uint::<2>()?;
    let _column_length = fields.uint::<4>()?;
    let column_type = fields.uint::<1>()?;
    let flags = fields.uint::<2>()?;
    Ok(ColumnInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        column_type: u8::try_from(column_type).map_err(|_| Truncated)?,
        character_set: u16::try_from(character_set).map_err(|_| Truncated)?,
        flags: u16::try_from(flags).map_err(|_| Truncated)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_tell_null_from_empty_and_end_after_an_error() {
        let row = RawRow {
            payload: b"\x01a\xfb\x00\x05xy",
            address: "test",
        };
        let fields: Vec<_> = row.fields().collect();
        assert_eq!(
            fields,
            [
                Ok(Some(&b"a"[..])),
                Ok(None),
                Ok(Some(&b""[..])),
                Err(Truncated)
            ]
        );
    }
}
