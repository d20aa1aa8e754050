//! Ctrl-C while the server waits for a lock that somebody else holds: we end at once and say what
//! the server is at, and the restore is gone on with. And a run that dies while the server is at its
//! commit.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions, until};

use crate::program::{self, Running};
use crate::support::{
    Archive, LIMIT, assert_tidy, begun, exec_all, executed, gtids_of, on_primary, only, snapshot,
    state, stream_once, url,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applier_that_waits_for_a_lock_keeps_nobody_waiting() -> Result<()> {
    let (source, archive) = begun(ServerOptions::new()).await?;
    exec_all(&source, &["INSERT INTO d.t VALUES (1)"]).await?;
    let held_up = only(&gtids_of(&source, &["ALTER TABLE d.t ADD COLUMN a INT"]).await?);
    exec_all(&source, &["INSERT INTO d.t VALUES (2, 2)"]).await?;
    stream_once(&archive.repository, &source).await?;
    let end = state(&source).await?;
    for kind in ["replication", "sql"] {
        let server = Server::start().await?;
        let begin = ["--until", "latest", "--replay", kind];
        let armed = [("QUILLBACK_FAIL_POINT", "loaded")];
        let said = program::restore(&archive, &server, &begin, &armed).await?;
        said.aborted()?;
        // A reader that never ends its transaction: rows come in, DDL does not.
        let mut reader = server.conn().await?;
        reader.query_drop("BEGIN").await?;
        reader.query_drop("SELECT * FROM d.t").await?;
        let resume = ["--resume", "--replay", kind];
        let running = Running::start(&archive, &server, &resume)?;
        until("the replay to wait", LIMIT, async || {
            let waiting: u64 = server
                .one(
                    "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                     WHERE OBJECT_SCHEMA = 'd' AND LOCK_STATUS = 'PENDING'",
                )
                .await?;
            Ok((waiting > 0).then_some(()))
        })
        .await?;
        let said = running.interrupted().await?;
        said.ended(&[1])?;
        let told = said.err();
        ensure!(told.contains("the replay was interrupted"), "{told}");
        ensure!(told.contains("--resume"), "{told}");
        if kind == "replication" {
            let what = format!("is still applying {held_up} and stops by itself");
            ensure!(told.contains(&what), "{told}");
        }
        // Its lock is not ours to end.
        reader.query_drop("COMMIT").await?;
        reader.disconnect().await?;
        let said = program::restore(&archive, &server, &resume, &[]).await?;
        said.ended(&[0])?;
        ensure!(executed(&server).await? == end.set, "{}", said.out());
        exec_all(
            &server,
            &[
                "SET GLOBAL super_read_only = OFF",
                "SET GLOBAL read_only = OFF",
                "SET GLOBAL event_scheduler = ON",
            ],
        )
        .await?;
        assert_eq!(state(&server).await?, end);
        assert_tidy(&server).await?;
    }
    Ok(())
}

/// A commit that the server was at when we died becomes true when its connection is ended: whoever
/// goes on must look how far the tables are only behind that, or it is applied twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_under_way_is_not_made_twice() -> Result<()> {
    let source = Server::start().await?;
    exec_all(
        &source,
        &["CREATE DATABASE d", "CREATE TABLE d.free (v INT)"],
    )
    .await?;
    let archive = Archive::new().await?;
    snapshot(&archive.repository, &[url(&source)], &on_primary()).await?;
    for row in 1..=3 {
        exec_all(&source, &[&format!("INSERT INTO d.free VALUES ({row})")]).await?;
    }
    stream_once(&archive.repository, &source).await?;

    // Commits wait for a replica that never comes; readers see nothing of them meanwhile.
    let server = [
        "plugin_load_add=semisync_source.so",
        "rpl_semi_sync_source_wait_point=AFTER_SYNC",
        "rpl_semi_sync_source_wait_no_replica=ON",
        "rpl_semi_sync_source_timeout=3600000",
    ];
    let server = server
        .into_iter()
        .fold(ServerOptions::new(), ServerOptions::line);
    let server = Server::start_with(server).await?;
    let ask = ["--tables", "d.free"];
    let begin = [&["--until", "latest"], &ask[..]].concat();
    let armed = [("QUILLBACK_FAIL_POINT", "loaded")];
    let said = program::restore(&archive, &server, &begin, &armed).await?;
    said.aborted()?;
    let switch = async |value: &str| {
        let statement = format!("SET GLOBAL rpl_semi_sync_source_enabled = {value}");
        server.exec(&statement).await
    };
    let waiting = async || -> Result<Vec<u64>> {
        let waiting = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE LIKE \
                       'Waiting for semi-sync ACK%'";
        server.query(waiting).await
    };
    switch("ON").await?;
    let resume = [&["--resume"], &ask[..]].concat();
    let running = Running::start(&archive, &server, &resume)?;
    let commit = until("a commit that waits", LIMIT, async || {
        Ok(waiting().await?.first().copied())
    })
    .await?;
    running.killed().await?;
    let left = waiting().await?;
    ensure!(left == [commit], "{left:?} is left, and not {commit}");

    let running = Running::start(&archive, &server, &resume)?;
    // Whether a server can be made to stop that waiting or not: the next run waits for its end.
    until("the next run to wait", LIMIT, async || {
        let waits: u64 = server
            .one("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'")
            .await?;
        let waiting = waiting().await?;
        let is_ended = !waiting.is_empty() && !waiting.contains(&commit);
        Ok((waits > 0 || is_ended).then_some(()))
    })
    .await?;
    switch("OFF").await?;
    running.ended().await?.ended(&[0])?;
    let rows: Vec<u64> = server.query("SELECT v FROM d.free ORDER BY v").await?;
    assert_eq!(rows, [1, 2, 3]);
    Ok(())
}
