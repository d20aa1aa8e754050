//! The run: the plan's steps, one by one.
//!
//! Each looks first whether what it leads to is there already. What was decided for a server is
//! decided for that very one: its UUID is compared before it is touched.

mod outcome;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::clone::Cloning;
use super::error::ReseedError;
use super::plan::{PlannedMember, ReseedPlan};
use super::prepare::Prepared;
use super::report::{Discarded, Observer, ReseedEvent, ReseedOptions, ReseedReport};
use super::state::ServerState;
use super::step::{Action, BOOTSTRAP, PlannedBranch, Step, fence_statement};
use crate::archive::identity::NewBranch;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{Fencer, Repository};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Secret;
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::gtid_executed;
use crate::mysql::server_url::{HostPort, ServerUrl};
use crate::mysql::session::Session;
use crate::observe::fail_point::FailPoint;
use crate::observe::phase::PhaseClock;
use crate::restore::target::Target;
use crate::restore::{self, RestoreOptions, RestoreRequest};

/// `ER_REPLICA_CHANNEL_DOES_NOT_EXIST`: one that shall be forgotten may never have been.
const NO_CHANNEL: u16 = 3074;
/// How often somebody looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a statement that starts or stops a group may take: a member waits up to a minute for
/// others (`group_replication_components_stop_timeout` is 300 s).
const GROUP_LIMIT: Duration = Duration::from_secs(330);
/// A member that has begun to join may not be listed yet.
const LISTING_GRACE: Duration = Duration::from_secs(30);

/// Does what was planned.
///
/// # Errors
///
/// [`ReseedError`]. Whatever was done stays; the same call goes on from there.
pub async fn run(
    prepared: Prepared,
    options: ReseedOptions,
    observer: Observer,
    cancel: CancellationToken,
) -> Result<ReseedReport, ReseedError> {
    let started = SystemClock.now();
    let password = prepared.password.unwrap_or_else(fresh_password);
    let mut reseed = Reseed {
        plan: prepared.plan,
        repository: prepared.repository,
        primary: prepared.primary,
        members: prepared.members,
        others: prepared.others,
        password,
        held: prepared.held,
        clock: prepared.clock,
        options,
        observer,
        cancel,
    };
    let steps = std::mem::take(&mut reseed.plan.steps);
    let mut phase = "";
    for (at, step) in steps.iter().enumerate() {
        if !phase.is_empty() && phase != step.phase {
            reseed.clock.end(phase, 0);
        }
        phase = step.phase;
        if reseed.cancel.is_cancelled() {
            return Err(ReseedError::Cancelled);
        }
        (reseed.observer)(ReseedEvent::Step {
            number: at + 1,
            of: steps.len(),
            server: step.server.as_ref().map(ToString::to_string),
            what: step.what.clone(),
        });
        reseed.options.fail_points.pass(FailPoint::ReseedStep);
        reseed.take(step).await?;
        reseed.options.fail_points.pass(FailPoint::ReseedStepDone);
    }
    reseed.clock.end(phase, 0);
    reseed.report(started).await
}

/// Enough that nobody guesses it, in letters that need no quoting; it satisfies validate_password,
/// and a source's password has at most 32 characters.
fn fresh_password() -> Secret {
    let random = Uuid::new_v4().simple().to_string();
    Secret::new(format!("Qb-{}", random.split_at(29).0))
}

/// Keeps two objects of one second apart.
fn random() -> u32 {
    Uuid::new_v4().as_fields().0
}

struct Reseed {
    plan: ReseedPlan,
    repository: Repository,
    primary: ServerUrl,
    members: Vec<ServerUrl>,
    others: Vec<ServerUrl>,
    password: Secret,
    held: GtidSet,
    clock: PhaseClock,
    options: ReseedOptions,
    observer: Observer,
    cancel: CancellationToken,
}

impl Reseed {
    async fn take(&self, step: &Step) -> Result<(), ReseedError> {
        let Some(at) = &step.server else {
            return match &step.action {
                Action::Record(branch) => self.record(branch).await,
                _ => Ok(()),
            };
        };
        match &step.action {
            Action::Fence { lasting } => self.fence(at, *lasting).await,
            Action::Leave => self.leave(at).await,
            Action::List { .. } => self.list(at).await,
            Action::Record(branch) => self.record(branch).await,
            Action::Ready(ready) => {
                self.may_take(at).await?;
                self.make(at, &ready.statements(self.password.expose()))
                    .await
            }
            Action::Credentials { ready, primary } => {
                self.make(at, &ready.renewed(self.password.expose(), *primary))
                    .await
            }
            Action::Bootstrap => self.bootstrap(at).await,
            Action::Open { statements } | Action::Metadata { statements } => {
                self.make(at, statements).await
            }
            Action::Clone { donor, user } => {
                self.may_take(at).await?;
                self.options.fail_points.pass(FailPoint::ReseedFilling);
                let cloning = Cloning {
                    server: self.url(at)?,
                    afterwards: &self.primary.with_host_port(at),
                    donor,
                    user,
                    password: self.password.expose(),
                    options: &self.options,
                    cancel: &self.cancel,
                };
                cloning.run(&self.observer).await
            }
            Action::Load { set, branch } => {
                self.may_take(at).await?;
                self.options.fail_points.pass(FailPoint::ReseedFilling);
                self.load(at, set, *branch).await
            }
            Action::Join => self.join(at).await,
            Action::Check => self.check().await,
        }
    }

    fn url(&self, at: &HostPort) -> Result<&ServerUrl, ReseedError> {
        std::iter::once(&self.primary)
            .chain(&self.members)
            .chain(&self.others)
            .find(|url| url.address() == *at)
            .ok_or_else(|| MysqlError::protocol(format!("{at} is none of the servers")).into())
    }

    /// A connection; one that was made a copy has the accounts of the new primary.
    async fn connect(&self, at: &HostPort) -> Result<Session, ReseedError> {
        let mut session = match Session::connect(self.url(at)?).await {
            Ok(session) => session,
            Err(error) if error.code().is_some() => {
                Session::connect(&self.primary.with_host_port(at))
                    .await
                    .map_err(|_| error)?
            }
            Err(error) => return Err(error.into()),
        };
        session.set_timeout(Some(GROUP_LIMIT));
        Ok(session)
    }

    async fn make(&self, at: &HostPort, statements: &[String]) -> Result<(), ReseedError> {
        let mut session = self.connect(at).await?;
        for statement in statements {
            match session.execute(statement).await {
                Err(error)
                    if error.code() == Some(NO_CHANNEL)
                        && statement.starts_with("RESET REPLICA") => {}
                other => {
                    other?;
                }
            }
        }
        session.close().await;
        Ok(())
    }

    /// Before a server is emptied: it must be the planned one, must not have begun to work elsewhere,
    /// and must not have got anything that was not seen.
    async fn may_take(&self, at: &HostPort) -> Result<(), ReseedError> {
        let mut session = self.connect(at).await?;
        let state = ServerState::load(&mut session).await?;
        session.close().await;
        let changed = |what: String| ReseedError::Changed {
            server: at.clone(),
            what,
        };
        let uuid = state.facts.server_uuid;
        if *at == self.plan.primary.address {
            if uuid != self.plan.primary.uuid {
                return Err(changed(format!("its server_uuid is {uuid} now")));
            }
            return Ok(());
        }
        let Some(planned) = self.member(at) else {
            return Ok(());
        };
        if uuid != planned.uuid {
            return Err(changed(format!("its server_uuid is {uuid} now")));
        }
        if state.is_in_group() {
            return Err(changed("it is in a group again".to_owned()));
        }
        let primary = self.executed(&self.plan.primary.address).await?;
        let surprise = state
            .facts
            .gtid_executed
            .subtract(&primary)
            .subtract(&planned.lost);
        // What it took before it was made read-only was listed then.
        if !surprise.is_empty() && planned.lost.is_empty() {
            return Err(changed(format!("it holds {surprise:#} now")));
        }
        Ok(())
    }

    fn member(&self, at: &HostPort) -> Option<&PlannedMember> {
        self.plan.members.iter().find(|m| m.address == *at)
    }

    async fn executed(&self, at: &HostPort) -> Result<GtidSet, ReseedError> {
        let mut session = self.connect(at).await?;
        let set = gtid_executed(&mut session).await?;
        session.close().await;
        Ok(set)
    }

    async fn fence(&self, at: &HostPort, lasting: bool) -> Result<(), ReseedError> {
        self.make(at, &[fence_statement(lasting).to_owned()]).await
    }

    async fn leave(&self, at: &HostPort) -> Result<(), ReseedError> {
        let mut session = self.connect(at).await?;
        session.execute("STOP GROUP_REPLICATION").await?;
        session.execute(fence_statement(false)).await?;
        session.close().await;
        Ok(())
    }

    /// Keeps the list of what a server has and the new primary has not: as it is now, behind the fence.
    async fn list(&self, at: &HostPort) -> Result<(), ReseedError> {
        let mut session = self.connect(at).await?;
        let state = ServerState::load(&mut session).await?;
        session.close().await;
        let primary = self.executed(&self.plan.primary.address).await?;
        let gtids = state.facts.gtid_executed.subtract(&primary);
        let listed = SystemClock.now();
        let discarded = Discarded {
            server: at.to_string(),
            server_uuid: state.facts.server_uuid,
            listed,
            primary: self.plan.primary.uuid,
            archived: gtids.intersect(&self.held),
            gtids,
        };
        self.repository
            .put_discarded(listed, random(), state.facts.server_uuid, &discarded)
            .await?;
        Ok(())
    }

    /// Records the new history, and ends every stream of the old one.
    async fn record(&self, planned: &PlannedBranch) -> Result<(), ReseedError> {
        let now = SystemClock.now();
        let new = NewBranch {
            parent: planned.parent,
            fork: planned.fork.clone(),
            lost: planned.lost.clone(),
            reason: planned.reason.clone(),
            group: Some(planned.group),
            server: Some(planned.server),
        };
        let branch = self.repository.new_branch(new, now).await?;
        self.options.fail_points.pass(FailPoint::ReseedRecorded);
        let fencer = Fencer {
            source: self.plan.primary.uuid,
            address: self.plan.primary.address.to_string(),
            host: self.options.host.clone(),
            now,
        };
        self.repository.fence_for(&branch, &fencer).await?;
        Ok(())
    }

    async fn bootstrap(&self, at: &HostPort) -> Result<(), ReseedError> {
        let mut session = self.connect(at).await?;
        let state = ServerState::load(&mut session).await?;
        if !state.is_in_group() {
            let [on, start, off] = BOOTSTRAP;
            session.execute(on).await?;
            self.options
                .fail_points
                .pass(FailPoint::ReseedBootstrapping);
            let begun = session.execute(start).await;
            // Whatever came of it: left on, the next start would begin another group.
            session.execute(off).await?;
            if let Err(error) = begun {
                let log = log(&mut session).await;
                return Err(ReseedError::NotJoined {
                    server: at.clone(),
                    state: format!("not ({error})"),
                    log,
                });
            }
        }
        session.close().await;
        self.wait_online(at, self.plan.primary.uuid).await
    }

    async fn join(&self, at: &HostPort) -> Result<(), ReseedError> {
        let mut session = self.connect(at).await?;
        let state = ServerState::load(&mut session).await?;
        if !state.is_in_group()
            && let Err(error) = session.execute("START GROUP_REPLICATION").await
        {
            let log = log(&mut session).await;
            return Err(ReseedError::NotJoined {
                server: at.clone(),
                state: format!("not ({error})"),
                log,
            });
        }
        self.options.fail_points.pass(FailPoint::ReseedJoining);
        session.close().await;
        self.wait_online(at, state.facts.server_uuid).await?;
        self.make(at, &[START_ON_BOOT.to_owned()]).await
    }

    /// Waits until the server and the primary agree that it is ONLINE.
    async fn wait_online(&self, at: &HostPort, uuid: Uuid) -> Result<(), ReseedError> {
        let since = std::time::Instant::now();
        loop {
            let mut session = self.connect(at).await?;
            let state = ServerState::load(&mut session).await?;
            let own = state.own().map(|own| own.state);
            if state.is_online_in(self.plan.group) && self.primary_sees(uuid).await? {
                session.close().await;
                return Ok(());
            }
            let recovering = state.is_in_group();
            if !recovering && since.elapsed() >= LISTING_GRACE {
                let log = log(&mut session).await;
                return Err(ReseedError::NotJoined {
                    server: at.clone(),
                    state: own.map_or_else(|| "OFFLINE".to_owned(), |state| state.to_string()),
                    log,
                });
            }
            session.close().await;
            let primary = self.executed(&self.plan.primary.address).await?;
            (self.observer)(ReseedEvent::Joining {
                server: at.to_string(),
                state: own.map_or_else(|| "OFFLINE".to_owned(), |state| state.to_string()),
                missing: primary.subtract(&state.facts.gtid_executed).count(),
            });
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.cancel.cancelled() => return Err(ReseedError::Cancelled),
            }
        }
    }

    async fn primary_sees(&self, uuid: Uuid) -> Result<bool, ReseedError> {
        let mut session = self.connect(&self.plan.primary.address).await?;
        let state = ServerState::load(&mut session).await?;
        session.close().await;
        let mut members = state.group.members.iter();
        Ok(state.is_primary_of(self.plan.group)
            && members.any(|member| {
                member.uuid == Some(uuid)
                    && member.state == crate::mysql::topology::MemberState::Online
            }))
    }

    /// Fills a member from the archive: the donor is not touched.
    async fn load(
        &self,
        at: &HostPort,
        set: &GtidSet,
        branch: BranchNumber,
    ) -> Result<(), ReseedError> {
        let url = self.url(at)?.clone();
        let failed = |source: restore::RestoreError| ReseedError::Restore {
            server: at.clone(),
            source: Box::new(source),
        };
        let request = RestoreRequest {
            branch: Some(branch),
            wipe: Some(at.clone()),
            ..RestoreRequest::new(Target::UntilGtid { set: set.clone() }, url)
        };
        let going_on = RestoreRequest {
            resume: true,
            wipe: None,
            ..request.clone()
        };
        // What an earlier run began is gone on with, if it is this; else it is begun anew.
        let prepared = match restore::prepare(self.repository.clone(), going_on).await {
            Ok(prepared) if prepared.plan.resume.is_some() => prepared,
            _ => restore::prepare(self.repository.clone(), request)
                .await
                .map_err(failed)?,
        };
        let observer = Arc::clone(&self.observer);
        let options = RestoreOptions {
            threads: self.options.threads,
            fail_points: self.options.fail_points.clone(),
            ..RestoreOptions::default()
        };
        let told: restore::Observer = Arc::new(move |event| observer(ReseedEvent::Load(event)));
        restore::run(prepared, options, told, self.cancel.clone())
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// Every member is ONLINE, and has what the primary has.
    async fn check(&self) -> Result<(), ReseedError> {
        let primary = &self.plan.primary;
        self.wait_online(&primary.address, primary.uuid).await?;
        self.make(&primary.address, &[START_ON_BOOT.to_owned()])
            .await?;
        let set = self.executed(&primary.address).await?;
        for member in &self.plan.members {
            self.wait_online(&member.address, member.uuid).await?;
            let mut session = self.connect(&member.address).await?;
            let waited: Option<u8> = session
                .query_one(format!(
                    "SELECT WAIT_FOR_EXECUTED_GTID_SET('{set:#}', {})",
                    GROUP_LIMIT.as_secs() - 30
                ))
                .await?;
            if waited != Some(0) {
                let has = gtid_executed(&mut session).await?;
                return Err(ReseedError::Different {
                    server: member.address.clone(),
                    missing: Box::new(set.subtract(&has)),
                });
            }
            session.close().await;
        }
        Ok(())
    }
}

/// A member that restarts joins again.
const START_ON_BOOT: &str = "SET PERSIST group_replication_start_on_boot = ON";

/// The last errors of the group in a server's log (performance_schema.error_log, from 8.0.22 on).
async fn log(session: &mut Session) -> Vec<String> {
    let asked = session
        .query::<String>(
            "SELECT LEFT(DATA, 300) FROM performance_schema.error_log \
             WHERE SUBSYSTEM = 'Repl' AND PRIO = 'Error' \
             AND LOGGED > NOW(6) - INTERVAL 10 MINUTE ORDER BY LOGGED DESC LIMIT 3",
        )
        .await;
    asked.unwrap_or_default()
}
