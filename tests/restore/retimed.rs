//! Archives with other commit times than those that servers give: the same real events, with the
//! time of their commit changed and their checksums made anew, in segments written by the
//! archive's own writer.

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use quillback::archive::hash::Sha256;
use quillback::archive::segment::{Draft, IndexedTransaction, Segment};
use quillback::clock::rfc3339;
use quillback::gtid::Gtid;
use quillback::mysql::HostPort;
use quillback::mysql::binlog::{Checksum, EventKind};
use quillback::restore::target::Target;
use quillback::restore::{RestoreRequest, prepare};
use quillback_harness::{Replicas, Server, ServerOptions};
use uuid::Uuid;

use crate::program;
use crate::support::{
    Archive, begun, begun_on, chain, exec_all, executed, request, restore, stream_once,
};

/// Where the commit time of a GTID event begins (7 bytes, the highest bit says that the time of the
/// origin follows).
const COMMIT_TIME: usize = 61;

type Lines = Vec<(IndexedTransaction, Uuid)>;

/// Every transaction of an archive, with the server whose binlog it was in.
async fn lines(archive: &Archive) -> Result<Lines> {
    let mut lines = Vec::new();
    for segment in &chain(&archive.repository).await?.segments {
        let source = segment.index.source.as_ref().map(|source| source.uuid);
        for line in archive.repository.read_transactions(segment).await? {
            lines.push((line, source.context("it has a source")?));
        }
    }
    Ok(lines)
}

/// A copy of an archive in which these transactions have these commit times.
async fn retimed(archive: &Archive, times: &[(Gtid, DateTime<Utc>)]) -> Result<Archive> {
    let copy = archive.copy().await?;
    let old = chain(&archive.repository).await?.segments;
    for segment in &old {
        std::fs::remove_file(copy.file(&segment.name.key()))?;
    }
    let mut previous: Option<Sha256> = None;
    for stored in &old {
        let segment = archive.repository.read_segment(stored).await?;
        let encoded = written_anew(&segment, previous, times)?;
        previous = Some(encoded.sha256);
        let bytes = encoded.bytes.into();
        copy.repository.put_segment(&encoded.name, bytes).await?;
    }
    let chain = chain(&copy.repository).await?;
    ensure!(chain.problems.is_empty(), "{:?}", chain.problems);
    Ok(copy)
}

fn written_anew(
    segment: &Segment,
    previous: Option<Sha256>,
    times: &[(Gtid, DateTime<Utc>)],
) -> Result<quillback::archive::segment::EncodedSegment> {
    let index = segment.index().clone();
    ensure!(index.part.is_none(), "these transactions are small");
    let mut details = segment.details()?;
    let time_of = |gtid: &Gtid| {
        times
            .iter()
            .find(|(of, _)| of == gtid)
            .map(|(_, time)| *time)
    };
    let mut gtids = details.iter().map(|line| line.gtid.clone());
    let mut events = segment.events()?;
    let mut format = Vec::new();
    let mut kept: Vec<(Vec<u8>, u32)> = Vec::new();
    while let Some(event) = events.next_event()? {
        let kind = event.kind();
        let mut bytes = event.bytes().to_vec();
        if kind == EventKind::FORMAT_DESCRIPTION {
            format = bytes;
            continue;
        }
        if kind == EventKind::PREVIOUS_GTIDS {
            continue;
        }
        ensure!(kind != EventKind::GTID_TAGGED, "it is laid out otherwise");
        if kind == EventKind::GTID {
            let gtid = gtids.next().context("a line for each")?;
            if let Some(time) = time_of(&gtid) {
                let micros = time.timestamp_micros().to_le_bytes();
                let flag = bytes[COMMIT_TIME + 6] & 0x80;
                bytes[COMMIT_TIME..COMMIT_TIME + 7].copy_from_slice(&micros[..7]);
                bytes[COMMIT_TIME + 6] |= flag;
                ensure!(index.checksum == Checksum::Crc32, "it has checksums");
                let end = bytes.len() - 4;
                let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
                bytes[end..].copy_from_slice(&crc);
            }
        }
        kept.push((bytes, event.header().server_id));
    }
    let place = (index.branch, index.epoch, index.first_sequence);
    let mut draft = Draft::begin(place, index.before.clone(), index.checksum, &format);
    draft.previous = index.previous.and(previous);
    draft.continues = index.continues;
    draft.gap = index.gap.clone();
    draft.source = index.source.as_ref().map(|source| {
        let source = source.clone();
        (source.uuid, source.version, source.file)
    });
    for (bytes, server_id) in &kept {
        draft.push_event(bytes, *server_id);
    }
    let mut last = index.complete_to;
    for line in &mut details {
        if let Some(time) = time_of(&line.gtid) {
            if line.original_time == Some(line.time) {
                line.original_time = Some(time);
            }
            line.time = time;
            last = last.max(Some(time));
        }
        draft.complete(line)?;
    }
    Ok(draft.encode(1, last, index.written)?)
}

/// A snapshot, and eight rows behind it in two segments.
async fn eight_rows() -> Result<Archive> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    for row in 1..=8 {
        let insert = format!("INSERT INTO d.t VALUES ({row})");
        exec_all(&source, &[&insert]).await?;
        if row % 4 == 0 {
            stream_once(&archive.repository, &source).await?;
        }
    }
    Ok(archive)
}

/// Restores, over what is there, and returns the rows.
async fn rows(archive: &Archive, server: &Server, target: Target) -> Result<Vec<u32>> {
    let told = target.to_string();
    let asked = RestoreRequest {
        wipe: Some(server.address().parse::<HostPort>()?),
        ..request(target, server)
    };
    let report = restore(&archive.repository, asked)
        .await
        .with_context(|| told.clone())?;
    ensure!(executed(server).await? == report.gtid_executed, "{told}");
    server.query("SELECT id FROM d.t ORDER BY id").await
}

/// The same by the program, which ends with `code`: what it says, and the rows.
async fn told(
    archive: &Archive,
    server: &Server,
    target: [&str; 2],
    code: i32,
) -> Result<(String, Vec<u32>)> {
    let address = server.address();
    let asked = [&target[..], &["--wipe", &address]].concat();
    let said = program::restore(archive, server, &asked, &[]).await?;
    said.ended(&[code])?;
    let rows = server.query("SELECT id FROM d.t ORDER BY id").await?;
    Ok((said.out(), rows))
}

fn until(moment: DateTime<Utc>) -> Target {
    Target::Until { moment }
}

/// Two transactions of one microsecond, in one segment and over the edge of two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_microsecond() -> Result<()> {
    let archive = eight_rows().await?;
    let log = lines(&archive).await?;
    let line = |row: usize| &log[row - 1].0;
    let one = TimeDelta::microseconds(1);
    let server = Server::start().await?;
    for (first, second) in [(6, 7), (4, 5)] {
        let shared = line(first).time;
        let times = [(line(second).gtid.clone(), shared)];
        let archive = retimed(&archive, &times).await?;
        let up_to = |row: usize| (1..=u32::try_from(row).unwrap_or_default()).collect::<Vec<_>>();
        let both = rows(&archive, &server, until(shared)).await?;
        assert_eq!(both, up_to(second), "exactly then");
        let neither = rows(&archive, &server, until(shared - one)).await?;
        assert_eq!(neither, up_to(first - 1), "one microsecond before");
        let gtid = line(second).gtid.clone();
        let before = rows(&archive, &server, Target::BeforeGtid { gtid }).await?;
        assert_eq!(before, up_to(first), "before the second one");

        let plan = async |target| {
            let asked = RestoreRequest {
                wipe: Some(server.address().parse::<HostPort>()?),
                ..request(target, &server)
            };
            anyhow::Ok(prepare(archive.repository.clone(), asked).await?.plan)
        };
        let told = plan(until(shared)).await?.remarks;
        let says = |words: &str| told.iter().any(|remark| remark.contains(words));
        ensure!(
            says("2 transactions were committed in that very"),
            "{told:?}"
        );
        let gtid = line(second).gtid.clone();
        let told = plan(Target::BeforeGtid { gtid }).await?.remarks;
        let says = |words: &str| told.iter().any(|remark| remark.contains(words));
        ensure!(says("1 that are in and 1 that are out"), "{told:?}");
    }
    Ok(())
}

/// An hour comes twice: the first transaction behind the moment is out and all behind it, which is
/// said, with the way to have the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_clock_that_was_set_back() -> Result<()> {
    let archive = eight_rows().await?;
    let log = lines(&archive).await?;
    let back: Vec<_> = log[4..]
        .iter()
        .map(|(line, _)| (line.gtid.clone(), line.time - TimeDelta::hours(1)))
        .collect();
    let archive = retimed(&archive, &back).await?;
    let server = Server::start().await?;
    // By name everything is as it was.
    let gtid = log[5].0.gtid.clone();
    let before = rows(&archive, &server, Target::BeforeGtid { gtid }).await?;
    assert_eq!(before, [1, 2, 3, 4, 5]);
    assert_eq!(rows(&archive, &server, Target::Latest).await?.len(), 8);
    assert_eq!(
        rows(&archive, &server, until(log[3].0.time)).await?.len(),
        8
    );

    // By a moment that four transactions come before, two of them twice.
    let moment = rfc3339(log[1].0.time);
    let (said, there) = told(&archive, &server, ["--until", &moment], 3).await?;
    assert_eq!(there, [1, 2]);
    ensure!(said.contains("a clock went back"), "{said}");
    ensure!(said.contains("there are 4 with commit times"), "{said}");
    let gtid = log[7].0.gtid.to_string();
    ensure!(said.contains(&format!("--until-gtid {gtid}")), "{said}");
    // That way is one, and leads there.
    let (_, there) = told(&archive, &server, ["--until-gtid", &gtid], 0).await?;
    assert_eq!(there.len(), 8);

    // A moment of the hour that was there before it came twice: nothing is older than it for sure.
    let twice = rfc3339(back[1].1);
    let (_, there) = told(&archive, &server, ["--until", &twice], 20).await?;
    assert_eq!(there.len(), 8, "refused");
    Ok(())
}

/// The new primary's clock is two seconds behind the old one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_a_failover_to_a_clock_that_is_behind() -> Result<()> {
    let servers = Replicas::start(1).await?;
    let (source, replica) = (servers.source(), &servers.replicas()[0]);
    let archive = begun_on(source).await?;
    for row in 1..=3 {
        exec_all(source, &[&format!("INSERT INTO d.t VALUES ({row})")]).await?;
    }
    stream_once(&archive.repository, source).await?;
    servers.wait_caught_up().await?;
    servers.promote(replica).await?;
    for row in 4..=6 {
        exec_all(replica, &[&format!("INSERT INTO d.t VALUES ({row})")]).await?;
    }
    stream_once(&archive.repository, replica).await?;
    let log = lines(&archive).await?;
    let (old, new) = log.split_at(3);
    ensure!(new.len() == 3 && old[0].1 != new[0].1, "{log:?}");
    let behind = old[2].0.time - TimeDelta::seconds(2);
    let shifted: Vec<_> = new
        .iter()
        .enumerate()
        .map(|(n, (line, _))| {
            let later = TimeDelta::milliseconds(i64::try_from(n).unwrap_or_default());
            (line.gtid.clone(), behind + later)
        })
        .collect();
    let archive = retimed(&archive, &shifted).await?;
    let server = Server::start().await?;

    let gtid = new[0].0.gtid.clone();
    let between = rows(&archive, &server, Target::BeforeGtid { gtid }).await?;
    assert_eq!(between, [1, 2, 3]);
    // By the rule all of the new primary are in: none of them is later.
    let at_the_last = rows(&archive, &server, until(old[2].0.time)).await?;
    assert_eq!(at_the_last, [1, 2, 3, 4, 5, 6]);
    let moment = rfc3339(old[1].0.time);
    let (said, there) = told(&archive, &server, ["--until", &moment], 3).await?;
    assert_eq!(there, [1, 2]);
    ensure!(said.contains("whose clock is behind"), "{said}");
    let way = format!("--until-gtid {}", new[2].0.gtid);
    ensure!(said.contains(&way), "{said}");
    Ok(())
}

/// Half past two comes twice in Berlin that night; an offset tells which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_hour_that_a_zone_has_twice() -> Result<()> {
    let archive = eight_rows().await?;
    let log = lines(&archive).await?;
    let midnight = DateTime::parse_from_rfc3339("2026-10-25T00:00:00Z")?.to_utc();
    // One each quarter of an hour, from 00:00 UTC on.
    let times: Vec<_> = (0..)
        .zip(&log)
        .map(|(n, (line, _))| {
            let later = TimeDelta::minutes(15 * n);
            (line.gtid.clone(), midnight + later)
        })
        .collect();
    let archive = retimed(&archive, &times).await?;
    let server = Server::start().await?;
    let env = [("TZ", "Europe/Berlin")];
    for (moment, last) in [
        ("2026-10-25T02:30:00+02:00", 3),
        ("2026-10-25T02:59:59.999999+02:00", 4),
        ("2026-10-25T02:00:00+01:00", 5),
        ("2026-10-25T02:30:00+01:00", 7),
        ("2026-10-25T03:00:00+01:00", 8),
    ] {
        let asked = ["--until", moment, "--dry-run", "--json"];
        let said = program::restore(&archive, &server, &asked, &env).await?;
        said.ended(&[0]).context(moment)?;
        let plan: serde_json::Value = serde_json::from_str(&said.out())?;
        let found = plan["plan"]["cut"]["last_in"]["gtid"].as_str();
        let wanted = log[last - 1].0.gtid.to_string();
        assert_eq!(found, Some(wanted.as_str()), "{moment}");
    }
    Ok(())
}
