//! Accounts, roles and their grants, with the password hashes as the server stores them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::order::topological;
use super::{optional, shown};

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
    /// The password that still works beside the present one, of which [`Account::create`] does not
    /// tell.
    pub second_password: Option<SecondPassword>,
    /// Passwords that it may not have again for some time.
    pub used_passwords: Vec<UsedPassword>,
}

/// The older of an account's two passwords (RETAIN CURRENT PASSWORD), and what is needed to put
/// it there again.
#[derive(Clone, PartialEq, Eq)]
pub struct SecondPassword {
    /// The plugin of both.
    pub plugin: String,
    /// The hash of the older one.
    pub older: Vec<u8>,
    /// The hash of the present one.
    pub present: Vec<u8>,
}

/// A row of `mysql.password_history`.
#[derive(Clone, PartialEq, Eq)]
pub struct UsedPassword {
    /// When it was set, as the server prints it, in UTC.
    pub set: String,
    /// Its hash; accounts without a password have none.
    pub hash: Option<String>,
}

impl fmt::Debug for SecondPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondPassword")
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UsedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsedPassword")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
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
    let certificates = certificates(session).await?;
    let mut second = second_passwords(session).await?;
    let mut used = used_passwords(session).await?;
    let mut accounts = Vec::with_capacity(names.len());
    for (user, host) in names {
        let quoted = quote::account(&user, &host);
        let create: Option<Vec<u8>> = session
            .query_one(format!("SHOW CREATE USER {quoted}"))
            .await
            .map_err(|error| error.of(format!("user {quoted}")))?;
        let grants: Vec<Vec<u8>> = session
            .query(format!("SHOW GRANTS FOR {quoted}"))
            .await
            .map_err(|error| error.of(format!("the grants of {quoted}")))?;
        let key = (user, host);
        let create = match (create, certificates.get(&key)) {
            (Some(create), Some(texts)) => Some(with_escapes(create, texts)),
            (create, _) => create,
        };
        let (second_password, used_passwords) = (second.remove(&key), used.remove(&key));
        let (user, host) = key;
        accounts.push(Account {
            create: shown(create, "account", &quoted)?,
            second_password,
            used_passwords: used_passwords.unwrap_or_default(),
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

type Name = (String, String);

/// What accounts demand of certificates, where that holds a quote or a backslash.
async fn certificates(
    session: &mut Session,
) -> Result<BTreeMap<Name, Vec<(&'static str, Vec<u8>)>>, MysqlError> {
    type Row = (String, String, Vec<u8>, Vec<u8>, Vec<u8>);
    let rows: Vec<Row> = session
        .query(
            "SELECT User, Host, x509_subject, x509_issuer, ssl_cipher FROM mysql.user \
             WHERE CONCAT(x509_subject, x509_issuer, ssl_cipher) LIKE '%\\'%' \
             OR LOCATE('\\\\', CONCAT(x509_subject, x509_issuer, ssl_cipher)) > 0",
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|(user, host, subject, issuer, cipher)| {
            let texts = vec![("SUBJECT", subject), ("ISSUER", issuer), ("CIPHER", cipher)];
            ((user, host), texts)
        })
        .collect())
}

/// SHOW CREATE USER prints these texts without escapes, which is no SQL.
fn with_escapes(create: Vec<u8>, texts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut create = create;
    for (what, text) in texts {
        let printed = [what.as_bytes(), b" '", text, b"'"].concat();
        let Ok(text) = std::str::from_utf8(text) else {
            continue;
        };
        if let Some(at) = memchr::memmem::find(&create, &printed) {
            let escaped = format!("{what} {}", quote::escaped(text));
            create.splice(at..at + printed.len(), escaped.into_bytes());
        }
    }
    create
}

/// SHOW CREATE USER does not tell of them. They came with 8.0.14.
async fn second_passwords(
    session: &mut Session,
) -> Result<BTreeMap<Name, SecondPassword>, MysqlError> {
    type Row = (String, String, String, Vec<u8>, Option<Vec<u8>>);
    let rows = session
        .query::<Row>(
            "SELECT User, Host, plugin, authentication_string, \
             User_attributes->>'$.additional_password' FROM mysql.user \
             WHERE User_attributes->>'$.additional_password' IS NOT NULL",
        )
        .await;
    Ok(optional(rows)?
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(user, host, plugin, present, older)| {
            let second = SecondPassword {
                plugin,
                older: older?,
                present,
            };
            Some(((user, host), second))
        })
        .collect())
}

async fn used_passwords(
    session: &mut Session,
) -> Result<BTreeMap<Name, Vec<UsedPassword>>, MysqlError> {
    let rows: Vec<(String, String, String, Option<String>)> = session
        .query(
            "SELECT User, Host, CAST(Password_timestamp AS CHAR), Password \
             FROM mysql.password_history ORDER BY User, Host, Password_timestamp",
        )
        .await?;
    let mut used: BTreeMap<Name, Vec<UsedPassword>> = BTreeMap::new();
    for (user, host, set, hash) in rows {
        used.entry((user, host))
            .or_default()
            .push(UsedPassword { set, hash });
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_certificate_must_hold_is_escaped() {
        let create =
            b"CREATE USER `u`@`%` REQUIRE SUBJECT '/CN=it's' ISSUER 'plain' PASSWORD".to_vec();
        let texts = [
            ("SUBJECT", b"/CN=it's".to_vec()),
            ("ISSUER", b"plain".to_vec()),
        ];
        assert_eq!(
            with_escapes(create, &texts),
            b"CREATE USER `u`@`%` REQUIRE SUBJECT '/CN=it''s' ISSUER 'plain' PASSWORD"
        );
    }
}
