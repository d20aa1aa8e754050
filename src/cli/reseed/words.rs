//! A reseed as a person reads it: the plan, the runbook, how far it is, the report.

use std::time::Duration;

use crate::cli::render;
use crate::cli::restore::tell_restore;
use crate::mysql::server_url::HostPort;
use crate::reseed::plan::{Fill, ReseedPlan};
use crate::reseed::{ReseedEvent, ReseedReport};

/// Tells what happens, as it happens.
pub(super) fn tell(event: &ReseedEvent, quiet: bool, progress: &render::Progress) {
    match event {
        ReseedEvent::Step {
            number,
            of,
            server,
            what,
        } => {
            progress.clear();
            if !quiet {
                let server = server.as_deref().unwrap_or("the archive");
                render::talk(&format!("[{number}/{of}] {server}: {what}"));
            }
        }
        ReseedEvent::Clone {
            stage,
            bytes,
            total_bytes,
        } => progress.update(|| {
            format!(
                "{stage}: {} of about {}",
                render::bytes(*bytes),
                render::bytes(*total_bytes)
            )
        }),
        // Somebody must do something: this is told however quiet it shall be.
        ReseedEvent::Restart { server } => {
            progress.clear();
            render::talk(&format!(
                "{server} ended after its clone and nobody starts it again: start it now"
            ));
        }
        ReseedEvent::Joining {
            server,
            state,
            missing,
        } => {
            let line = || format!("{server} is {state}, {missing} transactions behind");
            progress.update(line);
            progress.each(Duration::from_secs(30), line);
        }
        ReseedEvent::Load(event) => tell_restore(event, quiet, progress),
    }
}

/// What will be, and what will be lost.
pub(super) fn describe_plan(plan: &ReseedPlan) -> String {
    let branch = &plan.branch;
    let goes_on = if branch.recorded {
        ", begun by an earlier run"
    } else {
        ""
    };
    let mut lines = vec![
        format!(
            "reseed the group {} from {}",
            plan.group, plan.primary.address
        ),
        format!(
            "  primary    {} (MySQL {}), at {:#}",
            plan.primary.address, plan.primary.version, plan.primary.gtid_executed
        ),
    ];
    for member in &plan.members {
        lines.push(format!(
            "  member     {} (MySQL {}): {}: {}",
            member.address,
            member.version,
            filled(member.fill),
            member.why
        ));
        if !member.lost.is_empty() {
            lines.push(format!(
                "  lost       {:#} of {}",
                member.lost, member.address
            ));
        }
    }
    lines.push(format!(
        "  history    branch {} of the archive, from branch {}{goes_on}",
        branch.number.0, branch.parent.0
    ));
    if branch.lost.is_empty() {
        lines.push(format!(
            "  behind     nothing: all of branch {} is in it",
            branch.parent.0
        ));
    } else {
        lines.push(format!(
            "  behind     {} transactions stay in branch {}: quillback log --branch {} --gtid '{:#}'",
            branch.lost.count(),
            branch.parent.0,
            branch.parent.0,
            branch.lost
        ));
    }
    for remark in &plan.remarks {
        lines.push(format!("  remark     {remark}"));
    }
    for note in &plan.notes {
        lines.push(format!("  note       {note}"));
    }
    lines.join("\n")
}

const fn filled(fill: Fill) -> &'static str {
    match fill {
        Fill::Joined => "joined",
        Fill::Incremental => "keeps its data and catches up",
        Fill::Clone => "EMPTIED, and made a clone",
        Fill::Archive => "EMPTIED, and filled from the archive",
    }
}

/// The plan as a person could follow it by hand.
pub(super) fn describe_steps(plan: &ReseedPlan) -> String {
    let mut lines = Vec::new();
    for (at, step) in plan.steps.iter().enumerate() {
        let server = step
            .server
            .as_ref()
            .map_or_else(|| "the archive".to_owned(), HostPort::to_string);
        lines.push(format!("{}. {server}: {}", at + 1, step.what));
        for command in &step.commands {
            let end = if command.starts_with('#') { "" } else { ";" };
            lines.push(format!("     {command}{end}"));
        }
    }
    lines.join("\n")
}

/// What was done.
pub(super) fn describe_report(report: &ReseedReport) -> String {
    let mut lines = vec![format!(
        "the group {} runs, with {}",
        report.group,
        render::plural(report.members.len() as u64, "member")
    )];
    for member in &report.members {
        let how = match member.fill {
            None => "restored",
            Some(Fill::Joined) => "joined before",
            Some(Fill::Incremental) => "caught up",
            Some(Fill::Clone) => "cloned",
            Some(Fill::Archive) => "filled from the archive",
        };
        lines.push(format!(
            "  {:<9}  {}, {how}",
            member.role.to_lowercase(),
            member.server
        ));
        if !member.lost.is_empty() {
            lines.push(format!(
                "  lost       {:#} of {}",
                member.lost, member.server
            ));
        }
    }
    lines.push(format!(
        "  history    branch {} from branch {}; quillback stream goes on with it by itself",
        report.branch.0, report.parent.0
    ));
    lines.push(format!("  ends at    {:#}", report.gtid_executed));
    if let Some(kept) = &report.kept {
        lines.push(format!("  report     {kept}"));
    }
    for note in &report.notes {
        lines.push(format!("  note       {note}"));
    }
    lines.push(render::phases(&report.phases));
    lines.join("\n")
}
