//! A damaged archive, as an operator meets it in the night.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use quillback_harness::Server;

use crate::support::Shell;

/// The segments' files, in order.
fn segments(shell: &Shell) -> Result<Vec<PathBuf>> {
    let folder = shell.path().join("archive/log/0001");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_and_changed_bytes_are_told_everywhere() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    let shell = Shell::new()?
        .with_server(&source, "source")
        .await?
        .with_server(&target, "target")
        .await?;
    let archive = shell.archive();
    let shell = shell.env("QUILLBACK_ARCHIVE", archive);
    let server = source.url_without_password();
    source.exec("CREATE DATABASE d").await?;
    source.exec("CREATE TABLE d.t (id INT PRIMARY KEY)").await?;
    shell.run(&["init"]).await?;
    shell
        .run(&["snapshot", "--allow-primary", "--server", &server])
        .await?;
    // Each run is an epoch whose first segment holds one transaction.
    let mut filled = Vec::new();
    for id in 1..=3 {
        source
            .exec(&format!("INSERT INTO d.t VALUES ({id})"))
            .await?;
        let before = segments_or_none(&shell)?;
        shell
            .run(&["stream", "--once", "--server", &server])
            .await?;
        let new = segments(&shell)?
            .into_iter()
            .find(|file| !before.contains(file));
        filled.push(new.context("a new segment")?);
    }
    let to = target.url_without_password();
    let restore = ["restore", "--until", "latest", "--to", &to];
    let whole = std::fs::read(&filled[1])?;

    std::fs::remove_file(&filled[1])?;
    let said = shell.run(&["status"]).await?;
    assert_eq!(said.code, 21, "{}", said.out);
    let expected = "PROBLEM no segment holds <source uuid>:4 (before ";
    assert!(said.out.contains(expected), "{}", said.out);
    shell.run(&restore).await?.is(
        21,
        "",
        "error: transactions between snapshot <snapshot> and the target are not archived: <source uuid>:4\n  \
         try: --until <time> (the nearest state before)\n       \
         or a target before the gap, or one that a snapshot behind the gap reaches (quillback status)",
    );
    let said = shell.run(&["log"]).await?;
    assert!(
        said.err
            .contains("warning: no segment holds <source uuid>:4"),
        "{}",
        said.err
    );
    // What is new is archived all the same, and nobody is left in ignorance.
    let stream = ["stream", "--once", "--server", &server];
    let said = shell.run(&stream).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    let warning = "warning: the archive's log is damaged: ";
    assert!(said.err.contains(warning), "{}", said.err);

    let mut changed = whole.clone();
    changed[40] ^= 1;
    std::fs::write(&filled[1], &changed)?;
    let key = filled[1]
        .file_name()
        .and_then(|name| name.to_str())
        .context("a name")?;
    // Status and log show what can be read, and what cannot.
    let said = shell.run(&["status"]).await?;
    assert_eq!(said.code, 22, "{}", said.err);
    let line = said
        .out
        .lines()
        .find(|line| line.starts_with("PROBLEM") && line.contains(key));
    let line = line.context("the damaged object is named")?;
    assert!(line.contains(" cannot be read: "), "{line}");
    let said = shell.run(&["log"]).await?;
    assert_eq!(said.code, 22, "{}", said.err);
    assert!(said.err.contains(key), "{}", said.err);
    let said = shell.run(&restore).await?;
    assert_eq!((said.code, said.out.as_str()), (22, ""), "{}", said.err);
    assert!(said.err.contains("try: "), "{}", said.err);
    let said = shell.run(&stream).await?;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains(warning), "{}", said.err);

    std::fs::write(&filled[1], &whole)?;
    assert_eq!(shell.run(&["status"]).await?.code, 0);
    assert_eq!(shell.run(&restore).await?.code, 0);
    Ok(())
}

/// The segments' files; none before the first run.
fn segments_or_none(shell: &Shell) -> Result<Vec<PathBuf>> {
    if shell.path().join("archive/log/0001").exists() {
        segments(shell)
    } else {
        Ok(Vec::new())
    }
}
