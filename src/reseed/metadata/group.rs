//! The group that metadata shall describe.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mysql::error::MysqlError;
use crate::mysql::server_url::HostPort;
use crate::mysql::session::Session;

/// The group, as it was formed. It has one primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// `group_replication_group_name`.
    pub name: Uuid,
    /// Its members, all of them.
    pub members: Vec<NewMember>,
    /// The account by which they recover, if it is to be written down.
    pub recovery_account: Option<RecoveryAccount>,
    /// `group_replication_view_change_uuid`, where it is not AUTOMATIC.
    pub view_change_uuid: Option<Uuid>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Where it says of itself that it can be reached, as in `replication_group_members`.
    pub address: HostPort,
    /// Its UUID.
    pub server_uuid: Uuid,
    /// Its number.
    pub server_id: u32,
    /// The port of the X protocol, if it listens on one.
    pub x_port: Option<u16>,
    /// `group_replication_local_address`.
    pub local_address: String,
}

/// An account, by name and host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecoveryAccount {
    /// Its name.
    pub user: String,
    /// Its host, such as `%`.
    pub host: String,
}

impl NewMember {
    /// Asks a server what it is as a member.
    ///
    /// # Errors
    ///
    /// What the question fails with, and a server without the plugin of Group Replication.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let address = session.address().clone();
        let (host, port, uuid, server_id): (String, u16, String, u32) = session
            .query_one(
                "SELECT COALESCE(NULLIF(@@GLOBAL.report_host, ''), @@GLOBAL.hostname), \
                 COALESCE(NULLIF(@@GLOBAL.report_port, 0), @@GLOBAL.port), @@GLOBAL.server_uuid, \
                 @@GLOBAL.server_id",
            )
            .await?;
        let variables: HashMap<String, String> = session
            .query::<(String, String)>(
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('mysqlx_port', \
                 'group_replication_local_address')",
            )
            .await?
            .into_iter()
            .collect();
        let refuse = |reason: String| MysqlError::Unsupported { reason }.at(&address);
        let local_address = variables
            .get("group_replication_local_address")
            .cloned()
            .ok_or_else(|| refuse("it has no Group Replication".to_owned()))?;
        Ok(Self {
            address: HostPort::new(host, port),
            server_uuid: uuid
                .parse()
                .map_err(|_| refuse(format!("its server_uuid is {uuid:?}")))?,
            server_id,
            x_port: variables
                .get("mysqlx_port")
                .and_then(|port| port.parse().ok())
                .filter(|&port| port != 0),
            local_address,
        })
    }
}
