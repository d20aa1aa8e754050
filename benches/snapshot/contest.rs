//! The contestants and their turns.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, programs, scratch};
use serde::Serialize;
use serde_json::Value;

use crate::child::{self, Usage};
use crate::data::Size;
use crate::floor;
use crate::program::{Store, Stores};
use crate::settings::Settings;
use crate::statistics::median;
use crate::table::Table;

/// Who takes part, in the order of the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Who {
    /// Reads and throws away.
    Floor,
    /// Writes plain files.
    Mydumper,
    /// `-c`: compresses them as gzip does.
    MydumperCompressed,
    MysqldumpZstd,
    Folder,
    Minio,
}

impl Who {
    const ALL: [Self; 6] = [
        Self::Floor,
        Self::Mydumper,
        Self::MydumperCompressed,
        Self::MysqldumpZstd,
        Self::Folder,
        Self::Minio,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Floor => "the same SELECTs, thrown away",
            Self::Mydumper => "mydumper",
            Self::MydumperCompressed => "mydumper -c",
            Self::MysqldumpZstd => "mysqldump | zstd",
            Self::Folder => "quillback snapshot, folder",
            Self::Minio => "quillback snapshot, MinIO",
        }
    }
}

/// One contestant's turns.
#[derive(Debug, Serialize)]
pub(crate) struct Contestant {
    who: Who,
    turns: Vec<Usage>,
    /// The median of the wall times, in seconds.
    seconds: f64,
    /// The median of user and system time.
    processor_seconds: f64,
    /// The largest of all turns.
    peak_bytes: u64,
    stored_bytes: u64,
}

/// What mydumper says of itself.
pub(crate) fn mydumper_version() -> Result<String> {
    let output = Command::new(programs::find("mydumper")?)
        .arg("--version")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let first = text.lines().next().unwrap_or("unknown");
    Ok(first.split(',').next().unwrap_or(first).to_owned())
}

/// Lets them take turns.
pub(crate) async fn measure(
    settings: &Settings,
    server: &Server,
    size: &Size,
) -> Result<Vec<Contestant>> {
    let stores = Stores::start().await?;
    let mut contestants: Vec<Contestant> = Who::ALL
        .into_iter()
        .map(|who| Contestant {
            who,
            turns: Vec::new(),
            seconds: 0.0,
            processor_seconds: 0.0,
            peak_bytes: 0,
            stored_bytes: 0,
        })
        .collect();
    // The first turn of all would find the server cold.
    turn(settings, server, size, &stores, Who::Floor).await?;
    for round in 0..settings.rounds() {
        for contestant in &mut contestants {
            let (usage, stored) = turn(settings, server, size, &stores, contestant.who).await?;
            println!(
                "  round {}: {:<30} {:>6.2} s wall {:>6.2} s user {:>6.2} s system {:>5.0} MiB, {:>4.0} MB stored",
                round + 1,
                contestant.who.name(),
                usage.seconds,
                usage.user,
                usage.system,
                usage.peak_bytes as f64 / 1048576.0,
                stored as f64 / 1e6,
            );
            contestant.turns.push(usage);
            contestant.stored_bytes = stored;
        }
    }
    for contestant in &mut contestants {
        let turns = &contestant.turns;
        contestant.seconds = median(turns.iter().map(|usage| usage.seconds));
        contestant.processor_seconds = median(turns.iter().map(|usage| usage.user + usage.system));
        contestant.peak_bytes = turns
            .iter()
            .map(|usage| usage.peak_bytes)
            .max()
            .unwrap_or(0);
    }
    Ok(contestants)
}

/// One turn, and the bytes that it stored.
async fn turn(
    settings: &Settings,
    server: &Server,
    size: &Size,
    stores: &Stores,
    who: Who,
) -> Result<(Usage, u64)> {
    // The disk gets what the one before left in the cache.
    let synced = tokio::process::Command::new("sync").status().await?;
    ensure!(synced.success(), "sync ended with {synced}");
    let folder = Scratch::new("snapshot")?;
    let dump = folder.path().join("dump");
    match who {
        Who::Floor => {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg(floor::COMMAND)
                .arg(server.url())
                .arg(settings.threads.to_string());
            let (usage, text) = run(command, &folder).await?;
            ensure!(
                text.trim() == size.rows.to_string(),
                "the floor read {text} rows"
            );
            Ok((usage, 0))
        }
        Who::Mydumper | Who::MydumperCompressed => {
            let mut command = Command::new(programs::find("mydumper")?);
            command
                .args(["--host=127.0.0.1", "--user=root", "--database=bench"])
                .arg(format!("--port={}", server.port()))
                .arg(format!("--password={ROOT_PASSWORD}"))
                .arg(format!("--threads={}", settings.threads))
                .arg(format!("--outputdir={}", dump.display()));
            if who == Who::MydumperCompressed {
                command.arg("--compress");
            }
            let (usage, _) = run(command, &folder).await?;
            Ok((usage, stored(&dump, size)?))
        }
        Who::MysqldumpZstd => {
            let mut command = Command::new("sh");
            command
                .arg("-c")
                .arg("\"$0\" \"$@\" | zstd -q -o \"$DUMP\"")
                .arg(programs::find("mysqldump")?)
                .args(["--no-defaults", "--host=127.0.0.1", "--user=root"])
                .args(["--ssl-mode=DISABLED", "--get-server-public-key"])
                .args([
                    "--single-transaction",
                    "--set-gtid-purged=OFF",
                    "--hex-blob",
                ])
                .arg("--max-allowed-packet=1G")
                .arg(format!("--port={}", server.port()))
                .arg(format!("--password={ROOT_PASSWORD}"))
                .arg("bench")
                .env("DUMP", &dump);
            let (usage, _) = run(command, &folder).await?;
            Ok((usage, stored(&dump, size)?))
        }
        Who::Folder | Who::Minio => {
            let store = if who == Who::Folder {
                Store::Folder
            } else {
                Store::Minio
            };
            let place = stores.place(store);
            place.run(server, &["init"]).await?;
            let threads = settings.threads.to_string();
            let arguments = [
                "snapshot",
                "--allow-primary",
                "--json",
                "--threads",
                &threads,
            ];
            let mut command = place.command(server, &arguments)?;
            command.args(&settings.arguments);
            let (usage, text) = run(command, &folder).await?;
            let report: Value = serde_json::from_str(&text)?;
            let total = |name: &str| report["totals"][name].as_u64().unwrap_or(0);
            ensure!(
                total("rows") == size.rows,
                "quillback read {} rows",
                total("rows")
            );
            Ok((usage, total("stored_bytes")))
        }
    }
}

/// The bytes of a dump that another program wrote; too few of them would mean that it failed.
fn stored(dump: &Path, size: &Size) -> Result<u64> {
    let mut bytes = 0;
    if dump.is_dir() {
        for entry in std::fs::read_dir(dump)? {
            bytes += entry?.metadata()?.len();
        }
    } else {
        bytes = std::fs::metadata(dump)?.len();
    }
    ensure!(
        bytes > size.bytes / 10,
        "{} has {bytes} bytes",
        dump.display()
    );
    Ok(bytes)
}

/// Runs a program and returns what it took and what it printed.
async fn run(mut command: Command, folder: &Scratch) -> Result<(Usage, String)> {
    let (out, talk) = (folder.path().join("stdout"), folder.path().join("stderr"));
    command
        // With the mark the watchdog ends it, should this process be killed.
        .env(scratch::MARK, scratch::root()?)
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&talk)?);
    let outcome = tokio::task::spawn_blocking(move || child::run(&mut command)).await?;
    let usage = outcome.with_context(|| std::fs::read_to_string(talk).unwrap_or_default())?;
    Ok((usage, std::fs::read_to_string(out)?))
}

/// The contestants as a table.
pub(crate) fn table(contestants: &[Contestant]) -> Table {
    let mut table = Table::new(&[
        "",
        "wall",
        "/ floor",
        "/ mydumper",
        "/ mydumper -c",
        "/ mysqldump \\| zstd",
        "CPU s",
        "/ mydumper -c",
        "/ mysqldump \\| zstd",
        "peak memory",
        "stored",
    ]);
    let of = |who: Who| {
        let mut all = contestants.iter();
        all.find(|contestant| contestant.who == who)
            .expect("all take part")
    };
    let (packed, dumped) = (of(Who::MydumperCompressed), of(Who::MysqldumpZstd));
    for contestant in contestants {
        let wall = |other: &Contestant| format!("{:.2}", contestant.seconds / other.seconds);
        let cpu = |other: &Contestant| {
            format!(
                "{:.2}",
                contestant.processor_seconds / other.processor_seconds
            )
        };
        table.row(vec![
            contestant.who.name().replace('|', "\\|"),
            format!("{:.2} s", contestant.seconds),
            wall(of(Who::Floor)),
            wall(of(Who::Mydumper)),
            wall(packed),
            wall(dumped),
            format!("{:.2}", contestant.processor_seconds),
            cpu(packed),
            cpu(dumped),
            format!("{:.0} MiB", contestant.peak_bytes as f64 / 1048576.0),
            format!("{:.0} MB", contestant.stored_bytes as f64 / 1e6),
        ]);
    }
    table
}
