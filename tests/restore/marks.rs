//! Marks: made of a running cluster, never changed, restored to exactly.

use anyhow::{Context as _, Result, ensure};
use quillback::archive::marks::{MarkName, make};
use quillback::clock::{Clock as _, SystemClock};
use quillback::error::{Class, Classified as _};
use quillback::restore::{RestoreError, RestoreRequest, mark_target, prepare};
use quillback_harness::ledger::{Cut, fixed};
use quillback_harness::{Ledger, Server};

use crate::support::{
    Archive, LIMIT, Streaming, exec_all, executed, on_primary, request, restore, snapshot,
    stream_options, url, wait_archived,
};

async fn mark(archive: &Archive, server: &Server, name: &str) -> Result<()> {
    let name: MarkName = name.parse()?;
    let servers = [url(server)];
    let repository = &archive.repository;
    let note = "for tests".to_owned();
    let mark = make::of_present(repository, &servers, name, note, SystemClock.now()).await?;
    Ok(repository.put_mark(&mark).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_is_restored_exactly() -> Result<()> {
    let source = Server::start().await?;
    let mut ledger = Ledger::start(fixed(&source.url())).await?;
    ledger.wait_acknowledged(10, LIMIT).await?;
    let archive = Archive::new().await?;
    let repository = &archive.repository;
    mark(&archive, &source, "too-old").await?;
    ledger.wait_acknowledged(10, LIMIT).await?;
    snapshot(repository, &[url(&source)], &on_primary()).await?;
    let streaming = Streaming::start(repository, vec![url(&source)], stream_options());
    ledger.wait_acknowledged(20, LIMIT).await?;
    // Made while money moves; its set is then a state, whatever was on its way.
    mark(&archive, &source, "busy").await?;
    let again = mark(&archive, &source, "busy")
        .await
        .expect_err("it is there");
    ensure!(again.to_string().contains("mark busy already"), "{again:#}");
    ledger.wait_acknowledged(20, LIMIT).await?;
    let paused = ledger.pause().await;
    mark(&archive, &source, "quiet").await?;
    let quiet = executed(&source).await?;
    drop(paused);
    ledger.wait_acknowledged(20, LIMIT).await?;
    ledger.stop().await;
    wait_archived(repository, &executed(&source).await?).await?;
    streaming.stop().await?;

    let marks = repository.marks().await?;
    let names: Vec<&str> = marks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(names, ["too-old", "busy", "quiet"]);
    let server = Server::start().await?;
    let address = url(&server).address();
    for mark in &marks[1..] {
        let (target, branch) = mark_target(repository, &mark.name).await?;
        let asked = RestoreRequest {
            branch: Some(branch),
            wipe: Some(address.clone()),
            ..request(target, &server)
        };
        let report = restore(repository, asked).await?;
        assert_eq!(report.gtid_executed, mark.gtid_executed);
        let mut conn = server.conn().await?;
        let cut = Cut::Gtids(mark.gtid_executed.to_string());
        let found = ledger.check(&mut conn, &cut).await;
        conn.disconnect().await?;
        let found = found.with_context(|| mark.name.to_string())?;
        ensure!(found.present >= 20 && found.absent >= 20, "{found:?}");
    }
    let (_, last) = (&marks[1], &marks[2]);
    assert_eq!(last.gtid_executed, quiet);

    // One without a snapshot that is as old is refused, with the nearest state that there is.
    let (target, _) = mark_target(repository, &marks[0].name).await?;
    let error = prepare(repository.clone(), request(target, &server))
        .await
        .expect_err("no snapshot is as old");
    assert_eq!(error.class(), Class::NotCovered);
    let RestoreError::Target { nearest, .. } = &error else {
        anyhow::bail!("{error:?}");
    };
    let offer = nearest.after.clone().context("no offer")?;
    prepare(
        repository.clone(),
        RestoreRequest {
            wipe: Some(address.clone()),
            ..request(offer.target, &server)
        },
    )
    .await?;

    let unknown = mark_target(repository, &"nothing".parse()?).await;
    let error = unknown.expect_err("there is none");
    assert_eq!(error.class(), Class::NotCovered);
    Ok(())
}

/// A server that lacks what the archive holds is of another history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_another_history_is_refused() -> Result<()> {
    let source = Server::start().await?;
    exec_all(&source, &["CREATE DATABASE d"]).await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    crate::support::stream_once(&archive.repository, &source).await?;
    exec_all(&source, &["CREATE DATABASE e"]).await?;
    crate::support::stream_once(&archive.repository, &source).await?;
    let stranger = Server::start().await?;
    let error = mark(&archive, &stranger, "wrong")
        .await
        .expect_err("it lacks them");
    ensure!(error.to_string().contains("does not have"), "{error:#}");
    assert_eq!(archive.repository.marks().await?, []);
    Ok(())
}
