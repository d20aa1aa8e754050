//! A snapshot that was taken with a filter is never taken for one of everything.

use anyhow::Result;
use quillback_harness::Server;

use crate::support::Shell;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_snapshot_is_restored_only_by_its_name() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.item (id INT PRIMARY KEY)",
        "CREATE TABLE shop.log (id INT PRIMARY KEY)",
        "INSERT INTO shop.item VALUES (1)",
    ] {
        source.exec(statement).await?;
    }
    let shell = Shell::new()?.with_server(&source, "source").await?;
    let archive = shell.archive();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", source.url_without_password());
    shell.run(&["init"]).await?;
    let only = ["snapshot", "--allow-primary", "--include", "shop.item"];
    let (code, partial) = shell.json(&only).await?;
    assert_eq!(code, 0, "{partial}");
    let id = partial["id"].as_str().unwrap_or_default().to_owned();
    let set = partial["gtid_executed"]
        .as_str()
        .unwrap_or_default()
        .to_owned();

    // Alone it is nothing that can be restored.
    let (code, status) = shell.json(&["status"]).await?;
    assert_eq!(
        (code, &status["restorable"]),
        (20, &false.into()),
        "{status}"
    );
    assert_eq!(status["snapshots"][0]["partial"], true);
    let said = shell.run(&["status", "--snapshots"]).await?;
    for words in [
        "NOTHING RESTORABLE",
        "partial: restored only by its name",
        "only --include shop.item",
        "warning every snapshot is partial",
    ] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    let to = target.url_without_password();
    let latest = ["restore", "--until", "latest", "--to", &to];
    let said = shell.run(&latest).await?;
    assert_eq!(said.code, 20, "{}", said.err);
    assert!(
        said.err.contains("every snapshot was taken with"),
        "{}",
        said.err
    );
    assert!(said.err.contains("--snapshot"), "{}", said.err);

    // A whole one is taken even if the partial one is newer.
    let (code, whole) = shell.json(&["snapshot", "--allow-primary"]).await?;
    assert_eq!(code, 0, "{whole}");
    let (code, newest) = shell.json(&only).await?;
    assert_eq!(code, 0, "{newest}");
    let (code, plan) = shell.json(&[&latest[..], &["--dry-run"]].concat()).await?;
    assert_eq!(code, 0, "{plan}");
    assert_eq!(plan["plan"]["snapshot"]["id"], whole["id"]);
    let (_, status) = shell.json(&["status"]).await?;
    assert_eq!(status["restorable"], true);
    assert_eq!(status["snapshots"].as_array().map(Vec::len), Some(3));

    // By its name it is restored, and what it is is told.
    let named = [
        "restore",
        "--snapshot",
        &id,
        "--until-gtid",
        &set,
        "--to",
        &to,
    ];
    let said = shell.run(&named).await?;
    assert_eq!(said.code, 3, "{} {}", said.out, said.err);
    assert!(
        said.out.contains("was taken with --include shop.item"),
        "{}",
        said.out
    );
    let tables: Vec<String> = target.query("SHOW TABLES IN shop").await?;
    assert_eq!(tables, ["item"]);
    Ok(())
}
