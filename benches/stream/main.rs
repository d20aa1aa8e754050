//! The stream measured on real servers, beside the program that people would use instead of it.
//!
//! `benches/run stream` builds and runs this; docs/PERFORMANCE.md says what is measured, and what came out. Whatever is
//! compared is compared within one run, in turns, on the same server: the ratios carry over to other machines better than
//! the figures.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark talks to the person who started it"
)]

mod catch_up;
mod child;
mod influence;
mod lag;
mod levels;
mod machine;
mod program;
mod report;
mod settings;
mod source;
mod statistics;
mod table;
mod text;
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::report::Report;
use crate::settings::{Part, Settings};
use crate::text::Random;
use crate::workload::Workload;

#[tokio::main]
async fn main() -> ExitCode {
    report::start(settings::HELP, Settings::from_arguments, run).await
}

async fn run(settings: &Settings) -> Result<()> {
    let started = Instant::now();
    let (mut report, machine) = Report::begin("stream", settings.quick, None)?;
    let random = Random::new(2026);
    let mut results = json!({ "machine": machine, "settings": settings });
    if settings.wants(Part::Levels) || settings.wants(Part::CatchUp) || settings.hold {
        for &workload in &settings.workloads {
            results[workload.name()] = binlog(settings, workload, &random, &mut report).await?;
        }
    }
    if settings.wants(Part::Lag) {
        let found = lag::measure(settings, &random).await?;
        report.section("From commit to archive", &lag::table(&found));
        results["lag"] = serde_json::to_value(&found)?;
    }
    if settings.wants(Part::Influence) {
        let found = influence::measure(settings, &random).await?;
        report.section("What it takes from the source", &influence::table(&found));
        results["influence"] = serde_json::to_value(&found)?;
    }
    let places = (settings.json.as_deref(), settings.page.as_deref());
    report.finish(results, started, places)
}

/// What is measured on a binlog that is there: the levels, and catching up with it.
async fn binlog(
    settings: &Settings,
    workload: Workload,
    random: &Random,
    report: &mut Report,
) -> Result<Value> {
    let (name, bytes) = (workload.name(), settings.binlog_bytes(workload));
    println!(
        "\n# {name} workload: writing {} MB of binlog",
        bytes / 1_000_000
    );
    let server = source::start(workload, &mut random.clone()).await?;
    let archives = catch_up::Archives::prepare(settings, &server).await?;
    let binlog = source::fill(&server, workload, random, bytes).await?;
    let size = format!(
        "{:.0} MB of binlog, {} transactions of {:.1} KB",
        binlog.bytes as f64 / 1e6,
        binlog.transactions,
        binlog.bytes as f64 / 1e3 / binlog.transactions.max(1) as f64,
    );
    println!("{size}, in {:.0} s", binlog.seconds);
    let mut results = json!({
        "binlog_bytes": binlog.bytes,
        "transactions": binlog.transactions,
    });
    if settings.wants(Part::CatchUp) {
        let found = catch_up::measure(settings, &server, &binlog, &archives).await?;
        let title = format!("Catching up, {name}: {size}");
        report.section(&title, &catch_up::table(&found));
        results["catch_up"] = serde_json::to_value(&found)?;
    }
    if settings.wants(Part::Levels) {
        let (binlog, limit) = (binlog.clone(), settings.sample_bytes());
        let levels = tokio::task::spawn_blocking(move || levels::measure(workload, &binlog, limit))
            .await??;
        let title = format!("The levels of zstd, {name}");
        report.section(&title, &levels::table(&levels));
        results["levels"] = serde_json::to_value(&levels)?;
    }
    if settings.hold {
        archives.show(&server);
        println!("waiting for Ctrl-C");
        std::future::pending::<()>().await;
    }
    Ok(results)
}
