//! What the account may do, held against what a snapshot needs; before anything is begun.
//!
//! What is required and missing is refused: the server would leave objects out of its lists in
//! silence. What is optional and missing is told as a warning, with what is lost.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::consistency::LockMode;
use super::error::SnapshotError;
use super::options::SnapshotOptions;
use crate::error::{Class, Classified as _};
use crate::mysql::discover::login_for;
use crate::mysql::facts::SYSTEM_SCHEMAS;
use crate::mysql::grants::{GlobalPrivileges, Need, Purpose, needs};
use crate::mysql::schema::Filter;
use crate::mysql::{HostPort, MysqlError, ServerUrl, ServerVersion, Session, quote};

/// The need without which no lock is taken.
const LOCKING: &str = "FLUSH_TABLES";
/// System schemas that a snapshot reads by SELECT.
const READ_BY_SELECT: [&str; 2] = ["mysql", "performance_schema"];

/// A privilege as a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPrivilege {
    /// Its name, as GRANT uses it.
    pub privilege: String,
    /// Whether the account has it.
    pub granted: bool,
    /// Whether the snapshot is refused without it.
    pub required: bool,
    /// What it is for.
    pub why: String,
    /// What is lost without it, if the snapshot is not refused.
    pub without: Option<String>,
}

/// A privilege that is required and not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// Its name, as GRANT uses it.
    pub privilege: String,
    /// The schema for which it was taken back; `None` if it was never granted.
    pub schema: Option<String>,
    /// What it is for.
    pub why: String,
}

impl MissingPrivilege {
    /// On what it must be granted.
    #[must_use]
    pub fn scope(&self) -> String {
        match &self.schema {
            None => "*.*".to_owned(),
            Some(schema) => format!("{}.*", quote::identifier(schema)),
        }
    }
}

impl fmt::Display for MissingPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken_back = match self.schema {
            None => "",
            Some(_) => "taken back by a partial revoke; it ",
        };
        write!(
            f,
            "{} on {} ({taken_back}{})",
            self.privilege,
            self.scope(),
            self.why
        )
    }
}

/// Every privilege of use, in the order of weight.
///
/// # Errors
///
/// [`SnapshotError::MissingPrivileges`] with all that is required and not there.
pub(super) fn judge(
    held: &GlobalPrivileges,
    server: &HostPort,
    version: &ServerVersion,
    options: &SnapshotOptions,
) -> Result<Vec<PlannedPrivilege>, SnapshotError> {
    let mut planned = Vec::new();
    let mut missing = Vec::new();
    for need in needs(Purpose::Snapshot) {
        let Some(name) = need.name_on(version) else {
            continue;
        };
        let required = match options.lock {
            LockMode::None if need.privilege == LOCKING => continue,
            LockMode::Flush if need.privilege == LOCKING => true,
            _ => need.is_required(),
        };
        let granted = held.meets(need);
        let lost = hidden(held, need, &options.filter);
        if required && !granted {
            missing.push(MissingPrivilege {
                privilege: name.to_owned(),
                schema: None,
                why: need.why.to_owned(),
            });
        } else if required {
            missing.extend(lost.into_iter().map(|schema| MissingPrivilege {
                privilege: name.to_owned(),
                schema: Some(schema.to_owned()),
                why: need.why.to_owned(),
            }));
        }
        planned.push(PlannedPrivilege {
            privilege: name.to_owned(),
            granted,
            required,
            why: need.why.to_owned(),
            without: need.loss().filter(|_| !required).map(ToOwned::to_owned),
        });
    }
    if missing.is_empty() {
        return Ok(planned);
    }
    Err(SnapshotError::MissingPrivileges {
        server: server.to_string(),
        account: held.account().to_owned(),
        missing,
        roles_asleep: held.roles_asleep().map(ToOwned::to_owned).collect(),
    })
}

/// The schemas that a need must see and that a partial revoke hides.
fn hidden<'a>(held: &'a GlobalPrivileges, need: &Need, filter: &Filter) -> Vec<&'a str> {
    let is_read = |schema: &str| {
        if SYSTEM_SCHEMAS.contains(&schema) {
            need.privilege == "SELECT" && READ_BY_SELECT.contains(&schema)
        } else {
            filter.passes_database(schema)
        }
    };
    let mut schemas = held.revoked_on(need.privilege);
    schemas.retain(|schema| is_read(schema));
    schemas
}

/// One sentence for each optional privilege that is not there.
pub(super) fn warnings(privileges: &[PlannedPrivilege]) -> impl Iterator<Item = String> {
    privileges
        .iter()
        .filter(|privilege| !privilege.granted)
        .filter_map(|privilege| {
            let lost = privilege.without.as_deref()?;
            Some(format!("without {} {lost}", privilege.privilege))
        })
}

/// What a refusal of the server comes from: privileges that are missing, if that is it.
pub(super) async fn explain(
    error: MysqlError,
    servers: &[ServerUrl],
    options: &SnapshotOptions,
) -> SnapshotError {
    let (MysqlError::At { server, .. }, Some(first), Class::Authentication) =
        (&error, servers.first(), error.class())
    else {
        return error.into();
    };
    let url = login_for(server, first, servers);
    match ask(&url).await {
        Ok((held, version)) => match judge(&held, server, &version, options) {
            Err(missing) => missing,
            Ok(_) => error.into(),
        },
        Err(_) => error.into(),
    }
}

async fn ask(url: &ServerUrl) -> Result<(GlobalPrivileges, ServerVersion), MysqlError> {
    let mut session = Session::connect(url).await?;
    let held = GlobalPrivileges::load(&mut session).await?;
    let version: String = session.query_one("SELECT @@GLOBAL.version").await?;
    session.close().await;
    Ok((held, ServerVersion::parse(&version)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "SELECT, SHOW VIEW, TRIGGER, EVENT, PROCESS, REPLICATION CLIENT, \
                       REPLICATION SLAVE, BACKUP_ADMIN, FLUSH_TABLES, RESOURCE_GROUP_USER";

    fn judged(
        lines: &[&str],
        options: &SnapshotOptions,
    ) -> Result<Vec<PlannedPrivilege>, SnapshotError> {
        let held = GlobalPrivileges::parse(lines.iter().copied());
        let version = ServerVersion::parse("8.4.6").expect("a version");
        judge(&held, &HostPort::new("db2", 3306), &version, options)
    }

    fn without(name: &str) -> String {
        let kept: Vec<&str> = ALL
            .split(", ")
            .map(str::trim)
            .filter(|other| *other != name)
            .collect();
        assert_eq!(kept.len(), 9, "{name}");
        format!("GRANT {} ON *.* TO `b`@`%`", kept.join(", "))
    }

    #[test]
    fn each_privilege_that_is_taken_away_is_refused_or_told() {
        let options = SnapshotOptions::default();
        for need in needs(Purpose::Snapshot) {
            let line = without(need.privilege);
            match judged(&[&line], &options) {
                Err(error) => {
                    assert!(need.is_required(), "{error}");
                    assert!(error.to_string().contains(need.privilege), "{error}");
                    assert_eq!(error.class(), Class::Authentication);
                }
                Ok(planned) => {
                    assert!(!need.is_required(), "{}", need.privilege);
                    let warnings: Vec<String> = warnings(&planned).collect();
                    assert_eq!(warnings.len(), 1, "{warnings:?}");
                    assert!(warnings[0].contains(need.privilege), "{warnings:?}");
                }
            }
        }
        let all = format!("GRANT {ALL} ON *.* TO `b`@`%`");
        let planned = judged(&[&all], &options).expect("nothing is missing");
        assert_eq!(warnings(&planned).count(), 0);
    }

    #[test]
    fn what_a_wish_makes_needless_or_necessary() {
        let line = without("FLUSH_TABLES");
        let with = |lock| SnapshotOptions {
            lock,
            ..SnapshotOptions::default()
        };
        let planned = judged(&[&line], &with(LockMode::None)).expect("no lock is wanted");
        assert_eq!(warnings(&planned).count(), 0);
        let error = judged(&[&line], &with(LockMode::Flush)).expect_err("a lock is wanted");
        assert!(error.to_string().contains("FLUSH_TABLES"), "{error}");
    }

    #[test]
    fn a_partial_revoke_hides_what_would_be_taken() {
        let all = format!("GRANT {ALL} ON *.* TO `b`@`%`");
        let revoked = |sql| judged(&[&all, sql], &SnapshotOptions::default());
        for (sql, hides) in [
            ("REVOKE SELECT ON `secret`.* FROM `b`@`%`", true),
            ("REVOKE TRIGGER ON `secret`.* FROM `b`@`%`", true),
            ("REVOKE SELECT ON `mysql`.* FROM `b`@`%`", true),
            ("REVOKE SELECT ON `sys`.* FROM `b`@`%`", false),
            ("REVOKE TRIGGER ON `mysql`.* FROM `b`@`%`", false),
            ("REVOKE INSERT ON `secret`.* FROM `b`@`%`", false),
        ] {
            assert_eq!(revoked(sql).is_err(), hides, "{sql}");
        }
        let options = SnapshotOptions {
            filter: Filter {
                include: Vec::new(),
                exclude: vec!["secret".parse().expect("a pattern")],
            },
            ..SnapshotOptions::default()
        };
        judged(
            &[&all, "REVOKE SELECT ON `secret`.* FROM `b`@`%`"],
            &options,
        )
        .expect("what is hidden is not wanted");
    }

    #[test]
    fn a_role_that_is_not_active_is_named() {
        let error = judged(
            &["GRANT USAGE ON *.* TO `b`@`%`", "GRANT `r`@`%` TO `b`@`%`"],
            &SnapshotOptions::default(),
        )
        .expect_err("nothing is granted");
        assert!(error.to_string().contains("r@%"), "{error}");
    }
}
