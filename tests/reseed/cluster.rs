//! A whole group: from the archive alone, and in place.

use anyhow::{Context as _, Result, ensure};
use quillback_harness::ledger::{Cut, primary_of};
use quillback_harness::{Ledger, Server, Trio};

use crate::support::{Archive, LIMIT, arg, assert_group, assert_open, reseed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_are_destroyed_and_the_cluster_comes_back_from_the_archive() -> Result<()> {
    let archive = Archive::new().await?;
    let trio = Trio::start().await?;
    let mut ledger = Ledger::start(primary_of(trio.finder())).await?;
    ledger.wait_acknowledged(30, LIMIT).await?;
    let old = arg(trio.primary().await?);
    archive
        .run(&["snapshot", "--server", &old])
        .await?
        .ended(0)?;
    ledger.wait_acknowledged(30, LIMIT).await?;
    ledger.stop().await;
    archive
        .run(&["stream", "--once", "--server", &old])
        .await?
        .ended(0)?;
    let group = trio.group_name().to_owned();
    let lost = trio.primary().await?.address();
    drop(trio);

    let servers = fresh().await?;
    let [first, second, third] = servers.each_ref();
    let urls = servers.each_ref().map(arg);
    let [a, b, c] = urls.each_ref().map(String::as_str);
    archive
        .run(&["restore", "--until", "latest", "--to", a])
        .await?
        .ended(0)?;

    // Nobody knows what has become of the one that the archive was fed from, until somebody says so.
    let refused = archive.run(&reseed(a, &[b, c], &[])).await?.ended(23)?;
    refused.tells(&[
        &format!("{lost} was of the old group and cannot be asked"),
        &format!("--gone {lost}"),
    ])?;

    let shown = archive
        .run(&reseed(a, &[b, c], &["--gone", &lost, "--dry-run"]))
        .await?
        .ended(0)?;
    let shown = shown.tells(&[
        "START GROUP_REPLICATION;",
        "CLONE INSTANCE FROM 'quillback_recovery'@",
        "branch 2 of the archive, from branch 1",
        "behind     nothing",
        "IDENTIFIED BY '********'",
        "nothing was changed (--dry-run)",
    ])?;
    assert_eq!(first.one::<u64>("SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'OFFLINE'").await?, 0, "{shown:?}");

    let said = archive
        .run(&reseed(a, &[b, c], &["--gone", &lost, "--json"]))
        .await?
        .ended(0)?;
    let report: serde_json::Value = serde_json::from_str(&said.out).context(said.out.clone())?;
    assert_eq!(
        (&report["branch"], &report["parent"]),
        (&2.into(), &1.into())
    );
    assert_ne!(report["group"], serde_json::Value::from(group.as_str()));
    let fills: Vec<_> = report["members"]
        .as_array()
        .context("members")?
        .iter()
        .map(|m| m["fill"].clone())
        .collect();
    assert_eq!(
        fills,
        [serde_json::Value::Null, "clone".into(), "clone".into()]
    );
    assert_group(first, &[second, third]).await?;
    let mut conn = second.conn().await?;
    let checked = ledger.check(&mut conn, &Cut::Everything).await?;
    ensure!(checked.present >= 60, "{checked:?}");
    assert_open(first, &[second, third]).await?;

    // Nothing is left to do, and nothing is done again.
    let again = archive
        .run(&reseed(a, &[b, c], &["--gone", &lost, "--json"]))
        .await?
        .ended(0)?;
    let again: serde_json::Value = serde_json::from_str(&again.out)?;
    assert_eq!(
        (&again["group"], &again["branch"]),
        (&report["group"], &report["branch"])
    );
    assert_group(first, &[second, third]).await?;

    // A stream goes on with the new history by itself.
    let all = urls.join(",");
    archive
        .run(&["stream", "--once", "--server", &all])
        .await?
        .ended(0)?;
    archive
        .run(&["log", "--grep", "opened"])
        .await?
        .ended(0)?
        .tells(&["CREATE DATABASE opened"])?;
    // A member that dies comes back by itself.
    third.kill9().await?;
    third.start_again().await?;
    quillback_harness::until("the member to be back", LIMIT, async || {
        let online: u64 = first
            .one("SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'")
            .await?;
        Ok((online == 3).then_some(()))
    })
    .await?;
    Ok(())
}

/// Three servers that know nothing of each other.
async fn fresh() -> Result<[Server; 3]> {
    let (a, b, c) = tokio::join!(Server::start(), Server::start(), Server::start());
    Ok([a?, b?, c?])
}
