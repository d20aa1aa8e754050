//! What a snapshot tells of its server and a restore does not make again: settings, plugins,
//! components, undo tablespaces.
//!
//! It is what somebody needs who sets up the server anew. Values that could be secrets are left
//! out, by the variable's name.

use serde::{Deserialize, Serialize};

use crate::mysql::error::MysqlError;
use crate::mysql::session::Session;

use super::optional;

/// What is told of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Information {
    /// Components that are installed, as URNs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Plugins that are not built in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
    /// Variables whose value is not the one compiled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
    /// What SET PERSIST has stored, whether it is in force or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persisted_variables: Vec<PersistedVariable>,
    /// Undo tablespaces that users made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo_tablespaces: Vec<String>,
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// The file that it is in.
    pub library: String,
    /// `ACTIVE`, `DISABLED`, ...
    pub status: String,
}

/// A global variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; left out if its name says that it is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it comes from, such as `GLOBAL` (a configuration file), `COMMAND_LINE`, `PERSISTED` or
    /// `DYNAMIC` (a SET).
    pub source: String,
}

/// A variable that SET PERSIST stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedVariable {
    /// Its name.
    pub name: String,
    /// Its value; left out if its name says that it is a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Parts of the names of variables whose values are secrets.
const SECRET: [&str; 7] = [
    "password",
    "passwd",
    "_pwd",
    "secret",
    "token",
    "credential",
    "passphrase",
];

fn without_secret(name: &str, value: Option<String>) -> Option<String> {
    let name = name.to_ascii_lowercase();
    value.filter(|_| !SECRET.iter().any(|part| name.contains(part)))
}

/// Reads it.
pub(super) async fn load(session: &mut Session) -> Result<Information, MysqlError> {
    let components = session
        .query("SELECT component_urn FROM mysql.component ORDER BY component_id")
        .await?;
    let plugins: Vec<(String, String, String)> = session
        .query(
            "SELECT PLUGIN_NAME, PLUGIN_LIBRARY, PLUGIN_STATUS FROM information_schema.PLUGINS \
             WHERE PLUGIN_LIBRARY IS NOT NULL ORDER BY PLUGIN_NAME",
        )
        .await?;
    let variables: Vec<(String, Option<String>, String)> = session
        .query(
            "SELECT i.VARIABLE_NAME, v.VARIABLE_VALUE, i.VARIABLE_SOURCE \
             FROM performance_schema.variables_info i \
             LEFT JOIN performance_schema.global_variables v USING (VARIABLE_NAME) \
             WHERE i.VARIABLE_SOURCE <> 'COMPILED' ORDER BY i.VARIABLE_NAME",
        )
        .await?;
    let persisted: Vec<(String, Option<String>)> = session
        .query(
            "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.persisted_variables \
             ORDER BY VARIABLE_NAME",
        )
        .await?;
    Ok(Information {
        components,
        plugins: plugins
            .into_iter()
            .map(|(name, library, status)| Plugin {
                name,
                library,
                status,
            })
            .collect(),
        variables: variables
            .into_iter()
            .map(|(name, value, source)| Variable {
                value: without_secret(&name, value),
                name,
                source,
            })
            .collect(),
        persisted_variables: persisted
            .into_iter()
            .map(|(name, value)| PersistedVariable {
                value: without_secret(&name, value),
                name,
            })
            .collect(),
        undo_tablespaces: undo_tablespaces(session).await?,
    })
}

async fn undo_tablespaces(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    let names = session
        .query(
            "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'Undo' \
             AND NAME NOT LIKE 'innodb\\_undo\\_0%' ORDER BY NAME",
        )
        .await;
    Ok(optional(names)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_stay_on_the_server() {
        let told = |name: &str| without_secret(name, Some("x".to_owned()));
        for name in [
            "report_password",
            "authentication_ldap_simple_bind_root_pwd",
            "some_SECRET_key",
        ] {
            assert_eq!(told(name), None, "{name}");
        }
        assert_eq!(told("sql_mode"), Some("x".to_owned()));
    }
}
