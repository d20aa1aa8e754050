//! How long a transaction takes from its commit into the archive.
//!
//! Transactions come by a schedule, 500 a second, whether or not those before them are done, so that a server or a stream
//! that stands still for a while is not spared the transactions of that while. The lag of each transaction is the moment
//! when its segment was durable, as the stream reports it, less its commit time on the source, as the archive's own log
//! tells it. Both are of this machine's clock.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use mysql_async::prelude::Queryable as _;
use quillback_harness::Server;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::program::{Place, Store, Stores, documents};
use crate::settings::Settings;
use crate::source;
use crate::statistics::quantile;
use crate::table::Table;
use crate::text::Random;
use crate::workload::{WRITERS, Workload};

const TRANSACTIONS_A_SECOND: u64 = 500;
const FLUSH_SECONDS: f64 = 2.0;
/// Transactions of the first seconds are not counted: the stream has just begun.
const BEGINNING: TimeDelta = TimeDelta::seconds(3);
/// A stream that has not stored everything by then has lost something.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lags on one store.
#[derive(Debug, Serialize)]
pub(crate) struct Lags {
    store: Store,
    workload: Workload,
    flush_seconds: f64,
    /// Transactions that were counted.
    transactions: usize,
    /// What the schedule came to.
    transactions_per_second: f64,
    /// By how much the schedule was missed when a transaction began: the 99th percentile, in seconds.
    schedule_p99: f64,
    segments: usize,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// Measures every store.
pub(crate) async fn measure(settings: &Settings, random: &Random) -> Result<Vec<Lags>> {
    println!(
        "\n# lag: {TRANSACTIONS_A_SECOND} transactions a second for {} s on each store",
        settings.lag_span().as_secs()
    );
    let workload = Workload::Small;
    let server = source::start(workload, &mut random.clone()).await?;
    let stores = Stores::start().await?;
    let mut all = Vec::new();
    for store in Store::ALL {
        let place = stores.place(store);
        place.run(&server, &["init"]).await?;
        all.push(one(settings, &server, &place, store, workload, random).await?);
    }
    Ok(all)
}

async fn one(
    settings: &Settings,
    server: &Server,
    place: &Place,
    store: Store,
    workload: Workload,
    random: &Random,
) -> Result<Lags> {
    let mut stream = Stream::start(settings, server, place).await?;
    stream.wait_until_following().await?;
    let begun = Utc::now();
    let load = tokio::spawn(write(
        connections(server).await?,
        workload,
        random.clone(),
        settings.lag_span(),
    ));
    let mut stored = Vec::new();
    let mut count = 0;
    let mut written = None;
    let mut late = Vec::new();
    let mut seconds = 0.0;
    let mut load = Some(load);
    // One loop for both, so that nothing the stream says waits in a pipe.
    while written.is_none_or(|written| count < written) {
        let wait_for_load = async {
            match &mut load {
                Some(load) => load.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = wait_for_load => {
                load = None;
                let schedule = done??;
                written = Some(schedule.late.len() as u64);
                late = schedule.late;
                seconds = schedule.seconds;
            }
            event = stream.next() => {
                let event = event?;
                let transactions = event["transactions"].as_u64().unwrap_or(0);
                if event["event"] == "segment" && transactions > 0 {
                    count += transactions;
                    stored.push((transactions, durable(&event)?));
                }
            }
        }
    }
    stream.stop().await?;
    let log = documents(&place.run(server, &["log", "--json"]).await?)?;
    let times = log.iter().map(commit_time).collect::<Result<Vec<_>>>()?;
    ensure!(
        times.len() as u64 == count,
        "the log tells of {} transactions, the stream of {count}",
        times.len()
    );
    // The log is in the order of the archive, which is that of the segments.
    let durables = stored
        .iter()
        .flat_map(|(transactions, durable)| std::iter::repeat_n(durable, *transactions as usize));
    let mut lags: Vec<f64> = times
        .iter()
        .zip(durables)
        .filter(|(commit, _)| **commit >= begun + BEGINNING)
        .map(|(commit, durable)| (*durable - *commit).as_seconds_f64())
        .collect();
    lags.sort_by(f64::total_cmp);
    late.sort_by(f64::total_cmp);
    ensure!(!lags.is_empty(), "nothing was written");
    Ok(Lags {
        store,
        workload,
        flush_seconds: FLUSH_SECONDS,
        transactions: lags.len(),
        transactions_per_second: late.len() as f64 / seconds,
        schedule_p99: quantile(&late, 0.99),
        segments: stored.len(),
        p50: quantile(&lags, 0.5),
        p90: quantile(&lags, 0.9),
        p99: quantile(&lags, 0.99),
        max: quantile(&lags, 1.0),
    })
}

/// When a segment was durable.
fn durable(event: &Value) -> Result<DateTime<Utc>> {
    let lag = event["lag_seconds"].as_f64().context("no lag")?;
    let commit = event["last_commit"].as_str().context("no last commit")?;
    let micros = TimeDelta::microseconds((lag * 1e6).round() as i64);
    Ok(DateTime::parse_from_rfc3339(commit)?.to_utc() + micros)
}

fn commit_time(line: &Value) -> Result<DateTime<Utc>> {
    let time = line["time"].as_str().context("a line without a time")?;
    Ok(DateTime::parse_from_rfc3339(time)?.to_utc())
}

struct Schedule {
    /// By how many seconds each transaction began too late.
    late: Vec<f64>,
    seconds: f64,
}

async fn connections(server: &Server) -> Result<Vec<mysql_async::Conn>> {
    let mut all = Vec::new();
    for _ in 0..WRITERS {
        all.push(server.conn().await?);
    }
    Ok(all)
}

/// Commits transaction after transaction at its time, each by whichever writer is free.
async fn write(
    connections: Vec<mysql_async::Conn>,
    workload: Workload,
    random: Random,
    span: Duration,
) -> Result<Schedule> {
    let total = TRANSACTIONS_A_SECOND * span.as_secs();
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + Duration::from_millis(100);
    let mut writers = JoinSet::new();
    for (number, mut conn) in (0..).zip(connections) {
        let mut writer = workload.writer(number, &random);
        let next = Arc::clone(&next);
        writers.spawn(async move {
            let mut late = Vec::new();
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= total {
                    return anyhow::Ok(late);
                }
                let due = start + Duration::from_micros(turn * 1_000_000 / TRANSACTIONS_A_SECOND);
                tokio::time::sleep_until(due.into()).await;
                late.push(due.elapsed().as_secs_f64());
                conn.query_drop(writer.transaction()).await?;
            }
        });
    }
    let mut late = Vec::new();
    while let Some(done) = writers.join_next().await {
        late.extend(done??);
    }
    Ok(Schedule {
        late,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// A stream that runs beside the load.
pub(crate) struct Stream {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    _stderr: tokio::task::JoinHandle<()>,
}

impl Stream {
    /// Starts it.
    pub(crate) async fn start(settings: &Settings, server: &Server, place: &Place) -> Result<Self> {
        let mut quillback = place.command(server, &["stream", "--json"])?;
        quillback.args(&settings.stream_arguments);
        let mut command = Command::from(quillback);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("quillback does not start")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut stderr = child.stderr.take().context("no stderr")?;
        let drain = tokio::spawn(async move {
            // What it says is of interest only when it fails, and then its exit code tells enough.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        });
        Ok(Self {
            child,
            events: BufReader::new(stdout).lines(),
            _stderr: drain,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the stream has ended")
    }

    /// What happens next. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(PATIENCE, self.events.next_line())
            .await
            .context("the stream says nothing")??;
        match line {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => bail!("the stream ended: {}", self.child.wait().await?),
        }
    }

    /// Waits until it has found its source.
    pub(crate) async fn wait_until_following(&mut self) -> Result<()> {
        while self.next().await?["event"] != "following" {}
        Ok(())
    }

    /// Waits until the archive is complete to `moment`.
    pub(crate) async fn wait_until_complete(&mut self, moment: DateTime<Utc>) -> Result<()> {
        loop {
            let event = self.next().await?;
            if let Some(time) = event["complete_to"].as_str()
                && DateTime::parse_from_rfc3339(time)?.to_utc() >= moment
            {
                return Ok(());
            }
        }
    }

    /// Ends it as an operator would.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        let killed = Command::new("kill").arg(&pid).status().await?;
        ensure!(killed.success(), "the stream could not be told to stop");
        // What it still has to say must not fill the pipe.
        while self.events.next_line().await?.is_some() {}
        let status = self.child.wait().await?;
        ensure!(status.success(), "the stream ended with {status}");
        Ok(())
    }
}

/// The lags as a table.
pub(crate) fn table(all: &[Lags]) -> Table {
    let mut table = Table::new(&[
        "commit to durable",
        "transactions",
        "per second",
        "segments",
        "p50",
        "p90",
        "p99",
        "max",
        "writers late, p99",
    ]);
    for lags in all {
        table.row(vec![
            lags.store.name().to_owned(),
            lags.transactions.to_string(),
            format!("{:.1}", lags.transactions_per_second),
            lags.segments.to_string(),
            format!("{:.3} s", lags.p50),
            format!("{:.3} s", lags.p90),
            format!("{:.3} s", lags.p99),
            format!("{:.3} s", lags.max),
            format!("{:.1} ms", lags.schedule_p99 * 1e3),
        ]);
    }
    table
}
