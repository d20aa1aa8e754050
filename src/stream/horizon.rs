//! Up to which moment the stream is complete, by the primary's clock.
//!
//! The source is asked for its time and then for the end of its binlog. Commit times are taken
//! while the binlog is locked for writing, and asking for its end waits for that lock: so once
//! the stream has passed that end, it holds every transaction that was committed up to that time
//! (`MYSQL_BIN_LOG::get_current_log` and the flush stage of `sql/binlog.cc`). Of a source that is
//! not the primary this holds only for what it has received itself: there the primary is asked
//! too, and the stream must hold what that had executed.

use chrono::{DateTime, Utc};

use super::cutter::SourcePosition;
use super::upstream::Mark;
use crate::gtid::GtidSet;

/// The question that is open, and the last answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Horizon {
    asked: Option<Mark>,
    reached: Option<DateTime<Utc>>,
    caught_up: bool,
}

impl Horizon {
    /// Sets the next mark, unless one is still ahead that can be reached.
    pub(super) fn ask(&mut self, mark: Mark) {
        match &self.asked {
            Some(open) if !is_lost(open, &mark) => {}
            _ => self.asked = Some(mark),
        }
    }

    /// Notes where the stream stands, between two transactions, and what it has `received`.
    pub(super) fn pass(&mut self, position: &SourcePosition, received: impl Fn() -> GtidSet) {
        let is_reached = |mark: &mut Mark| {
            let executed = mark.executed.as_ref();
            has_passed(position, &mark.end)
                && executed.is_none_or(|executed| executed.is_subset(&received()))
        };
        if let Some(mark) = self.asked.take_if(is_reached) {
            self.reached = self.reached.max(mark.complete_to);
            self.caught_up = true;
        }
    }

    /// The moment up to which everything has been received.
    pub(super) const fn reached(&self) -> Option<DateTime<Utc>> {
        self.reached
    }

    /// Whether a mark of the present source has been passed.
    pub(super) const fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Turns to another source, where the open mark means nothing and none has been passed.
    pub(super) fn turn(&mut self) {
        self.asked = None;
        self.caught_up = false;
    }
}

/// Whether the primary has lost what `open` waits for: another one has taken its place without.
fn is_lost(open: &Mark, next: &Mark) -> bool {
    match (&open.executed, &next.executed) {
        (Some(open), Some(next)) => !open.is_subset(next),
        _ => false,
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

    fn mark(time: DateTime<Utc>, position: u64) -> Mark {
        Mark {
            end: at("b.000002", position),
            complete_to: Some(time),
            executed: None,
        }
    }

    #[test]
    fn a_moment_counts_only_when_its_end_has_been_passed() {
        let (early, late) = (DateTime::UNIX_EPOCH, Utc::now());
        let mut horizon = Horizon::default();
        horizon.ask(mark(late, 200));
        // Asked again while it is open: the first one stands, or none would ever be passed.
        horizon.ask(mark(late, 900));
        horizon.pass(&at("b.000002", 199), GtidSet::new);
        assert_eq!(horizon.reached(), None);
        horizon.pass(&at("b.000002", 200), GtidSet::new);
        assert_eq!(horizon.reached(), Some(late));
        // A clock that was set back takes nothing back.
        horizon.ask(mark(early, 200));
        horizon.pass(&at("b.000002", 200), GtidSet::new);
        assert_eq!(horizon.reached(), Some(late));
    }

    #[test]
    fn each_source_has_to_be_caught_up_with() {
        let time = Utc::now();
        let mut horizon = Horizon::default();
        horizon.ask(mark(time, 200));
        horizon.pass(&at("b.000002", 200), GtidSet::new);
        assert!(horizon.is_caught_up());
        horizon.ask(mark(time, 300));
        horizon.turn();
        // Positions of another server.
        horizon.pass(&at("b.000002", 999), GtidSet::new);
        assert!(!horizon.is_caught_up());
        assert_eq!(horizon.reached(), Some(time));
        // One that cannot tell the moment is caught up with all the same.
        horizon.ask(Mark {
            end: at("b.000001", 4),
            complete_to: None,
            executed: None,
        });
        horizon.pass(&at("b.000002", 4), GtidSet::new);
        assert!(horizon.is_caught_up());
        assert_eq!(horizon.reached(), Some(time));
    }

    #[test]
    fn a_source_that_lags_vouches_for_nothing_that_it_has_not_sent() {
        const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let set = |text: &str| -> GtidSet { format!("{UUID}:{text}").parse().expect("a set") };
        let time = Utc::now();
        let lagging = |executed: &str| Mark {
            executed: Some(set(executed)),
            ..mark(time, 200)
        };
        let mut horizon = Horizon::default();
        horizon.ask(lagging("1-7"));
        horizon.pass(&at("b.000009", 200), || set("1-6"));
        assert_eq!(horizon.reached(), None);
        // The primary goes on: the open mark stands.
        horizon.ask(lagging("1-99"));
        horizon.pass(&at("b.000001", 200), || set("1-7"));
        assert_eq!(horizon.reached(), None, "its own end is ahead");
        horizon.pass(&at("b.000009", 200), || set("1-7"));
        assert_eq!(horizon.reached(), Some(time));
        // Another primary, without the last ones: they will never come.
        let mut horizon = Horizon::default();
        horizon.ask(lagging("1-9"));
        horizon.ask(lagging("1-8"));
        horizon.pass(&at("b.000009", 200), || set("1-8"));
        assert_eq!(horizon.reached(), Some(time));
    }
}
