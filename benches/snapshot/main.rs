//! The snapshot measured on a real server, beside the programs that people would use instead of it.
//!
//! `benches/run snapshot` builds and runs this; docs/PERFORMANCE.md says what is measured, and what came out. All
//! contestants take turns on the same server within one run: the ratios carry over to other machines better than the figures.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark talks to the person who started it"
)]

#[path = "../stream/child.rs"]
mod child;
mod contest;
mod data;
mod floor;
#[path = "../stream/machine.rs"]
mod machine;
#[path = "../stream/program.rs"]
#[expect(dead_code, reason = "shared with the other benchmark")]
mod program;
#[path = "../stream/report.rs"]
mod report;
mod settings;
#[path = "../stream/statistics.rs"]
#[expect(dead_code, reason = "shared with the other benchmark")]
mod statistics;
#[path = "../stream/table.rs"]
mod table;
#[path = "../stream/text.rs"]
mod text;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::report::Report;
use crate::settings::Settings;

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
    let mydumper = contest::mydumper_version()?;
    let (mut report, machine) = Report::begin("snapshot", settings.quick, Some(&mydumper))?;
    let mut results = json!({ "machine": machine, "mydumper": mydumper, "settings": settings });
    for &data in &settings.data {
        println!("\n# {}: filling the tables", data.name());
        let server = data::start(settings, data).await?;
        let size = data::size(&server).await?;
        println!("{size}");
        let found = contest::measure(settings, &server, &size).await?;
        report.section(
            &format!("A snapshot, {}: {size}", data.name()),
            &contest::table(&found),
        );
        results[data.name()] = serde_json::to_value(&found)?;
    }
    let places = (settings.json.as_deref(), settings.page.as_deref());
    report.finish(results, started, places)
}
