//! Histograms of columns, as statements that make the very same ones again.

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::mysql::version::ServerVersion;

use super::{Filter, not_system};

/// The histogram of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// The schema.
    pub database: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// `ANALYZE TABLE ... UPDATE HISTOGRAM`, for a session without `NO_BACKSLASH_ESCAPES`.
    pub create: Vec<u8>,
}

/// Reads the histograms of the tables that pass.
pub(super) async fn load(
    session: &mut Session,
    filter: &Filter,
    version: &ServerVersion,
) -> Result<Vec<Histogram>, MysqlError> {
    type Row = (String, String, String, String, u64);
    let rows: Vec<Row> = session
        .query(format!(
            "SELECT SCHEMA_NAME, TABLE_NAME, COLUMN_NAME, CAST(HISTOGRAM AS CHAR), \
             COALESCE(CAST(JSON_EXTRACT(HISTOGRAM, '$.\"number-of-buckets-specified\"') AS UNSIGNED), 100) \
             FROM information_schema.COLUMN_STATISTICS WHERE {} \
             ORDER BY BINARY SCHEMA_NAME, BINARY TABLE_NAME, BINARY COLUMN_NAME",
            not_system("SCHEMA_NAME")
        ))
        .await?;
    Ok(rows
        .into_iter()
        .filter(|(database, table, ..)| filter.passes(database, table))
        .map(|(database, table, column, json, buckets)| {
            // A histogram can be given as it is from 8.0.31 on; before, it is computed again.
            let how = if version.at_least(8, 0, 31) {
                format!("USING DATA {}", quote::escaped(&json))
            } else {
                format!("WITH {} BUCKETS", buckets.clamp(1, 1024))
            };
            let sql = format!(
                "ANALYZE NO_WRITE_TO_BINLOG TABLE {} UPDATE HISTOGRAM ON {} {how}",
                quote::qualified(&database, &table),
                quote::identifier(&column)
            );
            Histogram {
                create: sql.into_bytes(),
                database,
                table,
                column,
            }
        })
        .collect())
}
