//! Whether what a snapshot holds is part of the cluster's history.
//!
//! A read view stays valid whatever becomes of its server. But a secondary may have transactions
//! that nobody else has (written there, or of a primary that was lost before it sent them to the
//! others): a snapshot with such would be a state that the cluster never was in.

use super::error::SnapshotError;
use super::options::SnapshotSource;
use super::plan::SnapshotPlan;
use crate::error::with_causes;
use crate::gtid::GtidSet;
use crate::mysql::discover::{discover, login_for};
use crate::mysql::health::history_with;
use crate::mysql::primary::find_settled_primary;
use crate::mysql::topology::{Member, Role, TopologyKind};
use crate::mysql::{HostPort, ServerUrl};

/// Compares what the views hold with the history of the present primary; gives a warning if nobody
/// could be asked.
///
/// # Errors
///
/// [`SnapshotError::Errant`] if the primary lacks some of it.
pub(super) async fn confirm(
    plan: &SnapshotPlan,
    source: &SnapshotSource,
    view: &GtidSet,
) -> Result<Option<String>, SnapshotError> {
    if plan.kind == TopologyKind::Single && plan.role == Role::Primary {
        return Ok(None);
    }
    let asked = known_to_primary(plan, source, view).await;
    match asked {
        Ok((primary, known)) if !view.is_subset(&known) => Err(SnapshotError::Errant {
            server: plan.server.to_string(),
            primary: primary.to_string(),
            missing: view.subtract(&known),
        }),
        Ok(_) => Ok(None),
        Err(reason) => Ok(Some(format!(
            "what the snapshot holds could not be compared with the primary's history: {reason}"
        ))),
    }
}

/// The present primary, and what it has in its history.
async fn known_to_primary(
    plan: &SnapshotPlan,
    source: &SnapshotSource,
    view: &GtidSet,
) -> Result<(HostPort, GtidSet), String> {
    let servers = source.with(&plan.members);
    let primary = primary_of(plan.kind, &servers).await?;
    if primary.uuid == Some(plan.server_uuid) {
        // It is its own history.
        return Ok((primary.address, view.clone()));
    }
    let url = login_for(&primary.address, &source.url, &servers);
    let known = history_with(&url, &[view])
        .await
        .map_err(|error| with_causes(&error))?;
    Ok((primary.address, known))
}

/// The primary of the cluster that was read. Not that of a ClusterSet: a replica cluster may have
/// changes of its membership in its history that the primary cluster has not.
async fn primary_of(kind: TopologyKind, servers: &[ServerUrl]) -> Result<Member, String> {
    if kind.is_group() {
        let topology = discover(servers)
            .await
            .map_err(|error| with_causes(&error))?;
        return topology
            .primary()
            .cloned()
            .ok_or_else(|| "the group has no primary at present".to_owned());
    }
    find_settled_primary(servers)
        .await
        .map(|found| found.member)
        .map_err(|error| with_causes(&error))
}
