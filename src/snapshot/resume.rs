//! Going on with a snapshot whose run died.
//!
//! A read view dies with its connection. Another one shows the same rows only if it holds the very
//! same transactions: the same server, the same `gtid_executed`, no prepared XA transaction (which
//! opening the view makes sure of), the same schema. That holds on a replica that is stopped, delayed
//! or quiet, and nowhere else. It is proven here or the snapshot starts anew; nothing in between.
//!
//! What is taken over is whole tables, each file of which is read back and compared with its
//! digest. The dead run's records are only a hint (see [`crate::archive::progress`]).

mod journal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::hash::{Sha256, Sha256Writer, sha256};
use crate::archive::layout::{self, SnapshotId};
use crate::archive::manifest::{DataFile, ScriptFile, ScriptKind, StoredFile, TableEntry};
use crate::archive::progress::{PROGRESS_FORMAT, TablesRecord, ViewRecord};
use crate::gtid::GtidSet;
use crate::mysql::schema::{Filter, Schema};
use crate::mysql::{HostPort, MysqlError, Session};
use crate::storage::{Storage, StorageError, list_all};

use super::changes;
use super::ddl;
use super::error::SnapshotError;

pub(super) use journal::Journal;

/// Bytes of an object that are read at once.
const PIECE: u64 = 8 << 20;
/// Files that are compared at once.
const CHECKS: usize = 4;

/// A snapshot whose run did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// What it read.
    pub view: ViewRecord,
    /// The keys of the records of its tables.
    pub records: Vec<String>,
    /// The number beyond those of all its files of rows.
    pub first_file: u64,
}

/// Finds the newest snapshot in the archive that has no manifest and left records behind.
///
/// # Errors
///
/// What the store fails with. Records that cannot be read are no error: nobody goes on from them.
pub async fn find_unfinished(storage: &dyn Storage) -> Result<Option<Unfinished>, StorageError> {
    let keys: Vec<String> = list_all(storage, layout::SNAPSHOTS, None)
        .await?
        .into_iter()
        .map(|object| object.key)
        .collect();
    let ids: BTreeSet<SnapshotId> = keys
        .iter()
        .filter_map(|key| layout::parse_snapshot_key(key))
        .collect();
    for id in ids.iter().rev() {
        let folder = layout::snapshot(id);
        let own = || keys.iter().filter(|key| key.starts_with(&folder));
        let has = |key: String| own().any(|found| *found == key);
        if has(layout::snapshot_manifest(id)) || !has(layout::snapshot_view(id)) {
            continue;
        }
        let Some(view) = read_json::<ViewRecord>(storage, &layout::snapshot_view(id)).await? else {
            continue;
        };
        if view.format != PROGRESS_FORMAT || view.id != *id {
            continue;
        }
        return Ok(Some(Unfinished {
            view,
            records: own()
                .filter(|key| layout::parse_snapshot_progress(key).is_some())
                .cloned()
                .collect(),
            first_file: own()
                .filter_map(|key| layout::parse_snapshot_data(key))
                .max()
                .map_or(0, |last| last + 1),
        }));
    }
    Ok(None)
}

async fn read_json<T: DeserializeOwned>(
    storage: &dyn Storage,
    key: &str,
) -> Result<Option<T>, StorageError> {
    match storage.get(key).await {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(StorageError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a plan says of going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumePlan {
    /// Go on with this one, if it is proven to be the same view.
    From(SnapshotId),
    /// Start anew, for this reason.
    Anew(String),
}

impl TakenOver {
    pub(super) fn report(&self) -> ResumeReport {
        let files = self.tables.iter().flat_map(|table| &table.files);
        ResumeReport::GoneOn {
            tables: self.tables.len() as u64,
            stored_bytes: files.map(|file| file.file.stored_bytes).sum(),
        }
    }
}

impl ResumePlan {
    /// Decides by what is known before the view is open.
    #[must_use]
    pub fn compute(
        unfinished: Option<&Unfinished>,
        server: (&HostPort, Uuid),
        filter: &Filter,
    ) -> Self {
        let Some(unfinished) = unfinished else {
            return Self::Anew("there is no unfinished snapshot to go on with".to_owned());
        };
        let view = &unfinished.view;
        let (address, uuid) = server;
        if view.server_uuid != uuid {
            return Self::Anew(format!(
                "{} was read from {}, and this is {address}",
                view.id, view.address
            ));
        }
        if view.filter != *filter {
            return Self::Anew(format!("{} has other --include or --exclude", view.id));
        }
        Self::From(view.id.clone())
    }
}

/// What was taken over from a dead run.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub(super) id: SnapshotId,
    pub(super) started: DateTime<Utc>,
    pub(super) scripts: (Vec<ScriptFile>, ScriptFile),
    pub(super) tables: Vec<TableEntry>,
    pub(super) first_file: u64,
    /// The number of the next record.
    pub(super) next_record: u64,
}

/// What came of the wish to go on with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeReport {
    /// It was the same view; so much was there already.
    GoneOn {
        /// Tables.
        tables: u64,
        /// Bytes stored.
        stored_bytes: u64,
    },
    /// It was started anew, for this reason.
    Anew(String),
}

/// What the new run sees.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) gtid_executed: &'a GtidSet,
    pub(super) schema: &'a Schema,
}

/// Takes over what a dead run has stored, if its view was that of `seen`; else tells why not.
///
/// # Errors
///
/// What the store or the server fails with.
pub(super) async fn take_over(
    storage: &dyn Storage,
    control: &mut Session,
    id: &SnapshotId,
    seen: &Seen<'_>,
) -> Result<Result<TakenOver, String>, SnapshotError> {
    let unfinished = match find_unfinished(storage).await? {
        Some(unfinished) if unfinished.view.id == *id => unfinished,
        _ => return Ok(Err(format!("{id} is not there any more"))),
    };
    let view = &unfinished.view;
    if is_alive(control, &view.connections).await? {
        return Ok(Err(format!("the run that takes {id} may be alive")));
    }
    if view.gtid_executed != *seen.gtid_executed {
        let since = seen.gtid_executed.subtract(&view.gtid_executed);
        return Ok(Err(match since.is_empty() {
            true => format!("the server lacks transactions that {id} holds"),
            false => format!("transactions were committed since: {since:#}"),
        }));
    }
    if view.schema_sha256 != schema_digest(seen.schema) {
        return Ok(Err("the schema changed without a transaction".to_owned()));
    }
    for script in view.schema.iter().chain([&view.accounts]) {
        if !is_whole(storage, id, &script.file).await? {
            return Ok(Err(format!("{} is not as it was stored", script.file.key)));
        }
    }
    let mut tables = Vec::new();
    for key in &unfinished.records {
        if let Some(record) = read_json::<TablesRecord>(storage, key).await? {
            tables.extend(record.tables);
        }
    }
    let mut whole: Vec<TableEntry> = stream::iter(tables.into_iter().map(async |table| {
        let fits = fits(&table, seen.schema) && all_whole(storage, id, &table.files).await?;
        Ok::<_, StorageError>(fits.then_some(table))
    }))
    .buffer_unordered(CHECKS)
    .try_filter_map(async |table| Ok(table))
    .try_collect()
    .await?;
    whole.sort_by(|a, b| (&a.database, &a.name).cmp(&(&b.database, &b.name)));
    whole.dedup_by(|a, b| (&a.database, &a.name) == (&b.database, &b.name));
    let records = unfinished.records.iter();
    let last = records
        .filter_map(|key| layout::parse_snapshot_progress(key))
        .max();
    Ok(Ok(TakenOver {
        id: id.clone(),
        started: view.started,
        scripts: (view.schema.clone(), view.accounts.clone()),
        tables: whole,
        first_file: unfinished.first_file,
        next_record: last.map_or(0, |last| last + 1),
    }))
}

/// Whether the server knows one of these connections still.
async fn is_alive(control: &mut Session, connections: &[u32]) -> Result<bool, MysqlError> {
    if connections.is_empty() {
        return Ok(false);
    }
    let ids: Vec<String> = connections.iter().map(ToString::to_string).collect();
    // Other users' connections bear no mark of ours: after a restart of the server the numbers
    // begin anew.
    let count: u64 = control
        .query_one(format!(
            "SELECT COUNT(*) FROM performance_schema.threads \
             WHERE PROCESSLIST_ID IN ({}) AND PROCESSLIST_ID <> CONNECTION_ID() \
             AND PROCESSLIST_USER = SUBSTRING_INDEX(USER(), '@', 1)",
            ids.join(", ")
        ))
        .await?;
    Ok(count > 0)
}

/// Whether a table is in the schema as it was.
fn fits(entry: &TableEntry, schema: &Schema) -> bool {
    schema.tables.iter().any(|table| {
        table.database == entry.database
            && table.name == entry.name
            && changes::create_digest(table) == entry.create_sha256
    })
}

async fn all_whole(
    storage: &dyn Storage,
    id: &SnapshotId,
    files: &[DataFile],
) -> Result<bool, StorageError> {
    for file in files {
        if !is_whole(storage, id, &file.file).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an object is there with its size and digest.
async fn is_whole(
    storage: &dyn Storage,
    id: &SnapshotId,
    file: &StoredFile,
) -> Result<bool, StorageError> {
    let key = file.key.in_snapshot(id);
    match storage.size(&key).await {
        Ok(size) if size == file.stored_bytes => {}
        Ok(_) | Err(StorageError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut digest = Sha256Writer::default();
    let mut at = 0;
    while at < file.stored_bytes {
        let bytes = storage.get_range(&key, at..at + PIECE).await?;
        if bytes.is_empty() {
            return Ok(false);
        }
        at += bytes.len() as u64;
        digest.update(&bytes);
    }
    Ok(digest.finish() == file.sha256)
}

/// A digest of all that a look at the schema shows, sizes and counters left out.
pub(super) fn schema_digest(schema: &Schema) -> Sha256 {
    let mut text = format!("{:?}", schema.databases).into_bytes();
    for table in &schema.tables {
        let shown = format!(
            "{:?}{:?}{:?}{:?}{}",
            table.database,
            table.name,
            table.created,
            table.columns,
            changes::create_digest(table)
        );
        text.extend_from_slice(shown.as_bytes());
    }
    // Their statements say it all; only those of tables hold counters.
    let scripts = ddl::scripts(schema).into_iter();
    let stable = scripts
        .filter(|script| !matches!(script.kind, ScriptKind::Tables | ScriptKind::Histograms))
        .chain([ddl::accounts(schema)]);
    for script in stable {
        text.extend_from_slice(&script.script.encode(script.kind.file_name()));
    }
    sha256(&text)
}
