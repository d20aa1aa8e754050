//! Whether what was begun on a server is what is planned now.

use uuid::Uuid;

use crate::archive::layout::{BranchNumber, SnapshotId};
use crate::gtid::GtidSet;
use crate::restore::journal::Journal;

/// Whether an unfinished server's journal is of the restore that is planned; if not, what differs.
#[must_use]
pub fn differences(journal: &Journal, wanted: &WantedRun<'_>) -> Vec<String> {
    let run = &journal.run;
    let mut found = Vec::new();
    if run.archive != wanted.archive {
        found.push(format!(
            "it comes from another archive ({}, not {})",
            run.archive, wanted.archive
        ));
    }
    if run.server_uuid != wanted.server_uuid {
        found.push(format!(
            "it was begun on the server with the UUID {}, and this one is a copy of that",
            run.server_uuid
        ));
    }
    if run.snapshot != *wanted.snapshot {
        found.push(format!(
            "it began from snapshot {}, not {}",
            run.snapshot, wanted.snapshot
        ));
    }
    if run.branch != wanted.branch {
        found.push(format!(
            "it is of branch {}, not {}",
            run.branch, wanted.branch
        ));
    }
    if run.result != *wanted.result {
        found.push(format!(
            "it leads to another state: without {:#} and with {:#}",
            wanted.result.subtract(&run.result),
            run.result.subtract(wanted.result)
        ));
    }
    found
}

/// What a run that goes on must have in common with the one that began.
#[derive(Debug, Clone, Copy)]
pub struct WantedRun<'a> {
    /// The archive.
    pub archive: Uuid,
    /// The server.
    pub server_uuid: Uuid,
    /// The snapshot.
    pub snapshot: &'a SnapshotId,
    /// The history.
    pub branch: BranchNumber,
    /// The end.
    pub result: &'a GtidSet,
}
