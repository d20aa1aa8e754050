//! What is asked for on the command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::data::Data;
use crate::workload::Workload;

pub(crate) const HELP: &str = "\
benches/run restore [OPTIONS]

  --quick             a fifth of everything, and one round rather than three
  --only NAME,...     of load, replay, thresholds
  --data NAME,...     what is loaded: of sysbench, wide, blobs
  --threads N         connections of each contestant that can have several (4)
  --rounds N          how often each takes its turn
  --json FILE         where the figures go
  --page FILE         the page whose figures are replaced: docs/PERFORMANCE.md
  -- ARGUMENT...      more arguments for every quillback restore, such as --keep-redo-log";

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// A snapshot loaded, beside what else loads a dump.
    Load,
    /// A binlog replayed, beside a real replica and what else replays one.
    Replay,
    /// From which size on it pays to build indexes after the rows.
    Thresholds,
}

impl Part {
    const ALL: [Self; 3] = [Self::Load, Self::Replay, Self::Thresholds];

    const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Replay => "replay",
            Self::Thresholds => "thresholds",
        }
    }
}

/// How much is done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) parts: Vec<Part>,
    pub(crate) data: Vec<Data>,
    pub(crate) threads: usize,
    rounds: Option<usize>,
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) page: Option<PathBuf>,
    /// What every `quillback restore` is told besides.
    pub(crate) arguments: Vec<String>,
}

impl Settings {
    /// Reads the arguments.
    pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut settings = Self {
            quick: false,
            parts: Part::ALL.into(),
            data: Data::ALL.into(),
            threads: 4,
            rounds: None,
            json: None,
            page: None,
            arguments: Vec::new(),
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
                "--only" => {
                    settings.parts = value()?.split(',').map(part).collect::<Result<_>>()?
                }
                "--data" => settings.data = value()?.split(',').map(data).collect::<Result<_>>()?,
                "--threads" => settings.threads = value()?.parse()?,
                "--rounds" => settings.rounds = Some(value()?.parse()?),
                "--json" => settings.json = Some(PathBuf::from(value()?)),
                "--page" => settings.page = Some(PathBuf::from(value()?)),
                "--" => settings.arguments = arguments.by_ref().collect(),
                // cargo says so to every benchmark.
                "--bench" => {}
                other => bail!("unknown argument {other}"),
            }
        }
        Ok(settings)
    }

    /// How much binlog is replayed: of small transactions a fifth, which take five times as long.
    pub(crate) const fn replay_bytes(&self, workload: Workload) -> u64 {
        let bytes = if self.quick { 40_000_000 } else { 230_000_000 };
        match workload {
            Workload::Small => bytes / 5,
            Workload::Mixed => bytes,
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }
}

fn part(name: &str) -> Result<Part> {
    let found = Part::ALL.into_iter().find(|part| part.name() == name);
    found.with_context(|| format!("there is no part {name}"))
}

fn data(name: &str) -> Result<Data> {
    let found = Data::ALL.into_iter().find(|data| data.name() == name);
    found.with_context(|| format!("there is no data {name}"))
}
