//! What of a server's settings decides whether and how well it can be followed.

use super::super::error::StreamError;
use crate::mysql::facts::ServerFacts;
use crate::mysql::host_port::HostPort;
use crate::mysql::semi_sync::SemiSyncStatus;
use crate::mysql::session::Session;
use crate::mysql::topology::TopologyKind;
use crate::mysql::wire::WireError;

/// What of a source's settings makes its waiting for us worth less than it seems. One that cannot wait at all
/// is refused before anything is claimed.
pub(super) async fn semi_sync_warnings(
    session: &mut Session,
    address: &HostPort,
) -> Result<Vec<String>, StreamError> {
    let status = SemiSyncStatus::load(session).await?;
    if let Some(reason) = SemiSyncStatus::obstacle(status.as_ref().map(|status| status.enabled)) {
        return Err(WireError::SemiSync {
            address: address.to_string(),
            reason: reason.to_owned(),
        }
        .into());
    }
    Ok(status.map_or_else(Vec::new, |status| status.weaknesses(address)))
}

/// Whether it can be followed as it is set up.
pub(super) fn check_settings(facts: &ServerFacts, kind: TopologyKind) -> Result<(), StreamError> {
    let reason = if !facts.has_gtids() {
        format!("gtid_mode is {}, it must be ON", facts.gtid_mode)
    } else if !facts.log_bin {
        "log_bin is OFF: it writes no binlog".to_owned()
    } else if !facts.log_replica_updates && kind != TopologyKind::Single {
        "log_replica_updates is OFF: its binlog lacks what it applies from others".to_owned()
    } else {
        return Ok(());
    };
    Err(StreamError::Unsuitable {
        server: facts.address.to_string(),
        reason,
    })
}
