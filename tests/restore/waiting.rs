//! Waiting for an archive that is not complete yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::{TimeDelta, Utc};
use quillback::clock::SystemClock;
use quillback::gtid::GtidSet;
use quillback::restore::target::Target;
use quillback::restore::wait::{Waited, wait};
use quillback::restore::{self, RestoreError, RestoreEvent, prepare};
use quillback_harness::{Server, ServerOptions};
use tokio_util::sync::CancellationToken;

use crate::program;
use crate::support::{
    Archive, Streaming, begun, exec_all, executed, gtids_of, on_primary, request, snapshot,
    stream_options, url,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_is_waited_for() -> Result<()> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    let repository = &archive.repository;
    let server = Server::start().await?;
    let made = gtids_of(&source, &["INSERT INTO d.t VALUES (1)"]).await?;
    let set = executed(&source).await?;
    let told: Arc<Mutex<Vec<RestoreEvent>>> = Arc::default();
    let observer: restore::Observer = {
        let told = Arc::clone(&told);
        Arc::new(move |event| {
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event);
        })
    };
    let waited = async |target: &Target, limit: Option<Duration>, cancel: CancellationToken| {
        wait(
            repository,
            target,
            None,
            limit,
            &SystemClock,
            &observer,
            &cancel,
        )
        .await
    };
    let target = Target::UntilGtid { set: set.clone() };

    // Nobody streams: in vain, and told so.
    let limit = Some(Duration::from_secs(2));
    let ended = waited(&target, limit, CancellationToken::new()).await?;
    assert_eq!(ended, Waited::InVain);
    let missing = told
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .find_map(|event| match event {
            RestoreEvent::Waiting(waiting) => Some(waiting.missing.clone()),
            _ => None,
        });
    assert_eq!(missing.context("nothing was told")?, made);
    let error = prepare(repository.clone(), request(target.clone(), &server)).await;
    ensure!(error.is_err(), "it is not there");

    // Interrupted.
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ended = waited(&target, None, cancel).await;
    ensure!(matches!(ended, Err(RestoreError::Cancelled)), "{ended:?}");

    // In the future, while a stream runs.
    let moment = Utc::now() + TimeDelta::seconds(4);
    let moment = quillback::clock::from_micros(moment.timestamp_micros().unsigned_abs())
        .context("a moment")?;
    let streaming = Streaming::start(repository, vec![url(&source)], stream_options());
    let future = Target::Until { moment };
    let limit = Some(Duration::from_secs(60));
    let ended = waited(&future, limit, CancellationToken::new()).await?;
    assert_eq!(ended, Waited::Covered);
    let plan = prepare(repository.clone(), request(future, &server))
        .await?
        .plan;
    assert_eq!(plan.result, set);
    let ended = waited(&target, limit, CancellationToken::new()).await?;
    assert_eq!(ended, Waited::Covered);
    prepare(repository.clone(), request(target, &server)).await?;
    streaming.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_waiting() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, &["CREATE DATABASE d"]).await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    let server = Server::start().await?;
    let set: GtidSet = "deadbeef-0000-4000-8000-000000000001:1".parse()?;
    let set = set.to_string();
    let arguments = ["--until-gtid", &set, "--wait", "1s", "--dry-run"];
    let said = program::restore(&archive, &server, &arguments, &[]).await?;
    said.ended(&[20])?;
    ensure!(said.err().contains("waited in vain"), "{}", said.err());
    let arguments = ["--until", "latest", "--wait", "soon"];
    let said = program::restore(&archive, &server, &arguments, &[]).await?;
    said.ended(&[2])?;
    ensure!(said.err().contains("try: --wait 10m"), "{}", said.err());
    let arguments = ["--until", "latest", "--dry-run", "--wait"];
    let said = program::restore(&archive, &server, &arguments, &[]).await?;
    said.ended(&[0])
}
