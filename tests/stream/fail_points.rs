//! The real streamer dies at every named point, under load, and the next run makes it good.
//!
//! The store is away for a while in each round, so that the points of the spool are passed as well; what an earlier round
//! left there is the next one's to recover.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::observe::fail_point::FailPoint;
use quillback_harness::ledger::{LedgerOptions, fixed};
use quillback_harness::{Ledger, Minio, Proxy, Server, until};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::gtid_executed;
use crate::place::{LIMIT, Place, Streamer};
use crate::semi_sync;

/// The points that this load passes; the others have tests of their own, and no point may be in neither.
fn is_passed_here(point: FailPoint) -> bool {
    !ELSEWHERE.contains(&point)
}

/// A new history, and compaction: see `branches` and `compaction`.
const ELSEWHERE: [FailPoint; 4] = [
    FailPoint::BranchMade,
    FailPoint::Merged,
    FailPoint::Compacted,
    FailPoint::Replaced,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamer_that_dies_at_any_point_is_made_good_by_the_next() -> Result<()> {
    let minio = Minio::start().await?;
    let endpoint = minio.endpoint();
    let target = endpoint.strip_prefix("http://").context("an endpoint")?;
    let proxy = Proxy::start(target).await?;
    let place = Place::bucket(&minio, &proxy.url(&endpoint)).await?;
    let server = semi_sync::source().await?;
    let servers = [server.url()];
    let spool = place.path("spool").display().to_string();
    let stream = [
        "--flush-interval",
        "100ms",
        "--semi-sync",
        "spool",
        "--spool-dir",
        &spool,
    ];
    let first = place.stream(&servers, &stream)?;
    semi_sync::acknowledging(&server, &first).await?;
    let options = LedgerOptions {
        pause: Duration::from_millis(20),
        ..LedgerOptions::default()
    };
    let mut ledger = Ledger::start_with(fixed(&server.url()), options).await?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    // It leaves something on disk.
    proxy.cut().await;
    ledger.wait_acknowledged(20, LIMIT).await?;
    first.kill().await?;
    proxy.restore().await;

    let points = FailPoint::STREAM
        .iter()
        .filter(|point| is_passed_here(**point));
    for (point, nth) in points.flat_map(|point| [(point, 1), (point, 3)]) {
        let armed = format!("{}:{nth}", point.name());
        let round = async {
            let dying =
                place.stream_with(&servers, &stream, &[("QUILLBACK_FAIL_POINT", &armed)])?;
            die(&dying, &proxy, *point, nth).await?;
            let next = place.take_over(&servers, &stream).await?;
            semi_sync::acknowledging(&server, &next).await?;
            ledger.wait_acknowledged(10, LIMIT).await?;
            check(&place, &next, &server, &ledger).await?;
            // Something is left on disk for the next round.
            proxy.cut().await;
            ledger.wait_acknowledged(10, LIMIT).await?;
            next.kill().await?;
            proxy.restore().await;
            anyhow::Ok(())
        };
        round.await.context(armed)?;
    }
    let last = place.stream(&servers, &stream)?;
    semi_sync::acknowledging(&server, &last).await?;
    ledger.stop().await;
    check(&place, &last, &server, &ledger).await?;
    last.stop().await?.is(0);
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// Lets the store come and go until the streamer has died at its point.
async fn die(streamer: &Streamer, proxy: &Proxy, point: FailPoint, nth: u32) -> Result<()> {
    // A run passes some points only once.
    let once = matches!(
        point,
        FailPoint::BeforeClaim
            | FailPoint::AfterClaim
            | FailPoint::Following
            | FailPoint::Recovered
    );
    if once && nth > 1 {
        streamer.following().await?;
        return streamer.kill().await;
    }
    let was_up = AtomicBool::new(true);
    until("the streamer to die", LIMIT, async || {
        if !was_up.fetch_xor(true, Ordering::Relaxed) {
            proxy.restore().await;
        } else if streamer
            .events()?
            .iter()
            .any(|event| event["event"] == "following")
        {
            proxy.cut().await;
        }
        let ended = tokio::time::timeout(Duration::from_secs(1), streamer.ended()).await;
        Ok(ended.is_ok().then_some(()))
    })
    .await
    .with_context(|| streamer.stderr())?;
    proxy.restore().await;
    streamer.aborted().await
}

async fn check(place: &Place, streamer: &Streamer, server: &Server, ledger: &Ledger) -> Result<()> {
    let _paused = ledger.pause().await;
    place
        .wait_holds(streamer, &gtid_executed(server).await?)
        .await?;
    audit(&place.repository, ledger).await?;
    Ok(())
}
