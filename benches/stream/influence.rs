//! What the stream takes from the server that it follows.
//!
//! Writers commit as fast as they can, in windows without a stream and with one. They take turns on the same server, in an
//! order that changes, so that a server that grows slower with time is not held against the stream. Each workload is measured
//! twice: with everything on all processors, and with the server alone on the first half of them and the writers, the stream and the store
//! on the others, as beside a server that has a machine of its own.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use mysql_async::prelude::Queryable as _;
use quillback_harness::Server;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::child::{peak_bytes, processor_seconds};
use crate::lag::Stream;
use crate::program::{Place, Store, Stores};
use crate::settings::Settings;
use crate::source;
use crate::statistics::median;
use crate::table::Table;
use crate::text::Random;
use crate::workload::Workload;

const WRITERS: u64 = 8;
/// What is written before a window begins to count.
const WARM_UP: Duration = Duration::from_secs(1);

/// A kind of window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Off,
    On,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Off, Self::On];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "no stream",
            Self::On => "with the stream",
        }
    }
}

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    /// Everything on all processors.
    Shared,
    /// The server on processors of its own.
    Apart,
}

impl Placement {
    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Apart => "apart",
        }
    }

    /// Puts a server and ourselves, with what we start, where they belong.
    ///
    /// `count` is how many processors there are: what the standard library says depends on where we are bound.
    fn take(self, server: u32, count: usize) -> Result<()> {
        let all = (0, count - 1);
        let (its, ours) = match self {
            Self::Shared => (all, all),
            Self::Apart => ((0, count / 2 - 1), (count / 2, count - 1)),
        };
        bind(server, its)?;
        bind(std::process::id(), ours)
    }

    const fn of(count: usize) -> &'static [Self] {
        match count {
            1 => &[Self::Shared],
            _ => &[Self::Shared, Self::Apart],
        }
    }
}

/// Binds all threads of a process to processors, by util-linux' taskset.
fn bind(process: u32, (first, last): (usize, usize)) -> Result<()> {
    let list = format!("{first}-{last}");
    let output = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &list])
        .arg(process.to_string())
        .output()
        .context("taskset (of util-linux) is needed")?;
    ensure!(
        output.status.success(),
        "taskset: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A window.
#[derive(Debug, Serialize)]
struct Window {
    kind: Kind,
    transactions_per_second: f64,
    /// Processor seconds of the server in each second.
    server_processors: f64,
    /// Those of the stream.
    stream_processors: f64,
    stream_peak_bytes: u64,
}

/// The windows of one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Influence {
    workload: Workload,
    placement: Placement,
    kinds: Vec<Summary>,
    windows: Vec<Window>,
}

#[derive(Debug, Serialize)]
struct Summary {
    kind: Kind,
    /// The median of the windows.
    transactions_per_second: f64,
    /// The slowest and the fastest window.
    range: (f64, f64),
    /// Against the window without a stream of the same round: the median of the rounds.
    against_off: f64,
    server_processors: f64,
    stream_processors: f64,
    stream_peak_bytes: u64,
}

/// Measures each workload.
pub(crate) async fn measure(settings: &Settings, random: &Random) -> Result<Vec<Influence>> {
    println!(
        "\n# influence on the source: {} windows of {} s of each kind and workload",
        settings.windows(),
        settings.window().as_secs()
    );
    let mut all = Vec::new();
    let count = std::thread::available_parallelism()?.get();
    for &workload in &settings.workloads {
        for &placement in Placement::of(count) {
            all.push(one(settings, workload, (placement, count), random).await?);
        }
    }
    Ok(all)
}

async fn one(
    settings: &Settings,
    workload: Workload,
    (placement, processors): (Placement, usize),
    random: &Random,
) -> Result<Influence> {
    let server = source::start(workload, &mut random.clone()).await?;
    let stores = Stores::start().await?;
    let place = stores.place(Store::Folder);
    place.run(&server, &["init"]).await?;
    let pid = server.pid().context("the server has ended")?;
    placement.take(pid, processors)?;
    let mut windows = Vec::new();
    let mut turn = 0;
    // A window that nobody counts: the first writes of a server are unlike all others.
    let bench = Bench {
        settings,
        server: &server,
        place: &place,
        workload,
        random,
    };
    bench.window(Kind::Off, settings.window() / 2, turn).await?;
    for round in 0..settings.windows() {
        let mut kinds = Kind::ALL;
        kinds.rotate_left(round % Kind::ALL.len());
        for kind in kinds {
            turn += 1;
            windows.push(bench.window(kind, settings.window(), turn).await?);
        }
    }
    Placement::Shared.take(pid, processors)?;
    let of = |kind: Kind| windows.iter().filter(move |window| window.kind == kind);
    let kinds = Kind::ALL.map(|kind| {
        let rates: Vec<f64> = of(kind)
            .map(|window| window.transactions_per_second)
            .collect();
        let ratios = of(kind)
            .zip(of(Kind::Off))
            .map(|(on, off)| on.transactions_per_second / off.transactions_per_second);
        Summary {
            kind,
            transactions_per_second: median(rates.iter().copied()),
            range: (
                rates.iter().copied().fold(f64::INFINITY, f64::min),
                rates.iter().copied().fold(0.0, f64::max),
            ),
            against_off: median(ratios),
            server_processors: median(of(kind).map(|window| window.server_processors)),
            stream_processors: median(of(kind).map(|window| window.stream_processors)),
            stream_peak_bytes: of(kind)
                .map(|window| window.stream_peak_bytes)
                .max()
                .unwrap_or(0),
        }
    });
    Ok(Influence {
        workload,
        placement,
        kinds: kinds.into(),
        windows,
    })
}

struct Bench<'a> {
    settings: &'a Settings,
    server: &'a Server,
    place: &'a Place,
    workload: Workload,
    random: &'a Random,
}

impl Bench<'_> {
    async fn window(&self, kind: Kind, span: Duration, turn: u64) -> Result<Window> {
        let mut stream = match kind {
            Kind::Off => None,
            Kind::On => {
                let now = Utc::now();
                let mut stream = Stream::start(self.settings, self.server, self.place).await?;
                // What was written without it is caught up with first.
                stream.wait_until_complete(now).await?;
                Some(stream)
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let mut conn = self.server.conn().await?;
            let mut writer = self.workload.writer(number, self.random);
            writer.skip_to(turn);
            let (stop, commits) = (Arc::clone(&stop), Arc::clone(&commits));
            writers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    conn.query_drop(writer.transaction()).await?;
                    commits.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let server_pid = self.server.pid().context("the server has ended")?;
        let stream_pid = stream.as_ref().map(Stream::pid).transpose()?;
        let used = || -> Result<(f64, f64)> {
            let of = |pid| processor_seconds(pid).map(|(user, system, _)| user + system);
            Ok((of(server_pid)?, stream_pid.map_or(Ok(0.0), of)?))
        };
        let (begun, first, first_used) = (Instant::now(), commits.load(Ordering::Relaxed), used()?);
        let end = begun + span;
        loop {
            // Its events are taken off it, as whoever runs it would do.
            let event = async {
                match &mut stream {
                    Some(stream) => stream.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = event => drop(event?),
                () = tokio::time::sleep_until(end.into()) => break,
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (last, last_used) = (commits.load(Ordering::Relaxed), used()?);
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        let stream_peak_bytes = stream_pid.and_then(peak_bytes).unwrap_or(0);
        if let Some(stream) = stream {
            stream.stop().await?;
        }
        Ok(Window {
            kind,
            transactions_per_second: (last - first) as f64 / seconds,
            server_processors: (last_used.0 - first_used.0) / seconds,
            stream_processors: (last_used.1 - first_used.1) / seconds,
            stream_peak_bytes,
        })
    }
}

/// The windows as a table.
pub(crate) fn table(all: &[Influence]) -> Table {
    let mut table = Table::new(&[
        "commits on the source",
        "processors",
        "per second",
        "slowest - fastest",
        "against no stream",
        "CPUs of the server",
        "CPUs of the stream",
        "its memory",
    ]);
    for influence in all {
        for summary in &influence.kinds {
            table.row(vec![
                format!("{}, {}", influence.workload.name(), summary.kind.name()),
                influence.placement.name().to_owned(),
                format!("{:.0}", summary.transactions_per_second),
                format!("{:.0} - {:.0}", summary.range.0, summary.range.1),
                format!("{:.1} %", summary.against_off * 100.0),
                format!("{:.2}", summary.server_processors),
                format!("{:.2}", summary.stream_processors),
                format!("{:.0} MiB", summary.stream_peak_bytes as f64 / 1048576.0),
            ]);
        }
    }
    table
}
