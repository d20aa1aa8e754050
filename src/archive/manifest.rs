//! The manifest of a snapshot: what it holds, at which GTID set, and how to know it again.
//!
//! It is put last and only if absent, so a snapshot exists once its manifest does and never
//! changes afterwards. Reading it checks what reading can check: the format's version, and that
//! no key leaves the snapshot's folder. `FORMAT.md` describes each field.

mod kinds;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::gtid::GtidSet;
use crate::mysql::schema::{Filter, Information};
use crate::mysql::{HostPort, ServerVersion};
use crate::storage::is_valid_key;

use super::hash::Sha256;
use super::layout::{self, SnapshotId};

pub use super::row_checksum::{RowChecksum, RowHash};
pub use kinds::ScriptKind;

/// The version of the manifest's format that this program writes, and the newest that it reads.
pub const MANIFEST_FORMAT: u32 = 2;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version.
    pub format: ManifestFormat,
    /// The snapshot's name.
    pub id: SnapshotId,
    /// The version of the program that wrote it.
    pub tool_version: String,
    /// When it was begun.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
    /// When its last file was stored.
    #[serde(with = "crate::clock::micros")]
    pub finished: DateTime<Utc>,
    /// The server that was read.
    pub server: SnapshotServer,
    /// The transactions whose effects it holds: all of these and no other.
    pub gtid_executed: GtidSet,
    /// How all connections came to see that same set.
    pub consistency: Consistency,
    /// Connections that read rows at once.
    pub threads: usize,
    /// What was asked for; empty means everything.
    #[serde(default)]
    pub filter: Filter,
    /// The DDL, in the order in which it must be run.
    pub schema: Vec<ScriptFile>,
    /// The accounts.
    pub accounts: ScriptFile,
    /// The tables, in the order of their names.
    pub tables: Vec<TableEntry>,
    /// Sums over all files.
    pub totals: Totals,
    /// What a person should know, such as views that were broken already.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the server of a restore must have.
    #[serde(default, skip_serializing_if = "Needs::is_nothing")]
    pub needs: Needs,
    /// What is told of the server and not made again by a restore.
    #[serde(default)]
    pub information: Information,
}

impl Manifest {
    /// A table by its name.
    #[must_use]
    pub fn table(&self, database: &str, name: &str) -> Option<&TableEntry> {
        let mut tables = self.tables.iter();
        tables.find(|table| table.database == database && table.name == name)
    }
}

/// What a server must have, so that a restore is refused before it begins rather than failing in
/// its middle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// What is encrypted on disk, so that a keyring is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyring: Vec<String>,
    /// Time zones by name, which events have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_zones: Vec<String>,
}

impl Needs {
    /// Whether any server will do.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.keyring.is_empty() && self.time_zones.is_empty()
    }
}

/// A format version that this program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ManifestFormat(u32);

impl ManifestFormat {
    /// The version that this program writes.
    pub const CURRENT: Self = Self(MANIFEST_FORMAT);

    /// What the row checksums of such a manifest are sums of.
    #[must_use]
    pub const fn row_hash(self) -> RowHash {
        match self.0 {
            1 => RowHash::Sha256,
            _ => RowHash::Xxh3,
        }
    }
}

impl TryFrom<u32> for ManifestFormat {
    type Error = ManifestError;

    fn try_from(version: u32) -> Result<Self, ManifestError> {
        match version {
            1..=MANIFEST_FORMAT => Ok(Self(version)),
            other => Err(ManifestError::UnknownFormat(other)),
        }
    }
}

impl From<ManifestFormat> for u32 {
    fn from(format: ManifestFormat) -> Self {
        format.0
    }
}

/// What a manifest cannot say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Written by a later program.
    #[error("manifest format {0} is not known (this version reads {MANIFEST_FORMAT})")]
    UnknownFormat(u32),
    /// A key that leaves the snapshot's folder or that no store takes.
    #[error("{0:?} is no key within a snapshot")]
    BadKey(String),
    /// Not 32 hexadecimal digits.
    #[error("{0:?} is no row checksum")]
    BadChecksum(String),
}

/// The server that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotServer {
    /// Where it was reached.
    pub address: HostPort,
    /// Its UUID.
    pub server_uuid: Uuid,
    /// Its number.
    pub server_id: u32,
    /// Its version.
    pub version: ServerVersion,
    /// What it was among its fellows: `primary` or `secondary`.
    pub role: crate::mysql::topology::Role,
    /// A restore needs a server with the same value.
    pub lower_case_table_names: u8,
    /// Its default character set.
    pub character_set_server: String,
    /// Its default collation.
    pub collation_server: String,
}

/// How all connections came to see the same transactions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consistency {
    /// The method that succeeded.
    pub method: ConsistencyMethod,
    /// How many attempts it took, of both methods together.
    pub attempts: u32,
    /// Seconds for which writes were held up by FLUSH TABLES WITH READ LOCK, attempts that failed
    /// included; 0 without it.
    pub global_lock_seconds: f64,
    /// Whether LOCK INSTANCE FOR BACKUP kept DDL away.
    pub backup_lock: bool,
    /// Seconds for which DDL was held up by it.
    pub backup_lock_seconds: f64,
    /// The longest that a statement of DDL is known to have waited for the snapshot, in seconds.
    #[serde(default)]
    pub ddl_wait_seconds: f64,
    /// How often the backup lock was let go for DDL, and taken again, before the views were open.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ddl_let_by: u32,
    /// What kept DDL away or made it seen, in the order of use; empty if it is not known.
    #[serde(default)]
    pub ddl_guards: Vec<DdlGuard>,
}

impl Eq for Consistency {}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The ways to one GTID set over several connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyMethod {
    /// No transaction was between its binlog and its end while the snapshots were opened.
    LockFree,
    /// FLUSH TABLES WITH READ LOCK while the snapshots were opened.
    GlobalReadLock,
}

impl fmt::Display for ConsistencyMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LockFree => "lock-free",
            Self::GlobalReadLock => "global read lock",
        })
    }
}

/// What keeps DDL away from a snapshot, or makes it seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DdlGuard {
    /// LOCK INSTANCE FOR BACKUP: DDL waits.
    BackupLock,
    /// The server's binlog: any DDL that matters fails the snapshot.
    Binlog,
    /// The schema was the same at the end: DDL that was undone before goes unseen.
    Comparison,
}

impl fmt::Display for DdlGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackupLock => "backup lock",
            Self::Binlog => "binlog",
            Self::Comparison => "comparison",
        })
    }
}

/// A key relative to the snapshot's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativeKey(String);

impl RelativeKey {
    /// Cuts the snapshot's folder off a whole key.
    ///
    /// # Errors
    ///
    /// [`ManifestError::BadKey`] when the key is of another folder.
    pub fn within(id: &SnapshotId, key: &str) -> Result<Self, ManifestError> {
        key.strip_prefix(&layout::snapshot(id))
            .ok_or_else(|| ManifestError::BadKey(key.to_owned()))?
            .to_owned()
            .try_into()
    }

    /// The whole key.
    #[must_use]
    pub fn in_snapshot(&self, id: &SnapshotId) -> String {
        format!("{}{}", layout::snapshot(id), self.0)
    }
}

impl TryFrom<String> for RelativeKey {
    type Error = ManifestError;

    fn try_from(key: String) -> Result<Self, ManifestError> {
        if is_valid_key(&key) {
            Ok(Self(key))
        } else {
            Err(ManifestError::BadKey(key))
        }
    }
}

impl From<RelativeKey> for String {
    fn from(key: RelativeKey) -> Self {
        key.0
    }
}

impl fmt::Display for RelativeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its key, relative to the snapshot's folder.
    pub key: RelativeKey,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes of the object.
    pub stored_bytes: u64,
    /// The SHA-256 of the object.
    pub sha256: Sha256,
}

/// A DDL script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptFile {
    /// What it makes.
    pub kind: ScriptKind,
    /// How many objects.
    pub objects: u64,
    /// Where it is.
    #[serde(flatten)]
    pub file: StoredFile,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its schema.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The columns that its files hold, in their order; generated columns are not among them.
    pub columns: Vec<LoadColumn>,
    /// The files with its rows, in the order in which they were read.
    pub files: Vec<DataFile>,
    /// Its rows.
    pub rows: u64,
    /// The sum over its rows, whatever their order.
    pub row_checksum: RowChecksum,
    /// The SHA-256 of its CREATE TABLE statement.
    pub create_sha256: Sha256,
    /// Its storage engine, if that is not InnoDB: then its rows are of no certain moment, and an
    /// engine that keeps no rows of its own has none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

impl TableEntry {
    /// `schema.table` for a person to read.
    #[must_use]
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }
}

/// A column as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadColumn {
    /// Its name.
    pub name: String,
    /// Its type without length.
    pub data_type: String,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its rows.
    pub rows: u64,
    /// Where it is.
    #[serde(flatten)]
    pub file: StoredFile,
}

/// Sums over all files of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Files, DDL among them.
    pub files: u64,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes stored.
    pub stored_bytes: u64,
}

impl Totals {
    /// Counts a file.
    pub const fn add(&mut self, file: &StoredFile) {
        self.files += 1;
        self.raw_bytes += file.raw_bytes;
        self.stored_bytes += file.stored_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_within_the_snapshot() {
        let id = SnapshotId::new(DateTime::UNIX_EPOCH, 1);
        let key = RelativeKey::within(&id, &layout::snapshot_data(&id, "d", "t", 0))
            .expect("a key of this snapshot");
        assert_eq!(key.to_string(), "data/d/t/000000.tsv.zst");
        assert_eq!(
            key.in_snapshot(&id),
            layout::snapshot_data(&id, "d", "t", 0)
        );
        for bad in ["../x", "/etc/passwd", "a//b", "", "data/../../x"] {
            assert!(
                serde_json::from_value::<RelativeKey>(bad.into()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn later_formats_are_refused() {
        for (version, hash) in [(1, RowHash::Sha256), (2, RowHash::Xxh3)] {
            let format = ManifestFormat::try_from(version).expect("a known format");
            assert_eq!((format.row_hash(), u32::from(format)), (hash, version));
        }
        for version in ["0", "3"] {
            let error = serde_json::from_str::<ManifestFormat>(version).expect_err("unknown");
            let said = format!("format {version}");
            assert!(error.to_string().contains(&said), "{error}");
        }
    }
}
