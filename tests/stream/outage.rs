//! A store that is away, slow, or says something else than it did.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::fixed;
use quillback_harness::{HttpProxy, Ledger, Minio, Proxy, Server, Trick};

use crate::audit::audit;
use crate::by_hand::check_by_hand;
use crate::gtid_executed;
use crate::place::{LIMIT, Place, Streamer};

const FLUSH: [&str; 2] = ["--flush-interval", "100ms"];

/// The archive holds what the server does and what the ledger was told.
async fn check(place: &Place, streamer: &Streamer, server: &Server, ledger: &Ledger) -> Result<()> {
    let _paused = ledger.pause().await;
    place
        .wait_holds(streamer, &gtid_executed(server).await?)
        .await?;
    audit(&place.repository, ledger).await?;
    Ok(())
}

fn address(minio: &Minio) -> Result<std::net::SocketAddr> {
    let endpoint = minio.endpoint();
    let address = endpoint.strip_prefix("http://").context("an endpoint")?;
    Ok(address.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_fails_in_every_way_only_delays() -> Result<()> {
    let minio = Minio::start().await?;
    let proxy = Proxy::start(&address(&minio)?.to_string()).await?;
    let place = Place::bucket(&minio, &proxy.url(&minio.endpoint())).await?;
    let server = Server::start().await?;
    let streamer = place.stream(&[server.url()], &FLUSH)?;
    streamer.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    ledger.wait_acknowledged(50, LIMIT).await?;

    proxy.cut().await;
    ledger.wait_acknowledged(300, LIMIT).await?;
    proxy.restore().await;
    check(&place, &streamer, &server, &ledger)
        .await
        .context("cut")?;

    proxy.black_hole().await;
    ledger.wait_acknowledged(200, LIMIT).await?;
    proxy.restore().await;
    check(&place, &streamer, &server, &ledger)
        .await
        .context("black hole")?;

    for _ in 0..5 {
        ledger.wait_acknowledged(20, LIMIT).await?;
        proxy.reset_connections().await;
    }
    check(&place, &streamer, &server, &ledger)
        .await
        .context("resets")?;

    proxy.delay(Duration::from_millis(150));
    proxy.throttle(Some(50_000));
    ledger.wait_acknowledged(300, LIMIT).await?;
    check(&place, &streamer, &server, &ledger)
        .await
        .context("slow")?;
    proxy.delay(Duration::ZERO);
    proxy.throttle(None);

    ledger.stop().await;
    check(&place, &streamer, &server, &ledger).await?;
    streamer.stop().await?.is(0);
    check_by_hand(&place.repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lies_about_single_writes_costs_nothing() -> Result<()> {
    let minio = Minio::start().await?;
    let proxy = HttpProxy::start(address(&minio)?).await?;
    let place = Place::bucket(&minio, &proxy.endpoint()).await?;
    let server = Server::start().await?;
    let streamer = place.stream(&[server.url()], &FLUSH)?;
    streamer.following().await?;
    let mut ledger = Ledger::start(fixed(&server.url())).await?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    // Each between two writes that pass. The replies of the first ones are lost after the object was stored.
    let tricks = [
        Trick::LoseReply,
        Trick::Answer("503 Slow Down", "SlowDown"),
        Trick::LoseReply,
        Trick::Answer("409 Conflict", "ConditionalRequestConflict"),
        Trick::Answer("500 Internal Server Error", "InternalError"),
        Trick::CutReply,
        // It says that somebody else's object is there, and none is.
        Trick::Answer("412 Precondition Failed", "PreconditionFailed"),
        Trick::DamageRequest,
    ];
    for (at, trick) in tricks.into_iter().enumerate() {
        proxy.trap_after(1, "PUT", "/log/", trick);
        quillback_harness::until("the trick to be met", LIMIT, async || {
            ensure!(streamer.is_alive(), "{}", streamer.stderr());
            Ok((proxy.unmet() == 0).then_some(()))
        })
        .await
        .with_context(|| format!("trick {at}"))?;
        check(&place, &streamer, &server, &ledger)
            .await
            .with_context(|| format!("trick {at}"))?;
    }
    // Refusing everything for a while.
    for (method, status, code) in [
        ("PUT", "503 Slow Down", "SlowDown"),
        ("GET", "503 Service Unavailable", "ServiceUnavailable"),
        ("PUT", "409 Conflict", "ConditionalRequestConflict"),
    ] {
        proxy.refuse(method, "/archive", status, code);
        quillback_harness::until("refusals", LIMIT, async || {
            ensure!(streamer.is_alive(), "{}", streamer.stderr());
            Ok((proxy.refused() >= 10).then_some(()))
        })
        .await
        .with_context(|| format!("{method} {status}"))?;
        ledger.wait_acknowledged(50, LIMIT).await?;
        proxy.relent();
        check(&place, &streamer, &server, &ledger)
            .await
            .with_context(|| format!("{method} {status}"))?;
    }
    ledger.stop().await;
    check(&place, &streamer, &server, &ledger).await?;
    streamer.stop().await?.is(0);
    check_by_hand(&place.repository).await?;
    Ok(())
}

/// Neither end of a run without its store is a good one, and both say that it is for now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_its_store_says_that_it_may_work_later() -> Result<()> {
    let minio = Minio::start().await?;
    let proxy = Proxy::start(&address(&minio)?.to_string()).await?;
    let place = Place::bucket(&minio, &proxy.url(&minio.endpoint())).await?;
    let server = Server::start().await?;
    let servers = [server.url()];
    proxy.cut().await;
    let ended = place.run(&servers, &["--json", "stream"]).await?;
    ended.is(30);
    let hint = "\n  try: again later; AWS_ENDPOINT_URL if it is not AWS\n";
    ensure!(ended.err.ends_with(hint), "{}", ended.err);
    proxy.restore().await;

    let streamer = place.stream(&servers, &FLUSH)?;
    streamer.following().await?;
    streamer
        .until_event("a segment", |event| event["event"] == "segment")
        .await?;
    proxy.cut().await;
    server.exec("CREATE DATABASE d").await?;
    let executed = gtid_executed(&server).await?;
    // It tells that the store fails once it has something to put.
    quillback_harness::until("a word of the store", LIMIT, async || {
        ensure!(streamer.is_alive(), "{}", streamer.stderr());
        Ok(streamer.stderr().contains("the store fails").then_some(()))
    })
    .await?;
    let ended = streamer.stop().await?;
    ended.is(30);
    ensure!(ended.err.contains("\n  try: "), "{}", ended.err);
    proxy.restore().await;
    let next = place.take_over(&servers, &FLUSH).await?;
    place.wait_holds(&next, &executed).await?;
    next.stop().await?.is(0);
    Ok(())
}
