//! Emptying a server that was named for it.
//!
//! What is removed is what a load would stumble over: schemas, accounts, what belongs to neither,
//! replication channels, binlogs with their GTIDs. Each step can be repeated, so a run that was
//! killed here is gone on with. The invariant: nothing is removed before the journal says whose
//! restore it is for, and that one survives to the end.

use super::checks::SYSTEM_ACCOUNTS;
use super::error::RestoreError;
use super::journal::SCHEMA;
use super::replay::CHANNEL;
use crate::mysql::error::MysqlError;
use crate::mysql::facts::user_schemas;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::mysql::version::ServerVersion;
use crate::observe::fail_point::{FailPoint, FailPoints};

/// `ER_SP_DOES_NOT_EXIST`: a loadable function whose library is gone is not there either.
const NOT_THERE: u16 = 1305;

/// Removes what is on the server, but for the journal, the account of this session and what is
/// the server's own.
pub(super) async fn run(
    session: &mut Session,
    version: &ServerVersion,
    fail_points: &FailPoints,
) -> Result<(), RestoreError> {
    fail_points.pass(FailPoint::Wiping);
    session
        .execute("SET SESSION sql_log_bin = 0, foreign_key_checks = 0")
        .await?;
    // Nobody goes on writing meanwhile.
    session.execute("SET GLOBAL event_scheduler = OFF").await?;
    roll_back_prepared(session).await?;
    for schema in user_schemas(session).await? {
        if schema == SCHEMA {
            continue;
        }
        // A schema may be set read-only (8.0.22).
        let name = quote::identifier(&schema);
        if version.at_least(8, 0, 22) {
            session
                .execute(format!("ALTER DATABASE {name} READ ONLY = 0"))
                .await?;
        }
        session
            .execute(format!("DROP DATABASE IF EXISTS {name}"))
            .await?;
        fail_points.pass(FailPoint::Dropped);
    }
    drop_accounts(session).await?;
    drop_the_rest(session).await?;
    drop_channels(session).await?;
    session.execute(version.reset_binlogs_statement()).await?;
    session
        .execute("SET SESSION foreign_key_checks = 1")
        .await?;
    Ok(())
}

/// Prepared XA transactions hold locks on what is to be dropped.
async fn roll_back_prepared(session: &mut Session) -> Result<(), MysqlError> {
    let prepared: Vec<(i64, i64, i64, String)> = session.query("XA RECOVER CONVERT XID").await?;
    for (format, global, _, data) in prepared {
        let xid = super::end::xid(format, global, &data);
        session.execute(format!("XA ROLLBACK {xid}")).await?;
    }
    Ok(())
}

async fn drop_accounts(session: &mut Session) -> Result<(), MysqlError> {
    let current: String = session.query_one("SELECT CURRENT_USER()").await?;
    let accounts: Vec<(String, String)> = session
        .query(format!(
            "SELECT User, Host FROM mysql.user WHERE User NOT IN ({SYSTEM_ACCOUNTS})"
        ))
        .await?;
    // A role that is mandatory cannot be dropped.
    session.execute("SET GLOBAL mandatory_roles = ''").await?;
    for (user, host) in accounts {
        if format!("{user}@{host}") != current {
            session
                .execute(format!(
                    "DROP USER IF EXISTS {}",
                    quote::account(&user, &host)
                ))
                .await?;
        }
    }
    Ok(())
}

/// What belongs to no schema.
async fn drop_the_rest(session: &mut Session) -> Result<(), MysqlError> {
    let kinds = [
        (
            "TABLESPACE",
            "SELECT NAME FROM information_schema.INNODB_TABLESPACES \
             WHERE SPACE_TYPE = 'General' AND NAME <> 'mysql'",
        ),
        ("SERVER", "SELECT Server_name FROM mysql.servers"),
        (
            "RESOURCE GROUP",
            "SELECT RESOURCE_GROUP_NAME FROM information_schema.RESOURCE_GROUPS \
             WHERE RESOURCE_GROUP_NAME NOT IN ('USR_default', 'SYS_default')",
        ),
        ("FUNCTION", "SELECT name FROM mysql.func"),
    ];
    for (kind, question) in kinds {
        let names: Vec<String> = session.query(question).await?;
        for name in names {
            let dropped = session
                .execute(format!("DROP {kind} {}", quote::identifier(&name)))
                .await;
            match dropped {
                Err(error) if error.code() == Some(NOT_THERE) => {}
                other => {
                    other?;
                }
            }
        }
    }
    Ok(())
}

/// Removes every channel; what runs was refused before.
async fn drop_channels(session: &mut Session) -> Result<(), MysqlError> {
    let channels: Vec<String> = session
        .query(
            "SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration \
             WHERE HOST <> '' OR CHANNEL_NAME <> ''",
        )
        .await?;
    for channel in channels {
        let quoted = quote::string(&channel);
        // Only our own may be running still.
        if channel == CHANNEL {
            session
                .execute(format!("STOP REPLICA FOR CHANNEL {quoted}"))
                .await?;
        }
        session
            .execute(format!("RESET REPLICA ALL FOR CHANNEL {quoted}"))
            .await?;
    }
    Ok(())
}
