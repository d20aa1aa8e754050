//! The program is killed in the middle of a snapshot, and another run goes on with it: only if
//! that shows the very same state, and else anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::manifest::Manifest;
use quillback_harness::{Proxy, ROOT_PASSWORD, Scratch, Server, until};
use serde_json::Value;

use crate::support::{exec_all, manifest, memory, on_primary, snapshot, url};

const LIMIT: Duration = Duration::from_secs(120);

/// A program that is killed if the test ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An archive in a folder, and a server that is reached at a speed of our choice.
struct Bench {
    server: Server,
    proxy: Proxy,
    folder: Scratch,
}

impl Bench {
    /// Tables of about 3 MB, 2 MB and 1 MB that no compression makes small.
    async fn start() -> Result<Self> {
        let server = Server::start().await?;
        exec_all(&server, &["CREATE DATABASE d"]).await?;
        for (table, rows) in [("big", 3000), ("middle", 2000), ("small", 1000)] {
            exec_all(
                &server,
                &[
                    &format!("CREATE TABLE d.{table} (id INT PRIMARY KEY, v VARBINARY(1000))"),
                    "SET SESSION cte_max_recursion_depth = 10000",
                    &format!(
                        "INSERT INTO d.{table} WITH RECURSIVE n AS \
                         (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
                         SELECT i, RANDOM_BYTES(1000) FROM n"
                    ),
                    &format!("ANALYZE TABLE d.{table}"),
                ],
            )
            .await?;
        }
        let proxy = Proxy::start(&server.address()).await?;
        let bench = Self {
            server,
            proxy,
            folder: Scratch::new("r")?,
        };
        let said = bench.command(&["init"]).output()?;
        ensure!(said.status.success(), "{said:?}");
        Ok(bench)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
        command
            .args(arguments)
            .env_clear()
            .env("QUILLBACK_ARCHIVE", self.folder.file_url("archive"))
            .env(
                "QUILLBACK_SERVER",
                format!("mysql://root@{}", self.proxy.address()),
            )
            .env("QUILLBACK_PASSWORD", ROOT_PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Takes a snapshot slowly, and kills the program once a table is recorded as done.
    async fn kill_midway(&self) -> Result<PathBuf> {
        self.proxy.throttle(Some(700_000));
        let mut command = self.command(&["snapshot", "--allow-primary", "--threads", "1"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running(command.spawn()?);
        let record = until("a record of a table", LIMIT, async || {
            Ok(self
                .snapshots()?
                .into_iter()
                .find(|folder| folder.join("progress/000000.json").exists()))
        })
        .await?;
        running.0.kill()?;
        running.0.wait()?;
        ensure!(!record.join("manifest.json").exists(), "it came to its end");
        self.proxy.throttle(None);
        // The server shall have noticed that the connections are gone.
        until("the connections to end", LIMIT, async || {
            let count: u64 = self
                .server
                .one(
                    "SELECT COUNT(*) FROM performance_schema.threads \
                     WHERE NAME LIKE '%one_connection' AND PROCESSLIST_ID <> CONNECTION_ID()",
                )
                .await?;
            Ok((count == 0).then_some(()))
        })
        .await?;
        Ok(record)
    }

    fn snapshots(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.path().join("archive/snapshots");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        std::fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    /// Runs it again with `--resume`.
    async fn resume(&self) -> Result<(i32, Value)> {
        let mut command = self.command(&["--json", "snapshot", "--allow-primary", "--resume"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let value = serde_json::from_slice(&output.stdout).context(said)?;
        Ok((output.status.code().unwrap_or(-1), value))
    }

    /// The manifest is that of what the server holds now.
    async fn check(&self, folder: &Path) -> Result<Manifest> {
        let bytes = std::fs::read(folder.join("manifest.json"))?;
        let found: Manifest = serde_json::from_slice(&bytes)?;
        for file in found.tables.iter().flat_map(|table| &table.files) {
            let path = folder.join(file.file.key.to_string());
            let stored = std::fs::read(&path)?;
            ensure!(
                quillback::archive::hash::sha256(&stored) == file.file.sha256,
                "{}",
                path.display()
            );
        }
        let storage = memory();
        let fresh = snapshot(&[url(&self.server)], &on_primary(), &storage).await?;
        let fresh = manifest(&*storage, &fresh).await?;
        assert_eq!(found.gtid_executed, fresh.gtid_executed);
        let sums = |manifest: &Manifest| -> BTreeMap<String, (u64, String)> {
            let tables = manifest.tables.iter();
            tables
                .map(|t| (t.display_name(), (t.rows, t.row_checksum.to_string())))
                .collect()
        };
        assert_eq!(sums(&found), sums(&fresh));
        assert!(!folder.join("progress/view.json").exists());
        assert!(!folder.join("progress/000000.json").exists());
        // Whoever restores by hand runs every script that is there.
        let named: Result<BTreeSet<PathBuf>> = found
            .schema
            .iter()
            .map(|script| {
                let path = folder.join(script.file.key.to_string());
                let digest = quillback::archive::hash::sha256(&std::fs::read(&path)?);
                ensure!(digest == script.file.sha256, "{}", path.display());
                Ok(path)
            })
            .collect();
        let there: Result<BTreeSet<PathBuf>> = std::fs::read_dir(folder.join("schema"))?
            .map(|entry| Ok(entry?.path()))
            .collect();
        assert_eq!(there?, named?);
        Ok(found)
    }
}

fn folder_of(bench: &Bench, report: &Value) -> Result<PathBuf> {
    let id = report["id"].as_str().context("an id")?;
    Ok(bench.folder.path().join("archive/snapshots").join(id))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_state_is_gone_on_with() -> Result<()> {
    let bench = Bench::start().await?;
    let dead = bench.kill_midway().await?;
    // As a run that died at its very end leaves them, with other files of rows.
    for script in ["08-rows", "16-gtids"] {
        let path = dead.join(format!("schema/{script}.sql.zst"));
        std::fs::write(
            path,
            zstd::encode_all(&b"SELECT 'of a dead run';\n"[..], 1)?,
        )?;
    }
    let (code, report) = bench.resume().await?;
    assert_eq!(code, 0, "{report}");
    assert_eq!(folder_of(&bench, &report)?, dead);
    let tables = report["resume"]["gone_on"]["tables"].as_u64();
    ensure!(matches!(tables, Some(1 | 2)), "{report}");
    bench.check(&dead).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_state_is_started_anew() -> Result<()> {
    let bench = Bench::start().await?;
    let dead = bench.kill_midway().await?;
    bench
        .server
        .exec("INSERT INTO d.small VALUES (100000, 'new')")
        .await?;
    let gtid = bench.server.gtid_executed().await?;
    let (code, report) = bench.resume().await?;
    assert_eq!(code, 0, "{report}");
    let anew = folder_of(&bench, &report)?;
    ensure!(anew != dead, "{report}");
    let why = report["resume"]["anew"].as_str().context("a reason")?;
    let last = gtid.rsplit('-').next().context("a number")?;
    ensure!(
        why.starts_with("transactions were committed since:") && why.ends_with(last),
        "{why}"
    );
    bench.check(&anew).await?;
    ensure!(!dead.join("manifest.json").exists());

    // Without a dead run there is nothing to go on with, and that is no failure either.
    for folder in bench.snapshots()? {
        if folder != anew {
            std::fs::remove_dir_all(folder)?;
        }
    }
    let (code, report) = bench.resume().await?;
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        report["resume"]["anew"],
        "there is no unfinished snapshot to go on with"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_it_was_stored_is_read_again() -> Result<()> {
    let bench = Bench::start().await?;
    let dead = bench.kill_midway().await?;
    // The files of the table that was done: one is cut short, as a store without care may do it.
    let record: Value = serde_json::from_slice(&std::fs::read(dead.join("progress/000000.json"))?)?;
    let table = &record["tables"][0];
    let key = table["files"][0]["key"].as_str().context("a file")?;
    let path = dead.join(key);
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    let (code, report) = bench.resume().await?;
    assert_eq!(code, 0, "{report}");
    assert_eq!(folder_of(&bench, &report)?, dead);
    let done = record["tables"].as_array().map_or(0, Vec::len) as u64;
    let taken = report["resume"]["gone_on"]["tables"].as_u64();
    ensure!(taken.is_some_and(|taken| taken <= done), "{report}");
    let found = bench.check(&dead).await?;
    let keys = found.tables.iter().flat_map(|table| &table.files);
    ensure!(
        keys.map(|file| file.file.key.to_string())
            .all(|named| named != key),
        "the damaged file is named"
    );
    Ok(())
}
