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
    let unknown = unknown_time_zones(session, &manifest.needs.time_zones).await?;
    if !unknown.is_empty() {
        return Err(LoadError::NoTimeZones {
            server,
            zones: unknown,
        });
    }
    Ok(())
}

/// Those that the server's tables of time zones do not have.
pub(in crate::restore) async fn unknown_time_zones(
    session: &mut Session,
    zones: &[String],
) -> Result<Vec<String>, MysqlError> {
    let mut unknown = Vec::new();
    for zone in zones {
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
    Ok(unknown)
}

/// Whether a keyring component (8.0.24) or plugin works.
pub(in crate::restore) async fn has_keyring(session: &mut Session) -> Result<bool, MysqlError> {
    let component = session
        .query_one::<u64>(
            "SELECT COUNT(*) FROM performance_schema.keyring_component_status \
             WHERE STATUS_KEY = 'Component_status' AND STATUS_VALUE = 'Active'",
        )
        .await;
    let is_unknown = |error: &MysqlError| error.code().is_some_and(|c| UNKNOWN_TABLE.contains(&c));
    let component = match component {
        Err(error) if is_unknown(&error) => 0,
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
