//! Row events under other names: the maps of followed tables get the names of the staged ones, the
//! rows of all other tables are left out.
//!
//! A statement of the source may have touched several tables, and its last event says that it ends
//! (`STMT_END_F`), whichever table that is of. So the end is told apart from the events, and whoever
//! says them anew sets the flag on the last one that is left. Events go without checksums.

use std::collections::BTreeMap;

use crate::mysql::binlog::{Checksum, EventError, EventKind, HEADER_LENGTH, RawEvent};
use crate::restore::replay::sql::Rows;

/// Where the length is in an event's header.
const LENGTH_AT: usize = 9;
/// The bytes of a table's number and the flags behind it.
const BEFORE_NAMES: usize = 8;

/// Where a rows event's flags are, behind the table's number.
const FLAGS_AT: usize = HEADER_LENGTH + 6;
/// `STMT_END_F`.
const STATEMENT_END: u8 = 1;
/// `NO_FOREIGN_KEY_CHECKS_F`.
const NO_FOREIGN_KEY_CHECKS: u8 = 2;

/// Where a table's rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staged {
    /// Its schema there.
    pub(super) schema: String,
    /// Its name there.
    pub(super) table: String,
    /// Whether it refers to a table that is not there, so that its foreign keys cannot be checked.
    pub(super) unchecked: bool,
}

/// What is kept of the statement that is being read.
#[derive(Debug, Default)]
pub(super) struct KeptRows {
    rows: Rows,
    /// The numbers of the followed tables of this statement, and whether their foreign keys go
    /// unchecked.
    followed: BTreeMap<u64, bool>,
}

/// What an event of rows asks of whoever says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing.
    Nothing,
    /// Rows were kept.
    Kept,
    /// What waits is to be said now.
    Say,
}

impl KeptRows {
    /// Takes the map of a table; `place` tells where its rows go, unless they are left out.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes make no sense.
    pub(super) fn map(
        &mut self,
        event: &RawEvent<'_>,
        checksum: Checksum,
        place: impl FnOnce(&str, &str) -> Option<Staged>,
    ) -> Result<(), EventError> {
        let (id, schema, table) = event.table_map(checksum)?;
        let names = (
            String::from_utf8_lossy(schema),
            String::from_utf8_lossy(table),
        );
        let Some(place) = place(&names.0, &names.1) else {
            self.followed.remove(&id);
            return Ok(());
        };
        self.followed.insert(id, place.unchecked);
        let to = (place.schema.as_str(), place.table.as_str());
        let renamed = renamed(event, checksum, (schema, table), to)?;
        let renamed = RawEvent::new(&renamed)?;
        self.rows.map(&renamed, Checksum::None);
        Ok(())
    }

    /// Whether rows of this event are kept.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes make no sense.
    pub(super) fn keeps(
        &self,
        event: &RawEvent<'_>,
        checksum: Checksum,
    ) -> Result<bool, EventError> {
        Ok(self.followed.contains_key(&event.rows_table_id(checksum)?))
    }

    /// Takes rows.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes make no sense.
    pub(super) fn rows(
        &mut self,
        event: &RawEvent<'_>,
        checksum: Checksum,
    ) -> Result<Taken, EventError> {
        let is_end = ends_statement(event, checksum)?;
        let mut taken = Taken::Nothing;
        if let Some(unchecked) = self.followed.get(&event.rows_table_id(checksum)?) {
            // What is deleted has no parent to look for, and may have children.
            let is_full = if *unchecked && event.kind() != EventKind::DELETE_ROWS {
                let mut bytes = event.bytes().to_vec();
                bytes[FLAGS_AT] |= NO_FOREIGN_KEY_CHECKS;
                self.rows.rows(&RawEvent::new(&bytes)?, checksum)
            } else {
                self.rows.rows(event, checksum)
            };
            taken = if is_full { Taken::Say } else { Taken::Kept };
        }
        if is_end {
            self.rows.end_statement();
            self.followed.clear();
            if !self.rows.is_empty() {
                taken = Taken::Say;
            }
        }
        Ok(taken)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The statements that make the server do what waits.
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        self.rows.take()
    }

    /// Forgets a transaction that is left out.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether an event of rows is the last one of its statement.
fn ends_statement(event: &RawEvent<'_>, checksum: Checksum) -> Result<bool, EventError> {
    let flags = event.body(checksum)?.get(6).ok_or(EventError::Truncated)?;
    Ok(flags & STATEMENT_END != 0)
}

/// The map of a table under other names, without a checksum.
fn renamed(
    event: &RawEvent<'_>,
    checksum: Checksum,
    from: (&[u8], &[u8]),
    to: (&str, &str),
) -> Result<Vec<u8>, EventError> {
    let malformed = |reason: &str| EventError::Malformed {
        kind: EventKind::TABLE_MAP,
        reason: reason.to_owned(),
    };
    let body = event.body(checksum)?;
    let head = event.bytes().get(..HEADER_LENGTH);
    let head = head.ok_or(EventError::Truncated)?;
    // Each name has its length before it and a zero behind it.
    let names = BEFORE_NAMES + from.0.len() + from.1.len() + 4;
    let fixed = body.get(..BEFORE_NAMES).ok_or(EventError::Truncated)?;
    let rest = body.get(names..).ok_or(EventError::Truncated)?;
    let mut out = Vec::with_capacity(event.bytes().len() + to.0.len() + to.1.len());
    out.extend_from_slice(head);
    out.extend_from_slice(fixed);
    for name in [to.0, to.1] {
        // Names have at most 64 characters of at most three bytes.
        let length = u8::try_from(name.len()).ok().filter(|length| *length < 251);
        out.push(length.ok_or_else(|| malformed("the name is too long"))?);
        out.extend_from_slice(name.as_bytes());
        out.push(0);
    }
    out.extend_from_slice(rest);
    let length = u32::try_from(out.len()).map_err(|_| malformed("it is too long"))?;
    out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests;
