//! `quillback restore`: to a moment or a transaction, on an empty server.

mod parts;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::{parse_moment, parse_span};
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::archive::marks::MarkName;
use crate::archive::repository::Repository;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::schema::Pattern;
use crate::mysql::server_url::HostPort;
use crate::restore::parts::PartsRequest;
use crate::restore::replay::{Advertise, ReplayKind};
use crate::restore::target::Target;
use crate::restore::wait::{Waited, wait};
use crate::restore::{self, RestoreOptions, RestoreRequest, Verify};

/// The options of `restore`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target")))]
pub(super) struct RestoreArguments {
    /// The state at this moment (RFC 3339, 2026-11-20T14:30:00Z), or "latest".
    #[arg(long, group = "target", value_name = "WHEN")]
    until: Option<String>,
    /// The state that this mark names (quillback mark --list).
    #[arg(long, group = "target", value_name = "NAME")]
    until_mark: Option<MarkName>,
    /// Up to and including these transactions; a whole gtid_executed is restored exactly.
    #[arg(long, group = "target", value_name = "SET")]
    until_gtid: Option<GtidSet>,
    /// All of the archive's order before this transaction.
    #[arg(long, group = "target", value_name = "GTID")]
    before_gtid: Option<Gtid>,
    /// Restore only these tables, schema.table with * and ? (comma-separated, may be repeated), beside
    /// whatever is on the server.
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    tables: Vec<Pattern>,
    /// With --tables: put them into this schema instead of their own.
    #[arg(long, value_name = "NAME")]
    into_schema: Option<String>,
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
    /// Start from this snapshot instead of the one that is fastest by estimate.
    #[arg(long, value_name = "ID")]
    snapshot: Option<SnapshotId>,
    /// The history to restore from, if not the newest.
    #[arg(long, value_name = "N")]
    branch: Option<u32>,
    /// Wait until the archive is complete up to the target, at most so long [default: for ever].
    #[arg(long, num_args = 0..=1, value_name = "SPAN")]
    wait: Option<Option<String>>,
    /// Go on with what an earlier run began on the server; without a target, whatever that was.
    #[arg(long)]
    resume: bool,
    /// Remove all that is on the server first; the server must be named here once more.
    #[arg(long, value_name = "HOST:PORT")]
    wipe: Option<String>,
    /// Connections that load, and appliers that replay, at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    threads: u32,
    /// Leave the server's redo log on during the load: slower, and a crash of the server can be
    /// gone on from.
    #[arg(long)]
    keep_redo_log: bool,
    /// Compare more at the end: the rows of every table that the replay left alone.
    #[arg(long, value_enum, value_name = "WHAT")]
    verify: Option<Compared>,
    /// Where to listen while the server replays [default: a free port].
    #[arg(long, value_name = "ADDR:PORT")]
    serve_listen: Option<SocketAddr>,
    /// The address under which the server reaches us [default: the one that we reach it from].
    #[arg(long, value_name = "HOST[:PORT]")]
    serve_advertise: Option<Advertise>,
    /// How the log comes to the server [default: replication].
    #[arg(long, value_enum, value_name = "HOW")]
    replay: Option<Replay>,
    /// Let the restored server take writes at once instead of leaving it read-only.
    #[arg(long)]
    open: bool,
    /// Show the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// How the log comes to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Replay {
    /// The server replicates from us: its own appliers do the work.
    Replication,
    /// Over an ordinary connection: slower, and the server need not reach us.
    Sql,
}

/// What is compared at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compared {
    /// Checksums of rows.
    Checksums,
}

impl RestoreArguments {
    /// The target, and the history that a mark is of; none is given only with `--resume`.
    async fn target(
        &self,
        repository: &Repository,
    ) -> anyhow::Result<(Option<Target>, Option<BranchNumber>)> {
        let branch = self.branch.map(BranchNumber);
        if let Some(gtid) = &self.before_gtid {
            return Ok((Some(Target::BeforeGtid { gtid: gtid.clone() }), branch));
        }
        if let Some(set) = &self.until_gtid {
            return Ok((Some(Target::UntilGtid { set: set.clone() }), branch));
        }
        if let Some(name) = &self.until_mark {
            let (target, of_mark) = restore::mark_target(repository, name).await?;
            return Ok((Some(target), branch.or(Some(of_mark))));
        }
        let target = match self.until.as_deref() {
            None => None,
            Some("latest") => Some(Target::Latest),
            Some(text) => Some(Target::Until {
                moment: parse_moment(text).map_err(|error| UsageError::new(error, UNTIL))?,
            }),
        };
        Ok((target, branch))
    }

    /// What makes no sense, whatever the archive holds.
    fn check(&self) -> Result<(), UsageError> {
        let has_target = self.until.is_some()
            || self.until_mark.is_some()
            || self.until_gtid.is_some()
            || self.before_gtid.is_some();
        if !has_target && !self.resume {
            return Err(UsageError::new(
                "no target is given",
                format!(
                    "{UNTIL}, --until latest, --until-mark NAME, --until-gtid SET or --before-gtid \
                     GTID"
                ),
            ));
        }
        if let Some(text) = self.until.as_deref().filter(|text| *text != "latest") {
            parse_moment(text).map_err(|error| UsageError::new(error, UNTIL))?;
        }
        if self.until_gtid.as_ref().is_some_and(GtidSet::is_empty) {
            return Err(UsageError::new(
                "the GTID set of --until-gtid is empty",
                "--until-gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-42",
            ));
        }
        Ok(())
    }

    /// The server that may be emptied, named in full.
    fn wiped(&self) -> Result<Option<HostPort>, UsageError> {
        let Some(text) = &self.wipe else {
            return Ok(None);
        };
        let named: Option<HostPort> = text.parse().ok();
        named
            .filter(|named| named.to_string() == *text)
            .map(Some)
            .ok_or_else(|| {
                UsageError::new(
                    format!("--wipe {text} names no server in full"),
                    "--wipe with the host and the port of --to, as db7.example:3306",
                )
            })
    }

    /// How long to wait for the archive: not at all, or for ever, or so long.
    fn wait(&self) -> Result<Option<Option<Duration>>, UsageError> {
        let Some(wanted) = &self.wait else {
            return Ok(None);
        };
        wanted
            .as_deref()
            .map(parse_span)
            .transpose()
            .map(Some)
            .map_err(|error| UsageError::new(error, "--wait 10m, or --wait alone"))
    }
}

const UNTIL: &str = "--until 2026-11-20T14:30:00Z";

pub(super) async fn run(context: &Context, arguments: RestoreArguments) -> anyhow::Result<Done> {
    arguments.check()?;
    arguments.check_tables()?;
    let wipe = arguments.wiped()?;
    let patience = arguments.wait()?;
    let fail_points = super::context::fail_points()?;
    let server = context.server(&arguments.to, "QUILLBACK_TO_PASSWORD")?;
    let repository = context.repository().await?;
    let (target, branch) = arguments.target(&repository).await?;
    let cancel = context.cancel_on_signal()?;
    let progress = Arc::new(context.progress());
    let observer: restore::Observer = {
        let progress = Arc::clone(&progress);
        let quiet = context.quiet;
        Arc::new(move |event| words::tell(&event, quiet, &progress))
    };
    if let (Some(limit), Some(target)) = (patience, &target) {
        let waited = await_target(
            context,
            &repository,
            (target, branch),
            limit,
            &observer,
            &cancel,
        )
        .await;
        progress.clear();
        waited?;
    }
    let mut skip = GtidSet::new();
    for gtid in &arguments.skip_gtid {
        skip.insert(gtid);
    }
    let verify = match arguments.verify {
        Some(Compared::Checksums) => Verify::Checksums,
        None => Verify::Basic,
    };
    if !arguments.tables.is_empty() {
        let request = PartsRequest {
            target,
            server,
            snapshot: arguments.snapshot,
            branch,
            skip,
            tables: arguments.tables,
            into: arguments.into_schema,
            resume: arguments.resume,
        };
        let options = RestoreOptions {
            threads: arguments.threads,
            verify,
            fail_points,
            ..RestoreOptions::default()
        };
        let work = parts::Work {
            repository,
            request,
            options,
            dry_run: arguments.dry_run,
        };
        let outcome = parts::run(context, work, observer, cancel).await;
        progress.clear();
        return outcome;
    }
    let request = RestoreRequest {
        target,
        snapshot: arguments.snapshot,
        branch,
        skip,
        resume: arguments.resume,
        wipe,
        replay: match arguments.replay {
            None | Some(Replay::Replication) => ReplayKind::Replication,
            Some(Replay::Sql) => ReplayKind::Sql,
        },
        ..RestoreRequest::new(Target::Latest, server)
    };
    let prepared = restore::prepare(repository, request).await?;
    if arguments.dry_run {
        if context.json {
            render::data(&json!({ "plan": prepared.plan }));
        } else {
            render::say(&words::describe_plan(&prepared.plan));
            render::say("nothing was changed (--dry-run)");
        }
        return Ok(Done::Fine);
    }
    context.talk(&words::describe_plan(&prepared.plan));
    let options = RestoreOptions {
        threads: arguments.threads,
        listen: arguments.serve_listen,
        advertise: arguments.serve_advertise,
        open: arguments.open,
        keep_redo_log: arguments.keep_redo_log,
        verify,
        fail_points,
    };
    let outcome = restore::run(prepared, options, observer, cancel).await;
    progress.clear();
    let report = outcome?;
    if context.json {
        render::data(&report);
    } else {
        render::say(&words::describe_report(&report));
    }
    Ok(Done::with_notes(&report.notes))
}

/// Waits until the archive holds the target; if the time is over, the plan's refusal tells the rest.
async fn await_target(
    context: &Context,
    repository: &Repository,
    (target, branch): (&Target, Option<BranchNumber>),
    limit: Option<Duration>,
    observer: &restore::Observer,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let clock = &*context.clock;
    let waited = wait(repository, target, branch, limit, clock, observer, cancel).await?;
    if waited == Waited::InVain {
        context.talk("waited in vain");
    }
    Ok(())
}
