//! An archive that is not what was written: found out, told by its class, never restored from.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::catalog::StoredSegment;
use quillback::error::{Class, Classified as _};
use quillback::restore::target::Target;
use quillback::restore::{RestoreError, RestoreRequest, prepare};
use quillback_harness::Server;
use tokio::sync::OnceCell;

use crate::support::{
    Archive, State, assert_restored, assert_untouched, chain, exec_all, executed, full, on_primary,
    request, restore, snapshot, state, stream_once, url,
};

/// A snapshot and a log of several segments behind it, one of them in parts.
struct Small {
    archive: Archive,
    end: State,
}

async fn small() -> Result<&'static Small> {
    static SMALL: OnceCell<Small> = OnceCell::const_new();
    SMALL
        .get_or_try_init(|| async {
            let source = Server::start().await?;
            exec_all(
                &source,
                &[
                    "CREATE DATABASE d",
                    "CREATE TABLE d.t (id INT PRIMARY KEY, pad LONGBLOB)",
                    "INSERT INTO d.t VALUES (1, 'in the snapshot')",
                ],
            )
            .await?;
            let archive = Archive::new().await?;
            snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
            for statement in [
                "INSERT INTO d.t VALUES (2, 'two')",
                "UPDATE d.t SET pad = 'changed' WHERE id = 1",
                // In parts: many events, none of which compresses.
                "INSERT INTO d.t WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
                 SELECT i, RANDOM_BYTES(1000) FROM n",
                "INSERT INTO d.t VALUES (3, 'three')",
                "DELETE FROM d.t WHERE id = 2",
            ] {
                exec_all(&source, &[statement]).await?;
                stream_once(&archive.repository, &source).await?;
            }
            let end = state(&source).await?;
            Ok::<_, anyhow::Error>(Small { archive, end })
        })
        .await
}

/// Restores the newest state of a damaged archive, which must fail.
async fn fails(archive: &Archive, server: &Server) -> Result<(Class, String)> {
    let report = restore(&archive.repository, request(Target::Latest, server)).await;
    let error = report.err().context("a damaged archive was restored")?;
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Ok((error.class(), text))
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    write(path, &bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::remove_file(path)?;
    std::fs::write(path, bytes)?;
    Ok(())
}

/// The segments of the transaction in parts, in order.
fn parts(segments: &[StoredSegment]) -> Vec<&StoredSegment> {
    segments
        .iter()
        .filter(|segment| segment.index.part.is_some())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unharmed_it_is_restored() -> Result<()> {
    let small = small().await?;
    let chain = chain(&small.archive.repository).await?;
    assert_eq!(chain.problems, []);
    ensure!(parts(&chain.segments).len() >= 3, "{:?}", chain.segments);
    let server = Server::start().await?;
    let archive = small.archive.copy().await?;
    let report = restore(&archive.repository, request(Target::Latest, &server)).await?;
    assert_restored(&server, &report, &small.end).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_segment_is_a_gap_before_the_target_is_touched() -> Result<()> {
    let small = small().await?;
    let server = Server::start().await?;
    let before = executed(&server).await?;
    let chain = chain(&small.archive.repository).await?;
    let full = full(&chain);
    let last = full.last().expect("there are segments").name.key();
    for segment in &full[..full.len() - 1] {
        let archive = small.archive.copy().await?;
        std::fs::remove_file(archive.file(&segment.name.key()))?;
        let (class, text) = fails(&archive, &server).await?;
        assert_eq!(class, Class::Gap, "without {}: {text}", segment.name.key());
        ensure!(segment.name.key() != last);
    }
    // Each part of a transaction counts, although the last one alone tells its GTID.
    for part in parts(&chain.segments) {
        let archive = small.archive.copy().await?;
        std::fs::remove_file(archive.file(&part.name.key()))?;
        let (class, text) = fails(&archive, &server).await?;
        assert_eq!(class, Class::Gap, "without {}: {text}", part.name.key());
    }
    assert_untouched(&server, &before).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_index_or_list_is_found_before_the_target_is_touched() -> Result<()> {
    let small = small().await?;
    let server = Server::start().await?;
    let before = executed(&server).await?;
    let chain = chain(&small.archive.repository).await?;
    for segment in full(&chain) {
        // The frame's head, its signature, the JSON, the digest.
        for at in [0, 5, 9, 100] {
            let archive = small.archive.copy().await?;
            flip(&archive.file(&segment.name.key()), |_| at)?;
            let (class, text) = fails(&archive, &server).await?;
            assert_eq!(class, Class::Integrity, "byte {at}: {text}");
        }
    }
    // The list of transactions decides where a moment falls.
    let segment = *full(&chain).last().expect("there are segments");
    let archive = small.archive.copy().await?;
    flip(&archive.file(&segment.name.key()), |length| length - 3)?;
    let gtid = segment.index.added.iter().next().expect("it has some");
    let error = restore(
        &archive.repository,
        request(Target::BeforeGtid { gtid }, &server),
    )
    .await
    .expect_err("its list is damaged");
    assert_eq!(error.class(), Class::Integrity, "{error}");
    assert_untouched(&server, &before).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_cut_short_is_found_before_the_target_is_touched() -> Result<()> {
    let small = small().await?;
    let server = Server::start().await?;
    let before = executed(&server).await?;
    let chain = chain(&small.archive.repository).await?;
    let segment = *full(&chain).first().expect("there are segments");
    let path = |archive: &Archive| archive.file(&segment.name.key());
    let whole = std::fs::read(path(&small.archive))?;
    for length in [0, 3, 7, 200, whole.len() - 1] {
        let archive = small.archive.copy().await?;
        write(&path(&archive), &whole[..length])?;
        let (class, text) = fails(&archive, &server).await?;
        assert_eq!(class, Class::Integrity, "{length} bytes: {text}");
    }
    let archive = small.archive.copy().await?;
    write(&path(&archive), &[&whole[..], b"more"].concat())?;
    let (class, text) = fails(&archive, &server).await?;
    assert_eq!(class, Class::Integrity, "{text}");
    assert_untouched(&server, &before).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_of_the_data_ends_the_replay() -> Result<()> {
    let small = small().await?;
    let server = Server::start().await?;
    let chain = chain(&small.archive.repository).await?;
    let segment = *full(&chain).last().expect("there are segments");
    let archive = small.archive.copy().await?;
    let body = segment.index.body_bytes as usize;
    flip(&archive.file(&segment.name.key()), |length| {
        length - body + 20
    })?;
    let (class, text) = fails(&archive, &server).await?;
    assert_eq!(class, Class::Integrity, "{text}");
    ensure!(text.contains(&segment.name.key()), "{text}");
    // What it has is not what was planned, and nothing goes on in the background.
    ensure!(executed(&server).await? != small.end.set);
    let read_only: bool = server.one("SELECT @@GLOBAL.super_read_only").await?;
    ensure!(read_only, "the unfinished server takes writes");
    let channels: Vec<String> = server
        .query("SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration")
        .await?;
    assert_eq!(channels, [""; 0]);
    // It is marked as unfinished, and goes on once the object is whole again, read-only as it is.
    let (class, text) = fails(&archive, &server).await?;
    assert_eq!(class, Class::Refused, "{text}");
    ensure!(text.contains("unfinished"), "{text}");
    let whole = small.archive.copy().await?;
    let asked = RestoreRequest {
        resume: true,
        ..request(Target::Latest, &server)
    };
    let report = restore(&whole.repository, asked).await?;
    ensure!(report.resumed, "{report:?}");
    assert_restored(&server, &report, &small.end).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_in_anothers_place_is_found_out() -> Result<()> {
    let small = small().await?;
    let server = Server::start().await?;
    let before = executed(&server).await?;
    let chain = chain(&small.archive.repository).await?;
    let full = full(&chain);
    let archive = small.archive.copy().await?;
    let other = std::fs::read(archive.file(&full[1].name.key()))?;
    write(&archive.file(&full[0].name.key()), &other)?;
    let (class, text) = fails(&archive, &server).await?;
    assert_eq!(class, Class::Integrity, "{text}");
    assert_untouched(&server, &before).await
}

/// What cannot be had comes with what can: each offer is tried before it is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_hole_the_nearest_states_are_offered() -> Result<()> {
    let small = small().await?;
    let server = Server::start().await?;
    let before = executed(&server).await?;
    let chain = chain(&small.archive.repository).await?;
    let full = full(&chain);
    for segment in &full[..full.len() - 1] {
        let archive = small.archive.copy().await?;
        std::fs::remove_file(archive.file(&segment.name.key()))?;
        let asked = request(Target::Latest, &server);
        let error = restore(&archive.repository, asked).await;
        let error = error.err().context("there is a hole")?;
        let RestoreError::Plan { nearest, .. } = &error else {
            anyhow::bail!("{error:?}");
        };
        ensure!(nearest.after.is_none(), "no snapshot is behind the hole");
        let offer = nearest.before.as_ref().context("no offer")?;
        let asked = request(offer.target.clone(), &server);
        let prepared = prepare(archive.repository.clone(), asked).await?;
        match (&offer.target, &prepared.plan.cut.last_in) {
            (Target::Until { moment }, Some(last)) => {
                ensure!(last.time <= *moment, "{last:?}");
            }
            // Before the first segment there is no moment that the log vouches for, but a snapshot.
            (Target::UntilGtid { .. }, None) if segment.name == full[0].name => {}
            other => anyhow::bail!("{other:?}"),
        }
        ensure!(
            prepared.plan.result.is_disjoint(&segment.index.added),
            "it is behind the hole"
        );
    }
    assert_untouched(&server, &before).await
}
