//! The contestants and their turns, each on an empty server of its own.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, ServerOptions, programs, scratch};
use serde::Serialize;

use crate::child::{self, Usage, processor_seconds};
use crate::data::Size;
use crate::floor;
use crate::settings::Settings;
use crate::source::Source;
use crate::statistics::median;
use crate::table::Table;

/// Who takes part, in the order of the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Who {
    LoadData,
    /// As we do it: without redo log, the indexes after the rows.
    LoadDataTuned,
    Myloader,
    Mysql,
    Quillback,
}

impl Who {
    const ALL: [Self; 5] = [
        Self::LoadData,
        Self::LoadDataTuned,
        Self::Myloader,
        Self::Mysql,
        Self::Quillback,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::LoadData => "LOAD DATA",
            Self::LoadDataTuned => "LOAD DATA, no redo log, indexes after it",
            Self::Myloader => "myloader",
            Self::Mysql => "mysql < dump",
            Self::Quillback => "quillback restore",
        }
    }
}

/// One contestant's turns.
#[derive(Debug, Serialize)]
pub(crate) struct Contestant {
    who: Who,
    turns: Vec<Turn>,
    /// The median of the wall times, in seconds.
    seconds: f64,
    /// The median of user and system time.
    processor_seconds: f64,
    /// The same of the server.
    server_seconds: f64,
    /// The largest of all turns.
    peak_bytes: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Turn {
    usage: Usage,
    server_seconds: f64,
}

/// Lets them take turns.
pub(crate) async fn measure(
    settings: &Settings,
    source: &Source,
    size: &Size,
) -> Result<Vec<Contestant>> {
    let mut contestants: Vec<Contestant> = Who::ALL
        .into_iter()
        .map(|who| Contestant {
            who,
            turns: Vec::new(),
            seconds: 0.0,
            processor_seconds: 0.0,
            server_seconds: 0.0,
            peak_bytes: 0,
        })
        .collect();
    for round in 0..settings.rounds() {
        for contestant in &mut contestants {
            let turn = turn(settings, source, size, contestant.who).await?;
            println!(
                "  round {}: {:<40} {:>6.2} s wall {:>6.2} s user {:>6.2} s system {:>5.0} MiB, server {:>6.2} s",
                round + 1,
                contestant.who.name(),
                turn.usage.seconds,
                turn.usage.user,
                turn.usage.system,
                turn.usage.peak_bytes as f64 / 1048576.0,
                turn.server_seconds,
            );
            contestant.turns.push(turn);
        }
    }
    for contestant in &mut contestants {
        let turns = &contestant.turns;
        contestant.seconds = median(turns.iter().map(|turn| turn.usage.seconds));
        contestant.processor_seconds =
            median(turns.iter().map(|turn| turn.usage.user + turn.usage.system));
        contestant.server_seconds = median(turns.iter().map(|turn| turn.server_seconds));
        let peaks = turns.iter().map(|turn| turn.usage.peak_bytes);
        contestant.peak_bytes = peaks.max().unwrap_or(0);
    }
    Ok(contestants)
}

/// An empty server with the settings of the source.
pub(crate) async fn target() -> Result<Server> {
    let options = ServerOptions::new()
        .line("innodb_buffer_pool_size=2G")
        .line("innodb_redo_log_capacity=2G")
        .line("max_allowed_packet=64M");
    Server::start_with(options).await
}

/// One turn.
async fn turn(settings: &Settings, source: &Source, size: &Size, who: Who) -> Result<Turn> {
    let target = target().await?;
    let folder = Scratch::new("restore")?;
    let threads = settings.threads.to_string();
    let tuned = who == Who::LoadDataTuned;
    let mut input = None;
    let command = match who {
        Who::LoadData | Who::LoadDataTuned => {
            target.exec("SET GLOBAL local_infile = ON").await?;
            target.exec("CREATE DATABASE bench").await?;
            for create in source.tables(tuned) {
                let create = create.replacen("CREATE TABLE ", "CREATE TABLE bench.", 1);
                target.exec(&create).await?;
            }
            if tuned {
                target
                    .exec("ALTER INSTANCE DISABLE INNODB REDO_LOG")
                    .await?;
            }
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args([floor::COMMAND, &target.url(), &threads])
                .arg(source.orders(tuned));
            command
        }
        Who::Myloader => {
            let mut command = Command::new(programs::find("myloader")?);
            command
                .args(["--host=127.0.0.1", "--user=root"])
                .arg(format!("--port={}", target.port()))
                .arg(format!("--password={ROOT_PASSWORD}"))
                .arg(format!("--threads={threads}"))
                .arg(format!("--directory={}", source.mydumper().display()));
            command
        }
        Who::Mysql => {
            input = Some(source.mysqldump());
            let mut command = Command::new(programs::find("mysql")?);
            command
                .args(["--no-defaults", "--host=127.0.0.1", "--user=root"])
                .args(["--ssl-mode=DISABLED", "--get-server-public-key"])
                .args(["--max-allowed-packet=1G", "--binary-mode"])
                .arg("--init-command=SET sql_log_bin = 0")
                .arg(format!("--port={}", target.port()))
                .arg(format!("--password={ROOT_PASSWORD}"));
            command
        }
        Who::Quillback => {
            let to = target.url_without_password();
            let arguments = [
                "restore",
                "--until",
                "latest",
                "--to",
                &to,
                "--threads",
                &threads,
                "--json",
            ];
            let mut command = source.place.command(&target, &arguments)?;
            command.args(&settings.arguments);
            command
        }
    };
    // The disk gets what the one before left in the cache.
    let synced = tokio::process::Command::new("sync").status().await?;
    ensure!(synced.success(), "sync ended with {synced}");
    let pid = target.pid().context("the server has ended")?;
    let before = processor_seconds(pid)?;
    let usage = run(command, input, &folder).await?;
    let after = processor_seconds(pid)?;
    let mut rows = 0;
    for table in &source.manifest.tables {
        let sql = format!("SELECT COUNT(*) FROM bench.`{}`", table.name);
        rows += target.one::<u64>(&sql).await?;
    }
    ensure!(rows == size.rows, "{} loaded {rows} rows", who.name());
    Ok(Turn {
        usage,
        server_seconds: after.0 + after.1 - before.0 - before.1,
    })
}

/// Runs a program and returns what it took.
async fn run(
    mut command: Command,
    input: Option<std::path::PathBuf>,
    folder: &Scratch,
) -> Result<Usage> {
    let (out, talk) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let stdin = match input {
        Some(path) => File::open(path)?.into(),
        None => Stdio::null(),
    };
    command
        // With the mark the watchdog ends it, should this process be killed.
        .env(scratch::MARK, scratch::root()?)
        .stdin(stdin)
        .stdout(File::create(&out)?)
        .stderr(File::create(&talk)?);
    let outcome = tokio::task::spawn_blocking(move || child::run(&mut command)).await?;
    outcome.with_context(|| std::fs::read_to_string(talk).unwrap_or_default())
}

/// The contestants as a table.
pub(crate) fn table(contestants: &[Contestant]) -> Table {
    let mut table = Table::new(&[
        "",
        "wall",
        "/ LOAD DATA",
        "/ the same, tuned",
        "/ myloader",
        "/ mysql",
        "CPU s",
        "server's CPU s",
        "peak memory",
    ]);
    let of = |who: Who| {
        let mut all = contestants.iter();
        all.find(|contestant| contestant.who == who)
            .expect("all take part")
    };
    for contestant in contestants {
        let wall = |who: Who| format!("{:.2}", contestant.seconds / of(who).seconds);
        table.row(vec![
            contestant.who.name().to_owned(),
            format!("{:.2} s", contestant.seconds),
            wall(Who::LoadData),
            wall(Who::LoadDataTuned),
            wall(Who::Myloader),
            wall(Who::Mysql),
            format!("{:.2}", contestant.processor_seconds),
            format!("{:.2}", contestant.server_seconds),
            format!("{:.0} MiB", contestant.peak_bytes as f64 / 1048576.0),
        ]);
    }
    table
}
