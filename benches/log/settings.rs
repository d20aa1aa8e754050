//! What is asked for on the command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

pub(crate) const HELP: &str = "\
benches/run log [OPTIONS]

  --quick             a fifth of the binlog, once each
  --json FILE         where the figures go
  --page FILE         the page whose figures are replaced: docs/PERFORMANCE.md";

/// How much is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) page: Option<PathBuf>,
}

impl Settings {
    /// Reads the arguments.
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut settings = Self {
            quick: false,
            json: None,
            page: None,
        };
        while let Some(argument) = arguments.next() {
            let mut path = || {
                let value = arguments.next();
                let value = value.with_context(|| format!("{argument} wants a value"))?;
                anyhow::Ok(Some(PathBuf::from(value)))
            };
            match argument.as_str() {
                "--quick" => settings.quick = true,
                "--json" => settings.json = path()?,
                "--page" => settings.page = path()?,
                // cargo says so to every benchmark.
                "--bench" => {}
                other => bail!("unknown argument {other}"),
            }
        }
        Ok(settings)
    }

    /// How much binlog is archived.
    pub(crate) fn binlog_bytes(&self) -> u64 {
        if self.quick {
            200_000_000
        } else {
            1_000_000_000
        }
    }

    /// How often each question is asked.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }
}
