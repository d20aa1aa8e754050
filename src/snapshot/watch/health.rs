//! Whether the server that is read is still what it was chosen for.

use std::time::Duration;

use crate::mysql::health::applier_lag;
use crate::mysql::role::{RoleNow, role_now};
use crate::mysql::topology::Role;
use crate::mysql::{ServerFacts, Session};
use crate::snapshot::error::SnapshotError;
use crate::snapshot::options::OnLag;
use crate::snapshot::plan::SnapshotPlan;

/// So many looks in a row must show the same before it counts: a connection that is made anew, or
/// one large transaction, is no reason to give up.
const LOOKS: u32 = 3;

/// Looks at the health of the server.
#[derive(Debug)]
pub(super) struct Health<'a> {
    plan: &'a SnapshotPlan,
    facts: &'a ServerFacts,
    /// Looks in a row that found the server behind, and out of its place.
    behind: u32,
    fallen: u32,
    worst_lag: Option<Duration>,
    fell_out: Option<String>,
}

impl<'a> Health<'a> {
    pub(super) const fn of(plan: &'a SnapshotPlan, facts: &'a ServerFacts) -> Self {
        Self {
            plan,
            facts,
            behind: 0,
            fallen: 0,
            worst_lag: None,
            fell_out: None,
        }
    }

    /// Looks once.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::FellOut`] if that is a reason to give up; what a question fails with.
    pub(super) async fn look(&mut self, eyes: &mut Session) -> Result<(), SnapshotError> {
        let role = role_now(eyes, &self.facts.version, self.plan.kind).await?;
        if let Some(what) = fallen(self.plan.role, self.plan.allow_primary, &role) {
            self.fallen += 1;
            if self.fallen >= LOOKS {
                self.unhealthy(&what)?;
                self.fell_out = Some(what);
            }
            return Ok(());
        }
        self.fallen = 0;
        if self.plan.role != Role::Secondary {
            return Ok(());
        }
        let max = Duration::from_secs(self.plan.max_lag_seconds);
        match applier_lag(eyes).await? {
            Some(lag) if lag > max => {
                self.behind += 1;
                if self.behind >= LOOKS {
                    self.unhealthy(&behind(lag, max))?;
                    self.worst_lag = self.worst_lag.max(Some(lag));
                }
            }
            _ => self.behind = 0,
        }
        Ok(())
    }

    fn unhealthy(&self, what: &str) -> Result<(), SnapshotError> {
        match self.plan.on_lag {
            OnLag::Continue => Ok(()),
            OnLag::Fail => Err(SnapshotError::FellOut {
                server: self.plan.server.to_string(),
                what: what.to_owned(),
            }),
        }
    }

    /// What was seen and passed over.
    pub(super) fn warnings(&self) -> Vec<String> {
        let max = Duration::from_secs(self.plan.max_lag_seconds);
        let lag = self.worst_lag.map(|lag| behind(lag, max));
        lag.into_iter()
            .chain(self.fell_out.clone())
            .map(|what| format!("while it was read, {} {what}", self.plan.server))
            .collect()
    }
}

fn behind(lag: Duration, max: Duration) -> String {
    format!(
        "was {} s behind its source, more than --max-lag allows ({} s)",
        lag.as_secs(),
        max.as_secs()
    )
}

/// What has become of a server that is not what it was chosen for any more.
fn fallen(planned: Role, allow_primary: bool, now: &RoleNow) -> Option<String> {
    match now {
        RoleNow::OutOfGroup { .. } | RoleNow::NoMajority => Some(format!("was {now}")),
        RoleNow::Replica { running: false, .. } if planned == Role::Secondary => {
            Some(format!("was {now}"))
        }
        RoleNow::Primary | RoleNow::ReadOnly if planned == Role::Secondary && !allow_primary => {
            Some(format!("became {now}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::HostPort;
    use crate::mysql::topology::MemberState;

    #[test]
    fn a_server_that_left_its_place_is_told() {
        let stopped = RoleNow::Replica {
            source: HostPort::new("db1", 3306),
            running: false,
        };
        let out = RoleNow::OutOfGroup {
            state: MemberState::Error,
        };
        for (planned, now, told) in [
            (Role::Secondary, RoleNow::Secondary, None),
            (
                Role::Secondary,
                RoleNow::Primary,
                Some("became the primary"),
            ),
            (
                Role::Secondary,
                stopped.clone(),
                Some("was a stopped replica of db1:3306"),
            ),
            (Role::Secondary, out.clone(), Some("was ERROR in its group")),
            (Role::Primary, RoleNow::Primary, None),
            (Role::Primary, RoleNow::Secondary, None),
            (Role::Primary, stopped, None),
            (Role::Primary, out, Some("was ERROR in its group")),
        ] {
            let seen = fallen(planned, false, &now);
            assert_eq!(seen.as_deref(), told, "{planned:?} {now:?}");
        }
        assert_eq!(fallen(Role::Secondary, true, &RoleNow::Primary), None);
    }
}
