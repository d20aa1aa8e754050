//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::workload::Workload;

pub(crate) const HELP: &str = "\
benches/run stream [OPTIONS]

  --quick             a fifth of everything: two minutes rather than ten
  --only PART,...     of levels, catch-up, lag, influence
  --workload NAME     mixed or small; the lag is always that of small transactions
  --lag-seconds N     how long the lag is watched on each store
  --json FILE         where the figures go
  --page FILE         the page whose figures are replaced: docs/PERFORMANCE.md
  --hold              leave the first server running with its binlog, to look around or to profile
  -- ARGUMENT...      more arguments for every quillback stream, such as --zstd-level 3";

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    Levels,
    CatchUp,
    Lag,
    Influence,
}

/// How much is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    parts: Vec<Part>,
    pub(crate) workloads: Vec<Workload>,
    lag_seconds: Option<u64>,
    #[serde(skip)]
    pub(crate) hold: bool,
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) page: Option<PathBuf>,
    /// What every `quillback stream` is told besides.
    pub(crate) stream_arguments: Vec<String>,
}

impl Settings {
    /// Reads the arguments.
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut settings = Self {
            quick: false,
            parts: vec![Part::Levels, Part::CatchUp, Part::Lag, Part::Influence],
            workloads: Workload::ALL.into(),
            lag_seconds: None,
            hold: false,
            json: None,
            page: None,
            stream_arguments: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} wants a value"))
            };
            match argument.as_str() {
                "--quick" => settings.quick = true,
                "--hold" => settings.hold = true,
                "--only" => settings.parts = parts(&value()?)?,
                "--workload" => settings.workloads = vec![workload(&value()?)?],
                "--lag-seconds" => {
                    let seconds = value()?.parse().context("--lag-seconds wants a number")?;
                    settings.lag_seconds = Some(seconds);
                }
                "--json" => settings.json = Some(PathBuf::from(value()?)),
                "--page" => settings.page = Some(PathBuf::from(value()?)),
                "--" => settings.stream_arguments = arguments.by_ref().collect(),
                // cargo says so to every benchmark.
                "--bench" => {}
                other => bail!("unknown argument {other}"),
            }
        }
        Ok(settings)
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// How much binlog is caught up with.
    pub(crate) fn binlog_bytes(&self, workload: Workload) -> u64 {
        match (workload, self.quick) {
            (Workload::Mixed, false) => 1_000_000_000,
            (Workload::Mixed, true) => 200_000_000,
            (Workload::Small, false) => 300_000_000,
            (Workload::Small, true) => 60_000_000,
        }
    }

    /// How much of it the levels are measured on.
    pub(crate) fn sample_bytes(&self) -> u64 {
        if self.quick { 16 << 20 } else { 64 << 20 }
    }

    /// How often each contestant catches up.
    pub(crate) fn rounds(&self) -> usize {
        3
    }

    /// How long the lag is watched.
    pub(crate) fn lag_span(&self) -> Duration {
        let default = if self.quick { 12 } else { 60 };
        Duration::from_secs(self.lag_seconds.unwrap_or(default))
    }

    /// How long a window with or without the stream is.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { 6 })
    }

    /// How many windows of each kind there are.
    pub(crate) fn windows(&self) -> usize {
        if self.quick { 2 } else { 4 }
    }
}

fn workload(name: &str) -> Result<Workload> {
    let named = |workload: &Workload| workload.name() == name;
    let found = Workload::ALL.into_iter().find(named);
    found.with_context(|| format!("there is no workload {name}"))
}

fn parts(text: &str) -> Result<Vec<Part>> {
    text.split(',')
        .map(|name| match name {
            "levels" => Ok(Part::Levels),
            "catch-up" => Ok(Part::CatchUp),
            "lag" => Ok(Part::Lag),
            "influence" => Ok(Part::Influence),
            other => bail!("there is no part {other}"),
        })
        .collect()
}
