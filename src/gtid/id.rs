//! One transaction's name: [`Gtid`], its origin [`Tsid`], and the origin's [`Tag`].
//!
//! `Tsid` is MySQL's own word (`libs/mysql/gtids/tsid.h`) for a server's or group's UUID together
//! with an optional tag; each has its own sequence of transaction numbers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::GtidError;
use super::text::Scanner;

/// The greatest transaction number, one below `GNO_END` (`sql/rpl_gtid.h`).
pub const MAX_GNO: u64 = i64::MAX as u64 - 1;

/// A GTID tag (MySQL 8.3 and later), always lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag, in characters.
    pub const MAX_LENGTH: usize = 32;

    /// The tag of this text, lower-cased as MySQL does.
    ///
    /// # Errors
    ///
    /// [`GtidError::Tag`] if it is not `[a-z_][a-z0-9_]{0,31}` in any case.
    pub fn new(text: &str) -> Result<Self, GtidError> {
        let start = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let bytes = text.as_bytes();
        let valid = bytes.len() <= Self::MAX_LENGTH
            && bytes.first().is_some_and(|&b| start(b))
            && bytes.iter().all(|&b| start(b) || b.is_ascii_digit());
        if valid {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(GtidError::Tag {
                tag: text.chars().take(80).collect(),
            })
        }
    }

    /// The tag's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The origin of transactions: a UUID (a server's or a group's) and perhaps a tag.
///
/// The order is MySQL's: by the UUID's bytes, the untagged one first, then by tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tsid {
    /// The `server_uuid` or the group's name or `view_change_uuid`.
    pub uuid: Uuid,
    /// The tag, if there is one.
    pub tag: Option<Tag>,
}

impl Tsid {
    /// An origin.
    #[must_use]
    pub const fn new(uuid: Uuid, tag: Option<Tag>) -> Self {
        Self { uuid, tag }
    }

    /// An origin without a tag.
    #[must_use]
    pub const fn untagged(uuid: Uuid) -> Self {
        Self { uuid, tag: None }
    }
}

impl From<Uuid> for Tsid {
    fn from(uuid: Uuid) -> Self {
        Self::untagged(uuid)
    }
}

/// The identifier of one transaction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// Where the transaction came from.
    pub tsid: Tsid,
    /// Its number there, 1 to [`MAX_GNO`]; another number is in no set.
    pub gno: u64,
}

impl Gtid {
    /// The identifier of the transaction `gno` of `tsid`.
    ///
    /// # Errors
    ///
    /// [`GtidError::Gno`] if the number is not 1 to [`MAX_GNO`].
    pub fn new(tsid: Tsid, gno: u64) -> Result<Self, GtidError> {
        if (1..=MAX_GNO).contains(&gno) {
            Ok(Self { tsid, gno })
        } else {
            Err(GtidError::Gno { gno })
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            None => write!(f, "{}", self.uuid),
            Some(tag) => write!(f, "{}:{tag}", self.uuid),
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tsid, self.gno)
    }
}

impl FromStr for Tag {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        Self::new(text.trim_ascii())
    }
}

impl FromStr for Tsid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut scanner = Scanner::new(text);
        let uuid = scanner.uuid()?;
        let tag = if scanner.take(b':') {
            Some(scanner.tag()?.ok_or_else(|| scanner.expected("a tag"))?)
        } else {
            None
        };
        scanner.end()?;
        Ok(Self { uuid, tag })
    }
}

impl FromStr for Gtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut scanner = Scanner::new(text);
        let uuid = scanner.uuid()?;
        scanner.require(b':', "a colon")?;
        let tag = scanner.tag()?;
        if tag.is_some() {
            scanner.require(b':', "a colon")?;
        }
        let gno = scanner.positive_gno()?;
        scanner.end()?;
        Ok(Self {
            tsid: Tsid { uuid, tag },
            gno,
        })
    }
}

/// Gives a type with `Display` and `FromStr` a readable `Debug` and serde as a string.
macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({:#})"), self)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(super) use as_text;

as_text!(Tag);
as_text!(Tsid);
as_text!(Gtid);
