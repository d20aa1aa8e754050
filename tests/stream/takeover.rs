//! Two streamers and one archive: at any time what one of them writes counts, and the other knows.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::layout::{Epoch, SegmentName};
use quillback::storage::list_all;
use quillback_harness::ledger::fixed;
use quillback_harness::{Ledger, Minio, Random, Server, until};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::gtid_executed;
use crate::place::{LIMIT, Place, Streamer};

const FLUSH: [&str; 2] = ["--flush-interval", "100ms"];
/// A paused streamer still looks connected to its source: what tells is that it archives nothing.
const STANDBY: [&str; 5] = [
    "--flush-interval",
    "100ms",
    "--standby",
    "--takeover-after",
    "3s",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_streamer_that_wakes_after_the_takeover_writes_nothing_that_counts() -> Result<()>
{
    let place = Place::folder().await?;
    take_turns(&place).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_streamer_that_wakes_after_the_takeover_is_fenced_on_s3_too() -> Result<()> {
    let minio = Minio::start().await?;
    let place = Place::bucket(&minio, &minio.endpoint()).await?;
    take_turns(&place).await
}

async fn take_turns(place: &Place) -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let mut current = place.stream(&servers, &FLUSH)?;
    current.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    let mut streamers = Vec::new();
    for round in 1..=5 {
        // Each time it stands somewhere else: reading, packing, writing, asking for newer claims.
        ledger.wait_acknowledged(17 + 7 * round, LIMIT).await?;
        current.pause()?;
        ledger.wait_acknowledged(10, LIMIT).await?;
        let next = place.stream(&servers, &STANDBY)?;
        next.following().await?;
        ledger.wait_acknowledged(20, LIMIT).await?;
        let there = log_keys(place).await?;
        current.resume()?;
        let ended = current.ended().await?;
        let own = own_epoch(&current)?;
        ended.refused(
            11,
            &format!(
                "error: epoch {} has taken over the archive from epoch {own}\n  \
                 try: nothing, if the other streamer is meant to run; else stop it, then start this one",
                own + 1
            ),
        );
        has_written(&next).await?;
        late_segments_do_not_count(place, Epoch(own), &there).await?;
        streamers.push(std::mem::replace(&mut current, next));
    }
    ledger.stop().await;
    place
        .wait_holds(&current, &gtid_executed(&server).await?)
        .await?;
    current.stop().await?.is(0);
    streamers.push(current);
    audit(&place.repository, &ledger).await?;
    reported_counts(place, &streamers).await?;
    check_by_hand(&place.repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_streamer_gives_way_to_a_living_one_or_waits_for_its_end() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    let mut first = place.stream(&servers, &FLUSH)?;
    first.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    for end in [End::Peace, End::Kill] {
        ledger.wait_acknowledged(20, LIMIT).await?;
        let own = own_epoch(&first)?;
        for arguments in [&["stream"][..], &["stream", "--once"]] {
            let arguments = [&["--json"], arguments, &FLUSH].concat();
            let ended = place.run(&servers, &arguments).await?;
            ended.is(11);
            let error = format!(
                "error: epoch {own} has the archive: process {} on ",
                first.pid()?
            );
            let hint = "\n  try: --standby, to take over when it is gone; or stop it first\n";
            ensure!(
                ended.err.starts_with(&error) && ended.err.ends_with(hint),
                "{}",
                ended.err
            );
        }
        let flags = ["--standby", "--flush-interval", "100ms"];
        let standby = place.stream(&servers, &flags)?;
        let waiting = standby
            .until_event("a standby", |event| event["event"] == "standby")
            .await?;
        ensure!(waiting["epoch"] == own, "{waiting}");
        ledger.wait_acknowledged(100, LIMIT).await?;
        ensure!(first.is_alive() && standby.is_alive());
        // A standby that is not needed ends in peace as well.
        let idle = place.stream(&servers, &flags)?;
        idle.until_event("a standby", |event| event["event"] == "standby")
            .await?;
        idle.stop().await?.is(0);
        match end {
            End::Peace => first.stop().await?.is(0),
            End::Kill => first.kill().await?,
        }
        standby.following().await?;
        ensure!(own_epoch(&standby)? == own + 1);
        first = standby;
    }
    ledger.wait_acknowledged(20, LIMIT).await?;
    ledger.stop().await;
    place
        .wait_holds(&first, &gtid_executed(&server).await?)
        .await?;
    first.stop().await?.is(0);
    audit(&place.repository, &ledger).await?;
    Ok(())
}

/// How a streamer ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// SIGTERM.
    Peace,
    /// SIGKILL.
    Kill,
}

/// SIGKILL at whatever point it is, again and again; each run goes on from what the one before it left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamer_that_is_killed_again_and_again_loses_and_doubles_nothing() -> Result<()> {
    let place = Place::folder().await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    let mut random = Random::new(20_261_121);
    let mut streamers = Vec::new();
    let mut streamer = place.stream(&servers, &["--flush-interval", "20ms"])?;
    streamer.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    for _ in 0..12 {
        let more = usize::try_from(random.below(40))?;
        ledger.wait_acknowledged(more, LIMIT).await?;
        streamer.kill().await?;
        let next = place.stream(
            &servers,
            &["--flush-interval", "20ms", "--takeover-after", "1s"],
        )?;
        // It may be killed before it follows anything, and then nothing is to be waited for.
        if !random.once_in(4) {
            next.following().await?;
        }
        streamers.push(std::mem::replace(&mut streamer, next));
    }
    ledger.stop().await;
    place
        .wait_holds(&streamer, &gtid_executed(&server).await?)
        .await?;
    streamer.stop().await?.is(0);
    streamers.push(streamer);
    audit(&place.repository, &ledger).await?;
    reported_counts(&place, &streamers).await?;
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// The number of the claim that a streamer has said to be its own.
fn own_epoch(streamer: &Streamer) -> Result<u64> {
    let events = streamer.events()?;
    let claimed = events.iter().find(|event| event["event"] == "claimed");
    claimed
        .and_then(|event| event["epoch"].as_u64())
        .context("no claim")
}

async fn log_keys(place: &Place) -> Result<BTreeSet<String>> {
    let objects = list_all(&**place.repository.storage(), "log/", None).await?;
    Ok(objects.into_iter().map(|object| object.key).collect())
}

/// Waits for the first segment of an epoch. Until it is there nothing in the log names the place that the epoch goes on from, and a
/// late segment of the one before is a path's last: nobody has reported it, and its transactions come again.
async fn has_written(streamer: &Streamer) -> Result<()> {
    let written = async || Ok((!streamer.reported()?.is_empty()).then_some(()));
    until("the first segment of the new epoch", LIMIT, written)
        .await
        .with_context(|| streamer.stderr())
}

/// What an overtaken streamer has put since `there` was all is not in the chain.
async fn late_segments_do_not_count(
    place: &Place,
    epoch: Epoch,
    there: &BTreeSet<String>,
) -> Result<()> {
    let chain = place.chain().await?;
    ensure!(chain.problems.is_empty(), "{:?}", chain.problems);
    for key in log_keys(place).await?.difference(there) {
        let name = SegmentName::parse(key).context("a segment's name")?;
        let counts = chain.segments.iter().any(|stored| stored.name == name);
        ensure!(name.epoch != epoch || !counts, "{key} counts");
    }
    Ok(())
}

/// What any streamer has reported as archived is in the chain: itself, or in what it was compacted to.
async fn reported_counts(place: &Place, streamers: &[Streamer]) -> Result<()> {
    let chain = place.chain().await?;
    let mut count = 0;
    for streamer in streamers {
        for key in streamer.reported()? {
            let name = SegmentName::parse(&key).context("a segment's name")?;
            let holds = |stored: &SegmentName| {
                *stored == name
                    || stored.compacted && stored.epoch >= name.epoch && stored.last >= name.last
            };
            ensure!(
                chain.segments.iter().any(|stored| holds(&stored.name)),
                "{key} was reported as archived and does not count"
            );
            count += 1;
        }
    }
    ensure!(count > 10, "{count} segments were reported");
    Ok(())
}
