//! Every kind of target, on a server of its own each.

use anyhow::{Result, ensure};
use quillback::gtid::GtidSet;
use quillback::restore::RestoreRequest;
use quillback::restore::target::Target;
use quillback_harness::{Server, checksum};

use crate::story::{check_account, story};
use crate::support::{assert_restored, exec_all, request, restore, restore_from, state};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_is_the_end() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let report = restore(&story.archive.repository, request(Target::Latest, &server)).await?;
    assert_eq!(report.snapshot, story.last_snapshot);
    assert_restored(&server, &report, &story.end).await?;
    story.check_ledger(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_log_behind_the_first_snapshot_leads_to_the_same_end() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let archive = &story.archive.repository;
    let report = restore_from(archive, &story.first_snapshot, Target::Latest, &server).await?;
    ensure!(report.transactions > 100, "{report:?}");
    assert_restored(&server, &report, &story.end).await?;
    story.check_ledger(&server).await?;
    // What came by replication is switched off, which is told with the way to switch it on.
    let enable = "ALTER EVENT `odd`.`never` ENABLE";
    let told = |note: &String| note.contains(enable);
    ensure!(report.notes.iter().any(told), "{:?}", report.notes);
    exec_all(&server, &[enable]).await?;
    let mut conn = server.conn().await?;
    let definitions = checksum::schema_fingerprint(&mut conn).await?;
    conn.disconnect().await?;
    for (name, definition) in &story.definitions {
        assert_eq!(definitions.get(name), Some(definition), "{name}");
    }
    assert_eq!(definitions.len(), story.definitions.len());
    check_account(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_is_there_before_its_drop() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let gtid = story.drop.clone();
    let target = Target::BeforeGtid { gtid };
    let report = restore(&story.archive.repository, request(target, &server)).await?;
    assert_eq!(report.snapshot, story.first_snapshot);
    assert_restored(&server, &report, &story.before_drop).await?;
    story.check_ledger(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_set_is_restored_exactly() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let set = story.odd.set.clone();
    let target = Target::UntilGtid { set };
    let report = restore(&story.archive.repository, request(target, &server)).await?;
    assert_restored(&server, &report, &story.odd).await?;
    story.check_ledger(&server).await?;
    check_account(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_between_two_commits_divides_them() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let moment = story.odd_moment;
    let target = Target::Until { moment };
    let report = restore(&story.archive.repository, request(target, &server)).await?;
    assert_restored(&server, &report, &story.odd).await?;
    // What was known to be committed before is there, and what was sent later is not.
    let mut conn = server.conn().await?;
    let ids: Vec<u64> =
        mysql_async::prelude::Queryable::query(&mut conn, "SELECT id FROM ledger.transfers")
            .await?;
    conn.disconnect().await?;
    for transfer in story.transfers() {
        let there = ids.contains(&transfer.id);
        if transfer.known_micros < moment.timestamp_micros() {
            ensure!(there, "lost: {transfer:?}");
        } else if transfer.sent_micros > moment.timestamp_micros() {
            ensure!(!there, "too late: {transfer:?}");
        }
    }
    story.check_ledger(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_set_need_not_be_a_stretch_of_the_log() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    // The second insertion without the first one.
    let mut set = story.odd.set.clone();
    set.insert(&story.aside[1]);
    let target = Target::UntilGtid { set: set.clone() };
    let report = restore(&story.archive.repository, request(target, &server)).await?;
    let found = state(&server).await?;
    assert_eq!(found.set, set);
    let rows: Vec<u64> = server.query("SELECT id FROM odd.aside").await?;
    assert_eq!(rows, [2]);
    let mut expected = story.odd.tables.clone();
    expected.insert("odd.aside".to_owned(), found.tables["odd.aside"].clone());
    assert_eq!(checksum::differences(&expected, &found.tables), [""; 0]);
    story.check_ledger(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_left_out_by_name() -> Result<()> {
    let story = story().await?;
    let server = Server::start().await?;
    let request = RestoreRequest {
        snapshot: Some(story.first_snapshot.clone()),
        skip: GtidSet::from(story.aside[0].clone()),
        ..request(Target::Latest, &server)
    };
    restore(&story.archive.repository, request).await?;
    let found = state(&server).await?;
    let left_out = story.end.set.subtract(&found.set);
    assert_eq!(left_out, GtidSet::from(story.aside[0].clone()));
    let rows: Vec<u64> = server.query("SELECT id FROM odd.aside").await?;
    assert_eq!(rows, [2]);
    let mut expected = story.end.tables.clone();
    expected.insert("odd.aside".to_owned(), found.tables["odd.aside"].clone());
    assert_eq!(checksum::differences(&expected, &found.tables), [""; 0]);
    Ok(())
}
