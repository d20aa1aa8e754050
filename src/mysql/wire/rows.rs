//! Rows of a text result as the server sent them.
//!
//! A row is one packet of length-encoded strings; nothing is decoded or copied until somebody
//! asks for a field, and then the field is a slice of the packet. A row that is too large to be
//! held comes in pieces, which [`FieldPieces`] takes apart.

use bytes::Bytes;

use super::connection::WireConnection;
use super::error::WireError;
use super::packet::{Fields, PayloadPiece, Truncated};

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

/// A row, or a part of one that is large.
#[derive(Debug, Clone, Copy)]
pub enum RowPiece<'a> {
    /// All of a row.
    Whole(RawRow<'a>),
    /// The next bytes of a row's packet.
    Part {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the row ends with them.
        last: bool,
    },
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
        self.current = self.connection.read_payload().await?;
        // A row can start with 0xFE too, but only if its first field has 16 MiB or more.
        if self.ends_here(self.current.len() < 0xFF_FFFF)? {
            return Ok(None);
        }
        Ok(Some(self.row()))
    }

    /// The next row or part of one, or `None` after the last row: so rows of any size pass through
    /// a buffer of constant size. A row whose first part was taken must be taken to its end.
    ///
    /// # Errors
    ///
    /// As [`RawRows::next`].
    pub async fn next_piece(&mut self) -> Result<Option<RowPiece<'_>>, WireError> {
        if self.done {
            return Ok(None);
        }
        self.current = Bytes::new();
        let PayloadPiece { bytes, first, last } = self.connection.read_piece().await?;
        self.current = bytes;
        // Neither an error nor the end of the rows is ever so long that it comes in pieces.
        if first && last {
            if self.ends_here(true)? {
                return Ok(None);
            }
            return Ok(Some(RowPiece::Whole(self.row())));
        }
        Ok(Some(RowPiece::Part {
            bytes: &self.current,
            last,
        }))
    }

    /// The next row if all of it has been read off the socket already and it is a small one; no
    /// row says nothing about whether more will come.
    ///
    /// # Errors
    ///
    /// A connection whose packets are out of order.
    pub fn next_here(&mut self) -> Result<Option<RawRow<'_>>, WireError> {
        if self.done {
            return Ok(None);
        }
        // Both ends of the rows are left to `next_piece`.
        let is_row = |payload: &[u8]| !matches!(payload.first(), Some(0xFE | 0xFF));
        let row = self.connection.buffered_small(is_row)?;
        Ok(row.map(|(payload, address)| RawRow { payload, address }))
    }

    /// Whether the present packet says that there are no more rows, rather than being one.
    fn ends_here(&mut self, may_end: bool) -> Result<bool, WireError> {
        match self.current.first() {
            Some(0xFE) if may_end => {
                self.done = true;
                Ok(true)
            }
            Some(0xFF) => {
                self.done = true;
                self.connection.fail_on_error_packet(&self.current)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn row(&self) -> RawRow<'_> {
        RawRow {
            payload: &self.current,
            address: self.connection.address(),
        }
    }

    /// The error of a row that came in pieces and ends inside a field.
    #[must_use]
    pub fn malformed(&self, error: Truncated) -> WireError {
        self.connection.truncated(error)
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

/// Takes a row apart that comes in pieces, however they are cut.
#[derive(Debug, Default)]
pub struct FieldPieces {
    /// The bytes so far of a length that is not all there.
    length: [u8; 9],
    have: usize,
    /// Bytes of the present field that are still to come.
    left: u64,
}

/// A part of a row's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldPiece<'a> {
    /// A whole field: SQL's NULL.
    Null,
    /// A field begins.
    Begin,
    /// The next bytes of the present field.
    Bytes(&'a [u8]),
}

impl FieldPieces {
    /// Takes the next part off `bytes`, or returns `None` once they are used up.
    ///
    /// # Errors
    ///
    /// [`Truncated`] for a length that is none.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<FieldPiece<'a>>, Truncated> {
        if self.left > 0 {
            if bytes.is_empty() {
                return Ok(None);
            }
            let here = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (field, rest) = bytes.split_at(here);
            *bytes = rest;
            self.left -= here as u64;
            return Ok(Some(FieldPiece::Bytes(field)));
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if self.have == 0 && byte == 0xFB {
                return Ok(Some(FieldPiece::Null));
            }
            self.length[self.have] = byte;
            self.have += 1;
            let needed = match self.length[0] {
                0xFC => 3,
                0xFD => 4,
                0xFE => 9,
                _ => 1,
            };
            if self.have == needed {
                self.left = Fields::new(&self.length[..needed]).lenenc()?;
                self.have = 0;
                return Ok(Some(FieldPiece::Begin));
            }
        }
        Ok(None)
    }

    /// Whether a row may end here: not inside a field.
    #[must_use]
    pub const fn is_between_fields(&self) -> bool {
        self.left == 0 && self.have == 0
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
    use crate::mysql::wire::packet::put_lenenc_bytes;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn pieces_of_a_row_hold_what_the_row_holds(
            fields in prop::collection::vec(
                prop::option::of(prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    prop::collection::vec(any::<u8>(), 249..254),
                    prop::collection::vec(any::<u8>(), 65_534..65_538),
                ]),
                0..5,
            ),
            step in prop_oneof![1_usize..12, 60_000_usize..70_000],
        ) {
            let mut payload = Vec::new();
            for field in &fields {
                match field {
                    None => payload.push(0xFB),
                    Some(bytes) => put_lenenc_bytes(bytes, &mut payload),
                }
            }
            let mut pieces = FieldPieces::default();
            let mut got: Vec<Option<Vec<u8>>> = Vec::new();
            for mut bytes in payload.chunks(step) {
                while let Some(piece) = pieces.next(&mut bytes).expect("good lengths") {
                    match piece {
                        FieldPiece::Null => got.push(None),
                        FieldPiece::Begin => got.push(Some(Vec::new())),
                        FieldPiece::Bytes(bytes) => {
                            let field = got.last_mut().expect("it began");
                            field.as_mut().expect("it is not NULL").extend_from_slice(bytes);
                        }
                    }
                }
            }
            prop_assert!(pieces.is_between_fields());
            prop_assert_eq!(got, fields);
        }
    }
}
