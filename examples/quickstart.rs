//! The main job on real servers: snapshot, stream, an accident, restore, proof.
//!
//! `examples/quickstart` builds this and runs it. Each step does what an operator would do, with
//! the real `quillback` program and its command line shown. The proof is made without Quillback:
//! row checksums, computed by the servers, from the moment before the accident and of the
//! restored server.

#![expect(
    clippy::print_stdout,
    reason = "a demonstration talks to the person who started it"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quillback_harness::checksum::{self, Sums};
use quillback_harness::sinpluma::SinPluma;
use quillback_harness::{
    Minio, ROOT_PASSWORD, Scratch, Server, ServerOptions, Trio, programs, scratch,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// The table that is dropped: one that the application writes to all the time.
const ACCIDENT: &str = "DROP TABLE sinpluma.reading";

#[tokio::main]
async fn main() -> ExitCode {
    let wanted = |flag: &str| std::env::args().skip(1).any(|argument| argument == flag);
    let (s3, keep) = (wanted("--s3"), wanted("--keep"));
    // Leaving this scope, however it happens, stops every server and removes every folder.
    let outcome = tokio::select! {
        outcome = run(s3, keep) => outcome,
        _ = tokio::signal::ctrl_c() => {
            say("\nstopped; everything is being removed");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(s3: bool, keep: bool) -> Result<()> {
    let mut steps = Steps::default();
    say("Quillback quickstart: a table is dropped on a live cluster, and every row comes back.");

    steps.begin(&format!(
        "Starting a three-member Group Replication of MySQL {}",
        programs::mysql_version()?
    ));
    let trio = Trio::start().await?;
    steps.done();
    let view = trio.view().await?;
    for member in &view {
        say(&format!(
            "     127.0.0.1:{}  {}  {}",
            member.port, member.state, member.role
        ));
    }

    steps.begin("Filling it with Sin Pluma: users, notebooks, pages, readings, tags");
    let primary = trio.primary().await?;
    let mut conn = primary.conn().await?;
    let data = SinPluma::create(&mut conn, 1).await?;
    steps.done();

    let archive = Archive::make(s3).await?;
    let quillback = Quillback::new(&trio, &archive)?;
    say("\n     for the commands below:");
    for (name, value) in &quillback.shown {
        say(&format!("       export {name}={value}"));
    }
    say("       export QUILLBACK_PASSWORD=...");

    steps.title("An archive, and a stream that follows the primary's binlog into it");
    quillback.run(&["init"]).await?;
    let stream = Stream::start(&quillback).await?;

    steps.title("Writing goes on in the background; meanwhile a snapshot from a secondary");
    let writer = Writer::start(data, conn);
    let started = Instant::now();
    let snapshot = quillback.report(&["snapshot", "--json"]).await?;
    let snapshot_seconds = started.elapsed().as_secs_f64();
    writer.wait_for_steps(250).await?;

    steps.title("The accident");
    let before = writer.pause_and(primary, &trio).await?;
    say(&format!(
        "     on the primary: {ACCIDENT};   -- {} rows gone",
        thousands(before.rows_of("sinpluma.reading"))
    ));
    writer.wait_for_steps(20).await?;
    let failed = writer.stop().await?;
    say(&format!(
        "     the application wrote on: {failed} of its writes failed for want of the table"
    ));

    steps.title("What happened? Which transaction was it?");
    let started = Instant::now();
    let gtid = find_accident(&quillback).await?;
    quillback
        .run(&["log", "--kind", "ddl", "--last", "2"])
        .await?;

    steps.title("Restoring to just before it, on a new server");
    let target = Server::start_with(ServerOptions::new()).await?;
    let report = quillback
        .report(&[
            "restore",
            "--before-gtid",
            &gtid,
            "--to",
            &target.url_without_password(),
            "--json",
        ])
        .await?;
    let back_seconds = started.elapsed().as_secs_f64();

    steps.title("Is it the same? Every table, row by row, against the moment before the accident");
    let found = checksum::all(&mut target.conn().await?).await?;
    compare(&before, &found)?;

    quillback.run(&["status"]).await?;
    let lags = stream.stop().await?;
    summary(&snapshot, snapshot_seconds, &report, &lags, back_seconds);
    try_next(&gtid);
    if keep {
        stay(&trio, &target, &archive).await;
    }
    Ok(())
}

/// Waits until the log shows the accident, and gives its GTID.
async fn find_accident(quillback: &Quillback) -> Result<String> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let lines = quillback
            .quiet(&["log", "--kind", "ddl", "--grep", "drop table", "--json"])
            .await?;
        let found = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| line["gtid"].as_str().map(str::to_owned))
            .next_back();
        if let Some(gtid) = found {
            return Ok(gtid);
        }
        if Instant::now() > limit {
            bail!("the accident did not reach the archive within a minute");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Prints table by table whether the restored one is what was there, and fails if one is not.
fn compare(before: &Before, found: &Sums) -> Result<()> {
    for (table, sum) in &before.sums {
        let verdict = match found.get(table) {
            Some(found) if found == sum => "equal",
            Some(_) => "DIFFERENT",
            None => "MISSING",
        };
        say(&format!(
            "     {table:<24} {:>8} rows   {verdict}",
            thousands(sum.rows)
        ));
    }
    let differences = checksum::differences(&before.sums, found);
    if differences.is_empty() {
        return Ok(());
    }
    bail!("the restored data differ: {}", differences.join("; "));
}

fn summary(snapshot: &Value, snapshot_seconds: f64, report: &Value, lags: &[f64], back: f64) {
    say("\nTimes");
    let mut lags = lags.to_vec();
    lags.sort_by(f64::total_cmp);
    line(
        "snapshot of a secondary",
        snapshot_seconds,
        &format!(
            "{} rows, writes held up for {:.3} s",
            thousands(snapshot["totals"]["rows"].as_u64().unwrap_or(0)),
            snapshot["consistency"]["global_lock_seconds"]
                .as_f64()
                .unwrap_or(0.0)
        ),
    );
    if let (Some(median), Some(worst)) = (lags.get(lags.len().saturating_sub(1) / 2), lags.last()) {
        line("from commit to archive", *median, "median of the segments");
        line("", *worst, "worst");
    }
    let phases = report["phases"].as_array().cloned().unwrap_or_default();
    for phase in &phases {
        line(
            &format!("restore: {}", phase["phase"].as_str().unwrap_or("?")),
            phase["seconds"].as_f64().unwrap_or(0.0),
            "",
        );
    }
    line(
        "from the question to the data",
        back,
        "log, new server, restore",
    );
}

fn line(what: &str, seconds: f64, note: &str) {
    let text = format!("  {what:<32} {seconds:>7.2} s   {note}");
    say(text.trim_end());
}

fn try_next(gtid: &str) {
    say("\nWhat to try next");
    say("  examples/quickstart --keep       leaves all this running, to try the lines below on it");
    say(
        "  quillback restore --before-gtid GTID --to SERVER --dry-run     the plan, and nothing else",
    );
    say(
        "  quillback restore --until 2026-11-20T14:30:00Z --to SERVER     any moment in the window",
    );
    say(&format!(
        "  quillback restore --until latest --skip-gtid {gtid} --to SERVER\n                                   all of it, without the accident"
    ));
    say(&format!(
        "  quillback restore --tables sinpluma.reading --before-gtid {gtid} --to SERVER\n                                   that table alone, beside the live ones"
    ));
    say("  zstd -dc SEGMENT | mysqlbinlog -v -     a segment is a binlog file: no lock-in");
    say("  tests/run                        every test, on real servers");
}

/// Keeps everything running until Ctrl-C.
async fn stay(trio: &Trio, target: &Server, archive: &Archive) {
    say("\nStill running (--keep):");
    for server in trio.members() {
        say(&format!("  member    {}", connect_line(server)));
    }
    say(&format!("  restored  {}", connect_line(target)));
    say(&format!("  archive   {}", archive.url));
    for (name, value) in &archive.env {
        say(&format!("            export {name}={value}"));
    }
    say(&format!(
        "  quillback {}",
        quillback_program().map_or_else(|e| e.to_string(), |path| path.display().to_string())
    ));
    say("Ctrl-C stops and removes it all.");
    std::future::pending::<()>().await;
}

fn connect_line(server: &Server) -> String {
    let mysql =
        programs::find("mysql").map_or_else(|_| "mysql".into(), |p| p.display().to_string());
    format!(
        "MYSQL_PWD={ROOT_PASSWORD} {mysql} --no-defaults -uroot -h127.0.0.1 -P{}",
        server.port()
    )
}

/// Where the archive is.
struct Archive {
    url: String,
    env: Vec<(String, String)>,
    _folder: Option<Scratch>,
    _minio: Option<Minio>,
}

impl Archive {
    async fn make(s3: bool) -> Result<Self> {
        if s3 {
            let minio = Minio::start().await?;
            minio.create_bucket("backups")?;
            return Ok(Self {
                url: "s3://backups/sinpluma".to_owned(),
                env: minio.env(),
                _folder: None,
                _minio: Some(minio),
            });
        }
        let folder = Scratch::new("a")?;
        let url = folder.file_url("archive");
        Ok(Self {
            url,
            env: Vec::new(),
            _folder: Some(folder),
            _minio: None,
        })
    }
}

/// The program with its environment.
struct Quillback {
    program: PathBuf,
    env: Vec<(String, String)>,
    shown: Vec<(String, String)>,
}

impl Quillback {
    fn new(trio: &Trio, archive: &Archive) -> Result<Self> {
        let servers: Vec<String> = trio
            .members()
            .iter()
            .map(Server::url_without_password)
            .collect();
        let shown = vec![
            ("QUILLBACK_ARCHIVE".to_owned(), archive.url.clone()),
            ("QUILLBACK_SERVER".to_owned(), servers.join(",")),
        ];
        let mut env = shown.clone();
        env.extend(archive.env.clone());
        env.push(("QUILLBACK_PASSWORD".to_owned(), ROOT_PASSWORD.to_owned()));
        // With the mark the watchdog ends also the stream, should this process be killed.
        let root = scratch::root()?.display().to_string();
        env.push((scratch::MARK.to_owned(), root));
        Ok(Self {
            program: quillback_program()?,
            env,
            shown,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command as an operator would, and shows what it says.
    async fn run(&self, arguments: &[&str]) -> Result<()> {
        self.show(arguments, true).await.map(drop)
    }

    /// Runs a command with `--json`, shows what it says beside, and returns the document.
    async fn report(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.show(arguments, false).await?;
        serde_json::from_str(&text).context("the report is no JSON document")
    }

    async fn show(&self, arguments: &[&str], with_stdout: bool) -> Result<String> {
        say(&format!("     $ quillback {}", arguments.join(" ")));
        let mut child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("quillback does not start")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        // Where both are shown the talk comes behind the data, as on a terminal.
        let (out, err) = tokio::join!(
            echo(BufReader::new(stdout), with_stdout),
            echo(BufReader::new(stderr), !with_stdout)
        );
        let (out, err) = (out?, err?);
        if with_stdout {
            for line in err.lines() {
                say(&format!("       {line}"));
            }
        }
        let status = child.wait().await?;
        // 3: done, with warnings, which were shown.
        if !status.success() && status.code() != Some(3) {
            bail!("quillback {} ended with {status}", arguments[0]);
        }
        Ok(out)
    }

    /// Runs a command without showing it.
    async fn quiet(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().await?;
        if !output.status.success() {
            bail!(
                "quillback {} failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Prints each line indented, and returns all of them.
async fn echo(mut lines: impl tokio::io::AsyncBufRead + Unpin, shown: bool) -> Result<String> {
    let mut all = String::new();
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        if shown {
            say(&format!("       {}", line.trim_end()));
        }
        all.push_str(&line);
        line.clear();
    }
    Ok(all)
}

/// `quillback` beside the folder of the examples.
fn quillback_program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own
        .parent()
        .and_then(std::path::Path::parent)
        .map(|folder| folder.join("quillback"))
        .filter(|program| program.exists());
    program.context("quillback is not built: run examples/quickstart")
}

/// `quillback stream` in the background.
struct Stream {
    child: Child,
    lags: JoinHandle<Vec<f64>>,
}

impl Stream {
    async fn start(quillback: &Quillback) -> Result<Self> {
        say("     $ quillback stream --json &");
        let mut child = quillback
            .command(&["stream", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        loop {
            let Some(line) = lines.next_line().await? else {
                bail!("the stream ended: {}", child.wait().await?);
            };
            let event: Value = serde_json::from_str(&line)?;
            if event["event"] == "following" {
                say(&format!(
                    "       following {} (MySQL {})",
                    event["server"].as_str().unwrap_or("?"),
                    event["version"].as_str().unwrap_or("?")
                ));
                break;
            }
        }
        let lags = tokio::spawn(async move {
            let mut lags = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["event"] == "segment"
                    && let Some(lag) = event["lag_seconds"].as_f64()
                {
                    lags.push(lag);
                }
            }
            lags
        });
        Ok(Self { child, lags })
    }

    /// Ends it as an operator would, and returns the seconds from commit to archive of each
    /// segment.
    async fn stop(mut self) -> Result<Vec<f64>> {
        let pid = self.child.id().context("the stream has ended")?;
        let killed = Command::new("kill").arg(pid.to_string()).status().await?;
        if !killed.success() {
            bail!("the stream could not be told to stop");
        }
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("the stream ended with {status}");
        }
        Ok(self.lags.await?)
    }
}

/// The state just before the accident.
struct Before {
    sums: Sums,
}

impl Before {
    fn rows_of(&self, table: &str) -> u64 {
        self.sums.get(table).map_or(0, |sum| sum.rows)
    }
}

/// The application: writes all the time.
struct Writer {
    shared: Arc<WriterShared>,
    task: JoinHandle<()>,
}

struct WriterShared {
    /// Held during each step, so that the accident falls between two.
    turn: Mutex<()>,
    steps: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Writer {
    fn start(mut data: SinPluma, mut conn: mysql_async::Conn) -> Self {
        let shared = Arc::new(WriterShared {
            turn: Mutex::new(()),
            steps: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while !ours.stop.load(Ordering::Relaxed) {
                let turn = ours.turn.lock().await;
                if data.write_some(&mut conn).await.is_err() {
                    ours.failed.fetch_add(1, Ordering::Relaxed);
                }
                ours.steps.fetch_add(1, Ordering::Relaxed);
                drop(turn);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { shared, task }
    }

    async fn wait_for_steps(&self, more: u64) -> Result<()> {
        let wanted = self.shared.steps.load(Ordering::Relaxed) + more;
        while self.shared.steps.load(Ordering::Relaxed) < wanted {
            if self.task.is_finished() {
                bail!("the writer died");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Between two writes: notes what is there, and drops the table.
    async fn pause_and(&self, primary: &Server, trio: &Trio) -> Result<Before> {
        let turn = self.shared.turn.lock().await;
        if self.shared.failed.load(Ordering::Relaxed) > 0 {
            bail!("the application's writes failed before the accident");
        }
        let mut conn = primary.conn().await?;
        let sums = checksum::all(&mut conn).await?;
        drop(conn);
        // The accident happens wherever the writes go.
        trio.primary().await?.exec(ACCIDENT).await?;
        drop(turn);
        Ok(Before { sums })
    }

    /// Ends it, and tells how many of its writes failed.
    async fn stop(self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(self.shared.failed.load(Ordering::Relaxed))
    }
}

/// Numbers the steps, and times those that take long.
#[derive(Default)]
struct Steps {
    number: u32,
    since: Option<Instant>,
}

impl Steps {
    fn title(&mut self, text: &str) {
        self.number += 1;
        say(&format!("\n{:>2}. {text}", self.number));
    }

    fn begin(&mut self, text: &str) {
        self.number += 1;
        self.since = Some(Instant::now());
        print!("\n{:>2}. {text} ... ", self.number);
        // Only a terminal that went away fails here.
        let _ = std::io::stdout().flush();
    }

    fn done(&mut self) {
        let seconds = self.since.take().map_or(0.0, |s| s.elapsed().as_secs_f64());
        say(&format!("{seconds:.1} s"));
    }
}

fn say(text: &str) {
    println!("{text}");
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
