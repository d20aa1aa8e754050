//! What one server is: version, identity, GTIDs, durability and the settings that a plan needs.
//!
//! Facts are read once and then only looked at: plans are pure functions of them. Names are those
//! of the server's variables. A variable that a version does not have reads as its documented
//! default, so that a plan never depends on a server knowing every name.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::gtid::GtidSet;

use super::error::MysqlError;
use super::quote;
use super::server_url::HostPort;
use super::session::Session;
use super::version::ServerVersion;

/// Schemas that belong to the server and are never dumped, compared or restored.
pub const SYSTEM_SCHEMAS: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

/// The facts of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// Where it was asked.
    pub address: HostPort,
    /// Its version.
    pub version: ServerVersion,
    /// What it says of its build.
    pub version_comment: String,
    /// Its UUID.
    pub server_uuid: Uuid,
    /// Its number among its replication fellows.
    pub server_id: u32,
    /// Its clock, in UTC with microseconds.
    pub time: DateTime<Utc>,
    /// Whether it assigns GTIDs to all transactions (`gtid_mode` is ON).
    pub gtid_mode: String,
    /// Every transaction that it has.
    pub gtid_executed: GtidSet,
    /// Those of them that its binlogs no longer hold.
    pub gtid_purged: GtidSet,
    /// Whether it writes a binlog.
    pub log_bin: bool,
    /// Whether it writes to its binlog what it replicates.
    pub log_replica_updates: bool,
    /// ROW, STATEMENT or MIXED.
    pub binlog_format: String,
    /// FULL, MINIMAL or NOBLOB.
    pub binlog_row_image: String,
    /// CRC32 or NONE.
    pub binlog_checksum: String,
    /// Commit groups between two syncs of the binlog; 1 is durable, 0 leaves it to the system.
    pub sync_binlog: u64,
    /// 1 is durable.
    pub innodb_flush_log_at_trx_commit: u64,
    /// Whether ordinary accounts may not write.
    pub read_only: bool,
    /// Whether nobody may write.
    pub super_read_only: bool,
    /// 0, 1 or 2; it decides how table names compare.
    pub lower_case_table_names: u8,
    /// Whether LOAD DATA LOCAL is allowed.
    pub local_infile: bool,
    /// In bytes.
    pub max_allowed_packet: u64,
    /// The server's default character set.
    pub character_set_server: String,
    /// The server's default collation.
    pub collation_server: String,
    /// Whether the performance schema, which knows the group and the replication, is on.
    pub performance_schema: bool,
    /// ON, OFF or DISABLED.
    pub event_scheduler: String,
    /// InnoDB's page size in bytes.
    pub innodb_page_size: u64,
}

impl ServerFacts {
    /// Asks a server for its facts.
    ///
    /// # Errors
    ///
    /// [`MysqlError::Unsupported`] for what is no MySQL from 8.0 on, and what a question fails
    /// with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let address = session.address().clone();
        let (version, comment): (String, String) = session
            .query_one("SELECT @@GLOBAL.version, @@GLOBAL.version_comment")
            .await?;
        let parsed = if comment.to_ascii_lowercase().contains("mariadb") {
            ServerVersion::parse(&format!("{version} {comment}"))
        } else {
            ServerVersion::parse(&version)
        };
        let version = parsed.map_err(|error| error.at(&address))?;
        // SHOW VARIABLES cuts long values, so the GTID sets are asked for by name.
        let (executed, purged, uuid, time): (String, String, String, String) = session
            .query_one(
                "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.server_uuid, \
                 CAST(UTC_TIMESTAMP(6) AS CHAR)",
            )
            .await?;
        let variables = Variables::load(session).await?;
        let bad = |what: &str| MysqlError::protocol(format!("{what} is malformed")).at(&address);
        Ok(Self {
            version_comment: comment,
            server_uuid: Uuid::try_parse(&uuid).map_err(|_| bad("server_uuid"))?,
            server_id: variables.number("server_id", 1) as u32,
            time: NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M:%S%.f")
                .map_err(|_| bad("the server's time"))?
                .and_utc(),
            gtid_mode: variables.text("gtid_mode", "OFF"),
            gtid_executed: executed.parse().map_err(|_| bad("gtid_executed"))?,
            gtid_purged: purged.parse().map_err(|_| bad("gtid_purged"))?,
            log_bin: variables.is_on("log_bin", false),
            log_replica_updates: variables.is_on("log_replica_updates", false)
                || variables.is_on("log_slave_updates", false),
            binlog_format: variables.text("binlog_format", "ROW"),
            binlog_row_image: variables.text("binlog_row_image", "FULL"),
            binlog_checksum: variables.text("binlog_checksum", "CRC32"),
            sync_binlog: variables.number("sync_binlog", 1),
            innodb_flush_log_at_trx_commit: variables.number("innodb_flush_log_at_trx_commit", 1),
            read_only: variables.is_on("read_only", false),
            super_read_only: variables.is_on("super_read_only", false),
            lower_case_table_names: variables.number("lower_case_table_names", 0) as u8,
            local_infile: variables.is_on("local_infile", false),
            max_allowed_packet: variables.number("max_allowed_packet", 64 << 20),
            character_set_server: variables.text("character_set_server", "utf8mb4"),
            collation_server: variables.text("collation_server", "utf8mb4_0900_ai_ci"),
            performance_schema: variables.is_on("performance_schema", true),
            event_scheduler: variables.text("event_scheduler", "ON"),
            innodb_page_size: variables.number("innodb_page_size", 16_384),
            version,
            address,
        })
    }

    /// Whether every transaction of this server has a GTID.
    #[must_use]
    pub fn has_gtids(&self) -> bool {
        self.gtid_mode == "ON"
    }

    /// Whether a crash of this server can lose transactions that its binlog already sent.
    #[must_use]
    pub const fn may_lose_sent_transactions(&self) -> bool {
        self.sync_binlog != 1
    }
}

/// What decides whether a server may be the target of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// The server's facts.
    pub server: ServerFacts,
    /// Every schema that is not the server's own.
    pub user_schemas: Vec<String>,
    /// Accounts besides the server's own, as `user@host`.
    pub accounts: Vec<String>,
    /// This server's state in a replication group (`ONLINE`, ...), unless it is in none.
    pub group_member_state: Option<String>,
    /// Replication channels that are configured, group channels without a running group among
    /// them.
    pub replication_channels: Vec<String>,
}

impl TargetFacts {
    /// Asks a server for them.
    ///
    /// # Errors
    ///
    /// What a question fails with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let server = ServerFacts::load(session).await?;
        let user_schemas = user_schemas(session).await?;
        let accounts = session
            .query::<(String, String)>(
                "SELECT User, Host FROM mysql.user \
                 WHERE User NOT IN ('mysql.sys', 'mysql.session', 'mysql.infoschema') \
                 ORDER BY User, Host",
            )
            .await?
            .into_iter()
            .map(|(user, host)| format!("{user}@{host}"))
            .collect();
        let group_member_state = session
            .query_first::<String>(format!(
                "SELECT MEMBER_STATE FROM performance_schema.replication_group_members \
                 WHERE MEMBER_ID = {} AND MEMBER_STATE <> 'OFFLINE'",
                quote::string(&server.server_uuid.to_string())
            ))
            .await?;
        let replication_channels = session
            .query(
                "SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration \
                 WHERE HOST <> '' OR CHANNEL_NAME <> '' ORDER BY CHANNEL_NAME",
            )
            .await?;
        Ok(Self {
            server,
            user_schemas,
            accounts,
            group_member_state,
            replication_channels,
        })
    }

    /// Whether it holds no schema of a user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.user_schemas.is_empty()
    }
}

/// Where the binlog of a server ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogStatus {
    /// The name of the file being written.
    pub file: String,
    /// The next event's offset in it, in bytes.
    pub position: u64,
    /// `gtid_executed` as the same statement tells it.
    pub executed: GtidSet,
}

/// Asks where the binlog ends; `None` if the server writes none. Needs REPLICATION CLIENT.
///
/// # Errors
///
/// What the question fails with.
pub async fn binlog_status(
    session: &mut Session,
    version: &ServerVersion,
) -> Result<Option<BinlogStatus>, MysqlError> {
    let row: Option<(String, u64, String, String, String)> = session
        .query_first(version.binlog_status_statement())
        .await?;
    row.map(|(file, position, _, _, executed)| {
        let executed = executed.parse().map_err(|_| {
            MysqlError::protocol("the binlog status names no GTID set").at(session.address())
        })?;
        Ok(BinlogStatus {
            file,
            position,
            executed,
        })
    })
    .transpose()
}

/// The server's clock, in UTC with microseconds.
///
/// # Errors
///
/// What the question fails with.
pub async fn server_time(session: &mut Session) -> Result<DateTime<Utc>, MysqlError> {
    let time: String = session
        .query_one("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')")
        .await?;
    let time = DateTime::parse_from_rfc3339(&time).map_err(|_| {
        MysqlError::protocol("the server's time is malformed").at(session.address())
    })?;
    Ok(time.with_timezone(&Utc))
}

/// `gtid_executed` alone.
///
/// # Errors
///
/// What the question fails with.
pub async fn gtid_executed(session: &mut Session) -> Result<GtidSet, MysqlError> {
    let text: String = session.query_one("SELECT @@GLOBAL.gtid_executed").await?;
    text.parse()
        .map_err(|_| MysqlError::protocol("gtid_executed is malformed").at(session.address()))
}

/// `gtid_purged` alone.
///
/// # Errors
///
/// What the question fails with.
pub async fn gtid_purged(session: &mut Session) -> Result<GtidSet, MysqlError> {
    let text: String = session.query_one("SELECT @@GLOBAL.gtid_purged").await?;
    text.parse()
        .map_err(|_| MysqlError::protocol("gtid_purged is malformed").at(session.address()))
}

/// `group_replication_group_name` of a member of a group; `None` without the plugin or a name.
///
/// # Errors
///
/// What the question fails with.
pub async fn group_name(session: &mut Session) -> Result<Option<Uuid>, MysqlError> {
    let row: Option<(String, String)> = session
        .query_first("SHOW GLOBAL VARIABLES LIKE 'group\\_replication\\_group\\_name'")
        .await?;
    Ok(row.and_then(|(_, name)| Uuid::try_parse(&name).ok()))
}

const ER_TABLEACCESS_DENIED: u16 = 1142;

/// Transactions of a server that have a GTID and are not in `gtid_executed`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// Being executed or committed: with semi-synchronous replication and `AFTER_SYNC`, one that
    /// was sent already and waits for its acknowledgement is among them.
    pub owned: GtidSet,
    /// Received from another server and not applied.
    pub queued: GtidSet,
}

/// Asks which transactions are on their way into `gtid_executed`. Whoever asks for that
/// afterwards finds each of them in one of the two. Without SELECT on
/// `performance_schema.replication_connection_status` nothing is known to be queued.
///
/// # Errors
///
/// What the question fails with.
pub async fn pending(session: &mut Session) -> Result<Pending, MysqlError> {
    let received: Result<Vec<String>, _> = session
        .query(
            "SELECT RECEIVED_TRANSACTION_SET \
             FROM performance_schema.replication_connection_status",
        )
        .await;
    let received = match received {
        Err(error) if error.code() == Some(ER_TABLEACCESS_DENIED) => Vec::new(),
        received => received?,
    };
    let (owned, executed): (String, String) = session
        .query_one("SELECT @@GLOBAL.gtid_owned, @@GLOBAL.gtid_executed")
        .await?;
    let bad = |what: &str, session: &Session| {
        MysqlError::protocol(format!("{what} is malformed")).at(session.address())
    };
    let owned = parse_owned(&owned).ok_or_else(|| bad("gtid_owned", session))?;
    let executed: GtidSet = executed
        .parse()
        .map_err(|_| bad("gtid_executed", session))?;
    let mut queued = GtidSet::new();
    for received in received {
        let received: GtidSet = received
            .parse()
            .map_err(|_| bad("RECEIVED_TRANSACTION_SET", session))?;
        queued.extend_from(&received);
    }
    Ok(Pending {
        queued: queued.subtract(&executed),
        owned,
    })
}

/// `gtid_owned` is a GTID set with `#` and the owner's thread behind each number.
fn parse_owned(text: &str) -> Option<GtidSet> {
    let mut parts = text.split('#');
    let mut set = parts.next()?.to_owned();
    for part in parts {
        set.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    set.parse().ok()
}

/// Every schema that is not the server's own, in the order of their names.
///
/// # Errors
///
/// What the question fails with.
pub async fn user_schemas(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    session
        .query(format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
             WHERE LOWER(SCHEMA_NAME) NOT IN ({}) ORDER BY SCHEMA_NAME",
            SYSTEM_SCHEMAS.map(quote::string).join(", ")
        ))
        .await
}

struct Variables(HashMap<String, String>);

impl Variables {
    async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let rows: Vec<(String, String)> = session
            .query(
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_id', 'gtid_mode', 'log_bin', \
                 'log_replica_updates', 'log_slave_updates', 'binlog_format', 'binlog_row_image', \
                 'binlog_checksum', 'sync_binlog', 'innodb_flush_log_at_trx_commit', 'read_only', \
                 'super_read_only', 'lower_case_table_names', 'local_infile', \
                 'max_allowed_packet', 'character_set_server', 'collation_server', \
                 'performance_schema', 'event_scheduler', 'innodb_page_size')",
            )
            .await?;
        Ok(Self(rows.into_iter().collect()))
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).map_or(default, String::as_str).to_owned()
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.0
            .get(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    fn is_on(&self, name: &str, default: bool) -> bool {
        self.0
            .get(name)
            .map_or(default, |value| matches!(value.as_str(), "ON" | "1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_of_gtids_are_left_out() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";
        for (text, set) in [
            (String::new(), String::new()),
            (format!("{A}:5#12"), format!("{A}:5")),
            (
                format!("{A}:5#12:7#13#14,\n{B}:tag:1#9"),
                format!("{A}:5:7,{B}:tag:1"),
            ),
        ] {
            let set: GtidSet = set.parse().expect("a set");
            assert_eq!(parse_owned(&text), Some(set), "{text}");
        }
        assert_eq!(parse_owned("x#1"), None);
    }
}
