//! What a snapshot will read, from where and how: computed purely from facts.
//!
//! The plan is what a dry run shows and what [`run`](super::run::run) consumes. Sizes in it are
//! the server's estimates; the rows themselves are counted when they are read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::layout::SnapshotId;
use crate::mysql::discover::{discover, login_for};
use crate::mysql::grants::GlobalPrivileges;
use crate::mysql::schema::{self, Filter, Pattern, has_rows};
use crate::mysql::topology::{Choice, Role, Topology};
use crate::mysql::{HostPort, MysqlError, ServerFacts, ServerUrl, ServerVersion, Session};

use super::consistency::LockMode;
use super::error::SnapshotError;
use super::selection::{refuse_other_engines, warning_of_engine, warnings_of_filter};

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Connections that read rows at once.
    pub threads: usize,
    /// How the connections come to one GTID set.
    pub lock: LockMode,
    /// Whether a primary may carry the load.
    pub allow_primary: bool,
    /// Which schemas and tables.
    pub filter: Filter,
    /// Whether tables of other engines than InnoDB are taken too, whose rows are of no certain moment.
    pub allow_non_innodb: bool,
    /// Raw bytes after which a table's rows go on in another file.
    pub file_bytes: u64,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            threads: 4,
            lock: LockMode::Auto,
            allow_primary: false,
            filter: Filter::default(),
            allow_non_innodb: false,
            file_bytes: 64 << 20,
        }
    }
}

/// What is known before a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// The servers.
    pub topology: Topology,
    /// The server that will be read, and why it is that one.
    pub choice: Choice,
    /// Its facts.
    pub server: ServerFacts,
    /// What the account may do there.
    pub privileges: GlobalPrivileges,
    /// The tables that the filter lets pass.
    pub tables: Vec<TableFacts>,
    /// Patterns of the filter that match nothing.
    pub unmatched: Vec<Pattern>,
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
    /// Why it is this server.
    pub reasons: Vec<String>,
    /// Connections that read rows at once.
    pub threads: usize,
    /// How they come to one GTID set.
    pub lock: LockMode,
    /// Whether LOCK INSTANCE FOR BACKUP keeps DDL away.
    pub backup_lock: bool,
    /// Raw bytes after which a table's rows go on in another file.
    pub file_bytes: u64,
    /// What was asked for.
    pub filter: Filter,
    /// Whether tables of other engines than InnoDB are taken too.
    #[serde(default)]
    pub allow_non_innodb: bool,
    /// The tables, the biggest first.
    pub tables: Vec<PlannedTable>,
    /// The sum of the tables' estimates.
    pub estimated_rows: u64,
    /// The sum of the tables' sizes in bytes.
    pub estimated_bytes: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A table with the parts in which its rows are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTable {
    /// Its schema.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The server's estimate.
    pub estimated_rows: u64,
    /// The clustered index's size in bytes.
    pub estimated_bytes: u64,
    /// Its parts, which together are the whole table and do not overlap.
    pub chunks: Vec<ChunkRange>,
}

/// A part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkRange {
    /// All of it.
    Whole,
}

impl ChunkRange {
    /// The condition that selects the part, unless it is the whole table.
    #[must_use]
    pub const fn condition(&self) -> Option<&str> {
        match self {
            Self::Whole => None,
        }
    }
}

/// Gathers the facts: the topology from any of the servers, the choice, and what the chosen
/// server holds. Returns them with the URL of the chosen server.
///
/// # Errors
///
/// When no server answers, none may carry the load, or a question is refused.
pub async fn load_facts(
    servers: &[ServerUrl],
    options: &SnapshotOptions,
) -> Result<(SnapshotFacts, ServerUrl), SnapshotError> {
    let topology = discover(servers).await?;
    let choice = topology.choose_secondary(options.allow_primary)?;
    let asked = servers
        .iter()
        .find(|url| url.address() == topology.asked)
        .or(servers.first())
        .ok_or_else(|| MysqlError::protocol("no server was given"))?;
    let url = login_for(&choice.member.address, asked, servers);
    let mut session = Session::connect(&url).await?;
    let server = ServerFacts::load(&mut session).await?;
    let privileges = GlobalPrivileges::load(&mut session).await?;
    let tables = schema::load_tables(&mut session, &options.filter).await?;
    let unmatched = schema::unmatched(&mut session, &options.filter).await?;
    session.close().await;
    let tables = tables
        .into_iter()
        .map(|table| TableFacts {
            database: table.database,
            name: table.name,
            engine: table.engine,
            estimated_rows: table.estimated_rows,
            data_bytes: table.data_bytes,
        })
        .collect();
    let facts = SnapshotFacts {
        topology,
        choice,
        server,
        privileges,
        tables,
        unmatched,
    };
    Ok((facts, url))
}

/// Without these the server leaves objects out of its answers in silence.
const NEEDED: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

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
        let missing = facts.privileges.missing(&NEEDED);
        if !missing.is_empty() {
            return Err(SnapshotError::MissingPrivileges {
                server: server.address.to_string(),
                privileges: missing.into_iter().map(ToOwned::to_owned).collect(),
            });
        }
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
        let may_flush = facts.privileges.has("RELOAD") || facts.privileges.has("FLUSH_TABLES");
        let lock = match options.lock {
            LockMode::Flush if !may_flush => {
                return Err(SnapshotError::MissingPrivileges {
                    server: server.address.to_string(),
                    privileges: vec!["FLUSH_TABLES".to_owned()],
                });
            }
            LockMode::Auto if !may_flush => {
                warnings.push(
                    "without FLUSH_TABLES or RELOAD only the lock-free way can be tried".to_owned(),
                );
                LockMode::None
            }
            lock => lock,
        };
        let backup_lock = facts.privileges.has("BACKUP_ADMIN");
        if !backup_lock {
            warnings.push(
                "without BACKUP_ADMIN nothing keeps DDL away: if there is any, the snapshot fails"
                    .to_owned(),
            );
        }
        let mut tables: Vec<PlannedTable> = facts
            .tables
            .iter()
            .map(|table| PlannedTable {
                database: table.database.clone(),
                name: table.name.clone(),
                estimated_rows: table.estimated_rows,
                estimated_bytes: table.data_bytes,
                chunks: if has_rows(&table.engine) {
                    vec![ChunkRange::Whole]
                } else {
                    Vec::new()
                },
            })
            .collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.estimated_bytes));
        Ok(Self {
            id: SnapshotId::new(now, random),
            planned: now,
            server: server.address.clone(),
            server_uuid: server.server_uuid,
            version: server.version.clone(),
            role: facts.choice.member.role,
            reasons: facts.choice.reasons.clone(),
            threads: options.threads.clamp(1, 64),
            lock,
            backup_lock,
            file_bytes: options.file_bytes.max(1 << 20),
            filter: options.filter.clone(),
            allow_non_innodb: options.allow_non_innodb,
            estimated_rows: tables.iter().map(|table| table.estimated_rows).sum(),
            estimated_bytes: tables.iter().map(|table| table.estimated_bytes).sum(),
            tables,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Class, Classified as _};
    use crate::gtid::GtidSet;
    use crate::mysql::topology::{Member, MemberState, TopologyKind};

    fn facts(privileges: &str, engine: &str) -> SnapshotFacts {
        let address = HostPort::new("db2", 3306);
        let version = ServerVersion::parse("8.4.6").expect("good");
        let member = Member {
            address: address.clone(),
            uuid: Some(Uuid::nil()),
            role: Role::Secondary,
            state: MemberState::Online,
            version: Some(version.clone()),
            queue: Some(0),
        };
        let table = |name: &str, bytes| TableFacts {
            database: "shop".to_owned(),
            name: name.to_owned(),
            engine: engine.to_owned(),
            estimated_rows: 10,
            data_bytes: bytes,
        };
        SnapshotFacts {
            topology: Topology {
                kind: TopologyKind::GroupReplication,
                asked: address.clone(),
                members: vec![member.clone()],
                follows: None,
                notes: Vec::new(),
            },
            choice: Choice {
                member,
                reasons: vec!["db2:3306 is an ONLINE secondary".to_owned()],
            },
            server: ServerFacts {
                address,
                version,
                version_comment: String::new(),
                server_uuid: Uuid::nil(),
                server_id: 2,
                time: DateTime::UNIX_EPOCH,
                gtid_mode: "ON".to_owned(),
                gtid_executed: GtidSet::default(),
                gtid_purged: GtidSet::default(),
                log_bin: true,
                log_replica_updates: true,
                binlog_format: "ROW".to_owned(),
                binlog_row_image: "FULL".to_owned(),
                binlog_checksum: "CRC32".to_owned(),
                sync_binlog: 1,
                innodb_flush_log_at_trx_commit: 1,
                read_only: true,
                super_read_only: true,
                lower_case_table_names: 0,
                local_infile: false,
                max_allowed_packet: 64 << 20,
                character_set_server: "utf8mb4".to_owned(),
                collation_server: "utf8mb4_0900_ai_ci".to_owned(),
                performance_schema: true,
                event_scheduler: "ON".to_owned(),
                innodb_page_size: 16_384,
            },
            privileges: GlobalPrivileges::parse(
                [format!("GRANT {privileges} ON *.* TO `b`@`%`")]
                    .iter()
                    .map(String::as_str),
            ),
            tables: vec![table("small", 1), table("big", 9), table("middle", 5)],
            unmatched: Vec::new(),
        }
    }

    const ALL: &str = "SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, BACKUP_ADMIN";

    #[test]
    fn the_biggest_tables_come_first_and_the_plan_survives_json() {
        let options = SnapshotOptions::default();
        let plan = SnapshotPlan::compute(&facts(ALL, "InnoDB"), &options, DateTime::UNIX_EPOCH, 7)
            .expect("nothing is wrong");
        let names: Vec<&str> = plan
            .tables
            .iter()
            .map(|table| table.name.as_str())
            .collect();
        assert_eq!(names, ["big", "middle", "small"]);
        assert_eq!(plan.id.as_str(), "19700101T000000Z-00000007");
        assert!(plan.backup_lock && plan.warnings.is_empty());
        let json = serde_json::to_string(&plan).expect("plans are plain data");
        assert_eq!(
            serde_json::from_str::<SnapshotPlan>(&json).expect("the same"),
            plan
        );
    }

    #[test]
    fn what_would_be_short_in_silence_is_refused() {
        let compute = |facts: &SnapshotFacts, lock| {
            let options = SnapshotOptions {
                lock,
                ..SnapshotOptions::default()
            };
            SnapshotPlan::compute(facts, &options, DateTime::UNIX_EPOCH, 7)
        };
        for missing in ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"] {
            let fewer = ALL.replace(&format!("{missing}, "), "");
            let error = compute(&facts(&fewer, "InnoDB"), LockMode::Auto).expect_err(missing);
            assert!(error.to_string().contains(missing), "{error}");
            assert_eq!(error.class(), Class::Authentication);
        }
        let error = compute(&facts(ALL, "MyISAM"), LockMode::Auto).expect_err("MyISAM");
        assert!(error.to_string().contains("shop.big (MyISAM)"), "{error}");
        assert_eq!(error.class(), Class::Refused);
        let mut without = facts(ALL, "InnoDB");
        without.server.gtid_mode = "OFF_PERMISSIVE".to_owned();
        assert!(compute(&without, LockMode::Auto).is_err());
    }

    #[test]
    fn other_engines_are_taken_by_name_and_filters_must_match() {
        let compute = |facts: &SnapshotFacts, filter: &Filter| {
            let options = SnapshotOptions {
                allow_non_innodb: true,
                filter: filter.clone(),
                ..SnapshotOptions::default()
            };
            SnapshotPlan::compute(facts, &options, DateTime::UNIX_EPOCH, 7)
        };
        let mut mixed = facts(ALL, "InnoDB");
        mixed.tables[0].engine = "MyISAM".to_owned();
        mixed.tables[1].engine = "MRG_MYISAM".to_owned();
        let plan = compute(&mixed, &Filter::default()).expect("allowed");
        assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
        assert!(plan.warnings[0].contains("shop.small (MyISAM)"));
        assert!(plan.warnings[1].contains("shop.big (MRG_MYISAM)"));
        let chunks: Vec<usize> = plan.tables.iter().map(|table| table.chunks.len()).collect();
        assert_eq!(chunks, [0, 1, 1]);

        let filter = Filter {
            include: vec![
                "shop".parse().expect("a pattern"),
                "x.*".parse().expect("a pattern"),
            ],
            exclude: vec!["*.tmp".parse().expect("a pattern")],
        };
        mixed.unmatched = filter.exclude.clone();
        let plan = compute(&mixed, &filter).expect("only an exclude is idle");
        assert!(
            plan.warnings[0].contains("--exclude *.tmp"),
            "{:?}",
            plan.warnings
        );
        mixed.unmatched = vec![filter.include[1].clone()];
        let error = compute(&mixed, &filter).expect_err("an include is idle");
        assert_eq!(error.class(), Class::Usage);
        assert!(error.to_string().contains("x.*"), "{error}");
    }

    #[test]
    fn without_the_privilege_to_lock_only_the_lock_free_way_is_left() {
        let few = facts("SELECT, SHOW VIEW, TRIGGER, EVENT", "InnoDB");
        let compute = |lock| {
            let options = SnapshotOptions {
                lock,
                ..SnapshotOptions::default()
            };
            SnapshotPlan::compute(&few, &options, DateTime::UNIX_EPOCH, 7)
        };
        let plan = compute(LockMode::Auto).expect("possible");
        assert_eq!(
            (plan.lock, plan.backup_lock, plan.warnings.len()),
            (LockMode::None, false, 2)
        );
        assert!(compute(LockMode::Flush).is_err());
    }
}
