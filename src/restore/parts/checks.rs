//! What is asked of the server that tables are restored to, and every reason why it will not do.
//!
//! It may be the very server that they were lost on, with writers and replicas: so it needs not be
//! empty nor alone, but it must be the one that takes the writes, and what is written to it must be
//! able to reach those that follow it.

use std::collections::BTreeSet;

use super::PartsRequest;
use super::choose::Chosen;
use super::journal::{PartsJournal, PartsStage, PlacedTable, SCHEMA};
use super::statements::list;
use crate::archive::manifest::Manifest;
use crate::error::Class;
use crate::mysql::ddl::statement::TableName;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::TargetFacts;
use crate::mysql::grants::GlobalPrivileges;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::restore::checks::Reason;
use crate::restore::load::preflight::has_keyring;
use crate::restore::prepare::asked::{self, Begun, Wished};

/// What the account needs on everything; each with those that serve as well.
const NEEDED: [(&str, &[&str]); 12] = [
    ("SELECT", &[]),
    ("INSERT", &[]),
    ("UPDATE", &[]),
    ("DELETE", &[]),
    ("CREATE", &[]),
    ("DROP", &[]),
    ("ALTER", &[]),
    ("INDEX", &[]),
    ("REFERENCES", &[]),
    ("TRIGGER", &[]),
    ("REPLICATION_APPLIER", &["SUPER"]),
    (
        "SESSION_VARIABLES_ADMIN",
        &["SYSTEM_VARIABLES_ADMIN", "SUPER"],
    ),
];

/// A member of the server's group.
#[derive(Debug)]
struct GroupMember {
    address: String,
    is_primary: bool,
    is_self: bool,
}

/// What a server is, as far as a restore of tables depends on it.
#[derive(Debug)]
pub(super) struct PartsState {
    pub(super) facts: TargetFacts,
    privileges: GlobalPrivileges,
    group: Vec<GroupMember>,
    group_limit: u64,
    sources: Vec<String>,
    /// The schemas that it has.
    pub(super) schemas: BTreeSet<String>,
    /// The names of tables and views that it has, of those that are wanted.
    taken: BTreeSet<TableName>,
    /// Names of constraints in the schemas that the tables go into, with those.
    constraints: BTreeSet<(String, String)>,
    has_keyring: bool,
    row_logged: bool,
    trusts_creators: bool,
}

impl PartsState {
    /// Asks a server.
    pub(super) async fn load(
        session: &mut Session,
        placed: &[PlacedTable],
    ) -> Result<Self, MysqlError> {
        let privileges = GlobalPrivileges::load(session).await?;
        let facts = TargetFacts::load(session).await?;
        let group: Vec<(String, u16, String, bool)> = session
            .query(
                "SELECT MEMBER_HOST, MEMBER_PORT, MEMBER_ROLE, MEMBER_ID = @@GLOBAL.server_uuid \
                 FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'OFFLINE'",
            )
            .await?;
        let group_limit: Option<(String, u64)> = session
            .query_first("SHOW GLOBAL VARIABLES LIKE 'group_replication_transaction_size_limit'")
            .await?;
        let sources = session
            .query(
                "SELECT CONCAT(HOST, ':', PORT) \
                 FROM performance_schema.replication_connection_configuration \
                 WHERE HOST <> '' AND CHANNEL_NAME NOT LIKE 'group\\_replication\\_%'",
            )
            .await?;
        let names: Vec<String> = session
            .query("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA")
            .await?;
        let into: BTreeSet<&String> = placed.iter().map(|table| &table.to.database).collect();
        let into = list(into.into_iter());
        let tables: Vec<(String, String)> = session
            .query(format!(
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA IN ({into})"
            ))
            .await?;
        let constraints: Vec<(String, String)> = session
            .query(format!(
                "SELECT CONSTRAINT_SCHEMA, CONSTRAINT_NAME \
                 FROM information_schema.TABLE_CONSTRAINTS \
                 WHERE CONSTRAINT_SCHEMA IN ({into}) AND CONSTRAINT_TYPE IN ('FOREIGN KEY', 'CHECK')"
            ))
            .await?;
        Ok(Self {
            has_keyring: has_keyring(session).await?,
            trusts_creators: session
                .query_one::<bool>("SELECT @@GLOBAL.log_bin_trust_function_creators")
                .await?,
            row_logged: facts.server.binlog_format == "ROW",
            group: group
                .into_iter()
                .map(|(host, port, role, is_self)| GroupMember {
                    address: format!("{host}:{port}"),
                    is_primary: role == "PRIMARY",
                    is_self,
                })
                .collect(),
            group_limit: group_limit.map_or(0, |(_, limit)| limit),
            sources,
            schemas: names.into_iter().collect(),
            taken: tables
                .into_iter()
                .map(|(schema, table)| TableName::new(schema, table))
                .collect(),
            constraints: constraints.into_iter().collect(),
            facts,
            privileges,
        })
    }

    fn is_taken(&self, name: &TableName) -> bool {
        let folds = self.facts.server.lower_case_table_names != 0;
        self.taken.contains(name)
            || folds
                && self.taken.iter().any(|taken| {
                    taken.table.to_lowercase() == name.table.to_lowercase()
                        && taken.database.to_lowercase() == name.database.to_lowercase()
                })
    }

    /// Whether triggers can be made on it.
    pub(super) fn may_make_triggers(&self) -> bool {
        !self.facts.server.log_bin || self.trusts_creators || self.privileges.has("SUPER")
    }

    /// Every reason why tables cannot be restored to it.
    pub(super) fn check(&self, wanted: &Wanted<'_>) -> Vec<Reason> {
        let mut reasons = Vec::new();
        self.whether_it_takes_writes(&mut reasons);
        self.whether_names_are_free(wanted, &mut reasons);
        self.whether_it_can_hold_them(wanted, &mut reasons);
        self.whether_we_may(&mut reasons);
        reasons
    }

    fn whether_it_takes_writes(&self, reasons: &mut Vec<Reason>) {
        let server = &self.facts.server;
        let primary = self.group.iter().find(|member| member.is_primary);
        let is_secondary = self
            .group
            .iter()
            .any(|member| member.is_self && !member.is_primary);
        if is_secondary {
            let to = primary.map_or("the primary".to_owned(), |member| {
                format!("--to with the primary, {}", member.address)
            });
            reasons.push(Reason::refused("it is a secondary of its group", to));
        } else if !self.sources.is_empty() {
            reasons.push(Reason::refused(
                format!(
                    "it is a replica of {}: what is written to it would be nowhere else",
                    self.sources.join(", ")
                ),
                format!("--to with its source, {}", self.sources.join(" or ")),
            ));
        } else if server.read_only || server.super_read_only {
            reasons.push(Reason::refused(
                "it is read-only: a secondary, or a server that somebody is at work on",
                "--to with the server that takes the writes; or SET GLOBAL super_read_only = OFF, \
                 read_only = OFF on it",
            ));
        }
        if server.log_bin && !self.row_logged {
            reasons.push(Reason::refused(
                format!(
                    "its binlog_format is {}, with which its replicas would not get the rows",
                    server.binlog_format
                ),
                "SET GLOBAL binlog_format = ROW on it",
            ));
        }
    }

    fn whether_names_are_free(&self, wanted: &Wanted<'_>, reasons: &mut Vec<Reason>) {
        let begun = wanted.journal.is_some();
        if !begun {
            let left: Vec<&String> = wanted
                .chosen
                .schemas
                .values()
                .filter(|schema| self.schemas.contains(*schema))
                .collect();
            if self.schemas.contains(SCHEMA) || !left.is_empty() {
                let mut drops: Vec<String> = left
                    .iter()
                    .map(|schema| format!("DROP DATABASE {}", quote::identifier(schema)))
                    .collect();
                if self.schemas.contains(SCHEMA) {
                    drops.push(format!("DROP DATABASE {SCHEMA}"));
                }
                reasons.push(Reason::refused(
                    "an earlier restore of it, or of tables to it, did not come to its end",
                    format!(
                        "--resume with what was asked then; or, to give that one up, on the \
                         server: {};",
                        drops.join("; ")
                    ),
                ));
            }
        }
        if wanted
            .journal
            .is_some_and(|journal| journal.stage >= PartsStage::Place)
        {
            return;
        }
        let taken: Vec<String> = wanted
            .placed
            .iter()
            .filter(|table| self.is_taken(&table.to))
            .map(|table| table.to.to_string())
            .collect();
        if !taken.is_empty() {
            reasons.push(Reason::refused(
                format!(
                    "it has {} already, and nothing is overwritten",
                    taken.join(", ")
                ),
                "--into-schema with another schema, to compare and repair out of; or RENAME TABLE \
                 on it first",
            ));
        }
        let mut clashes: Vec<String> = Vec::new();
        for (schema, name) in wanted.constraints {
            if self.constraints.contains(&(schema.clone(), name.clone())) {
                clashes.push(format!("{schema}.{name}"));
            }
        }
        if !clashes.is_empty() {
            reasons.push(Reason::refused(
                format!(
                    "other tables there have constraints of the same names: {}",
                    clashes.join(", ")
                ),
                "--into-schema with another schema",
            ));
        }
    }

    fn whether_it_can_hold_them(&self, wanted: &Wanted<'_>, reasons: &mut Vec<Reason>) {
        let server = &self.facts.server;
        let source = &wanted.manifest.server;
        let series = |version: (u16, u16, u16)| (version.0, version.1);
        if series(server.version.triple()) < series(source.version.triple()) {
            reasons.push(Reason::refused(
                format!(
                    "it runs MySQL {}, older than the {} that the snapshot was taken from",
                    server.version, source.version
                ),
                format!("a server of {} or later", source.version),
            ));
        }
        if server.lower_case_table_names != source.lower_case_table_names {
            reasons.push(Reason::refused(
                format!(
                    "its lower_case_table_names is {}, the source's was {}",
                    server.lower_case_table_names, source.lower_case_table_names
                ),
                "a server with the same value",
            ));
        }
        let encrypted: Vec<&str> = wanted
            .names()
            .filter(|name| {
                let text = format!("table {name}");
                wanted.manifest.needs.keyring.contains(&text)
            })
            .collect();
        if !encrypted.is_empty() && !self.has_keyring {
            reasons.push(Reason::refused(
                format!(
                    "it has no keyring, and these are encrypted: {}",
                    encrypted.join(", ")
                ),
                "a server with a keyring component, such as component_keyring_file",
            ));
        }
        if self.group.is_empty() {
            return;
        }
        let tables = wanted.manifest.tables.iter();
        let of_snapshot = tables.filter(|table| {
            let name = table.display_name();
            wanted.names().any(|wanted| wanted == name)
        });
        let mut bad = Vec::new();
        for table in of_snapshot {
            if table.engine.is_some() {
                bad.push(format!("{} is not of InnoDB", table.display_name()));
            }
            let largest = table.files.iter().map(|file| file.file.raw_bytes).max();
            if self.group_limit > 0 && largest.is_some_and(|bytes| bytes > self.group_limit) {
                bad.push(format!(
                    "{} has a file of {} bytes, more than the group takes in a transaction",
                    table.display_name(),
                    largest.unwrap_or_default()
                ));
            }
        }
        for (name, has_key) in wanted.keyed {
            if !has_key {
                bad.push(format!("{name} has no PRIMARY KEY"));
            }
        }
        if !bad.is_empty() {
            reasons.push(Reason::refused(
                format!(
                    "it is in a group, which does not take these: {}",
                    bad.join("; ")
                ),
                "a server outside of the group",
            ));
        }
    }

    fn whether_we_may(&self, reasons: &mut Vec<Reason>) {
        let privileges = &self.privileges;
        let mut missing: Vec<&str> = NEEDED
            .iter()
            .filter(|(name, others)| {
                !privileges.has(name) && !others.iter().any(|other| privileges.has(other))
            })
            .map(|(name, _)| *name)
            .collect();
        let may_switch = privileges.has("SYSTEM_VARIABLES_ADMIN") || privileges.has("SUPER");
        if !self.facts.server.local_infile && !may_switch {
            missing.push("SYSTEM_VARIABLES_ADMIN (to switch local_infile on)");
        }
        if !missing.is_empty() {
            reasons.push(Reason {
                what: format!(
                    "its account {} lacks {} ON *.*",
                    privileges.account(),
                    missing.join(", ")
                ),
                remedy: "GRANT what is missing; quillback grants --for restore-tables prints all \
                         that is needed, with the reasons"
                    .to_owned(),
                class: Class::Authentication,
            });
        }
    }

    /// What is no hindrance, and worth knowing beforehand.
    pub(super) fn remarks(&self, wanted: &Wanted<'_>) -> Vec<String> {
        let mut remarks = Vec::new();
        let server = &self.facts.server;
        if !server.local_infile {
            remarks.push(
                "its local_infile is off: it is switched on for the load and off again behind it"
                    .to_owned(),
            );
        }
        if server.log_bin {
            remarks.push(
                "all of it goes to its binlog, under GTIDs of its own: its replicas get the tables"
                    .to_owned(),
            );
        }
        if wanted.manifest.server.server_uuid == server.server_uuid {
            remarks.push("it is the server that the snapshot was taken from".to_owned());
        }
        remarks
    }
}

/// What is wanted of a server.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) chosen: &'a Chosen,
    pub(super) placed: &'a [PlacedTable],
    /// The names of constraints of the tables, with the schemas that they go into.
    pub(super) constraints: &'a [(String, String)],
    /// Whether each table of the snapshot has a primary key.
    pub(super) keyed: &'a [(TableName, bool)],
    /// What was begun and is gone on with.
    pub(super) journal: Option<&'a PartsJournal>,
}

impl Wanted<'_> {
    /// The names of the snapshot's tables that are followed.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.chosen.snapshot_names.iter().map(String::as_str)
    }
}

/// What of a request differs from what was begun.
pub(super) fn differences(request: &PartsRequest, journal: &PartsJournal) -> Vec<String> {
    let run = &journal.run;
    let mut differs = Vec::new();
    let texts = |patterns: &[crate::mysql::schema::Pattern]| {
        let texts: BTreeSet<String> = patterns.iter().map(ToString::to_string).collect();
        texts.into_iter().collect::<Vec<String>>().join(",")
    };
    if texts(&request.tables) != texts(&run.patterns) {
        differs.push(format!("of --tables {}", texts(&run.patterns)));
    }
    if request.into != run.into {
        differs.push(match &run.into {
            Some(into) => format!("--into-schema {into}"),
            None => "into their own schemas".to_owned(),
        });
    }
    differs.extend(asked::differences(
        &Wished {
            target: request.target.as_ref(),
            snapshot: request.snapshot.as_ref(),
            branch: request.branch,
            skip: &request.skip,
        },
        &Begun {
            target: &run.target,
            snapshot: &run.snapshot,
            branch: run.branch,
            skip: &run.skip,
        },
    ));
    differs
}
