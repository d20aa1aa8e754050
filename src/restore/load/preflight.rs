//! What is asked of a server before anything is changed on it.

use crate::archive::manifest::Manifest;
use crate::mysql::{MysqlError, Session, TargetFacts, quote};

use super::LoadOptions;
use super::error::LoadError;
use super::steps::JOURNAL_SCHEMA;

/// `ER_NO_SUCH_TABLE`, `ER_UNKNOWN_TABLE`: of a version that does not have the table.
const UNKNOWN_TABLE: [u16; 2] = [1146, 1109];

/// Refuses a server that this snapshot cannot be loaded into.
pub(super) async fn check(
    session: &mut Session,
    facts: &TargetFacts,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<(), LoadError> {
    let server = facts.server.address.to_string();
    let mut schemas = facts.user_schemas.clone();
    schemas.retain(|schema| !(options.journal && schema == JOURNAL_SCHEMA));
    if !options.resume && !schemas.is_empty() {
        return Err(LoadError::NotEmpty { server, schemas });
    }
    if let Some(state) = &facts.group_member_state {
        return Err(LoadError::GroupMember {
            server,
            state: state.clone(),
        });
    }
    if !manifest.needs.keyring.is_empty() && !has_keyring(session).await? {
        return Err(LoadError::NoKeyring {
            server,
            objects: manifest.needs.keyring.clone(),
        });
    }
    let mut unknown = Vec::new();
    for zone in &manifest.needs.time_zones {
        let known: bool = session
            .query_one(format!(
                "SELECT CONVERT_TZ('2026-01-01 00:00:00', '+00:00', {}) IS NOT NULL",
                quote::string(zone)
            ))
            .await?;
        if !known {
            unknown.push(zone.clone());
        }
    }
    if !unknown.is_empty() {
        return Err(LoadError::NoTimeZones {
            server,
            zones: unknown,
        });
    }
    Ok(())
}

/// Whether a keyring component (8.0.24) or plugin works.
async fn has_keyring(session: &mut Session) -> Result<bool, MysqlError> {
    let component = session
        .query_one::<u64>(
            "SELECT COUNT(*) FROM performance_schema.keyring_component_status \
             WHERE STATUS_KEY = 'Component_status' AND STATUS_VALUE = 'Active'",
        )
        .await;
    let component = match component {
        Err(error)
            if error
                .code()
                .is_some_and(|code| UNKNOWN_TABLE.contains(&code)) =>
        {
            0
        }
        count => count?,
    };
    let plugin: u64 = session
        .query_one(
            "SELECT COUNT(*) FROM information_schema.PLUGINS \
             WHERE PLUGIN_TYPE = 'KEYRING' AND PLUGIN_STATUS = 'ACTIVE'",
        )
        .await?;
    Ok(component + plugin > 0)
}
