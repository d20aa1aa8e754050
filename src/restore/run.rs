//! The order of a restore: plan, load, replay, check.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rand::RngExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::RestoreError;
use super::load::{self, LoadOptions};
use super::plan::{Inputs, PlanError, RestorePlan};
use super::replay::{self, ReplaySource};
use super::report::{Observer, RestoreEvent, RestoreOptions, RestoreReport, RestoreRequest};
use super::serve::{ServeOptions, Server};
use super::target::{self, SnapshotSet};
use crate::archive::catalog::Problem;
use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::archive::manifest::Manifest;
use crate::archive::repository::Repository;
use crate::config::Secret;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::{TargetFacts, gtid_executed};
use crate::mysql::quote;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::observe::phase::PhaseClock;

/// The account that a replay's replica uses; it exists nowhere but in our own answers.
const REPLAY_USER: &str = "quillback";

/// A plan with what the run needs besides.
#[derive(Debug)]
pub struct Prepared {
    /// The plan, as it is shown.
    pub plan: RestorePlan,
    manifest: Manifest,
    repository: Repository,
    server: ServerUrl,
    clock: PhaseClock,
}

/// Resolves the target, asks the server for its facts and plans. Nothing is changed.
///
/// # Errors
///
/// [`RestoreError`]: all that can be refused is refused here.
pub async fn prepare(
    repository: Repository,
    request: RestoreRequest,
) -> Result<Prepared, RestoreError> {
    let mut clock = PhaseClock::start();
    let branches = repository.branches().await?;
    let branch = match request.branch {
        None => branches.last().map_or(BranchNumber(1), |b| b.branch),
        Some(asked) if branches.iter().any(|b| b.branch == asked) => asked,
        Some(asked) => return Err(RestoreError::UnknownBranch(asked)),
    };
    let history = repository.history_among(&branches, branch).await?;
    // What an object holds that cannot be read nobody knows: the end of the log may be there.
    if let Some(problem) = history
        .problems
        .iter()
        .find(|problem| matches!(problem, Problem::Unreadable { .. }))
    {
        return Err(RestoreError::Damaged {
            problem: problem.to_string(),
        });
    }
    let snapshots = usable(repository.snapshots().await?, request.snapshot.as_ref())?;
    let sets: Vec<SnapshotSet> = snapshots
        .iter()
        .filter(|manifest| history.admits(&manifest.gtid_executed, manifest.started))
        .map(|manifest| SnapshotSet {
            set: manifest.gtid_executed.clone(),
            started: manifest.started,
            finished: manifest.finished,
        })
        .collect();
    let boundary = target::boundary(&history, &sets, &request.target)?;
    let inside = match boundary {
        Some(at) => {
            let member = &history.members[at];
            member.own_lines(repository.read_transactions(&member.stored).await?)
        }
        None => Vec::new(),
    };
    let cut = target::resolve(&history, &sets, &request.target, boundary, &inside)?;
    let mut session = Session::connect(&request.server).await?;
    let facts = TargetFacts::load(&mut session).await?;
    session.close().await;
    let inputs = Inputs {
        history: &history,
        snapshots: &snapshots,
        snapshot: request.snapshot.as_ref(),
        skip: &request.skip,
        server: &facts,
    };
    let plan = RestorePlan::compute(request.target, cut, &inputs)?;
    let manifest = snapshots
        .into_iter()
        .find(|manifest| manifest.id == plan.snapshot.id)
        .ok_or(PlanError::Empty)?;
    clock.end("plan", 0);
    Ok(Prepared {
        plan,
        manifest,
        repository,
        server: request.server,
        clock,
    })
}

/// Those that are states of the whole server. One that was taken with a filter is loaded only if it
/// is named: what it lacks nobody would miss before it is too late.
fn usable(
    snapshots: Vec<Manifest>,
    named: Option<&SnapshotId>,
) -> Result<Vec<Manifest>, PlanError> {
    let newest = snapshots.last().map(|manifest| manifest.id.clone());
    let usable: Vec<Manifest> = snapshots
        .into_iter()
        .filter(|manifest| manifest.filter.is_everything() || Some(&manifest.id) == named)
        .collect();
    match newest {
        Some(newest) if usable.is_empty() => Err(PlanError::OnlyPartial { newest }),
        _ => Ok(usable),
    }
}

/// Does what was planned.
///
/// # Errors
///
/// [`RestoreError`]; [`RestoreError::Unfinished`] once the server has been touched. Such a server
/// is made read-only, if it can be reached, and must be emptied before another try.
pub async fn run(
    prepared: Prepared,
    options: RestoreOptions,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<RestoreReport, RestoreError> {
    let mut session = Session::connect(&prepared.server).await?;
    // The plan was made a moment ago: the server must still be that one, and still be empty.
    let facts = TargetFacts::load(&mut session).await?;
    let planned = &prepared.plan.server;
    if facts.server.server_uuid != planned.uuid || !facts.is_empty() {
        return Err(RestoreError::AnotherServer {
            server: planned.address.clone(),
        });
    }
    let (server, address) = (prepared.server.clone(), planned.address.clone());
    match fill(prepared, session, facts, options, observer, cancel).await {
        Ok(report) => Ok(report),
        Err(error) => {
            mark_unfinished(&server).await;
            Err(RestoreError::Unfinished {
                server: address,
                source: Box::new(error),
            })
        }
    }
}

/// Keeps writers away from a server that holds half of what was asked for.
async fn mark_unfinished(server: &ServerUrl) {
    let marked = async {
        let mut session = Session::connect(server).await?;
        session.execute("SET GLOBAL super_read_only = ON").await?;
        session.close().await;
        Ok::<_, MysqlError>(())
    };
    if let Err(error) = marked.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the unfinished server could not be made read-only"
        );
    }
}

/// Load, replay and check.
async fn fill(
    prepared: Prepared,
    mut session: Session,
    facts: TargetFacts,
    options: RestoreOptions,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<RestoreReport, RestoreError> {
    let Prepared {
        plan,
        manifest,
        repository,
        server,
        mut clock,
    } = prepared;
    for statement in [
        "SET GLOBAL super_read_only = OFF",
        "SET GLOBAL read_only = OFF",
    ] {
        session.execute(statement).await?;
    }
    observer(RestoreEvent::Phase { phase: "load" });
    // Ordinary accounts are kept out until the end; what an earlier try left on is lifted for us.
    for statement in [
        "SET GLOBAL read_only = ON",
        "SET GLOBAL super_read_only = OFF",
    ] {
        session.execute(statement).await?;
    }
    let load_options = LoadOptions {
        threads: options.threads as usize,
        cancel: cancel.clone(),
        progress: {
            let observer = Arc::clone(&observer);
            Arc::new(move |rows, total_rows| {
                observer(RestoreEvent::Load { rows, total_rows });
            })
        },
        ..LoadOptions::default()
    };
    let loaded = load::load(
        &server,
        Arc::clone(repository.storage()),
        &manifest,
        &load_options,
    )
    .await?;
    clock.end("load", loaded.stored_bytes);

    observer(RestoreEvent::Phase { phase: "replay" });
    if !plan.replay.set.is_empty() {
        replay_log(
            &plan,
            &repository,
            &server,
            &mut session,
            &facts,
            &options,
            &observer,
            &cancel,
        )
        .await?;
    }
    clock.end("replay", plan.replay.raw_bytes);

    observer(RestoreEvent::Phase { phase: "check" });
    let executed = gtid_executed(&mut session).await?;
    if executed != plan.result {
        return Err(RestoreError::WrongEnd {
            server: plan.server.address,
            missing: Box::new(plan.result.subtract(&executed)),
            unexpected: Box::new(executed.subtract(&plan.result)),
        });
    }
    let tables: u64 = session
        .query_one(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE' \
             AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')",
        )
        .await?;
    let mut notes = plan.notes;
    notes.extend(loaded.warnings);
    notes.extend(in_doubt(&mut session).await?);
    notes.extend(disabled_events(&mut session).await?);
    let opening = opening_statements(&loaded.event_scheduler);
    if options.open {
        for statement in &opening {
            session.execute(statement).await?;
        }
    } else {
        session.execute("SET GLOBAL super_read_only = ON").await?;
    }
    session.close().await;
    clock.end("check", 0);
    Ok(RestoreReport {
        target: plan.target,
        server: plan.server.address,
        snapshot: plan.snapshot.id,
        rows: loaded.rows,
        transactions: plan.replay.transactions,
        gtid_executed: executed,
        tables,
        open: options.open,
        open_with: if options.open { Vec::new() } else { opening },
        phases: clock.finish(),
        notes,
    })
}

/// Tells of XA transactions that were prepared and not ended at the cut.
async fn in_doubt(session: &mut Session) -> Result<Option<String>, MysqlError> {
    let prepared: Vec<(i64, i64, i64, String)> = session.query("XA RECOVER CONVERT XID").await?;
    Ok((!prepared.is_empty()).then(|| {
        let ids: Vec<String> = prepared
            .iter()
            .map(|(format, global, _, data)| xid(*format, *global, data))
            .collect();
        format!(
            "prepared XA transactions are in doubt at this state and hold their locks: XA COMMIT or \
             XA ROLLBACK {}",
            ids.join(", ")
        )
    }))
}

/// An XID as XA COMMIT takes it, from what XA RECOVER CONVERT XID tells: the bytes of both parts
/// in hexadecimal, and how many bytes the first one has.
fn xid(format: i64, global: i64, data: &str) -> String {
    let digits = data.strip_prefix("0x").unwrap_or(data);
    let at = usize::try_from(global).unwrap_or(0).saturating_mul(2);
    let (global, branch) = digits.split_at_checked(at).unwrap_or((digits, ""));
    format!("X'{global}',X'{branch}',{format}")
}

/// Tells of events that do not run because they came by replication, here or on the server that
/// the snapshot was taken from: MySQL switches them off there and forgets what they were.
async fn disabled_events(session: &mut Session) -> Result<Option<String>, MysqlError> {
    let events: Vec<(String, String)> = session
        .query(
            "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS \
             WHERE STATUS NOT IN ('ENABLED', 'DISABLED') ORDER BY EVENT_SCHEMA, EVENT_NAME",
        )
        .await?;
    Ok((!events.is_empty()).then(|| {
        let statements: Vec<String> = events
            .iter()
            .map(|(schema, name)| format!("ALTER EVENT {} ENABLE", quote::qualified(schema, name)))
            .collect();
        format!(
            "events that came by replication do not run; for those that shall: {}",
            statements.join("; ")
        )
    }))
}

/// What lets a restored server work: writes, and the event scheduler if it ran before.
fn opening_statements(event_scheduler: &str) -> Vec<String> {
    let mut statements = vec![
        "SET GLOBAL super_read_only = OFF".to_owned(),
        "SET GLOBAL read_only = OFF".to_owned(),
    ];
    if event_scheduler == "ON" {
        statements.push("SET GLOBAL event_scheduler = ON".to_owned());
    }
    statements
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one run, which live in its body"
)]
async fn replay_log(
    plan: &RestorePlan,
    repository: &Repository,
    server: &ServerUrl,
    session: &mut Session,
    facts: &TargetFacts,
    options: &RestoreOptions,
    observer: &Observer,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let (listener, address) = listen(server, options).await?;
    let used: Vec<u32> = plan
        .replay
        .members
        .iter()
        .filter_map(|member| member.stored.index.source.as_ref())
        .flat_map(|source| source.server_ids.iter().copied())
        .chain([facts.server.server_id])
        .collect();
    let mut random = rand::rng();
    let server_id = loop {
        let candidate = random.random_range(0x8000_0000..u32::MAX);
        if !used.contains(&candidate) {
            break candidate;
        }
    };
    let password = Secret::new(Uuid::new_v4().simple().to_string());
    let source = Server::start(
        listener,
        address,
        repository.clone(),
        (plan.replay.branch, plan.replay.members.clone()),
        plan.replay.set.clone(),
        ServeOptions {
            user: REPLAY_USER.to_owned(),
            password: password.clone(),
            version: facts.server.version.to_string(),
            server_id,
            server_uuid: Uuid::new_v4(),
        },
    );
    let how = ReplaySource {
        address,
        user: REPLAY_USER.to_owned(),
        password,
        workers: options.threads.max(1),
    };
    let report = |progress| observer(RestoreEvent::Replay(progress));
    let replayed = replay::replay(session, &source, &how, &plan.replay.set, &report, cancel).await;
    source.stop().await;
    Ok(replayed?)
}

/// A listener, and the address under which the server finds it.
async fn listen(
    server: &ServerUrl,
    options: &RestoreOptions,
) -> Result<(TcpListener, SocketAddr), RestoreError> {
    let failed = |address: String| move |source| RestoreError::Listen { address, source };
    // The address that packets to the server leave from is one that it can answer to.
    let name = server.address().to_string();
    let ours = TcpStream::connect((server.host.as_str(), server.port))
        .await
        .and_then(|probe| probe.local_addr())
        .map_err(failed(name))?
        .ip();
    let wanted = options.listen.unwrap_or_else(|| {
        let ip = if ours.is_loopback() {
            ours
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        SocketAddr::new(ip, 0)
    });
    let listener = TcpListener::bind(wanted)
        .await
        .map_err(failed(wanted.to_string()))?;
    let port = listener
        .local_addr()
        .map_err(failed(wanted.to_string()))?
        .port();
    let ip = options
        .advertise
        .unwrap_or(if wanted.ip().is_unspecified() {
            ours
        } else {
            wanted.ip()
        });
    Ok((listener, SocketAddr::new(ip, port)))
}
