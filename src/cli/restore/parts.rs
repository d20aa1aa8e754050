//! `quillback restore --tables`: some tables alone, beside whatever is on the server.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::RestoreArguments;
use super::words::{asides, behind, edges};
use crate::archive::repository::Repository;
use crate::cli::context::Context;
use crate::cli::failure::{Done, UsageError};
use crate::cli::render;
use crate::clock::rfc3339;
use crate::mysql::facts::SYSTEM_SCHEMAS;
use crate::restore::parts::{PartsPlan, PartsReport, PartsRequest, prepare_parts, run_parts};
use crate::restore::{self, RestoreOptions};

impl RestoreArguments {
    /// What makes no sense with `--tables`, or without.
    pub(super) fn check_tables(&self) -> Result<(), UsageError> {
        if self.tables.is_empty() {
            return match &self.into_schema {
                None => Ok(()),
                Some(_) => Err(UsageError::new(
                    "--into-schema goes with --tables: a whole server has its own schemas",
                    "--tables shop.orders --into-schema shop_before",
                )),
            };
        }
        if let Some(schema) = &self.into_schema
            && (schema.is_empty() || schema.chars().count() > 64)
        {
            return Err(UsageError::new(
                "a schema's name has 1 to 64 characters",
                "--into-schema shop_before",
            ));
        }
        if let Some(schema) = &self.into_schema
            && is_reserved(schema)
        {
            return Err(UsageError::new(
                format!(
                    "{schema} is a schema of the server's own, or of Quillback's while it works"
                ),
                "--into-schema shop_before",
            ));
        }
        let parts = "nothing but these tables is changed on the server";
        let never: [(bool, &str, &str); 6] = [
            (self.wipe.is_some(), "--wipe", parts),
            (self.open, "--open", "the server takes writes all the time"),
            (
                self.keep_redo_log,
                "--keep-redo-log",
                "the redo log stays on anyway",
            ),
            (self.serve_listen.is_some(), "--serve-listen", BY_SQL),
            (self.serve_advertise.is_some(), "--serve-advertise", BY_SQL),
            (
                matches!(self.replay, Some(super::Replay::Replication)),
                "--replay replication",
                BY_SQL,
            ),
        ];
        match never.into_iter().find(|(is_given, ..)| *is_given) {
            None => Ok(()),
            Some((_, flag, why)) => Err(UsageError::new(
                format!("{flag} makes no sense with --tables: {why}"),
                format!("--tables without {flag}"),
            )),
        }
    }
}

/// Whether a schema is none that tables may be put into.
fn is_reserved(schema: &str) -> bool {
    let folded = schema.to_lowercase();
    SYSTEM_SCHEMAS.contains(&folded.as_str()) || folded.starts_with("quillback_")
}

const BY_SQL: &str = "tables alone are replayed over an ordinary connection";

/// What is to be done.
pub(super) struct Work {
    pub(super) repository: Repository,
    pub(super) request: PartsRequest,
    pub(super) options: RestoreOptions,
    pub(super) dry_run: bool,
}

/// Plans, shows, and restores.
pub(super) async fn run(
    context: &Context,
    work: Work,
    observer: restore::Observer,
    cancel: CancellationToken,
) -> anyhow::Result<Done> {
    let prepared = prepare_parts(work.repository, work.request).await?;
    if work.dry_run {
        if context.json {
            render::data(&json!({ "plan": prepared.plan }));
        } else {
            render::say(&describe_plan(&prepared.plan));
            render::say("nothing was changed (--dry-run)");
        }
        return Ok(Done::with_notes(&prepared.plan.notes));
    }
    context.talk(&describe_plan(&prepared.plan));
    let report = run_parts(prepared, work.options, observer, cancel).await?;
    if context.json {
        render::data(&report);
    } else {
        render::say(&describe_report(&report));
    }
    Ok(Done::with_notes(&report.notes))
}

fn describe_plan(plan: &PartsPlan) -> String {
    let mut lines = vec![format!(
        "restore {} {} to {} (MySQL {})",
        render::plural(plan.tables.len() as u64, "table"),
        plan.target,
        plan.server,
        plan.server_version
    )];
    lines.extend(edges(&plan.cut, &plan.skipped));
    if let Some(started) = plan.resumes {
        lines.push(format!(
            "  go on      with what was begun {}",
            rfc3339(started)
        ));
    }
    for table in &plan.tables {
        let to = match table.place.table == table.place.to {
            true => String::new(),
            false => format!(" as {}", table.place.to),
        };
        let rows = match table.rows {
            Some(rows) => format!(
                "{}, {}",
                render::plural(rows, "row"),
                render::bytes(table.raw_bytes)
            ),
            None => "made in the log".to_owned(),
        };
        lines.push(format!(
            "  table      {}{to}: {rows}, {} in the log",
            table.place.table,
            render::plural(table.transactions, "transaction")
        ));
    }
    if !plan.besides.is_empty() {
        lines.push(format!(
            "  besides    {}, since these came out of them; they are removed at the end",
            plan.besides.join(", ")
        ));
    }
    if !plan.new_schemas.is_empty() {
        lines.push(format!(
            "  schemas    made for them: {}",
            plan.new_schemas.join(", ")
        ));
    }
    lines.push(format!(
        "  load       snapshot {}: {}, {} stored",
        plan.snapshot,
        render::plural(plan.rows, "row"),
        render::bytes(plan.stored_bytes)
    ));
    lines.push(format!(
        "  replay     at most {} from {}, {} stored",
        render::plural(plan.transactions, "transaction"),
        render::plural(plan.segments, "segment"),
        render::bytes(plan.segment_bytes)
    ));
    lines.push(format!(
        "  expected   about {}; about {} of space, and as much of binlog",
        render::span(plan.expected_seconds),
        render::bytes(plan.raw_bytes.saturating_mul(2))
    ));
    lines.extend(asides(&plan.remarks, &plan.notes));
    lines.join("\n")
}

fn describe_report(report: &PartsReport) -> String {
    let mut lines = vec![format!(
        "restored {} {} on {}: {} loaded, {} applied",
        render::plural(report.tables.len() as u64, "table"),
        report.target,
        report.server,
        render::plural(report.rows_loaded, "row"),
        render::plural(report.transactions_applied, "transaction"),
    )];
    for table in &report.tables {
        lines.push(format!(
            "  {} has {}",
            table.place.to,
            render::plural(table.rows, "row")
        ));
    }
    lines.push(render::phases(&report.phases));
    lines.extend(behind(
        report.verified.as_ref(),
        report.kept.as_deref(),
        &report.notes,
    ));
    lines.join("\n")
}
