//! The replication channel of a replay: made, started, watched, and removed without a trace.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ReplayError;
use super::listen::Place;
use crate::config::Secret;
use crate::gtid::GtidSet;
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;
use crate::mysql::version::ServerVersion;

/// The replication channel that a replay uses, and removes at its end.
pub const CHANNEL: &str = "quillback_restore";

/// How long stopping may take.
const STOP_LIMIT: Duration = Duration::from_secs(600);
/// How long it may take once the caller has given up.
const STOP_GRACE: Duration = Duration::from_secs(8);
/// How long a server may take to tell what it is at.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// How the server shall reach us.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// Our address as the server sees it.
    pub(super) place: &'a Place,
    /// The account.
    pub(super) user: &'a str,
    /// Its password.
    pub(super) password: &'a Secret,
    /// Whether we speak TLS.
    pub(super) tls: bool,
}

/// The words of a version for replication (8.0.22 and 8.0.23 brought the present ones).
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    replica: &'static str,
    change: &'static str,
    source: &'static str,
}

impl Words {
    pub(super) fn of(version: &ServerVersion) -> Self {
        let (change, source) = if version.at_least(8, 0, 23) {
            ("CHANGE REPLICATION SOURCE TO", "SOURCE")
        } else {
            ("CHANGE MASTER TO", "MASTER")
        };
        Self {
            replica: if version.at_least(8, 0, 22) {
                "REPLICA"
            } else {
                "SLAVE"
            },
            change,
            source,
        }
    }

    fn change_source(&self, source: &Source<'_>) -> String {
        let name = self.source;
        let tls = u8::from(source.tls);
        // Kept by the server until the channel is removed: so an operator may stop and start it.
        // The password is worth nothing once we are gone.
        format!(
            "{} {name}_HOST = {}, {name}_PORT = {}, {name}_USER = {}, {name}_PASSWORD = {}, \
             {name}_AUTO_POSITION = 1, {name}_SSL = {tls}, {name}_SSL_VERIFY_SERVER_CERT = 0, \
             {name}_CONNECT_RETRY = 1, {name}_RETRY_COUNT = 60, {name}_HEARTBEAT_PERIOD = 10 \
             FOR CHANNEL {}",
            self.change,
            quote::string(&source.place.host),
            source.place.port,
            quote::string(source.user),
            quote::string(source.password.expose()),
            quote::string(CHANNEL),
        )
    }

    fn on_channel(&self, what: &str) -> String {
        format!(
            "{} FOR CHANNEL {}",
            what.replace("REPLICA", self.replica),
            quote::string(CHANNEL)
        )
    }
}

/// Points the server at us and starts its threads.
pub(super) async fn attach(
    session: &mut Session,
    words: Words,
    source: &Source<'_>,
) -> Result<(), ReplayError> {
    session
        .execute(words.change_source(source))
        .await
        .map_err(MysqlError::without_text)?;
    lift_filters(session).await?;
    session.execute(words.on_channel("START REPLICA")).await?;
    Ok(())
}

/// Takes from the channel the filters that the server gives to each of its channels: with one of
/// them a transaction would count as executed and do nothing.
async fn lift_filters(session: &mut Session) -> Result<(), ReplayError> {
    if filters(session).await?.is_empty() {
        return Ok(());
    }
    session
        .execute(format!(
            "CHANGE REPLICATION FILTER REPLICATE_DO_DB = (), REPLICATE_IGNORE_DB = (), \
             REPLICATE_DO_TABLE = (), REPLICATE_IGNORE_TABLE = (), REPLICATE_WILD_DO_TABLE = (), \
             REPLICATE_WILD_IGNORE_TABLE = (), REPLICATE_REWRITE_DB = () FOR CHANNEL {}",
            quote::string(CHANNEL)
        ))
        .await?;
    let left = filters(session).await?;
    if left.is_empty() {
        return Ok(());
    }
    Err(ReplayError::Filtered {
        server: session.address().to_string(),
        filters: left.join(", "),
    })
}

async fn filters(session: &mut Session) -> Result<Vec<String>, MysqlError> {
    session
        .query(format!(
            "SELECT CONCAT(FILTER_NAME, ' ', FILTER_RULE) \
             FROM performance_schema.replication_applier_filters \
             WHERE CHANNEL_NAME = {} AND FILTER_RULE <> ''",
            quote::string(CHANNEL)
        ))
        .await
}

/// Stops and removes the channel, if there is one, with its relay logs.
///
/// A transaction that is under way is finished or taken back first, which may take as long as
/// somebody holds a lock that it wants. So this is asked over a connection of its own, which is left
/// alone a moment after `cancel`: the server stops the channel all the same, once it can.
pub(super) async fn detach(
    server: &ServerUrl,
    session: &mut Session,
    words: Words,
    cancel: &CancellationToken,
) -> Result<(), ReplayError> {
    let configured: u64 = session
        .query_one(format!(
            "SELECT COUNT(*) FROM performance_schema.replication_connection_configuration \
             WHERE CHANNEL_NAME = {}",
            quote::string(CHANNEL)
        ))
        .await?;
    if configured == 0 {
        return Ok(());
    }
    let mut own = Session::connect(server).await?;
    own.set_timeout(Some(STOP_LIMIT));
    let stopping = async {
        for statement in ["STOP REPLICA", "RESET REPLICA ALL"] {
            own.execute(words.on_channel(statement)).await?;
        }
        Ok::<_, MysqlError>(())
    };
    let given_up = async {
        cancel.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        biased;
        stopped = stopping => stopped?,
        () = given_up => {
            return Err(ReplayError::StillApplying {
                server: session.address().to_string(),
                transactions: applying(server).await,
            });
        }
    }
    own.close().await;
    Ok(())
}

/// What the appliers are at, if the server tells it at once.
async fn applying(server: &ServerUrl) -> Vec<String> {
    let asking = async {
        let mut session = Session::connect_within(server, ASK_LIMIT).await?;
        let found = session
            .query(format!(
                "SELECT APPLYING_TRANSACTION \
                 FROM performance_schema.replication_applier_status_by_worker \
                 WHERE CHANNEL_NAME = {} AND APPLYING_TRANSACTION <> ''",
                quote::string(CHANNEL)
            ))
            .await?;
        session.close().await;
        Ok::<_, MysqlError>(found)
    };
    match tokio::time::timeout(ASK_LIMIT, asking).await {
        Ok(Ok(found)) => found,
        // It is told without.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// What the server holds of what it has received.
#[derive(Debug)]
pub(super) struct Relayed {
    /// The bytes of its relay logs.
    pub(super) bytes: u64,
    /// What it has received since the channel was made.
    pub(super) received: GtidSet,
}

/// Asks how much the server has received and not let go of.
pub(super) async fn relayed(
    session: &mut Session,
    version: &ServerVersion,
) -> Result<Option<Relayed>, MysqlError> {
    let row: Option<mysql_async::Row> = session
        .query_first(format!(
            "{} FOR CHANNEL {}",
            version.replica_status_statement(),
            quote::string(CHANNEL)
        ))
        .await?;
    Ok(row.and_then(|row| {
        let bytes = row.get_opt::<u64, _>("Relay_Log_Space")?.ok()?;
        let received = row.get_opt::<String, _>("Retrieved_Gtid_Set")?.ok()?;
        Some(Relayed {
            bytes,
            received: received.parse().ok()?,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_spoken_to_in_its_words() {
        let password = Secret::new("it's".to_owned());
        let place = Place {
            host: "127.0.0.1".to_owned(),
            port: 4000,
        };
        let source = Source {
            place: &place,
            user: "quillback",
            password: &password,
            tls: true,
        };
        for (version, change, start) in [
            ("8.0.21", "CHANGE MASTER TO MASTER_HOST", "START SLAVE"),
            ("8.0.22", "CHANGE MASTER TO MASTER_HOST", "START REPLICA"),
            (
                "8.0.23",
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST",
                "START REPLICA",
            ),
            (
                "8.4.6",
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST",
                "START REPLICA",
            ),
            (
                "9.7.0",
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST",
                "START REPLICA",
            ),
        ] {
            let words = Words::of(&ServerVersion::parse(version).expect(version));
            let statement = words.change_source(&source);
            assert!(statement.starts_with(change), "{version}: {statement}");
            assert!(statement.contains("_PASSWORD = 'it''s'"), "{statement}");
            assert!(statement.contains("_SSL = 1"), "{statement}");
            let other = if change.contains("MASTER") {
                "SOURCE_"
            } else {
                "MASTER_"
            };
            assert!(!statement.contains(other), "{version}: {statement}");
            let statement = words.on_channel("START REPLICA");
            assert_eq!(statement, format!("{start} FOR CHANNEL '{CHANNEL}'"));
        }
    }
}
