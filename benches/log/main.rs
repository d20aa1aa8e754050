//! `quillback log` measured on archives that a real stream made, beside mysqlbinlog over the files themselves.
//!
//! `benches/run log` builds and runs this; docs/PERFORMANCE.md says what is measured, and what came out.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark talks to the person who started it"
)]

#[path = "../stream/child.rs"]
mod child;
#[path = "../stream/machine.rs"]
mod machine;
#[path = "../stream/program.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod program;
mod questions;
#[path = "../stream/report.rs"]
mod report;
mod settings;
#[path = "../stream/source.rs"]
mod source;
#[path = "../stream/statistics.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod statistics;
#[path = "../stream/table.rs"]
mod table;
#[path = "../stream/text.rs"]
mod text;
#[path = "../stream/workload.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::program::{Store, Stores};
use crate::report::Report;
use crate::settings::Settings;
use crate::text::Random;
use crate::workload::Workload;

/// Segments as compaction leaves them or large ones come, and as a quiet source's are before it.
const SEGMENTS: [&str; 2] = ["64MiB", "1MiB"];

#[tokio::main]
async fn main() -> ExitCode {
    report::start(settings::HELP, Settings::from_arguments, run).await
}

async fn run(settings: &Settings) -> Result<()> {
    let started = Instant::now();
    let (mut report, machine) = Report::begin("log", settings.quick, None)?;
    let mut results = json!({ "machine": machine, "settings": settings });
    let random = Random::new(2026);
    let bytes = settings.binlog_bytes();
    println!("\n# writing {} MB of binlog", bytes / 1_000_000);
    let server = source::start(Workload::Mixed, &mut random.clone()).await?;
    let stores = Stores::start().await?;
    let mut places = Vec::new();
    for store in Store::ALL {
        for size in SEGMENTS {
            let place = stores.place(store);
            place.run(&server, &["init"]).await?;
            // Without a snapshot the stream begins at what the server has now.
            place.run(&server, &["stream", "--once"]).await?;
            places.push((store, size, place));
        }
    }
    let rare = questions::Rare::start(&server).await?;
    let binlog = source::fill(&server, Workload::Mixed, &random, bytes).await?;
    let rare = rare.stop().await?;
    let size = format!(
        "{:.0} MB of binlog, {} transactions, {rare} of them on one table",
        binlog.bytes as f64 / 1e6,
        binlog.transactions + rare,
    );
    println!("{size}");
    for (_, size, place) in &places {
        let arguments = ["stream", "--once", "--segment-size", size];
        place.run(&server, &arguments).await?;
    }
    let reference = questions::by_mysqlbinlog(&binlog).await?;
    let mut all = Vec::new();
    for (store, size, place) in &places {
        let name = format!("{}, segments of {size}", store.name());
        println!("\n# {name}");
        let found = questions::ask(settings, &server, place, rare).await?;
        all.push((name, found));
    }
    report.section(
        &format!("Finding a transaction: {size}"),
        &questions::table(&all, &reference),
    );
    results["questions"] = serde_json::to_value(&all)?;
    results["mysqlbinlog"] = serde_json::to_value(reference)?;
    let places = (settings.json.as_deref(), settings.page.as_deref());
    report.finish(results, started, places)
}
