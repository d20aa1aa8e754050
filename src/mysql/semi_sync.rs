//! What a source says of its semi-synchronous replicas.
//!
//! Names changed with MySQL 8.0.26 (`master`/`slave` to `source`/`replica`); both are read. Source:
//! MySQL manual, "Semisynchronous Replication Monitoring".

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::error::MysqlError;
use super::host_port::HostPort;
use super::session::Session;

/// The state of semi-synchronous replication on a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemiSyncStatus {
    /// Whether the source is told to wait for acknowledgements.
    pub enabled: bool,
    /// Whether it does so now: after a timeout it goes on without, until a replica has caught up.
    pub operational: bool,
    /// How many semi-synchronous replicas it counts at present, we among them if our dump is one.
    pub clients: u64,
    /// How many acknowledgements a commit needs.
    pub wait_for_replica_count: u64,
    /// How long a commit waits before the source gives semi-synchronous replication up, in
    /// milliseconds.
    pub timeout_millis: u64,
    /// `AFTER_SYNC` (nobody sees a transaction before it is acknowledged) or `AFTER_COMMIT`.
    pub wait_point: String,
    /// Transactions that were acknowledged in time, since the source's start.
    pub acknowledged: u64,
    /// Transactions that were not.
    pub unacknowledged: u64,
}

impl SemiSyncStatus {
    /// Asks a source; `None` if it does not have the plugin. Needs no privilege.
    ///
    /// # Errors
    ///
    /// What the question fails with.
    pub async fn load(session: &mut Session) -> Result<Option<Self>, MysqlError> {
        let mut values: HashMap<String, String> = HashMap::new();
        for statement in [
            "SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%'",
            "SHOW GLOBAL STATUS LIKE 'rpl\\_semi\\_sync\\_%'",
        ] {
            let rows: Vec<(String, String)> = session.query(statement).await?;
            values.extend(rows.into_iter().map(|(name, value)| {
                let name = name.to_ascii_lowercase();
                (name.replace("_master_", "_source_"), value)
            }));
        }
        Ok(Self::read(&values))
    }

    /// Why a source takes no acknowledgements, with the statement that would change it; `enabled` is
    /// `rpl_semi_sync_source_enabled`, if the source has it.
    #[must_use]
    pub fn obstacle(enabled: Option<bool>) -> Option<&'static str> {
        match enabled {
            Some(true) => None,
            Some(false) => Some(
                "it is switched off; it needs SET PERSIST rpl_semi_sync_source_enabled = ON (before MySQL \
                 8.0.26: rpl_semi_sync_master_enabled)",
            ),
            None => Some(
                "the plugin is not there; it needs INSTALL PLUGIN rpl_semi_sync_source SONAME \
                 'semisync_source.so' (before MySQL 8.0.26: rpl_semi_sync_master SONAME \
                 'semisync_master.so') and SET PERSIST rpl_semi_sync_source_enabled = ON",
            ),
        }
    }

    /// What of the settings of the source at `address` makes its waiting worth less than it seems.
    #[must_use]
    pub fn weaknesses(&self, address: &HostPort) -> Vec<String> {
        let mut found = Vec::new();
        if self.wait_point != "AFTER_SYNC" {
            found.push(format!(
                "{address} has rpl_semi_sync_source_wait_point={}: others see a transaction before \
                 it is acknowledged",
                self.wait_point
            ));
        }
        if self.timeout_millis < 3_600_000 {
            found.push(format!(
                "{address} waits at most {} s for an acknowledgement \
                 (rpl_semi_sync_source_timeout), then commits without",
                self.timeout_millis as f64 / 1000.0
            ));
        }
        found
    }

    fn read(values: &HashMap<String, String>) -> Option<Self> {
        let text = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|name| values.get(&format!("rpl_semi_sync_source_{name}")))
                .map(String::as_str)
        };
        let number = |names| {
            text(names)
                .and_then(|value| value.parse().ok())
                .unwrap_or_default()
        };
        let one = |name| [name, name];
        Some(Self {
            enabled: text(one("enabled"))? == "ON",
            operational: text(one("status")) == Some("ON"),
            clients: number(one("clients")),
            wait_for_replica_count: number(["wait_for_replica_count", "wait_for_slave_count"]),
            timeout_millis: number(one("timeout")),
            wait_point: text(one("wait_point")).unwrap_or_default().to_owned(),
            acknowledged: number(one("yes_tx")),
            unacknowledged: number(one("no_tx")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_with_only_its_own_half_of_the_plugin_is_no_source() {
        let values = [("rpl_semi_sync_replica_enabled", "ON")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(SemiSyncStatus::read(&values.into()), None);
    }

    #[test]
    fn the_names_before_and_after_the_change_tell_the_same() {
        let read = |count: &str| {
            let values = [
                ("rpl_semi_sync_source_enabled", "ON"),
                ("rpl_semi_sync_source_status", "OFF"),
                ("rpl_semi_sync_source_clients", "2"),
                (count, "3"),
            ];
            let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
            SemiSyncStatus::read(&values.into()).expect("a source")
        };
        let status = read("rpl_semi_sync_source_wait_for_replica_count");
        assert_eq!(status, read("rpl_semi_sync_source_wait_for_slave_count"));
        assert_eq!((status.enabled, status.operational), (true, false));
        assert_eq!((status.clients, status.wait_for_replica_count), (2, 3));
    }
}
