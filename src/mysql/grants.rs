//! Which global privileges a session has.
//!
//! Only `ON *.*` counts: with less, the server leaves objects out of its lists without saying so,
//! and a snapshot would be short in silence.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::MysqlError;
use super::session::Session;

/// The global privileges of an account with its active roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalPrivileges(BTreeSet<String>);

impl GlobalPrivileges {
    /// Asks the server for the session's own privileges.
    ///
    /// # Errors
    ///
    /// What the question fails with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        let grants: Vec<String> = session.query("SHOW GRANTS").await?;
        Ok(Self::parse(grants.iter().map(String::as_str)))
    }

    /// Reads the lines of SHOW GRANTS.
    #[must_use]
    pub fn parse<'a>(grants: impl Iterator<Item = &'a str>) -> Self {
        let names = grants
            .filter_map(|grant| grant.strip_prefix("GRANT ")?.split_once(" ON *.* TO "))
            .flat_map(|(list, _)| list.split(','))
            .map(|name| name.trim().to_ascii_uppercase());
        Self(names.collect())
    }

    /// Whether a privilege is there, by the name that GRANT uses.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name) || self.0.contains("ALL PRIVILEGES")
    }

    /// Those of `names` that are not there.
    #[must_use]
    pub fn missing<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names
            .iter()
            .copied()
            .filter(|name| !self.has(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_privileges_count() {
        let grants = GlobalPrivileges::parse(
            [
                "GRANT SELECT, SHOW VIEW ON *.* TO `b`@`%`",
                "GRANT BACKUP_ADMIN,XA_RECOVER_ADMIN ON *.* TO `b`@`%` WITH GRANT OPTION",
                "GRANT TRIGGER ON `shop`.* TO `b`@`%`",
                "GRANT `role`@`%` TO `b`@`%`",
            ]
            .into_iter(),
        );
        assert!(grants.has("SELECT") && grants.has("SHOW VIEW") && !grants.has("TRIGGER"));
        assert!(grants.has("BACKUP_ADMIN") && grants.has("XA_RECOVER_ADMIN"));
        assert_eq!(grants.missing(&["SELECT", "EVENT"]), ["EVENT"]);
        let root =
            GlobalPrivileges::parse(["GRANT ALL PRIVILEGES ON *.* TO `root`@`%`"].into_iter());
        assert!(root.has("RELOAD"));
    }
}
