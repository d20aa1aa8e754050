//! Objects of users in the server's own schemas, which no snapshot holds: they are named, so that
//! nobody believes that they are safe.

use crate::mysql::error::MysqlError;
use crate::mysql::session::Session;

use super::optional;

/// The tables of the schema `mysql` that the server makes (MySQL manual, "The mysql System
/// Schema"), without those of a family in [`FAMILIES`].
const OWN_TABLES: [&str; 19] = [
    "columns_priv",
    "component",
    "db",
    "default_roles",
    "engine_cost",
    "func",
    "general_log",
    "global_grants",
    "gtid_executed",
    "password_history",
    "plugin",
    "procs_priv",
    "proxies_priv",
    "role_edges",
    "server_cost",
    "servers",
    "slow_log",
    "tables_priv",
    "user",
];

/// What the names of the server's other tables begin with.
const FAMILIES: [&str; 9] = [
    "audit_log_",
    "firewall_",
    "help_",
    "innodb_",
    "masking_",
    "ndb_",
    "replication_",
    "slave_",
    "time_zone",
];

/// Who made what is in `sys`.
const OWN_DEFINERS: [&str; 3] = [
    "mysql.sys@localhost",
    "mysql.session@localhost",
    "mysql.infoschema@localhost",
];

fn is_own(schema: &str, table: &str) -> bool {
    let (schema, table) = (schema.to_ascii_lowercase(), table.to_ascii_lowercase());
    match schema.as_str() {
        "sys" => table == "sys_config",
        _ => {
            OWN_TABLES.contains(&table.as_str())
                || FAMILIES.iter().any(|family| table.starts_with(family))
        }
    }
}

/// A sentence for each thing that is there and in no snapshot.
pub(super) async fn load(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    let mut strangers = Vec::new();
    let tables: Vec<(String, String)> = session
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
             WHERE LOWER(TABLE_SCHEMA) IN ('mysql', 'sys') AND TABLE_TYPE = 'BASE TABLE' \
             ORDER BY TABLE_SCHEMA, TABLE_NAME",
        )
        .await?;
    strangers.extend(
        tables
            .into_iter()
            .filter(|(schema, table)| !is_own(schema, table))
            .map(|(schema, table)| format!("table {schema}.{table}")),
    );
    for (what, question) in [
        (
            "view",
            "SELECT TABLE_SCHEMA, TABLE_NAME, DEFINER FROM information_schema.VIEWS \
             WHERE LOWER(TABLE_SCHEMA) IN ('mysql', 'sys')",
        ),
        (
            "routine",
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, DEFINER FROM information_schema.ROUTINES \
             WHERE LOWER(ROUTINE_SCHEMA) IN ('mysql', 'sys')",
        ),
        (
            "trigger",
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, DEFINER FROM information_schema.TRIGGERS \
             WHERE LOWER(TRIGGER_SCHEMA) IN ('mysql', 'sys')",
        ),
        (
            "event",
            "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER FROM information_schema.EVENTS \
             WHERE LOWER(EVENT_SCHEMA) IN ('mysql', 'sys')",
        ),
    ] {
        let rows: Vec<(String, String, String)> = session.query(question).await?;
        strangers.extend(
            rows.into_iter()
                .filter(|(_, _, definer)| !OWN_DEFINERS.contains(&definer.as_str()))
                .map(|(schema, name, _)| format!("{what} {schema}.{name}")),
        );
    }
    let mut sentences: Vec<String> = strangers
        .into_iter()
        .map(|what| format!("{what} is in a schema of the server's own, which is not dumped"))
        .collect();
    sentences.extend(settings(session).await?);
    Ok(sentences)
}

/// Settings that users keep in tables of the server's own.
async fn settings(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    let mut sentences = Vec::new();
    for (what, question) in [
        (
            "sys.sys_config",
            "SELECT variable FROM sys.sys_config WHERE set_by IS NOT NULL ORDER BY variable",
        ),
        (
            "mysql.server_cost",
            "SELECT cost_name FROM mysql.server_cost WHERE cost_value IS NOT NULL ORDER BY cost_name",
        ),
        (
            "mysql.engine_cost",
            "SELECT cost_name FROM mysql.engine_cost WHERE cost_value IS NOT NULL ORDER BY cost_name",
        ),
    ] {
        let names: Vec<String> = optional(session.query(question).await)?.unwrap_or_default();
        if !names.is_empty() {
            sentences.push(format!(
                "what was set in {what} is not dumped: {}",
                names.join(", ")
            ));
        }
    }
    Ok(sentences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_tables_are_known() {
        for (schema, table) in [
            ("mysql", "user"),
            ("mysql", "time_zone"),
            ("mysql", "innodb_index_stats"),
            ("MYSQL", "slave_master_info"),
            ("sys", "sys_config"),
        ] {
            assert!(is_own(schema, table), "{schema}.{table}");
        }
        for (schema, table) in [("mysql", "heartbeat"), ("sys", "user"), ("mysql", "users")] {
            assert!(!is_own(schema, table), "{schema}.{table}");
        }
    }
}
