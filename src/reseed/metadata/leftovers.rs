//! What a ClusterSet leaves in a server beside the metadata.
//!
//! MySQL Shell lets a replica cluster follow the primary one by a channel of this name on each
//! member, lets the group's primary keep the list of the other cluster's members, and keeps a replica
//! cluster's primary from taking writes by a member action. A channel that is still there connects to
//! the old cluster as soon as its server is elected, so it goes before the group is formed. All of the
//! statements work in a running group, too (MySQL manual, "Asynchronous Connection Failover for
//! Replicas" and "Configuring Member Actions").

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

/// The channel by which a replica cluster follows the primary one.
const CHANNEL: &str = "clusterset_replication";
const ACTIONS: &str = "replication_group_member_actions";
const MANAGED: &str = "replication_asynchronous_connection_failover_managed";

/// What of a ClusterSet is left in one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftovers {
    /// Whether the channel is there.
    pub channel: bool,
    /// The groups that the channel follows.
    pub followed: Vec<String>,
    /// Actions at an election that are on in every server and off in this one, with their event.
    pub disabled_actions: Vec<(String, String)>,
}

/// What a server is in its group; some settings are the group's and are changed on its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The primary, or a server outside of any group.
    Primary,
    /// A secondary.
    Secondary,
}

impl Leftovers {
    /// Asks a server; what its version does not have is not left in it.
    ///
    /// # Errors
    ///
    /// What a question fails with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let tables: HashSet<String> = session
            .query::<String>(format!(
                "SELECT LOWER(TABLE_NAME) AS t FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = 'performance_schema' \
                 AND TABLE_NAME IN ('{ACTIONS}', '{MANAGED}')"
            ))
            .await?
            .into_iter()
            .collect();
        let channel: u64 = session
            .query_one(format!(
                "SELECT COUNT(*) FROM performance_schema.replication_connection_configuration \
                 WHERE CHANNEL_NAME = '{CHANNEL}'"
            ))
            .await?;
        let followed = if tables.contains(MANAGED) {
            session
                .query(format!(
                    "SELECT MANAGED_NAME FROM performance_schema.{MANAGED} \
                     WHERE CHANNEL_NAME = '{CHANNEL}' ORDER BY MANAGED_NAME"
                ))
                .await?
        } else {
            Vec::new()
        };
        let disabled_actions = if tables.contains(ACTIONS) {
            session
                .query(format!(
                    "SELECT name, event FROM performance_schema.{ACTIONS} \
                     WHERE enabled = 0 AND name IN ('mysql_disable_super_read_only_if_primary', \
                     'mysql_start_failover_channels_if_primary') ORDER BY name"
                ))
                .await?
        } else {
            Vec::new()
        };
        Ok(Self {
            channel: channel > 0,
            followed,
            disabled_actions,
        })
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The statements that remove it, to be run on that server outside of a transaction.
    #[must_use]
    pub fn statements(&self, place: Place) -> Vec<String> {
        let mut statements = Vec::new();
        if self.channel {
            statements.push(format!("STOP REPLICA FOR CHANNEL '{CHANNEL}'"));
            statements.push(format!("RESET REPLICA ALL FOR CHANNEL '{CHANNEL}'"));
        }
        if place == Place::Primary {
            statements.extend(self.followed.iter().map(|group| {
                format!(
                    "SELECT asynchronous_connection_failover_delete_managed('{CHANNEL}', {})",
                    quote::string(group)
                )
            }));
            statements.extend(self.disabled_actions.iter().map(|(name, event)| {
                format!(
                    "SELECT group_replication_enable_member_action({}, {})",
                    quote::string(name),
                    quote::string(event)
                )
            }));
        }
        statements
    }
}
