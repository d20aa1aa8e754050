//! Where a source's history leaves the archive's, although both have the same GTIDs.
//!
//! A group that lost its last transactions gives their GTIDs to new ones; a restored server does
//! so too. The archive's transactions are asked for again, newest first and in ever larger
//! numbers, until the oldest ones that were compared are the same. What differs is what a new
//! branch leaves behind.

use std::time::Duration;

use super::error::StreamError;
use super::upstream::{DumpWish, Source};
use super::witness::Witness;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::Repository;
use crate::archive::segment::IndexedTransaction;
use crate::gtid::GtidSet;
use crate::mysql::wire::{DumpPacket, WireError};
use uuid::Uuid;

/// Transactions that are compared at first.
const FIRST: usize = 64;
/// How much more in each further round.
const FACTOR: usize = 16;
/// More lines than this are not held in memory.
const MOST: usize = 1 << 18;
/// So many of the oldest ones that were compared must be the same.
const SAME: usize = 16;
/// A source that has nothing more to send of what was asked for is left.
const QUIET: Duration = Duration::from_secs(60);

/// The transactions of the archive for which `source` has other ones; none if the histories are
/// the same as far back as can be compared.
///
/// # Errors
///
/// The store's and the server's; [`StreamError::Unsuitable`] if they part further back than can be
/// compared.
pub(super) async fn find(
    repository: &Repository,
    branch: BranchNumber,
    source: &mut dyn Source,
    replica_uuid: Uuid,
) -> Result<GtidSet, StreamError> {
    let history = source.history().await?;
    let known = history.executed.subtract(&history.purged);
    let chain = repository.chain(branch).await?;
    let held = chain
        .resume_point()
        .map_or_else(GtidSet::new, |stored| stored.index.after());
    // What the source does not know it cannot be asked to leave out.
    let held = held.intersect(&history.executed);
    let mut older = chain.segments.iter().rev();
    // The newest first.
    let mut lines: Vec<IndexedTransaction> = Vec::new();
    let mut number = FIRST;
    loop {
        while lines.len() < number
            && let Some(stored) = older.next()
        {
            let read = repository.read_transactions(stored).await?;
            lines.extend(
                read.into_iter()
                    .rev()
                    .filter(|line| known.contains(&line.gtid)),
            );
        }
        let all = lines.len() < number;
        let differing = compare(source, replica_uuid, &held, &lines).await?;
        let oldest = lines.iter().rev().take(SAME);
        if all || oldest.clone().all(|line| !differing.contains(&line.gtid)) {
            return Ok(differing);
        }
        number = lines.len().saturating_mul(FACTOR);
        if number > MOST {
            return Err(StreamError::Unsuitable {
                server: source.info().name.clone(),
                reason: format!(
                    "the newest {} transactions of the archive are all others there",
                    lines.len()
                ),
            });
        }
    }
}

/// Which of these transactions are others at the source.
async fn compare(
    source: &mut dyn Source,
    replica_uuid: Uuid,
    held: &GtidSet,
    lines: &[IndexedTransaction],
) -> Result<GtidSet, StreamError> {
    let mut differing = GtidSet::new();
    if lines.is_empty() {
        return Ok(differing);
    }
    let server = source.info().name.clone();
    let mut witness = Witness::of(&server, lines.iter().cloned());
    let wish = DumpWish {
        replica_uuid,
        semi_sync: false,
    };
    let mut dump = source
        .dump(wish, &held.subtract(&witness.asks_for()))
        .await?;
    witness.expect(dump.checksum());
    while !witness.is_done() {
        let packet = tokio::time::timeout(QUIET, dump.next()).await;
        let Ok(packet) = packet else {
            return Err(WireError::Silent {
                address: server,
                seconds: QUIET.as_secs(),
            }
            .into());
        };
        let DumpPacket::Event { bytes, .. } = packet? else {
            return Err(StreamError::Unsuitable {
                server,
                reason: "it ended the stream before everything could be compared".to_owned(),
            });
        };
        match witness.takes(&bytes) {
            Ok(_) => {}
            Err(StreamError::OtherPayload { parted, .. }) => differing.extend_from(&parted),
            Err(error) => return Err(error),
        }
    }
    Ok(differing)
}
