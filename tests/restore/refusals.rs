//! What is refused before a target is touched: same GTIDs, no schemas, afterwards.

use anyhow::Result;
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::restore::RestoreRequest;
use quillback::restore::target::Target;
use quillback_harness::{Replicas, Server, ServerOptions, Trio};

use crate::support::{
    Archive, assert_untouched, chain, exec_all, executed, gtids_of, on_primary, only, request,
    restore, snapshot, stream_once, url,
};

/// A server's archive: a snapshot, then some transactions. The server is gone, as in an emergency.
async fn small() -> Result<Archive> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    Ok(archive)
}

async fn refused(archive: &Archive, request: RestoreRequest, class: Class) -> String {
    let error = restore(&archive.repository, request)
        .await
        .expect_err("this must be refused");
    assert_eq!(error.class(), class, "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_the_archive_does_not_cover() -> Result<()> {
    let archive = small().await?;
    let server = Server::start().await?;
    let before = executed(&server).await?;
    let end = chain(&archive.repository)
        .await?
        .complete_to()
        .expect("complete");
    let moment = end + chrono::TimeDelta::hours(1);
    let text = refused(
        &archive,
        request(Target::Until { moment }, &server),
        Class::NotCovered,
    )
    .await;
    assert!(text.contains(&quillback::clock::rfc3339(end)), "{text}");

    let unknown: GtidSet = "deadbeef-0000-4000-8000-000000000001:1".parse()?;
    for target in [
        Target::UntilGtid {
            set: unknown.clone(),
        },
        Target::BeforeGtid {
            gtid: only(&unknown),
        },
    ] {
        let text = refused(&archive, request(target, &server), Class::NotCovered).await;
        assert!(text.contains("deadbeef"), "{text}");
    }
    // Not even in part: one known transaction and one that is not.
    let mut set = chain(&archive.repository).await?.held();
    set.extend_from(&unknown);
    let text = refused(
        &archive,
        request(Target::UntilGtid { set }, &server),
        Class::NotCovered,
    )
    .await;
    assert!(text.contains("deadbeef"), "{text}");
    assert_untouched(&server, &before).await?;

    let empty = Archive::new().await?;
    refused(&empty, request(Target::Latest, &server), Class::NotCovered).await;
    assert_untouched(&server, &before).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_the_target() -> Result<()> {
    let archive = small().await?;

    // It can replicate from nobody.
    let nobody = Server::start_with(ServerOptions::new().server_id(0)).await?;
    let before = executed(&nobody).await?;
    let text = refused(&archive, request(Target::Latest, &nobody), Class::Refused).await;
    assert!(text.contains("server_id"), "{text}");
    assert_untouched(&nobody, &before).await?;
    drop(nobody);

    // It has data.
    let full = Server::start().await?;
    exec_all(&full, &["CREATE DATABASE precious"]).await?;
    let before = executed(&full).await?;
    let text = refused(&archive, request(Target::Latest, &full), Class::Refused).await;
    assert!(text.contains("precious"), "{text}");
    assert_eq!(executed(&full).await?, before);
    drop(full);

    // It writes no GTIDs.
    let options = ServerOptions::new()
        .line("gtid_mode=OFF_PERMISSIVE")
        .line("enforce_gtid_consistency=ON");
    let plain = Server::start_with(options).await?;
    let text = refused(&archive, request(Target::Latest, &plain), Class::Refused).await;
    assert!(text.contains("gtid_mode"), "{text}");
    drop(plain);

    // It is a replica.
    let replicas = Replicas::start(1).await?;
    let replica = &replicas.replicas()[0];
    let before = executed(replica).await?;
    let text = refused(&archive, request(Target::Latest, replica), Class::Refused).await;
    assert!(text.contains("replication channel"), "{text}");
    assert_untouched(replica, &before).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_a_running_group() -> Result<()> {
    let archive = small().await?;
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    let secondaries = trio.secondaries().await?;
    let before = executed(primary).await?;
    for member in [primary, secondaries[0]] {
        let text = refused(&archive, request(Target::Latest, member), Class::Refused).await;
        assert!(text.contains("ONLINE"), "{text}");
    }
    assert_eq!(executed(primary).await?, before);
    // The group still takes writes.
    let made = gtids_of(primary, &["CREATE DATABASE still_here"]).await?;
    assert_eq!(made.count(), 1);
    Ok(())
}
