//! A cluster that was replaced by a restored server, and is still there: its stream stops and says why, one on the
//! new cluster goes on by itself, and the old history stays.

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use quillback::archive::identity::{Branch, NewBranch};
use quillback::archive::layout::BranchNumber;
use quillback::archive::repository::Fencer;
use quillback::gtid::GtidSet;
use quillback_harness::{Port, Server, ServerOptions, Trio};
use serde_json::Value;

use crate::branches::{FLUSH, once, prepare, printed, restores_to, status, write};
use crate::gtid_executed;
use crate::place::Place;

const NEW_GROUP: &str = "5a1fd3c0-0000-4000-8000-00000000beef";
const REASON: &str = "d.t was emptied by mistake";

/// A server that can be the first of a group.
async fn server() -> Result<(Server, Port)> {
    let port = Port::reserve()?;
    let options = ServerOptions::new()
        .line("plugin_load_add=group_replication.so;mysql_clone.so")
        .line(format!("group_replication_group_name={NEW_GROUP}"))
        .line(format!(
            "group_replication_local_address=127.0.0.1:{}",
            port.number()
        ))
        .line("group_replication_start_on_boot=OFF")
        .line("group_replication_single_primary_mode=ON");
    Ok((Server::start_with(options).await?, port))
}

/// Forms a group of this server alone.
async fn bootstrap(server: &Server) -> Result<()> {
    for statement in [
        "SET GLOBAL group_replication_bootstrap_group = ON",
        "START GROUP_REPLICATION",
        "SET GLOBAL group_replication_bootstrap_group = OFF",
    ] {
        server
            .exec(statement)
            .await
            .with_context(|| server.log_tail())?;
    }
    let primary = async || {
        let role: String = server
            .one("SELECT MEMBER_ROLE FROM performance_schema.replication_group_members")
            .await?;
        let closed: bool = server.one("SELECT @@GLOBAL.super_read_only").await?;
        Ok((role == "PRIMARY" && !closed).then_some(()))
    };
    quillback_harness::until("the new primary", crate::place::LIMIT, primary).await
}

/// What a reseed does to the archive before the new group takes writes.
async fn begin_history(place: &Place, server: &Server, held: &GtidSet) -> Result<Branch> {
    let fork = gtid_executed(server).await?;
    let uuid = server.uuid().await?.parse()?;
    let new = NewBranch {
        parent: BranchNumber(1),
        lost: held.subtract(&fork),
        fork,
        reason: REASON.to_owned(),
        group: Some(NEW_GROUP.parse()?),
        server: Some(uuid),
    };
    let by = Fencer {
        source: uuid,
        address: server.address(),
        host: "ops".to_owned(),
        now: Utc::now(),
    };
    let repository = &place.repository;
    let branch = repository.new_branch(new.clone(), Utc::now()).await?;
    ensure!(repository.fence_for(&branch, &by).await?.is_some());
    // As a run that was killed and is run again.
    ensure!(repository.new_branch(new, Utc::now()).await? == branch);
    ensure!(repository.fence_for(&branch, &by).await?.is_none());
    Ok(branch)
}

/// The GTIDs that `log` shows.
async fn log(place: &Place, more: &[&str]) -> Result<GtidSet> {
    let arguments = [&["--json", "log"], more].concat();
    let ended = place.run(&[], &arguments).await?;
    ended.is(0);
    let mut shown = GtidSet::new();
    for line in ended.out.lines() {
        let line: Value = serde_json::from_str(line)?;
        if let Some(gtid) = line["gtid"].as_str() {
            shown.insert(&gtid.parse()?);
        }
    }
    Ok(shown)
}

/// What a plan to restore the newest state of a history leads to.
async fn planned(place: &Place, target: &Server, more: &[&str]) -> Result<GtidSet> {
    let to = target.url_without_password();
    let arguments = [
        "--json",
        "restore",
        "--until",
        "latest",
        "--dry-run",
        "--to",
        &to,
    ];
    let ended = place.run(&[], &[&arguments[..], more].concat()).await?;
    ended.is(0);
    let plan: Value = serde_json::from_str(&ended.out)?;
    let result = plan["plan"]["result"].as_str().context("a set")?;
    Ok(result.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_the_old_cluster_stops_and_one_of_the_new_goes_on() -> Result<()> {
    let trio = Trio::start().await?;
    let old = trio.primary().await?;
    let place = Place::folder().await?;
    prepare(old).await?;
    let streamer = place.stream(&trio.urls(), &FLUSH)?;
    streamer.following().await?;
    let snapshot = ["--json", "snapshot", "--allow-primary"];
    place.run(&[old.url()], &snapshot).await?.is(0);
    write(old).await?;
    let accident = write(old).await?;
    write(old).await?;
    let held = gtid_executed(old).await?;
    place.wait_holds(&streamer, &held).await?;

    // Restored to just before the accident, in its place.
    let (new, _port) = server().await?;
    let gtid = accident.iter().next().context("one")?.to_string();
    let to = new.url_without_password();
    let restore = [
        "--json",
        "restore",
        "--before-gtid",
        &gtid,
        "--open",
        "--to",
        &to,
    ];
    place.run(&[], &restore).await?.is(0);
    let branch = begin_history(&place, &new, &held).await?;
    ensure!(branch.branch == BranchNumber(2) && branch.lost.is_superset(&accident));

    // With nothing of its own yet, the new history is the old one up to the fork.
    let told = status(&place).await?;
    ensure!(told["branch"] == 2, "{told}");
    let last = &told["branches"][1];
    ensure!(
        last["group"] == NEW_GROUP && last["reason"] == REASON,
        "{told}"
    );
    let said = place.run(&[], &["status"]).await?;
    let words = format!("in the group {NEW_GROUP} ({REASON})");
    ensure!(said.out.contains(&words), "{}", said.out);
    ensure!(log(&place, &[]).await?.is_disjoint(&branch.lost));
    ensure!(
        log(&place, &["--branch", "1"])
            .await?
            .is_superset(&branch.lost)
    );
    let target = Server::start().await?;
    ensure!(planned(&place, &target, &[]).await? == branch.fork);
    ensure!(planned(&place, &target, &["--branch", "1"]).await? == held);

    // The old cluster is written to once more, and its stream stops.
    let late = write(old).await?;
    let refused = streamer.ended().await?;
    refused.is(23);
    let words = format!(
        "error: the stream is on branch 1, which was left: a reseed began branch 2, begun at {} ({REASON}), which goes \
         on in the group {NEW_GROUP}",
        quillback::clock::rfc3339(branch.created)
    );
    ensure!(refused.err.contains(&words), "{}", refused.err);
    let hint = "stream --back-to-branch 1 with its servers";
    ensure!(refused.err.contains(hint), "{}", refused.err);
    // Started anew it stops before it claims anything.
    let claims = place.repository.newest_epoch(None).await?;
    for how in [&["--once"][..], &["--standby"], &["--dry-run"]] {
        let arguments = [&["--json", "stream"], how].concat();
        let refused = place.run(&trio.urls(), &arguments).await?;
        refused.is(23);
        let words = format!(
            "has what was left behind: {}, and a reseed began branch 2",
            printed(&branch.lost)
        );
        ensure!(refused.err.contains(&words), "{}", refused.err);
    }
    ensure!(place.repository.newest_epoch(None).await? == claims);

    // The new one needs no flag, neither before the group is formed nor behind that.
    let dry = ["--json", "stream", "--dry-run"];
    let plan = place.run(&[new.url()], &dry).await?;
    plan.is(0);
    ensure!(plan.out.contains("\"branch\":2"), "{}", plan.out);
    bootstrap(&new).await?;
    let streamer = place.stream(&[new.url()], &FLUSH)?;
    streamer.following().await?;
    let kept = write(&new).await?;
    let new_name: GtidSet = format!("{NEW_GROUP}:1-1000").parse()?;
    ensure!(kept.is_subset(&new_name), "{kept:#}");
    let now = gtid_executed(&new).await?;
    place.wait_holds(&streamer, &now).await?;
    streamer.stop().await?.is(0);
    ensure!(place.repository.newest_branch().await? == BranchNumber(2));
    let history = place.repository.history(BranchNumber(2)).await?;
    ensure!(history.problems.is_empty(), "{:?}", history.problems);
    ensure!(history.end() == Some(now.clone()));

    // Servers of both: not while both take writes; then the new one, whichever is asked first.
    let mut both = trio.urls();
    both.push(new.url());
    let refused = place.run(&both, &["--json", "stream", "--once"]).await?;
    refused.is(23);
    ensure!(refused.err.contains(&new.address()), "{}", refused.err);
    ensure!(refused.err.contains(&old.address()), "{}", refused.err);
    old.exec("SET GLOBAL super_read_only = ON").await?;
    once(&place, &both, &[]).await?;
    old.exec("SET GLOBAL super_read_only = OFF").await?;
    old.exec("SET GLOBAL read_only = OFF").await?;

    // Both histories can be restored, and what the old cluster did since is in neither.
    restores_to(&place, &[], &now).await?;
    ensure!(
        planned(&place, &target, &["--branch", "1"])
            .await?
            .is_superset(&held)
    );
    ensure!(
        log(&place, &[])
            .await?
            .is_disjoint(&late.union(&branch.lost))
    );
    let snapshot = ["--json", "snapshot", "--allow-primary"];
    place.run(&[new.url()], &snapshot).await?.is(0);
    let told = status(&place).await?;
    let snapshots = told["snapshots"].as_array().context("snapshots")?;
    ensure!(snapshots.len() == 2, "{told}");
    for snapshot in snapshots {
        ensure!(snapshot["of_this_branch"] == true, "{told}");
        ensure!(snapshot["connected"] == true, "{told}");
    }

    // The reseed is given up: the old history goes on, and the new cluster's stream stops.
    let streamer = place.stream(&[new.url()], &FLUSH)?;
    streamer.following().await?;
    let back = ["--json", "stream", "--once", "--back-to-branch", "1"];
    place.run(&trio.urls(), &back).await?.is(0);
    write(&new).await?;
    streamer.ended().await?.is(11);
    once(&place, &trio.urls(), &[]).await?;
    let history = place.repository.history(BranchNumber(3)).await?;
    ensure!(history.problems.is_empty(), "{:?}", history.problems);
    ensure!(history.end() == Some(gtid_executed(old).await?));
    ensure!(log(&place, &[]).await?.is_superset(&late));
    let refused = place
        .run(&[new.url()], &["--json", "stream", "--once"])
        .await?;
    refused.is(23);
    Ok(())
}
