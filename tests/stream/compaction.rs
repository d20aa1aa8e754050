//! Small segments become large ones while others read, and while the one that does it dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback::gtid::{Gtid, GtidSet};
use quillback::observe::fail_point::FailPoint;
use quillback_harness::ledger::{LedgerOptions, fixed};
use quillback_harness::{Ledger, Server};
use tokio_util::sync::CancellationToken;

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::place::{LIMIT, Place, Streamer};
use crate::{archived, gtid_executed};

const STREAM: [&str; 4] = ["--flush-interval", "50ms", "--compact-after", "2s"];

async fn compacted(streamer: &Streamer) -> Result<()> {
    streamer
        .until_event("a compaction", |event| event["event"] == "compacted")
        .await?;
    Ok(())
}

async fn slow_ledger(server: &Server) -> Result<Ledger> {
    let options = LedgerOptions {
        pause: Duration::from_millis(20),
        ..LedgerOptions::default()
    };
    Ledger::start_with(fixed(&server.url()), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_while_it_is_compacted_sees_every_transaction_once() -> Result<()> {
    let server = Server::start().await?;
    let place = Arc::new(Place::folder().await?);
    let streamer = place.stream(&[server.url()], &STREAM)?;
    streamer.following().await?;
    let mut ledger = slow_ledger(&server).await?;
    let stop = CancellationToken::new();
    let reading = tokio::spawn(read_on(Arc::clone(&place), stop.clone()));
    for _ in 0..5 {
        compacted(&streamer).await?;
        ensure!(!reading.is_finished(), "{:?}", reading.await);
    }
    ledger.stop().await;
    place
        .wait_holds(&streamer, &gtid_executed(&server).await?)
        .await?;
    stop.cancel();
    let reads = reading.await??;
    ensure!(reads > 5, "{reads} reads");
    streamer.stop().await?.is(0);
    audit(&place.repository, &ledger).await?;
    let chain = place.chain().await?;
    let reported = streamer.reported()?.len();
    ensure!(
        chain.segments.len() < reported,
        "{} segments of {reported}",
        chain.segments.len()
    );
    ensure!(chain.segments.iter().any(|stored| stored.name.compacted));
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// Reads all of the archive again and again: nothing is there twice, and nothing goes away.
async fn read_on(place: Arc<Place>, stop: CancellationToken) -> Result<usize> {
    let mut seen = GtidSet::new();
    let mut reads = 0;
    while !stop.is_cancelled() {
        let transactions = archived(&place.repository).await?;
        let gtids: BTreeSet<&Gtid> = transactions.iter().map(|(gtid, _)| gtid).collect();
        ensure!(
            gtids.len() == transactions.len(),
            "a transaction is there twice"
        );
        let now: GtidSet = gtids.into_iter().cloned().collect();
        let gone = seen.subtract(&now);
        ensure!(gone.is_empty(), "{gone:#} is gone");
        seen = now;
        reads += 1;
    }
    Ok(reads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamer_that_dies_in_a_compaction_is_made_good_by_the_next() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let place = Place::folder().await?;
    let first = place.stream(&servers, &STREAM)?;
    first.following().await?;
    let mut ledger = slow_ledger(&server).await?;
    first.stop().await?.is(0);
    let points = [FailPoint::Merged, FailPoint::Compacted, FailPoint::Replaced];
    for point in points {
        for nth in [1, 3] {
            let armed = format!("{}:{nth}", point.name());
            let round = async {
                let env = [("QUILLBACK_FAIL_POINT", armed.as_str())];
                let dying = place.stream_with(&servers, &STREAM, &env)?;
                dying.aborted().await?;
                ledger.wait_acknowledged(10, LIMIT).await?;
                let next = place.take_over(&servers, &STREAM).await?;
                {
                    let _paused = ledger.pause().await;
                    let executed = gtid_executed(&server).await?;
                    place.wait_holds(&next, &executed).await?;
                    audit(&place.repository, &ledger).await?;
                }
                compacted(&next).await?;
                next.stop().await?.is(0);
                audit_of_what_is_held(&place).await
            };
            round.await.with_context(|| armed.clone())?;
        }
    }
    ledger.stop().await;
    check_by_hand(&place.repository).await?;
    Ok(())
}

async fn audit_of_what_is_held(place: &Place) -> Result<()> {
    let transactions = archived(&place.repository).await?;
    let gtids: BTreeSet<&Gtid> = transactions.iter().map(|(gtid, _)| gtid).collect();
    ensure!(
        gtids.len() == transactions.len(),
        "a transaction is there twice"
    );
    Ok(())
}
