//! What is asked of the archive: by the request, or by what was begun.

use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::error::Class;
use crate::gtid::GtidSet;
use crate::restore::RestoreRequest;
use crate::restore::checks::Reason;
use crate::restore::error::RestoreError;
use crate::restore::journal::Journal;
use crate::restore::parts::{PartsJournal, PartsRequest};
use crate::restore::plan::PlanError;
use crate::restore::target::Target;

/// What a request says of the state that it wants, if anything.
pub(in crate::restore) struct Wished<'a> {
    pub(in crate::restore) target: Option<&'a Target>,
    pub(in crate::restore) snapshot: Option<&'a SnapshotId>,
    pub(in crate::restore) branch: Option<BranchNumber>,
    pub(in crate::restore) skip: &'a GtidSet,
}

/// The state that a restore was begun for.
pub(in crate::restore) struct Begun<'a> {
    pub(in crate::restore) target: &'a Target,
    pub(in crate::restore) snapshot: &'a SnapshotId,
    pub(in crate::restore) branch: BranchNumber,
    pub(in crate::restore) skip: &'a GtidSet,
}

/// What of that state is not what is wished.
pub(in crate::restore) fn differences(wished: &Wished<'_>, begun: &Begun<'_>) -> Vec<String> {
    let mut differs = Vec::new();
    if wished.target.is_some_and(|target| target != begun.target) {
        differs.push(format!("for {}", begun.target));
    }
    if wished.snapshot.is_some_and(|id| id != begun.snapshot) {
        differs.push(format!("from snapshot {}", begun.snapshot));
    }
    if wished.branch.is_some_and(|branch| branch != begun.branch) {
        differs.push(format!("on branch {}", begun.branch));
    }
    if !wished.skip.is_empty() && wished.skip != begun.skip {
        differs.push(format!("without {:#}", begun.skip));
    }
    differs
}

/// What is looked for, in the end.
pub(in crate::restore) struct Asked<'a> {
    /// What the archive is asked for.
    pub(in crate::restore) target: Target,
    /// What the plan says of it.
    pub(in crate::restore) shown: Target,
    pub(in crate::restore) snapshot: Option<&'a SnapshotId>,
    pub(in crate::restore) branch: Option<BranchNumber>,
    pub(in crate::restore) skip: GtidSet,
}

impl<'a> Asked<'a> {
    /// The same for a restore of tables, whose request was held against what was begun.
    pub(in crate::restore) fn of_parts(
        request: &'a PartsRequest,
        begun: Option<&'a PartsJournal>,
    ) -> Result<Self, RestoreError> {
        match (begun, &request.target) {
            (Some(journal), _) => Ok(Self {
                target: Target::UntilGtid {
                    set: journal.run.cut.clone(),
                },
                shown: journal.run.target.clone(),
                snapshot: Some(&journal.run.snapshot),
                branch: Some(journal.run.branch),
                skip: journal.run.skip.clone(),
            }),
            (None, Some(target)) => Ok(Self {
                shown: target.clone(),
                target: target.clone(),
                snapshot: request.snapshot.as_ref(),
                branch: request.branch,
                skip: request.skip.clone(),
            }),
            (None, None) => Err(PlanError::Server {
                server: request.server.address().to_string(),
                reasons: vec![Reason {
                    what: "no target is given".to_owned(),
                    remedy: "a target (--until, --until-mark, --until-gtid or --before-gtid)"
                        .to_owned(),
                    class: Class::Refused,
                }],
            }
            .into()),
        }
    }

    /// What was begun is gone on with, whatever "latest" means by now; what is asked besides must be
    /// the same.
    pub(in crate::restore) fn new(
        request: &'a RestoreRequest,
        begun: Option<&'a Journal>,
    ) -> Result<Self, RestoreError> {
        let refused = |what: String, remedy: &str| {
            RestoreError::from(PlanError::Server {
                server: request.server.address().to_string(),
                reasons: vec![Reason {
                    what,
                    remedy: remedy.to_owned(),
                    class: Class::Refused,
                }],
            })
        };
        let Some(journal) = begun else {
            let Some(target) = request.target.clone() else {
                return Err(refused(
                    "there is nothing to go on with: no restore was begun on it, or it came to its \
                     end"
                        .to_owned(),
                    "a target (--until, --until-mark, --until-gtid or --before-gtid)",
                ));
            };
            return Ok(Self {
                shown: target.clone(),
                target,
                snapshot: request.snapshot.as_ref(),
                branch: request.branch,
                skip: request.skip.clone(),
            });
        };
        let run = &journal.run;
        let differs = differences(
            &Wished {
                target: request.target.as_ref(),
                snapshot: request.snapshot.as_ref(),
                branch: request.branch,
                skip: &request.skip,
            },
            &Begun {
                target: &run.target,
                snapshot: &run.snapshot,
                branch: run.branch,
                skip: &run.skip,
            },
        );
        if !differs.is_empty() {
            return Err(refused(
                format!(
                    "what was begun on it is another restore: {}",
                    differs.join(", ")
                ),
                "--resume without a target, which goes on with what was begun; or --wipe to begin \
                 anew",
            ));
        }
        Ok(Self {
            target: Target::UntilGtid {
                set: run.cut.clone(),
            },
            shown: run.target.clone(),
            snapshot: Some(&run.snapshot),
            branch: Some(run.branch),
            skip: run.skip.clone(),
        })
    }
}
