//! Accounts, roles and their grants, with the password hashes as the server stores them.

use std::collections::{BTreeMap, BTreeSet};

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::order::topological;
use super::shown;

/// The server's own accounts, which every server has from its start.
const SYSTEM_ACCOUNTS: [&str; 3] = ["mysql.sys", "mysql.session", "mysql.infoschema"];

/// An account or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user part.
    pub user: String,
    /// The host part.
    pub host: String,
    /// `CREATE USER ...`, the password's hash in hexadecimal.
    pub create: Vec<u8>,
    /// `GRANT ...` and, with partial revokes, `REVOKE ...`, in the server's order.
    pub grants: Vec<Vec<u8>>,
}

impl Account {
    /// `` `user`@`host` ``, as statements name it.
    #[must_use]
    pub fn quoted(&self) -> String {
        quote::account(&self.user, &self.host)
    }
}

/// All accounts besides the server's own. CREATE USER with a DEFAULT ROLE needs the role, so each
/// role stands before the accounts that have it by default.
pub(super) async fn load(session: &mut Session) -> Result<Vec<Account>, MysqlError> {
    let names: Vec<(String, String)> = session
        .query(format!(
            "SELECT User, Host FROM mysql.user WHERE User NOT IN ({}) \
             ORDER BY BINARY User, BINARY Host",
            SYSTEM_ACCOUNTS.map(quote::string).join(", ")
        ))
        .await?;
    let mut accounts = Vec::with_capacity(names.len());
    for (user, host) in names {
        let quoted = quote::account(&user, &host);
        let create: Option<Vec<u8>> = session
            .query_one(format!("SHOW CREATE USER {quoted}"))
            .await?;
        let grants: Vec<Vec<u8>> = session.query(format!("SHOW GRANTS FOR {quoted}")).await?;
        accounts.push(Account {
            create: shown(create, "account", &quoted)?,
            user,
            host,
            grants,
        });
    }
    type Row = (String, String, String, String);
    let defaults: Vec<Row> = session
        .query("SELECT USER, HOST, DEFAULT_ROLE_USER, DEFAULT_ROLE_HOST FROM mysql.default_roles")
        .await?;
    let mut needs: BTreeMap<(String, String), BTreeSet<(String, String)>> = BTreeMap::new();
    for (user, host, role, role_host) in defaults {
        needs
            .entry((user, host))
            .or_default()
            .insert((role, role_host));
    }
    let key = |account: &Account| (account.user.clone(), account.host.clone());
    Ok(topological(accounts, key, &needs))
}
