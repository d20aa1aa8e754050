//! An accident, undone on the servers where it happened.

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::{Cut, fixed};
use quillback_harness::{Ledger, Router, Trio, cluster_metadata};

use crate::support::{Archive, LIMIT, arg, assert_group, assert_open, reseed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_comes_back_and_the_group_with_it() -> Result<()> {
    let trio = Trio::start().await?;
    cluster_metadata::lay_out(&trio, "shop").await?;
    let old = trio.primary().await?;
    let router = Router::bootstrap(old).await?;
    let archive = Archive::new().await?;
    let mut ledger = Ledger::start(fixed(&router.rw_url())).await?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    let source = arg(old);
    archive
        .run(&["snapshot", "--server", &source])
        .await?
        .ended(0)?;
    ledger.wait_acknowledged(20, LIMIT).await?;
    ledger.stop().await;

    old.exec("DROP TABLE ledger.transfers").await?;
    old.exec("CREATE DATABASE afterwards").await?;
    archive
        .run(&["stream", "--once", "--server", &source])
        .await?
        .ended(0)?;
    let said = archive
        .run(&["log", "--json", "--grep", "DROP TABLE"])
        .await?
        .ended(0)?;
    let line: serde_json::Value =
        serde_json::from_str(said.out.trim()).context(said.out.clone())?;
    let gtid = line["gtid"].as_str().context("a GTID")?.to_owned();

    // One of them is taken out of the group and restored; the group works on meanwhile.
    let secondaries = trio.secondaries().await?;
    let [first, second] = secondaries.as_slice() else {
        anyhow::bail!("{secondaries:?}");
    };
    first.exec("STOP GROUP_REPLICATION").await?;
    let (a, b) = (arg(first), arg(second));
    archive
        .run(&[
            "restore",
            "--before-gtid",
            &gtid,
            "--to",
            &a,
            "--wipe",
            &first.address(),
        ])
        .await?
        .ended(0)?;

    // Nothing is begun while the old group lives, nor are its transactions given up unasked.
    let members = [source.as_str(), b.as_str()];
    let before = old.gtid_executed().await?;
    let refused = archive.run(&reseed(&a, &members, &[])).await?.ended(23)?;
    let refused = refused.tells(&[
        "is ONLINE in the old group",
        "--fence",
        "--discard-transactions-of",
        "that 127.0.0.1",
    ])?;
    assert_eq!(old.gtid_executed().await?, before, "{refused:?}");
    ensure!(
        !archive.file("branches/0002.json").exists(),
        "a branch was begun"
    );
    let (x, y) = (old.address(), second.address());
    let given = [
        "--fence",
        "--discard-transactions-of",
        &x,
        "--discard-transactions-of",
        &y,
    ];
    let said = archive.run(&reseed(&a, &members, &given)).await?.ended(3)?;
    let said = said.tells(&["the Router", "branch 2 from branch 1", "lost"])?;
    assert_group(first, &[old, *second]).await?;
    let mut conn = second.conn().await?;
    let checked = ledger.check(&mut conn, &Cut::Everything).await?;
    ensure!(checked.present >= 40, "{checked:?} {said:?}");
    let kept = std::fs::read_dir(archive.file("reseeds/discarded"))?.count();
    assert_eq!(kept, 2, "the lists of what was given up");

    router.wait_closed().await?;
    router.bootstrap_again(first).await?;
    router.wait_routes(first, &[old, *second]).await?;
    assert_open(first, &[old, *second]).await?;
    // The old history is still to be had, and the stream goes on with the new one.
    let all = [a.as_str(), &source, &b].join(",");
    archive
        .run(&["stream", "--once", "--server", &all])
        .await?
        .ended(0)?;
    archive
        .run(&["log", "--grep", "opened"])
        .await?
        .ended(0)?
        .tells(&["CREATE DATABASE opened"])?;
    archive
        .run(&["log", "--branch", "1", "--grep", "DROP TABLE"])
        .await?
        .ended(0)?
        .tells(&[&gtid])?;
    Ok(())
}
