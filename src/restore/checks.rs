//! What is asked of a server before anything is changed on it, and every reason why it will not do.
//!
//! [`ServerState::load`] asks, [`check`] decides without IO. All that is wrong is told at once: who
//! restores in an emergency must not find the next reason with each try.

mod journaled;
mod privileges;
mod suitable;

use std::collections::BTreeSet;

use serde::Serialize;

use super::journal::{self, Journal, JournalError};
use super::load::preflight::{has_keyring, unknown_time_zones};
use super::plan::PlannedWipe;
use crate::archive::manifest::Manifest;
use crate::error::Class;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::{SYSTEM_SCHEMAS, TargetFacts};
use crate::mysql::grants::GlobalPrivileges;
use crate::mysql::quote;
use crate::mysql::server_url::HostPort;
use crate::mysql::session::Session;

pub use journaled::{WantedRun, differences};

/// Accounts that belong to the server.
pub(super) const SYSTEM_ACCOUNTS: &str = "'mysql.sys', 'mysql.session', 'mysql.infoschema'";

/// One reason why a server cannot be the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What is wrong.
    pub what: String,
    /// What can be done about it.
    #[serde(rename = "try")]
    pub remedy: String,
    /// What kind of failure it is.
    #[serde(skip)]
    pub class: Class,
}

impl Reason {
    pub(super) fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(what, remedy)
    }

    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
            class: Class::Refused,
        }
    }
}

/// A schema that is on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Content {
    /// Its name.
    pub schema: String,
    /// Its tables.
    pub tables: u64,
    /// What they take on disk, as the server estimates it.
    pub bytes: u64,
}

/// What a server is, as far as a restore depends on it.
#[derive(Debug)]
pub struct ServerState {
    /// Its facts.
    pub facts: TargetFacts,
    /// What its account may do.
    pub privileges: GlobalPrivileges,
    /// Every privilege that the server knows.
    pub known_privileges: BTreeSet<String>,
    /// What it holds, the journal of a restore aside.
    pub contents: Vec<Content>,
    /// The journal of a restore that did not end.
    pub journal: Option<Journal>,
    /// Why there is one that cannot be read.
    pub malformed_journal: Option<String>,
    /// Channels whose receiver or applier runs.
    pub running_channels: Vec<String>,
    /// Those who read its binlog now.
    pub readers: Vec<String>,
    /// The storage engines that it has.
    pub engines: BTreeSet<String>,
    /// Whether it has a keyring.
    pub has_keyring: bool,
    /// The time zones, of those that are needed, that it does not know.
    pub unknown_time_zones: Vec<String>,
    /// Its plugins that are active.
    pub plugins: BTreeSet<String>,
    /// Prepared XA transactions, which hold locks.
    pub prepared: u64,
}

impl ServerState {
    /// Asks a server. What a privilege is missing for is left out, for [`check`] refuses then
    /// anyway.
    ///
    /// # Errors
    ///
    /// What a question fails with.
    pub async fn load(session: &mut Session, manifest: &Manifest) -> Result<Self, MysqlError> {
        let privileges = GlobalPrivileges::load(session).await?;
        let facts = TargetFacts::load(session).await?;
        let (journal, malformed_journal) = match Journal::open(session).await {
            Ok(journal) => (journal, None),
            Err(JournalError::Malformed(error)) => (None, Some(error.to_string())),
            Err(JournalError::Mysql(error)) => return Err(error),
        };
        let names: Vec<String> = session
            .query::<(String, String, String)>("SHOW PRIVILEGES")
            .await?
            .into_iter()
            .map(|(name, ..)| name.to_ascii_uppercase())
            .collect();
        Ok(Self {
            known_privileges: names.into_iter().collect(),
            contents: contents(session).await?,
            journal,
            malformed_journal,
            running_channels: running_channels(session).await?,
            readers: readers(session).await?,
            engines: session
                .query::<String>(
                    "SELECT ENGINE FROM information_schema.ENGINES \
                     WHERE SUPPORT IN ('YES', 'DEFAULT')",
                )
                .await?
                .into_iter()
                .map(|name| name.to_ascii_uppercase())
                .collect(),
            has_keyring: match manifest.needs.keyring.is_empty() {
                true => false,
                false => has_keyring(session).await?,
            },
            unknown_time_zones: unknown_time_zones(session, &manifest.needs.time_zones).await?,
            plugins: session
                .query::<String>(
                    "SELECT PLUGIN_NAME FROM information_schema.PLUGINS \
                     WHERE PLUGIN_STATUS = 'ACTIVE'",
                )
                .await?
                .into_iter()
                .collect(),
            prepared: match privileges.has("XA_RECOVER_ADMIN") {
                true => session
                    .query::<(i64, i64, i64, Vec<u8>)>("XA RECOVER CONVERT XID")
                    .await?
                    .len() as u64,
                false => 0,
            },
            privileges,
            facts,
        })
    }
}

async fn contents(session: &mut Session) -> Result<Vec<Content>, MysqlError> {
    // Not what the server remembers of a table's size, which may be nothing.
    session
        .execute("SET SESSION information_schema_stats_expiry = 0")
        .await?;
    let own = SYSTEM_SCHEMAS.map(quote::string).join(", ");
    let rows: Vec<(String, u64, u64)> = session
        .query(format!(
            "SELECT s.SCHEMA_NAME, COUNT(t.TABLE_NAME), \
             CAST(COALESCE(SUM(t.DATA_LENGTH + t.INDEX_LENGTH), 0) AS UNSIGNED) \
             FROM information_schema.SCHEMATA s LEFT JOIN information_schema.TABLES t \
             ON t.TABLE_SCHEMA = s.SCHEMA_NAME AND t.TABLE_TYPE = 'BASE TABLE' \
             WHERE LOWER(s.SCHEMA_NAME) NOT IN ({own}) AND s.SCHEMA_NAME <> '{}' \
             GROUP BY s.SCHEMA_NAME ORDER BY s.SCHEMA_NAME",
            journal::SCHEMA
        ))
        .await?;
    let content = |(schema, tables, bytes)| Content {
        schema,
        tables,
        bytes,
    };
    Ok(rows.into_iter().map(content).collect())
}

async fn running_channels(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    session
        .query(
            "SELECT CHANNEL_NAME FROM performance_schema.replication_connection_status \
             WHERE SERVICE_STATE <> 'OFF' \
             UNION SELECT CHANNEL_NAME FROM performance_schema.replication_applier_status \
             WHERE SERVICE_STATE <> 'OFF'",
        )
        .await
}

async fn readers(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    session
        .query(
            "SELECT CONCAT(COALESCE(USER, ''), '@', COALESCE(HOST, '')) \
             FROM information_schema.PROCESSLIST \
             WHERE COMMAND IN ('Binlog Dump', 'Binlog Dump GTID') ORDER BY ID",
        )
        .await
}

/// What of a request bears on the server.
#[derive(Debug, Clone, Copy)]
pub struct Wishes<'a> {
    /// Whether to go on with what is begun.
    pub resume: bool,
    /// The server that may be emptied.
    pub wipe: Option<&'a HostPort>,
    /// Privileges on `*.*` that accounts of the snapshot have.
    pub handed_on: &'a BTreeSet<String>,
}

/// Every reason why a server cannot be the target.
#[must_use]
pub fn check(manifest: &Manifest, state: &ServerState, wishes: &Wishes<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    suitable::whether_it_may_be_filled(state, wishes, &mut reasons);
    suitable::whether_it_stands_alone(state, wishes, &mut reasons);
    suitable::whether_it_can_hold_it(manifest, state, &mut reasons);
    reasons.extend(privileges::missing(state, wishes));
    reasons
}

/// What is no hindrance, and worth knowing beforehand.
#[must_use]
pub fn remarks(manifest: &Manifest, state: &ServerState) -> Vec<String> {
    let facts = &state.facts.server;
    let source = &manifest.server;
    let mut remarks = Vec::new();
    let series = |version: (u16, u16, u16)| (version.0, version.1);
    if series(facts.version.triple()) > series(source.version.triple()) {
        remarks.push(format!(
            "the server runs MySQL {}, newer than the {} that the snapshot was taken from: there is \
             no way back to the older one from it",
            facts.version, source.version
        ));
    }
    if facts.character_set_server != source.character_set_server
        || facts.collation_server != source.collation_server
    {
        remarks.push(format!(
            "its defaults for new schemas are {} and {}, the source's were {} and {}; what is \
             restored keeps its own",
            facts.character_set_server,
            facts.collation_server,
            source.character_set_server,
            source.collation_server
        ));
    }
    if !facts.log_bin || !facts.log_replica_updates {
        remarks.push(
            "it does not write to its binlog what is replayed (log_bin, log_replica_updates), so \
             no replica can follow it from before the restore's end"
                .to_owned(),
        );
    }
    if facts.binlog_format != "ROW" {
        remarks.push(format!(
            "its binlog_format is {}: what it writes later cannot be archived safely",
            facts.binlog_format
        ));
    }
    let lost: Vec<&str> = manifest
        .information
        .plugins
        .iter()
        .filter(|plugin| plugin.status == "ACTIVE" && !state.plugins.contains(&plugin.name))
        .map(|plugin| plugin.name.as_str())
        .collect();
    if !lost.is_empty() {
        remarks.push(format!(
            "the source had plugins that it does not have: {}",
            lost.join(", ")
        ));
    }
    remarks
}

/// What `--wipe` removes.
#[must_use]
pub fn wiped(state: &ServerState) -> PlannedWipe {
    let current = state.privileges.account();
    let accounts = state.facts.accounts.iter();
    PlannedWipe {
        schemas: state.contents.clone(),
        accounts: accounts
            .filter(|name| name.as_str() != current)
            .cloned()
            .collect(),
        channels: state.facts.replication_channels.clone(),
        gtid_executed: state.facts.server.gtid_executed.clone(),
        unfinished: state.journal.is_some() || state.malformed_journal.is_some(),
    }
}

/// The first few of what a server holds.
pub(super) fn held(contents: &[Content]) -> String {
    let names: Vec<String> = contents
        .iter()
        .map(|content| {
            let ending = if content.tables == 1 { "" } else { "s" };
            format!(
                "{} ({} table{ending}, about {} MiB)",
                content.schema,
                content.tables,
                content.bytes.div_ceil(1 << 20)
            )
        })
        .collect();
    some(&names)
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    const MAX: usize = 8;
    let shown: Vec<&str> = names.iter().take(MAX).map(String::as_str).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
