//! A server's version, and what differs between versions.
//!
//! MySQL from 8.0 on is taken; MariaDB, which speaks the same protocol but has other GTIDs, is
//! refused by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::MysqlError;

/// A version as the server tells it, parsed for comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerVersion {
    major: u16,
    minor: u16,
    patch: u16,
    text: String,
}

impl ServerVersion {
    /// Parses `@@version`, such as `8.0.43`, `8.4.6-log` or `9.5.0-commercial`.
    ///
    /// # Errors
    ///
    /// [`MysqlError::Unsupported`] for MariaDB, for servers older than 8.0 and for what is no
    /// version.
    pub fn parse(text: &str) -> Result<Self, MysqlError> {
        if text.to_ascii_lowercase().contains("mariadb") {
            return Err(unsupported(format!(
                "{text} is MariaDB, whose GTIDs and binlog are not MySQL's"
            )));
        }
        let numbers = text.split(['-', '+', ' ']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| part.parse::<u16>().ok());
        let (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(unsupported(format!("{text:?} is no version of MySQL")));
        };
        if major < 8 {
            return Err(unsupported(format!("MySQL {text} is older than 8.0")));
        }
        Ok(Self {
            major,
            minor,
            patch,
            text: text.to_owned(),
        })
    }

    /// Whether this version is the given one or a later one.
    #[must_use]
    pub fn at_least(&self, major: u16, minor: u16, patch: u16) -> bool {
        self.triple() >= (major, minor, patch)
    }

    /// Major, minor and patch number.
    #[must_use]
    pub const fn triple(&self) -> (u16, u16, u16) {
        (self.major, self.minor, self.patch)
    }

    /// The statement that tells the binlog's end.
    #[must_use]
    pub fn binlog_status_statement(&self) -> &'static str {
        if self.at_least(8, 2, 0) {
            "SHOW BINARY LOG STATUS"
        } else {
            "SHOW MASTER STATUS"
        }
    }

    /// The statement that empties the binlog and `gtid_executed`.
    #[must_use]
    pub fn reset_binlogs_statement(&self) -> &'static str {
        if self.at_least(8, 2, 0) {
            "RESET BINARY LOGS AND GTIDS"
        } else {
            "RESET MASTER"
        }
    }

    /// The statement that tells of the channels by which a server replicates.
    #[must_use]
    pub fn replica_status_statement(&self) -> &'static str {
        if self.at_least(8, 0, 22) {
            "SHOW REPLICA STATUS"
        } else {
            "SHOW SLAVE STATUS"
        }
    }

    /// The statement that lists a source's replicas.
    #[must_use]
    pub fn show_replicas_statement(&self) -> &'static str {
        if self.at_least(8, 0, 22) {
            "SHOW REPLICAS"
        } else {
            "SHOW SLAVE HOSTS"
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ServerVersion {
    type Error = MysqlError;

    fn try_from(text: String) -> Result<Self, MysqlError> {
        Self::parse(&text)
    }
}

impl From<ServerVersion> for String {
    fn from(version: ServerVersion) -> Self {
        version.text
    }
}

fn unsupported(reason: String) -> MysqlError {
    MysqlError::Unsupported { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_and_compared() {
        for (text, triple) in [
            ("8.0.43", (8, 0, 43)),
            ("8.4.6-log", (8, 4, 6)),
            ("9.5.0-commercial", (9, 5, 0)),
            ("8.0.36-28", (8, 0, 36)),
            ("8.0.36-28.1+deb12", (8, 0, 36)),
        ] {
            let version = ServerVersion::parse(text).expect(text);
            assert_eq!(version.triple(), triple);
            assert_eq!(version.to_string(), text);
        }
        let version = ServerVersion::parse("8.4.0").expect("good");
        assert!(version.at_least(8, 2, 9) && !version.at_least(8, 4, 1));
        assert_eq!(version.binlog_status_statement(), "SHOW BINARY LOG STATUS");
        let older = ServerVersion::parse("8.0.43").expect("good");
        assert_eq!(older.reset_binlogs_statement(), "RESET MASTER");
    }

    #[test]
    fn other_servers_are_refused_by_name() {
        for (text, reason) in [
            ("10.11.6-MariaDB-1:10.11.6+maria~ubu2204", "MariaDB"),
            ("5.5.5-10.5.8-MariaDB", "MariaDB"),
            ("5.7.44-log", "older than 8.0"),
            ("PostgreSQL 16", "no version"),
            ("8.0", "no version"),
        ] {
            let error = ServerVersion::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
