//! `quillback reseed`: a cluster from the restored server.

mod words;

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use super::times::parse_span;
use crate::archive::layout::BranchNumber;
use crate::config::Secret;
use crate::error::Class;
use crate::mysql::server_url::{HostPort, ServerUrl};
use crate::reseed::plan::{FillWish, MetadataWish, Wishes};
use crate::reseed::{self, ReseedOptions, ReseedRequest};

/// The options of `reseed`.
#[derive(Debug, Args)]
pub(super) struct ReseedArguments {
    /// The restored server, which becomes the primary: mysql://user@host:port.
    #[arg(long, value_name = "SERVER")]
    primary: String,
    /// Another server of the new group (may be repeated); what it holds may be replaced.
    #[arg(long = "member", value_name = "SERVER", required = true)]
    members: Vec<String>,
    /// How members get their data.
    #[arg(long, value_enum, default_value_t = FillArgument::Auto, value_name = "HOW")]
    fill: FillArgument,
    /// Make what is left of the old group read-only, and take it apart.
    #[arg(long)]
    fence: bool,
    /// A server of the old group that does not answer, and never takes writes again (may be
    /// repeated).
    #[arg(long, value_name = "HOST:PORT")]
    gone: Vec<HostPort>,
    /// A member whose transactions that the restored server lacks may be lost (may be repeated).
    #[arg(long, value_name = "HOST:PORT")]
    discard_transactions_of: Vec<HostPort>,
    /// What becomes of InnoDB Cluster's metadata on the restored server.
    #[arg(long, value_enum, default_value_t = MetadataArgument::Repair, value_name = "WHAT")]
    metadata: MetadataArgument,
    /// The history that the server was restored from, if not the one that its report names.
    #[arg(long, value_name = "N")]
    branch: Option<u32>,
    /// The account by which members catch up; it is made, unless QUILLBACK_RECOVERY_PASSWORD holds
    /// the password of one that is there.
    #[arg(long, default_value = "quillback_recovery", value_name = "NAME")]
    recovery_user: String,
    /// A shell command that starts a server again after its clone, if nobody else does
    /// (QUILLBACK_HOST and QUILLBACK_PORT name it).
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// How long a server may take to come back after its clone.
    #[arg(long, default_value = "10m", value_name = "SPAN")]
    restart_timeout: String,
    /// Connections that load, and appliers that replay, where a member is filled from the archive.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    threads: u32,
    /// Show the plan as a runbook, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// How members get their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FillArgument {
    /// The log alone where that is enough, else a clone, else the archive.
    Auto,
    /// A clone of the new primary.
    Clone,
    /// The archive: the new primary is not burdened.
    Archive,
}

/// What becomes of InnoDB Cluster's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MetadataArgument {
    /// Make them match the new group, so that Routers can be bootstrapped.
    Repair,
    /// Remove them; MySQL Shell can adopt the group.
    Drop,
    /// Leave them as they were restored.
    Keep,
}

pub(super) async fn run(context: &Context, arguments: ReseedArguments) -> anyhow::Result<Done> {
    let restart_limit = parse_span(&arguments.restart_timeout)
        .map_err(|error| UsageError::new(error, "--restart-timeout 10m"))?;
    if arguments.recovery_user.is_empty() || arguments.recovery_user.chars().count() > 32 {
        return Err(UsageError::new(
            "a user's name has 1 to 32 characters",
            "--recovery-user quillback_recovery",
        )
        .into());
    }
    let fail_points = super::context::fail_points()?;
    let primary = context.server(&arguments.primary, "QUILLBACK_TO_PASSWORD")?;
    let members: Vec<ServerUrl> = arguments
        .members
        .iter()
        .map(|text| context.server(text, "QUILLBACK_TO_PASSWORD"))
        .collect::<Result<_, _>>()?;
    let recovery_password: Option<Secret> = super::context::secret("QUILLBACK_RECOVERY_PASSWORD")?;
    if recovery_password
        .as_ref()
        .is_some_and(|secret| secret.expose().chars().count() > 32)
    {
        return Err(UsageError::new(
            "the password of a replication account has at most 32 characters",
            "a shorter one in QUILLBACK_RECOVERY_PASSWORD, or none, which has an account made",
        )
        .into());
    }
    let repository = context.repository().await?;
    let known = match context.has_servers() {
        true => context.servers()?,
        false => Vec::new(),
    };
    let request = ReseedRequest {
        primary,
        members,
        known,
        branch: arguments.branch.map(BranchNumber),
        wishes: Wishes {
            fill: match arguments.fill {
                FillArgument::Auto => FillWish::Auto,
                FillArgument::Clone => FillWish::Clone,
                FillArgument::Archive => FillWish::Archive,
            },
            fence: arguments.fence,
            gone: arguments.gone,
            discard: arguments.discard_transactions_of,
            metadata: match arguments.metadata {
                MetadataArgument::Repair => MetadataWish::Repair,
                MetadataArgument::Drop => MetadataWish::Drop,
                MetadataArgument::Keep => MetadataWish::Keep,
            },
        },
        recovery_user: arguments.recovery_user,
        recovery_password,
    };
    let cancel = context.cancel_on_signal()?;
    let prepared = reseed::prepare(repository, request).await?;
    if arguments.dry_run {
        if context.json {
            render::data(&json!({ "plan": prepared.plan }));
        } else {
            render::say(&words::describe_plan(&prepared.plan));
            render::say(&words::describe_steps(&prepared.plan));
            render::say("nothing was changed (--dry-run)");
        }
        return Ok(Done::Fine);
    }
    context.talk(&words::describe_plan(&prepared.plan));
    let options = ReseedOptions {
        restart_command: arguments.restart_command,
        restart_limit,
        threads: arguments.threads,
        host: super::context::host(),
        fail_points,
    };
    let progress = Arc::new(context.progress());
    let observer: reseed::Observer = {
        let progress = Arc::clone(&progress);
        let quiet = context.quiet;
        Arc::new(move |event| words::tell(&event, quiet, &progress))
    };
    let outcome = reseed::run(prepared, options, observer, cancel).await;
    progress.clear();
    let report = outcome?;
    if context.json {
        render::data(&report);
    } else {
        render::say(&words::describe_report(&report));
    }
    Ok(if report.notes.is_empty() {
        Done::Fine
    } else {
        Done::With(Class::Warnings)
    })
}
