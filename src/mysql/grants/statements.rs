//! The needs as SQL that an administrator can run.

use std::fmt;
use std::str::FromStr;

use super::needs::{Need, Purpose, Scope, needs};
use crate::mysql::quote;
use crate::mysql::version::ServerVersion;

/// `IDENTIFIED BY RANDOM PASSWORD` came with 8.0.18.
const RANDOM_PASSWORD: (u16, u16, u16) = (8, 0, 18);

/// The name of an account, `user@host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountName {
    user: String,
    host: String,
}

/// The text names no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no account: {reason}")]
pub struct AccountNameError {
    text: String,
    reason: &'static str,
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    /// Reads `user@host`; without a host it is `%`. Quotes are not part of it.
    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        let reason = if user.is_empty() {
            "the user is empty"
        } else if host.is_empty() {
            "the host is empty (% stands for any)"
        } else if user.chars().count() > 32 {
            "a user has at most 32 characters"
        } else if host.chars().count() > 255 {
            "a host has at most 255 characters"
        } else if text.contains(['\'', '"', '`']) {
            "it is written without quotes, as backup@10.0.0.%"
        } else if text.chars().any(char::is_control) {
            "it holds a control character"
        } else {
            return Ok(Self {
                user: user.to_owned(),
                host: host.to_owned(),
            });
        };
        Err(AccountNameError {
            text: text.to_owned(),
            reason,
        })
    }
}

/// As statements name it.
impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::account(&self.user, &self.host))
    }
}

/// A GRANT with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The statement, without a semicolon.
    pub sql: String,
    /// The commands that need it, each with its need.
    pub needs: Vec<(Purpose, Need)>,
}

impl Grant {
    /// Whether some command ends without it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.needs.iter().any(|(_, need)| need.is_required())
    }
}

/// The statements that make an account for some commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statements {
    /// Makes the account, unless it is there. The server invents and shows the password; where it
    /// cannot, this is no valid statement until a person has put one in.
    pub create: String,
    /// One for each privilege, what is required first.
    pub grants: Vec<Grant>,
}

impl Statements {
    /// Writes them for a server of this version.
    #[must_use]
    pub fn compute(account: &AccountName, purposes: &[Purpose], version: &ServerVersion) -> Self {
        let (major, minor, patch) = RANDOM_PASSWORD;
        let password = if version.at_least(major, minor, patch) {
            "RANDOM PASSWORD"
        } else {
            "<put a password here>"
        };
        let mut grants: Vec<Grant> = Vec::new();
        for purpose in purposes {
            for need in needs(*purpose) {
                let Some(name) = need.name_on(version) else {
                    continue;
                };
                let option = if need.grant_option {
                    " WITH GRANT OPTION"
                } else {
                    ""
                };
                let on = match need.on {
                    on @ (Scope::Everything | Scope::EveryAccount) => on.to_string(),
                    Scope::Table(name) => quoted(name),
                };
                let sql = format!("GRANT {name} ON {on} TO {account}{option}");
                match grants.iter_mut().find(|grant| grant.sql == sql) {
                    Some(grant) => grant.needs.push((*purpose, *need)),
                    None => grants.push(Grant {
                        sql,
                        needs: vec![(*purpose, *need)],
                    }),
                }
            }
        }
        grants.sort_by_key(|grant| !grant.is_required());
        Self {
            create: format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password}"),
            grants,
        }
    }

    /// The statements alone, in their order.
    pub fn sql(&self) -> impl Iterator<Item = &str> {
        let grants = self.grants.iter().map(|grant| grant.sql.as_str());
        std::iter::once(self.create.as_str()).chain(grants)
    }
}

fn quoted(table: &str) -> String {
    match table.split_once('.') {
        Some((schema, name)) => quote::qualified(schema, name),
        None => quote::identifier(table),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AccountName {
        text.parse().expect("a name")
    }

    fn version(text: &str) -> ServerVersion {
        ServerVersion::parse(text).expect("a version")
    }

    #[test]
    fn accounts_are_named_without_quotes() {
        assert_eq!(name("backup").to_string(), "`backup`@`%`");
        assert_eq!(name("b@10.0.0.%").to_string(), "`b`@`10.0.0.%`");
        assert_eq!(name("a@b@h").to_string(), "`a@b`@`h`");
        for bad in ["", "@h", "b@", "'b'@'%'", "a\nb", &"x".repeat(33)] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn two_commands_share_what_both_need() {
        let account = name("b");
        let both = [Purpose::Snapshot, Purpose::Stream];
        let statements = Statements::compute(&account, &both, &version("9.7.0"));
        let sql: Vec<&str> = statements.sql().collect();
        assert_eq!(
            sql[0],
            "CREATE USER IF NOT EXISTS `b`@`%` IDENTIFIED BY RANDOM PASSWORD"
        );
        let slave = "GRANT REPLICATION SLAVE ON *.* TO `b`@`%`";
        let grant = statements
            .grants
            .iter()
            .find(|grant| grant.sql == slave)
            .expect("it is granted");
        assert_eq!(grant.needs.len(), 2);
        assert!(grant.is_required(), "the stream ends without it");
        let first_optional = statements
            .grants
            .iter()
            .position(|grant| !grant.is_required())
            .expect("some are optional");
        let later = &statements.grants[first_optional..];
        assert!(later.iter().all(|grant| !grant.is_required()));
        let old = Statements::compute(&account, &both, &version("8.0.17"));
        assert!(old.create.ends_with("<put a password here>"));
        assert!(old.sql().any(|sql| sql == "GRANT RELOAD ON *.* TO `b`@`%`"));
    }
}
