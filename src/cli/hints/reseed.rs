//! What to try when a reseed fails.

use super::restore::{of_reasons, of_restore};
use super::{of_archive, of_class, of_mysql};
use crate::error::Classified as _;
use crate::mysql::grants::Purpose;
use crate::reseed::ReseedError;

/// A reseed goes on from what is done.
const AGAIN: &str = "the same command again, which goes on from there";

pub(super) fn of_reseed(error: &ReseedError) -> Option<String> {
    Some(match error {
        ReseedError::Archive(error) => return of_archive(error),
        ReseedError::Mysql(error) => return of_mysql(error, Purpose::Reseed),
        ReseedError::Refused { reasons, .. } => of_reasons(reasons),
        ReseedError::Restore { source, .. } => match of_restore(source) {
            Some(hint) => format!("{hint}; then {AGAIN}"),
            None => AGAIN.to_owned(),
        },
        ReseedError::Changed { .. } => {
            "again, with a look at the plan: somebody else may be at work on that server".to_owned()
        }
        ReseedError::Clone { server, .. } => format!(
            "the reason, in the error logs of both servers; then {AGAIN}; or --fill archive, which needs \
             nothing of the new primary. If {server} has lost its accounts, initialise it anew"
        ),
        ReseedError::NotRestarted { server, .. } => {
            format!("to start {server}, with a look at its error log; then {AGAIN}")
        }
        ReseedError::RestartCommand { server, .. } => {
            format!("to start {server} by hand, or another --restart-command; then {AGAIN}")
        }
        ReseedError::NotJoined { server, .. } => format!(
            "the error log of {server}: that the members reach each other at their addresses and local \
             addresses (report_host, group_replication_local_address), and with the recovery account; \
             then {AGAIN}"
        ),
        ReseedError::Different { server, .. } => format!(
            "STOP GROUP_REPLICATION on {server}, and {AGAIN}, with --fill clone if it cannot catch up"
        ),
        ReseedError::Cancelled => AGAIN.to_owned(),
        #[expect(unreachable_patterns, reason = "a hint for kinds to come")]
        other => return of_class(other.class()),
    })
}
