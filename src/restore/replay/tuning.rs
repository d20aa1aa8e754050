//! The server's settings for the time of a replay.
//!
//! A transaction of the log is in the archive, so nothing is lost if the server's host loses power:
//! the restore is begun anew. But the server may be killed and started again, and the replay go on:
//! so what was committed must be with the operating system. Hence
//! `innodb_flush_log_at_trx_commit` is 2 and not 0: with 0 the binlog could come back with
//! transactions (and `gtid_executed` with their GTIDs) that InnoDB has lost.

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

/// What is set, by all the names that it has had; a name that the server does not know is passed
/// over.
const SETTINGS: &[(&str, &str)] = &[
    ("sync_binlog", "0"),
    ("innodb_flush_log_at_trx_commit", "2"),
    ("binlog_group_commit_sync_delay", "0"),
    ("sync_relay_log", "0"),
    // With the size of the whole that the server holds at a time, this bounds its disk.
    ("max_relay_log_size", "268435456"),
    ("replica_parallel_type", "LOGICAL_CLOCK"),
    ("slave_parallel_type", "LOGICAL_CLOCK"),
    ("replica_max_allowed_packet", "1073741824"),
    ("slave_max_allowed_packet", "1073741824"),
];

/// What the number of appliers is called.
const WORKERS: [&str; 2] = ["replica_parallel_workers", "slave_parallel_workers"];

/// Every setting that a replay changes for its time.
pub const TUNED: [&str; 13] = [
    "sync_binlog",
    "innodb_flush_log_at_trx_commit",
    "binlog_group_commit_sync_delay",
    "sync_relay_log",
    "max_relay_log_size",
    "replica_parallel_type",
    "slave_parallel_type",
    "replica_max_allowed_packet",
    "slave_max_allowed_packet",
    "replica_parallel_workers",
    "slave_parallel_workers",
    "max_allowed_packet",
    "server_id",
];

/// What was changed, with what it was.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<(String, String)>);

/// Loosens the settings for `workers` appliers. What was changed before a failure is put back.
///
/// A receiver drops events of its server's own id in silence (`rpl_replica.cc`, `queue_event`): where
/// the log has such, the server has `server_id` meanwhile.
pub(super) async fn tune(
    session: &mut Session,
    workers: u32,
    server_id: Option<u32>,
) -> Result<Found, MysqlError> {
    let workers = workers.to_string();
    let server_id = server_id.map(|id| id.to_string());
    let wanted = SETTINGS
        .iter()
        .copied()
        .chain(WORKERS.map(|name| (name, workers.as_str())))
        .chain(server_id.as_deref().map(|id| ("server_id", id)));
    set(session, wanted).await
}

/// Loosens what concerns commits, and lets an ordinary connection send the largest statement.
pub(super) async fn tune_for_sql(session: &mut Session) -> Result<Found, MysqlError> {
    let commits = SETTINGS.iter().copied().take(3);
    let wanted = commits.chain([("max_allowed_packet", "1073741824")]);
    set(session, wanted).await
}

async fn set(
    session: &mut Session,
    wanted: impl Iterator<Item = (&str, &str)>,
) -> Result<Found, MysqlError> {
    let names = TUNED.map(quote::string).join(", ");
    let present: Vec<(String, String)> = session
        .query(format!(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"
        ))
        .await?;
    let mut found = Found::default();
    // An alias is set by setting the other one: the first name that is there counts.
    let mut done: Vec<String> = Vec::new();
    for (name, value) in wanted {
        let plain = name.replacen("slave_", "replica_", 1);
        let Some((_, before)) = present.iter().find(|(present, _)| present == name) else {
            continue;
        };
        if done.contains(&plain) {
            continue;
        }
        done.push(plain);
        if before == value {
            continue;
        }
        let statement = format!("SET GLOBAL {name} = {}", literal(value));
        if let Err(error) = session.execute(statement).await {
            if let Err(error) = put_back(session, &found).await {
                tracing::warn!(%error, "the settings could not be put back");
            }
            return Err(error);
        }
        found.0.push((name.to_owned(), before.clone()));
    }
    Ok(found)
}

/// Makes the settings what they were.
pub(super) async fn put_back(session: &mut Session, found: &Found) -> Result<(), MysqlError> {
    for (name, value) in &found.0 {
        session
            .execute(format!("SET GLOBAL {name} = {}", literal(value)))
            .await?;
    }
    Ok(())
}

fn literal(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => quote::string(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_is_changed_is_told() {
        for (name, _) in SETTINGS {
            assert!(TUNED.contains(name), "{name}");
        }
        assert!(WORKERS.iter().all(|name| TUNED.contains(name)));
    }
}
