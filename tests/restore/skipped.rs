//! A transaction that is left out: which later ones touched its rows is told before it matters.

use anyhow::{Context as _, Result, ensure};
use quillback::gtid::GtidSet;
use quillback::restore::target::Target;
use quillback::restore::{RestoreRequest, prepare};
use quillback_harness::Server;

use crate::support::{
    Archive, exec_all, gtids_of, on_primary, only, request, restore, snapshot, stream_once, url,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_touched_the_same_rows_are_named() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(20))",
            "INSERT INTO d.t VALUES (1, 'one'), (2, 'two')",
        ],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    let one = async |statement: &str| gtids_of(&source, &[statement]).await.map(|set| only(&set));
    let bad = one("UPDATE d.t SET v = 'wrong' WHERE id = 1").await?;
    let aside = one("INSERT INTO d.t VALUES (3, 'three')").await?;
    let squeezed = gtids_of(
        &source,
        &[
            "SET SESSION binlog_transaction_compression = ON",
            "UPDATE d.t SET v = 'worse' WHERE id = 1",
        ],
    )
    .await?;
    let again = one("UPDATE d.t SET v = 'worst' WHERE id = 1").await?;
    let other = one("UPDATE d.t SET v = 'deux' WHERE id = 2").await?;
    let lonely = one("INSERT INTO d.t VALUES (4, 'four')").await?;
    stream_once(&archive.repository, &source).await?;
    let server = Server::start().await?;
    let told = async |gtid: &quillback::gtid::Gtid| {
        let asked = RestoreRequest {
            skip: GtidSet::from(gtid.clone()),
            ..request(Target::Latest, &server)
        };
        let plan = prepare(archive.repository.clone(), asked).await?.plan;
        let note = plan.notes.iter().find(|note| note.contains("is left out"));
        note.cloned().context("nothing is told")
    };
    let note = told(&bad).await?;
    ensure!(
        note.contains("2 later transactions touched the same rows"),
        "{note}"
    );
    for gtid in [&only(&squeezed), &again] {
        ensure!(note.contains(&gtid.to_string()), "{note}");
    }
    for gtid in [&aside, &other, &lonely] {
        ensure!(!note.contains(&gtid.to_string()), "{note}");
    }
    let note = told(&aside).await?;
    ensure!(note.contains("none of them a row"), "{note}");
    let note = told(&lonely).await?;
    ensure!(
        note.contains("no later transaction touched its tables"),
        "{note}"
    );

    // What nobody leans on can go.
    let asked = RestoreRequest {
        skip: GtidSet::from(aside),
        ..request(Target::Latest, &server)
    };
    restore(&archive.repository, asked).await?;
    let rows: Vec<u32> = server.query("SELECT id FROM d.t ORDER BY id").await?;
    assert_eq!(rows, [1, 2, 4]);
    Ok(())
}
