//! The settings of every session that loads (as MySQL Shell's, which the manual describes).

use crate::mysql::wire::{WireConnection, WireOptions};
use crate::mysql::{MysqlError, ServerUrl, Session};

use super::error::LoadError;

/// Nothing to the binlog, no checks across tables (the dump was consistent), UTC, no surprises
/// from the server's own modes, and all the time in the world.
const SETTINGS: &str = "SET SESSION sql_log_bin = 0, \
     sql_mode = 'NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00', \
     net_read_timeout = 3600, net_write_timeout = 3600, wait_timeout = 86400, \
     lock_wait_timeout = 86400, max_error_count = 65535, max_heap_table_size = 1099511627776, \
     innodb_strict_mode = 0";

/// Settings that not every version has: 8.0.13, 8.0.30, 8.4.
const OPTIONAL: [&str; 3] = [
    "SET SESSION sql_require_primary_key = 0",
    "SET SESSION sql_generate_invisible_primary_key = 0",
    "SET SESSION restrict_fk_on_non_standard_key = 0",
];

/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;

/// Prepares the session that makes the schema.
pub(super) async fn prepare(session: &mut Session) -> Result<(), MysqlError> {
    session.execute(SETTINGS).await?;
    for optional in OPTIONAL {
        match session.execute(optional).await {
            Err(error) if error.code() == Some(UNKNOWN_VARIABLE) => {}
            other => {
                other?;
            }
        }
    }
    Ok(())
}

/// Opens a connection that loads rows.
pub(super) async fn loader(url: &ServerUrl) -> Result<WireConnection, LoadError> {
    let mut connection = WireConnection::connect(url, &WireOptions::default()).await?;
    connection.execute(SETTINGS).await?;
    Ok(connection)
}
