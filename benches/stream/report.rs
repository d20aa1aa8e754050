//! What is shown at the end, and written into the page about performance.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

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

/// Sections in Markdown.
#[derive(Debug)]
pub(crate) struct Report {
    /// The name behind `benches/run`.
    bench: &'static str,
    text: String,
}

impl Report {
    pub(crate) fn new(bench: &'static str) -> Self {
        Self {
            bench,
            text: String::new(),
        }
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
