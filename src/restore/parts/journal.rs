//! What a restore of tables has done so far, kept in the server beside them.
//!
//! It goes to the binlog as all else does that this kind of restore writes: so it works on the primary
//! of a group. It lies in a schema of its own: a restore of the whole server may have it in its log. How far the
//! replay is is written in the transaction of the rows themselves. DDL commits by itself, so that it
//! is about to be done is written before it, with a digest of what it changes: who goes on sees by it
//! whether it was done.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::gtid::GtidSet;
use crate::mysql::ddl::statement::TableName;
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::schema::Pattern;
use crate::mysql::session::Session;
use crate::restore::journal::{JournalError, row};
use crate::restore::load::parts::TABLES_JOURNAL;
use crate::restore::load::steps;
use crate::restore::target::Target;

/// The schema of the journal.
pub(super) const SCHEMA: &str = TABLES_JOURNAL;
/// The table with how far it is.
const PARTS: &str = "run";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartsStage {
    /// The tables are being loaded.
    Load,
    /// The log is being replayed on them.
    Replay,
    /// They are about to get their names.
    Place,
    /// They have their names, and what is left is to tidy up.
    Placed,
}

impl PartsStage {
    const ALL: [Self; 4] = [Self::Load, Self::Replay, Self::Place, Self::Placed];

    const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Replay => "replay",
            Self::Place => "place",
            Self::Placed => "placed",
        }
    }
}

/// A table on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedTable {
    /// Its name in the archive, at the cut.
    pub table: TableName,
    /// Its name on the server, at the end.
    pub to: TableName,
}

/// What a restore of tables is, so that another run can go on with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsRecord {
    /// The archive that they come from.
    pub archive: Uuid,
    /// The `server_uuid` of the server.
    pub server_uuid: Uuid,
    /// What was asked.
    pub target: Target,
    /// What that resolved to.
    pub cut: GtidSet,
    /// What was left out by name.
    pub skip: GtidSet,
    /// The history.
    pub branch: BranchNumber,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What was chosen.
    pub patterns: Vec<Pattern>,
    /// The schema that they go into, if not their own.
    pub into: Option<String>,
    /// The tables that this means.
    pub tables: Vec<PlacedTable>,
    /// Every schema that they are built in, by the one that it stands for.
    pub staging: BTreeMap<String, String>,
    /// Whether `local_infile` was off before.
    pub local_infile_was_off: bool,
    /// The version of the program that began.
    pub quillback: String,
    /// When it began, by our clock.
    #[serde(with = "crate::clock::micros")]
    pub started: DateTime<Utc>,
}

/// A statement that is about to be run, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doing {
    /// The number of its transaction.
    pub(super) number: u64,
    /// Its own number among the transaction's statements.
    pub(super) part: u64,
    /// What the tables looked like before it.
    pub(super) shape: String,
}

/// The journal of a restore of tables that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsJournal {
    /// What identifies it.
    pub run: PartsRecord,
    /// How far it is.
    pub stage: PartsStage,
    /// How many transactions of those that concern its tables are applied.
    pub(super) position: u64,
    /// The last of them.
    pub(super) gtid: String,
    /// The statement that was about to be run.
    pub(super) doing: Option<Doing>,
    /// What there was to tell so far.
    pub(super) notes: Vec<String>,
}

type Row = (
    String,
    String,
    u64,
    String,
    Option<u64>,
    u64,
    String,
    String,
);

impl PartsJournal {
    /// The journal on a server, if it has one of this kind.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub(super) async fn open(session: &mut Session) -> Result<Option<Self>, JournalError> {
        let row = session
            .query_first::<Row>(format!(
                "SELECT record, stage, position, gtid, doing, part, shape, notes \
                 FROM {SCHEMA}.{PARTS} WHERE id = 1"
            ))
            .await;
        let row = match row {
            Err(error) if row::is_not_there(&error) => return Ok(None),
            row => row?,
        };
        let Some((record, stage, position, gtid, doing, part, shape, notes)) = row else {
            return Err(row::malformed(session, SCHEMA, "it has no row").into());
        };
        Ok(Some(Self {
            run: row::read(session, SCHEMA, "record", &record)?,
            notes: row::read(session, SCHEMA, "notes", &notes)?,
            stage: row::read_stage(session, SCHEMA, &PartsStage::ALL, PartsStage::name, &stage)?,
            position,
            gtid,
            doing: doing.map(|number| Doing {
                number,
                part,
                shape,
            }),
        }))
    }

    /// Makes the journal of a restore that begins.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub(super) async fn begin(session: &mut Session, run: PartsRecord) -> Result<Self, MysqlError> {
        let record = row::written("record", &run)?;
        for statement in [
            format!("CREATE DATABASE {SCHEMA} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
            steps::create_statement(SCHEMA),
            format!(
                "CREATE TABLE {SCHEMA}.{PARTS} (id TINYINT PRIMARY KEY, record LONGTEXT NOT NULL, \
                 stage VARCHAR(32) NOT NULL, position BIGINT UNSIGNED NOT NULL, \
                 gtid VARCHAR(128) NOT NULL, doing BIGINT UNSIGNED NULL, \
                 part BIGINT UNSIGNED NOT NULL, shape VARCHAR(64) NOT NULL, \
                 notes LONGTEXT NOT NULL) ENGINE = InnoDB"
            ),
            format!(
                "INSERT INTO {SCHEMA}.{PARTS} VALUES (1, {}, 'load', 0, '', NULL, 0, '', '[]')",
                quote::string(&record)
            ),
        ] {
            session.execute(statement).await?;
        }
        Ok(Self {
            run,
            stage: PartsStage::Load,
            position: 0,
            gtid: String::new(),
            doing: None,
            notes: Vec::new(),
        })
    }

    /// Writes how far it is, and what there is to tell.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub(super) async fn reach(
        &mut self,
        session: &mut Session,
        stage: PartsStage,
    ) -> Result<(), MysqlError> {
        let notes = row::written("notes", &self.notes)?;
        session
            .execute(format!(
                "UPDATE {SCHEMA}.{PARTS} SET stage = {}, notes = {}",
                quote::string(stage.name()),
                quote::string(&notes)
            ))
            .await?;
        self.stage = stage;
        Ok(())
    }

    /// Removes the journal.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub(super) async fn finish(session: &mut Session) -> Result<(), MysqlError> {
        session
            .execute(format!("DROP DATABASE IF EXISTS {SCHEMA}"))
            .await?;
        Ok(())
    }

    /// The statements that undo it for good.
    #[must_use]
    pub fn give_up(&self) -> Vec<String> {
        give_up(&self.run)
    }
}

/// The statements that give a restore of tables up.
pub(super) fn give_up(run: &PartsRecord) -> Vec<String> {
    let mut statements: Vec<String> = run
        .staging
        .values()
        .map(|schema| format!("DROP DATABASE IF EXISTS {}", quote::identifier(schema)))
        .collect();
    if run.local_infile_was_off {
        statements.push("SET GLOBAL local_infile = OFF".to_owned());
    }
    statements.push(format!("DROP DATABASE {SCHEMA}"));
    statements
}

/// The statement that says that a transaction is applied, to be run within it.
pub(super) fn applied(number: u64, gtid: &str) -> String {
    format!("UPDATE {SCHEMA}.{PARTS} SET position = {number}, gtid = '{gtid}', doing = NULL")
}

/// The statement that adds to what there is to tell.
pub(super) fn note(text: &str) -> String {
    format!(
        "UPDATE {SCHEMA}.{PARTS} SET notes = JSON_ARRAY_APPEND(notes, '$', {})",
        quote::string(text)
    )
}

/// The statement that says what is about to be done.
pub(super) fn about_to(doing: &Doing) -> String {
    format!(
        "UPDATE {SCHEMA}.{PARTS} SET doing = {}, part = {}, shape = '{}'",
        doing.number, doing.part, doing.shape
    )
}
