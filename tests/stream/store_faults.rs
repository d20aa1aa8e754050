//! A store that fails at each step, and one that fails again and again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use chrono::Utc;
use quillback::archive::layout::{BranchNumber, Epoch, SegmentName};
use quillback::archive::repository::{ArchiveError, Repository};
use quillback::error::Classified as _;
use quillback::storage::{Fault, FaultyStorage, MemoryStorage, Rule};
use quillback_harness::Server;

use crate::single::compare;
use crate::writes::{self, Writer};
use crate::{Running, gtid_executed, once};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_dies_at_any_write_is_made_good_by_the_next() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let store = MemoryStorage::new();
    let repository = Repository::init(Arc::new(store.clone()), Utc::now()).await?;
    once(&repository, &servers).await?;
    writes::prepare(&server).await?;
    let mut crashes = 0;
    for step in 0..6 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            // Its parts alone are five segments.
            let mut conn = server.conn().await?;
            writes::large(&mut conn).await?;
            let faulty = FaultyStorage::new(Arc::new(store.clone()))
                .with(Rule::new(fault).on_effects().after(step));
            let dying = Repository::open(Arc::new(faulty.clone())).await?;
            let running = Running::start(&dying, &servers)?;
            let what = format!("a crash at write {step}");
            quillback_harness::until(&what, Duration::from_secs(30), async || {
                Ok(faulty.has_crashed().then_some(()))
            })
            .await?;
            running.task.abort();
            crashes += 1;
            if step % 2 == 0 {
                once(&repository, &servers).await?;
            }
            let chain = repository.chain(BranchNumber(1)).await?;
            ensure!(chain.problems.is_empty(), "{:?}", chain.problems);
        }
    }
    ensure!(crashes == 12);
    once(&repository, &servers).await?;
    compare(&repository, &server).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_again_and_again_only_delays() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let store = MemoryStorage::new();
    let repository = Repository::init(Arc::new(store.clone()), Utc::now()).await?;
    once(&repository, &servers).await?;
    writes::prepare(&server).await?;
    let faulty = FaultyStorage::new(Arc::new(store.clone()));
    let failing = Repository::open(Arc::new(faulty.clone())).await?;
    let _same = faulty.clone().with_random_errors(20_261_121, 4);
    // A run may be refused at its start, as long as it says that it was for now.
    let writer = Writer::start("store", servers.to_vec());
    let mut running = Running::start(&failing, &servers)?;
    for _ in 0..10 {
        writer.wait_for(40).await?;
        if running.task.is_finished() {
            let error = running.task.await?.expect_err("nobody ended it");
            ensure!(error.class().is_transient(), "{error}");
            running = Running::start(&failing, &servers)?;
        }
    }
    writer.stop().await?;
    faulty.heal();
    if running.task.is_finished() {
        running = Running::start(&failing, &servers)?;
    }
    let executed = gtid_executed(&server).await?;
    quillback_harness::until("the archive", Duration::from_secs(60), async || {
        let end = repository.chain(BranchNumber(1)).await?.end();
        Ok((end.as_ref() == Some(&executed)).then_some(()))
    })
    .await?;
    running.stop().await?;
    compare(&repository, &server).await?;
    Ok(())
}

/// A store that says that an object is there has not said that it is ours: see also the stream over a lying proxy.
#[tokio::test]
async fn a_place_is_taken_only_by_what_was_to_be_written() -> Result<()> {
    let repository = Repository::init(Arc::new(MemoryStorage::new()), Utc::now()).await?;
    let name = SegmentName {
        branch: BranchNumber(1),
        epoch: Epoch(1),
        first: 1,
        last: 1,
        hash8: "00000000".to_owned(),
        compacted: false,
    };
    let (own, foreign) = (Bytes::from_static(b"own"), Bytes::from_static(b"foreign"));
    repository.put_segment(&name, own.clone()).await?;
    repository.put_segment(&name, own).await?;
    let refused = repository.put_segment(&name, foreign).await;
    ensure!(
        matches!(&refused, Err(ArchiveError::Misnamed { key }) if *key == name.key()),
        "{refused:?}"
    );
    Ok(())
}
