//! `quillback status`: what is restorable now.

mod snapshots;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::context::Context;
use super::failure::Done;
use super::render;
use super::times::parse_span;
use crate::archive::catalog::{AcceptedGap, Problem};
use crate::archive::history::{History, complete_to};
use crate::archive::identity::Branch;
use crate::archive::layout::{BranchNumber, Epoch};
use crate::archive::manifest::Manifest;
use crate::archive::repository::Repository;
use crate::error::{Class, with_causes};
use crate::gtid::GtidSet;
use crate::mysql::discover::{discover, login_for};
use crate::mysql::facts::ServerFacts;
use crate::mysql::purge::{Headroom, PurgeFacts};
use crate::mysql::session::Session;
use crate::stream::health::ArchiveFacts;
use snapshots::SnapshotLine;

/// Less than this part of the full time is too little while something waits.
const SMALL_HEADROOM: f64 = 0.2;

/// The options of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// A log that is complete only to before this span is reported (exit code 3).
    #[arg(long, value_parser = parse_span, default_value = "5m", value_name = "SPAN")]
    max_lag: Duration,
    /// Show every snapshot, with what is known of it.
    #[arg(long)]
    snapshots: bool,
}

/// What is restorable, and what is wrong.
#[derive(Debug, Serialize)]
struct StatusReport {
    archive: String,
    /// Whether any state can be restored.
    restorable: bool,
    /// The oldest snapshot's state.
    #[serde(with = "crate::clock::micros_option")]
    restorable_from: Option<DateTime<Utc>>,
    /// The newest moment that can be restored.
    #[serde(with = "crate::clock::micros_option")]
    restorable_to: Option<DateTime<Utc>>,
    /// Seconds from then to now.
    lag_seconds: Option<f64>,
    /// The newest archived GTID set.
    gtid_set: GtidSet,
    branch: BranchNumber,
    /// The newest claim.
    epoch: Option<Epoch>,
    snapshots: Vec<SnapshotLine>,
    segments: u64,
    transactions: u64,
    log_bytes: u64,
    gaps: GtidSet,
    /// Gaps that somebody has accepted, for ever.
    accepted_gaps: Vec<AcceptedGap>,
    /// Every history, the first one first.
    branches: Vec<BranchLine>,
    problems: Vec<Problem>,
    /// What the primary has and the archive lacks, where a server was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerLine>,
    /// For how many seconds, at least, the primary keeps what the archive lacks; null if it purges
    /// nothing for its age; not there if it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_purge_headroom_seconds: Option<Option<f64>>,
    /// Up to which moment everything is archived.
    #[serde(skip)]
    archived_to: Option<DateTime<Utc>>,
    warnings: Vec<String>,
    exit_code: u8,
}

#[derive(Debug, Serialize)]
struct BranchLine {
    branch: BranchNumber,
    parent: Option<BranchNumber>,
    /// What it does not have of its parent.
    lost: GtidSet,
    reason: String,
    /// The name of the group that a reseed began it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Uuid>,
    /// The restored server that a reseed began it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Uuid>,
    #[serde(with = "crate::clock::micros")]
    created: DateTime<Utc>,
}

impl From<Branch> for BranchLine {
    fn from(branch: Branch) -> Self {
        Self {
            branch: branch.branch,
            parent: branch.parent,
            lost: branch.lost,
            reason: branch.reason,
            group: branch.group,
            server: branch.server,
            created: branch.created,
        }
    }
}

#[derive(Debug, Serialize)]
struct ServerLine {
    server: String,
    not_archived: GtidSet,
}

pub(super) async fn run(context: &Context, arguments: StatusArguments) -> anyhow::Result<Done> {
    let repository = context.repository().await?;
    let mut report = load(&repository, context.clock.now(), arguments.max_lag).await?;
    if context.has_servers() {
        compare_with_server(context, &mut report).await;
    }
    let class = report.class();
    report.exit_code = class.map_or(0, Class::exit_code);
    if context.json {
        render::data(&report);
    } else {
        render::say(&report.describe(context.clock.now(), arguments.snapshots));
    }
    Ok(class.map_or(Done::Fine, Done::With))
}

async fn load(
    repository: &Repository,
    now: DateTime<Utc>,
    max_lag: Duration,
) -> anyhow::Result<StatusReport> {
    let branches = repository.branches().await?;
    let branch = branches
        .last()
        .map_or(BranchNumber(1), |branch| branch.branch);
    let history = repository.history_among(&branches, branch).await?;
    let mut manifests = repository.snapshots().await?;
    let snapshots: Vec<SnapshotLine> = manifests
        .iter()
        .map(|manifest| SnapshotLine::new(manifest, &history))
        .collect();
    // What lacks a part is no state to restore, unless somebody names it.
    manifests.retain(|manifest| manifest.filter.is_everything());
    let whole: Vec<&SnapshotLine> = snapshots.iter().filter(|s| !s.partial).collect();
    let newest_snapshot = whole.last().map(|snapshot| snapshot.finished);
    let usable = whole.iter().find(|snapshot| snapshot.connected);
    let log_end = usable
        .and_then(|_| history.complete_to())
        .or_else(|| end_before_gap(&history, &manifests));
    let mut warnings = Vec::new();
    match (snapshots.len(), whole.len()) {
        (0, _) => warnings.push("there is no snapshot, so nothing can be restored".to_owned()),
        (_, 0) => warnings.push(
            "every snapshot is partial, so nothing is restored but what is named by --snapshot"
                .to_owned(),
        ),
        _ => {}
    }
    let lag_seconds = log_end.map(|end| (now - end).as_seconds_f64());
    match lag_seconds {
        Some(lag) if lag > max_lag.as_secs_f64() => warnings.push(format!(
            "the log ends {} ago: is quillback stream running?",
            render::span(lag)
        )),
        None if !whole.is_empty() && history.members.is_empty() => warnings
            .push("there is no log: only the snapshots' own states can be restored".to_owned()),
        _ => {}
    }
    if usable.is_none() && !whole.is_empty() && !history.gaps.is_empty() {
        warnings.push(
            "no snapshot was taken behind the accepted gap, so nothing behind it can be restored: \
             quillback snapshot"
                .to_owned(),
        );
    }
    let mut gtid_set = history.end().unwrap_or_default();
    for snapshot in whole.iter().filter(|snapshot| snapshot.of_this_branch) {
        gtid_set.extend_from(&snapshot.gtid_executed);
    }
    let newest = manifests
        .iter()
        .rev()
        .find(|m| history.admits(&m.gtid_executed, m.started));
    let archived_to = history.complete_to().max(newest.map(|m| m.started));
    Ok(StatusReport {
        archive: repository.storage().url(),
        restorable: !whole.is_empty(),
        restorable_from: usable
            .or_else(|| whole.iter().find(|s| s.of_this_branch))
            .or(whole.first())
            .map(|s| s.finished),
        restorable_to: log_end.max(newest_snapshot),
        lag_seconds,
        gtid_set,
        branch,
        epoch: repository.newest_epoch(None).await?,
        segments: history.members.len() as u64,
        transactions: history.transactions(),
        log_bytes: history.stored_bytes(),
        gaps: history.missing(),
        accepted_gaps: history.gaps,
        branches: branches.into_iter().map(BranchLine::from).collect(),
        snapshots,
        problems: history.problems,
        server: None,
        source_purge_headroom_seconds: None,
        archived_to,
        warnings,
        exit_code: 0,
    })
}

/// Up to which moment the log leads from some snapshot, where an accepted gap lies before the
/// log's end.
fn end_before_gap(history: &History, manifests: &[Manifest]) -> Option<DateTime<Utc>> {
    let gap = history.gaps.first()?;
    let at = history
        .members
        .iter()
        .position(|member| member.stored.name.key() == gap.segment)?;
    let passed = &history.members[..at];
    let end = passed.last()?.after();
    let held = history.held();
    manifests
        .iter()
        .filter(|manifest| history.admits(&manifest.gtid_executed, manifest.started))
        .any(|manifest| end.subtract(&manifest.gtid_executed).is_subset(&held))
        .then(|| complete_to(passed))
        .flatten()
}

/// Asks the named servers what they have; that none answers is a warning, not a failure, for
/// status is asked most when servers are gone.
async fn compare_with_server(context: &Context, report: &mut StatusReport) {
    let asked = async {
        let servers = context.servers()?;
        let topology = discover(&servers).await?;
        let address = topology
            .primary()
            .map_or_else(|| topology.asked.clone(), |member| member.address.clone());
        let url = login_for(&address, &servers[0], &servers);
        let mut session = Session::connect(&url).await?;
        let facts = ServerFacts::load(&mut session).await?;
        let purge = PurgeFacts::load(&mut session).await;
        session.close().await;
        anyhow::Ok((address.to_string(), facts.gtid_executed, purge))
    };
    let (server, executed, purge) = match asked.await {
        Ok(answer) => answer,
        Err(error) => {
            let warning = format!("no server could be asked: {error:#}");
            report.warnings.push(warning);
            return;
        }
    };
    let not_archived = executed.subtract(&report.gtid_set);
    match purge {
        Ok(purge) => report.compare_with_purge(&server, &purge, !not_archived.is_empty()),
        Err(error) => report.warnings.push(format!(
            "{server} does not tell when it purges its binlog: {}",
            with_causes(&error)
        )),
    }
    report.server = Some(ServerLine {
        server,
        not_archived,
    });
}

/// What the metrics of a stream tell of its archive.
pub(super) async fn archive_facts(
    repository: &Repository,
    now: DateTime<Utc>,
) -> anyhow::Result<ArchiveFacts> {
    let report = load(repository, now, Duration::MAX).await?;
    let is_gap = |problem: &&Problem| matches!(problem, Problem::Gap { .. });
    let mut whole = report.snapshots.iter().filter(|s| !s.partial);
    Ok(ArchiveFacts {
        restorable_from: report.restorable_from,
        connected: whole.clone().any(|snapshot| snapshot.connected),
        last_snapshot: whole.next_back().map(|snapshot| snapshot.finished),
        gaps: report.problems.iter().filter(is_gap).count() as u64,
        accepted_gaps: report.accepted_gaps.len() as u64,
    })
}

impl BranchLine {
    fn describe(&self) -> String {
        let parent = self
            .parent
            .map_or_else(String::new, |parent| format!(" from branch {parent}"));
        let lost = if self.lost.is_empty() {
            "nothing was lost".to_owned()
        } else {
            format!("without {:#}", self.lost)
        };
        let place = match (self.group, self.server) {
            (Some(group), _) => format!(", in the group {group}"),
            (None, Some(server)) => format!(", on the server {server}"),
            (None, None) => String::new(),
        };
        format!(
            "branch {:<4}{parent} at {}, {lost}{place} ({})",
            self.branch,
            crate::clock::rfc3339(self.created),
            self.reason
        )
    }
}

impl StatusReport {
    /// Notes how long the source keeps what is not archived; without an archive nothing is.
    fn compare_with_purge(&mut self, server: &str, purge: &PurgeFacts, waiting: bool) {
        if self.archived_to.is_none() {
            return;
        }
        let headroom = purge.headroom(purge.time, self.archived_to, waiting);
        self.source_purge_headroom_seconds = Some(match headroom {
            Headroom::Unlimited => None,
            Headroom::AtLeast(_) => Some(headroom.seconds()),
        });
        let full = purge.expire_seconds.map_or(f64::INFINITY, |s| s as f64);
        if waiting && headroom.seconds() < full * SMALL_HEADROOM {
            self.warnings.push(format!(
                "{server} may purge in {} what is not archived: is quillback stream running? \
                 SET PERSIST binlog_expire_logs_seconds to more until it has caught up",
                render::span(headroom.seconds())
            ));
        }
    }

    fn class(&self) -> Option<Class> {
        let is_unreadable = |p: &Problem| matches!(p, Problem::Unreadable { .. });
        if self.problems.iter().any(is_unreadable) {
            Some(Class::Integrity)
        } else if !self.gaps.is_empty() {
            Some(Class::Gap)
        } else if !self.problems.is_empty() {
            Some(Class::Integrity)
        } else if !self.restorable {
            Some(Class::NotCovered)
        } else if !self.warnings.is_empty() {
            Some(Class::Warnings)
        } else {
            None
        }
    }

    fn describe(&self, now: DateTime<Utc>, all_snapshots: bool) -> String {
        let mut lines = vec![match (self.restorable_from, self.restorable_to) {
            (Some(from), Some(to)) if self.segments > 0 => format!(
                "RESTORABLE from {} to {} ({})",
                render::moment(from),
                crate::clock::rfc3339(to),
                render::ago(to, now)
            ),
            (Some(from), _) => format!(
                "RESTORABLE to the snapshots' states, since {}",
                render::moment(from)
            ),
            _ => "NOTHING RESTORABLE".to_owned(),
        }];
        lines.push(format!(
            "archive    {} (branch {})",
            self.archive, self.branch
        ));
        lines.extend(snapshots::describe(
            &self.snapshots,
            now,
            self.segments > 0,
            all_snapshots,
        ));
        let epoch = self
            .epoch
            .map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
        lines.push(match self.segments {
            0 => "log        none".to_owned(),
            segments => format!(
                "log        {} in {}, {}{epoch}",
                render::plural(self.transactions, "transaction"),
                render::plural(segments, "segment"),
                render::bytes(self.log_bytes)
            ),
        });
        if let Some(server) = &self.server {
            lines.push(if server.not_archived.is_empty() {
                format!("server     {}: everything is archived", server.server)
            } else {
                format!(
                    "server     {}: not archived yet {:#}",
                    server.server, server.not_archived
                )
            });
        }
        match self.source_purge_headroom_seconds {
            Some(Some(seconds)) => lines.push(format!(
                "purge      the server keeps what is not archived for at least {}",
                render::span(seconds)
            )),
            Some(None) => lines
                .push("purge      the server purges nothing of its binlog for its age".to_owned()),
            None => {}
        }
        if !self.gtid_set.is_empty() {
            lines.push(format!("gtid set   {:#}", self.gtid_set));
        }
        for gap in &self.accepted_gaps {
            lines.push(format!("gap        {gap}"));
        }
        for branch in self.branches.iter().filter(|b| b.parent.is_some()) {
            lines.push(branch.describe());
        }
        for problem in &self.problems {
            lines.push(format!("PROBLEM    {problem}"));
        }
        for warning in &self.warnings {
            lines.push(format!("warning    {warning}"));
        }
        lines.join("\n")
    }
}
