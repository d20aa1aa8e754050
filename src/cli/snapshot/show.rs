//! A snapshot's plan, progress and report as a person reads them.

use super::super::render;
use crate::mysql::topology::Role;
use crate::snapshot::chunks::PlannedTable;
use crate::snapshot::expect::Expected;
use crate::snapshot::progress::{Stage, Standing};
use crate::snapshot::{LockMode, ResumePlan, ResumeReport, SnapshotPlan, SnapshotReport};

/// The largest tables are shown, and of the others their sum.
const TABLES_SHOWN: usize = 10;
/// Tables that a line of progress names.
const TABLES_NAMED: usize = 3;

/// The plan before a run.
pub(super) fn plan(plan: &SnapshotPlan) -> String {
    let mut lines = head(plan);
    lines.extend(warnings(&plan.warnings));
    lines.join("\n")
}

/// The plan with all that a person may want to know before a run.
pub(super) fn dry_run(plan: &SnapshotPlan, expected: Option<&Expected>, all: bool) -> String {
    let mut lines = head(plan);
    lines.push(entry("time", &time(expected)));
    lines.extend(privileges(plan, all));
    lines.extend(warnings(&plan.warnings));
    lines.extend(tables(&plan.tables, all));
    lines.join("\n")
}

fn entry(label: &str, text: &str) -> String {
    format!("  {label:<10} {text}").trim_end().to_owned()
}

fn head(plan: &SnapshotPlan) -> Vec<String> {
    let role = match plan.role {
        Role::Primary => "the primary, ",
        Role::Secondary => "a secondary, ",
        Role::Unknown => "",
    };
    let mut lines = vec![format!(
        "snapshot {} of {} ({role}MySQL {})",
        plan.id, plan.server, plan.version
    )];
    let mut label = "server";
    for reason in &plan.reasons {
        lines.push(entry(std::mem::take(&mut label), reason));
    }
    lines.push(entry(
        "read",
        &format!(
            "{}, about {} and {}, by {}",
            render::plural(plan.tables.len() as u64, "table"),
            render::plural(plan.estimated_rows, "row"),
            render::bytes(plan.estimated_bytes),
            render::plural(plan.threads as u64, "connection"),
        ),
    ));
    if !plan.filter.is_everything() {
        lines.push(entry("only", &plan.filter.to_string()));
        lines.push(entry(
            "",
            "so it is partial: restored only by its name (restore --snapshot)",
        ));
    }
    let views = match plan.lock {
        LockMode::Auto => {
            "writes wait only if no quiet moment is found, for less than a second as a rule"
        }
        LockMode::None => "writes never wait; without a quiet moment the snapshot fails",
        LockMode::Flush => "writes wait for less than a second as a rule",
    };
    lines.push(entry("locks", views));
    let ddl = match (plan.backup_lock, plan.follow_binlog) {
        (true, _) => {
            let replicated = match plan.role {
                Role::Primary => "",
                Role::Secondary | Role::Unknown => ", also what comes by replication",
            };
            format!(
                "DDL waits for up to {} (--ddl-wait){replicated}",
                render::span(plan.ddl_wait_seconds as f64)
            )
        }
        (false, true) => {
            "DDL is not held up; it is seen in the binlog, and the snapshot fails".to_owned()
        }
        (false, false) => {
            "DDL is not held up; if there is any, the snapshot fails at its end".to_owned()
        }
    };
    lines.push(entry("", &ddl));
    match &plan.resume {
        None => {}
        Some(ResumePlan::From(id)) => lines.push(entry(
            "resume",
            &format!("goes on with {id} if its state can be seen again"),
        )),
        Some(ResumePlan::Anew(why)) => {
            lines.push(entry("resume", &format!("starts anew: {why}")));
        }
    }
    lines
}

fn warnings(warnings: &[String]) -> impl Iterator<Item = String> {
    warnings.iter().map(|warning| entry("warning", warning))
}

fn time(expected: Option<&Expected>) -> String {
    let Some(expected) = expected else {
        return "unknown: the archive has no snapshot to learn it from".to_owned();
    };
    let server = match expected.same_server {
        true => "",
        false => ", of another server",
    };
    format!(
        "about {} for {} of rows, {} stored; learnt from snapshot {} ({}/s, {}{server})",
        render::span(expected.seconds),
        render::bytes(expected.raw_bytes),
        render::bytes(expected.stored_bytes),
        expected.learnt_from,
        render::bytes(expected.bytes_per_second as u64),
        render::plural(expected.threads as u64, "connection"),
    )
}

fn privileges(plan: &SnapshotPlan, all: bool) -> Vec<String> {
    let missing: Vec<&str> = plan
        .privileges
        .iter()
        .filter(|privilege| !privilege.granted)
        .map(|privilege| privilege.privilege.as_str())
        .collect();
    let mut lines = vec![entry(
        "privileges",
        &match missing.as_slice() {
            [] => "all that are needed or of use".to_owned(),
            missing => format!("all that are needed; not there: {}", missing.join(", ")),
        },
    )];
    if all {
        lines.extend(plan.privileges.iter().map(|privilege| {
            let has = if privilege.granted { "has" } else { "LACKS" };
            let need = if privilege.required {
                "required"
            } else {
                "optional"
            };
            let name = &privilege.privilege;
            entry(
                "",
                &format!("{has:<6} {name:<20} {need}: {}", privilege.why),
            )
        }));
    }
    lines
}

fn tables(tables: &[PlannedTable], all: bool) -> Vec<String> {
    // One that is left over is shown rather than counted.
    let shown = match all || tables.len() <= TABLES_SHOWN + 1 {
        true => tables.len(),
        false => TABLES_SHOWN,
    };
    let (largest, others) = tables.split_at(shown);
    let widest = largest
        .iter()
        .map(|table| name(table).chars().count())
        .max();
    let width = widest.unwrap_or_default().min(60);
    let mut label = "tables";
    let mut lines: Vec<String> = largest
        .iter()
        .map(|table| {
            let text = format!(
                "{:<width$}  {:>10}  about {:>13}  {}",
                name(table),
                render::bytes(table.estimated_bytes),
                render::plural(table.estimated_rows, "row"),
                render::plural(table.chunks, "chunk"),
            );
            entry(std::mem::take(&mut label), &text)
        })
        .collect();
    if !others.is_empty() {
        let bytes = others.iter().map(|table| table.estimated_bytes).sum();
        let text = format!(
            "and {} more, {} (-v shows them)",
            render::count(others.len() as u64),
            render::bytes(bytes)
        );
        lines.push(entry("", &text));
    }
    lines
}

/// A table's name on one line, whatever is in it.
fn name(table: &PlannedTable) -> String {
    on_one_line(&format!("{}.{}", table.database, table.name))
}

fn on_one_line(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// How far a run is, on one line.
pub(super) fn standing(standing: &Standing) -> String {
    match standing.stage {
        Stage::Schema => return "reading the schema".to_owned(),
        Stage::View => return "waiting until all connections see one state".to_owned(),
        Stage::End => return "comparing the schema with that of the beginning".to_owned(),
        Stage::Rows => {}
    }
    let mut parts = Vec::new();
    parts.extend(
        standing
            .done
            .map(|done| format!("about {}", render::percent(done))),
    );
    parts.push(render::plural(standing.rows, "row"));
    let rate = standing.bytes_per_second.map_or_else(String::new, |rate| {
        format!(" at {}/s", render::bytes(rate as u64))
    });
    parts.push(format!("{} read{rate}", render::bytes(standing.raw_bytes)));
    parts.push(format!("{} stored", render::bytes(standing.stored_bytes)));
    parts.extend(
        standing
            .seconds_left
            .map(|seconds| format!("about {} left", render::span(seconds))),
    );
    let mut text = parts.join(", ");
    let named: Vec<String> = standing
        .reading
        .iter()
        .take(TABLES_NAMED)
        .map(|name| on_one_line(name))
        .collect();
    if !named.is_empty() {
        text.push_str(": ");
        text.push_str(&named.join(", "));
    }
    if let more @ 1.. = standing.reading.len().saturating_sub(TABLES_NAMED) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// The report.
pub(super) fn report(report: &SnapshotReport) -> String {
    let totals = &report.totals;
    let mut lines = vec![
        format!(
            "snapshot {} is in the archive: {}, {}, {} read, {} stored",
            report.id,
            render::plural(totals.tables, "table"),
            render::plural(totals.rows, "row"),
            render::bytes(totals.raw_bytes),
            render::bytes(totals.stored_bytes),
        ),
        format!("it holds {:#}", report.gtid_executed),
        format!(
            "writes were held up for {:.3} s; {}",
            report.consistency.global_lock_seconds,
            render::ddl_guard(&report.consistency)
        ),
        render::phases(&report.phases),
    ];
    match &report.resume {
        None => {}
        Some(ResumeReport::GoneOn {
            tables,
            stored_bytes,
        }) => lines.push(format!(
            "{} ({}) {} there already",
            render::plural(*tables, "table"),
            render::bytes(*stored_bytes),
            if *tables == 1 { "was" } else { "were" }
        )),
        Some(ResumeReport::Anew(why)) => lines.push(format!("it was started anew: {why}")),
    }
    for warning in &report.warnings {
        lines.push(format!("warning: {warning}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_what_is_known() {
        let mut now = Standing {
            stage: Stage::Rows,
            rows: 1_234,
            raw_bytes: 3 << 20,
            stored_bytes: 1 << 20,
            bytes_per_second: None,
            done: Some(0.004),
            seconds_left: None,
            reading: vec!["d.t".to_owned()],
        };
        assert_eq!(
            standing(&now),
            "about 0 %, 1,234 rows, 3.0 MiB read, 1.0 MiB stored: d.t"
        );
        now.bytes_per_second = Some(1_572_864.0);
        now.done = Some(0.43);
        now.seconds_left = Some(90.0);
        now.reading = ["a.1", "a.2", "a\n3", "a.4", "a.5"]
            .map(String::from)
            .to_vec();
        assert_eq!(
            standing(&now),
            "about 43 %, 1,234 rows, 3.0 MiB read at 1.5 MiB/s, 1.0 MiB stored, \
             about 1m 30s left: a.1, a.2, a?3 and 2 more"
        );
        now.stage = Stage::View;
        assert!(standing(&now).contains("one state"));
    }
}
