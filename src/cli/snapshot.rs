//! `quillback snapshot`: a consistent snapshot from a secondary.

mod show;

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rand::RngExt as _;
use serde_json::json;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::parse_span;
use crate::mysql::schema::{Filter, Pattern};
use crate::snapshot::{
    self, LockMode, OnLag, SnapshotOptions, SnapshotPlan, SnapshotProgress, SnapshotReport,
};

/// How often a terminal's line of progress is looked after.
const LOOK: Duration = Duration::from_millis(250);
/// How often progress is told where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The options of `snapshot`.
#[derive(Debug, Args)]
pub(super) struct SnapshotArguments {
    /// Connections that read at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    threads: u32,
    /// How all connections come to the same state.
    #[arg(long, value_enum, default_value_t = Lock::Auto, value_name = "MODE")]
    lock: Lock,
    /// Only what matches, db or db.table with * and ? (may be repeated).
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Not what matches (may be repeated).
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Take tables of other engines than InnoDB too, though their rows are of no certain moment.
    #[arg(long)]
    allow_non_innodb: bool,
    /// Read from the primary if there is no secondary.
    #[arg(long)]
    allow_primary: bool,
    /// A secondary that is further behind its source is not read, or given up.
    #[arg(long, value_parser = parse_span, default_value = "5m", value_name = "SPAN")]
    max_lag: Duration,
    /// What to do if the server falls behind --max-lag, or out of its cluster, while it is read.
    #[arg(long, value_enum, default_value_t = OnLagArgument::Fail, value_name = "WHAT")]
    on_lag: OnLagArgument,
    /// How long DDL, replicated DDL too, may wait for the snapshot before it is let through.
    #[arg(long, value_parser = parse_span, default_value = "1m", value_name = "SPAN")]
    ddl_wait: Duration,
    /// Go on with a snapshot whose run died, if its state can be seen again; else start anew.
    #[arg(long)]
    resume: bool,
    /// Let the server count each table's rows in the same read view, and fail if others were read;
    /// it reads an index of each table once more.
    #[arg(long)]
    count_rows: bool,
    /// zstd's level for the rows, 1 to 19.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=19), default_value_t = 1, value_name = "LEVEL")]
    zstd_level: i32,
    /// Show what would be read from where, with what is locked, missing and expected, and change
    /// nothing; -v shows every table and privilege.
    #[arg(long)]
    dry_run: bool,
}

/// How all connections come to the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lock {
    /// Without a lock if a quiet moment is found, else with a short one.
    Auto,
    /// Never with a lock.
    None,
    /// With a short FLUSH TABLES WITH READ LOCK.
    Flush,
}

/// What to do if the server falls behind or out of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnLagArgument {
    /// Give the snapshot up (exit code 30).
    Fail,
    /// Go on, with a warning: the rows are sound all the same.
    Continue,
}

impl SnapshotArguments {
    fn options(&self) -> anyhow::Result<SnapshotOptions> {
        Ok(SnapshotOptions {
            threads: self.threads as usize,
            lock: match self.lock {
                Lock::Auto => LockMode::Auto,
                Lock::None => LockMode::None,
                Lock::Flush => LockMode::Flush,
            },
            allow_primary: self.allow_primary,
            allow_non_innodb: self.allow_non_innodb,
            filter: Filter {
                include: patterns("--include", &self.include)?,
                exclude: patterns("--exclude", &self.exclude)?,
            },
            ddl_wait: self.ddl_wait,
            max_lag: self.max_lag,
            on_lag: match self.on_lag {
                OnLagArgument::Fail => OnLag::Fail,
                OnLagArgument::Continue => OnLag::Continue,
            },
            resume: self.resume,
            count_rows: self.count_rows,
            zstd_level: self.zstd_level,
            ..SnapshotOptions::default()
        })
    }
}

pub(super) async fn run(context: &Context, arguments: SnapshotArguments) -> anyhow::Result<Done> {
    let mut options = arguments.options()?;
    let servers = context.servers()?;
    let repository = context.repository().await?;
    if options.resume {
        options.unfinished = snapshot::find_unfinished(&**repository.storage()).await?;
    }
    let (facts, url) = snapshot::load_facts(&servers, &options).await?;
    let random = rand::rng().random();
    let plan = SnapshotPlan::compute(&facts, &options, context.clock.now(), random)?;
    if arguments.dry_run {
        let expected = snapshot::expect(&plan, &repository.snapshots().await?);
        if context.json {
            render::data(&json!({ "plan": plan, "expected": expected }));
        } else {
            render::say(&show::dry_run(&plan, expected.as_ref(), context.verbose));
            render::say("nothing was changed (--dry-run)");
        }
        return Ok(Done::Fine);
    }
    context.talk(&show::plan(&plan));
    let cancel = context.cancel_on_signal()?;
    let progress = Arc::new(SnapshotProgress::of(&plan));
    let running = snapshot::run(
        &plan,
        &url,
        Arc::clone(repository.storage()),
        Arc::clone(&context.clock),
        Arc::clone(&progress),
        &cancel,
    );
    let report = watch(context, running, &progress).await?;
    if context.json {
        render::data(&report);
    } else {
        render::say(&show::report(&report));
    }
    Ok(Done::with_notes(&report.warnings))
}

/// Waits for a run, and tells how far it is.
async fn watch<E>(
    context: &Context,
    running: impl Future<Output = Result<SnapshotReport, E>>,
    progress: &SnapshotProgress,
) -> Result<SnapshotReport, E> {
    let line = context.progress();
    let text = || show::standing(&progress.standing());
    let mut running = std::pin::pin!(running);
    let outcome = loop {
        tokio::select! {
            done = &mut running => break done,
            () = tokio::time::sleep(LOOK) => {
                line.update(text);
                line.each(LINE_INTERVAL, text);
            }
        }
    };
    line.clear();
    outcome
}

fn patterns(flag: &str, texts: &[String]) -> anyhow::Result<Vec<Pattern>> {
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|error| {
                UsageError::new(
                    format!("{error}"),
                    format!("{flag} 'shop' or {flag} 'shop.order*'"),
                )
                .into()
            })
        })
        .collect()
}
