//! What is shown at the end, and written into the page about performance.

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The figures on the page stand between these lines.
const BEGIN: &str = "<!-- benches/run stream: begin -->";
const END: &str = "<!-- benches/run stream: end -->";

/// Sections in Markdown.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
}

impl Report {
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
        let old =
            std::fs::read_to_string(page).with_context(|| format!("failed to read {path}"))?;
        let (head, rest) = old
            .split_once(BEGIN)
            .with_context(|| format!("{path} lacks the line {BEGIN}"))?;
        let (_, tail) = rest
            .split_once(END)
            .with_context(|| format!("{path} lacks the line {END}"))?;
        let text = self.text.trim_end();
        std::fs::write(page, format!("{head}{BEGIN}\n\n{text}\n\n{END}{tail}"))
            .with_context(|| format!("failed to write {path}"))
    }
}
