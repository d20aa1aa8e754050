//! The statistics of the tables, counted once their rows and indexes are there: the optimizer would
//! otherwise choose by those of empty tables until the server looks again by itself.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;

use crate::archive::manifest::{Manifest, TableEntry};
use crate::mysql::{ServerUrl, Session, quote};

use super::LoadOptions;
use super::error::LoadError;
use super::session;

/// The engine besides InnoDB whose statistics are counted on demand.
const MYISAM: &str = "MyISAM";
/// Tables of one statement.
const TABLES: usize = 16;

/// Counts the statistics of all tables that have rows, several at once; tells what failed.
pub(super) async fn analyze(
    target: &ServerUrl,
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<Vec<String>, LoadError> {
    let counted = |table: &&TableEntry| {
        let engine = table.engine.as_deref();
        let known = engine.is_none_or(|engine| engine.eq_ignore_ascii_case(MYISAM));
        known && table.rows > 0
    };
    let tables: Vec<&TableEntry> = manifest.tables.iter().filter(counted).collect();
    let batches: VecDeque<&[&TableEntry]> = tables.chunks(TABLES).collect();
    let workers = options.threads.clamp(1, 64).min(batches.len());
    let queue = Mutex::new(batches);
    let told = (0..workers).map(|_| work(target, options, &queue));
    let told = try_join_all(told).await?;
    Ok(told.into_iter().flatten().collect())
}

async fn work(
    target: &ServerUrl,
    options: &LoadOptions,
    queue: &Mutex<VecDeque<&[&TableEntry]>>,
) -> Result<Vec<String>, LoadError> {
    let take = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    };
    let mut told = Vec::new();
    let mut session = session::open(target, options.logged).await?;
    while let Some(tables) = take() {
        told.extend(batch(&mut session, tables).await?);
    }
    session.close().await;
    Ok(told)
}

/// ANALYZE TABLE answers with rows, in which it also tells its errors.
async fn batch(session: &mut Session, tables: &[&TableEntry]) -> Result<Vec<String>, LoadError> {
    let names: Vec<String> = tables
        .iter()
        .map(|table| quote::qualified(&table.database, &table.name))
        .collect();
    let rows: Vec<(String, String, String, String)> = session
        .query(format!(
            "ANALYZE NO_WRITE_TO_BINLOG TABLE {}",
            names.join(", ")
        ))
        .await?;
    Ok(rows
        .into_iter()
        .filter(|(_, _, kind, _)| kind.eq_ignore_ascii_case("error"))
        .map(|(table, _, _, message)| format!("the statistics of {table} are not known: {message}"))
        .collect())
}
