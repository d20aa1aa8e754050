//! What a streamer keeps on disk while the store is away outlives it, and the source's own binlog.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback::archive::segment::Segment;
use quillback::gtid::GtidSet;
use quillback_harness::ledger::{LedgerOptions, fixed};
use quillback_harness::{Ledger, Minio, Proxy, Server, until};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::decisions::newest_binlog;
use crate::gtid_executed;
use crate::place::{LIMIT, Place, Streamer};

/// More segments than may be between the source and the disk at a time.
const PIPELINE: usize = 12;

struct Bench {
    place: Place,
    proxy: Proxy,
    server: Server,
    _minio: Minio,
}

impl Bench {
    async fn start() -> Result<Self> {
        let minio = Minio::start().await?;
        let endpoint = minio.endpoint();
        let target = endpoint.strip_prefix("http://").context("an endpoint")?;
        let proxy = Proxy::start(target).await?;
        Ok(Self {
            place: Place::bucket(&minio, &proxy.url(&endpoint)).await?,
            proxy,
            server: Server::start().await?,
            _minio: minio,
        })
    }

    fn flags(&self) -> Vec<String> {
        let spool = self.place.path("spool").display().to_string();
        ["--flush-interval", "100ms", "--spool-dir", &spool]
            .map(str::to_owned)
            .to_vec()
    }

    async fn ledger(&self) -> Result<Ledger> {
        let options = LedgerOptions {
            pause: Duration::from_millis(20),
            ..LedgerOptions::default()
        };
        Ledger::start_with(fixed(&self.server.url()), options).await
    }

    async fn check(&self, streamer: &Streamer, ledger: &Ledger) -> Result<()> {
        let _paused = ledger.pause().await;
        let executed = gtid_executed(&self.server).await?;
        self.place.wait_holds(streamer, &executed).await?;
        audit(&self.place.repository, ledger).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_spool_survives_the_streamer_and_the_source_s_purge() -> Result<()> {
    let bench = Bench::start().await?;
    let Bench {
        place,
        proxy,
        server,
        ..
    } = &bench;
    let servers = [server.url()];
    let flags = bench.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut streamer = place.stream(&servers, &flags)?;
    streamer.following().await?;
    let mut ledger = bench.ledger().await?;
    for round in 0..4 {
        ledger.wait_acknowledged(20, LIMIT).await?;
        proxy.cut().await;
        ledger.wait_acknowledged(100, LIMIT).await?;
        server.exec("FLUSH BINARY LOGS").await?;
        let kept = newest_binlog(server).await?;
        for _ in 0..PIPELINE {
            streamer
                .until_event("a segment on disk", |event| event["event"] == "spooled")
                .await?;
        }
        // What came before the new file is on disk now, and from here on nowhere else.
        if round % 2 == 0 {
            streamer.kill().await?;
        } else {
            let ended = streamer.stop().await?;
            ended.is(30);
            ensure!(ended.err.contains("try: "), "{}", ended.err);
        }
        server
            .exec(&format!("PURGE BINARY LOGS TO '{kept}'"))
            .await?;
        proxy.restore().await;
        streamer = place.take_over(&servers, &flags).await?;
        bench
            .check(&streamer, &ledger)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    ledger.stop().await;
    streamer.stop().await?.is(0);
    check_by_hand(&place.repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_stops_the_reading_and_loses_nothing() -> Result<()> {
    let bench = Bench::start().await?;
    let servers = [bench.server.url()];
    let flags = bench.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--spool-size", "100KiB"]);
    let streamer = bench.place.stream(&servers, &flags)?;
    streamer.following().await?;
    let mut ledger = bench.ledger().await?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    bench.proxy.cut().await;
    // Several times what has room.
    ledger.wait_acknowledged(1500, LIMIT).await?;
    let most = streamer
        .events()?
        .iter()
        .filter_map(|event| event["spooled_bytes"].as_u64())
        .max();
    ensure!(most.is_some_and(|most| most <= 100 << 10), "{most:?} bytes");
    bench.proxy.restore().await;
    bench.check(&streamer, &ledger).await?;
    ledger.stop().await;
    streamer.stop().await?.is(0);
    check_by_hand(&bench.place.repository).await?;
    Ok(())
}

/// Commits a transaction of so many rows that zstd cannot make smaller; returns its GTID.
async fn insert_noise(server: &Server, rows: u64) -> Result<GtidSet> {
    let mut conn = server.conn().await?;
    for statement in [
        "CREATE DATABASE big",
        "CREATE TABLE big.blobs (id INT PRIMARY KEY, body LONGBLOB)",
        "SET SESSION group_concat_max_len = 16777216, SESSION cte_max_recursion_depth = 100000",
        "SET @body = (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1024) \
         SELECT GROUP_CONCAT(RANDOM_BYTES(1024) SEPARATOR '') FROM n)",
    ] {
        conn.query_drop(statement).await?;
    }
    let before = gtid_executed(server).await?;
    conn.query_drop(format!(
        "INSERT INTO big.blobs WITH RECURSIVE n (i) AS \
         (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i, @body FROM n"
    ))
    .await?;
    conn.disconnect().await?;
    Ok(gtid_executed(server).await?.subtract(&before))
}

/// Whether a segment on disk ends a transaction.
fn is_spooled(folder: &std::path::Path, gtid: &GtidSet) -> Result<bool> {
    for slot in std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
    {
        if slot.is_dir() {
            if is_spooled(&slot, gtid)? {
                return Ok(true);
            }
        } else if slot.extension().is_some_and(|end| end == "zst") {
            // It may be gone since.
            let Ok(bytes) = std::fs::read(&slot) else {
                continue;
            };
            if gtid.is_subset(&Segment::open(&bytes.into())?.index().added) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_half_in_the_archive_survives_without_its_source() -> Result<()> {
    let bench = Bench::start().await?;
    let Bench {
        place,
        proxy,
        server,
        ..
    } = &bench;
    let servers = [server.url()];
    let flags = bench.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--segment-size", "1MiB"]);
    let streamer = place.stream(&servers, &flags)?;
    streamer.following().await?;
    // Slower than the source, so that parts of it wait.
    proxy.throttle(Some(500_000));
    let large = insert_noise(server, 24).await?;
    let parts = async || {
        let chain = place.chain().await?;
        let parts = chain.segments.iter().filter(|s| s.index.part.is_some());
        anyhow::Ok(parts.count())
    };
    until("some parts in the archive", LIMIT, async || {
        ensure!(streamer.is_alive(), "{}", streamer.stderr());
        Ok((parts().await? >= 3).then_some(()))
    })
    .await?;
    proxy.cut().await;
    until("the last part on disk", LIMIT, async || {
        ensure!(streamer.is_alive(), "{}", streamer.stderr());
        Ok(is_spooled(&place.path("spool"), &large)?.then_some(()))
    })
    .await?;
    streamer.kill().await?;
    ensure!(!large.is_subset(&place.chain().await?.end().unwrap_or_default()));
    server.exec("FLUSH BINARY LOGS").await?;
    let kept = newest_binlog(server).await?;
    server
        .exec(&format!("PURGE BINARY LOGS TO '{kept}'"))
        .await?;
    proxy.throttle(None);
    proxy.restore().await;
    let next = place.take_over(&servers, &flags).await?;
    place
        .wait_holds(&next, &gtid_executed(server).await?)
        .await?;
    next.stop().await?.is(0);
    ensure!(
        !is_spooled(&place.path("spool"), &large)?,
        "it is still on disk"
    );
    check_by_hand(&place.repository).await?;
    Ok(())
}
