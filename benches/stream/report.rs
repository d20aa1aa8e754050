//! What is shown at the end, and written into the page about performance.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

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

    /// Puts it where the page has its figures.
    pub(crate) fn write_into(&self, page: &Path) -> Result<()> {
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
