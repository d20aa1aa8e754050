//! What is asked of the archive, and what the answers cost.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mysql_async::prelude::Queryable as _;
use quillback_harness::{Scratch, Server, programs, scratch};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::child::{self, Usage};
use crate::program::Place;
use crate::settings::Settings;
use crate::source::Binlog;
use crate::statistics::median;
use crate::table::Table;

/// How often something happens to the table that is looked for.
const PAUSE: Duration = Duration::from_secs(3);

/// Changes a table now and then, beside the work.
pub(crate) struct Rare {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64>>,
}

impl Rare {
    pub(crate) async fn start(server: &Server) -> Result<Self> {
        let mut conn = server.conn().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let create =
            "CREATE TABLE bench.rare (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(20))";
        conn.query_drop(create).await?;
        let task = tokio::spawn(async move {
            let mut done = 1;
            while !told.load(Ordering::Relaxed) {
                conn.query_drop("INSERT INTO bench.rare (what) VALUES ('a'), ('b')")
                    .await?;
                done += 1;
                for _ in 0..PAUSE.as_millis() / 50 {
                    if !told.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            conn.query_drop("DROP TABLE bench.rare").await?;
            Ok(done + 1)
        });
        Ok(Self { stop, task })
    }

    /// Drops the table, and tells how many transactions touched it.
    pub(crate) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// A question with what its answers took.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    question: String,
    lines: usize,
    turns: Vec<Usage>,
}

const QUESTIONS: [(&str, &[&str]); 6] = [
    ("a rare table", &["--table", "bench.rare"]),
    ("a busy table", &["--table", "bench.page"]),
    ("DDL", &["--kind", "ddl"]),
    ("the last 20", &["--last", "20"]),
    ("everything, text", &[]),
    ("everything, --json", &["--json"]),
];

/// Asks each question, in turns.
pub(crate) async fn ask(
    settings: &Settings,
    server: &Server,
    place: &Place,
    rare: u64,
) -> Result<Vec<Answer>> {
    let mut answers: Vec<Answer> = QUESTIONS
        .iter()
        .map(|(question, _)| Answer {
            question: (*question).to_owned(),
            lines: 0,
            turns: Vec::new(),
        })
        .collect();
    let folder = Scratch::new("q")?;
    let out = folder.path().join("stdout");
    for _ in 0..settings.rounds() {
        for (answer, (_, arguments)) in answers.iter_mut().zip(QUESTIONS) {
            let mut command = place.command(server, &[&["log"], arguments].concat())?;
            command.stdout(File::create(&out)?).stderr(Stdio::null());
            let usage = tokio::task::spawn_blocking(move || child::run(&mut command)).await??;
            let text = std::fs::read_to_string(&out)?;
            // Of text, the line that begins with a time.
            let is_one = |line: &&str| line.starts_with("20") || line.starts_with('{');
            answer.lines = text.lines().filter(is_one).count();
            println!(
                "  {:<20} {:>6} found {:>6.2} s wall {:>6.2} s CPU {:>5.0} MiB",
                answer.question,
                answer.lines,
                usage.seconds,
                usage.user + usage.system,
                usage.peak_bytes as f64 / 1048576.0
            );
            answer.turns.push(usage);
        }
    }
    ensure!(
        answers[0].lines as u64 == rare,
        "{} transactions of the rare table were found, {rare} were made",
        answers[0].lines
    );
    ensure!(answers[4].lines == answers[5].lines, "text and JSON differ");
    Ok(answers)
}

/// What somebody does without an index: all of it as text, with the rows.
pub(crate) async fn by_mysqlbinlog(binlog: &Binlog) -> Result<Usage> {
    let mut command = Command::new(programs::find("mysqlbinlog")?);
    command
        .args(["--no-defaults", "-v", "--base64-output=decode-rows"])
        .args(&binlog.files)
        .env(scratch::MARK, scratch::root()?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    tokio::task::spawn_blocking(move || child::run(&mut command))
        .await?
        .context("mysqlbinlog failed")
}

/// The answers as a table.
pub(crate) fn table(all: &[(String, Vec<Answer>)], reference: &Usage) -> Table {
    let mut table = Table::new(&[
        "",
        "found",
        "wall",
        "/ mysqlbinlog -v",
        "CPU s",
        "peak memory",
    ]);
    let mut row = |name: String, found: String, wall: f64, cpu: f64, peak: u64| {
        table.row(vec![
            name,
            found,
            format!("{wall:.2} s"),
            format!("{:.3}", wall / reference.seconds),
            format!("{cpu:.2}"),
            format!("{:.0} MiB", peak as f64 / 1048576.0),
        ]);
    };
    row(
        "mysqlbinlog -v of the files, thrown away".to_owned(),
        "all".to_owned(),
        reference.seconds,
        reference.user + reference.system,
        reference.peak_bytes,
    );
    for (place, answers) in all {
        for answer in answers {
            let turns = &answer.turns;
            row(
                format!("{}: {place}", answer.question),
                answer.lines.to_string(),
                median(turns.iter().map(|usage| usage.seconds)),
                median(turns.iter().map(|usage| usage.user + usage.system)),
                turns
                    .iter()
                    .map(|usage| usage.peak_bytes)
                    .max()
                    .unwrap_or(0),
            );
        }
    }
    table
}
