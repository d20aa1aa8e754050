//! What the account may do, held against what a stream needs, before anything is claimed.
//!
//! Each server that is going to be followed is asked; what its account lacks is named all at once,
//! and not one by one as the questions come that need it.

use super::error::StreamError;
use crate::error::{Class, Classified as _};
use crate::mysql::discover::login_for;
use crate::mysql::error::MysqlError;
use crate::mysql::grants::{GlobalPrivileges, Need, Purpose, needs};
use crate::mysql::host_port::HostPort;
use crate::mysql::primary::PrimaryError;
use crate::mysql::server_url::ServerUrl;
use crate::mysql::session::Session;

/// Asks the server what the session may do; one warning for each optional privilege that is missing.
///
/// # Errors
///
/// [`StreamError::MissingPrivileges`] with all that is required and missing.
pub(super) async fn check(
    session: &mut Session,
    server: &HostPort,
) -> Result<Vec<String>, StreamError> {
    let held = GlobalPrivileges::load(session).await?;
    judge(&held, server)
}

fn judge(held: &GlobalPrivileges, server: &HostPort) -> Result<Vec<String>, StreamError> {
    let missing = needs(Purpose::Stream)
        .iter()
        .filter(|need| !held.meets(need));
    let (required, optional): (Vec<Need>, Vec<Need>) = missing.partition(|need| need.is_required());
    if !required.is_empty() {
        return Err(StreamError::MissingPrivileges {
            server: server.to_string(),
            account: held.account().to_owned(),
            missing: required,
            roles_asleep: held.roles_asleep().map(ToOwned::to_owned).collect(),
        });
    }
    let warning = |need: &Need| {
        let lost = need.loss().unwrap_or_default();
        format!("without {} on {} {lost}", need.privilege, need.on)
    };
    Ok(optional.iter().map(warning).collect())
}

/// What a server's refusal comes from: privileges that are missing, if that is it.
pub(super) async fn explain(error: StreamError, servers: &[ServerUrl]) -> StreamError {
    let refused = match &error {
        StreamError::Mysql(error) | StreamError::Primary(PrimaryError::Mysql(error)) => error,
        _ => return error,
    };
    // A login that was refused is not tried again.
    let is_denied = refused.code().is_some() && refused.class() == Class::Authentication;
    let (MysqlError::At { server, .. }, Some(first), true) = (refused, servers.first(), is_denied)
    else {
        return error;
    };
    let url = login_for(server, first, servers);
    let asked = async {
        let mut session = Session::connect(&url).await?;
        let held = GlobalPrivileges::load(&mut session).await?;
        session.close().await;
        Ok::<_, MysqlError>(held)
    };
    match asked.await {
        Ok(held) => judge(&held, server).err().unwrap_or(error),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(grants: &[&str]) -> Result<Vec<String>, StreamError> {
        let held = GlobalPrivileges::parse(grants.iter().copied());
        judge(&held, &HostPort::new("db1", 3306))
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let tables = "GRANT SELECT ON `performance_schema`.* TO `s`@`%`";
        let global = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `s`@`%`";
        assert_eq!(judged(&[global, tables]).expect("enough"), [""; 0]);
        let error = judged(&["GRANT USAGE ON *.* TO `s`@`%`", "GRANT `r`@`%` TO `s`@`%`"])
            .expect_err("nothing is granted");
        assert_eq!(error.class(), Class::Authentication);
        let text = error.to_string();
        for named in [
            "REPLICATION SLAVE on *.* (",
            "REPLICATION CLIENT on *.* (",
            "SELECT on performance_schema.replication_group_members (",
            "SELECT on performance_schema.replication_group_member_stats (",
            "its role r@% is not active",
        ] {
            assert!(text.contains(named), "{text}");
        }
        assert!(!text.contains("connection_status"), "{text}");
        // What is optional is told.
        let two = [
            global,
            "GRANT SELECT ON `performance_schema`.`replication_group_members` TO `s`@`%`",
            "GRANT SELECT ON `performance_schema`.`replication_group_member_stats` TO `s`@`%`",
        ];
        let warnings = judged(&two).expect("enough");
        assert!(
            warnings.len() == 1
                && warnings[0].starts_with(
                    "without SELECT on performance_schema.replication_connection_status what "
                ),
            "{warnings:?}"
        );
    }
}
