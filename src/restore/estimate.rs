//! How long a restore will take, before it begins.
//!
//! The model has four constants: what was measured on two cores and a local disk (docs/PERFORMANCE.md),
//! rounded to the slower side. They stand in for a measurement until an archive has its own. Where the archive holds reports of earlier restores, each part of the
//! model is multiplied by how much longer or shorter those took: the median of the newest few, of
//! phases that were long enough to mean something. It is an estimate: it chooses among snapshots
//! and tells an operator whether to expect minutes or hours.

use serde::{Deserialize, Serialize};

use crate::observe::phase::Phase;

/// Bytes of rows (before compression) that are loaded in a second.
const LOAD_BYTES: f64 = 45e6;
/// Bytes of rows for which secondary indexes are built in a second.
const INDEX_BYTES: f64 = 120e6;
/// Bytes of binlog that are replayed in a second, besides what each transaction costs.
const REPLAY_BYTES: f64 = 40e6;
/// Transactions that are replayed in a second, besides what their bytes cost.
const REPLAY_TRANSACTIONS: f64 = 4_000.0;
/// What every restore takes, however small: connections, DDL, checks.
const FIXED_SECONDS: f64 = 2.0;
/// A phase shorter than this says nothing about rates.
const SHORT_SECONDS: f64 = 5.0;
/// So many earlier restores count.
pub const REPORTS: usize = 5;

/// What a restore has to move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of rows, before compression.
    pub load_bytes: u64,
    /// Bytes of binlog.
    pub replay_bytes: u64,
    /// Transactions to replay.
    pub transactions: u64,
}

/// What an earlier restore moved and how long it took: the part of its report that matters here.
#[derive(Debug, Clone, Deserialize)]
pub struct Earlier {
    load_bytes: u64,
    replay_bytes: u64,
    transactions: u64,
    phases: Vec<Phase>,
}

/// How much longer than the model things take here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    load: f64,
    replay: f64,
    /// How many earlier restores that is known from.
    restores: usize,
}

/// A phase that is to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpectedPhase {
    /// Its name.
    pub phase: &'static str,
    /// How long it may take.
    pub seconds: f64,
}

/// How long a restore may take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expected {
    /// All of it.
    pub seconds: f64,
    /// By phase.
    pub phases: Vec<ExpectedPhase>,
    /// How many earlier restores of this archive that is measured by; 0 means documented rates.
    pub restores: usize,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            load: 1.0,
            replay: 1.0,
            restores: 0,
        }
    }
}

impl Rates {
    /// What earlier restores teach.
    #[must_use]
    pub fn measured(earlier: &[Earlier]) -> Self {
        let mut load = Vec::new();
        let mut replay = Vec::new();
        let mut restores = 0;
        for report in earlier {
            let took = |names: &[&str]| -> f64 {
                let phases = report.phases.iter();
                phases
                    .filter(|phase| names.contains(&phase.phase.as_str()))
                    .map(|phase| phase.seconds)
                    .sum()
            };
            let work = report.work();
            let parts = [
                (took(&["load", "index"]), work.load_seconds(), &mut load),
                (took(&["replay"]), work.replay_seconds(), &mut replay),
            ];
            let mut tells = false;
            for (took, expected, factors) in parts {
                if took >= SHORT_SECONDS && expected > 0.0 {
                    factors.push(took / expected);
                    tells = true;
                }
            }
            restores += usize::from(tells);
        }
        Self {
            load: median(load),
            replay: median(replay),
            restores,
        }
    }

    /// How long work may take.
    #[must_use]
    pub fn expect(&self, work: &Work) -> Expected {
        let load = work.load_bytes as f64 / LOAD_BYTES * self.load;
        let index = work.load_bytes as f64 / INDEX_BYTES * self.load;
        let replay = work.replay_seconds() * self.replay;
        let phases = vec![
            ExpectedPhase {
                phase: "load",
                seconds: load,
            },
            ExpectedPhase {
                phase: "index",
                seconds: index,
            },
            ExpectedPhase {
                phase: "replay",
                seconds: replay,
            },
            ExpectedPhase {
                phase: "check",
                seconds: FIXED_SECONDS,
            },
        ];
        Expected {
            seconds: phases.iter().map(|phase| phase.seconds).sum(),
            phases,
            restores: self.restores,
        }
    }
}

impl Earlier {
    const fn work(&self) -> Work {
        Work {
            load_bytes: self.load_bytes,
            replay_bytes: self.replay_bytes,
            transactions: self.transactions,
        }
    }
}

impl Work {
    fn load_seconds(&self) -> f64 {
        self.load_bytes as f64 / LOAD_BYTES + self.load_bytes as f64 / INDEX_BYTES
    }

    fn replay_seconds(&self) -> f64 {
        self.replay_bytes as f64 / REPLAY_BYTES + self.transactions as f64 / REPLAY_TRANSACTIONS
    }
}

/// The middle one; 1 if there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 1.0,
        count => values[count / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earlier(load_bytes: u64, load_seconds: f64) -> Earlier {
        let text = format!(
            r#"{{"load_bytes": {load_bytes}, "replay_bytes": 0, "transactions": 0, "more": 1,
               "phases": [{{"phase": "load", "seconds": {load_seconds}, "bytes": 0}}]}}"#
        );
        serde_json::from_str(&text).expect("a report")
    }

    #[test]
    fn a_gigabyte_of_rows_and_of_log_takes_about_a_minute() {
        let work = Work {
            load_bytes: 1_000_000_000,
            replay_bytes: 1_000_000_000,
            transactions: 20_000,
        };
        let expected = Rates::default().expect(&work);
        assert!((50.0..75.0).contains(&expected.seconds), "{expected:?}");
        assert_eq!(expected.restores, 0);
    }

    #[test]
    fn earlier_restores_teach_unless_they_were_short() {
        let model = Work {
            load_bytes: 1_000_000_000,
            ..Work::default()
        };
        let plain = Rates::default().expect(&model).seconds - FIXED_SECONDS;
        let reports = [
            earlier(1_000_000_000, plain * 2.0),
            earlier(1_000_000_000, plain * 2.0),
            earlier(1_000_000_000, plain * 50.0),
            earlier(1_000, 1.0),
        ];
        let rates = Rates::measured(&reports);
        let expected = rates.expect(&model).seconds - FIXED_SECONDS;
        assert!((expected / plain - 2.0).abs() < 0.01, "{expected} {plain}");
        assert_eq!(rates.restores, 3);
        assert_eq!(Rates::measured(&[]), Rates::default());
    }
}
