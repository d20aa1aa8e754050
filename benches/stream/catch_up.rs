//! Catching up with a binlog that is there, against mysqlbinlog.
//!
//! Both read all of it from the server over a loopback connection in clear. mysqlbinlog writes the files as they are: it does
//! not compress, hash or sync them, and leaves them in the kernel's cache. quillback does all of that. So mysqlbinlog is
//! timed twice: to its end, and to when its files are on the disk. They take turns, and between two turns the disk gets
//! what the one before left in the cache.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, programs, scratch};
use serde::Serialize;

use crate::child::{self, Usage};
use crate::program::{Place, Store, Stores, documents};
use crate::settings::Settings;
use crate::source::Binlog;
use crate::statistics::median;
use crate::table::Table;

const RAW: &str = "mysqlbinlog --raw";
const SYNCED: &str = "mysqlbinlog --raw, then sync";

/// Archives that hold a snapshot of the time before the binlog, and nothing else.
#[derive(Debug)]
pub(crate) struct Archives {
    _stores: Stores,
    places: Vec<(Store, Place)>,
}

impl Archives {
    /// Makes one for each turn.
    pub(crate) async fn prepare(settings: &Settings, server: &Server) -> Result<Self> {
        let stores = Stores::start().await?;
        let mut places = Vec::new();
        for _ in 0..settings.rounds() {
            for store in Store::ALL {
                let place = stores.place(store);
                place.run(server, &["init"]).await?;
                place
                    .run(server, &["snapshot", "--allow-primary", "--threads", "1"])
                    .await?;
                places.push((store, place));
            }
        }
        Ok(Self {
            _stores: stores,
            places,
        })
    }

    /// Prints what somebody needs who wants to try on his own.
    pub(crate) fn show(&self, server: &Server) {
        for (_, place) in &self.places {
            if let Ok(env) = place.environment(server) {
                let pairs: Vec<String> = env
                    .iter()
                    .filter(|(name, _)| name != scratch::MARK)
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                println!("{}", pairs.join(" "));
            }
        }
    }
}

/// One contestant's turns.
#[derive(Debug, Serialize)]
pub(crate) struct Contestant {
    name: String,
    turns: Vec<Usage>,
    /// The median of the wall times, in seconds.
    seconds: f64,
    /// Wall time against mysqlbinlog's, each a median: below 1 is faster.
    against_mysqlbinlog: f64,
    /// The same against mysqlbinlog's time until its files are on the disk.
    against_synced: f64,
    /// The median of user and system time, for 1 GB of binlog.
    processor_seconds_per_gigabyte: f64,
    /// The largest of all turns.
    peak_bytes: u64,
    /// Bytes written for each byte of binlog.
    stored_share: f64,
    megabytes_per_second: f64,
}

/// Lets them take turns.
pub(crate) async fn measure(
    settings: &Settings,
    server: &Server,
    binlog: &Binlog,
    archives: &Archives,
) -> Result<Vec<Contestant>> {
    let names = [RAW, SYNCED, Store::Folder.name(), Store::Minio.name()];
    let mut turns: Vec<(&str, Vec<Usage>, f64)> = names.map(|name| (name, Vec::new(), 1.0)).into();
    let mut places = archives.places.iter();
    for round in 0..settings.rounds() {
        let (raw, synced) = mysqlbinlog(server, binlog).await?;
        for (entry, usage) in turns.iter_mut().zip([raw, synced]) {
            say_turn(round, entry.0, &usage);
            entry.1.push(usage);
        }
        for (store, place) in places.by_ref().take(Store::ALL.len()) {
            let (usage, share) = quillback(settings, server, binlog, place).await?;
            let entry = turns
                .iter_mut()
                .find(|(name, ..)| *name == store.name())
                .context("an unknown store")?;
            say_turn(round, entry.0, &usage);
            entry.1.push(usage);
            entry.2 = share;
        }
    }
    let wall = |turns: &[Usage]| median(turns.iter().map(|usage| usage.seconds));
    let (reference, synced) = (wall(&turns[0].1), wall(&turns[1].1));
    let gigabytes = binlog.bytes as f64 / 1e9;
    let contestants = turns.into_iter().map(|(name, turns, stored_share)| {
        let seconds = wall(&turns);
        Contestant {
            against_mysqlbinlog: seconds / reference,
            against_synced: seconds / synced,
            processor_seconds_per_gigabyte: median(
                turns.iter().map(|usage| usage.user + usage.system),
            ) / gigabytes,
            peak_bytes: turns
                .iter()
                .map(|usage| usage.peak_bytes)
                .max()
                .unwrap_or(0),
            megabytes_per_second: gigabytes * 1e3 / seconds,
            name: name.to_owned(),
            turns,
            seconds,
            stored_share,
        }
    });
    Ok(contestants.collect())
}

fn say_turn(round: usize, name: &str, usage: &Usage) {
    println!(
        "  round {}: {name:<28} {:>6.2} s wall {:>6.2} s user {:>6.2} s system {:>5.0} MiB",
        round + 1,
        usage.seconds,
        usage.user,
        usage.system,
        usage.peak_bytes as f64 / 1048576.0
    );
}

/// Waits until the disk has what the kernel holds for it.
async fn settle() -> Result<()> {
    let status = tokio::process::Command::new("sync").status().await?;
    ensure!(status.success(), "sync ended with {status}");
    Ok(())
}

/// To its end, and to when its files are on the disk.
async fn mysqlbinlog(server: &Server, binlog: &Binlog) -> Result<(Usage, Usage)> {
    settle().await?;
    let folder = Scratch::new("l")?;
    let first = binlog.files.first().and_then(|file| file.file_name());
    let mut command = Command::new(programs::find("mysqlbinlog")?);
    command
        .args(["--no-defaults", "--read-from-remote-server", "--raw"])
        .args(["--host=127.0.0.1", "--user=root", "--ssl-mode=DISABLED"])
        .arg("--get-server-public-key")
        .arg(format!("--port={}", server.port()))
        .arg(format!("--password={ROOT_PASSWORD}"))
        .arg(format!("--result-file={}/", folder.path().display()))
        .arg("--to-last-log")
        .arg(first.context("the server has no binlog")?)
        .env(scratch::MARK, scratch::root()?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.path().join("stderr"))?);
    let talk = folder.path().join("stderr");
    let raw = run(command, &talk).await?;
    let ended = Instant::now();
    settle().await?;
    let synced = Usage {
        seconds: raw.seconds + ended.elapsed().as_secs_f64(),
        ..raw
    };
    std::fs::remove_file(&talk)?;
    let mut got = 0;
    for entry in std::fs::read_dir(folder.path())? {
        got += entry?.metadata()?.len();
    }
    ensure!(
        got == binlog.bytes,
        "mysqlbinlog wrote {got} bytes of {}",
        binlog.bytes
    );
    Ok((raw, synced))
}

/// Also returns the bytes stored for each byte of binlog.
async fn quillback(
    settings: &Settings,
    server: &Server,
    binlog: &Binlog,
    place: &Place,
) -> Result<(Usage, f64)> {
    settle().await?;
    let folder = Scratch::new("q")?;
    let (out, talk) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let mut command = place.command(server, &["stream", "--once", "--json"])?;
    command
        .args(&settings.stream_arguments)
        .stdout(File::create(&out)?)
        .stderr(File::create(&talk)?);
    let usage = run(command, &talk).await?;
    let events = documents(&std::fs::read_to_string(&out)?)?;
    let done = events
        .iter()
        .find(|event| event["event"] == "done")
        .context("the stream did not say that it is done")?;
    let report = &done["report"];
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    // The tables were there before the snapshot; all that filled the binlog came after it.
    ensure!(
        number("transactions") == binlog.transactions,
        "quillback archived {} transactions of {}",
        number("transactions"),
        binlog.transactions
    );
    let share = number("stored_bytes") as f64 / number("raw_bytes") as f64;
    Ok((usage, share))
}

async fn run(mut command: Command, talk: &Path) -> Result<Usage> {
    let outcome = tokio::task::spawn_blocking(move || child::run(&mut command)).await?;
    outcome.with_context(|| std::fs::read_to_string(talk).unwrap_or_default())
}

/// The contestants as a table.
pub(crate) fn table(contestants: &[Contestant]) -> Table {
    let mut table = Table::new(&[
        "",
        "wall",
        "MB/s",
        "wall / mysqlbinlog's",
        "wall / its with sync",
        "CPU s per GB",
        "peak memory",
        "stored / raw",
    ]);
    for contestant in contestants {
        let name = match contestant.name.as_str() {
            "folder" | "MinIO" => format!("quillback stream --once, {}", contestant.name),
            other => other.to_owned(),
        };
        table.row(vec![
            name,
            format!("{:.2} s", contestant.seconds),
            format!("{:.0}", contestant.megabytes_per_second),
            format!("{:.2}", contestant.against_mysqlbinlog),
            format!("{:.2}", contestant.against_synced),
            format!("{:.2}", contestant.processor_seconds_per_gigabyte),
            format!("{:.0} MiB", contestant.peak_bytes as f64 / 1048576.0),
            format!("{:.2}", contestant.stored_share),
        ]);
    }
    table
}
