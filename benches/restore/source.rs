//! The same data in the form that each contestant takes.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use quillback::archive::manifest::Manifest;
use quillback::archive::repository::Repository;
use quillback::archive::rows::load_statement;
use quillback::storage::{LocalStorage, Storage};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, programs};

use crate::floor::Orders;
use crate::program::{Place, Store, Stores};

/// A snapshot, and the dumps of other programs.
#[derive(Debug)]
pub(crate) struct Source {
    /// The archive with the snapshot.
    pub(crate) place: Place,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) manifest: Manifest,
    /// The tables' CREATE TABLE statements.
    creates: Vec<String>,
    folder: Scratch,
}

impl Source {
    /// Takes a snapshot and no dump.
    pub(crate) async fn snapshot(stores: &Stores, server: &Server) -> Result<Self> {
        let place = stores.place(Store::Folder);
        place.run(server, &["init"]).await?;
        place
            .run(server, &["snapshot", "--allow-primary", "--json"])
            .await?;
        let folder = place.url.strip_prefix("file://").context("a folder")?;
        let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(folder));
        let repository = Repository::open(Arc::clone(&storage)).await?;
        let manifest = repository.snapshots().await?.pop().context("no snapshot")?;
        let mut creates = Vec::new();
        for table in &manifest.tables {
            let sql = format!("SHOW CREATE TABLE bench.`{}`", table.name);
            let (_, create): (String, String) = server.one(&sql).await?;
            creates.push(create);
        }
        Ok(Self {
            place,
            storage,
            manifest,
            creates,
            folder: Scratch::new("dumps")?,
        })
    }

    /// Dumps the schema for the others too.
    pub(crate) async fn with_dumps(self, server: &Server, threads: usize) -> Result<Self> {
        let connection = |program: &str| -> Result<Command> {
            let mut command = Command::new(programs::find(program)?);
            if program == "mysqldump" {
                command.arg("--no-defaults");
            }
            command
                .args(["--host=127.0.0.1", "--user=root"])
                .arg(format!("--port={}", server.port()))
                .arg(format!("--password={ROOT_PASSWORD}"))
                .stdin(Stdio::null());
            Ok(command)
        };
        let mut mydumper = connection("mydumper")?;
        mydumper
            .arg("--database=bench")
            .arg(format!("--threads={threads}"))
            .arg(format!("--outputdir={}", self.mydumper().display()));
        run(mydumper).await?;
        let mut mysqldump = connection("mysqldump")?;
        mysqldump
            .args(["--ssl-mode=DISABLED", "--get-server-public-key"])
            .args([
                "--single-transaction",
                "--set-gtid-purged=OFF",
                "--hex-blob",
            ])
            .args(["--max-allowed-packet=1G", "--databases", "bench"])
            .arg(format!("--result-file={}", self.mysqldump().display()));
        run(mysqldump).await?;
        for table in &self.manifest.tables {
            for file in &table.files {
                let object = self
                    .storage
                    .get(&file.file.key.in_snapshot(&self.manifest.id))
                    .await?;
                std::fs::write(
                    self.plain(&file.file.key.to_string()),
                    zstd::decode_all(&object[..])?,
                )?;
            }
        }
        for (name, behind) in [("orders", false), ("orders-behind", true)] {
            let path = self.folder.path().join(name);
            std::fs::write(path, serde_json::to_vec(&self.orders_of(behind))?)?;
        }
        Ok(self)
    }

    pub(crate) fn mydumper(&self) -> PathBuf {
        self.folder.path().join("mydumper")
    }

    pub(crate) fn mysqldump(&self) -> PathBuf {
        self.folder.path().join("mysqldump.sql")
    }

    /// The file with what the floor has to do.
    pub(crate) fn orders(&self, behind: bool) -> PathBuf {
        let name = if behind { "orders-behind" } else { "orders" };
        self.folder.path().join(name)
    }

    /// The statements that make the tables, with all indexes or with those that do not wait.
    pub(crate) fn tables(&self, behind: bool) -> Vec<String> {
        let creates = self.creates.iter();
        creates
            .map(|create| match (behind, key(create)) {
                (true, Some(key)) => create.replacen(&format!(",\n  {key}"), "", 1),
                _ => create.clone(),
            })
            .collect()
    }

    fn plain(&self, key: &str) -> PathBuf {
        self.folder.path().join(key.replace('/', "-"))
    }

    /// Files in turns, so that each connection has a table of its own where there are several.
    fn orders_of(&self, behind: bool) -> Orders {
        let tables = &self.manifest.tables;
        let most = tables.iter().map(|table| table.files.len()).max();
        let mut orders = Orders::default();
        for n in 0..most.unwrap_or(0) {
            for table in tables {
                if let Some(file) = table.files.get(n) {
                    let plain = self.plain(&file.file.key.to_string());
                    orders.files.push((load_statement(table), plain));
                }
            }
        }
        if behind {
            orders.last = Some("ALTER INSTANCE ENABLE INNODB REDO_LOG".to_owned());
            for (table, create) in tables.iter().zip(&self.creates) {
                if let Some(key) = key(create) {
                    let alter = format!("ALTER TABLE bench.`{}` ADD {key}", table.name);
                    orders.behind.push(alter);
                }
            }
        }
        orders
    }
}

/// The secondary key of a table, which has one at most here.
fn key(create: &str) -> Option<&str> {
    let keys = create.lines().map(str::trim);
    let mut keys = keys.filter(|line| line.starts_with("KEY "));
    let key = keys.next_back()?;
    Some(key.trim_end_matches(','))
}

async fn run(command: Command) -> Result<()> {
    let text = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output().await?;
    let talk = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}: {}", talk.trim());
    Ok(())
}
