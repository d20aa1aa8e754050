//! `quillback stream`: follow the binlog into the archive.

mod outside;
mod tell;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::Context;
use super::failure::{Done, Unfinished, UsageError};
use super::render;
use super::sizes::parse_bytes;
use super::times::parse_span;
use crate::archive::layout::BranchNumber;
use crate::gtid::GtidSet;
use crate::storage;
use crate::stream::health::Health;
use crate::stream::{
    self, FollowFrom, SemiSync, SpoolOptions, StreamEnd, StreamEvent, StreamOptions, StreamPlan,
    StreamReport,
};
use outside::Outside;
use tell::Teller;

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
    /// How large a segment may become, in bytes of binlog, 64KiB to 256MiB.
    #[arg(long, value_parser = parse_segment_bytes, default_value = "64MiB", value_name = "SIZE")]
    segment_size: usize,
    /// Wait while another streamer has the archive, and take over when it is gone.
    #[arg(long, conflicts_with = "once")]
    standby: bool,
    /// A streamer that shows no sign of life for so long is taken for gone.
    #[arg(long, value_parser = parse_span, default_value = "90s", value_name = "SPAN")]
    takeover_after: Duration,
    /// Go on although the source has purged these transactions, which the archive lacks; the gap
    /// is recorded for ever.
    #[arg(long, value_name = "GTID_SET")]
    accept_gap: Option<GtidSet>,
    /// Start a new history that leaves these transactions behind, which the archive holds and the
    /// source lacks.
    #[arg(long, value_name = "GTID_SET")]
    new_branch: Option<GtidSet>,
    /// Give up what a reseed has begun, and go on with this older history, in a new branch of it.
    #[arg(long, value_name = "N")]
    back_to_branch: Option<u32>,
    /// Trust that no second streamer writes here, on a store that cannot keep two apart.
    #[arg(long)]
    single_writer: bool,
    /// Have a semi-synchronous source wait until a transaction is safe here.
    #[arg(long, value_enum, default_value_t = Acknowledge::Off, value_name = "WHERE")]
    semi_sync: Acknowledge,
    /// Where segments wait on disk while the store is away [default: a folder of this user's
    /// state].
    #[arg(long, env = "QUILLBACK_SPOOL_DIR", value_name = "FOLDER")]
    spool_dir: Option<PathBuf>,
    /// How much may wait on disk; 0 for none.
    #[arg(long, env = "QUILLBACK_SPOOL_SIZE", value_parser = parse_bytes, default_value = "4GiB", value_name = "SIZE")]
    spool_size: u64,
    /// Make larger segments of those that are older than this; never: leave them.
    #[arg(long, value_parser = parse_age, default_value = "10m", value_name = "SPAN")]
    compact_after: Age,
    /// zstd's level for segments, 1 to 19.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=19), default_value_t = 1, value_name = "LEVEL")]
    zstd_level: i32,
    /// How many blocks of a segment are packed at the same time.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64), default_value_t = 2, value_name = "N")]
    zstd_threads: u8,
    /// Answer /metrics, /livez and /readyz over HTTP at this address; anybody who reaches it may
    /// ask.
    #[arg(long, env = "QUILLBACK_METRICS_LISTEN", value_name = "HOST:PORT")]
    metrics_listen: Option<String>,
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

/// When a semi-synchronous source is told that a transaction is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acknowledge {
    /// Never: it does not wait for us.
    Off,
    /// When its segment is durable in the archive.
    Archive,
    /// When its events are synced to the spool on this host.
    Spool,
}

/// An age, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Age(Option<Duration>);

fn parse_age(text: &str) -> Result<Age, String> {
    match text {
        "never" => Ok(Age(None)),
        _ => parse_span(text).map(|age| Age(Some(age))),
    }
}

fn parse_segment_bytes(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if (64 << 10..=256 << 20).contains(&bytes) {
        usize::try_from(bytes).map_err(|error| error.to_string())
    } else {
        Err("a segment has 64KiB to 256MiB".to_owned())
    }
}

impl StreamArguments {
    fn options(&self) -> anyhow::Result<StreamOptions> {
        let spool = self.spool()?;
        if spool.is_none() && self.semi_sync == Acknowledge::Spool {
            return Err(UsageError::new(
                "--semi-sync spool needs a spool",
                "--spool-size 4GiB, or --semi-sync archive",
            )
            .into());
        }
        Ok(StreamOptions {
            from: match self.from {
                From::Primary => FollowFrom::Primary,
                From::Secondary => FollowFrom::Secondary,
            },
            once: self.once,
            flush_interval: self.flush_interval,
            segment_bytes: self.segment_size,
            level: self.zstd_level,
            threads: self.zstd_threads.into(),
            host: super::context::host(),
            standby: self.standby,
            takeover_after: self.takeover_after,
            accept_gap: self.accept_gap.clone(),
            new_branch: self.new_branch.clone(),
            back_to: self.back_to_branch.map(BranchNumber),
            semi_sync: match self.semi_sync {
                Acknowledge::Off => SemiSync::Off,
                Acknowledge::Archive => SemiSync::Archive,
                Acknowledge::Spool => SemiSync::Spool,
            },
            spool,
            compact_after: self.compact_after.0,
            fail_points: super::context::fail_points()?,
            ..StreamOptions::default()
        })
    }

    fn spool(&self) -> anyhow::Result<Option<SpoolOptions>> {
        if self.spool_size == 0 {
            return Ok(None);
        }
        let state = || {
            let home = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
            let home = home.filter(|path| path.is_absolute()).or_else(|| {
                let home = std::env::var_os("HOME")?;
                Some(PathBuf::from(home).join(".local/state"))
            })?;
            Some(home.join("quillback/spool"))
        };
        let named = self.spool_dir.is_some();
        let Some(folder) = self.spool_dir.clone().or_else(state) else {
            if self.semi_sync == Acknowledge::Spool {
                return Err(UsageError::new(
                    "there is no folder for the spool",
                    "--spool-dir /var/lib/quillback",
                )
                .into());
            }
            return Ok(None);
        };
        Ok(Some(SpoolOptions {
            folder,
            bytes: self.spool_size,
            required: named || self.semi_sync == Acknowledge::Spool,
        }))
    }
}

pub(super) async fn run(context: &Context, arguments: StreamArguments) -> anyhow::Result<Done> {
    let servers = context.servers()?;
    let options = arguments.options()?;
    let health = Arc::new(Health::new(Arc::clone(&context.clock)));
    // An address that cannot be had is told before anything is begun.
    let outside = match arguments.dry_run {
        true => None,
        false => {
            let listen = arguments.metrics_listen.as_deref();
            Some(Outside::open(context, listen, &health).await?)
        }
    };
    let repository = context.repository().await?;
    let Some(mut outside) = outside else {
        let plan = stream::plan(&repository, servers, &options, &*context.clock).await?;
        if context.json {
            render::data(&json!({ "plan": plan }));
        } else {
            render::say(&plan_text(&plan, &repository.storage().url()));
        }
        return Ok(Done::Fine);
    };
    if arguments.single_writer {
        context.talk(
            "warning: --single-writer: nothing keeps a second streamer out of this archive but you",
        );
    } else {
        storage::probe_conditional_writes(&**repository.storage()).await?;
    }
    let cancel = context.cancel_on_signal()?;
    outside.watch(context, &repository, &cancel);
    let teller = Arc::new(Teller::new(context, Arc::clone(&health)));
    let observer: stream::Observer = {
        let (teller, manager) = (Arc::clone(&teller), outside.manager());
        Arc::new(move |event: StreamEvent| {
            health.observe(&event);
            manager.hear(&event);
            teller.tell(&event);
        })
    };
    let clock = Arc::clone(&context.clock);
    let outcome = stream::run(repository, servers, options, clock, observer, cancel).await;
    teller.finish();
    outside.stop().await;
    let report = outcome?;
    if context.json {
        render::data(&json!({ "event": "done", "report": report }));
    } else {
        render::say(&report_text(&report));
    }
    if arguments.once && report.ended != StreamEnd::CaughtUp {
        return Err(Unfinished::new(
            "stopped before all was archived that the source had when the run began",
            "stream --once again, which goes on from here",
        )
        .into());
    }
    Ok(Done::Fine)
}

fn report_text(report: &StreamReport) -> String {
    if report.ended == StreamEnd::Unclaimed {
        return "stopped before it had the archive: nothing was archived or changed".to_owned();
    }
    let to = report.complete_to.map_or_else(String::new, |to| {
        format!(", complete to {}", crate::clock::rfc3339(to))
    });
    format!(
        "archived {} in {} ({} of binlog, {} stored){to}",
        render::plural(report.transactions, "transaction"),
        render::plural(report.segments, "segment"),
        render::bytes(report.raw_bytes),
        render::bytes(report.stored_bytes),
    )
}

fn plan_text(plan: &StreamPlan, archive: &str) -> String {
    let mut text = format!(
        "would follow {} ({}, MySQL {}) into {archive} as epoch {}\nfrom {:#}",
        plan.server, plan.topology, plan.version, plan.epoch, plan.start
    );
    if let Some(left) = &plan.left_behind {
        text.push_str(&format!(
            "\nin a new history, branch {}, that leaves behind {left:#}",
            plan.branch
        ));
    }
    if let Some(given_up) = plan.given_up {
        text.push_str(&format!(
            "\nin a new history, branch {}; branch {given_up} is given up",
            plan.branch
        ));
    }
    if !plan.accepted_gap.is_empty() {
        text.push_str(&format!(
            "\nwith {:#} recorded as lost for ever",
            plan.accepted_gap
        ));
    }
    text
}
