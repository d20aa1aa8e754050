//! Stores that fail while a stream runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::clock::SystemClock;
use quillback::error::{Class, Classified as _};
use quillback::storage::{Fault, FaultyStorage, MemoryStorage, Operation, Rule};
use quillback::stream::{self, StreamEvent, StreamOptions};
use quillback_harness::{Server, until};
use tokio_util::sync::CancellationToken;

use crate::support::{LIMIT, chain, exec_all, executed, make, stream_options, url};

/// Whoever stops a stream must learn that what it had received did not reach the archive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_stopped_while_its_store_is_away_does_not_end_well() -> Result<()> {
    let source = Server::start().await?;
    let memory = Arc::new(MemoryStorage::new());
    let repository = make(memory.clone()).await?;
    let rule = Rule::new(Fault::ErrorBefore).on(Operation::Put).at("log/");
    let faulty = Arc::new(FaultyStorage::new(memory).with(rule));
    let failing = quillback::archive::repository::Repository::open(faulty.clone()).await?;
    // Each transaction fills a segment, so that the second one waits for the first one's store.
    let options = StreamOptions {
        segment_bytes: 1,
        ..stream_options()
    };
    let cancel = CancellationToken::new();
    let observer: stream::Observer = Arc::new(|_: StreamEvent| {});
    let task = tokio::spawn(stream::run(
        failing,
        vec![url(&source)],
        options,
        Arc::new(SystemClock),
        observer,
        cancel.clone(),
    ));
    exec_all(
        &source,
        &[
            "CREATE DATABASE a",
            "CREATE DATABASE b",
            "CREATE DATABASE c",
        ],
    )
    .await?;
    until("tries to put a segment", LIMIT, async || {
        let calls = faulty.calls();
        let tries = calls
            .iter()
            .filter(|(operation, key)| *operation == Operation::Put && key.starts_with("log/"));
        Ok((tries.count() >= 4).then_some(()))
    })
    .await?;
    cancel.cancel();
    let outcome = tokio::time::timeout(Duration::from_secs(60), task)
        .await
        .context("the stream does not end")??;
    let error = outcome.err().context("it said that all was well")?;
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert_ne!(
        chain(&repository).await?.end().unwrap_or_default(),
        executed(&source).await?
    );
    Ok(())
}
