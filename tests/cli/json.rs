//! The documents of `--json`: fields that programs lean on, one document on stdout.

use anyhow::{Context as _, Result};
use quillback_harness::Server;
use serde_json::Value;

use crate::support::Shell;

/// Fails unless a document has these fields.
#[track_caller]
fn has(document: &Value, fields: &[&str]) {
    for field in fields {
        assert!(document.get(field).is_some(), "no {field} in {document}");
    }
}

/// The names of a report's phases, each with its time and its bytes.
fn phases(document: &Value) -> Result<Vec<String>> {
    let phases = document["phases"].as_array().context("no phases")?;
    phases
        .iter()
        .map(|phase| {
            assert!(phase["seconds"].as_f64().is_some(), "{phase}");
            assert!(phase["bytes"].as_u64().is_some(), "{phase}");
            Ok(phase["phase"].as_str().context("no name")?.to_owned())
        })
        .collect()
}

/// A time as all documents tell it.
#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let parsed = chrono::DateTime::parse_from_rfc3339(text);
    assert!(
        parsed.is_ok() && text.len() == 27 && text.ends_with('Z'),
        "{value}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_speaks_json() -> Result<()> {
    let (source, target) = (Server::start().await?, Server::start().await?);
    let shell = Shell::new()?.with_server(&source, "source").await?;
    let archive = shell.archive();
    let shell = shell
        .env("QUILLBACK_ARCHIVE", archive.clone())
        .env("QUILLBACK_SERVER", source.url_without_password());
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1)",
    ] {
        source.exec(statement).await?;
    }
    let uuid = source.uuid().await?;

    let (code, error) = shell.json(&["status"]).await?;
    assert_eq!(code, 10);
    assert_eq!(error["error"]["exit_code"], 10);
    has(&error["error"], &["message", "try"]);

    let (code, plan) = shell.json(&["init", "--dry-run"]).await?;
    assert_eq!(
        (code, &plan["plan"]["archive"]),
        (0, &Value::from(archive.clone()))
    );
    let (code, made) = shell.json(&["init"]).await?;
    assert_eq!((code, &made["archive"]), (0, &Value::from(archive)));
    has(&made["identity"], &["archive", "format", "created"]);

    let (code, plan) = shell
        .json(&["snapshot", "--allow-primary", "--dry-run"])
        .await?;
    assert_eq!(code, 0);
    has(&plan["plan"], &["id", "server", "tables"]);
    let (code, snapshot) = shell.json(&["snapshot", "--allow-primary"]).await?;
    assert_eq!(code, 0);
    assert_eq!(snapshot["gtid_executed"], format!("{uuid}:1-3"));
    assert_eq!(phases(&snapshot)?, ["schema", "lock", "data", "commit"]);

    source.exec("INSERT INTO d.t VALUES (2)").await?;
    let (code, plan) = shell.json(&["stream", "--once", "--dry-run"]).await?;
    assert_eq!(code, 0);
    has(&plan["plan"], &["server", "uuid", "epoch", "start"]);
    // One document a line, each with the name of what happened.
    let output = tokio::task::spawn_blocking({
        let mut command = shell.command(&["--json", "stream", "--once"]);
        move || command.output()
    })
    .await??;
    assert_eq!(shell.said(&output).code, 0);
    let lines: Vec<Value> = String::from_utf8(output.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).context(line.to_owned()))
        .collect::<Result<_>>()?;
    let events: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .filter(|event| *event != "purge_headroom")
        .collect();
    assert_eq!(
        &events[..3],
        ["claimed", "following", "segment"],
        "{lines:?}"
    );
    assert_eq!(events.last(), Some(&"done"), "{lines:?}");
    let filled = |line: &&Value| line["event"] == "segment" && line["transactions"] == 1;
    let segment = lines.iter().find(filled).context("no segment")?;
    assert_time(&segment["last_commit"]);
    let report = &lines.last().context("no line")?["report"];
    assert_eq!(report["gtid_set"], format!("{uuid}:1-4"), "{report}");
    assert_time(&report["complete_to"]);

    let (code, status) = shell.json(&["status"]).await?;
    assert_eq!(code, 0, "{status}");
    for field in ["restorable_from", "restorable_to"] {
        assert_time(&status[field]);
    }
    assert_eq!(status["snapshots"][0]["connected"], true);
    assert_eq!(status["server"]["not_archived"], "");
    assert_eq!(status["problems"], Value::Array(Vec::new()));

    let (code, line) = shell.json(&["log"]).await?;
    assert_eq!(code, 0);
    assert_eq!(line["gtid"], format!("{uuid}:4"));
    assert_eq!(line["kind"], "dml");
    assert_eq!(line["tables"][0]["name"], "d.t");
    assert_time(&line["time"]);

    let to = target.url_without_password();
    let restore = ["restore", "--until", "latest", "--to", &to];
    let (code, plan) = shell.json(&[&restore[..], &["--dry-run"]].concat()).await?;
    assert_eq!(code, 0);
    assert_eq!(plan["plan"]["result"], format!("{uuid}:1-4"));
    has(
        &plan["plan"],
        &["target", "cut", "snapshot", "replay", "server", "notes"],
    );
    let (code, report) = shell.json(&restore).await?;
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["gtid_executed"], format!("{uuid}:1-4"));
    assert_eq!(phases(&report)?, ["plan", "load", "replay", "check"]);
    assert_eq!(report["open"], false);
    let (code, error) = shell.json(&restore).await?;
    assert_eq!(code, 23);
    assert_eq!(error["error"]["exit_code"], 23);
    Ok(())
}
