//! What a snapshot will read, from where and how: computed purely from facts.
//!
//! The plan is what a dry run shows and what [`run`](super::run::run) consumes. Sizes in it are
//! the server's estimates; the rows themselves are counted when they are read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::hash::Sha256;
use crate::archive::layout::SnapshotId;
use crate::mysql::discover::{discover, login_for};
use crate::mysql::grants::GlobalPrivileges;
use crate::mysql::health::HealthSurvey;
use crate::mysql::schema::{self, Filter, FilterSurvey};
use crate::mysql::topology::{Choice, Role, Rule, Topology, TopologyKind};
use crate::mysql::{HostPort, MysqlError, ServerFacts, ServerUrl, ServerVersion, Session};

use super::chunks::key::TableParts;
use super::chunks::plan::{Sizes, total_bytes};
use super::chunks::{Partition, PlannedTable, TableKey};
use super::consistency::LockMode;
use super::error::SnapshotError;
use super::options::{OnLag, SnapshotOptions, SnapshotSource};
use super::privileges::{self, PlannedPrivilege};
use super::resume::ResumePlan;
use super::selection::{refuse_other_engines, warning_of_engine, warnings_of_filter};

/// What is known before a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// The servers.
    pub topology: Topology,
    /// The server that will be read, and why it is that one.
    pub choice: Choice,
    /// How well the secondaries follow.
    pub health: HealthSurvey,
    /// Its facts.
    pub server: ServerFacts,
    /// What the account may do there.
    pub privileges: GlobalPrivileges,
    /// The tables that the filter lets pass.
    pub tables: Vec<TableFacts>,
    /// What the filter's patterns do there.
    pub survey: FilterSurvey,
}

/// A table's name and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Its schema.
    pub database: String,
    /// Its name.
    pub name: String,
    /// Its storage engine.
    pub engine: String,
    /// The server's estimate.
    pub estimated_rows: u64,
    /// The clustered index's size in bytes.
    pub data_bytes: u64,
    /// Its clustered index.
    pub key: Option<TableKey>,
    /// Its partitions in their order; none if it has none.
    pub partitions: Vec<Partition>,
    /// The SHA-256 of its CREATE TABLE statement.
    pub create_sha256: Sha256,
}

/// What a snapshot will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlan {
    /// The snapshot's name.
    pub id: SnapshotId,
    /// When the plan was made.
    #[serde(with = "crate::clock::micros")]
    pub planned: DateTime<Utc>,
    /// The server that is read.
    pub server: HostPort,
    /// Its UUID.
    pub server_uuid: Uuid,
    /// Its version.
    pub version: ServerVersion,
    /// Its role.
    pub role: Role,
    /// How it is tied to its fellows.
    pub kind: TopologyKind,
    /// All of them, itself among them.
    pub members: Vec<HostPort>,
    /// Why it is this server.
    pub reasons: Vec<String>,
    /// Whether it may be the primary.
    pub allow_primary: bool,
    /// How far it may be behind its source, in seconds.
    pub max_lag_seconds: u64,
    /// What to do if it is further behind or falls out of its cluster meanwhile.
    pub on_lag: OnLag,
    /// Connections that read rows at once.
    pub threads: usize,
    /// How they come to one GTID set.
    pub lock: LockMode,
    /// Whether LOCK INSTANCE FOR BACKUP keeps DDL away.
    pub backup_lock: bool,
    /// How long DDL may wait for it, in seconds.
    pub ddl_wait_seconds: u64,
    /// Whether DDL that is not kept away is looked for in the server's binlog.
    pub follow_binlog: bool,
    /// Raw bytes after which a table's rows go on in another file.
    pub file_bytes: u64,
    /// Whether each table's rows are counted again, in the same read view.
    #[serde(default)]
    pub count_rows: bool,
    /// zstd's level for the rows.
    pub zstd_level: i32,
    /// What was asked for.
    pub filter: Filter,
    /// Whether tables of other engines than InnoDB are taken too.
    #[serde(default)]
    pub allow_non_innodb: bool,
    /// Whether to go on with an unfinished snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumePlan>,
    /// The tables, the biggest first.
    pub tables: Vec<PlannedTable>,
    /// The sum of the tables' estimates.
    pub estimated_rows: u64,
    /// The sum of the tables' sizes in bytes.
    pub estimated_bytes: u64,
    /// What the account needs, and whether it has it.
    pub privileges: Vec<PlannedPrivilege>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Gathers the facts: the topology from any of the servers, the choice, and what the chosen
/// server holds. Returns them with how the servers are reached.
///
/// # Errors
///
/// When no server answers, none may carry the load, or a question is refused.
pub async fn load_facts(
    servers: &[ServerUrl],
    options: &SnapshotOptions,
) -> Result<(SnapshotFacts, SnapshotSource), SnapshotError> {
    let topology = match discover(servers).await {
        Ok(topology) => topology,
        Err(error) => return Err(privileges::explain(error, servers, options).await),
    };
    let asked = servers
        .iter()
        .find(|url| url.address() == topology.asked)
        .or(servers.first())
        .ok_or_else(|| MysqlError::protocol("no server was given"))?;
    let health = HealthSurvey::of(&topology, asked, servers).await;
    let rule = Rule {
        allow_primary: options.allow_primary,
        max_lag: Some(options.max_lag),
        // Only the very server that was read can show the same view.
        prefer: options
            .unfinished
            .as_ref()
            .map(|unfinished| unfinished.view.server_uuid),
    };
    let choice = topology
        .choose(&rule, &health)
        .map_err(|error| error.with_notes(&topology.notes))?;
    let url = login_for(&choice.member.address, asked, servers);
    let mut session = Session::connect(&url).await?;
    let server = ServerFacts::load(&mut session).await?;
    let privileges = GlobalPrivileges::load(&mut session).await?;
    // Before the server is asked for what it would leave out.
    privileges::judge(&privileges, &server.address, &server.version, options)?;
    let tables = schema::load_tables(&mut session, &options.filter).await?;
    let parts = TableParts::load(&mut session).await?;
    let survey = schema::survey(&mut session, &options.filter).await?;
    session.close().await;
    let tables = tables
        .into_iter()
        .map(|table| TableFacts::of(table, &parts))
        .collect();
    let facts = SnapshotFacts {
        topology,
        choice,
        health,
        server,
        privileges,
        tables,
        survey,
    };
    let source = SnapshotSource {
        url,
        servers: servers.to_vec(),
    };
    Ok((facts, source))
}

impl SnapshotPlan {
    /// Decides what to do; `random` tells two snapshots of one second apart.
    ///
    /// # Errors
    ///
    /// When the server has no GTIDs, a privilege is missing, or a table is not InnoDB's.
    pub fn compute(
        facts: &SnapshotFacts,
        options: &SnapshotOptions,
        now: DateTime<Utc>,
        random: u32,
    ) -> Result<Self, SnapshotError> {
        let server = &facts.server;
        if !server.has_gtids() {
            return Err(SnapshotError::NoGtids {
                server: server.address.to_string(),
                gtid_mode: server.gtid_mode.clone(),
            });
        }
        let held = &facts.privileges;
        let privileges = privileges::judge(held, &server.address, &server.version, options)?;
        let mut warnings = facts.topology.notes.clone();
        warnings.extend(warnings_of_filter(facts, options)?);
        if options.allow_non_innodb {
            warnings.extend(facts.tables.iter().filter_map(warning_of_engine));
        } else {
            refuse_other_engines(facts.tables.iter().map(|table| {
                (
                    table.database.as_str(),
                    table.name.as_str(),
                    table.engine.as_str(),
                )
            }))?;
        }
        warnings.extend(privileges::warnings(&privileges));
        let may_flush = held.has("RELOAD") || held.has("FLUSH_TABLES");
        let lock = match options.lock {
            LockMode::Auto if !may_flush => LockMode::None,
            lock => lock,
        };
        let role = facts.choice.member.role;
        if let (Some(reason), Role::Secondary) = (&facts.health.not_compared, role) {
            warnings.push(format!(
                "whether {} has transactions of its own is not known: {reason}",
                server.address
            ));
        }
        let backup_lock = held.has("BACKUP_ADMIN");
        let has_binlog = server.log_bin && (server.log_replica_updates || role == Role::Primary);
        let follow_binlog = held.has("REPLICATION SLAVE") && has_binlog;
        if !backup_lock && !has_binlog {
            warnings.push(format!(
                "{} writes no binlog of what it applies: DDL that is undone before the end of the \
                 snapshot goes unseen",
                server.address
            ));
        }
        let threads = options.threads.clamp(1, 64);
        let file_bytes = options.file_bytes.max(1 << 20);
        let sizes = Sizes {
            threads,
            total_bytes: total_bytes(&facts.tables),
            file_bytes,
            chunk_rows: options.chunk_rows,
        };
        let mut tables: Vec<PlannedTable> = facts
            .tables
            .iter()
            .map(|table| PlannedTable::compute(table, sizes))
            .collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.estimated_bytes));
        Ok(Self {
            id: SnapshotId::new(now, random),
            planned: now,
            server: server.address.clone(),
            server_uuid: server.server_uuid,
            version: server.version.clone(),
            role,
            kind: facts.topology.kind,
            members: facts
                .topology
                .members
                .iter()
                .map(|member| member.address.clone())
                .collect(),
            reasons: facts.choice.reasons.clone(),
            allow_primary: options.allow_primary,
            max_lag_seconds: whole_seconds(options.max_lag),
            on_lag: options.on_lag,
            threads,
            lock,
            backup_lock,
            ddl_wait_seconds: whole_seconds(options.ddl_wait),
            follow_binlog,
            file_bytes,
            count_rows: options.count_rows,
            zstd_level: options.zstd_level,
            filter: options.filter.clone(),
            allow_non_innodb: options.allow_non_innodb,
            resume: options.resume.then(|| {
                ResumePlan::compute(
                    options.unfinished.as_ref(),
                    (&server.address, server.server_uuid),
                    &options.filter,
                )
            }),
            estimated_rows: tables.iter().map(|table| table.estimated_rows).sum(),
            estimated_bytes: tables.iter().map(|table| table.estimated_bytes).sum(),
            tables,
            privileges,
            warnings,
        })
    }
}

/// Rounded up.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
