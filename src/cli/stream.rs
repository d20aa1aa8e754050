//! `quillback stream`: follow the binlog into the archive.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::Context;
use super::failure::Done;
use super::render;
use super::times::parse_span;
use crate::storage;
use crate::stream::{self, FollowFrom, StreamEvent, StreamOptions};

/// The options of `stream`.
#[derive(Debug, Args)]
pub(super) struct StreamArguments {
    /// Catch up with the source's present state and exit.
    #[arg(long)]
    once: bool,
    /// Which server to follow.
    #[arg(long, value_enum, default_value_t = From::Primary, value_name = "ROLE")]
    from: From,
    /// How long events may wait for their segment.
    #[arg(long, value_parser = parse_span, default_value = "2s", value_name = "SPAN")]
    flush_interval: Duration,
    /// zstd's level for segments, 1 to 19.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=19), default_value_t = 3, value_name = "LEVEL")]
    zstd_level: i32,
    /// Show what would be followed from where, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Which server to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// The one that takes the writes.
    Primary,
    /// One that follows it.
    Secondary,
}

pub(super) async fn run(context: &Context, arguments: StreamArguments) -> anyhow::Result<Done> {
    let servers = context.servers()?;
    let repository = context.repository().await?;
    let options = StreamOptions {
        from: match arguments.from {
            From::Primary => FollowFrom::Primary,
            From::Secondary => FollowFrom::Secondary,
        },
        once: arguments.once,
        flush_interval: arguments.flush_interval,
        level: arguments.zstd_level,
        host: host(),
        ..StreamOptions::default()
    };
    if arguments.dry_run {
        let plan = stream::plan(&repository, servers, &options, &*context.clock).await?;
        if context.json {
            render::data(&json!({ "plan": plan }));
        } else {
            render::say(&format!(
                "would follow {} ({}, MySQL {}) into {} as epoch {}\nfrom {:#}",
                plan.server,
                plan.topology,
                plan.version,
                repository.storage().url(),
                plan.epoch,
                plan.start
            ));
        }
        return Ok(Done::Fine);
    }
    storage::probe_conditional_writes(&**repository.storage()).await?;
    let cancel = context.cancel_on_signal()?;
    let progress = Arc::new(context.progress());
    let observer: stream::Observer = {
        let (json, quiet) = (context.json, context.quiet);
        let progress = Arc::clone(&progress);
        Arc::new(move |event| {
            if json {
                render::data(&event);
            }
            tell(&event, quiet, &progress);
        })
    };
    let clock = Arc::clone(&context.clock);
    let outcome = stream::run(repository, servers, options, clock, observer, cancel).await;
    progress.clear();
    let report = outcome?;
    if context.json {
        render::data(&json!({ "event": "done", "report": report }));
    } else {
        let to = report.complete_to.map_or_else(String::new, |to| {
            format!(", complete to {}", crate::clock::rfc3339(to))
        });
        render::say(&format!(
            "archived {} in {} ({} of binlog, {} stored){to}",
            render::plural(report.transactions, "transaction"),
            render::plural(report.segments, "segment"),
            render::bytes(report.raw_bytes),
            render::bytes(report.stored_bytes),
        ));
    }
    Ok(Done::Fine)
}

fn tell(event: &StreamEvent, quiet: bool, progress: &render::Progress) {
    let text = match event {
        StreamEvent::Warning { message } => {
            progress.clear();
            render::talk(&format!("warning: {message}"));
            return;
        }
        _ if quiet => return,
        StreamEvent::Claimed { epoch, start, .. } => {
            format!("epoch {epoch} is ours, going on from {start:#}")
        }
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
        StreamEvent::Segment {
            transactions,
            stored_bytes,
            lag_seconds,
            complete_to,
            ..
        } => {
            progress.update(|| {
                let lag = lag_seconds.map_or_else(String::new, |lag| {
                    format!(", {} behind its commit", render::span(lag))
                });
                let to = complete_to.map_or_else(String::new, |to| {
                    format!(", complete to {}", render::moment(to))
                });
                format!(
                    "{} in {}{lag}{to}",
                    render::plural(*transactions, "transaction"),
                    render::bytes(*stored_bytes)
                )
            });
            return;
        }
    };
    progress.clear();
    render::talk(&text);
}

/// This host's name, for the claim; a person reads it, nothing depends on it.
fn host() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
