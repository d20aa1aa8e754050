//! What a server is, as far as a group depends on it.
//!
//! Asked once and then only looked at. What a version does not have reads as what it does without.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::metadata::{Leftovers, NewMember};
use crate::mysql::discover::group_members;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::ServerFacts;
use crate::mysql::grants::{GlobalPrivileges, Need, Purpose, needs};
use crate::mysql::replicas::{Channel, channels};
use crate::mysql::server_url::HostPort;
use crate::mysql::session::Session;
use crate::mysql::topology::{Member, MemberState, Role};
use crate::restore::journal::SCHEMA;

/// `ER_NO_SUCH_TABLE` and `ER_BAD_DB_ERROR`.
const NOT_THERE: [u16; 2] = [1146, 1049];

/// What the members of a group talk with (`group_replication_communication_stack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Stack {
    /// XCom on a port of its own.
    XCom,
    /// MySQL's own protocol on the server's port (from 8.0.27 on).
    MySql,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XCom => "XCOM",
            Self::MySql => "MYSQL",
        })
    }
}

/// The group settings of a server, and what it sees of its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupState {
    /// `group_replication_group_name`, if it is set.
    pub name: Option<Uuid>,
    /// `group_replication_local_address`; may be empty.
    pub local_address: String,
    /// What the server talks with; none before 8.0.27, which has XCom only.
    pub stack: Option<Stack>,
    /// The members that it sees, itself among them; empty if it is in no group.
    pub members: Vec<Member>,
}

/// What one server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerState {
    /// Its facts; the address is the one under which we reach it.
    pub facts: ServerFacts,
    /// The address under which its group knows it (`report_host`, `report_port`).
    pub known_as: HostPort,
    /// `enforce_gtid_consistency` is ON.
    pub gtid_consistent: bool,
    /// Whether the plugin `group_replication` is active.
    pub has_group_plugin: bool,
    /// Whether the plugin `clone` is active.
    pub has_clone_plugin: bool,
    /// Its group.
    pub group: GroupState,
    /// Channels from other servers, those of its group left out.
    pub channels: Vec<Channel>,
    /// Whether a restore of the whole server was begun on it and not finished.
    pub unfinished: bool,
    /// Tables without a primary key, or of an engine that a group does not take, as
    /// `schema.table`; the first few.
    pub unfit_tables: Vec<String>,
    /// The instances that InnoDB Cluster's metadata on this server name.
    pub instances: Vec<String>,
    /// What a ClusterSet has left in it.
    pub leftovers: Leftovers,
    /// The port of the X protocol, if it listens on one.
    pub x_port: Option<u16>,
    /// The account of the session, as `user@host`.
    pub account: String,
    /// What it lacks of what a reseed needs.
    #[serde(skip)]
    pub lacks: Vec<Need>,
}

/// So many unfit tables are named.
const UNFIT_MAX: u64 = 20;

impl ServerState {
    /// Asks a server.
    ///
    /// # Errors
    ///
    /// What a question fails with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let facts = ServerFacts::load(session).await?;
        let (host, port, consistent): (String, u16, String) = session
            .query_one(
                "SELECT COALESCE(@@GLOBAL.report_host, @@GLOBAL.hostname), \
                 IF(@@GLOBAL.report_port = 0, @@GLOBAL.port, @@GLOBAL.report_port), \
                 @@GLOBAL.enforce_gtid_consistency",
            )
            .await?;
        let plugins: Vec<String> = session
            .query(
                "SELECT PLUGIN_NAME FROM information_schema.PLUGINS \
                 WHERE PLUGIN_STATUS = 'ACTIVE' AND PLUGIN_NAME IN ('group_replication', 'clone')",
            )
            .await?;
        let has = |name: &str| plugins.iter().any(|plugin| plugin == name);
        let journals: u64 = session
            .query_one(format!(
                "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{SCHEMA}'"
            ))
            .await?;
        let privileges = GlobalPrivileges::load(session).await?;
        let lacks = needs(Purpose::Reseed)
            .iter()
            .filter(|need| need.name_on(&facts.version).is_some() && !privileges.meets(need))
            .copied()
            .collect();
        let unfit_tables = unfit_tables(session).await?;
        let instances = instances(session).await?;
        Ok(Self {
            known_as: HostPort::new(host, port),
            gtid_consistent: consistent == "ON",
            has_group_plugin: has("group_replication"),
            has_clone_plugin: has("clone"),
            group: group(session).await?,
            channels: channels(session, &facts.version).await?,
            unfinished: journals > 0,
            unfit_tables,
            instances,
            leftovers: Leftovers::load(session).await?,
            x_port: x_port(session).await?,
            account: privileges.account().to_owned(),
            lacks,
            facts,
        })
    }

    /// Its own place in its group; none if it is in no group that runs.
    #[must_use]
    pub fn own(&self) -> Option<&Member> {
        let own = self.facts.server_uuid;
        self.group
            .members
            .iter()
            .find(|member| member.uuid == Some(own))
            .filter(|member| member.state != MemberState::Offline)
    }

    /// Whether it takes part in a group: works, catches up, or waits for the others.
    #[must_use]
    pub fn is_in_group(&self) -> bool {
        self.own()
            .is_some_and(|own| own.state != MemberState::Error)
    }

    /// Whether it works in the group of this name.
    #[must_use]
    pub fn is_online_in(&self, group: Uuid) -> bool {
        self.group.name == Some(group)
            && self
                .own()
                .is_some_and(|own| own.state == MemberState::Online)
    }

    /// Whether it is the primary of a group of this name that has its majority.
    #[must_use]
    pub fn is_primary_of(&self, group: Uuid) -> bool {
        self.is_online_in(group) && self.own().is_some_and(|own| own.role == Role::Primary)
    }

    /// What it will be as a member of a group.
    #[must_use]
    pub fn as_member(&self, local_address: &str) -> NewMember {
        NewMember {
            address: self.known_as.clone(),
            server_uuid: self.facts.server_uuid,
            server_id: self.facts.server_id,
            x_port: self.x_port,
            local_address: local_address.to_owned(),
        }
    }

    /// Whether somebody could write to it. In a group only the primary takes writes, and a member that
    /// has lost the others waits with its commits until they are back: it may go on then.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        !self.facts.super_read_only
    }
}

async fn x_port(session: &mut Session) -> Result<Option<u16>, MysqlError> {
    let port: Option<(String, u16)> = session
        .query_first("SHOW GLOBAL VARIABLES WHERE Variable_name = 'mysqlx_port'")
        .await?;
    Ok(port.map(|(_, port)| port).filter(|port| *port != 0))
}

async fn group(session: &mut Session) -> Result<GroupState, MysqlError> {
    let variables: Vec<(String, String)> = session
        .query(
            "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.global_variables \
             WHERE VARIABLE_NAME IN ('group_replication_group_name', \
             'group_replication_local_address', 'group_replication_communication_stack')",
        )
        .await?;
    let value = |name: &str| {
        let found = variables.iter().find(|(variable, _)| variable == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    Ok(GroupState {
        name: Uuid::try_parse(value("group_replication_group_name")).ok(),
        local_address: value("group_replication_local_address").to_owned(),
        stack: match value("group_replication_communication_stack") {
            "MYSQL" => Some(Stack::MySql),
            "XCOM" => Some(Stack::XCom),
            _ => None,
        },
        members: group_members(session).await?,
    })
}

/// Tables that a group lets nobody write to (MySQL manual, "Group Replication Requirements").
async fn unfit_tables(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    session
        .query(format!(
            "SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) FROM information_schema.TABLES t \
             WHERE t.TABLE_TYPE = 'BASE TABLE' AND t.TABLE_SCHEMA NOT IN \
             ('mysql', 'sys', 'information_schema', 'performance_schema', '{SCHEMA}') \
             AND (t.ENGINE <> 'InnoDB' OR NOT EXISTS (SELECT 1 FROM information_schema.STATISTICS s \
             WHERE s.TABLE_SCHEMA = t.TABLE_SCHEMA AND s.TABLE_NAME = t.TABLE_NAME \
             AND s.NON_UNIQUE = 0 GROUP BY s.INDEX_NAME HAVING SUM(s.NULLABLE = 'YES') = 0)) \
             ORDER BY 1 LIMIT {UNFIT_MAX}"
        ))
        .await
}

async fn instances(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    let found = session
        .query("SELECT address FROM mysql_innodb_cluster_metadata.instances ORDER BY instance_id")
        .await;
    match found {
        Err(error) if error.code().is_some_and(|code| NOT_THERE.contains(&code)) => Ok(Vec::new()),
        found => found,
    }
}
