//! What a restore has done so far, kept in the server that it fills.
//!
//! The schema [`SCHEMA`] is made before anything else and dropped after everything else, with
//! nothing in the binlog. A server that has it is unfinished: an ordinary restore refuses it,
//! `--resume` goes on, `--wipe` empties it. The table `run` has one row: what identifies the plan,
//! how far it is, and the settings that the server had before. The table `done` has a row for each
//! step of the load; a file of rows is marked in the transaction that loads it, so it is loaded
//! exactly once ([`super::load::steps`]). How far the replay is the server's own `gtid_executed` tells.
//!
//! All of it lies in InnoDB beside the data, so a crash of the server takes both back to the same
//! moment. The exception is a server whose redo log is off, which does not start again after a crash.

pub(super) mod row;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::load::steps;
use super::replay::{ReplayKind, TUNED};
use super::target::Target;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

/// The schema of the journal.
pub const SCHEMA: &str = steps::JOURNAL_SCHEMA;

/// The settings that a restore changes for its own time, besides those of the replay, and puts
/// back.
const SETTINGS: [&str; 4] = [
    "event_scheduler",
    "local_infile",
    "max_allowed_packet",
    "innodb_flush_log_at_trx_commit",
];

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// What the server had is being removed.
    Wipe,
    /// The snapshot is being loaded.
    Load,
    /// The snapshot is loaded and `gtid_purged` is set; the log is being replayed.
    Replay,
    /// All is replayed.
    Check,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Wipe, Self::Load, Self::Replay, Self::Check];

    /// Its name in the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wipe => "wipe",
            Self::Load => "load",
            Self::Replay => "replay",
            Self::Check => "check",
        }
    }
}

/// What a restore is, so that another run can go on with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The archive that it comes from.
    pub archive: Uuid,
    /// The `server_uuid` of the server.
    pub server_uuid: Uuid,
    /// What was asked.
    pub target: Target,
    /// What that resolved to.
    pub cut: GtidSet,
    /// What `gtid_executed` shall be at the end.
    pub result: GtidSet,
    /// What was left out by name.
    pub skip: GtidSet,
    /// The history.
    pub branch: BranchNumber,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// How the log comes to the server.
    pub replay: ReplayKind,
    /// The version of the program that began.
    pub quillback: String,
    /// When it began, by our clock.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
}

/// A journal that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the journal of an earlier restore ({schema}.run on {server}) cannot be read: {reason}")]
pub struct MalformedJournal {
    /// `host:port`.
    pub server: String,
    /// Its schema: [`SCHEMA`], or that of a restore of tables alone.
    pub schema: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A failure of the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The server failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// What is there makes no sense.
    #[error(transparent)]
    Malformed(#[from] MalformedJournal),
}

/// The journal of a restore that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// What identifies the restore.
    pub run: RunRecord,
    /// How far it is.
    pub stage: Stage,
    /// The settings as they were before the restore.
    pub settings: BTreeMap<String, String>,
    /// What the load had to tell, once it is over.
    pub notes: Vec<String>,
}

impl Journal {
    /// The journal on a server, if it has one.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; a schema of this name without a row that can be read is one.
    pub async fn open(session: &mut Session) -> Result<Option<Self>, JournalError> {
        let there: u64 = session
            .query_one(format!(
                "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{SCHEMA}'"
            ))
            .await?;
        if there == 0 {
            return Ok(None);
        }
        let row = session
            .query_first::<(String, String, String, String)>(format!(
                "SELECT record, stage, settings, notes FROM {SCHEMA}.run WHERE id = 1"
            ))
            .await;
        let row = match row {
            Err(error) if row::is_not_there(&error) => None,
            row => row?,
        };
        let Some((record, stage, settings, notes)) = row else {
            return Err(row::malformed(session, SCHEMA, "it has no row").into());
        };
        Ok(Some(Self {
            run: row::read(session, SCHEMA, "record", &record)?,
            settings: row::read(session, SCHEMA, "settings", &settings)?,
            notes: row::read(session, SCHEMA, "notes", &notes)?,
            stage: row::read_stage(session, SCHEMA, &Stage::ALL, Stage::name, &stage)?,
        }))
    }

    /// Makes the journal of a restore that begins; one that is there already is replaced.
    ///
    /// The row is there before the table of steps, so whatever is there can be read.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn begin(
        session: &mut Session,
        run: RunRecord,
        stage: Stage,
    ) -> Result<Self, MysqlError> {
        let settings = read_settings(session).await?;
        quiet(session).await?;
        let journal = Self {
            run,
            stage,
            settings,
            notes: Vec::new(),
        };
        let record = row::written("record", &journal.run)?;
        let settings = row::written("settings", &journal.settings)?;
        for statement in [
            format!("DROP DATABASE IF EXISTS {SCHEMA}"),
            format!("CREATE DATABASE {SCHEMA} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
            format!(
                "CREATE TABLE {SCHEMA}.run (id TINYINT PRIMARY KEY, record LONGTEXT NOT NULL, \
                 stage VARCHAR(32) NOT NULL, \
                 settings LONGTEXT NOT NULL, notes LONGTEXT NOT NULL) ENGINE = InnoDB"
            ),
            format!(
                "INSERT INTO {SCHEMA}.run VALUES (1, {}, {}, {}, '[]')",
                quote::string(&record),
                quote::string(stage.name()),
                quote::string(&settings)
            ),
            steps::create_statement(SCHEMA),
        ] {
            session.execute(statement).await?;
        }
        Ok(journal)
    }

    /// Makes what the end of an earlier run may have kept it from making.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn go_on(&self, session: &mut Session) -> Result<(), MysqlError> {
        quiet(session).await?;
        session.execute(steps::create_statement(SCHEMA)).await?;
        Ok(())
    }

    /// Writes how far it is.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn reach(&mut self, session: &mut Session, stage: Stage) -> Result<(), MysqlError> {
        quiet(session).await?;
        let name = quote::string(stage.name());
        session
            .execute(format!("UPDATE {SCHEMA}.run SET stage = {name}"))
            .await?;
        self.stage = stage;
        Ok(())
    }

    /// Writes that the load is over, and what it had to tell.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn loaded(
        &mut self,
        session: &mut Session,
        notes: Vec<String>,
    ) -> Result<(), MysqlError> {
        quiet(session).await?;
        let json = row::written("notes", &notes)?;
        session
            .execute(format!(
                "UPDATE {SCHEMA}.run SET stage = {}, notes = {}",
                quote::string(Stage::Replay.name()),
                quote::string(&json)
            ))
            .await?;
        self.stage = Stage::Replay;
        self.notes = notes;
        Ok(())
    }

    /// Puts the server's settings back to what they were, but for the event scheduler, which is
    /// the caller's.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn put_back(&self, session: &mut Session) -> Result<(), MysqlError> {
        let now = read_settings(session).await?;
        for (name, value) in &self.settings {
            let is_changed = now.get(name).is_some_and(|now| now != value);
            if !is_changed || name == "event_scheduler" {
                continue;
            }
            let value = match value.parse::<u64>() {
                Ok(number) => number.to_string(),
                Err(_) => quote::string(value),
            };
            session
                .execute(format!("SET GLOBAL {name} = {value}"))
                .await?;
        }
        Ok(())
    }

    /// Whether the event scheduler was on before the restore.
    #[must_use]
    pub fn had_events(&self) -> bool {
        self.settings
            .get("event_scheduler")
            .is_some_and(|was| was == "ON")
    }

    /// Removes the journal: the restore is over.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn finish(session: &mut Session) -> Result<(), MysqlError> {
        quiet(session).await?;
        session
            .execute(format!("DROP DATABASE IF EXISTS {SCHEMA}"))
            .await?;
        Ok(())
    }
}

/// Nothing of the journal goes to the binlog or gets a GTID.
async fn quiet(session: &mut Session) -> Result<(), MysqlError> {
    session.execute("SET SESSION sql_log_bin = 0").await?;
    Ok(())
}

async fn read_settings(session: &mut Session) -> Result<BTreeMap<String, String>, MysqlError> {
    let names: Vec<String> = SETTINGS
        .iter()
        .chain(&TUNED)
        .map(|name| quote::string(name))
        .collect();
    let names = names.join(", ");
    let rows: Vec<(String, String)> = session
        .query(format!(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"
        ))
        .await?;
    Ok(rows.into_iter().collect())
}
