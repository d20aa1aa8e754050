//! How well a secondary follows, and whether it has transactions of its own.
//!
//! Both questions are reads of the performance schema and of GTID sets. An age is what the
//! secondary's clock makes of the source's commit time, so clocks that differ show in it.

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::with_causes;
use crate::gtid::GtidSet;

use super::discover::login_for;
use super::error::MysqlError;
use super::facts::{gtid_executed, pending};
use super::server_url::{HostPort, ServerUrl};
use super::session::Session;
use super::topology::{Member, Topology};

/// A member that does not answer a small question for so long is not asked further.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// In a group a secondary may commit before the primary does: so long is waited for that.
const SETTLING: Duration = Duration::from_secs(5);
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

/// What a secondary says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberHealth {
    /// Where it listens, as its fellows know it.
    pub address: HostPort,
    /// The age of the oldest transaction that it has received and not applied; zero if there is
    /// none. `None` if it is not known.
    pub lag: Option<Duration>,
    /// What it has executed and the primary has not: errant transactions.
    pub errant: GtidSet,
    /// Why it could not be asked.
    pub failure: Option<String>,
}

/// The health of the secondaries of a topology.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSurvey {
    /// Each secondary that works.
    pub members: Vec<MemberHealth>,
    /// Why nobody could be compared with the primary, if so.
    pub not_compared: Option<String>,
}

impl HealthSurvey {
    /// Asks all secondaries that work, side by side, and then the primary.
    pub async fn of(topology: &Topology, asked: &ServerUrl, servers: &[ServerUrl]) -> Self {
        let secondaries = topology
            .members
            .iter()
            .filter(|member| member.is_online_secondary());
        let answers = join_all(secondaries.map(async |member| {
            let url = login_for(&member.address, asked, servers);
            (member, ask(&url).await)
        }))
        .await;
        let primary = topology.primary();
        let executed: Vec<&GtidSet> = answers
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok().map(|(executed, _)| executed))
            .collect();
        // Asked last: what a secondary had by then is there, or it is no transaction of theirs.
        let known = match primary {
            None => Err("no primary answers".to_owned()),
            Some(primary) => {
                let url = login_for(&primary.address, asked, servers);
                history_with(&url, &executed)
                    .await
                    .map_err(|error| with_causes(&error))
            }
        };
        let members = answers
            .iter()
            .map(|(member, answer)| health_of(member, answer, known.as_ref().ok()))
            .collect();
        Self {
            members,
            not_compared: known.err(),
        }
    }

    /// What is known of a member.
    #[must_use]
    pub fn get(&self, member: &Member) -> Option<&MemberHealth> {
        self.members
            .iter()
            .find(|health| health.address == member.address)
    }
}

fn health_of(
    member: &Member,
    answer: &Result<(GtidSet, Option<Duration>), MysqlError>,
    known: Option<&GtidSet>,
) -> MemberHealth {
    let address = member.address.clone();
    match answer {
        Ok((executed, lag)) => MemberHealth {
            address,
            lag: *lag,
            errant: known.map_or_else(GtidSet::new, |known| executed.subtract(known)),
            failure: None,
        },
        Err(error) => MemberHealth {
            address,
            lag: None,
            errant: GtidSet::new(),
            failure: Some(with_causes(error)),
        },
    }
}

async fn ask(url: &ServerUrl) -> Result<(GtidSet, Option<Duration>), MysqlError> {
    let mut session = Session::connect(url).await?;
    session.set_timeout(Some(QUESTION_LIMIT));
    let lag = applier_lag(&mut session).await?;
    let executed = gtid_executed(&mut session).await?;
    session.close().await;
    Ok((executed, lag))
}

/// What a primary has or is committing, once that holds all of the `others` or a time has passed.
///
/// # Errors
///
/// What a question fails with.
pub async fn history_with(url: &ServerUrl, others: &[&GtidSet]) -> Result<GtidSet, MysqlError> {
    let mut session = Session::connect(url).await?;
    session.set_timeout(Some(QUESTION_LIMIT));
    let until = Instant::now() + SETTLING;
    loop {
        // What is in commit was sent to the others already, with semi-synchronous replication.
        let on_the_way = pending(&mut session).await?.owned;
        let known = gtid_executed(&mut session).await?.union(&on_the_way);
        if Instant::now() >= until || others.iter().all(|other| other.is_subset(&known)) {
            session.close().await;
            return Ok(known);
        }
        tokio::time::sleep(SETTLING_PAUSE).await;
    }
}

type LagRow = (
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

/// How far this server's applier is behind what it has received: the age of the oldest transaction
/// that is being applied or is held back by `SOURCE_DELAY`, else that of the newest in the queue;
/// zero if the queue is empty. `None` if it replicates from nobody, or does not tell.
///
/// It does not see what the source has and did not send. Source: "Performance Schema Replication
/// Tables" of the MySQL manual.
///
/// # Errors
///
/// What the question fails with.
pub async fn applier_lag(session: &mut Session) -> Result<Option<Duration>, MysqlError> {
    const AGE: &str = "MAX(TIMESTAMPDIFF(MICROSECOND, NULLIF({}, 0), NOW(6)))";
    let age = |column: &str| AGE.replace("{}", column);
    let row: LagRow = session
        .query_one(format!(
            "SELECT \
             (SELECT {} FROM performance_schema.replication_applier_status_by_worker \
              WHERE APPLYING_TRANSACTION <> ''), \
             (SELECT {} FROM performance_schema.replication_applier_status_by_coordinator \
              WHERE PROCESSING_TRANSACTION <> ''), \
             (SELECT MAX(c.DESIRED_DELAY - s.REMAINING_DELAY) * 1000000 \
              FROM performance_schema.replication_applier_status s \
              JOIN performance_schema.replication_applier_configuration c USING (CHANNEL_NAME) \
              WHERE s.REMAINING_DELAY IS NOT NULL), \
             (SELECT {} FROM performance_schema.replication_connection_status \
              WHERE NOT GTID_SUBSET(RECEIVED_TRANSACTION_SET, @@GLOBAL.gtid_executed)), \
             (SELECT COUNT(*) FROM performance_schema.replication_connection_status \
              WHERE CHANNEL_NAME <> 'group_replication_recovery')",
            age("APPLYING_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP"),
            age("PROCESSING_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP"),
            age("LAST_QUEUED_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP"),
        ))
        .await?;
    Ok(lag_of(row))
}

fn lag_of((applying, processing, held_back, queued, channels): LagRow) -> Option<Duration> {
    if channels.unwrap_or(0) == 0 {
        return None;
    }
    let oldest = [applying, processing, held_back]
        .into_iter()
        .flatten()
        .max();
    // A clock that is behind the source's makes the age negative.
    let micros = oldest.or(queued).unwrap_or(0).max(0);
    Some(Duration::from_micros(micros.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_not_applied_decides() {
        let second = |n: i64| Some(n * 1_000_000);
        let lag = |row| lag_of(row).map(|lag| lag.as_secs());
        assert_eq!(lag((None, None, None, None, Some(1))), Some(0));
        assert_eq!(
            lag((second(3), second(9), None, second(1), Some(1))),
            Some(9)
        );
        assert_eq!(lag((None, None, second(40), second(1), Some(1))), Some(40));
        assert_eq!(lag((None, None, None, second(7), Some(1))), Some(7));
        assert_eq!(lag((second(-3), None, None, None, Some(1))), Some(0));
        assert_eq!(lag((None, None, None, None, Some(0))), None);
    }
}
