//! How a stream begins: what is known and decided before the claim.
//!
//! Everything that could refuse the run is looked at first, so that a run that would be refused
//! pushes nobody out. A gap or a fork is never passed over in silence: the run stops and names the
//! transactions, unless the operator has named the very same ones.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::claim::{self, Claimant, Claimed};
use super::error::StreamError;
use super::home::{Home, goes_on};
use super::liveness::wait_for_turn;
use super::options::StreamOptions;
use super::parting;
use super::recover::survey;
use super::report::{Observer, StreamEvent, StreamPlan};
use super::spool::{Leftovers, Spool};
use super::upstream::{Source, Upstream};
use crate::archive::identity::NewBranch;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::clock::Clock;
use crate::error::{Classified as _, with_causes};
use crate::gtid::GtidSet;
use crate::observe::fail_point::FailPoint;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a new primary may need to receive what its group has already agreed on.
const APPLY_GRACE: Duration = Duration::from_secs(60);
/// How soon a standby looks again at what has failed, at first.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// And at last.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What is known before the claim.
pub(super) struct Start {
    pub(super) branch: BranchNumber,
    pub(super) source: Box<dyn Source>,
    /// Where a log without segments begins.
    pub(super) origin: GtidSet,
    pub(super) have: GtidSet,
    pub(super) complete_to: Option<DateTime<Utc>>,
    /// Nothing older than this is missing in the archive, but for accepted gaps.
    pub(super) since: DateTime<Utc>,
    /// What the source has purged and the operator gives up.
    pub(super) accepted_gap: GtidSet,
    /// What the source lacks and the operator leaves behind in the old history.
    pub(super) left_behind: Option<GtidSet>,
    /// The newest history, which the operator gives up for an older one.
    given_up: Option<BranchNumber>,
    /// The reseed that the history comes from.
    pub(super) home: Option<Home>,
}

impl Start {
    /// Looks at the archive and the source; `leftovers` are what earlier runs have left here.
    pub(super) async fn find(
        repository: &Repository,
        upstream: &mut dyn Upstream,
        options: &StreamOptions,
        clock: &dyn Clock,
        leftovers: &[Leftovers],
        replica_uuid: Uuid,
    ) -> Result<Self, StreamError> {
        let Newest {
            branch,
            origin,
            home,
            given_up,
        } = Newest::read(repository, options.back_to).await?;
        let source = upstream.find().await?;
        let mut start = Self {
            branch,
            origin: GtidSet::new(),
            have: GtidSet::new(),
            complete_to: None,
            since: clock.now(),
            accepted_gap: GtidSet::new(),
            left_behind: None,
            given_up,
            home,
            source,
        };
        let snapshots = repository.snapshots().await?;
        start.origin = match (origin, snapshots.first()) {
            (Some(origin), _) => origin,
            (None, Some(snapshot)) => {
                start.since = snapshot.started;
                snapshot.gtid_executed.clone()
            }
            (None, None) => start.source.history().await?.executed,
        };
        let chain = repository.chain(branch).await?;
        // Behind this point nothing but parts of an unfinished transaction may stand.
        start.have = chain
            .resume_point()
            .map_or_else(|| start.origin.clone(), |stored| stored.index.after());
        start.complete_to = chain.complete_to();
        start.since = start.complete_to.unwrap_or(start.since);
        if let Some(home) = &start.home {
            start.source = home.settle(start.source, upstream, &start.have).await?;
        }
        start
            .decide(
                repository,
                upstream,
                options,
                clock,
                leftovers,
                replica_uuid,
            )
            .await?;
        Ok(start)
    }

    async fn decide(
        &mut self,
        repository: &Repository,
        upstream: &mut dyn Upstream,
        options: &StreamOptions,
        clock: &dyn Clock,
        leftovers: &[Leftovers],
        replica_uuid: Uuid,
    ) -> Result<(), StreamError> {
        let on_disk = match self.given_up {
            None => survey(repository, self.branch, &self.have, leftovers).await?,
            // What lies here is of no history that goes on under the same number.
            Some(_) => GtidSet::new(),
        };
        let mut held = self.have.union(&on_disk);
        let missing = match check_fork(&mut *self.source, &held, clock).await {
            Ok(()) => GtidSet::new(),
            Err(StreamError::Fork { server, missing }) if options.new_branch.is_none() => {
                return Err(StreamError::Fork { server, missing });
            }
            Err(StreamError::Fork { missing, .. }) => missing,
            Err(error) => return Err(error),
        };
        if let Some(named) = &options.new_branch {
            let source = &mut *self.source;
            let parted = parting::find(repository, self.branch, source, replica_uuid).await?;
            let lost = missing.union(&parted);
            if !lost.is_empty() {
                covers("--new-branch", named, &lost)?;
                self.have = self.have.subtract(&lost);
                // What lies here of the history that is left is not put into the new one.
                held = self.have.clone();
                self.left_behind = Some(lost);
            }
        }
        match check_gap(&mut *self.source, &held).await {
            Ok(()) => Ok(()),
            Err(StreamError::Gap { server, missing }) => {
                let source = &mut *self.source;
                if let Some(holder) = upstream.find_holder(&missing, &held, source).await? {
                    self.source = holder;
                    return Ok(());
                }
                match &options.accept_gap {
                    None => return Err(StreamError::Gap { server, missing }),
                    Some(named) => covers("--accept-gap", named, &missing)?,
                }
                self.accepted_gap = missing;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What would be done.
    pub(super) async fn plan(self, repository: &Repository) -> Result<StreamPlan, StreamError> {
        let newest = repository.newest_epoch(None).await?;
        let info = self.source.info();
        let is_new = self.left_behind.is_some() || self.given_up.is_some();
        let last = self.given_up.unwrap_or(self.branch).0;
        Ok(StreamPlan {
            server: info.name.clone(),
            uuid: info.uuid,
            version: info.version.clone(),
            topology: info.topology.clone(),
            branch: last + u32::from(is_new),
            epoch: newest.map_or(0, |epoch| epoch.0) + 1,
            start: self.have,
            accepted_gap: self.accepted_gap,
            left_behind: self.left_behind,
            given_up: self.given_up.map(|branch| branch.0),
        })
    }

    /// Records a new history, if that was decided.
    pub(super) async fn make_branch(
        &mut self,
        repository: &Repository,
        options: &StreamOptions,
        now: DateTime<Utc>,
    ) -> Result<(), StreamError> {
        let server = &self.source.info().name;
        let (lost, reason) = match (self.left_behind.clone(), self.given_up) {
            (None, None) => return Ok(()),
            (Some(lost), None) => {
                let reason = format!("{server} lacks {lost:#}");
                (lost, reason)
            }
            (lost, Some(given_up)) => {
                let branch = self.branch;
                let reason = format!("branch {branch} goes on after all and not {given_up}");
                (lost.unwrap_or_default(), reason)
            }
        };
        let fork = self.have.clone();
        let new = NewBranch::failover(self.branch, fork.clone(), lost, reason);
        self.branch = repository.new_branch(new, now).await?.branch;
        options.fail_points.pass(FailPoint::BranchMade);
        self.origin = fork;
        self.complete_to = None;
        Ok(())
    }
}

/// The history that is written to.
struct Newest {
    branch: BranchNumber,
    /// Where its log begins, if a decision has said so.
    origin: Option<GtidSet>,
    /// The reseed that it comes from.
    home: Option<Home>,
    /// The newest one, if this is an older one that shall go on instead.
    given_up: Option<BranchNumber>,
}

impl Newest {
    /// Reads it; `back_to` is a decision for an older one.
    async fn read(
        repository: &Repository,
        back_to: Option<BranchNumber>,
    ) -> Result<Self, StreamError> {
        let branches = repository.branches().await?;
        let newest = branches.last().map(|branch| branch.branch);
        let (newest, mut given_up) = (newest.unwrap_or(BranchNumber(1)), None);
        let mut branch = newest;
        if let Some(back) = back_to
            && !goes_on(&branches, newest, back)
        {
            (branch, given_up) = (back, Some(newest));
        }
        let found = branches.iter().find(|found| found.branch == branch);
        let Some(found) = found else {
            return match given_up {
                Some(_) => Err(ArchiveError::NoBranch { branch }.into()),
                None => Ok(Self {
                    branch,
                    origin: None,
                    home: None,
                    given_up,
                }),
            };
        };
        Ok(Self {
            branch,
            origin: found.parent.map(|_| found.fork.clone()),
            home: Home::of(&branches, branch),
            given_up,
        })
    }
}

/// A decision must name everything that it gives up, so that a flag that was left in a
/// configuration accepts nothing new.
fn covers(flag: &'static str, named: &GtidSet, needed: &GtidSet) -> Result<(), StreamError> {
    if needed.is_subset(named) {
        return Ok(());
    }
    Err(StreamError::DecisionTooSmall {
        flag,
        named: named.clone(),
        needed: needed.clone(),
    })
}

/// Fails if the source lacks something of `have`.
///
/// What the source is about to commit it does not lack: with `AFTER_SYNC` it may have sent a
/// transaction before, and wait for the acknowledgement. A primary that was just elected may still
/// be applying what the old one sent: it is given the time that this takes.
pub(super) async fn check_fork(
    source: &mut dyn Source,
    have: &GtidSet,
    clock: &dyn Clock,
) -> Result<(), StreamError> {
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(500);
    loop {
        let history = source.history().await?;
        let missing = have
            .subtract(&history.executed)
            .subtract(&history.pending.owned);
        if missing.is_empty() {
            return Ok(());
        }
        if missing.is_subset(&history.pending.queued) {
            waited = Duration::ZERO;
        } else if !source.info().may_lag || waited >= APPLY_GRACE {
            return Err(StreamError::Fork {
                server: source.info().name.clone(),
                missing,
            });
        }
        clock.sleep(step).await;
        waited += step;
    }
}

/// Fails if the source has purged something that is not in `held`.
async fn check_gap(source: &mut dyn Source, held: &GtidSet) -> Result<(), StreamError> {
    let missing = source.history().await?.purged.subtract(held);
    if missing.is_empty() {
        return Ok(());
    }
    Err(StreamError::Gap {
        server: source.info().name.clone(),
        missing,
    })
}

/// Finds the source to go on with, that is of the history and can go on from `have` without a hole
/// or a fork.
pub(super) async fn next_source(
    upstream: &mut dyn Upstream,
    home: Option<&Home>,
    have: &GtidSet,
    clock: &dyn Clock,
) -> Result<Box<dyn Source>, StreamError> {
    let mut source = upstream.find().await?;
    if let Some(home) = home {
        source = home.settle(source, upstream, have).await?;
    }
    check_fork(&mut *source, have, clock).await?;
    match check_gap(&mut *source, have).await {
        Ok(()) => Ok(source),
        Err(StreamError::Gap { server, missing }) => upstream
            .find_holder(&missing, have, &mut *source)
            .await?
            .ok_or(StreamError::Gap { server, missing }),
        Err(error) => Err(error),
    }
}

/// A stream that has the archive.
pub(super) struct Begun {
    pub(super) start: Start,
    pub(super) claimed: Claimed,
    pub(super) spool: Option<Spool>,
    pub(super) leftovers: Vec<Leftovers>,
}

/// What a run needs from outside.
pub(super) struct Environment<'a> {
    pub(super) repository: &'a Repository,
    pub(super) options: &'a StreamOptions,
    pub(super) clock: &'a dyn Clock,
    pub(super) observer: &'a Observer,
    pub(super) cancel: &'a CancellationToken,
}

/// Waits for its turn, decides, and claims; `None` if it was cancelled before.
///
/// A standby outlives what passes: a store or servers that are away, and a race that it loses.
pub(super) async fn begin(
    environment: &Environment<'_>,
    upstream: &mut dyn Upstream,
    replica_uuid: Uuid,
) -> Result<Option<Begun>, StreamError> {
    let standby = environment.options.standby;
    if !standby {
        // Servers are asked for the other streamer, so they are looked for first.
        upstream.find().await?;
    }
    let mut pause = SHORTEST_PAUSE;
    loop {
        match take_turn(environment, upstream, replica_uuid).await {
            Ok(Turn::Begun(begun)) => return Ok(Some(*begun)),
            Ok(Turn::Cancelled) => return Ok(None),
            Ok(Turn::Lost) if standby => pause = SHORTEST_PAUSE,
            Ok(Turn::Lost) => {
                let newest = environment.repository.newest_epoch(None).await?;
                let newer = newest.map_or(0, |epoch| epoch.0);
                return Err(StreamError::Fenced { own: newer, newer });
            }
            Err(error) if standby && error.class().is_transient() => {
                (environment.observer)(StreamEvent::Interrupted {
                    reason: with_causes(&error),
                    retry_seconds: pause.as_secs_f64(),
                });
                environment.clock.sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

enum Turn {
    Begun(Box<Begun>),
    Cancelled,
    /// Another streamer was quicker.
    Lost,
}

async fn take_turn(
    environment: &Environment<'_>,
    upstream: &mut dyn Upstream,
    replica_uuid: Uuid,
) -> Result<Turn, StreamError> {
    let Environment {
        repository,
        options,
        clock,
        observer,
        cancel,
    } = environment;
    if !wait_for_turn(repository, upstream, options, *clock, observer, cancel).await? {
        return Ok(Turn::Cancelled);
    }
    let (spool, leftovers) = open_spool(environment)?;
    let mut start = Start::find(
        repository,
        upstream,
        options,
        *clock,
        &leftovers,
        replica_uuid,
    )
    .await?;
    start.make_branch(repository, options, clock.now()).await?;
    let claimant = Claimant {
        source: start.source.info().uuid,
        address: start.source.info().name.clone(),
        host: options.host.clone(),
        now: clock.now(),
        replica_uuid,
        accepted_gap: start.accepted_gap.clone(),
    };
    options.fail_points.pass(FailPoint::BeforeClaim);
    let claimed = claim::acquire(repository, start.branch, &start.origin, &claimant).await?;
    let Some(claimed) = claimed else {
        return Ok(Turn::Lost);
    };
    options.fail_points.pass(FailPoint::AfterClaim);
    // A history that was begun before our claim became visible is the one to go on with.
    if repository.newest_branch().await? != start.branch {
        return Ok(Turn::Lost);
    }
    Ok(Turn::Begun(Box::new(Begun {
        start,
        claimed,
        spool,
        leftovers,
    })))
}

fn open_spool(
    environment: &Environment<'_>,
) -> Result<(Option<Spool>, Vec<Leftovers>), StreamError> {
    let Some(options) = &environment.options.spool else {
        return Ok((None, Vec::new()));
    };
    let archive = environment.repository.identity().archive;
    match Spool::open(options, archive) {
        Ok((spool, leftovers)) => Ok((Some(spool), leftovers)),
        Err(error) if options.required => Err(error.into()),
        Err(error) => {
            (environment.observer)(StreamEvent::Warning {
                message: format!(
                    "there is no spool: {}; while the store is away the stream stops reading",
                    with_causes(&error)
                ),
            });
            Ok((None, Vec::new()))
        }
    }
}
