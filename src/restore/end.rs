//! The end of a restore: what is there must be what was planned.
//!
//! `gtid_executed` is compared always, the tables by number, and on request the rows of every table
//! that the replay left alone ([`super::verify`]). Nothing is reported as restored before that.

use std::collections::BTreeSet;

use super::error::RestoreError;
use super::journal::SCHEMA;
use super::plan::RestorePlan;
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::{SYSTEM_SCHEMAS, gtid_executed};
use crate::mysql::quote;
use crate::mysql::session::Session;

/// What the end was found to be.
#[derive(Debug)]
pub(super) struct End {
    /// The server's GTIDs, which are the plan's.
    pub(super) executed: GtidSet,
    /// Its tables.
    pub(super) tables: u64,
    /// How many there must be, if that is known.
    pub(super) expected_tables: Option<u64>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Looks whether the end is what was planned. `snapshot` are the tables that were loaded, and
/// `had_events` whether the event scheduler ran before.
pub(super) async fn check(
    session: &mut Session,
    plan: &RestorePlan,
    snapshot: &BTreeSet<String>,
    had_events: bool,
) -> Result<End, RestoreError> {
    // What the replay's loose settings left in memory must not be lost after this.
    session
        .execute("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS, BINARY LOGS")
        .await?;
    let executed = gtid_executed(session).await?;
    if executed != plan.result {
        return Err(RestoreError::WrongEnd {
            server: plan.server.address.clone(),
            missing: Box::new(plan.result.subtract(&executed)),
            unexpected: Box::new(executed.subtract(&plan.result)),
        });
    }
    let own = SYSTEM_SCHEMAS.map(quote::string).join(", ");
    let found: Vec<(String, String)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
             WHERE TABLE_TYPE = 'BASE TABLE' AND LOWER(TABLE_SCHEMA) NOT IN ({own}) \
             AND TABLE_SCHEMA <> '{SCHEMA}'"
        ))
        .await?;
    let found: BTreeSet<String> = found
        .into_iter()
        .map(|(schema, name)| format!("{schema}.{name}"))
        .collect();
    // With statements in the log the tables are whatever those made of them.
    let members = &plan.replay.members;
    let is_known = members.iter().all(|member| !member.stored.index.statements);
    if is_known && found != *snapshot {
        return Err(RestoreError::WrongTables {
            server: plan.server.address.clone(),
            missing: snapshot.difference(&found).cloned().collect(),
            unexpected: found.difference(snapshot).cloned().collect(),
        });
    }
    let mut notes = Vec::new();
    notes.extend(in_doubt(session).await?);
    notes.extend(disabled_events(session).await?);
    if !had_events {
        notes.extend(sleeping_events(session).await?);
    }
    Ok(End {
        executed,
        tables: found.len() as u64,
        expected_tables: is_known.then_some(snapshot.len() as u64),
        notes,
    })
}

/// Tells of XA transactions that were prepared and not ended at the cut.
async fn in_doubt(session: &mut Session) -> Result<Option<String>, MysqlError> {
    let prepared: Vec<(i64, i64, i64, String)> = session.query("XA RECOVER CONVERT XID").await?;
    Ok((!prepared.is_empty()).then(|| {
        let ids: Vec<String> = prepared
            .iter()
            .map(|(format, global, _, data)| xid(*format, *global, data))
            .collect();
        format!(
            "prepared XA transactions are in doubt at this state and hold their locks: XA COMMIT or \
             XA ROLLBACK {}",
            ids.join(", ")
        )
    }))
}

/// An XID as XA COMMIT takes it, from what XA RECOVER CONVERT XID tells: the bytes of both parts
/// in hexadecimal, and how many bytes the first one has.
pub(super) fn xid(format: i64, global: i64, data: &str) -> String {
    let digits = data.strip_prefix("0x").unwrap_or(data);
    let at = usize::try_from(global).unwrap_or(0).saturating_mul(2);
    let (global, branch) = digits.split_at_checked(at).unwrap_or((digits, ""));
    format!("X'{global}',X'{branch}',{format}")
}

/// Tells of events that do not run because they came by replication, here or on the server that
/// the snapshot was taken from: MySQL switches them off there and forgets what they were.
async fn disabled_events(session: &mut Session) -> Result<Option<String>, MysqlError> {
    let events: Vec<(String, String)> = session
        .query(
            "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS \
             WHERE STATUS NOT IN ('ENABLED', 'DISABLED') ORDER BY EVENT_SCHEMA, EVENT_NAME",
        )
        .await?;
    Ok((!events.is_empty()).then(|| {
        let statements: Vec<String> = events
            .iter()
            .map(|(schema, name)| format!("ALTER EVENT {} ENABLE", quote::qualified(schema, name)))
            .collect();
        format!(
            "events that came by replication do not run; for those that shall: {}",
            statements.join("; ")
        )
    }))
}

/// Tells of events that do not run because nothing will switch their scheduler on: it was off
/// before this restore, perhaps by an earlier one that nobody opened.
async fn sleeping_events(session: &mut Session) -> Result<Option<String>, MysqlError> {
    let scheduler: String = session.query_one("SELECT @@GLOBAL.event_scheduler").await?;
    let own = SYSTEM_SCHEMAS.map(quote::string).join(", ");
    let events: u64 = session
        .query_one(format!(
            "SELECT COUNT(*) FROM information_schema.EVENTS \
             WHERE STATUS = 'ENABLED' AND LOWER(EVENT_SCHEMA) NOT IN ({own})"
        ))
        .await?;
    let way = match scheduler.as_str() {
        "DISABLED" => "they need a start of the server without event_scheduler=DISABLED",
        _ => "if they shall: SET GLOBAL event_scheduler = ON",
    };
    Ok((events > 0).then(|| {
        format!(
            "the event scheduler was {scheduler} before the restore, so enabled events ({events}) do \
             not run; {way}"
        )
    }))
}
