//! What a streamer keeps on disk while the store is away outlives it, and the source's own binlog.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::{LedgerOptions, fixed};
use quillback_harness::{Ledger, Minio, Proxy, Server};

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
