//! What the account of a restore may not do and must.
//!
//! Some privileges the restore itself makes use of, the others it hands on: nobody can give an
//! account what he does not have.

use std::collections::BTreeSet;

use super::{Reason, ServerState, Wishes};
use crate::error::Class;

/// Privileges that a restore itself makes use of, as far as a server knows them.
const CORE: [&str; 39] = [
    "ALLOW_NONEXISTENT_DEFINER",
    "ALTER",
    "ALTER ROUTINE",
    "BINLOG_ADMIN",
    "CONNECTION_ADMIN",
    "CREATE",
    "CREATE ROLE",
    "CREATE ROUTINE",
    "CREATE TABLESPACE",
    "CREATE USER",
    "CREATE VIEW",
    "DELETE",
    "DROP",
    "DROP ROLE",
    "EVENT",
    "EXECUTE",
    "INDEX",
    "INNODB_REDO_LOG_ENABLE",
    "INSERT",
    "PROCESS",
    "REFERENCES",
    "RELOAD",
    "REPLICATION CLIENT",
    "REPLICATION_APPLIER",
    "REPLICATION_SLAVE_ADMIN",
    "RESOURCE_GROUP_ADMIN",
    "ROLE_ADMIN",
    "SELECT",
    "SESSION_VARIABLES_ADMIN",
    "SET_ANY_DEFINER",
    "SET_USER_ID",
    "SHOW DATABASES",
    "SHOW VIEW",
    "SYSTEM_USER",
    "SYSTEM_VARIABLES_ADMIN",
    "TRANSACTION_GTID_TAG",
    "TRIGGER",
    "UPDATE",
    "XA_RECOVER_ADMIN",
];

/// What the account may not do and must, for the restore itself or to hand it on.
pub(super) fn missing(state: &ServerState, wishes: &Wishes<'_>) -> Vec<Reason> {
    let privileges = &state.privileges;
    // Whoever has SUPER and may grant hands on dynamic privileges without having them; their names
    // have an underscore.
    let any_dynamic = privileges.has("SUPER");
    let handed_on = wishes
        .handed_on
        .iter()
        .filter(|name| !(any_dynamic && name.contains('_')));
    let needed = CORE.iter().copied().chain(handed_on.map(String::as_str));
    let missing: BTreeSet<&str> = needed
        .filter(|name| state.known_privileges.contains(*name) && !privileges.has(name))
        .collect();
    let mut lacks: Vec<String> = Vec::new();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.into_iter().collect();
        lacks.push(format!("{} ON *.*", names.join(", ")));
    }
    if !privileges.may_grant() {
        lacks.push("GRANT OPTION ON *.*".to_owned());
    }
    if !privileges.may_grant_proxy() {
        lacks.push("PROXY ON ''@'' WITH GRANT OPTION".to_owned());
    }
    let revoked: BTreeSet<&str> = CORE
        .iter()
        .flat_map(|name| privileges.revoked_on(name))
        .collect();
    if !revoked.is_empty() {
        let schemas: Vec<&str> = revoked.into_iter().collect();
        lacks.push(format!("what was revoked ON {}", schemas.join(", ")));
    }
    let asleep: Vec<&str> = privileges.roles_asleep().collect();
    let remedy = match asleep.is_empty() {
        true => {
            "GRANT what is missing; quillback grants --for restore prints all that is needed, with \
             the reasons"
                .to_owned()
        }
        false => format!(
            "SET DEFAULT ROLE ALL TO that account (it has the roles {}); quillback grants --for \
             restore prints all that is needed, with the reasons",
            asleep.join(", ")
        ),
    };
    lacks
        .into_iter()
        .map(|what| Reason {
            what: format!("its account {} lacks {what}", privileges.account()),
            remedy: remedy.clone(),
            class: Class::Authentication,
        })
        .collect()
}
