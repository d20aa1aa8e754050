//! Marks: named restore points.
//!
//! A mark is a GTID set with a name, put if absent under that name and never changed. It says
//! which state is meant, and holds nothing of it: whether that state can be restored, snapshots
//! and log tell, as for every other set.

pub mod make;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::layout::BranchNumber;
use crate::gtid::GtidSet;

/// A mark's name is at most this long.
const NAME_LENGTH: usize = 64;
/// A note is at most this long, in bytes.
pub const NOTE_LENGTH: usize = 1_000;

/// The name of a mark: a letter or digit, then up to 63 letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MarkName(String);

/// The text is no mark's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a mark: it begins with a letter or digit and has up to 64 of letters, \
     digits, '.', '_' and '-'"
)]
pub struct NotAMarkName(String);

impl MarkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MarkName {
    type Err = NotAMarkName;

    fn from_str(text: &str) -> Result<Self, NotAMarkName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
        let valid = text.len() <= NAME_LENGTH
            && text.bytes().next().is_some_and(is_plain)
            && text
                .bytes()
                .all(|byte| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAMarkName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for MarkName {
    type Error = NotAMarkName;

    fn try_from(text: String) -> Result<Self, NotAMarkName> {
        text.parse()
    }
}

impl From<MarkName> for String {
    fn from(name: MarkName) -> Self {
        name.0
    }
}

impl fmt::Display for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The server that a mark was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkServer {
    /// `server_uuid`.
    pub uuid: Uuid,
    /// Where it was reached, as `host:port`.
    pub address: String,
    /// Its version.
    pub version: String,
}

/// `marks/NAME.json`: a named restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub name: MarkName,
    /// `gtid_executed` of the server: the state that is meant, no more and no less.
    pub gtid_executed: GtidSet,
    /// The history that it belongs to.
    pub branch: BranchNumber,
    /// When that was read, by the server's clock.
    #[serde(with = "crate::clock::micros")]
    pub time: DateTime<Utc>,
    /// The server.
    pub server: MarkServer,
    /// Why it was made; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When it was put, by the clock of whoever made it.
    #[serde(with = "crate::clock::micros")]
    pub created: DateTime<Utc>,
    /// The version of the program that made it.
    pub quillback: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout;
    use crate::storage::is_valid_key;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_one_part_of_a_key() {
        for good in ["before-deploy", "v1.2.3", "A_b", "7", &"x".repeat(64)] {
            let name: MarkName = good.parse().expect("a name");
            assert_eq!(layout::parse_mark(&layout::mark(&name)), Some(name));
        }
        let long = "x".repeat(65);
        for wrong in [
            "", ".", "..", "-x", ".json", "a/b", "a b", "a%2F", "ä", "a\n", &long,
        ] {
            assert!(wrong.parse::<MarkName>().is_err(), "{wrong:?}");
        }
        assert_eq!(layout::parse_mark("marks/a/b.json"), None);
        assert_eq!(layout::parse_mark("marks/a"), None);
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_folder(text in "\\PC{0,70}") {
            if let Ok(name) = text.parse::<MarkName>() {
                let key = layout::mark(&name);
                prop_assert!(is_valid_key(&key), "{}", key);
                prop_assert_eq!(key.matches('/').count(), 1);
            }
        }
    }
}
