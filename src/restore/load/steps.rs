//! What of a load is done, written down in the target itself.
//!
//! The table `quillback_restore.done` holds one row a step. The rows of a file and their step are of
//! one transaction, so that a file is loaded exactly once, whenever which side is killed; other steps
//! are written down behind what they stand for, which can therefore be done again or be found done.
//! The steps `before NAME=VALUE` hold what settings of the server were before the load changed them.
//!
//! Who makes the table, and removes it at the end, is the caller: a load without it keeps nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::archive::hash::sha256;
use crate::mysql::{MysqlError, Session, quote};

/// The schema of the target that holds a restore's journal.
pub const JOURNAL_SCHEMA: &str = "quillback_restore";
/// The table of the steps that are done: `step` VARBINARY(512) PRIMARY KEY, `at` TIMESTAMP(6).
pub const DONE_TABLE: &str = "done";
/// Bytes of a step's name.
const NAME_BYTES: usize = 512;

/// A step of a load.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(String);

/// A part of a load that is done as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Schemas and tables are there.
    Schema,
    /// The indexes that wait are dropped.
    Prepared,
    /// All rows are there.
    Rows,
    /// All indexes are there.
    Indexes,
    /// The statistics are those of the rows.
    Analyzed,
    /// Routines, views, triggers, events and accounts are there.
    Objects,
    /// Nothing is left to do.
    Loaded,
}

impl Step {
    /// A name of any length; one that is too long for the table is told by its digest.
    fn named(kind: &str, name: &str) -> Self {
        let step = format!("{kind} {name}");
        if step.len() <= NAME_BYTES {
            Self(step)
        } else {
            Self(format!("{kind} sha256:{}", sha256(name.as_bytes())))
        }
    }

    /// That the rows of a file are there, by its key in the snapshot.
    #[must_use]
    pub fn rows(key: &str) -> Self {
        Self::named("rows", key)
    }

    pub(super) fn stage(stage: Stage) -> Self {
        Self(format!(
            "stage {}",
            match stage {
                Stage::Schema => "schema",
                Stage::Prepared => "prepared",
                Stage::Rows => "rows",
                Stage::Indexes => "indexes",
                Stage::Analyzed => "analyzed",
                Stage::Objects => "objects",
                Stage::Loaded => "loaded",
            }
        ))
    }

    /// What a setting of the server was before it was changed.
    pub(super) fn before(name: &str, value: &str) -> Self {
        Self::named("before", &format!("{name}={value}"))
    }

    /// What `SHOW CREATE TABLE` said before indexes were dropped, by the digest of its text.
    pub(super) fn shape(table: &str, digest: &str) -> Self {
        Self(format!("{}{digest}", Self::shape_prefix(table)))
    }

    fn shape_prefix(table: &str) -> String {
        format!("shape {} ", sha256(table.as_bytes()))
    }

    /// The name as the table holds it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The steps that are done.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    /// The schema of the journal's table, if there is one.
    kept: Option<&'static str>,
    done: Arc<Mutex<BTreeSet<String>>>,
}

impl Steps {
    /// Steps that are remembered for as long as this value lives.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// The steps of the target's journal, whose table is there.
    ///
    /// # Errors
    ///
    /// What the question fails with.
    pub async fn open(session: &mut Session) -> Result<Self, MysqlError> {
        Self::open_in(session, JOURNAL_SCHEMA).await
    }

    /// The same of a journal in another schema.
    ///
    /// # Errors
    ///
    /// What the question fails with.
    pub async fn open_in(session: &mut Session, schema: &'static str) -> Result<Self, MysqlError> {
        let names: Vec<Vec<u8>> = session
            .query(format!("SELECT step FROM {}", table(schema)))
            .await?;
        let names = names
            .into_iter()
            .map(|name| String::from_utf8_lossy(&name).into_owned());
        Ok(Self {
            kept: Some(schema),
            done: Arc::new(Mutex::new(names.collect())),
        })
    }

    /// The schema of the journal that they are written down in, if there is one.
    pub(super) const fn journal(&self) -> Option<&'static str> {
        self.kept
    }

    /// Whether the steps outlive this process.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether a step is done.
    #[must_use]
    pub fn is_done(&self, step: &Step) -> bool {
        self.lock().contains(step.as_str())
    }

    /// Whether a stage is behind us.
    pub(super) fn has(&self, stage: Stage) -> bool {
        self.is_done(&Step::stage(stage))
    }

    /// Writes down that a stage is.
    ///
    /// # Errors
    ///
    /// What the statement fails with.
    pub(super) async fn reach(
        &self,
        session: &mut Session,
        stage: Stage,
    ) -> Result<(), MysqlError> {
        self.mark(session, &Step::stage(stage)).await
    }

    /// The statement that writes a step down, if steps are kept; to be followed by
    /// [`Steps::remember`] once it is committed. It fails with 1062 if the step is done, and waits
    /// for a transaction that is about to do it.
    #[must_use]
    pub fn insert_statement(&self, step: &Step) -> Option<String> {
        self.kept.map(|schema| {
            format!(
                "INSERT INTO {} (step, at) VALUES ({}, UTC_TIMESTAMP(6))",
                table(schema),
                quote::string(step.as_str())
            )
        })
    }

    /// Remembers what was written down.
    pub fn remember(&self, step: &Step) {
        self.lock().insert(step.as_str().to_owned());
    }

    /// Writes a step down and remembers it; one that is done stays so.
    ///
    /// # Errors
    ///
    /// What the statement fails with.
    pub async fn mark(&self, session: &mut Session, step: &Step) -> Result<(), MysqlError> {
        if self.is_done(step) {
            return Ok(());
        }
        if let Some(insert) = self.insert_statement(step) {
            let insert = insert.replacen("INSERT", "INSERT IGNORE", 1);
            session.execute(insert).await?;
        }
        self.remember(step);
        Ok(())
    }

    /// Takes a step back.
    pub(super) async fn take_back(
        &self,
        session: &mut Session,
        step: &Step,
    ) -> Result<(), MysqlError> {
        if let Some(schema) = self.kept {
            let name = quote::string(step.as_str());
            session
                .execute(format!("DELETE FROM {} WHERE step = {name}", table(schema)))
                .await?;
        }
        self.lock().remove(step.as_str());
        Ok(())
    }

    /// The settings that were changed, with what they were before.
    pub(super) fn befores(&self) -> Vec<(String, String)> {
        self.with_prefix("before ")
            .iter()
            .filter_map(|rest| rest.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The digest of what a table's `SHOW CREATE TABLE` said, if indexes of it wait.
    pub(super) fn shape(&self, table: &str) -> Option<String> {
        self.with_prefix(&Step::shape_prefix(table)).pop()
    }

    fn with_prefix(&self, prefix: &str) -> Vec<String> {
        self.lock()
            .range(prefix.to_owned()..)
            .map_while(|step| step.strip_prefix(prefix))
            .map(ToOwned::to_owned)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement that makes the table of the steps in a schema, unless it is there.
pub(in crate::restore) fn create_statement(schema: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (step VARBINARY({NAME_BYTES}) PRIMARY KEY, \
         at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE = InnoDB",
        table(schema)
    )
}

fn table(schema: &str) -> String {
    quote::qualified(schema, DONE_TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_table_and_differ() {
        let long = |last: &str| Step::rows(&format!("{}{last}", "x".repeat(600)));
        assert!(long("a").as_str().len() <= NAME_BYTES);
        assert_ne!(long("a"), long("b"));
        assert_eq!(
            Step::rows("data/d/t/000000.tsv.zst").as_str(),
            "rows data/d/t/000000.tsv.zst"
        );
        let shape = Step::shape(&"t".repeat(700), &"0".repeat(64));
        assert!(shape.as_str().len() <= NAME_BYTES);
    }

    #[test]
    fn what_was_before_is_found_again() {
        let steps = Steps::in_memory();
        for step in [
            Step::before("local_infile", "OFF"),
            Step::before("x", "a=b"),
            Step::rows("before"),
            Step::shape("d.t", "12"),
            Step::stage(Stage::Rows),
        ] {
            assert!(!steps.is_done(&step));
            steps.remember(&step);
            assert!(steps.is_done(&step));
        }
        let texts = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            steps.befores(),
            [texts("local_infile", "OFF"), texts("x", "a=b")]
        );
        assert_eq!(steps.shape("d.t").as_deref(), Some("12"));
        assert_eq!(steps.shape("d.u"), None);
        assert_eq!(steps.insert_statement(&Step::rows("k")), None);
    }
}
