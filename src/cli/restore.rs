//! `quillback restore`: to a moment or a transaction, on an empty server.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::parse_moment;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::gtid::{Gtid, GtidSet};
use crate::restore::plan::RestorePlan;
use crate::restore::replay::Advertise;
use crate::restore::target::Target;
use crate::restore::{self, RestoreEvent, RestoreOptions, RestoreReport, RestoreRequest};

/// The options of `restore`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true)))]
pub(super) struct RestoreArguments {
    /// The state at this moment (RFC 3339, 2026-11-20T14:30:00Z), or "latest".
    #[arg(long, group = "target", value_name = "WHEN")]
    until: Option<String>,
    /// Up to and including these transactions; a whole gtid_executed is restored exactly.
    #[arg(long, group = "target", value_name = "SET")]
    until_gtid: Option<GtidSet>,
    /// All of the archive's order before this transaction.
    #[arg(long, group = "target", value_name = "GTID")]
    before_gtid: Option<Gtid>,
    /// The empty server to restore to, mysql://user@host:port (password: QUILLBACK_TO_PASSWORD,
    /// else QUILLBACK_PASSWORD).
    #[arg(
        long,
        env = "QUILLBACK_TO",
        hide_env_values = true,
        value_name = "SERVER"
    )]
    to: String,
    /// Leave this transaction out (may be repeated).
    #[arg(long, value_name = "GTID")]
    skip_gtid: Vec<Gtid>,
    /// Start from this snapshot instead of the newest one before the target.
    #[arg(long, value_name = "ID")]
    snapshot: Option<SnapshotId>,
    /// The history to restore from, if not the newest.
    #[arg(long, value_name = "N")]
    branch: Option<u32>,
    /// Connections that load, and appliers that replay, at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    threads: u32,
    /// Where to listen while the server replays [default: a free port].
    #[arg(long, value_name = "ADDR:PORT")]
    serve_listen: Option<SocketAddr>,
    /// The address under which the server reaches us [default: the one that we reach it from].
    #[arg(long, value_name = "HOST[:PORT]")]
    serve_advertise: Option<Advertise>,
    /// Let the restored server take writes at once instead of leaving it read-only.
    #[arg(long)]
    open: bool,
    /// Show the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl RestoreArguments {
    fn target(&self) -> anyhow::Result<Target> {
        if let Some(gtid) = &self.before_gtid {
            return Ok(Target::BeforeGtid { gtid: gtid.clone() });
        }
        if let Some(set) = &self.until_gtid {
            if set.is_empty() {
                return Err(UsageError::new(
                    "the GTID set of --until-gtid is empty",
                    "--until-gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-42",
                )
                .into());
            }
            return Ok(Target::UntilGtid { set: set.clone() });
        }
        match self.until.as_deref() {
            None | Some("latest") => Ok(Target::Latest),
            Some(text) => Ok(Target::Until {
                moment: parse_moment(text)
                    .map_err(|error| UsageError::new(error, "--until 2026-11-20T14:30:00Z"))?,
            }),
        }
    }
}

pub(super) async fn run(context: &Context, arguments: RestoreArguments) -> anyhow::Result<Done> {
    let target = arguments.target()?;
    let server = context.server(&arguments.to, "QUILLBACK_TO_PASSWORD")?;
    let repository = context.repository().await?;
    let mut skip = GtidSet::new();
    for gtid in &arguments.skip_gtid {
        skip.insert(gtid);
    }
    let request = RestoreRequest {
        snapshot: arguments.snapshot,
        branch: arguments.branch.map(BranchNumber),
        skip,
        ..RestoreRequest::new(target, server)
    };
    let prepared = restore::prepare(repository, request).await?;
    if arguments.dry_run {
        if context.json {
            render::data(&json!({ "plan": prepared.plan }));
        } else {
            render::say(&describe_plan(&prepared.plan));
            render::say("nothing was changed (--dry-run)");
        }
        return Ok(Done::Fine);
    }
    context.talk(&describe_plan(&prepared.plan));
    let cancel = context.cancel_on_signal()?;
    let progress = Arc::new(context.progress());
    let observer: restore::Observer = {
        let progress = Arc::clone(&progress);
        let quiet = context.quiet;
        Arc::new(move |event| tell(&event, quiet, &progress))
    };
    let options = RestoreOptions {
        threads: arguments.threads,
        listen: arguments.serve_listen,
        advertise: arguments.serve_advertise,
        open: arguments.open,
        fail_points: super::context::fail_points()?,
        ..RestoreOptions::default()
    };
    let outcome = restore::run(prepared, options, observer, cancel).await;
    progress.clear();
    let report = outcome?;
    if context.json {
        render::data(&report);
    } else {
        render::say(&describe_report(&report));
    }
    Ok(if report.notes.is_empty() {
        Done::Fine
    } else {
        Done::With(crate::error::Class::Warnings)
    })
}

fn tell(event: &RestoreEvent, quiet: bool, progress: &render::Progress) {
    match event {
        RestoreEvent::Phase { phase } => {
            progress.clear();
            if !quiet {
                render::talk(&format!("{phase} ..."));
            }
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

/// The plan as a person reads it.
fn describe_plan(plan: &RestorePlan) -> String {
    let mut lines = vec![format!(
        "restore {} to {} (MySQL {})",
        plan.target, plan.server.address, plan.server.version
    )];
    if let Some(edge) = &plan.cut.last_in {
        lines.push(format!(
            "  last in    {}  {}  {}",
            crate::clock::rfc3339(edge.time),
            edge.gtid,
            edge.what
        ));
    }
    if let Some(edge) = &plan.cut.first_out {
        lines.push(format!(
            "  first out  {}  {}  {}",
            crate::clock::rfc3339(edge.time),
            edge.gtid,
            edge.what
        ));
    }
    if !plan.skipped.is_empty() {
        lines.push(format!("  left out   {:#}", plan.skipped));
    }
    lines.push(format!(
        "  load       snapshot {}: {}, {}, {} stored",
        plan.snapshot.id,
        render::plural(plan.snapshot.tables, "table"),
        render::plural(plan.snapshot.rows, "row"),
        render::bytes(plan.snapshot.stored_bytes)
    ));
    lines.push(format!(
        "  replay     {} from {}, {} stored, {} of binlog",
        render::plural(plan.replay.transactions, "transaction"),
        render::plural(plan.replay.segments.len() as u64, "segment"),
        render::bytes(plan.replay.stored_bytes),
        render::bytes(plan.replay.raw_bytes)
    ));
    lines.push(format!("  ends at    {:#}", plan.result));
    for note in &plan.notes {
        lines.push(format!("  note       {note}"));
    }
    lines.join("\n")
}

/// The report as a person reads it.
fn describe_report(report: &RestoreReport) -> String {
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
    for note in &report.notes {
        lines.push(format!("note: {note}"));
    }
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
