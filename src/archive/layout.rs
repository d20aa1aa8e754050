//! Every key of the archive: built here, parsed here, and nowhere else.
//!
//! Names are fixed-width so that the order of the keys is the order of what they name. A key is
//! made of typed parts only; what comes from a server (schema and table names) is percent-encoded
//! first, so no name can leave its folder.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use super::marks::MarkName;

/// The archive's identity and format version.
pub const IDENTITY: &str = "quillback.json";
/// The folder of histories.
pub const BRANCHES: &str = "branches/";
/// The folder of claims.
pub const EPOCHS: &str = "epochs/";
/// The folder of snapshots.
pub const SNAPSHOTS: &str = "snapshots/";
/// The folder of marks.
pub const MARKS: &str = "marks/";
/// The folder of what restores have done.
pub const RESTORES: &str = "restores/";
/// Where the reports of reseeds are, and the lists of what servers held that were wiped.
pub const RESEEDS: &str = "reseeds/";

const SEGMENT_SUFFIX: &str = ".binlog.zst";
const JSON_SUFFIX: &str = ".json";
/// The folder of records within a snapshot's.
const PROGRESS: &str = "progress/";
/// `20261120T020000Z`.
const SNAPSHOT_TIME: &str = "%Y%m%dT%H%M%SZ";

/// The number of a history; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BranchNumber(pub u32);

/// The number of a claim; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for BranchNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The key of a history.
#[must_use]
pub fn branch(number: BranchNumber) -> String {
    format!("{BRANCHES}{:04}{JSON_SUFFIX}", number.0)
}

/// The number in a history's key.
#[must_use]
pub fn parse_branch(key: &str) -> Option<BranchNumber> {
    let digits = key.strip_prefix(BRANCHES)?.strip_suffix(JSON_SUFFIX)?;
    Some(BranchNumber(number(digits, 4)?.try_into().ok()?))
}

/// The key of a claim.
#[must_use]
pub fn epoch(number: Epoch) -> String {
    format!("{EPOCHS}{:08}{JSON_SUFFIX}", number.0)
}

/// The number in a claim's key.
#[must_use]
pub fn parse_epoch(key: &str) -> Option<Epoch> {
    let digits = key.strip_prefix(EPOCHS)?.strip_suffix(JSON_SUFFIX)?;
    number(digits, 8).map(Epoch)
}

/// The folder of a history's segments.
#[must_use]
pub fn log(branch: BranchNumber) -> String {
    format!("log/{:04}/", branch.0)
}

/// What the keys of a history's segments start with that were written under one claim.
#[must_use]
pub fn log_of_epoch(branch: BranchNumber, epoch: Epoch) -> String {
    format!("{}{:08}-", log(branch), epoch.0)
}

/// The name of a segment: where it stands and the start of its object's SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentName {
    /// The history.
    pub branch: BranchNumber,
    /// The claim under which it was written.
    pub epoch: Epoch,
    /// The first sequence number that it holds; an epoch starts at 1.
    pub first: u64,
    /// The last one; equal to `first` for a fresh segment.
    pub last: u64,
    /// The first eight hexadecimal digits of the object's SHA-256.
    pub hash8: String,
    /// Whether it was made from fresh segments.
    pub compacted: bool,
}

impl SegmentName {
    /// The key.
    #[must_use]
    pub fn key(&self) -> String {
        let mut key = log(self.branch);
        // Writing to a string cannot fail.
        let _ = write!(key, "{:08}-{:012}", self.epoch.0, self.first);
        if self.compacted {
            let _ = write!(key, "-{:012}", self.last);
        }
        let _ = write!(key, "-{}{SEGMENT_SUFFIX}", self.hash8);
        key
    }

    /// Reads a key; `None` if it is not one of a segment.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (branch, name) = key.strip_prefix("log/")?.split_once('/')?;
        let branch = BranchNumber(number(branch, 4)?.try_into().ok()?);
        let mut parts = name.strip_suffix(SEGMENT_SUFFIX)?.split('-');
        let epoch = Epoch(number(parts.next()?, 8)?);
        let first = number(parts.next()?, 12)?;
        let (last, hash8, compacted) = match (parts.next()?, parts.next()) {
            (hash8, None) => (first, hash8, false),
            (last, Some(hash8)) => (number(last, 12)?, hash8, true),
        };
        let is_hash = hash8.len() == 8
            && hash8
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (is_hash && last >= first && parts.next().is_none()).then(|| Self {
            branch,
            epoch,
            first,
            last,
            hash8: hash8.to_owned(),
            compacted,
        })
    }
}

/// The name of a snapshot: when it was taken and eight random digits, `20261120T020000Z-0a1b2c3d`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

impl SnapshotId {
    /// A name for a snapshot that starts at `started`; `random` keeps two of one second apart.
    #[must_use]
    pub fn new(started: DateTime<Utc>, random: u32) -> Self {
        Self(format!("{}-{random:08x}", started.format(SNAPSHOT_TIME)))
    }

    /// When it was begun, in whole seconds.
    #[must_use]
    pub fn started(&self) -> DateTime<Utc> {
        let time = self.0.split('-').next().unwrap_or_default();
        NaiveDateTime::parse_from_str(time, SNAPSHOT_TIME)
            .map_or(DateTime::UNIX_EPOCH, |time| time.and_utc())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no snapshot's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no snapshot id (they look like 20261120T020000Z-0a1b2c3d)")]
pub struct NotASnapshotId(String);

impl FromStr for SnapshotId {
    type Err = NotASnapshotId;

    fn from_str(text: &str) -> Result<Self, NotASnapshotId> {
        let valid = text.split_once('-').is_some_and(|(time, random)| {
            NaiveDateTime::parse_from_str(time, SNAPSHOT_TIME).is_ok()
                && random.len() == 8
                && random
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotASnapshotId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = NotASnapshotId;

    fn try_from(text: String) -> Result<Self, NotASnapshotId> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

/// The folder of a snapshot.
#[must_use]
pub fn snapshot(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}{id}/")
}

/// The key of a snapshot's manifest: the snapshot exists once this object does.
#[must_use]
pub fn snapshot_manifest(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}{id}/manifest.json")
}

/// The snapshot whose manifest has this key.
#[must_use]
pub fn parse_snapshot_manifest(key: &str) -> Option<SnapshotId> {
    key.strip_prefix(SNAPSHOTS)?
        .strip_suffix("/manifest.json")?
        .parse()
        .ok()
}

/// The key of one of a snapshot's DDL files; `name` is encoded.
#[must_use]
pub fn snapshot_schema(id: &SnapshotId, name: &str) -> String {
    format!("{SNAPSHOTS}{id}/schema/{}.sql.zst", encode(name))
}

/// The key of a snapshot's accounts.
#[must_use]
pub fn snapshot_accounts(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}{id}/accounts.sql.zst")
}

/// The key of the `n`th file of a table's rows.
#[must_use]
pub fn snapshot_data(id: &SnapshotId, database: &str, table: &str, n: u64) -> String {
    format!(
        "{SNAPSHOTS}{id}/data/{}/{}/{n:06}.tsv.zst",
        encode(database),
        encode(table)
    )
}

/// The key of the record of the view that a snapshot reads; gone once there is a manifest.
#[must_use]
pub fn snapshot_view(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}{id}/{PROGRESS}view.json")
}

/// The key of the `n`th record of the tables that are done.
#[must_use]
pub fn snapshot_progress(id: &SnapshotId, n: u64) -> String {
    format!("{SNAPSHOTS}{id}/{PROGRESS}{n:06}.json")
}

/// The number in the key of a record of tables that are done.
#[must_use]
pub fn parse_snapshot_progress(key: &str) -> Option<u64> {
    let name = within_snapshot(key)?.1.strip_prefix(PROGRESS)?;
    number(name.strip_suffix(JSON_SUFFIX)?, 6)
}

/// Whether the key is of a record that is of use only while a snapshot is taken.
#[must_use]
pub fn is_snapshot_progress(key: &str) -> bool {
    within_snapshot(key).is_some_and(|(_, name)| name.starts_with(PROGRESS))
}

/// The number of a file of rows.
#[must_use]
pub fn parse_snapshot_data(key: &str) -> Option<u64> {
    let name = within_snapshot(key)?.1.strip_prefix("data/")?;
    let (_, file) = name.rsplit_once('/')?;
    number(file.strip_suffix(".tsv.zst")?, 6)
}

/// The snapshot to which a key belongs.
#[must_use]
pub fn parse_snapshot_key(key: &str) -> Option<SnapshotId> {
    within_snapshot(key).map(|(id, _)| id)
}

fn within_snapshot(key: &str) -> Option<(SnapshotId, &str)> {
    let (id, name) = key.strip_prefix(SNAPSHOTS)?.split_once('/')?;
    Some((id.parse().ok()?, name))
}

/// The key of a mark.
#[must_use]
pub fn mark(name: &MarkName) -> String {
    format!("{MARKS}{name}{JSON_SUFFIX}")
}

/// The name in a mark's key.
#[must_use]
pub fn parse_mark(key: &str) -> Option<MarkName> {
    let name = key.strip_prefix(MARKS)?.strip_suffix(JSON_SUFFIX)?;
    name.parse().ok()
}

/// The key of a restore's report, named like a snapshot.
#[must_use]
pub fn restore(finished: DateTime<Utc>, random: u32) -> String {
    format!(
        "{RESTORES}{}{JSON_SUFFIX}",
        SnapshotId::new(finished, random)
    )
}

/// Whether the key is of a restore's report.
#[must_use]
pub fn is_restore(key: &str) -> bool {
    key.strip_prefix(RESTORES)
        .and_then(|name| name.strip_suffix(JSON_SUFFIX))
        .is_some_and(|name| name.parse::<SnapshotId>().is_ok())
}

/// The key of a reseed's report, named like a snapshot.
#[must_use]
pub fn reseed(finished: DateTime<Utc>, random: u32) -> String {
    format!(
        "{RESEEDS}{}{JSON_SUFFIX}",
        SnapshotId::new(finished, random)
    )
}

/// The key of the list of transactions that a server held when a reseed took them from it.
#[must_use]
pub fn discarded(listed: DateTime<Utc>, random: u32, server: uuid::Uuid) -> String {
    let id = SnapshotId::new(listed, random);
    format!("{RESEEDS}discarded/{id}-{server}{JSON_SUFFIX}")
}

/// Percent-encodes all but ASCII letters, digits, `_` and `-`, so that a server's name is one
/// part of a key. Names that would make the part too long are cut and end in a hash.
#[must_use]
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() > 200 {
        let digest = crate::archive::hash::sha256(name.as_bytes());
        out.truncate(180);
        let _ = write!(out, "~{}", &digest.to_string()[..16]);
    }
    out
}

/// The number as [`SegmentName::key`] and its fellows write it, so that no two keys name one thing.
fn number(digits: &str, width: usize) -> Option<u64> {
    let is_padded = digits.len() == width || digits.len() > width && !digits.starts_with('0');
    (is_padded && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::is_valid_key;
    use proptest::prelude::*;

    fn name(compacted: bool) -> SegmentName {
        SegmentName {
            branch: BranchNumber(1),
            epoch: Epoch(1),
            first: if compacted { 1 } else { 42 },
            last: 42,
            hash8: "0123abcd".to_owned(),
            compacted,
        }
    }

    #[test]
    fn segments_are_named_as_the_design_says() {
        assert_eq!(
            name(false).key(),
            "log/0001/00000001-000000000042-0123abcd.binlog.zst"
        );
        assert_eq!(
            name(true).key(),
            "log/0001/00000001-000000000001-000000000042-0123abcd.binlog.zst"
        );
        for compacted in [false, true] {
            let name = name(compacted);
            assert_eq!(SegmentName::parse(&name.key()), Some(name));
        }
        for other in [
            "log/0001/00000001-000000000042-0123abcg.binlog.zst",
            "log/0001/00000001-000000000042.binlog.zst",
            "log/0001/00000001-000000000042-000000000041-0123abcd.binlog.zst",
            "log/1/00000001-000000000042-0123abcd.binlog.zst",
            "snapshots/x",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn numbered_keys_round_trip() {
        assert_eq!(branch(BranchNumber(1)), "branches/0001.json");
        assert_eq!(parse_branch("branches/0001.json"), Some(BranchNumber(1)));
        assert_eq!(epoch(Epoch(1)), "epochs/00000001.json");
        assert_eq!(parse_epoch("epochs/00000001.json"), Some(Epoch(1)));
        assert_eq!(parse_epoch("epochs/0000000x.json"), None);
    }

    #[test]
    fn snapshot_ids_carry_their_time() {
        let time = DateTime::from_timestamp(1_795_140_000, 0).expect("in range");
        let id = SnapshotId::new(time, 0x0a1b_2c3d);
        assert_eq!(id.as_str(), "20261120T020000Z-0a1b2c3d");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.started(), time);
        assert_eq!(parse_snapshot_progress(&snapshot_progress(&id, 7)), Some(7));
        assert_eq!(parse_snapshot_progress(&snapshot_view(&id)), None);
        assert!(is_snapshot_progress(&snapshot_view(&id)));
        let data = snapshot_data(&id, "d", "t", 12);
        assert_eq!(parse_snapshot_data(&data), Some(12));
        assert_eq!(parse_snapshot_key(&data), Some(id.clone()));
        assert_eq!(parse_snapshot_manifest(&snapshot_manifest(&id)), Some(id));
        assert!("20261320T020000Z-0a1b2c3d".parse::<SnapshotId>().is_err());
        assert!("../../etc".parse::<SnapshotId>().is_err());
    }

    proptest! {
        #[test]
        fn a_key_that_is_read_is_the_one_that_is_written(
            zeros in (0..3_usize, 0..3_usize, 0..3_usize),
            branch in any::<u32>(),
            numbers in (any::<u64>(), any::<u64>()),
            small: bool,
        ) {
            let (a, b, c) = zeros;
            let (epoch, first) = if small { (numbers.0 % 100, numbers.1 % 100) } else { numbers };
            let branch = if small { branch % 100 } else { branch };
            let zeros = |n: usize| "0".repeat(n);
            let name = format!(
                "log/{}{branch:04}/{}{epoch:08}-{}{first:012}-0123abcd.binlog.zst",
                zeros(a), zeros(b), zeros(c)
            );
            let read = SegmentName::parse(&name);
            prop_assert_eq!(read.is_some(), (a, b, c) == (0, 0, 0));
            if let Some(read) = read {
                prop_assert_eq!(read.key(), name);
            }
        }

        #[test]
        fn no_name_leaves_its_folder(database in "\\PC{1,64}", table in "\\PC{1,64}", n in any::<u64>()) {
            let id = SnapshotId::new(DateTime::UNIX_EPOCH, 1);
            let key = snapshot_data(&id, &database, &table, n);
            prop_assert!(is_valid_key(&key), "{}", key);
            prop_assert_eq!(key.matches('/').count(), 5);
        }

        #[test]
        fn different_names_have_different_keys(one in "\\PC{1,64}", other in "\\PC{1,64}") {
            prop_assume!(one != other);
            prop_assert_ne!(encode(&one), encode(&other));
        }
    }
}
