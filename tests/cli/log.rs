//! `quillback log` on real servers.

mod filters;
mod rows;
mod types;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{Server, Trio, until};
use serde_json::Value;
use std::time::Duration;

use crate::support::Shell;

/// A shell with an archive of its own, and a server to stream from.
async fn shell(source: &Server) -> Result<Shell> {
    let shell = Shell::new()?.with_server(source, "source").await?;
    let archive = shell.archive();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", source.url_without_password());
    let said = shell.run(&["init"]).await?;
    ensure!(said.code == 0, "{said:?}");
    Ok(shell)
}

/// Archives what the server has.
async fn stream(shell: &Shell, arguments: &[&str]) -> Result<()> {
    let said = shell
        .run(&[&["stream", "--once"], arguments].concat())
        .await?;
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

/// The documents that a run prints.
async fn documents(shell: &Shell, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = shell.command(&[&["--json", "log"], arguments].concat());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

async fn exec_all(server: &Server, statements: &[&str]) -> Result<()> {
    use mysql_async::prelude::Queryable as _;
    let mut conn = server.conn().await?;
    for statement in statements {
        conn.query_drop(*statement)
            .await
            .with_context(|| (*statement).to_owned())?;
    }
    conn.disconnect().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_is_found_and_brought_back_by_the_line_that_is_offered() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    let shell = shell(&source).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.page (id INT PRIMARY KEY, title VARCHAR(20))",
            "CREATE TABLE shop.item (id INT PRIMARY KEY)",
            "INSERT INTO shop.page VALUES (1, 'one'), (2, 'two')",
        ],
    )
    .await?;
    let said = shell.run(&["snapshot", "--allow-primary"]).await?;
    ensure!(said.code == 0, "{said:?}");
    exec_all(
        &source,
        &[
            "INSERT INTO shop.page VALUES (3, 'three')",
            "DELETE FROM shop.item",
            "INSERT INTO shop.item VALUES (1), (2)",
            "DELETE FROM shop.item WHERE id = 1",
            "DROP TABLE shop.page",
            "INSERT INTO shop.item VALUES (5)",
        ],
    )
    .await?;
    stream(&shell, &[]).await?;

    let found = documents(&shell, &["--table", "shop.page"]).await?;
    let kinds: Vec<&Value> = found.iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["dml", "ddl"]);
    assert_eq!(found[0]["tables"][0]["rows"]["insert"], 1);
    assert_eq!(found[0]["rows"], 1);
    let gtid = found[1]["gtid"].as_str().context("a GTID")?;

    // Several are shown: the line is for the worst of them.
    let mut command = shell.command(&["log"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let talk = String::from_utf8(output.stderr)?;
    let line = talk
        .lines()
        .find(|line| line.contains("--before-gtid"))
        .with_context(|| talk.clone())?;
    ensure!(line.contains(gtid), "{line}");
    let line = line.replace(
        "mysql://user@new-server:3306",
        &target.url_without_password(),
    );
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let said = shell.run(&words).await?;
    ensure!(said.code == 0, "{said:?}");
    let titles: Vec<String> = target
        .query("SELECT title FROM shop.page ORDER BY id")
        .await?;
    assert_eq!(titles, ["one", "two", "three"]);
    let items: Vec<u32> = target.query("SELECT id FROM shop.item").await?;
    assert_eq!(items, [2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_local_too_where_the_zone_is_another() -> Result<()> {
    let source = Server::start().await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    exec_all(&source, &["CREATE DATABASE d"]).await?;
    stream(&shell, &[]).await?;
    for (zone, offset) in [
        ("Asia/Kathmandu", "+05:45)"),
        ("<odd>-03:30", "+03:30)"),
        // What is no zone is UTC.
        ("No/Where", ""),
    ] {
        let shell = &shell;
        let mut command = shell.command(&["log"]);
        command.env("TZ", zone);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = String::from_utf8(output.stdout)?;
        let head = text.lines().nth(1).with_context(|| text.clone())?;
        let at = head.split("  ").next().unwrap_or_default();
        ensure!(
            at.ends_with(if offset.is_empty() { "Z" } else { offset }),
            "{zone}: {head}"
        );
        ensure!(head.chars().count() <= 120, "{head}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_and_what_is_not_there_is_told() -> Result<()> {
    let source = Server::start().await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    exec_all(
        &source,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.page (id INT PRIMARY KEY)",
            "INSERT INTO shop.page VALUES (1)",
        ],
    )
    .await?;
    stream(&shell, &[]).await?;
    for (arguments, words) in [
        (
            &[
                "--since",
                "2026-11-20T15:00:00Z",
                "--until",
                "2026-11-20T14:00:00Z",
            ][..],
            "is after --until",
        ),
        (&["--since", "2026-11-20T15:00:00"][..], "has no offset"),
        (&["--until", "yesterday"][..], "is no time"),
        (&["--table", "a.b.c"][..], "more than one dot"),
        (&["--gtid", ""][..], "--gtid is empty"),
        (&["--full"][..], "--rows"),
        (&["--last", "0"][..], "--last"),
    ] {
        let said = shell.run(&[&["log"], arguments].concat()).await?;
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{arguments:?}");
        ensure!(said.err.contains(words), "{arguments:?}: {}", said.err);
    }
    let said = shell.run(&["log", "--branch", "7"]).await?;
    assert_eq!(said.code, 20, "{said:?}");
    shell.run(&["log", "--table", "shop.pages"]).await?.is(
        0,
        "",
        "0 transactions of 3 archived, complete to <time>\n\
         searched: <time> to <time>\n\
         no rows of shop.pages changed there; nearest: shop.page",
    );
    let said = shell
        .run(&["log", "--since", "2099-01-01T00:00:00Z"])
        .await?;
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    ensure!(
        said.err.contains("--since <time> is behind that"),
        "{}",
        said.err
    );
    let said = shell
        .run(&["log", "--until", "2099-01-01T00:00:00Z"])
        .await?;
    ensure!(
        said.err.contains("nothing is known of the time behind"),
        "{}",
        said.err
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_was_changed_hides_no_other_segment() -> Result<()> {
    let source = Server::start().await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    exec_all(&source, &["CREATE DATABASE one"]).await?;
    stream(&shell, &[]).await?;
    exec_all(&source, &["CREATE DATABASE two"]).await?;
    stream(&shell, &[]).await?;
    let lines = documents(&shell, &[]).await?;
    assert_eq!(lines.len(), 2);
    let key = lines[0]["segment"].as_str().context("a segment")?;
    let file = shell.path().join("archive").join(key);
    let mut bytes = std::fs::read(&file)?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes)?;
    let said = shell.run(&["log"]).await?;
    assert_eq!(said.code, 22, "{said:?}");
    ensure!(said.out.contains("CREATE DATABASE two"), "{}", said.out);
    ensure!(!said.out.contains("CREATE DATABASE one"), "{}", said.out);
    let told = "not shown: 1 transaction of it, <source uuid>:1";
    ensure!(said.err.contains(told), "{}", said.err);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_goes_on_over_a_failover() -> Result<()> {
    let trio = Trio::start().await?;
    let first = trio.primary().await?;
    let shell = Shell::new()?.with_server(first, "first").await?;
    let archive = shell.archive();
    let urls: Vec<String> = trio
        .members()
        .iter()
        .map(Server::url_without_password)
        .collect();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive)
        .env("QUILLBACK_SERVER", urls.join(","));
    shell.run(&["init"]).await?;
    stream(&shell, &[]).await?;
    exec_all(
        first,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
        ],
    )
    .await?;
    stream(&shell, &[]).await?;
    first.kill9().await?;
    let second = trio.wait_failover(first).await?;
    exec_all(second, &["INSERT INTO d.t VALUES (2), (3)"]).await?;
    until(
        "the stream to find the new primary",
        Duration::from_secs(60),
        async || Ok(stream(&shell, &[]).await.ok()),
    )
    .await?;
    let lines = documents(&shell, &["--table", "d.t", "--kind", "dml"]).await?;
    let told: Vec<(&Value, &Value)> = lines.iter().map(|l| (&l["source"], &l["rows"])).collect();
    let (one, two) = (first.uuid().await.ok(), second.uuid().await?);
    assert_eq!(told.len(), 2, "{lines:?}");
    assert_eq!(told[1], (&Value::from(two.clone()), &Value::from(2)));
    assert_ne!(told[0].0, told[1].0, "{one:?}");
    let mut command = shell.command(&["log", "--table", "d.t"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = String::from_utf8(output.stdout)?;
    let turns = text
        .lines()
        .filter(|line| line.starts_with("-- from the binlog of "));
    assert_eq!(turns.count(), 2, "{text}");
    ensure!(text.contains(&two), "{text}");
    Ok(())
}
