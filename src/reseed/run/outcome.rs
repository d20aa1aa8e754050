//! The report of a run.

use chrono::{DateTime, Utc};

use super::{Reseed, random};
use crate::clock::{Clock as _, SystemClock};
use crate::gtid::GtidSet;
use crate::observe::phase::Phase;
use crate::reseed::error::ReseedError;
use crate::reseed::plan::Fill;
use crate::reseed::report::{ReportedMember, ReseedReport};

impl Reseed {
    /// Tells what was done, and keeps it in the archive.
    pub(super) async fn report(
        mut self,
        started: DateTime<Utc>,
    ) -> Result<ReseedReport, ReseedError> {
        let plan = &self.plan;
        let executed = self.executed(&plan.primary.address).await?;
        let phases = merged(std::mem::take(&mut self.clock).finish());
        let members = plan.members.iter().map(|member| ReportedMember {
            server: member.address.to_string(),
            server_uuid: member.uuid,
            role: "SECONDARY",
            fill: Some(member.fill),
            lost: member.lost.clone(),
        });
        let primary = ReportedMember {
            server: plan.primary.address.to_string(),
            server_uuid: plan.primary.uuid,
            role: "PRIMARY",
            fill: None::<Fill>,
            lost: GtidSet::new(),
        };
        let finished = SystemClock.now();
        let mut report = ReseedReport {
            archive: self.repository.storage().url(),
            group: plan.group,
            branch: plan.branch.number,
            parent: plan.branch.parent,
            fork: plan.branch.fork.clone(),
            lost: plan.branch.lost.clone(),
            members: std::iter::once(primary).chain(members).collect(),
            gtid_executed: executed,
            started,
            finished,
            phases,
            notes: plan.notes.clone(),
            kept: None,
        };
        match self
            .repository
            .put_reseed(finished, random(), &report)
            .await
        {
            Ok(key) => report.kept = Some(key),
            Err(error) => report.notes.push(format!(
                "the report could not be kept in the archive: {}",
                crate::error::with_causes(&error)
            )),
        }
        Ok(report)
    }
}

/// Members take their turns: each phase once, in the order of its first time.
fn merged(phases: Vec<Phase>) -> Vec<Phase> {
    let mut all: Vec<Phase> = Vec::new();
    for phase in phases {
        match all.iter_mut().find(|one| one.phase == phase.phase) {
            Some(one) => {
                one.seconds += phase.seconds;
                one.bytes += phase.bytes;
            }
            None => all.push(phase),
        }
    }
    all
}
