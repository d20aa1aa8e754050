//! A restore as a person reads it: the plan, how far it is, the report.

use crate::cli::render;
use crate::clock::rfc3339;
use crate::gtid::GtidSet;
use crate::restore::journal::Stage;
use crate::restore::plan::{PlannedWipe, RestorePlan};
use crate::restore::target::{Cut, Edge};
use crate::restore::wait::Waiting;
use crate::restore::{RestoreEvent, RestoreReport, Verified};

/// Tells what happens, as it happens.
pub(super) fn tell(event: &RestoreEvent, quiet: bool, progress: &render::Progress) {
    match event {
        RestoreEvent::Phase { phase } => {
            progress.clear();
            if !quiet {
                render::talk(&format!("{phase} ..."));
            }
        }
        RestoreEvent::Waiting(waiting) => {
            let line = || describe_waiting(waiting);
            progress.update(line);
            progress.each(std::time::Duration::from_secs(10), line);
        }
        RestoreEvent::Load { rows, total_rows } => progress.update(|| {
            format!(
                "{} of {} rows",
                render::count(*rows),
                render::count(*total_rows)
            )
        }),
        RestoreEvent::Replay(replay) => progress.update(|| {
            format!(
                "{} of {} transactions, {} sent",
                render::count(replay.applied),
                render::count(replay.total),
                render::bytes(replay.sent_bytes)
            )
        }),
    }
}

fn describe_waiting(waiting: &Waiting) -> String {
    let waited = render::span(waiting.seconds as f64);
    let reached = waiting.complete_to.map_or_else(
        || "the log has not begun".to_owned(),
        |to| format!("the archive is complete to {}", rfc3339(to)),
    );
    match waiting.moment {
        Some(moment) => {
            let behind = waiting.complete_to.map_or_else(String::new, |to| {
                format!(
                    ", {} before that",
                    render::span((moment - to).as_seconds_f64())
                )
            });
            format!(
                "waiting for {}: {reached}{behind} (waited {waited})",
                rfc3339(moment)
            )
        }
        None => format!(
            "waiting for {} transactions: {reached} (waited {waited})",
            waiting.missing.count()
        ),
    }
}

/// The plan.
pub(super) fn describe_plan(plan: &RestorePlan) -> String {
    let mut lines = vec![format!(
        "restore {} to {} (MySQL {})",
        plan.target, plan.server.address, plan.server.version
    )];
    lines.extend(edges(&plan.cut, &plan.skipped));
    if let Some(wipe) = &plan.wipe {
        lines.extend(describe_wipe(wipe));
    }
    if let Some(resume) = &plan.resume {
        let stage = match resume.stage {
            Stage::Wipe => "its server is not empty yet",
            Stage::Load => "its load is not over",
            Stage::Replay => "it is loaded, and its replay is not over",
            Stage::Check => "it is replayed, and not checked",
        };
        lines.push(format!(
            "  go on      with what was begun {}: {stage}",
            rfc3339(resume.started)
        ));
    }
    let rather = plan.snapshot.rather_than.as_ref();
    lines.push(format!(
        "  load       snapshot {}: {}, {}, {} stored{}",
        plan.snapshot.id,
        render::plural(plan.snapshot.tables, "table"),
        render::plural(plan.snapshot.rows, "row"),
        render::bytes(plan.snapshot.stored_bytes),
        rather.map_or_else(String::new, |newer| format!(
            " (faster by estimate than the newer {newer})"
        ))
    ));
    lines.push(format!(
        "  replay     {} from {}, {} stored, {} of binlog",
        render::plural(plan.replay.transactions, "transaction"),
        render::plural(plan.replay.segments.len() as u64, "segment"),
        render::bytes(plan.replay.stored_bytes),
        render::bytes(plan.replay.raw_bytes)
    ));
    lines.push(format!("  ends at    {:#}", plan.result));
    lines.push(describe_expected(plan));
    lines.push(format!(
        "  space      about {} of rows with their indexes, {} of binlog",
        render::bytes(plan.space.rows.saturating_mul(2)),
        render::bytes(plan.space.binlog)
    ));
    lines.extend(asides(&plan.remarks, &plan.notes));
    lines.join("\n")
}

/// The lines of a plan that say between which transactions its cut is.
pub(super) fn edges(cut: &Cut, skipped: &GtidSet) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(edge) = &cut.last_in {
        lines.push(format!("  last in    {}", describe_edge(edge)));
    }
    if let Some(edge) = &cut.first_out {
        lines.push(format!("  first out  {}", describe_edge(edge)));
    }
    if !skipped.is_empty() {
        lines.push(format!("  left out   {skipped:#}"));
    }
    lines
}

/// The lines at the end of a plan.
pub(super) fn asides(remarks: &[String], notes: &[String]) -> Vec<String> {
    let remarks = remarks
        .iter()
        .map(|remark| format!("  remark     {remark}"));
    let notes = notes.iter().map(|note| format!("  note       {note}"));
    remarks.chain(notes).collect()
}

fn describe_edge(edge: &Edge) -> String {
    // Members of a group take the time where a transaction began a moment before.
    let original = edge
        .original_time
        .filter(|original| (edge.time - *original).num_milliseconds().abs() >= 1000)
        .map_or_else(String::new, |original| {
            format!("  (begun on another server at {})", rfc3339(original))
        });
    format!(
        "{}  {}  {}{original}",
        rfc3339(edge.time),
        edge.gtid,
        edge.what
    )
}

fn describe_wipe(wipe: &PlannedWipe) -> Vec<String> {
    let mut lines = vec!["  wipe       all of this is removed from it, for ever:".to_owned()];
    for schema in &wipe.schemas {
        lines.push(format!(
            "             schema {} ({}, about {})",
            schema.schema,
            render::plural(schema.tables, "table"),
            render::bytes(schema.bytes)
        ));
    }
    if !wipe.accounts.is_empty() {
        lines.push(format!(
            "             {}: {}",
            render::plural(wipe.accounts.len() as u64, "account"),
            wipe.accounts.join(", ")
        ));
    }
    if !wipe.channels.is_empty() {
        lines.push(format!(
            "             replication channels: {}",
            wipe.channels.join(", ")
        ));
    }
    if wipe.unfinished {
        lines.push("             what an earlier restore has left".to_owned());
    }
    lines.push(format!(
        "             its binlogs with gtid_executed {}",
        match wipe.gtid_executed.is_empty() {
            true => "(empty)".to_owned(),
            false => format!("{:#}", wipe.gtid_executed),
        }
    ));
    lines
}

fn describe_expected(plan: &RestorePlan) -> String {
    let phases: Vec<String> = plan
        .expected
        .phases
        .iter()
        .map(|phase| format!("{} {}", phase.phase, render::span(phase.seconds)))
        .collect();
    let by = match plan.expected.restores {
        0 => "by documented rates".to_owned(),
        count => format!(
            "measured by {}",
            render::plural(count as u64, "earlier restore")
        ),
    };
    format!(
        "  expected   about {} ({}; {by})",
        render::span(plan.expected.seconds),
        phases.join(", ")
    )
}

/// The report.
pub(super) fn describe_report(report: &RestoreReport) -> String {
    let mut lines = vec![
        format!(
            "restored {} on {}: {}, {} loaded, {} replayed",
            report.target,
            report.server,
            render::plural(report.tables, "table"),
            render::plural(report.rows, "row"),
            render::plural(report.transactions, "transaction"),
        ),
        format!(
            "gtid_executed is what was planned: {:#}",
            report.gtid_executed
        ),
        render::phases(&report.phases),
    ];
    lines.extend(behind(
        report.verified.as_ref(),
        report.kept.as_deref(),
        &report.notes,
    ));
    lines.push(if report.open {
        "the server takes writes".to_owned()
    } else {
        format!(
            "the server is read-only; open it with: {};",
            report.open_with.join("; ")
        )
    });
    lines.join("\n")
}

/// The lines of a report that stand behind its phases.
pub(super) fn behind(
    verified: Option<&Verified>,
    kept: Option<&str>,
    notes: &[String],
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(verified) = verified {
        lines.push(format!(
            "the rows of {} are the snapshot's ({}); {} were changed by the replay and not compared",
            render::plural(verified.equal, "table"),
            render::plural(verified.rows, "row"),
            render::count(verified.changed)
        ));
    }
    if let Some(kept) = kept {
        lines.push(format!("kept in the archive as {kept}"));
    }
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    lines
}
