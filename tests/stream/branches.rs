//! What a person has decided about a gap or a fork: it is done, written down, and accepted for nothing else.

use anyhow::{Context as _, Result, ensure};
use quillback::gtid::GtidSet;
use quillback_harness::{Replicas, Server};
use serde_json::Value;

use crate::decisions::purge;
use crate::gtid_executed;
use crate::place::Place;

pub(crate) const FLUSH: [&str; 2] = ["--flush-interval", "200ms"];

/// Writes a row, and gives its GTID as a set.
pub(crate) async fn write(server: &Server) -> Result<GtidSet> {
    let before = gtid_executed(server).await?;
    server
        .exec("INSERT INTO d.t (body) VALUES (UUID())")
        .await?;
    Ok(gtid_executed(server).await?.subtract(&before))
}

pub(crate) async fn prepare(server: &Server) -> Result<()> {
    server.exec("CREATE DATABASE d").await?;
    server
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, body VARCHAR(64))")
        .await
}

/// Archives what the server has now.
pub(crate) async fn once(place: &Place, servers: &[String], more: &[&str]) -> Result<()> {
    let arguments = [&["--json", "stream", "--once"], more].concat();
    place.run(servers, &arguments).await?.is(0);
    Ok(())
}

/// `quillback --json status`, whatever its exit code is.
pub(crate) async fn status(place: &Place) -> Result<Value> {
    let ended = place.run(&[], &["--json", "status"]).await?;
    serde_json::from_str(&ended.out).with_context(|| format!("{}{}", ended.out, ended.err))
}

pub(crate) fn printed(set: &GtidSet) -> String {
    format!("{set:#}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_gap_is_known_for_ever() -> Result<()> {
    let server = Server::start().await?;
    let servers = [server.url()];
    let place = Place::folder().await?;
    prepare(&server).await?;
    once(&place, &servers, &[]).await?;
    write(&server).await?;
    once(&place, &servers, &[]).await?;
    let lost = write(&server).await?.union(&write(&server).await?);
    purge(&server).await?;
    let kept = write(&server).await?;

    let refused = place.run(&servers, &["--json", "stream"]).await?;
    refused.is(21);
    ensure!(refused.err.contains(&printed(&lost)), "{}", refused.err);
    ensure!(refused.err.contains("--accept-gap"), "{}", refused.err);
    // A part of it is not enough.
    let part = GtidSet::from_iter(lost.iter().take(1));
    let accept = ["--json", "stream", "--accept-gap", &printed(&part)];
    place.run(&servers, &accept).await?.refused(
        23,
        &format!(
            "error: --accept-gap names {part:#}, but what has to be accepted is {lost:#}\n  \
             try: --accept-gap '{lost:#}', if that is what you mean"
        ),
    );

    // Exactly what the hint says.
    let accept = ["--accept-gap".to_owned(), printed(&lost)];
    let accept: Vec<&str> = accept.iter().map(String::as_str).collect();
    once(&place, &servers, &accept).await?;
    ensure!(
        place
            .chain()
            .await?
            .end()
            .unwrap_or_default()
            .is_superset(&kept)
    );
    let told = status(&place).await?.to_string();
    ensure!(
        told.contains(&lost.to_string().replace('\n', "\\n")) || told.contains(&printed(&lost)),
        "{told}"
    );

    // The flag left where it was accepts nothing new, and the gap stays known.
    once(&place, &servers, &accept).await?;
    let more = write(&server).await?;
    purge(&server).await?;
    let ended = place
        .run(&servers, &[&["--json", "stream"], &accept[..]].concat())
        .await?;
    ended.refused(
        23,
        &format!(
            "error: --accept-gap names {lost:#}, but what has to be accepted is {more:#}\n  \
             try: --accept-gap '{more:#}', if that is what you mean"
        ),
    );
    let told = status(&place).await?.to_string();
    ensure!(
        told.contains(&lost.to_string().replace('\n', "\\n")) || told.contains(&printed(&lost)),
        "{told}"
    );
    Ok(())
}

/// The source dies with transactions that no replica has, and a replica goes on without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_transactions_starts_a_new_branch() -> Result<()> {
    let servers = Replicas::start(1).await?;
    let place = Place::folder().await?;
    let source = servers.source();
    let replica = &servers.replicas()[0];
    prepare(source).await?;
    servers.wait_caught_up().await?;
    let streamer = place.stream(&servers.urls(), &FLUSH)?;
    streamer.following().await?;
    let snapshot = place
        .run(&[source.url()], &["--json", "snapshot", "--allow-primary"])
        .await?;
    snapshot.is(0);
    write(source).await?;
    servers.wait_caught_up().await?;
    replica.exec("STOP REPLICA").await?;
    let lost = write(source).await?.union(&write(source).await?);
    let held = gtid_executed(source).await?;
    place.wait_holds(&streamer, &held).await?;
    source.kill9().await?;
    servers.promote(replica).await?;
    let kept = write(replica).await?;

    // The one that runs must not go on as if nothing had happened.
    let refused = streamer.ended().await?;
    refused.is(23);
    ensure!(refused.err.contains(&printed(&lost)), "{}", refused.err);
    ensure!(refused.err.contains("--new-branch"), "{}", refused.err);
    let servers = [replica.url()];
    let refused = place.run(&servers, &["--json", "stream", "--once"]).await?;
    refused.is(23);
    ensure!(refused.err.contains(&printed(&lost)), "{}", refused.err);
    let part = GtidSet::from_iter(lost.iter().take(1));
    place
        .run(
            &servers,
            &[
                "--json",
                "stream",
                "--once",
                "--new-branch",
                &printed(&part),
            ],
        )
        .await?
        .is(23);
    ensure!(place.repository.newest_branch().await?.0 == 1);

    let accept = ["--new-branch".to_owned(), printed(&lost)];
    let accept: Vec<&str> = accept.iter().map(String::as_str).collect();
    once(&place, &servers, &accept).await?;
    ensure!(place.repository.newest_branch().await?.0 == 2);
    let branches = place.repository.branches().await?;
    let branch = branches.last().context("a branch")?;
    ensure!(branch.parent.map(|parent| parent.0) == Some(1));
    ensure!(branch.fork.is_disjoint(&lost), "{:#}", branch.fork);
    let end = place.chain().await?.end().unwrap_or_default();
    ensure!(end.is_superset(&kept) && end.is_disjoint(&lost), "{end:#}");
    // Once more with the flag, and without it: no third branch.
    once(&place, &servers, &accept).await?;
    once(&place, &servers, &[]).await?;
    ensure!(place.repository.newest_branch().await?.0 == 2);

    // Each history is restorable to its own end.
    restores_to(&place, &[], &gtid_executed(replica).await?).await?;
    restores_to(&place, &["--branch", "1"], &held).await?;
    Ok(())
}

/// Restores to `latest` on a new server, which must have exactly this set.
pub(crate) async fn restores_to(place: &Place, more: &[&str], set: &GtidSet) -> Result<()> {
    let target = Server::start().await?;
    let url = target.url_without_password();
    let arguments = ["--json", "restore", "--until", "latest", "--to", &url];
    place
        .run(&[], &[&arguments[..], more].concat())
        .await?
        .is(0);
    let executed = gtid_executed(&target).await?;
    ensure!(executed == *set, "{executed:#} is not {set:#}");
    Ok(())
}

/// Two servers with one history up to the last transaction, which has the same GTID and another content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gtid_with_two_contents_is_refused() -> Result<()> {
    let (one, other) = (Server::start().await?, Server::start().await?);
    let place = Place::folder().await?;
    prepare(&one).await?;
    let mut shared = gtid_executed(&one).await?;
    once(&place, &[one.url()], &[]).await?;
    for _ in 0..3 {
        shared.extend_from(&write(&one).await?);
    }
    let double = write(&one).await?;
    once(&place, &[one.url()], &[]).await?;

    // The other one has the schema and every GTID, the last of them with its own row.
    use mysql_async::prelude::Queryable as _;
    let mut conn = other.conn().await?;
    conn.query_drop("SET sql_log_bin = 0").await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, body VARCHAR(64))",
        &format!("SET GLOBAL gtid_purged = '{shared:#}'"),
        "SET sql_log_bin = 1",
        &format!("SET gtid_next = '{double:#}'"),
        "INSERT INTO d.t (body) VALUES ('another one')",
        "SET gtid_next = 'AUTOMATIC'",
    ] {
        conn.query_drop(statement)
            .await
            .with_context(|| statement.to_owned())?;
    }
    conn.disconnect().await?;
    write(&other).await?;
    let refused = place
        .run(&[other.url()], &["--json", "stream", "--once"])
        .await?;
    refused.is(23);
    ensure!(refused.err.contains(&printed(&double)), "{}", refused.err);
    // And the true one is followed as before.
    let later = write(&one).await?;
    once(&place, &[one.url()], &[]).await?;

    // Who means the other one says so, by everything that differs or is not there.
    let servers = [other.url()];
    let lost = double.union(&later);
    let refused = place.run(&servers, &["--json", "stream", "--once"]).await?;
    refused.is(23);
    ensure!(refused.err.contains(&printed(&later)), "{}", refused.err);
    let flags = ["--json", "stream", "--once", "--new-branch"];
    let refused = place
        .run(&servers, &[&flags[..], &[&printed(&later)]].concat())
        .await?;
    refused.is(23);
    ensure!(refused.err.contains(&printed(&lost)), "{}", refused.err);
    once(&place, &servers, &["--new-branch", &printed(&lost)]).await?;
    let branches = place.repository.branches().await?;
    let branch = branches.last().context("a branch")?;
    ensure!(branch.branch.0 == 2 && branch.lost == lost, "{branch:?}");
    let end = place.chain().await?.end().unwrap_or_default();
    ensure!(end == gtid_executed(&other).await?, "{end:#}");
    once(&place, &servers, &["--new-branch", &printed(&lost)]).await?;
    ensure!(place.repository.newest_branch().await?.0 == 2);
    Ok(())
}
