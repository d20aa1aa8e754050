//! `quillback snapshot`: a consistent snapshot from a secondary.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rand::RngExt as _;
use serde_json::json;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::parse_span;
use crate::error::Class;
use crate::mysql::schema::{Filter, Pattern};
use crate::snapshot::{
    self, LockMode, OnLag, ResumePlan, ResumeReport, SnapshotOptions, SnapshotPlan,
    SnapshotProgress, SnapshotReport,
};

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
    /// zstd's level for the rows, 1 to 19.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=19), default_value_t = 1, value_name = "LEVEL")]
    zstd_level: i32,
    /// Show what would be read from where, and change nothing.
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

pub(super) async fn run(context: &Context, arguments: SnapshotArguments) -> anyhow::Result<Done> {
    let servers = context.servers()?;
    let repository = context.repository().await?;
    let options = SnapshotOptions {
        threads: arguments.threads as usize,
        lock: match arguments.lock {
            Lock::Auto => LockMode::Auto,
            Lock::None => LockMode::None,
            Lock::Flush => LockMode::Flush,
        },
        allow_primary: arguments.allow_primary,
        filter: Filter {
            include: patterns(&arguments.include)?,
            exclude: patterns(&arguments.exclude)?,
        },
        ddl_wait: arguments.ddl_wait,
        max_lag: arguments.max_lag,
        on_lag: match arguments.on_lag {
            OnLagArgument::Fail => OnLag::Fail,
            OnLagArgument::Continue => OnLag::Continue,
        },
        resume: arguments.resume,
        unfinished: match arguments.resume {
            true => snapshot::find_unfinished(&**repository.storage()).await?,
            false => None,
        },
        zstd_level: arguments.zstd_level,
        ..SnapshotOptions::default()
    };
    let (facts, url) = snapshot::load_facts(&servers, &options).await?;
    let random = rand::rng().random();
    let plan = SnapshotPlan::compute(&facts, &options, context.clock.now(), random)?;
    if arguments.dry_run {
        if context.json {
            render::data(&json!({ "plan": plan }));
        } else {
            render::say(&describe_plan(&plan));
            render::say("nothing was changed (--dry-run)");
        }
        return Ok(Done::Fine);
    }
    context.talk(&describe_plan(&plan));
    let cancel = context.cancel_on_signal()?;
    let progress = Arc::new(SnapshotProgress::default());
    let line = context.progress();
    let running = snapshot::run(
        &plan,
        &url,
        Arc::clone(repository.storage()),
        Arc::clone(&context.clock),
        Arc::clone(&progress),
        &cancel,
    );
    let mut running = std::pin::pin!(running);
    let report = loop {
        tokio::select! {
            done = &mut running => break done,
            () = tokio::time::sleep(Duration::from_millis(250)) => line.update(|| {
                format!(
                    "{} of about {} rows, {} read, {} stored",
                    render::count(progress.rows()),
                    render::count(plan.estimated_rows),
                    render::bytes(progress.raw_bytes()),
                    render::bytes(progress.stored_bytes()),
                )
            }),
        }
    };
    line.clear();
    let report = report?;
    if context.json {
        render::data(&report);
    } else {
        render::say(&describe_report(&report));
    }
    Ok(if report.warnings.is_empty() {
        Done::Fine
    } else {
        Done::With(Class::Warnings)
    })
}

fn patterns(texts: &[String]) -> anyhow::Result<Vec<Pattern>> {
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|error| {
                UsageError::new(
                    format!("{error}"),
                    "--include 'shop' or --include 'shop.order*'",
                )
                .into()
            })
        })
        .collect()
}

/// The plan as a person reads it.
fn describe_plan(plan: &SnapshotPlan) -> String {
    let mut lines = vec![format!(
        "snapshot {} of {} (MySQL {})",
        plan.id, plan.server, plan.version
    )];
    for reason in &plan.reasons {
        lines.push(format!("  {reason}"));
    }
    lines.push(format!(
        "  {}, about {} and {}, {} at once",
        render::plural(plan.tables.len() as u64, "table"),
        render::plural(plan.estimated_rows, "row"),
        render::bytes(plan.estimated_bytes),
        plan.threads
    ));
    match &plan.resume {
        None => {}
        Some(ResumePlan::From(id)) => lines.push(format!(
            "  goes on with {id} if its state can be seen again"
        )),
        Some(ResumePlan::Anew(why)) => lines.push(format!("  starts anew: {why}")),
    }
    for warning in &plan.warnings {
        lines.push(format!("  warning: {warning}"));
    }
    lines.join("\n")
}

/// The report as a person reads it.
fn describe_report(report: &SnapshotReport) -> String {
    let totals = &report.totals;
    let mut lines = vec![
        format!(
            "snapshot {} is in the archive: {}, {}, {} read, {} stored",
            report.id,
            render::plural(totals.tables, "table"),
            render::plural(totals.rows, "row"),
            render::bytes(totals.raw_bytes),
            render::bytes(totals.stored_bytes),
        ),
        format!("it holds {:#}", report.gtid_executed),
        format!(
            "writes were held up for {:.3} s, DDL for {:.3} s",
            report.consistency.global_lock_seconds, report.consistency.backup_lock_seconds
        ),
        render::phases(&report.phases),
    ];
    match &report.resume {
        None => {}
        Some(ResumeReport::GoneOn {
            tables,
            stored_bytes,
        }) => lines.push(format!(
            "{} ({}) were there already",
            render::plural(*tables, "table"),
            render::bytes(*stored_bytes)
        )),
        Some(ResumeReport::Anew(why)) => lines.push(format!("it was started anew: {why}")),
    }
    for warning in &report.warnings {
        lines.push(format!("warning: {warning}"));
    }
    lines.join("\n")
}
