//! What is shown at the end, and written into the page about performance.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::machine;

/// Runs a benchmark to its end, or until somebody stops it.
pub(crate) async fn run_to_exit(run: impl Future<Output = Result<()>>) -> ExitCode {
    // Leaving this scope, however it happens, stops every server and removes every folder.
    let outcome = tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => {
            println!("\nstopped; everything is being removed");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nFAILED: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line, and runs what it asks for.
pub(crate) async fn start<S>(
    help: &str,
    read: impl FnOnce(std::iter::Skip<std::env::Args>) -> Result<S>,
    run: impl AsyncFnOnce(&S) -> Result<()>,
) -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        println!("{help}");
        return ExitCode::SUCCESS;
    }
    let settings = match read(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(error) => {
            println!("{error:#}\n\n{help}");
            return ExitCode::from(2);
        }
    };
    run_to_exit(run(&settings)).await
}

/// Sections in Markdown.
#[derive(Debug)]
pub(crate) struct Report {
    /// The name behind `benches/run`.
    bench: &'static str,
    text: String,
}

impl Report {
    /// Begins with when, where and, if there are, against whom; the machine is for the figures.
    pub(crate) fn begin(
        bench: &'static str,
        is_quick: bool,
        peer: Option<&str>,
    ) -> Result<(Self, Value)> {
        let machine = machine::describe()?;
        let mut report = Self {
            bench,
            text: String::new(),
        };
        let peer = peer.map_or_else(String::new, |peer| format!(" {peer};"));
        report.line(&format!(
            "{}{}, {};{peer} load average before it {}",
            chrono::Utc::now().format("%Y-%m-%d %H:%M UTC, "),
            if is_quick {
                "a quick run"
            } else {
                "a full run"
            },
            machine::text(&machine),
            machine::load_average()
        ));
        Ok((report, serde_json::to_value(machine)?))
    }

    /// Adds a line of prose, and prints it.
    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        let _ = writeln!(self.text, "{line}\n");
    }

    /// Adds a section, and prints it.
    pub(crate) fn section(&mut self, title: &str, body: &impl Display) {
        println!("\n{body}");
        let _ = writeln!(self.text, "### {title}\n\n{body}");
    }

    /// Tells how long it took, and leaves figures and page where they were asked for.
    pub(crate) fn finish(
        &self,
        mut results: Value,
        started: Instant,
        (json, page): (Option<&Path>, Option<&Path>),
    ) -> Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        results["seconds"] = json!(seconds);
        println!("{seconds:.0} s in all");
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&results)?;
            std::fs::write(path, text + "\n")
                .with_context(|| format!("failed to write {}", path.display()))?;
            println!("the figures are in {}", path.display());
        }
        if let Some(page) = page {
            self.write_into(page)?;
            println!("and in {}", page.display());
        }
        Ok(())
    }

    /// Puts it where the page has its figures.
    fn write_into(&self, page: &Path) -> Result<()> {
        let path = page.display();
        // The figures on the page stand between these lines.
        let mark = |what| format!("<!-- benches/run {}: {what} -->", self.bench);
        let (begin, end) = (mark("begin"), mark("end"));
        let old =
            std::fs::read_to_string(page).with_context(|| format!("failed to read {path}"))?;
        let (head, rest) = old
            .split_once(&begin)
            .with_context(|| format!("{path} lacks the line {begin}"))?;
        let (_, tail) = rest
            .split_once(&end)
            .with_context(|| format!("{path} lacks the line {end}"))?;
        let text = self.text.trim_end();
        std::fs::write(page, format!("{head}{begin}\n\n{text}\n\n{end}{tail}"))
            .with_context(|| format!("failed to write {path}"))
    }
}
