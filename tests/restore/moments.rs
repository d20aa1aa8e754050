//! Moments against a naive model: the first transaction committed after the moment is out, and
//! all behind it, to the microsecond.

use anyhow::{Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use quillback::archive::segment::IndexedTransaction;
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::restore::prepare;
use quillback::restore::target::Target;
use quillback_harness::Server;

use crate::story::story;
use crate::support::{
    Archive, assert_untouched, chain, exec_all, executed, on_primary, request, snapshot,
    stream_once,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_is_cut_to_the_microsecond() -> Result<()> {
    let story = story().await?;
    let repository = &story.archive.repository;
    let server = Server::start().await?;
    let chain = chain(repository).await?;
    let mut log: Vec<IndexedTransaction> = Vec::new();
    for segment in &chain.segments {
        log.extend(repository.read_transactions(segment).await?);
    }
    let before = chain.start().expect("there are segments").clone();
    let naive = |moment: DateTime<Utc>| {
        let mut set = before.clone();
        for transaction in log.iter().take_while(|t| t.time <= moment) {
            set.insert(&transaction.gtid);
        }
        set
    };
    let first = repository.snapshots().await?.remove(0).gtid_executed;
    let mut tried = 0;
    let end = chain.complete_to().expect("the stream was complete");
    let last = log.len() - 1;
    ensure!(end >= log[last].time, "the archive ends before its end");
    let every_seventh = (0..last).step_by(7);
    for transaction in every_seventh.chain([last]).map(|at| &log[at]) {
        for micros in [-1, 0, 1] {
            let moment = transaction.time + TimeDelta::microseconds(micros);
            let moment = moment.min(end);
            let expected = naive(moment);
            if !first.is_subset(&expected) {
                continue;
            }
            tried += 1;
            let target = Target::Until { moment };
            let prepared = prepare(repository.clone(), request(target, &server)).await?;
            assert_eq!(prepared.plan.result, expected, "{moment}");
            let is_in = expected.contains(&transaction.gtid);
            assert_eq!(is_in, micros >= 0, "{moment}");
        }
    }
    ensure!(tried > 30, "only {tried} moments");

    // The end itself is covered, one microsecond more is not, and the answer says where the end is.
    let at = |moment| request(Target::Until { moment }, &server);
    prepare(repository.clone(), at(end)).await?;
    let error = prepare(repository.clone(), at(end + TimeDelta::microseconds(1)))
        .await
        .expect_err("beyond the end");
    assert_eq!(error.class(), Class::NotCovered);
    let text = error.to_string();
    assert!(text.contains(&quillback::clock::rfc3339(end)), "{text}");
    Ok(())
}

/// A restore never overshoots: a moment before the first snapshot has no state in the archive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_before_the_first_snapshot_is_not_covered() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"],
    )
    .await?;
    let early: String = source
        .one("SELECT DATE_FORMAT(UTC_TIMESTAMP(6), '%Y-%m-%dT%H:%i:%s.%fZ')")
        .await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (1)"]).await?;
    let archive = Archive::new().await?;
    let taken = snapshot(
        &archive.repository,
        &[(source.url().parse()?)],
        &on_primary(),
    )
    .await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (2)"]).await?;
    stream_once(&archive.repository, &source).await?;

    let server = Server::start().await?;
    let before = executed(&server).await?;
    let early = DateTime::parse_from_rfc3339(&early)?.to_utc();
    let long_ago = DateTime::UNIX_EPOCH;
    for moment in [long_ago, early] {
        let asked = request(Target::Until { moment }, &server);
        let error = prepare(archive.repository.clone(), asked)
            .await
            .expect_err("the snapshot already holds what came later");
        assert_eq!(error.class(), Class::NotCovered, "{error}");
    }
    assert_untouched(&server, &before).await?;

    // From the snapshot's end on it is.
    let manifest = archive.repository.snapshots().await?.remove(0);
    let moment = manifest.finished;
    let prepared = prepare(
        archive.repository.clone(),
        request(Target::Until { moment }, &server),
    )
    .await?;
    assert_eq!(prepared.plan.result, taken.gtid_executed);
    assert_ne!(prepared.plan.result, GtidSet::new());
    Ok(())
}

/// To the microsecond around a DROP TABLE: one before it the table is there, at it it is gone; and
/// every way to name the two states leads to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_a_drop_every_target_says_which_side_it_is_on() -> Result<()> {
    let story = story().await?;
    let repository = &story.archive.repository;
    let server = Server::start().await?;
    let chain = chain(repository).await?;
    let mut log: Vec<IndexedTransaction> = Vec::new();
    for segment in &chain.segments {
        log.extend(repository.read_transactions(segment).await?);
    }
    let at = log.iter().position(|line| line.gtid == story.drop);
    let at = at.expect("it is in the log");
    let (drop, previous) = (&log[at], &log[at - 1]);
    let mut with = story.before_drop.set.clone();
    with.insert(&story.drop);
    for (target, is_in) in [
        (
            Target::Until {
                moment: drop.time - TimeDelta::microseconds(1),
            },
            false,
        ),
        (Target::Until { moment: drop.time }, true),
        (
            Target::BeforeGtid {
                gtid: drop.gtid.clone(),
            },
            false,
        ),
        (
            Target::UntilGtid {
                set: GtidSet::from(previous.gtid.clone()),
            },
            false,
        ),
        (
            Target::UntilGtid {
                set: GtidSet::from(drop.gtid.clone()),
            },
            true,
        ),
        (Target::UntilGtid { set: with.clone() }, true),
    ] {
        let told = target.to_string();
        let plan = prepare(repository.clone(), request(target, &server))
            .await?
            .plan;
        let expected = if is_in { &with } else { &story.before_drop.set };
        assert_eq!(plan.result, *expected, "{told}");
        let edge = if is_in {
            plan.cut.last_in
        } else {
            plan.cut.first_out
        };
        let edge = edge.expect("the log goes on on both sides");
        assert_eq!(edge.gtid, drop.gtid, "{told}");
        ensure!(edge.what.starts_with("DROP TABLE"), "{told}: {}", edge.what);
    }
    Ok(())
}
