//! A reseed that dies anywhere is gone on with by the same command.

use anyhow::{Result, ensure};
use quillback_harness::{Server, Trio};

use crate::support::{Archive, arg, assert_group, assert_open, reseed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_at_each_step_is_gone_on_with() -> Result<()> {
    let archive = Archive::new().await?;
    let trio = Trio::start().await?;
    let primary = trio.primary().await?;
    primary.exec("CREATE DATABASE d").await?;
    primary
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY)")
        .await?;
    primary.exec("INSERT INTO d.t VALUES (7), (8)").await?;
    let old = arg(primary);
    archive
        .run(&["snapshot", "--server", &old])
        .await?
        .ended(0)?;
    primary.exec("INSERT INTO d.t VALUES (1), (2), (3)").await?;
    archive
        .run(&["stream", "--once", "--server", &old])
        .await?
        .ended(0)?;
    let lost = primary.address();
    drop(trio);

    let (first, second, third) = tokio::join!(Server::start(), Server::start(), Server::start());
    let (first, second, third) = (first?, second?, third?);
    let urls = [arg(&first), arg(&second), arg(&third)];
    let [a, b, c] = urls.each_ref().map(String::as_str);
    archive
        .run(&["restore", "--until", "latest", "--to", a])
        .await?
        .ended(0)?;
    // The second member is filled from the archive, which the first one's clone must not disturb.
    for (point, fill) in [
        ("reseed-step:1", "clone"),
        ("reseed-recorded:1", "clone"),
        ("reseed-step-done:1", "clone"),
        ("reseed-step-done:2", "clone"),
        ("reseed-bootstrapping:1", "clone"),
        ("reseed-step-done:3", "clone"),
        ("reseed-filling:1", "clone"),
        // It has been cloned, and nobody has told it to join.
        ("reseed-step-done:5", "clone"),
        ("reseed-joining:1", "clone"),
        ("reseed-filling:1", "archive"),
        ("load-committed:1", "archive"),
        ("loaded:1", "archive"),
        ("finished:1", "archive"),
        ("reseed-joining:1", "archive"),
    ] {
        let died = archive
            .run_with(
                &reseed(a, &[b, c], &["--fill", fill, "--gone", &lost]),
                &[("QUILLBACK_FAIL_POINT", point)],
            )
            .await?;
        ensure!(died.code.is_none(), "{point}: {died:?}");
    }
    let said = archive
        .run(&reseed(a, &[b, c], &["--gone", &lost]))
        .await?
        .ended(0)?;
    assert_group(&first, &[&second, &third]).await?;
    ensure!(!archive.file("branches/0003.json").exists(), "{said:?}");
    assert_open(&first, &[&second, &third]).await
}
