//! Whether the stream catches up before its source purges.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::cutter::SourcePosition;
use super::report::StreamEvent;
use crate::mysql::purge::{Headroom, PurgeFacts};

/// The warning is not said again sooner, unless it has become twice as pressing.
const REPEAT: Duration = Duration::from_secs(600);
/// Less than this part of the full time is too little while something waits.
const SMALL_PART: f64 = 0.2;
/// The time to catch up must fit in so many times.
const MARGIN: f64 = 2.0;

/// Looks at the source's purge from time to time.
#[derive(Debug, Default)]
pub(super) struct PurgeWatch {
    /// When it was looked at, and how much was waiting then.
    last: Option<(Instant, u64)>,
    warned: Option<(Instant, f64)>,
}

impl PurgeWatch {
    /// Takes the source's word. `archived` is the commit time of the last transaction that is
    /// safe, `unsafe_waiting` whether something was received that is not yet. Returns the event,
    /// and a warning if one is due.
    pub(super) fn look(
        &mut self,
        facts: &PurgeFacts,
        position: &SourcePosition,
        archived: Option<DateTime<Utc>>,
        unsafe_waiting: bool,
    ) -> (StreamEvent, Option<String>) {
        let now = Instant::now();
        // A file that is not there any more was the first: all that is there waits.
        let waiting = facts
            .waiting_bytes(&position.file, position.position)
            .unwrap_or_else(|| facts.stored_bytes());
        // What was written while we looked away counts against the speed, as it should.
        let speed = self.last.and_then(|(at, before)| {
            let seconds = (now - at).as_secs_f64();
            (before > waiting && seconds > 0.0).then(|| (before - waiting) as f64 / seconds)
        });
        self.last = Some((now, waiting));
        let behind = waiting > 0 || unsafe_waiting;
        let headroom = facts.headroom(facts.time, archived, behind);
        let catch_up = speed
            .filter(|_| waiting > 0)
            .map(|speed| waiting as f64 / speed);
        let event = StreamEvent::PurgeHeadroom {
            seconds: match headroom {
                Headroom::Unlimited => None,
                Headroom::AtLeast(_) => Some(headroom.seconds()),
            },
            waiting_bytes: waiting,
            catch_up_seconds: catch_up,
        };
        let full = facts.expire_seconds.map_or(f64::INFINITY, |s| s as f64);
        let pressing = behind
            && (headroom.seconds() < full * SMALL_PART
                || catch_up.is_some_and(|needed| headroom.seconds() < needed * MARGIN));
        let warning = (pressing && self.may_warn(now, headroom.seconds())).then(|| {
            let needed = catch_up.map_or_else(String::new, |needed| {
                format!(", and catching up takes about {needed:.0} s")
            });
            format!(
                "the source may purge what is not archived in {:.0} s{needed}; raise \
                 binlog_expire_logs_seconds until the stream has caught up",
                headroom.seconds()
            )
        });
        (event, warning)
    }

    fn may_warn(&mut self, now: Instant, headroom: f64) -> bool {
        let due = self
            .warned
            .is_none_or(|(at, before)| now - at >= REPEAT || headroom < before / 2.0);
        if due {
            self.warned = Some((now, headroom));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::purge::BinlogFile;
    use chrono::TimeDelta;

    fn facts(expire: Option<u64>, bytes: u64) -> PurgeFacts {
        PurgeFacts {
            time: DateTime::UNIX_EPOCH + TimeDelta::days(30),
            expire_seconds: expire,
            binlog_files: vec![BinlogFile {
                name: "binlog.000001".to_owned(),
                bytes,
            }],
            space_limit: None,
            max_binlog_size: 1 << 30,
        }
    }

    fn at(position: u64) -> SourcePosition {
        SourcePosition {
            file: "binlog.000001".to_owned(),
            position,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_warns_when_the_purge_comes_nearer_than_the_end() {
        let mut watch = PurgeWatch::default();
        let ago = |facts: &PurgeFacts, seconds| Some(facts.time - TimeDelta::seconds(seconds));
        // Nothing waits: the full time, no warning.
        let calm = facts(Some(1_000), 500);
        let (event, warning) = watch.look(&calm, &at(500), ago(&calm, 999), false);
        assert!(matches!(
            event,
            StreamEvent::PurgeHeadroom { seconds: Some(s), waiting_bytes: 0, catch_up_seconds: None } if s == 1_000.0
        ));
        assert_eq!(warning, None);
        // Half of the time is left, and the stream makes 10 bytes a second of 10,000.
        let busy = facts(Some(1_000), 10_500);
        let (_, warning) = watch.look(&busy, &at(500), ago(&busy, 500), false);
        assert_eq!(warning, None, "nobody knows its speed yet");
        tokio::time::advance(Duration::from_secs(10)).await;
        let (event, warning) = watch.look(&busy, &at(600), ago(&busy, 500), false);
        assert!(matches!(
            event,
            StreamEvent::PurgeHeadroom { catch_up_seconds: Some(s), .. } if (s - 990.0).abs() < 0.1
        ));
        assert!(
            warning
                .is_some_and(|text| text.contains("in 500 s, and catching up takes about 990 s"))
        );
        // Said once, and again when it is twice as pressing.
        let (_, warning) = watch.look(&busy, &at(600), ago(&busy, 600), false);
        assert_eq!(warning, None);
        let (_, warning) = watch.look(&busy, &at(600), ago(&busy, 850), false);
        assert!(warning.is_some());
        // A source that purges nothing never warns.
        let (event, warning) = PurgeWatch::default().look(&facts(None, 900), &at(5), None, true);
        assert!(matches!(
            event,
            StreamEvent::PurgeHeadroom { seconds: None, .. }
        ));
        assert_eq!(warning, None);
    }
}
