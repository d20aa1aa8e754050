//! Who replicates from whom, as one server tells it of itself.
//!
//! Both statements need REPLICATION CLIENT or REPLICATION SLAVE alone, which a streamer has
//! anyway; the tables of the performance schema with the same facts would need more.

use mysql_async::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::MysqlError;
use super::server_url::HostPort;
use super::session::Session;
use super::version::ServerVersion;
use super::wire::dump::STREAMER_HOST;

/// The channel by which a replica cluster of a ClusterSet follows the primary cluster.
pub const CLUSTER_SET_CHANNEL: &str = "clusterset_replication";

/// A dump that a source has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredDump {
    /// The UUID under which it is registered; a source keeps one dump for each.
    pub replica_uuid: Uuid,
    /// Its `server_id`.
    pub server_id: u32,
    /// Where the replica says that it listens, if it says so.
    pub address: Option<HostPort>,
    /// Whether it is a streamer of Quillback rather than a server.
    pub streamer: bool,
}

/// The dumps that are registered at this server now. Needs REPLICATION SLAVE.
///
/// A dump whose connection broke unnoticed stays listed until the server fails to write to it:
/// with a heartbeat at the next one, at most `net_write_timeout` (60 s) after that.
///
/// # Errors
///
/// What the question fails with.
pub async fn registered_dumps(
    session: &mut Session,
    version: &ServerVersion,
) -> Result<Vec<RegisteredDump>, MysqlError> {
    let rows: Vec<(u32, String, u16, u32, String)> =
        session.query(version.show_replicas_statement()).await?;
    Ok(rows
        .into_iter()
        .filter_map(|(server_id, host, port, _, uuid)| {
            let streamer = host == STREAMER_HOST && port == 0;
            Some(RegisteredDump {
                replica_uuid: Uuid::try_parse(&uuid).ok()?,
                server_id,
                address: (!streamer && !host.is_empty()).then(|| HostPort::new(host, port)),
                streamer,
            })
        })
        .collect())
}

/// A channel by which a server replicates from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name; the default channel has none.
    pub name: String,
    /// The source that is configured.
    pub source: HostPort,
    /// The source's UUID, once it was connected to.
    pub source_uuid: Option<Uuid>,
    /// Whether both receiver and applier run.
    pub running: bool,
}

impl Channel {
    /// Whether it ties a replica cluster to the primary cluster of a ClusterSet.
    #[must_use]
    pub fn is_cluster_set(&self) -> bool {
        self.name == CLUSTER_SET_CHANNEL
    }
}

/// The channels that are configured on this server, those of its group left out. Needs
/// REPLICATION CLIENT.
///
/// # Errors
///
/// What the question fails with.
pub async fn channels(
    session: &mut Session,
    version: &ServerVersion,
) -> Result<Vec<Channel>, MysqlError> {
    let rows: Vec<Row> = session.query(version.replica_status_statement()).await?;
    rows.iter()
        .filter_map(|row| read_channel(row).transpose())
        .collect::<Result<_, _>>()
        .map_err(|error: MysqlError| error.at(session.address()))
}

/// One row of SHOW REPLICA STATUS, if it is a channel to another server.
fn read_channel(row: &Row) -> Result<Option<Channel>, MysqlError> {
    let text = |new: &str, old: &str| -> Result<String, MysqlError> {
        let value = row
            .get_opt::<Option<String>, _>(new)
            .or_else(|| row.get_opt(old));
        match value {
            Some(Ok(text)) => Ok(text.unwrap_or_default()),
            _ => Err(MysqlError::protocol(format!(
                "the replica's status tells no {new}"
            ))),
        }
    };
    let name = text("Channel_Name", "Channel_Name")?;
    let host = text("Source_Host", "Master_Host")?;
    if host.is_empty() || name.starts_with("group_replication_") {
        return Ok(None);
    }
    let port = text("Source_Port", "Master_Port")?;
    let receiver = text("Replica_IO_Running", "Slave_IO_Running")?;
    let applier = text("Replica_SQL_Running", "Slave_SQL_Running")?;
    Ok(Some(Channel {
        name,
        source: HostPort::new(host, port.parse().unwrap_or_default()),
        source_uuid: Uuid::try_parse(&text("Source_UUID", "Master_UUID")?).ok(),
        // A receiver that tries to reach its source says `Connecting`: it does not run.
        running: receiver == "Yes" && applier == "Yes",
    }))
}
