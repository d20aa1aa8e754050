//! Ctrl-C while the server waits for a lock that somebody else holds: we end at once and say what
//! the server is at, and the restore is gone on with.

use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Server, ServerOptions, until};

use crate::program::{self, Running};
use crate::support::{
    LIMIT, assert_tidy, begun, exec_all, executed, gtids_of, only, state, stream_once,
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
