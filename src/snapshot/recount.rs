//! Has the server count a table's rows in the view that they were read in, as a check of how the
//! table was cut into parts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mysql::quote;
use crate::mysql::schema::Table;
use crate::mysql::wire::{WireConnection, WireError};

use super::error::SnapshotError;

/// How far the parts of a table are read, and how many rows that were.
#[derive(Debug, Default)]
pub(super) struct Recount {
    parts: AtomicU64,
    rows: AtomicU64,
}

impl Recount {
    /// There are so many more parts.
    pub(super) fn expect(&self, parts: u64) {
        self.parts.fetch_add(parts, Ordering::AcqRel);
    }

    /// A part has been read; the rows of all of them if it was the last.
    pub(super) fn part_read(&self, rows: u64) -> Option<u64> {
        self.rows.fetch_add(rows, Ordering::AcqRel);
        (self.parts.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.rows.load(Ordering::Acquire))
    }
}

/// Fails unless the connection's view has so many rows of the table.
pub(super) async fn compare(
    connection: &mut WireConnection,
    table: &Table,
    read: u64,
) -> Result<(), SnapshotError> {
    let failed = |source: WireError| SnapshotError::Table {
        table: table.display_name(),
        source,
    };
    let counted = count(connection, table).await.map_err(failed)?;
    if counted == read {
        return Ok(());
    }
    Err(SnapshotError::Uncounted {
        table: table.display_name(),
        read,
        counted,
    })
}

async fn count(connection: &mut WireConnection, table: &Table) -> Result<u64, WireError> {
    // By whatever index: one that the rows did not come from tells more.
    let name = quote::qualified(&table.database, &table.name);
    let sql = format!("SELECT COUNT(*) FROM {name}");
    let mut rows = connection.query_rows(&sql).await?;
    let mut counted = None;
    while let Some(row) = rows.next().await? {
        let field = row.fields().next().transpose();
        let field = field.map_err(|error| row.malformed(error))?.flatten();
        counted = field.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    }
    counted.ok_or_else(|| rows.malformed(crate::mysql::wire::packet::Truncated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_tells_the_rows_of_all() {
        let recount = Recount::default();
        recount.expect(1);
        recount.expect(1);
        assert_eq!(recount.part_read(3), None);
        recount.expect(1);
        assert_eq!(recount.part_read(4), None);
        assert_eq!(recount.part_read(0), Some(7));
    }
}
