//! The restore measured on real servers, beside the programs that people would use instead of it.
//!
//! `benches/run restore` builds and runs this; docs/PERFORMANCE.md says what is measured, and what came out. All
//! contestants take turns within one run: the ratios carry over to other machines better than the figures.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark talks to the person who started it"
)]

#[path = "../stream/child.rs"]
mod child;
#[path = "../snapshot/data.rs"]
mod data;
mod floor;
mod load;
#[path = "../stream/machine.rs"]
mod machine;
#[path = "../stream/program.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod program;
mod replay;
#[path = "../stream/source.rs"]
mod replayed;
#[path = "../stream/report.rs"]
mod report;
mod settings;
mod source;
#[path = "../stream/statistics.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod statistics;
#[path = "../stream/table.rs"]
mod table;
#[path = "../stream/text.rs"]
mod text;
mod thresholds;
#[path = "../stream/workload.rs"]
#[expect(dead_code, reason = "shared with the benchmark of the stream")]
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::program::Stores;
use crate::report::Report;
use crate::settings::{Part, Settings};
use crate::source::Source;
use crate::workload::Workload;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(floor::COMMAND) {
        let arguments: Vec<String> = arguments.collect();
        return report::run_to_exit(floor::run(&arguments)).await;
    }
    report::start(settings::HELP, Settings::from_arguments, run).await
}

async fn run(settings: &Settings) -> Result<()> {
    let started = Instant::now();
    let (mut report, machine) = Report::begin("restore", settings.quick, None)?;
    let mut results = json!({ "machine": machine, "settings": settings });
    let stores = Stores::start().await?;
    if settings.parts.contains(&Part::Load) {
        for &data in &settings.data {
            println!("\n# {}: filling the tables and dumping them", data.name());
            let server = data::start(settings, data).await?;
            let size = data::size(&server).await?;
            println!("{size}");
            let source = Source::snapshot(&stores, &server).await?;
            let source = source.with_dumps(&server, settings.threads).await?;
            drop(server);
            let found = load::measure(settings, &source, &size).await?;
            report.section(
                &format!("A load, {}: {size}", data.name()),
                &load::table(&found),
            );
            results[data.name()] = serde_json::to_value(&found)?;
        }
    }
    if settings.parts.contains(&Part::Thresholds) {
        println!("\n# thresholds");
        let found = thresholds::measure(settings, &stores).await?;
        report.section(
            "One table over four connections: what pays from which size on (seconds of a whole load)",
            &thresholds::table(&found),
        );
        results["thresholds"] = serde_json::to_value(&found)?;
    }
    if settings.parts.contains(&Part::Replay) {
        for workload in Workload::ALL {
            println!("\n# replay, {}: writing the binlog", workload.name());
            let found = replay::measure(settings, &stores, workload).await?;
            report.section(&found.title(workload), &replay::table(&found));
            results[format!("replay_{}", workload.name())] = serde_json::to_value(&found)?;
        }
    }
    let places = (settings.json.as_deref(), settings.page.as_deref());
    report.finish(results, started, places)
}
