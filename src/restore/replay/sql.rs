//! Over an ordinary connection: what the log holds, said as statements.
//!
//! For a server that cannot connect to us. It is one connection, one transaction after the other,
//! so it is slower than the server's own applier, but it leads to the same rows and the same
//! `gtid_executed`. Rows go as `BINLOG` statements, everything else as the statement that it was, in
//! the session that it was made in (`context`). `GTID_NEXT` gives each transaction its identity, so
//! one that the server has already is passed over, by us and by the server.

mod context;
mod player;
mod rows;
mod settings;
mod variables;

pub(in crate::restore) use context::Statement;
pub(in crate::restore) use player::{words, xa_prepare};
pub(in crate::restore) use rows::{Rows, format_without_checksums, is_rows, statements};
pub(in crate::restore) use settings::SessionSettings;

use std::time::{Duration, Instant};

use self::player::Player;
use super::tuning;
use super::{ReplayError, ReplayJob, ReplayProgress};
use crate::gtid::GtidSet;
use crate::mysql::facts::gtid_executed;
use crate::mysql::session::Session;
use crate::restore::feed::{Fed, Feed};
use crate::restore::held;

/// How often the caller is told how far it is.
const TELL: Duration = Duration::from_millis(200);

/// Replays until the server has the job's set, on top of what it has.
///
/// # Errors
///
/// [`ReplayError`]; what was not finished of a transaction is taken back by the server, and the
/// settings are put back, unless the server is gone.
pub async fn by_sql(job: &ReplayJob<'_>, session: &mut Session) -> Result<(), ReplayError> {
    let found = tuning::tune_for_sql(session).await?;
    // The largest statement is settled when a connection is made.
    let outcome = match Session::connect(job.server).await {
        Ok(own) => play(job, own).await,
        Err(error) => Err(error.into()),
    };
    let restored = tuning::put_back(session, &found).await;
    outcome?;
    restored?;
    Ok(())
}

/// The connection that replays holds this.
const HELD: &str = "quillback_restore.replay";

async fn play(job: &ReplayJob<'_>, mut session: Session) -> Result<(), ReplayError> {
    session.set_timeout(None);
    tokio::select! {
        held = held::take(&mut session, HELD) => held?,
        () = job.cancel.cancelled() => return Err(ReplayError::Cancelled),
    }
    let executed = gtid_executed(&mut session).await?;
    let wanted = job.set.subtract(&executed);
    let total = count(job.set);
    let mut applied = total.saturating_sub(count(&wanted));
    let mut feed = Feed::new(
        job.repository.clone(),
        job.branch,
        job.members.to_vec(),
        wanted,
    );
    let mut player = Player::new(session, job).await?;
    let mut sent_bytes = 0;
    let mut told = Instant::now();
    let mut bytes = Vec::new();
    loop {
        if job.cancel.is_cancelled() {
            return Err(ReplayError::Cancelled);
        }
        match feed.next(&mut bytes).await? {
            Fed::File(checksum) => player.file(&bytes, checksum).await?,
            Fed::End => break,
            Fed::Event => {
                sent_bytes += bytes.len() as u64;
                let applying = async {
                    player.event(&bytes).await?;
                    if feed.is_between() {
                        player.end().await?;
                    }
                    Ok::<(), ReplayError>(())
                };
                tokio::select! {
                    outcome = applying => outcome?,
                    () = job.cancel.cancelled() => return Err(ReplayError::Cancelled),
                }
                applied += u64::from(feed.is_between());
            }
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            (job.progress)(ReplayProgress {
                applied,
                total,
                sent_bytes,
            });
        }
    }
    (job.progress)(ReplayProgress {
        applied,
        total,
        sent_bytes,
    });
    player.close().await;
    Ok(())
}

fn count(set: &GtidSet) -> u64 {
    u64::try_from(set.count()).unwrap_or(u64::MAX)
}
