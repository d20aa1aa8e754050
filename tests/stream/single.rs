//! One server and streamers that come, die and take over.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use quillback::archive::layout::BranchNumber;
use quillback::stream::StreamError;
use quillback_harness::{Server, ServerOptions};

use crate::by_hand::check_by_hand;
use crate::writes::{self, Writer};
use crate::{Running, archived, gtid_executed, new_archive, once, source_log};

/// Compares the archive with the server's own files.
pub(crate) async fn compare(
    repository: &quillback::archive::repository::Repository,
    server: &Server,
) -> Result<usize> {
    let chain = repository.chain(BranchNumber(1)).await?;
    let end = chain.end().unwrap_or_default();
    ensure!(end == gtid_executed(server).await?, "{end:#}");
    let start = chain.start().cloned().unwrap_or_default();
    let got = archived(repository).await?;
    let expected = source_log::transactions(server, &start).await?;
    for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
        ensure!(got.0 == expected.0, "{at}: {} is not {}", got.0, expected.0);
        ensure!(got.1 == expected.1, "{} has other bytes", got.0);
    }
    ensure!(got.len() == expected.len());
    Ok(got.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_transaction_is_archived_byte_for_byte() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let repository = new_archive().await?;
    // The first run fixes where the archive begins, and vouches for silence.
    let first = once(&repository, &servers).await?;
    ensure!((first.segments, first.transactions) == (1, 0), "{first:?}");
    ensure!(first.complete_to.is_some());
    writes::prepare(&server).await?;
    writes::all_kinds(&server).await?;
    let second = once(&repository, &servers).await?;
    ensure!(second.gtid_set == gtid_executed(&server).await?);
    ensure!(second.complete_to > first.complete_to);
    let count = compare(&repository, &server).await?;
    ensure!(count >= 24, "{count} transactions");
    // Once more, from the middle of a file, with a live stream this time.
    let running = Running::start(&repository, &servers)?;
    let mut conn = server.conn().await?;
    writes::large(&mut conn).await?;
    server
        .exec("INSERT INTO shop.page (mark) VALUES ('last')")
        .await?;
    let executed = gtid_executed(&server).await?;
    quillback_harness::until("the archive", Duration::from_secs(60), async || {
        let chain = repository.chain(BranchNumber(1)).await?;
        Ok((chain.end().as_ref() == Some(&executed)).then_some(()))
    })
    .await?;
    running.stop().await?;
    compare(&repository, &server).await?;
    let chain = repository.chain(BranchNumber(1)).await?;
    let parts = chain.segments.iter().filter(|s| s.index.part.is_some());
    ensure!(
        parts.count() >= 6,
        "the large transactions are not in parts"
    );
    let mut statements = Vec::new();
    for stored in &chain.segments {
        for line in repository.read_transactions(stored).await? {
            statements.extend(line.summary.statement);
        }
    }
    let first_words = ["CREATE", "DROP"];
    for statement in &statements {
        let is_one = first_words.iter().any(|word| statement.starts_with(word));
        ensure!(is_one, "{statement:?} is none that we ran");
    }
    ensure!(statements.len() == 8, "{statements:?}");
    check_by_hand(&repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_checksums_is_followed_from_the_middle_of_a_file() -> Result<()> {
    let server = Server::start_with(ServerOptions::new().line("binlog_checksum=NONE")).await?;
    let servers = [server.url()];
    let repository = new_archive().await?;
    once(&repository, &servers).await?;
    writes::prepare(&server).await?;
    once(&repository, &servers).await?;
    server
        .exec("INSERT INTO shop.page (mark) VALUES ('more')")
        .await?;
    once(&repository, &servers).await?;
    server.exec("FLUSH BINARY LOGS").await?;
    server
        .exec("INSERT INTO shop.page (mark) VALUES ('more')")
        .await?;
    once(&repository, &servers).await?;
    ensure!(compare(&repository, &server).await? == 4);
    check_by_hand(&repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamer_that_dies_loses_and_doubles_nothing() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let repository = new_archive().await?;
    once(&repository, &servers).await?;
    writes::prepare(&server).await?;
    let writer = Writer::start("death", servers.to_vec());
    for round in 0..8_u64 {
        let running = Running::start(&repository, &servers)?;
        writer.wait_for(20 + 15 * round).await?;
        if round % 2 == 1 {
            // In the midst of parts.
            let mut conn = server.conn().await?;
            writes::large(&mut conn).await?;
        }
        // Dropped wherever it stands.
        running.task.abort();
    }
    let marks = writer.stop().await?;
    once(&repository, &servers).await?;
    let count = compare(&repository, &server).await?;
    ensure!(count > marks.len());
    check_by_hand(&repository).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_streamers_the_older_one_goes_on() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let repository = new_archive().await?;
    once(&repository, &servers).await?;
    writes::prepare(&server).await?;
    let writer = Writer::start("two", servers.to_vec());
    let older = Running::start(&repository, &servers)?;
    writer.wait_for(50).await?;
    let newer = Running::start(&repository, &servers)?;
    let ended = tokio::time::timeout(Duration::from_secs(60), newer.task).await??;
    let Err(StreamError::Occupied { epoch, .. }) = ended else {
        bail!("the newer streamer ended with {ended:?}");
    };
    ensure!(epoch == 2, "epoch {epoch} has the archive");
    writer.wait_for(50).await?;
    writer.stop().await?;
    older.stop().await?;
    once(&repository, &servers).await?;
    compare(&repository, &server).await?;
    Ok(())
}
