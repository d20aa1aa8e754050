//! Waiting until the archive holds what is asked for.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::report::{Observer, RestoreEvent};
use super::target::Target;
use crate::archive::history::{Member, complete_to};
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{LogReader, Repository};
use crate::clock::Clock;
use crate::error::Classified as _;
use crate::gtid::GtidSet;

/// How often the log is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The archive holds it.
    Covered,
    /// It does not, and the time is over.
    InVain,
}

/// How far the archive is while somebody waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Up to which moment it is complete.
    #[serde(with = "crate::clock::micros_option")]
    pub complete_to: Option<DateTime<Utc>>,
    /// The moment that is waited for, if it is one.
    #[serde(with = "crate::clock::micros_option")]
    pub moment: Option<DateTime<Utc>>,
    /// The transactions that are waited for.
    pub missing: GtidSet,
    /// For how long.
    pub seconds: u64,
}

impl Waiting {
    fn is_over(&self) -> bool {
        let is_complete = self
            .moment
            .is_none_or(|moment| self.complete_to.is_some_and(|to| to >= moment));
        is_complete && self.missing.is_empty()
    }
}

/// Waits until the archive is complete up to the target, at most for `limit`.
///
/// A store that fails for now is waited for as well.
///
/// # Errors
///
/// [`RestoreError::Cancelled`]; what reading the log fails with.
pub async fn wait(
    repository: &Repository,
    target: &Target,
    branch: Option<BranchNumber>,
    limit: Option<Duration>,
    clock: &dyn Clock,
    observer: &Observer,
    cancel: &CancellationToken,
) -> Result<Waited, RestoreError> {
    let branch = match branch {
        Some(branch) => branch,
        None => repository.newest_branch().await?,
    };
    // What snapshots and older branches hold is there already.
    let mut had = GtidSet::new();
    for snapshot in repository.snapshots().await? {
        had.extend_from(&snapshot.gtid_executed);
    }
    let history = repository.history(branch).await?;
    had.extend_from(&history.end().unwrap_or_default());
    let mut reached = history.complete_to();
    let mut log = LogReader::new(repository.clone(), branch);
    let started = clock.now();
    loop {
        match log.chain().await {
            Ok(chain) => {
                had.extend_from(&chain.end().unwrap_or_default());
                let members: Vec<Member> = chain.segments.into_iter().map(Member::whole).collect();
                reached = reached.max(complete_to(&members));
            }
            Err(error) if error.class().is_transient() => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot look now");
            }
            Err(error) => return Err(error.into()),
        }
        let seconds = (clock.now() - started).num_seconds().unsigned_abs();
        let waiting = Waiting {
            complete_to: reached,
            moment: match target {
                Target::Until { moment } => Some(*moment),
                _ => None,
            },
            missing: wanted(target).subtract(&had),
            seconds,
        };
        if waiting.is_over() {
            return Ok(Waited::Covered);
        }
        if limit.is_some_and(|limit| seconds >= limit.as_secs()) {
            return Ok(Waited::InVain);
        }
        observer(RestoreEvent::Waiting(waiting));
        tokio::select! {
            () = clock.sleep(PAUSE) => {}
            () = cancel.cancelled() => return Err(RestoreError::Cancelled),
        }
    }
}

/// The transactions that must be there.
fn wanted(target: &Target) -> GtidSet {
    match target {
        Target::Latest | Target::Until { .. } => GtidSet::new(),
        Target::UntilMark { set, .. } | Target::UntilGtid { set } => set.clone(),
        Target::BeforeGtid { gtid } => GtidSet::from(gtid.clone()),
    }
}
