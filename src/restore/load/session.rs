//! The settings of every session that loads (as MySQL Shell's, which the manual describes).

use crate::mysql::wire::{WireConnection, WireOptions};
use crate::mysql::{MysqlError, ServerUrl, Session};
use crate::restore::held;

use super::error::LoadError;
use super::parts::TABLES_JOURNAL;
use super::steps::Steps;

/// No checks across tables (the dump was consistent), UTC, no surprises
/// from the server's own modes, and all the time in the world: also for a transaction of a killed
/// run that is being rolled back. With `unique_checks` off InnoDB may put a row into the unique
/// secondary index of a page that it has not read and so miss a duplicate; a consistent snapshot has
/// none, and a unique index that is built after the rows is checked in any case. LOCAL makes errors
/// of values warnings whatever the mode says, and a warning fails the load.
const SETTINGS: &str = "SET SESSION \
     sql_mode = 'NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES', \
     foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00', autocommit = 1, \
     transaction_isolation = 'READ-COMMITTED', completion_type = NO_CHAIN, \
     innodb_lock_wait_timeout = 86400, \
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

/// Keeps what a session does out of the binlog.
const UNLOGGED: &str = "SET SESSION sql_log_bin = 0";

/// Prepares the session that makes the schema; with `logged` what it does goes to the binlog.
pub(super) async fn prepare(session: &mut Session, logged: bool) -> Result<(), MysqlError> {
    if !logged {
        session.execute(UNLOGGED).await?;
    }
    session.execute(SETTINGS).await?;
    for statement in OPTIONAL {
        optional(session, statement).await?;
    }
    Ok(())
}

async fn optional(session: &mut Session, statement: &str) -> Result<(), MysqlError> {
    match session.execute(statement).await {
        Err(error) if error.code() == Some(UNKNOWN_VARIABLE) => Ok(()),
        other => other.map(drop),
    }
}

/// Opens a session for statements on tables.
pub(super) async fn open(url: &ServerUrl, logged: bool) -> Result<Session, MysqlError> {
    let mut session = Session::connect(url).await?;
    session.set_timeout(None);
    prepare(&mut session, logged).await?;
    Ok(session)
}

/// What the sorting of all indexes that are built at once may take of the server's memory, of its
/// buffer pool; and the bounds of that, in bytes.
const SORT_PART: u64 = 8;
const SORT_BYTES: (u64, u64) = (64 << 20, 1 << 30);

/// Gives a session that builds indexes its share of the threads, and of memory for sorting. Servers
/// before 8.0.27 have no such settings, or not all of them.
pub(super) async fn for_indexes(
    session: &mut Session,
    share: usize,
    threads: usize,
) -> Result<(), MysqlError> {
    let pool: u64 = session
        .query_one("SELECT @@GLOBAL.innodb_buffer_pool_size")
        .await?;
    let all = (pool / SORT_PART).clamp(SORT_BYTES.0, SORT_BYTES.1);
    let bytes = all * share as u64 / threads.max(share) as u64;
    for setting in [
        format!("innodb_ddl_buffer_size = {bytes}"),
        format!("innodb_ddl_threads = {share}"),
        format!("innodb_parallel_read_threads = {share}"),
    ] {
        optional(session, &format!("SET SESSION {setting}")).await?;
    }
    Ok(())
}

/// What the server shows as the program of a connection that loads rows. A server has one journal of
/// each kind at the most, so the same name is of the same restore; a load without a journal is none
/// to go on with.
fn program(steps: &Steps) -> &'static str {
    match steps.journal() {
        Some(TABLES_JOURNAL) => "quillback load --tables",
        _ => "quillback load",
    }
}

/// Ends the connections of an earlier run of the same restore, which the server may not know to be dead: a network that
/// was cut leaves them open, with their transactions and their locks. Only connections of this
/// session's own account are looked at (`session_account_connect_attrs` shows no others), and ending
/// those needs no privilege. Without the performance schema the server finds out by itself, in its
/// own time.
pub(super) async fn end_loaders(session: &mut Session, steps: &Steps) -> Result<(), MysqlError> {
    let program = program(steps);
    let ids: Vec<u64> = session
        .query(format!(
            "SELECT PROCESSLIST_ID FROM performance_schema.session_account_connect_attrs \
             WHERE ATTR_NAME = 'program_name' AND ATTR_VALUE = '{program}'"
        ))
        .await?;
    for id in ids {
        held::end(session, id).await?;
    }
    Ok(())
}

/// Opens a connection that loads rows.
pub(super) async fn loader(
    url: &ServerUrl,
    logged: bool,
    steps: &Steps,
) -> Result<WireConnection, LoadError> {
    let options = WireOptions {
        program_name: program(steps).to_owned(),
        ..WireOptions::default()
    };
    let mut connection = WireConnection::connect(url, &options).await?;
    if !logged {
        connection.execute(UNLOGGED).await?;
    }
    connection.execute(SETTINGS).await?;
    Ok(connection)
}
