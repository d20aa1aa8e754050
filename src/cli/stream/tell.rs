//! What a person is told while a stream runs.
//!
//! A change is a line of its own on stderr. Between changes a terminal has one line that is
//! written over again, and what is no terminal gets a line a minute.

use std::sync::Arc;
use std::time::Duration;

use super::super::context::Context;
use super::super::render::{self, Progress};
use crate::stream::StreamEvent;
use crate::stream::health::{Doing, Health, Summary};

/// How often it is told how the stream stands where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// Tells events as they come.
#[derive(Debug)]
pub(super) struct Teller {
    json: bool,
    quiet: bool,
    progress: Progress,
    health: Arc<Health>,
}

impl Teller {
    pub(super) fn new(context: &Context, health: Arc<Health>) -> Self {
        Self {
            json: context.json,
            quiet: context.quiet,
            progress: context.progress(),
            health,
        }
    }

    /// Tells an event that `health` knows already.
    pub(super) fn tell(&self, event: &StreamEvent) {
        if self.json && !matches!(event, StreamEvent::Alive) {
            render::data(event);
        }
        if self.quiet && !matches!(event, StreamEvent::Warning { .. }) {
            return;
        }
        match words(event) {
            Some(text) => {
                self.progress.clear();
                render::talk(&text);
            }
            None => {
                let line = || line(&self.health.summary());
                self.progress.update(line);
                self.progress.each(LINE_INTERVAL, line);
            }
        }
    }

    /// Takes the line of progress away.
    pub(super) fn finish(&self) {
        self.progress.clear();
    }
}

/// How the stream stands, on one line.
pub(super) fn line(summary: &Summary) -> String {
    let mut parts = match &summary.doing {
        Doing::Starting => return "starting: looking at the servers and the archive".to_owned(),
        Doing::StandingBy { epoch, host } => {
            return format!("standing by: epoch {epoch} on {host} has the archive");
        }
        Doing::Claimed => vec!["has the archive and follows nobody yet".to_owned()],
        Doing::Following { server, .. } => vec![server.clone()],
        Doing::Interrupted { .. } => vec!["no source".to_owned()],
        Doing::Stopping => vec!["stopping".to_owned()],
    };
    if let Some(seconds) = summary.store_failing_seconds {
        parts.push(format!("THE STORE FAILS for {}", render::span(seconds)));
    }
    if summary.spooled_bytes > 0 {
        let spooled = render::bytes(summary.spooled_bytes);
        parts.push(format!("{spooled} in the spool"));
    }
    parts.push(format!("{} tx/s", rate(summary.transactions_per_second)));
    parts.push(format!("{:.1} MB/s", summary.bytes_per_second / 1e6));
    if let Some(lag) = summary.lag_seconds {
        parts.push(format!("lag {}", render::span(lag)));
    }
    parts.push(format!(
        "{} ({})",
        render::plural(summary.segments, "segment"),
        render::bytes(summary.stored_bytes)
    ));
    if let Some(to) = summary.complete_to {
        parts.push(format!("complete to {}", render::moment(to)));
    }
    parts.join(", ")
}

/// A rate with as many digits as it is worth.
fn rate(per_second: f64) -> String {
    if per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        render::count(per_second.round() as u64)
    }
}

/// A change in words; none if it shows in the line of progress only.
fn words(event: &StreamEvent) -> Option<String> {
    Some(match event {
        StreamEvent::Warning { message } => {
            format!("warning: {message}")
        }
        StreamEvent::Claimed {
            epoch,
            start,
            accepted_gap,
            ..
        } => {
            let lost = match accepted_gap.is_empty() {
                true => String::new(),
                false => format!("; recorded as lost: {accepted_gap:#}"),
            };
            let from = match start.is_empty() {
                true => "before the first transaction".to_owned(),
                false => format!("{start:#}"),
            };
            format!("epoch {epoch} is ours, going on from {from}{lost}")
        }
        StreamEvent::Standby {
            epoch,
            host,
            process,
        } => format!("standing by: process {process} on {host} has the archive (epoch {epoch})"),
        StreamEvent::Recovered {
            folder,
            transactions,
            complete,
        } => format!(
            "archived {} that an earlier run had left in {}{}",
            render::plural(*transactions, "transaction"),
            folder.display(),
            if *complete {
                ""
            } else {
                "; what does not go on from the archive's end stays there"
            }
        ),
        StreamEvent::StoreFailing {
            reason,
            retry_seconds,
            waiting,
            spooled_bytes,
        } => format!(
            "the store fails: {reason}; {} wait, {} of them on disk; trying again in {}",
            render::plural(*waiting as u64, "segment"),
            render::bytes(*spooled_bytes),
            render::span(*retry_seconds)
        ),
        StreamEvent::Compacted {
            replaced,
            made,
            segments,
        } => format!(
            "compacted {} into {made}; the log has {segments}",
            render::plural(*replaced, "segment"),
        ),
        StreamEvent::Alive
        | StreamEvent::Segment { .. }
        | StreamEvent::Spooled { .. }
        | StreamEvent::PurgeHeadroom { .. } => return None,
        StreamEvent::Following {
            server, version, ..
        } => format!("following {server} (MySQL {version})"),
        StreamEvent::Interrupted {
            reason,
            retry_seconds,
        } => format!(
            "interrupted: {reason}; trying again in {}",
            render::span(*retry_seconds)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_trouble_first() {
        let mut summary = Summary {
            doing: Doing::Following {
                server: "db1:3306".to_owned(),
                version: "8.4.6".to_owned(),
            },
            transactions: 5000,
            segments: 1234,
            stored_bytes: 5 << 20,
            transactions_per_second: 512.4,
            bytes_per_second: 3_140_000.0,
            lag_seconds: Some(1.24),
            complete_to: Some(chrono::DateTime::UNIX_EPOCH),
            spooled_bytes: 0,
            store_failing_seconds: None,
        };
        assert_eq!(
            line(&summary),
            "db1:3306, 512 tx/s, 3.1 MB/s, lag 1.2 s, 1,234 segments (5.0 MiB), complete to \
             1970-01-01 00:00:00Z"
        );
        summary.spooled_bytes = 1 << 30;
        summary.store_failing_seconds = Some(90.0);
        summary.transactions_per_second = 0.25;
        assert_eq!(
            line(&summary),
            "db1:3306, THE STORE FAILS for 1m 30s, 1.0 GiB in the spool, 0.2 tx/s, 3.1 MB/s, \
             lag 1.2 s, 1,234 segments (5.0 MiB), complete to 1970-01-01 00:00:00Z"
        );
    }
}
