//! The log of the cut, said to the staged tables.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::PartsError;
use super::journal::PartsJournal;
use super::player::Player;
use super::prepare::PreparedParts;
use super::xa;
use crate::gtid::Gtid;
use crate::mysql::facts::ServerFacts;
use crate::mysql::session::Session;
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::restore::feed::{Fed, Feed};
use crate::restore::replay::ReplayProgress;
use crate::restore::{Observer, RestoreEvent};

/// How often the caller is told how far it is.
const TELL: Duration = Duration::from_millis(200);

/// What a replay of tables did.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Transactions that concern the tables, those of an earlier run among them.
    pub(super) transactions: u64,
}

/// Who is told, and who may end it.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) observer: &'a Observer,
    pub(super) cancel: &'a CancellationToken,
    pub(super) fail_points: &'a FailPoints,
}

/// Says what concerns the tables, from where the journal is on. No other connection may be at that.
pub(super) async fn replay(
    prepared: &PreparedParts,
    session: Session,
    journal: &PartsJournal,
    facts: &ServerFacts,
    around: Around<'_>,
) -> Result<Replayed, PartsError> {
    if prepared.wanted.is_empty() {
        return Ok(Replayed::default());
    }
    let log = xa::Log {
        repository: &prepared.repository,
        history: &prepared.history,
        set: &prepared.set,
        members: &prepared.members,
    };
    let (chosen, case) = (&prepared.chosen, prepared.case);
    let mut player = Player::new(
        session,
        chosen,
        case,
        facts,
        &log,
        journal,
        around.fail_points,
    )
    .await?;
    let mut feed = Feed::new(
        prepared.repository.clone(),
        prepared.history.branch,
        prepared.history.needed(&prepared.wanted),
        prepared.wanted.clone(),
    );
    let (mut bytes, mut sent_bytes) = (Vec::new(), 0);
    let mut told = Instant::now();
    let mut passed_point = false;
    loop {
        if around.cancel.is_cancelled() {
            return Err(PartsError::Cancelled);
        }
        match feed.next(&mut bytes).await? {
            Fed::File(checksum) => player.file(&bytes, checksum).await?,
            Fed::End => break,
            Fed::Event => {
                sent_bytes += bytes.len() as u64;
                tokio::select! {
                    outcome = player.event(&bytes) => outcome?,
                    () = around.cancel.cancelled() => return Err(PartsError::Cancelled),
                }
                if feed.is_between() {
                    let (number, gtid) = player.ended().await?;
                    if let Some(gtid) = gtid.filter(|_| number == journal.position) {
                        fits(&player, journal, &gtid)?;
                    }
                    if number > journal.position && !passed_point {
                        passed_point = true;
                        around.fail_points.pass(FailPoint::Replaying);
                    }
                }
            }
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            (around.observer)(RestoreEvent::Replay(ReplayProgress {
                applied: player.met,
                total: prepared.plan.transactions,
                sent_bytes,
            }));
        }
    }
    let replayed = Replayed {
        transactions: player.met,
    };
    if player.met < journal.position {
        return Err(PartsError::Journal {
            server: prepared.plan.server.clone(),
            reason: format!(
                "it says that {} transactions are applied, and the log has {}",
                journal.position, player.met
            ),
        });
    }
    player.close().await;
    Ok(replayed)
}

/// Fails unless the transaction where an earlier run stopped is the one that it wrote down.
fn fits(player: &Player<'_>, journal: &PartsJournal, gtid: &Gtid) -> Result<(), PartsError> {
    let text = gtid.to_string();
    if journal.position == 0 || text == journal.gtid {
        return Ok(());
    }
    Err(PartsError::Journal {
        server: player.session.address().to_string(),
        reason: format!(
            "transaction {} of these tables is {text} in the log, and not {}",
            journal.position, journal.gtid
        ),
    })
}
