//! Secondary indexes of large tables: dropped while the tables are empty, built once the rows are
//! there, which sorts instead of inserting at random.
//!
//! A table is made as the source's server printed it, full-text keys included, so that it has what
//! these need and no later statement has to rebuild it. Then it is rehearsed, on the empty table,
//! whether its indexes can go and come back in place, and whether `SHOW CREATE TABLE` then says the
//! very same; only if so do they wait. What it said is written down, and compared once more when
//! they have been built. Which ones are still to be built is seen by looking at the table, so a run
//! that was killed can go on anywhere.

mod choose;
mod text;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;

use crate::archive::hash::sha256;
use crate::archive::manifest::{Manifest, ScriptKind, TableEntry};
use crate::archive::script::Script;
use crate::mysql::{MysqlError, ServerUrl, Session, quote};
use crate::observe::fail_point::FailPoint;

use super::LoadOptions;
use super::error::LoadError;
use super::scripts::{of_tables, remake};
use super::session;
use super::steps::{Step, Steps};
use choose::{TableFacts, candidates};
use text::{Key, Kind, keys, without_auto_increment};

/// `ER_DUP_KEYNAME`: somebody else, a statement of a killed run, has built it.
const THERE: u16 = 1061;
/// Errors of a disk for temporary files that is full: one index at a time needs less of it.
const NO_SPACE: [u16; 6] = [3, 1021, 1026, 1034, 1114, 1878];
/// How often it is looked again whether all indexes are there.
const LOOKS: usize = 5;
/// The column by which InnoDB numbers rows with full-text keys; where it is the user's own, such a
/// key takes rows in the order of that column only.
const DOCUMENTS: &[u8] = b"`FTS_DOC_ID`";

/// A table with its statements.
struct Job<'a> {
    entry: &'a TableEntry,
    /// What makes it, in order.
    statements: Vec<&'a [u8]>,
    keys: Vec<Key>,
    bytes: u64,
}

impl Job<'_> {
    fn quoted(&self) -> String {
        quote::qualified(&self.entry.database, &self.entry.name)
    }

    async fn remake(&self, session: &mut Session) -> Result<(), MysqlError> {
        remake(session, self.entry, &self.statements).await
    }

    fn failed(&self, source: MysqlError) -> LoadError {
        LoadError::Index {
            table: self.entry.display_name(),
            source,
        }
    }

    /// A condition on the catalogue's columns of schema and table.
    fn is(&self, schema: &str, table: &str) -> String {
        format!(
            "{schema} = {} AND {table} = {}",
            quote::string(&self.entry.database),
            quote::string(&self.entry.name)
        )
    }
}

/// What is done with each table.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Its indexes are dropped.
    Prepare,
    /// They are built.
    Build {
        /// Raw bytes of all tables of which indexes are built.
        total: u64,
    },
}

/// All that this part of a load works with.
pub(super) struct Indexes<'a> {
    target: &'a ServerUrl,
    options: &'a LoadOptions,
    steps: &'a Steps,
    jobs: Vec<Job<'a>>,
}

impl<'a> Indexes<'a> {
    /// Looks for the tables whose indexes may wait.
    pub(super) fn new(
        target: &'a ServerUrl,
        manifest: &'a Manifest,
        scripts: &'a [(ScriptKind, Script)],
        options: &'a LoadOptions,
        steps: &'a Steps,
    ) -> Self {
        let statements = of_tables(scripts);
        let jobs = manifest
            .tables
            .iter()
            .filter(|entry| entry.engine.is_none())
            .filter_map(|entry| {
                let key = (entry.database.clone(), entry.name.clone());
                let statements = statements.get(&key)?.clone();
                let create = statements.first()?;
                // Such a table may have been made in another way than it says.
                if memchr::memmem::find(create, b" DATA DIRECTORY").is_some() {
                    return None;
                }
                let keys = keys(create)?;
                let bytes = entry.files.iter().map(|file| file.file.raw_bytes).sum();
                Some(Job {
                    entry,
                    statements,
                    keys,
                    bytes,
                })
            })
            .collect();
        Self {
            target,
            options,
            steps,
            jobs,
        }
    }

    /// Drops the indexes that wait. All tables are there and empty.
    pub(super) async fn prepare(&self) -> Result<(), LoadError> {
        let wanted = self.jobs.iter().filter(|job| {
            let create = job.statements[0];
            let words = job.keys.iter().any(|key| key.kind == Kind::Fulltext);
            let own_documents = words && memchr::memmem::find(create, DOCUMENTS).is_some();
            let large = job.bytes >= self.options.defer_indexes_from;
            !job.entry.files.is_empty() && (large || own_documents)
        });
        self.each(wanted.collect(), Task::Prepare).await.map(drop)
    }

    /// Builds what is missing, and returns how many indexes that were.
    pub(super) async fn build(&self) -> Result<u64, LoadError> {
        let waiting = self.jobs.iter().filter(|job| {
            let shape = self.steps.shape(&job.quoted());
            shape.is_some()
        });
        let mut waiting: Vec<&Job<'_>> = waiting.collect();
        waiting.sort_by_key(|job| std::cmp::Reverse(job.bytes));
        let total = waiting.iter().map(|job| job.bytes).sum::<u64>().max(1);
        self.each(waiting, Task::Build { total }).await
    }

    /// How many of the threads a table gets: by its part of all that is built.
    fn share(&self, bytes: u64, total: u64) -> usize {
        let threads = self.options.threads as u64;
        let share = (u128::from(bytes) * u128::from(threads)).div_ceil(u128::from(total));
        usize::try_from(share)
            .unwrap_or(self.options.threads)
            .clamp(1, self.options.threads.max(1))
    }

    /// Does something with each table, several at once, in their order; returns how many indexes
    /// were built.
    async fn each(&self, jobs: Vec<&Job<'_>>, task: Task) -> Result<u64, LoadError> {
        let threads = self.options.threads.clamp(1, 64).min(jobs.len());
        let queue = Mutex::new(VecDeque::from(jobs));
        let built = try_join_all((0..threads).map(|_| self.work(&queue, task))).await?;
        Ok(built.into_iter().sum())
    }

    async fn work(&self, queue: &Mutex<VecDeque<&Job<'_>>>, task: Task) -> Result<u64, LoadError> {
        let take = || {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.pop_front()
        };
        let mut built = 0;
        let mut session = session::open(self.target, self.options.logged).await?;
        while let Some(job) = take() {
            match task {
                Task::Prepare => self.prepare_table(&mut session, job).await?,
                Task::Build { total } => {
                    let share = self.share(job.bytes, total);
                    session::for_indexes(&mut session, share, self.options.threads).await?;
                    built += self.build_table(&mut session, job).await?;
                }
            }
        }
        session.close().await;
        Ok(built)
    }

    async fn prepare_table(&self, session: &mut Session, job: &Job<'_>) -> Result<(), LoadError> {
        let name = job.quoted();
        let failed = |source| job.failed(source);
        if !missing(session, job).await.map_err(failed)?.is_empty() {
            if self.steps.shape(&name).is_some() {
                return Ok(());
            }
            // An earlier run was killed in the middle of this.
            job.remake(session).await.map_err(failed)?;
        }
        let facts = facts(session, job).await.map_err(failed)?;
        let before = shown(session, job).await.map_err(failed)?;
        for chosen in candidates(&job.keys, &facts) {
            let rehearsed = rehearse(session, job, &chosen).await;
            match rehearsed {
                Ok(after) if after == before => {
                    let shape = Step::shape(&name, &sha256(&before).to_string());
                    self.steps.mark(session, &shape).await.map_err(failed)?;
                    session
                        .execute(drop_statement(&name, &chosen))
                        .await
                        .map_err(failed)?;
                    self.options.fail_points.pass(FailPoint::LoadPrepared);
                    return Ok(());
                }
                Ok(_) => tracing::debug!(table = name, "its keys come back in another order"),
                Err(error) if error.is_connection_lost() => return Err(failed(error)),
                Err(error) => tracing::debug!(
                    table = name,
                    error = &error as &dyn std::error::Error,
                    "its indexes do not wait"
                ),
            }
            job.remake(session).await.map_err(failed)?;
            if shown(session, job).await.map_err(failed)? != before {
                return Err(LoadError::OtherTable {
                    table: job.entry.display_name(),
                });
            }
        }
        Ok(())
    }

    async fn build_table(&self, session: &mut Session, job: &Job<'_>) -> Result<u64, LoadError> {
        let name = job.quoted();
        let failed = |source| job.failed(source);
        let mut built = 0;
        let mut one_by_one = false;
        for look in 0..=LOOKS {
            let missing = missing(session, job).await.map_err(failed)?;
            if missing.is_empty() {
                break;
            }
            for (statement, count) in add_statements(&name, &missing, one_by_one) {
                match session.execute(&statement).await {
                    Ok(_) => built += count,
                    Err(error) if look < LOOKS && error.code() == Some(THERE) => break,
                    Err(error)
                        if !one_by_one
                            && count > 1
                            && error.code().is_some_and(|code| NO_SPACE.contains(&code)) =>
                    {
                        one_by_one = true;
                        break;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        let after = shown(session, job).await.map_err(failed)?;
        if self.steps.shape(&name) != Some(sha256(&after).to_string()) {
            return Err(LoadError::OtherTable {
                table: job.entry.display_name(),
            });
        }
        self.options.fail_points.pass(FailPoint::LoadIndexed);
        Ok(built)
    }
}

/// Lets the indexes go and come back, and returns what the table then looks like.
async fn rehearse(
    session: &mut Session,
    job: &Job<'_>,
    chosen: &[&Key],
) -> Result<Vec<u8>, MysqlError> {
    let name = job.quoted();
    session.execute(drop_statement(&name, chosen)).await?;
    for (statement, _) in add_statements(&name, chosen, false) {
        session.execute(statement).await?;
    }
    shown(session, job).await
}

fn drop_statement(table: &str, keys: &[&Key]) -> String {
    let drops: Vec<String> = keys
        .iter()
        .map(|key| format!("DROP KEY {}", quote::identifier(&key.name)))
        .collect();
    format!("ALTER TABLE {table} {}", drops.join(", "))
}

/// The statements that add keys, in their order, with how many each adds. InnoDB adds one full-text
/// key at a time in place.
fn add_statements(table: &str, keys: &[&Key], one_by_one: bool) -> Vec<(Vec<u8>, u64)> {
    let mut groups: Vec<Vec<&Key>> = Vec::new();
    for key in keys {
        let together = !one_by_one && key.kind != Kind::Fulltext;
        match groups.last_mut() {
            Some(group) if together => group.push(key),
            _ => groups.push(vec![key]),
        }
    }
    groups
        .into_iter()
        .map(|group| {
            let mut sql = format!("ALTER TABLE {table} ").into_bytes();
            for key in &group {
                sql.extend_from_slice(b"ADD ");
                sql.extend_from_slice(&key.definition);
                sql.extend_from_slice(b", ");
            }
            sql.extend_from_slice(b"ALGORITHM = INPLACE");
            (sql, group.len() as u64)
        })
        .collect()
}

/// What `SHOW CREATE TABLE` says, without the next AUTO_INCREMENT, which rows move.
async fn shown(session: &mut Session, job: &Job<'_>) -> Result<Vec<u8>, MysqlError> {
    let (_, create): (Vec<u8>, Vec<u8>) = session
        .query_one(format!("SHOW CREATE TABLE {}", job.quoted()))
        .await?;
    Ok(without_auto_increment(&create))
}

/// The keys that the table does not have, in their order.
async fn missing<'j>(session: &mut Session, job: &'j Job<'_>) -> Result<Vec<&'j Key>, MysqlError> {
    let present: Vec<String> = session
        .query(format!(
            "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS WHERE {}",
            job.is("TABLE_SCHEMA", "TABLE_NAME")
        ))
        .await?;
    let keys = job.keys.iter();
    Ok(keys.filter(|key| !present.contains(&key.name)).collect())
}

/// Asks the catalogue what no text of one table tells.
async fn facts(session: &mut Session, job: &Job<'_>) -> Result<TableFacts, MysqlError> {
    let first_columns = session
        .query(format!(
            "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS \
             WHERE SEQ_IN_INDEX = 1 AND {}",
            job.is("TABLE_SCHEMA", "TABLE_NAME")
        ))
        .await?;
    let needed: Vec<String> = session
        .query(format!(
            "SELECT COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE \
             WHERE REFERENCED_TABLE_NAME IS NOT NULL AND ORDINAL_POSITION = 1 AND {} \
             UNION ALL SELECT REFERENCED_COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE \
             WHERE ORDINAL_POSITION = 1 AND {}",
            job.is("TABLE_SCHEMA", "TABLE_NAME"),
            job.is("REFERENCED_TABLE_SCHEMA", "REFERENCED_TABLE_NAME")
        ))
        .await?;
    let auto_increment: Option<String> = session
        .query_first(format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS \
             WHERE EXTRA LIKE '%auto\\_increment%' AND {}",
            job.is("TABLE_SCHEMA", "TABLE_NAME")
        ))
        .await?;
    let needed: BTreeSet<String> = needed.iter().map(|column| column.to_lowercase()).collect();
    Ok(TableFacts {
        first_columns,
        needed,
        auto_increment: auto_increment.map(|column| column.to_lowercase()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_text_keys_are_added_one_at_a_time_and_behind_the_others() {
        let create = b"CREATE TABLE `t` (\n  `a` int,\n  UNIQUE KEY `u` (`a`),\n  KEY `k` (`a`),\n  FULLTEXT KEY `v` (`a`),\n  FULLTEXT KEY `w` (`a`)\n)";
        let keys = keys(create).expect("understood");
        let keys: Vec<&Key> = keys.iter().collect();
        assert_eq!(
            drop_statement("`d`.`t`", &keys[..2]),
            "ALTER TABLE `d`.`t` DROP KEY `u`, DROP KEY `k`"
        );
        let texts = |one_by_one| -> Vec<String> {
            add_statements("`t`", &keys, one_by_one)
                .into_iter()
                .map(|(sql, _)| String::from_utf8(sql).expect("text"))
                .collect()
        };
        assert_eq!(
            texts(false),
            [
                "ALTER TABLE `t` ADD UNIQUE KEY `u` (`a`), ADD KEY `k` (`a`), ALGORITHM = INPLACE",
                "ALTER TABLE `t` ADD FULLTEXT KEY `v` (`a`), ALGORITHM = INPLACE",
                "ALTER TABLE `t` ADD FULLTEXT KEY `w` (`a`), ALGORITHM = INPLACE",
            ]
        );
        assert_eq!(texts(true).len(), 4);
    }
}
