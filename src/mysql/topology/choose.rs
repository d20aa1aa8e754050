//! The member that carries a load: the healthiest secondary, with every reason told.

use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Member, MemberState, Role, Topology};
use crate::error::{Class, Classified};
use crate::mysql::health::{HealthSurvey, MemberHealth};
use crate::mysql::server_url::HostPort;

/// What the caller asks of a choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whether a primary may be taken if no secondary can.
    pub allow_primary: bool,
    /// A secondary that is further behind is passed over.
    pub max_lag: Option<Duration>,
    /// Taken before others that are as able, whatever their queues.
    pub prefer: Option<Uuid>,
}

/// The server that will carry the load, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The chosen member.
    pub member: Member,
    /// One sentence for the choice and one for each member that was passed over.
    pub reasons: Vec<String>,
}

/// Nobody can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// Only a primary is there, and it may not be used unless asked for by name.
    #[error(
        "no secondary can take the load ({}); the primary {primary} is used only with --allow-primary",
        reasons.join("; ")
    )]
    OnlyPrimary {
        /// The primary.
        primary: HostPort,
        /// Why each other member was passed over.
        reasons: Vec<String>,
    },
    /// There are secondaries, and all that could be taken are too far behind.
    #[error("no secondary is near enough to its source: {}", reasons.join("; "))]
    Behind {
        /// Why each member was passed over.
        reasons: Vec<String>,
    },
    /// Nothing works.
    #[error("no member can take the load: {}", reasons.join("; "))]
    NoMember {
        /// Why each member was passed over.
        reasons: Vec<String>,
    },
}

impl ChooseError {
    /// The same with what could not be learnt, which may be why nobody is found.
    #[must_use]
    pub fn with_notes(mut self, notes: &[String]) -> Self {
        let (Self::OnlyPrimary { reasons, .. }
        | Self::Behind { reasons }
        | Self::NoMember { reasons }) = &mut self;
        reasons.extend(notes.iter().cloned());
        self
    }

    /// Whether there may be replicas that the account is not allowed to hear of.
    #[must_use]
    pub fn hides_replicas(&self) -> bool {
        let (Self::OnlyPrimary { reasons, .. }
        | Self::Behind { reasons }
        | Self::NoMember { reasons }) = self;
        let mut reasons = reasons.iter();
        reasons.any(|reason| reason.starts_with(super::super::tree::UNKNOWN_REPLICAS))
    }
}

impl Classified for ChooseError {
    fn class(&self) -> Class {
        match self {
            Self::OnlyPrimary { .. } => Class::Refused,
            Self::Behind { .. } | Self::NoMember { .. } => Class::Transient,
        }
    }
}

impl Topology {
    /// [`Topology::choose`] by the members' states and queues alone.
    ///
    /// # Errors
    ///
    /// As [`Topology::choose`].
    pub fn choose_secondary(&self, allow_primary: bool) -> Result<Choice, ChooseError> {
        let rule = Rule {
            allow_primary,
            ..Rule::default()
        };
        self.choose(&rule, &HealthSurvey::default())
    }

    /// The healthiest secondary: ONLINE, without transactions of its own, near enough to its
    /// source; of the primary's version if any is, with the fewest transactions still to apply.
    /// Ties go to the first address.
    ///
    /// If the rule allows it, the primary is taken when there is no such secondary. The primary of
    /// a replica cluster is taken then without asking: it takes no writes, and a snapshot stays
    /// within the cluster that was asked.
    ///
    /// # Errors
    ///
    /// [`ChooseError::OnlyPrimary`] when only the primary could be taken and may not be;
    /// [`ChooseError::Behind`] if a secondary could be taken once it has caught up.
    pub fn choose(&self, rule: &Rule, health: &HealthSurvey) -> Result<Choice, ChooseError> {
        let primary = self.primary();
        let unfit = |member: &Member| unfit(health.get(member), rule);
        let rank = |member: &Member| {
            let preferred = rule.prefer.is_some() && rule.prefer == member.uuid;
            let other_version = primary.is_some_and(|p| p.version != member.version);
            (
                Reverse(preferred),
                other_version,
                member.queue.unwrap_or(u64::MAX),
                health.get(member).and_then(|health| health.lag),
                member.address.clone(),
            )
        };
        let best = self
            .members
            .iter()
            .filter(|member| member.is_online_secondary() && unfit(member).is_none())
            .min_by_key(|member| rank(member));
        let passed_over = |chosen: Option<&Member>| -> Vec<String> {
            self.members
                .iter()
                .filter(|member| Some(*member) != chosen)
                .map(|member| match unfit(member) {
                    Some(Unfit(why, _)) if member.is_online_secondary() => {
                        format!("{} {why}", member.address)
                    }
                    _ => format!("{} {}", member.address, why_not(member, chosen, health)),
                })
                .collect()
        };
        if let Some(best) = best {
            let mut reasons = vec![format!(
                "{} is an ONLINE secondary {}",
                best.address,
                follows_words(best, health)
            )];
            reasons.extend(passed_over(Some(best)));
            return Ok(Choice {
                member: best.clone(),
                reasons,
            });
        }
        let may_catch_up = self.members.iter().any(|member| {
            member.is_online_secondary() && matches!(unfit(member), Some(Unfit(_, true)))
        });
        match primary {
            Some(primary) if rule.allow_primary || self.follows.is_some() => {
                let permit = match self.follows {
                    Some(_) => "of a replica cluster, which takes no writes",
                    None => "which --allow-primary permits",
                };
                let mut reasons = vec![format!("{} is the primary, {permit}", primary.address)];
                reasons.extend(passed_over(Some(primary)));
                Ok(Choice {
                    member: primary.clone(),
                    reasons,
                })
            }
            _ if may_catch_up => Err(ChooseError::Behind {
                reasons: passed_over(primary),
            }),
            Some(primary) => {
                let mut reasons = passed_over(Some(primary));
                if reasons.is_empty() {
                    reasons.push(format!("{} has no secondary", primary.address));
                }
                Err(ChooseError::OnlyPrimary {
                    primary: primary.address.clone(),
                    reasons,
                })
            }
            None => Err(ChooseError::NoMember {
                reasons: passed_over(None),
            }),
        }
    }
}

/// Why a secondary that works is not taken, and whether that passes by itself.
struct Unfit(String, bool);

fn unfit(health: Option<&MemberHealth>, rule: &Rule) -> Option<Unfit> {
    let health = health?;
    if let Some(failure) = &health.failure {
        return Some(Unfit(format!("could not be asked: {failure}"), true));
    }
    if !health.errant.is_empty() {
        let errant = &health.errant;
        let why = format!("has transactions that the primary lacks: {errant:#}");
        return Some(Unfit(why, false));
    }
    match (health.lag, rule.max_lag) {
        (Some(lag), Some(max)) if lag > max => {
            let (lag, max) = (lag.as_secs(), max.as_secs());
            let why = format!("is {lag} s behind, more than --max-lag allows ({max} s)");
            Some(Unfit(why, true))
        }
        _ => None,
    }
}

/// How well it follows: its queue, and its age if that is worth a word.
fn follows_words(member: &Member, health: &HealthSurvey) -> String {
    let queue = match member.queue {
        Some(1) => "with 1 transaction to apply".to_owned(),
        Some(queue) => format!("with {queue} transactions to apply"),
        None => "whose queue is not known".to_owned(),
    };
    match health.get(member).and_then(|health| health.lag) {
        Some(lag) if lag.as_secs() > 0 => format!("{queue}, {} s behind", lag.as_secs()),
        _ => queue,
    }
}

fn why_not(member: &Member, chosen: Option<&Member>, health: &HealthSurvey) -> String {
    match (member.state, member.role) {
        (MemberState::Online, Role::Primary) => "is the primary".to_owned(),
        (MemberState::Online, _) => match (&member.version, chosen) {
            (Some(version), Some(chosen)) if chosen.version.as_ref() != Some(version) => {
                format!("is an ONLINE secondary of version {version}")
            }
            _ => format!("is an ONLINE secondary {}", follows_words(member, health)),
        },
        (MemberState::Stopped, _) => {
            "is STOPPED: its receiver or its applier does not run".to_owned()
        }
        (state, _) => format!("is {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::topology::TopologyKind;
    use crate::mysql::version::ServerVersion;

    fn member(name: &str, role: Role, state: MemberState, queue: Option<u64>) -> Member {
        Member {
            address: HostPort::new(name, 3306),
            uuid: None,
            role,
            state,
            version: ServerVersion::parse("8.4.6").ok(),
            queue,
        }
    }

    fn topology(members: Vec<Member>) -> Topology {
        Topology {
            kind: TopologyKind::GroupReplication,
            asked: HostPort::new("a", 3306),
            members,
            follows: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_secondary_with_the_smallest_queue_is_chosen_and_all_reasons_told() {
        let topology = topology(vec![
            member("a", Role::Primary, MemberState::Online, Some(0)),
            member("b", Role::Secondary, MemberState::Online, Some(7)),
            member("c", Role::Secondary, MemberState::Online, Some(1)),
            member("d", Role::Secondary, MemberState::Recovering, Some(0)),
            member("e", Role::Unknown, MemberState::Unreachable, None),
        ]);
        let choice = topology.choose_secondary(true).expect("there is one");
        assert_eq!(choice.member.address.host, "c");
        assert_eq!(
            choice.reasons,
            [
                "c:3306 is an ONLINE secondary with 1 transaction to apply",
                "a:3306 is the primary",
                "b:3306 is an ONLINE secondary with 7 transactions to apply",
                "d:3306 is RECOVERING",
                "e:3306 is UNREACHABLE",
            ]
        );
    }

    #[test]
    fn the_version_of_the_primary_comes_before_the_queue() {
        let mut newer = member("b", Role::Secondary, MemberState::Online, Some(0));
        newer.version = ServerVersion::parse("9.5.0").ok();
        let topology = topology(vec![
            member("a", Role::Primary, MemberState::Online, Some(0)),
            newer,
            member("c", Role::Secondary, MemberState::Online, Some(5)),
        ]);
        let choice = topology.choose_secondary(false).expect("there is one");
        assert_eq!(choice.member.address.host, "c");
        assert!(
            choice
                .reasons
                .contains(&"b:3306 is an ONLINE secondary of version 9.5.0".into())
        );
    }

    #[test]
    fn an_unknown_queue_comes_last_and_ties_go_to_the_first_address() {
        let topology = topology(vec![
            member("d", Role::Secondary, MemberState::Online, Some(3)),
            member("c", Role::Secondary, MemberState::Online, Some(3)),
            member("b", Role::Secondary, MemberState::Online, None),
        ]);
        let choice = topology.choose_secondary(false).expect("there is one");
        assert_eq!(choice.member.address.host, "c");
    }

    #[test]
    fn a_primary_is_taken_only_when_allowed() {
        let single = topology(vec![member("a", Role::Primary, MemberState::Online, None)]);
        let error = single.choose_secondary(false).expect_err("not allowed");
        assert_eq!(error.class(), Class::Refused);
        assert!(
            error.to_string().contains("a:3306 has no secondary"),
            "{error}"
        );
        assert!(error.to_string().contains("--allow-primary"), "{error}");
        let choice = single.choose_secondary(true).expect("allowed");
        assert_eq!(choice.member.role, Role::Primary);

        let broken = topology(vec![
            member("a", Role::Primary, MemberState::Online, None),
            member("b", Role::Secondary, MemberState::Error, None),
        ]);
        let error = broken.choose_secondary(false).expect_err("not allowed");
        assert!(error.to_string().contains("b:3306 is ERROR"), "{error}");
    }

    #[test]
    fn with_nobody_online_the_failure_may_pass() {
        let down = topology(vec![member(
            "a",
            Role::Unknown,
            MemberState::Unreachable,
            None,
        )]);
        let error = down.choose_secondary(true).expect_err("nobody");
        assert_eq!(error.class(), Class::Transient);
    }

    #[test]
    fn who_is_too_far_behind_or_errant_is_passed_over_and_told() {
        let group = topology(vec![
            member("a", Role::Primary, MemberState::Online, Some(0)),
            member("b", Role::Secondary, MemberState::Online, Some(0)),
            member("c", Role::Secondary, MemberState::Online, Some(9)),
            member("d", Role::Secondary, MemberState::Stopped, Some(0)),
        ]);
        let health = |name: &str, lag, errant: &str| MemberHealth {
            address: HostPort::new(name, 3306),
            lag: Some(Duration::from_secs(lag)),
            errant: errant.parse().expect("a set"),
            failure: None,
        };
        const ERRANT: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2";
        let survey = |b: MemberHealth, c: MemberHealth| HealthSurvey {
            members: vec![b, c],
            not_compared: None,
        };
        let rule = Rule {
            max_lag: Some(Duration::from_secs(300)),
            ..Rule::default()
        };
        let seen = survey(health("b", 301, ""), health("c", 2, ""));
        let choice = group.choose(&rule, &seen).expect("c is left");
        assert_eq!(
            choice.reasons,
            [
                "c:3306 is an ONLINE secondary with 9 transactions to apply, 2 s behind",
                "a:3306 is the primary",
                "b:3306 is 301 s behind, more than --max-lag allows (300 s)",
                "d:3306 is STOPPED: its receiver or its applier does not run",
            ]
        );
        let seen = survey(health("b", 0, ERRANT), health("c", 400, ""));
        let error = group.choose(&rule, &seen).expect_err("nobody is left");
        assert!(matches!(error, ChooseError::Behind { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Transient);
        assert!(error.to_string().contains(ERRANT), "{error}");
        // Errant transactions do not go away by themselves.
        let seen = survey(health("b", 0, ERRANT), health("c", 0, ERRANT));
        let error = group.choose(&rule, &seen).expect_err("nobody is left");
        assert_eq!(error.class(), Class::Refused);
        let allowed = Rule {
            allow_primary: true,
            ..rule
        };
        let choice = group.choose(&allowed, &seen).expect("the primary is");
        assert_eq!(choice.member.role, Role::Primary);
    }

    #[test]
    fn who_is_preferred_is_taken_if_it_is_able() {
        let with_uuid = |name, queue, uuid| Member {
            uuid: Some(Uuid::from_u128(uuid)),
            ..member(name, Role::Secondary, MemberState::Online, Some(queue))
        };
        let group = topology(vec![with_uuid("b", 0, 1), with_uuid("c", 9, 2)]);
        let rule = |uuid| Rule {
            prefer: Some(Uuid::from_u128(uuid)),
            ..Rule::default()
        };
        let none = HealthSurvey::default();
        let chosen = |uuid| {
            let choice = group.choose(&rule(uuid), &none).expect("one");
            choice.member.address.host
        };
        assert_eq!((chosen(2).as_str(), chosen(3).as_str()), ("c", "b"));
    }
}
