//! Up to which moment the stream is complete, by the source's own clock.
//!
//! The source is asked for its time and then for the end of its binlog. Commit times are taken
//! while the binlog is locked for writing, and asking for its end waits for that lock: so once
//! the stream has passed that end, it holds every transaction that was committed up to that time
//! (`MYSQL_BIN_LOG::get_current_log` and the flush stage of `sql/binlog.cc`).

use chrono::{DateTime, Utc};

use super::cutter::SourcePosition;

/// The question that is open, and the last answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Horizon {
    asked: Option<(DateTime<Utc>, SourcePosition)>,
    reached: Option<DateTime<Utc>>,
}

impl Horizon {
    /// Whether a new question makes sense.
    pub(super) const fn wants_asking(&self) -> bool {
        self.asked.is_none()
    }

    /// Notes the source's `time`, and the `end` of its binlog, taken in this order.
    pub(super) fn ask(&mut self, time: DateTime<Utc>, end: SourcePosition) {
        self.asked = Some((time, end));
    }

    /// Notes where the stream stands, between two transactions.
    pub(super) fn pass(&mut self, position: &SourcePosition) {
        if let Some((time, end)) = &self.asked
            && has_passed(position, end)
        {
            self.reached = self.reached.max(Some(*time));
            self.asked = None;
        }
    }

    /// The moment up to which everything has been received.
    pub(super) const fn reached(&self) -> Option<DateTime<Utc>> {
        self.reached
    }

    /// Forgets the open question, whose position means nothing on another server.
    pub(super) fn forget_question(&mut self) {
        self.asked = None;
    }
}

/// Whether the stream is at or behind `end`. Within one server the numbers of its binlog files
/// only grow (until RESET BINARY LOGS, which ends the dump).
pub(super) fn has_passed(position: &SourcePosition, end: &SourcePosition) -> bool {
    if position.file == end.file {
        return position.position >= end.position;
    }
    match (number(&position.file), number(&end.file)) {
        (Some(at), Some(end)) => at > end,
        _ => false,
    }
}

fn number(file: &str) -> Option<u64> {
    file.rsplit_once('.')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, position: u64) -> SourcePosition {
        SourcePosition {
            file: file.to_owned(),
            position,
        }
    }

    #[test]
    fn a_file_more_than_six_digits_long_is_still_later() {
        assert!(has_passed(&at("b.1000000", 4), &at("b.999999", 10_000)));
        assert!(!has_passed(&at("b.999999", 10_000), &at("b.1000000", 4)));
        assert!(has_passed(&at("b.000001", 157), &at("b.000001", 157)));
        assert!(!has_passed(&at("b.000001", 156), &at("b.000001", 157)));
        assert!(!has_passed(&at("", 0), &at("b.000001", 4)));
    }

    #[test]
    fn a_moment_counts_only_when_its_end_has_been_passed() {
        let (early, late) = (DateTime::UNIX_EPOCH, Utc::now());
        let mut horizon = Horizon::default();
        horizon.ask(late, at("b.000002", 200));
        horizon.pass(&at("b.000002", 199));
        assert_eq!(horizon.reached(), None);
        horizon.pass(&at("b.000002", 200));
        assert_eq!(horizon.reached(), Some(late));
        assert!(horizon.wants_asking());
        // A clock that was set back takes nothing back.
        horizon.ask(early, at("b.000002", 200));
        horizon.pass(&at("b.000002", 200));
        assert_eq!(horizon.reached(), Some(late));
    }
}
