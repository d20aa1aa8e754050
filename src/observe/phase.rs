//! The phases of a run with their times, as every report carries them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One phase of a run that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name, as the documents use it.
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
    /// The bytes that it moved.
    pub bytes: u64,
}

/// Measures phases that follow one another.
#[derive(Debug)]
pub struct PhaseClock {
    since: Instant,
    phases: Vec<Phase>,
}

impl Default for PhaseClock {
    fn default() -> Self {
        Self::start()
    }
}

impl PhaseClock {
    /// Begins the first phase.
    #[must_use]
    pub fn start() -> Self {
        Self {
            since: Instant::now(),
            phases: Vec::new(),
        }
    }

    /// Ends the present phase under its name and begins the next.
    pub fn end(&mut self, phase: &str, bytes: u64) {
        let now = Instant::now();
        self.phases.push(Phase {
            phase: phase.to_owned(),
            seconds: now.duration_since(self.since).as_secs_f64(),
            bytes,
        });
        self.since = now;
    }

    /// The phases that are over.
    #[must_use]
    pub fn finish(self) -> Vec<Phase> {
        self.phases
    }
}
