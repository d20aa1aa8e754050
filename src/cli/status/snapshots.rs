//! The snapshots of an archive, one by one.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::render;
use crate::archive::history::History;
use crate::archive::layout::SnapshotId;
use crate::archive::manifest::{Consistency, Manifest};
use crate::gtid::GtidSet;
use crate::mysql::schema::Filter;
use crate::mysql::topology::Role;
use crate::mysql::{HostPort, ServerVersion};

/// So many of the newest are shown unless all are asked for.
const SHOWN: usize = 5;
/// A GTID set that is longer as text is cut for people.
const SET_LENGTH: usize = 100;

/// A snapshot as `status` tells it.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotLine {
    pub(super) id: SnapshotId,
    #[serde(with = "crate::clock::micros")]
    pub(super) started: DateTime<Utc>,
    #[serde(with = "crate::clock::micros")]
    pub(super) finished: DateTime<Utc>,
    pub(super) gtid_executed: GtidSet,
    server: HostPort,
    role: Role,
    version: ServerVersion,
    tool_version: String,
    tables: u64,
    rows: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    /// How long writes and DDL were held up, and by what.
    consistency: Consistency,
    /// What it was limited to; empty means that it holds everything.
    filter: Filter,
    /// Whether it lacks a part: then it is restored only by its name.
    pub(super) partial: bool,
    warnings: Vec<String>,
    /// Whether it is a state of the newest history.
    pub(super) of_this_branch: bool,
    /// Whether the log leads from it to its end without a gap.
    pub(super) connected: bool,
    /// The last verification; null: there was none.
    #[serde(with = "crate::clock::micros_option")]
    last_verify: Option<DateTime<Utc>>,
    /// The last restore that proved it; null: there was none.
    #[serde(with = "crate::clock::micros_option")]
    last_drill: Option<DateTime<Utc>>,
}

impl SnapshotLine {
    pub(super) fn new(manifest: &Manifest, history: &History) -> Self {
        let end = history.end().unwrap_or_default();
        let needed = end.subtract(&manifest.gtid_executed);
        let of_this_branch = history.admits(&manifest.gtid_executed, manifest.started);
        Self {
            id: manifest.id.clone(),
            started: manifest.started,
            finished: manifest.finished,
            gtid_executed: manifest.gtid_executed.clone(),
            server: manifest.server.address.clone(),
            role: manifest.server.role,
            version: manifest.server.version.clone(),
            tool_version: manifest.tool_version.clone(),
            tables: manifest.tables.len() as u64,
            rows: manifest.totals.rows,
            raw_bytes: manifest.totals.raw_bytes,
            stored_bytes: manifest.totals.stored_bytes,
            consistency: manifest.consistency.clone(),
            filter: manifest.filter.clone(),
            partial: !manifest.filter.is_everything(),
            warnings: manifest.warnings.clone(),
            of_this_branch,
            connected: of_this_branch
                && !history.members.is_empty()
                && needed.is_subset(&history.held()),
            last_verify: None,
            last_drill: None,
        }
    }

    /// What can be restored from it.
    fn reach(&self, has_log: bool) -> &'static str {
        match (self.connected, self.of_this_branch, has_log) {
            (true, _, _) => "the log goes on from it",
            (false, false, _) => "of another history",
            (false, true, false) => "there is no log",
            (false, true, true) => "the log does not go on from it: only its own state",
        }
    }

    fn short(&self, now: DateTime<Utc>, has_log: bool) -> String {
        let partial = match self.partial {
            true => ", partial: restored only by its name",
            false => "",
        };
        format!(
            "{}  {:>10}  {:>10}  {:>13}  {}{partial}",
            self.id,
            render::ago(self.finished, now),
            render::bytes(self.stored_bytes),
            render::plural(self.rows, "row"),
            self.reach(has_log),
        )
    }

    fn details(&self) -> Vec<String> {
        let role = match self.role {
            Role::Primary => "the primary, ",
            Role::Secondary => "a secondary, ",
            Role::Unknown => "",
        };
        let took = (self.finished - self.started).as_seconds_f64();
        let lock = &self.consistency;
        let mut lines = vec![
            format!(
                "of {} ({role}MySQL {}), {}, {} before compression, in {}",
                self.server,
                self.version,
                render::plural(self.tables, "table"),
                render::bytes(self.raw_bytes),
                render::span(took)
            ),
            format!("holds {}", short_set(&self.gtid_executed)),
            format!(
                "writes were held up for {:.3} s ({}); {}",
                lock.global_lock_seconds,
                lock.method,
                render::ddl_guard(lock)
            ),
            format!(
                "verified {}, restored in a drill {}",
                moment_or_never(self.last_verify),
                moment_or_never(self.last_drill)
            ),
        ];
        if self.partial {
            lines.push(format!("only {}", self.filter));
        }
        let warnings = self.warnings.iter();
        lines.extend(warnings.map(|warning| format!("warning: {warning}")));
        lines
    }
}

fn moment_or_never(moment: Option<DateTime<Utc>>) -> String {
    moment.map_or_else(|| "never".to_owned(), render::moment)
}

/// A GTID set on one line, cut if it is long.
fn short_set(set: &GtidSet) -> String {
    let text = format!("{set:#}");
    if text.chars().count() <= SET_LENGTH {
        return text;
    }
    let start: String = text.chars().take(SET_LENGTH).collect();
    let count = u64::try_from(set.count()).unwrap_or(u64::MAX);
    format!("{start}... ({})", render::plural(count, "transaction"))
}

/// The lines of `status`, with all snapshots and all that is known of them if that is wished;
/// `snapshots` stand in the order of their times.
pub(super) fn describe(
    snapshots: &[SnapshotLine],
    now: DateTime<Utc>,
    has_log: bool,
    all: bool,
) -> Vec<String> {
    let Some(newest) = snapshots.last() else {
        return vec!["snapshots  none".to_owned()];
    };
    let mut lines = vec![format!(
        "snapshots  {}, the newest {}",
        render::count(snapshots.len() as u64),
        render::ago(newest.finished, now)
    )];
    let shown = if all { snapshots.len() } else { SHOWN };
    for snapshot in snapshots.iter().rev().take(shown) {
        lines.push(format!("           {}", snapshot.short(now, has_log)));
        if all {
            let details = snapshot.details().into_iter();
            lines.extend(details.map(|line| format!("             {line}")));
        }
    }
    if let older @ 1.. = snapshots.len().saturating_sub(shown) {
        lines.push(format!(
            "           and {older} older (--snapshots shows all, with what is known of each)"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sets_are_cut_and_counted() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let short: GtidSet = format!("{uuid}:1-5").parse().expect("a set");
        assert_eq!(short_set(&short), format!("{uuid}:1-5"));
        let holes: Vec<String> = (1..50).map(|n| format!("{}", 2 * n)).collect();
        let long: GtidSet = format!("{uuid}:{}", holes.join(":"))
            .parse()
            .expect("a set");
        let text = short_set(&long);
        assert!(text.ends_with("... (49 transactions)"), "{text}");
        assert!(text.starts_with(&format!("{uuid}:2:4:")), "{text}");
    }
}
