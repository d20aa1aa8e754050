//! The log replayed, beside a real replica of the same source and `mysqlbinlog | mysql`.
//!
//! Each contestant begins on a server of its own that holds the snapshot. All servers have the same settings; those
//! of durability are what a replay of ours sets for its time, for all but one: the last shows what they are worth.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, ServerOptions, programs};
use serde::Serialize;
use serde_json::Value;

use crate::child::{self, processor_seconds};
use crate::program::{Place, Store, Stores};
use crate::replayed::{self, Binlog};
use crate::settings::Settings;
use crate::statistics::median;
use crate::table::Table;
use crate::text::Random;
use crate::workload::Workload;

/// A replay that has not ended by then never will.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Who takes part, in the order of the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Who {
    Replica,
    Quillback,
    Sql,
    Mysqlbinlog,
    /// With the settings that a server comes with.
    DurableMysqlbinlog,
}

impl Who {
    const ALL: [Self; 5] = [
        Self::Replica,
        Self::Quillback,
        Self::Sql,
        Self::Mysqlbinlog,
        Self::DurableMysqlbinlog,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Replica => "a real replica",
            Self::Quillback => "quillback restore",
            Self::Sql => "quillback restore --replay sql",
            Self::Mysqlbinlog => "mysqlbinlog to mysql",
            Self::DurableMysqlbinlog => "mysqlbinlog to mysql, durable",
        }
    }
}

/// One contestant's turns.
#[derive(Debug, Serialize)]
struct Contestant {
    who: Who,
    turns: Vec<Turn>,
    /// The median of what they took, in seconds.
    seconds: f64,
    /// The median of the server's processor time.
    server_seconds: f64,
    /// The largest resident set of ours, in bytes.
    peak_bytes: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Turn {
    seconds: f64,
    server_seconds: f64,
    peak_bytes: u64,
}

/// What was replayed, and how long each took.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    binlog_bytes: u64,
    transactions: u64,
    appliers: usize,
    contestants: Vec<Contestant>,
}

impl Found {
    pub(crate) fn title(&self, workload: Workload) -> String {
        format!(
            "A replay, {}: {:.0} MB of binlog, {} transactions, {} appliers",
            workload.name(),
            self.binlog_bytes as f64 / 1e6,
            self.transactions,
            self.appliers
        )
    }
}

/// A source with its binlog, and an archive of it.
#[derive(Debug)]
struct Log {
    source: Server,
    binlog: Binlog,
    place: Place,
    /// What the snapshot holds.
    before: String,
    /// What the source holds.
    end: String,
}

impl Log {
    async fn write(stores: &Stores, workload: Workload, bytes: u64) -> Result<Self> {
        let random = Random::new(2026);
        let source = replayed::start(workload, &mut random.clone()).await?;
        let place = stores.place(Store::Folder);
        place.run(&source, &["init"]).await?;
        place
            .run(&source, &["snapshot", "--allow-primary", "--json"])
            .await?;
        let before = source.gtid_executed().await?;
        let binlog = replayed::fill(&source, workload, &random, bytes).await?;
        let end = source.gtid_executed().await?;
        place.run(&source, &["stream", "--once"]).await?;
        Ok(Self {
            source,
            binlog,
            place,
            before,
            end,
        })
    }

    /// An empty server, or one that holds the snapshot and takes writes.
    async fn target(&self, loaded: bool) -> Result<Server> {
        let server = Server::start_with(
            ServerOptions::new()
                .line("innodb_buffer_pool_size=1G")
                .line("innodb_redo_log_capacity=2G")
                .line("innodb_log_buffer_size=16M"),
        )
        .await?;
        if loaded {
            let to = server.url_without_password();
            let arguments = [
                "restore",
                "--until-gtid",
                &self.before,
                "--to",
                &to,
                "--open",
            ];
            self.place.run(&server, &arguments).await?;
        }
        Ok(server)
    }
}

/// Lets them take turns.
pub(crate) async fn measure(
    settings: &Settings,
    stores: &Stores,
    workload: Workload,
) -> Result<Found> {
    let log = Log::write(stores, workload, settings.replay_bytes(workload)).await?;
    let mut contestants: Vec<Contestant> = Who::ALL
        .into_iter()
        .map(|who| Contestant {
            who,
            turns: Vec::new(),
            seconds: 0.0,
            server_seconds: 0.0,
            peak_bytes: 0,
        })
        .collect();
    for round in 0..settings.rounds() {
        for contestant in &mut contestants {
            // Minutes each time, and a remark rather than a measure.
            if contestant.who == Who::DurableMysqlbinlog && round > 0 {
                continue;
            }
            let turn = turn(settings, &log, contestant.who).await?;
            println!(
                "  round {}: {:<32} {:>7.2} s, server {:>7.2} s of processor, ours {:>4.0} MiB",
                round + 1,
                contestant.who.name(),
                turn.seconds,
                turn.server_seconds,
                turn.peak_bytes as f64 / 1048576.0
            );
            contestant.turns.push(turn);
        }
    }
    for contestant in &mut contestants {
        let turns = &contestant.turns;
        contestant.seconds = median(turns.iter().map(|turn| turn.seconds));
        contestant.server_seconds = median(turns.iter().map(|turn| turn.server_seconds));
        let peaks = turns.iter().map(|turn| turn.peak_bytes);
        contestant.peak_bytes = peaks.max().unwrap_or(0);
    }
    Ok(Found {
        binlog_bytes: log.binlog.bytes,
        transactions: log.binlog.transactions,
        appliers: settings.threads,
        contestants,
    })
}

async fn turn(settings: &Settings, log: &Log, who: Who) -> Result<Turn> {
    let ours = matches!(who, Who::Quillback | Who::Sql);
    let target = log.target(!ours).await?;
    let pid = target.pid().context("the server has ended")?;
    if matches!(who, Who::Replica | Who::Mysqlbinlog) {
        for statement in [
            "SET GLOBAL sync_binlog = 0".to_owned(),
            "SET GLOBAL innodb_flush_log_at_trx_commit = 2".to_owned(),
            format!("SET GLOBAL replica_parallel_workers = {}", settings.threads),
        ] {
            target.exec(&statement).await?;
        }
    }
    let synced = tokio::process::Command::new("sync").status().await?;
    ensure!(synced.success(), "sync ended with {synced}");
    let before = processor_seconds(pid)?;
    let (seconds, peak_bytes) = match who {
        Who::Replica => (replica(log, &target).await?, 0),
        Who::Quillback => quillback(settings, log, &target, "replication").await?,
        Who::Sql => quillback(settings, log, &target, "sql").await?,
        Who::Mysqlbinlog | Who::DurableMysqlbinlog => (mysqlbinlog(log, &target).await?, 0),
    };
    let after = processor_seconds(pid)?;
    ensure!(
        target.gtid_executed().await? == log.end,
        "{} ended elsewhere",
        who.name()
    );
    Ok(Turn {
        seconds,
        server_seconds: after.0 + after.1 - before.0 - before.1,
        peak_bytes,
    })
}

/// From the start of its threads until it has everything.
async fn replica(log: &Log, target: &Server) -> Result<f64> {
    target
        .exec(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, \
             SOURCE_USER = 'root', SOURCE_PASSWORD = '{ROOT_PASSWORD}', \
             SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1",
            log.source.port()
        ))
        .await?;
    let started = Instant::now();
    target.exec("START REPLICA").await?;
    while target.gtid_executed().await? != log.end {
        ensure!(started.elapsed() < LIMIT, "the replica does not catch up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    target.exec("STOP REPLICA").await?;
    Ok(seconds)
}

/// The phase of the replay, as the report tells it. (The server's processor time has the load in it.)
async fn quillback(
    settings: &Settings,
    log: &Log,
    target: &Server,
    kind: &str,
) -> Result<(f64, u64)> {
    let (to, threads) = (target.url_without_password(), settings.threads.to_string());
    let arguments = [
        "restore",
        "--until",
        "latest",
        "--to",
        &to,
        "--threads",
        &threads,
        "--replay",
        kind,
        "--json",
    ];
    let mut command = log.place.command(target, &arguments)?;
    let folder = Scratch::new("replay")?;
    let (out, talk) = (folder.path().join("stdout"), folder.path().join("stderr"));
    command
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&talk)?);
    let usage = tokio::task::spawn_blocking(move || child::run(&mut command)).await?;
    let usage = usage.with_context(|| std::fs::read_to_string(talk).unwrap_or_default())?;
    let report: Value = serde_json::from_slice(&std::fs::read(out)?)?;
    let phases = report["phases"].as_array().context("no phases")?;
    let replay = phases.iter().find(|phase| phase["phase"] == "replay");
    let seconds = replay.and_then(|phase| phase["seconds"].as_f64());
    Ok((seconds.context("no phase of a replay")?, usage.peak_bytes))
}

/// One client applies what the other prints.
async fn mysqlbinlog(log: &Log, target: &Server) -> Result<f64> {
    let files: Vec<String> = log
        .binlog
        .files
        .iter()
        .map(|file| format!("'{}'", file.display()))
        .collect();
    let line = format!(
        "set -o pipefail; '{}' --no-defaults --exclude-gtids='{}' {} | \
         '{}' --no-defaults --binary-mode --host=127.0.0.1 --port={} --user=root \
         --password='{ROOT_PASSWORD}' --ssl-mode=DISABLED --get-server-public-key \
         --max-allowed-packet=1G 2> /dev/null",
        programs::find("mysqlbinlog")?.display(),
        log.before.replace('\n', ""),
        files.join(" "),
        programs::find("mysql")?.display(),
        target.port()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &line]);
    let usage = tokio::task::spawn_blocking(move || child::run(&mut command)).await??;
    Ok(usage.seconds)
}

/// The contestants as a table.
pub(crate) fn table(found: &Found) -> Table {
    let mut table = Table::new(&[
        "",
        "wall",
        "/ real replica",
        "/ mysqlbinlog",
        "server's CPU s",
        "peak memory of ours",
    ]);
    let of = |who: Who| {
        let mut all = found.contestants.iter();
        all.find(|contestant| contestant.who == who)
            .expect("all take part")
    };
    for contestant in &found.contestants {
        let wall = |who: Who| format!("{:.2}", contestant.seconds / of(who).seconds);
        table.row(vec![
            contestant.who.name().to_owned(),
            format!("{:.2} s", contestant.seconds),
            wall(Who::Replica),
            wall(Who::Mysqlbinlog),
            format!("{:.2}", contestant.server_seconds),
            match contestant.peak_bytes {
                0 => String::new(),
                bytes => format!("{:.0} MiB", bytes as f64 / 1048576.0),
            },
        ]);
    }
    table
}
