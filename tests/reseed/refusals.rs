//! Two histories never take writes by our hand.

use anyhow::{Result, ensure};
use quillback_harness::{Server, Trio};

use crate::support::{Archive, arg, assert_group, assert_open, reseed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_group_that_lives_elsewhere_is_found_and_fenced() -> Result<()> {
    let archive = Archive::new().await?;
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    primary.exec("CREATE DATABASE d").await?;
    primary
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY)")
        .await?;
    let old = arg(primary);
    archive
        .run(&["snapshot", "--server", &old])
        .await?
        .ended(0)?;
    archive
        .run(&["stream", "--once", "--server", &old])
        .await?
        .ended(0)?;
    let secondaries = trio.secondaries().await?;
    secondaries[1].kill9().await?;
    let silent = secondaries[1].address();
    trio.wait_online(2).await?;

    let (first, second) = tokio::join!(Server::start(), Server::start());
    let (first, second) = (first?, second?);
    let (a, b) = (arg(&first), arg(&second));
    archive
        .run(&["restore", "--until", "latest", "--to", &a])
        .await?
        .ended(0)?;
    let before = first.gtid_executed().await?;

    // Neither of the new servers has ever met the old ones: the archive has.
    for given in [&[][..], &["--gone", &silent]] {
        let said = archive.run(&reseed(&a, &[&b], given)).await?.ended(23)?;
        said.tells(&[
            &format!("{} is ONLINE in the old group", primary.address()),
            &format!("{} is ONLINE in the old group", secondaries[0].address()),
            "--fence",
        ])?;
    }
    primary.exec("INSERT INTO d.t VALUES (1)").await?;
    ensure!(
        !archive.file("branches/0002.json").exists(),
        "a branch was begun"
    );
    assert_eq!(first.gtid_executed().await?, before);

    let said = archive
        .run(&reseed(&a, &[&b], &["--fence", "--gone", &silent]))
        .await?
        .ended(3)?;
    said.tells(&["was of the old group and is left out"])?;
    for server in [primary, secondaries[0]] {
        let (closed, in_group): (bool, u64) = server
            .one(
                "SELECT @@GLOBAL.super_read_only, (SELECT COUNT(*) FROM \
                 performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE')",
            )
            .await?;
        assert_eq!((closed, in_group), (true, 0), "{}", server.address());
        let refused = server.exec("INSERT INTO d.t VALUES (2)").await;
        ensure!(refused.is_err(), "{} takes writes", server.address());
    }
    // A restart does not open it again.
    primary.stop().await?;
    primary
        .start_again_with(&["--group-replication-start-on-boot=OFF"])
        .await?;
    ensure!(
        primary.exec("INSERT INTO d.t VALUES (2)").await.is_err(),
        "it takes writes"
    );
    assert_group(&first, &[&second]).await?;
    assert_open(&first, &[&second]).await
}
