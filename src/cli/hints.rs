//! What to try next: the one place that knows the "try:" lines.

mod reseed;
mod restore;

use super::failure::{Unfinished, UsageError};
use crate::archive::layout::BranchNumber;
use crate::archive::marks::make::MarkError;
use crate::archive::repository::ArchiveError;
use crate::error::{Class, Classified as _};
use crate::mysql::error::MysqlError;
use crate::mysql::grants::Purpose;
use crate::mysql::primary::PrimaryError;
use crate::mysql::topology::ChooseError;
use crate::mysql::wire::WireError;
use crate::reseed::ReseedError;
use crate::restore::RestoreError;
use crate::snapshot::SnapshotError;
use crate::snapshot::privileges::MissingPrivilege;
use crate::storage::StorageError;
use crate::stream::StreamError;
use crate::stream::home::NewHistory;
use reseed::of_reseed;
use restore::of_restore;

/// Where the log itself is broken.
const DAMAGED: &str = "quillback status, which shows every problem; what is broken or gone may still be \
     in a copy of the archive or an older version in the bucket";

/// The hint for an error, by its outermost part that has one.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(hint_of)
}

fn hint_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(usage) = cause.downcast_ref::<UsageError>() {
        return Some(usage.hint().to_owned());
    }
    if let Some(unfinished) = cause.downcast_ref::<Unfinished>() {
        return Some(unfinished.hint().to_owned());
    }
    if let Some(error) = cause.downcast_ref::<ReseedError>() {
        return of_reseed(error);
    }
    if let Some(error) = cause.downcast_ref::<RestoreError>() {
        return of_restore(error);
    }
    if let Some(error) = cause.downcast_ref::<StreamError>() {
        return of_stream(error);
    }
    if let Some(error) = cause.downcast_ref::<SnapshotError>() {
        return of_snapshot(error);
    }
    if let Some(error) = cause.downcast_ref::<MarkError>() {
        return of_mark(error);
    }
    if let Some(error) = cause.downcast_ref::<ArchiveError>() {
        return of_archive(error);
    }
    if let Some(error) = cause.downcast_ref::<StorageError>() {
        return of_storage(error);
    }
    if let Some(error) = cause.downcast_ref::<MysqlError>() {
        return of_class(error.class());
    }
    if let Some(error) = cause.downcast_ref::<WireError>() {
        return of_class(error.class());
    }
    None
}

fn of_stream(error: &StreamError) -> Option<String> {
    let hint = match error {
        StreamError::Archive(error) => return of_archive(error),
        StreamError::Mysql(error) => return of_mysql(error, Purpose::Stream),
        StreamError::Wire(error) => return of_wire(error, Purpose::Stream),
        StreamError::MissingPrivileges {
            missing,
            roles_asleep,
            ..
        } => {
            let missing: Vec<(String, &str)> = missing
                .iter()
                .map(|need| (need.on.to_string(), need.privilege))
                .collect();
            return Some(of_missing(&missing, roles_asleep, "", Purpose::Stream));
        }
        StreamError::Fenced { .. } => {
            "nothing, if the other streamer is meant to run; else stop it, then start this one"
        }
        StreamError::Occupied { .. } => "--standby, to take over when it is gone; or stop it first",
        StreamError::Gap { missing, .. } => {
            return Some(format!(
                "a server that still has them (--server); else quillback snapshot, and then \
                 stream --accept-gap '{missing:#}', which records for ever that they are lost"
            ));
        }
        StreamError::Fork { missing, .. } => {
            return Some(format!(
                "the right server (--server), or one that has them; else, if the cluster goes on \
                 without them, stream --new-branch '{missing:#}', which starts a new history and \
                 leaves them in the old one"
            ));
        }
        StreamError::LeftBehind { own, history } => {
            return Some(of_new_history(history, Some(*own)));
        }
        StreamError::Stranger { history, .. } => {
            return Some(of_new_history(history, None));
        }
        StreamError::OtherPayload { parted, .. } if !parted.is_empty() => {
            return Some(format!(
                "a server of the archive's history (--server); else, if the cluster goes on with \
                 its own transactions, stream --new-branch '{parted:#}', which starts a new \
                 history and leaves the archive's in the old one"
            ));
        }
        StreamError::OtherPayload { .. } => {
            "a server of the archive's history (--server); a server that was restored needs an \
             archive of its own"
        }
        StreamError::DecisionTooSmall { flag, needed, .. } => {
            return Some(format!("{flag} '{needed:#}', if that is what you mean"));
        }
        StreamError::LeftInSpool { .. } => {
            "the same command on this host once the store is back; until then keep the folder"
        }
        StreamError::Spool(_) => {
            "--spool-dir with a folder that this user can write and that has room"
        }
        StreamError::Primary(PrimaryError::Mysql(error)) => {
            return of_mysql(error, Purpose::Stream);
        }
        StreamError::Primary(PrimaryError::NoPrimary { .. }) | StreamError::NoPrimary { .. } => {
            "again once the cluster has a primary; --server with every member, so that the new one \
             is found"
        }
        StreamError::Primary(PrimaryError::SplitBrain { .. }) => {
            "SET PERSIST super_read_only = ON on the one that is not the source; or --server with \
             the servers of one cluster only"
        }
        StreamError::Primary(PrimaryError::Ring { .. }) => {
            "--server with a member of the primary cluster, and a look at the replication channels"
        }
        StreamError::Primary(PrimaryError::PrimaryCluster { .. }) => {
            "again once that server can be reached from here; or --server with a member of the \
             primary cluster"
        }
        StreamError::Event { .. } => {
            "another member (--from secondary), and a look at that server's disk and memory"
        }
        StreamError::Segment(_) => {
            "another host: what was compressed did not come back as it was, or could not be made"
        }
        StreamError::Damaged { .. } => DAMAGED,
        StreamError::Moved { .. } => {
            "again; if it goes on, the servers' own addresses in --server, not one that moves"
        }
        StreamError::Unsuitable { .. } => {
            "that setting in the server's my.cnf and a restart of it, or another --server"
        }
        StreamError::Stopped | StreamError::Task(_) => {
            "the same command again: it goes on from what is archived; if it fails again, -vv and a \
             bug report"
        }
    };
    Some(hint.to_owned())
}

/// What to do with a stream on the old side of a reseed; `own` is the history that it wrote to.
fn of_new_history(history: &NewHistory, own: Option<BranchNumber>) -> String {
    let cluster = match (history.group, history.server) {
        (Some(group), _) => format!("the members of the group {group}"),
        (None, Some(server)) => format!("the server {server}"),
        (None, None) => "the new cluster".to_owned(),
    };
    let old = own.map_or_else(|| "N".to_owned(), |own| own.to_string());
    format!(
        "--server with {cluster}, which needs no other flag; SET PERSIST super_read_only = ON on what \
         is left of the old cluster, which must take no writes; if that is the one to go on after \
         all, stream --back-to-branch {old} with its servers, which gives the new history up"
    )
}

/// The codes by which a server says that a privilege is missing: on a schema (1044), a table
/// (1142), a column (1143), everything (1227), a routine (1370).
const DENIED: [u16; 5] = [1044, 1142, 1143, 1227, 1370];

fn of_denied(purpose: Purpose) -> String {
    format!(
        "GRANT what is missing to that account; quillback grants --for {purpose} prints all that \
         is needed, with the reasons"
    )
}

fn of_mysql(error: &MysqlError, purpose: Purpose) -> Option<String> {
    match error.code() {
        Some(code) if DENIED.contains(&code) => Some(of_denied(purpose)),
        _ => of_class(error.class()),
    }
}

fn of_wire(error: &WireError, purpose: Purpose) -> Option<String> {
    let hint = match error {
        WireError::SemiSync { .. } => {
            "that statement on every server that may become the primary; or stream without \
             --semi-sync, which the primary then does not wait for"
        }
        WireError::Server { code: 1236, .. } => {
            "another member (--from secondary), and a look at that server's error log and binlogs"
        }
        WireError::Server { code, .. } if DENIED.contains(code) => {
            return Some(of_denied(purpose));
        }
        WireError::Malformed { .. } => {
            "the server's own address, if something stands between; else a bug report with the \
             server's version"
        }
        other => return of_class(other.class()),
    };
    Some(hint.to_owned())
}

fn of_snapshot(error: &SnapshotError) -> Option<String> {
    let hint = match error {
        SnapshotError::Mysql(error) => return of_mysql(error, Purpose::Snapshot),
        SnapshotError::Wire(error) => return of_wire(error, Purpose::Snapshot),
        SnapshotError::Storage(error) => return of_storage(error),
        SnapshotError::Choose(error) if error.hides_replicas() => {
            "GRANT REPLICATION SLAVE ON *.* to that account, by which its replicas are found, or --server \
             with the replica; else --allow-primary if the primary can bear it"
        }
        SnapshotError::Choose(ChooseError::Behind { .. }) => {
            "again once a secondary has caught up, or a longer --max-lag"
        }
        SnapshotError::Choose(_) => {
            "again once a secondary has caught up, or --allow-primary if the primary can bear it"
        }
        SnapshotError::MissingPrivileges {
            missing,
            roles_asleep,
            ..
        } => return Some(of_missing_privileges(missing, roles_asleep)),
        SnapshotError::NotInnodb { .. } => {
            "ALTER TABLE ... ENGINE = InnoDB, --exclude with those tables, or --allow-non-innodb, which \
             takes their rows as they are at some moment"
        }
        SnapshotError::NothingLeft { .. } => {
            "fewer or narrower --exclude patterns; a snapshot without a row would restore nothing"
        }
        SnapshotError::NothingMatches { .. } => {
            "patterns as db or db.table with * and ?, in the case in which the server prints the names"
        }
        SnapshotError::PreparedXa { .. } => {
            "XA RECOVER on the source, which lists them, and XA COMMIT or XA ROLLBACK of what is forgotten"
        }
        SnapshotError::Cancelled => {
            "the same with --resume, which goes on with it if its state can be seen again"
        }
        SnapshotError::NeverQuiet { .. } => "--lock auto, which takes a short lock if it must",
        SnapshotError::Ddl { .. } | SnapshotError::SchemaChanged { .. } => {
            "again when no DDL is due; with BACKUP_ADMIN the snapshot keeps it away for up to --ddl-wait"
        }
        SnapshotError::GaveWay { .. } => {
            "again when no DDL is due, or a longer --ddl-wait if what waits can bear it"
        }
        SnapshotError::FellOut { .. } => {
            "again, which chooses anew among the secondaries; a longer --max-lag, or --on-lag continue"
        }
        SnapshotError::Errant { .. } => {
            "another member; that server needs its own transactions removed, or to be rebuilt"
        }
        SnapshotError::LockBusy { .. } => {
            "again when those statements are over, or another server; --lock none never waits for a lock"
        }
        _ => return of_class(error.class()),
    };
    Some(hint.to_owned())
}

fn of_missing_privileges(missing: &[MissingPrivilege], roles_asleep: &[String]) -> String {
    let exclude = match missing.iter().any(|missing| missing.schema.is_some()) {
        true => ", or --exclude with those schemas",
        false => "",
    };
    let missing: Vec<(String, &str)> = missing
        .iter()
        .map(|missing| (missing.scope(), missing.privilege.as_str()))
        .collect();
    of_missing(&missing, roles_asleep, exclude, Purpose::Snapshot)
}

/// What to grant, each privilege with its scope; `instead` is what else would do.
fn of_missing(
    missing: &[(String, &str)],
    roles_asleep: &[String],
    instead: &str,
    purpose: Purpose,
) -> String {
    let all =
        format!("quillback grants --for {purpose} prints all that is needed, with the reasons");
    if !roles_asleep.is_empty() {
        return format!("SET DEFAULT ROLE ALL TO that account; {all}");
    }
    let mut scopes: Vec<&String> = missing.iter().map(|(scope, _)| scope).collect();
    scopes.dedup();
    let grants: Vec<String> = scopes
        .iter()
        .map(|wanted| {
            let of_scope = missing.iter().filter(|(scope, _)| scope == *wanted);
            let names: Vec<&str> = of_scope.map(|(_, name)| *name).collect();
            format!("GRANT {} ON {wanted}", names.join(", "))
        })
        .collect();
    format!("{} to that account{instead}; {all}", grants.join(" and "))
}

fn of_mark(error: &MarkError) -> Option<String> {
    match error {
        MarkError::Archive(error) => of_archive(error),
        MarkError::Mysql(error) | MarkError::Primary(PrimaryError::Mysql(error)) => {
            of_mysql(error, Purpose::Stream)
        }
        MarkError::Primary(_) => Some(
            "again once the cluster has a primary; --server with every member, so that it is found"
                .to_owned(),
        ),
        MarkError::OtherHistory { .. } => Some(
            "--server with the cluster that the archive is of; quillback status shows its branches"
                .to_owned(),
        ),
    }
}

fn of_archive(error: &ArchiveError) -> Option<String> {
    match error {
        ArchiveError::MarkExists { .. } => {
            Some("another name: a mark is never changed (quillback mark --list)".to_owned())
        }
        ArchiveError::NoBranch { .. } => {
            Some("quillback status, which lists the branches".to_owned())
        }
        ArchiveError::Restless { .. } => Some("again in a moment".to_owned()),
        ArchiveError::Storage(error) => of_storage(error),
        ArchiveError::NotAnArchive { .. } => {
            Some("quillback init, or another --archive".to_owned())
        }
        ArchiveError::Exists { .. } => {
            Some("this archive as it is, or another place for a new one".to_owned())
        }
        ArchiveError::TooNew { .. } | ArchiveError::NewerManifest { .. } => {
            Some("a newer quillback".to_owned())
        }
        ArchiveError::LostBranch { .. } => Some(
            "that object from a copy of the archive or an older version in the bucket: without it nobody \
             knows which transactions belong to which history"
                .to_owned(),
        ),
        ArchiveError::Segment { .. }
        | ArchiveError::Misnamed { .. }
        | ArchiveError::Json { .. } => Some(
            "that object from a copy of the archive or an older version in the bucket; \
                 without it: a move of it out of the archive, which makes a gap that status tells"
                .to_owned(),
        ),
    }
}

fn of_storage(error: &StorageError) -> Option<String> {
    let hint = match error {
        StorageError::InvalidUrl { .. } => "file:///folder or s3://bucket/prefix",
        StorageError::NoSuchPlace { .. } => {
            "making the bucket or the folder first, or another --archive"
        }
        StorageError::Denied { .. } => {
            "the access rights and the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role)"
        }
        StorageError::UnconditionalWrites { .. } => {
            "a store that honours If-None-Match on PUT: AWS S3, MinIO, or a folder; --single-writer \
             (init, stream) if you see to it yourself that never two streamers run"
        }
        StorageError::Unavailable { .. } => "again later; AWS_ENDPOINT_URL if it is not AWS",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn of_class(class: Class) -> Option<String> {
    match class {
        Class::Authentication => Some(
            "the user and QUILLBACK_PASSWORD, its grants, and ?ssl-mode= of the server's URL"
                .to_owned(),
        ),
        Class::Transient => Some("again once the server can be reached".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_for(error: impl Into<anyhow::Error>) -> String {
        hint(&error.into()).expect("a hint")
    }

    #[test]
    fn replicas_that_cannot_be_seen_are_not_waited_for() {
        let choose = |reason: &str| {
            hint_for(SnapshotError::Choose(ChooseError::OnlyPrimary {
                primary: crate::mysql::HostPort::new("db1", 3306),
                reasons: vec![reason.to_owned()],
            }))
        };
        assert!(choose("db1:3306 has no secondary").starts_with("again once"));
        let hidden = "replicas of db1:3306 are not known: server error 1227";
        assert!(choose(hidden).starts_with("GRANT REPLICATION SLAVE ON *.*"));
    }

    #[test]
    fn a_refusal_names_the_word_that_lifts_it() {
        let unfenced = StorageError::UnconditionalWrites {
            url: "s3://b".to_owned(),
            evidence: "it was overwritten".to_owned(),
        };
        assert!(hint_for(unfenced).contains("--single-writer (init, stream)"));
        let deaf = WireError::SemiSync {
            address: "db1:3306".to_owned(),
            reason: "the plugin is not there".to_owned(),
        };
        assert!(hint_for(StreamError::Wire(deaf)).contains("without --semi-sync"));
        let split = PrimaryError::SplitBrain {
            servers: Vec::new(),
        };
        assert!(hint_for(StreamError::from(split)).contains("super_read_only"));
        let missing: crate::gtid::GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-9"
            .parse()
            .expect("a set");
        let gap = StreamError::Gap {
            server: "db1:3306".to_owned(),
            missing: missing.clone(),
        };
        assert!(hint_for(gap).contains(&format!("--accept-gap '{missing:#}'")));
        let fork = StreamError::Fork {
            server: "db1:3306".to_owned(),
            missing: missing.clone(),
        };
        assert!(hint_for(fork).contains(&format!("--new-branch '{missing:#}'")));
        let mut history = NewHistory {
            branch: BranchNumber(2),
            created: chrono::DateTime::UNIX_EPOCH,
            reason: "an accident".to_owned(),
            group: Some(uuid::Uuid::from_u128(7)),
            server: Some(uuid::Uuid::from_u128(8)),
        };
        let left = StreamError::LeftBehind {
            own: BranchNumber(1),
            history: Box::new(history.clone()),
        };
        let said = hint_for(left);
        assert!(said.contains("of the group 00000000-0000-0000-0000-000000000007"));
        assert!(said.contains("super_read_only") && said.contains("--back-to-branch 1 "));
        history.group = None;
        let stranger = StreamError::Stranger {
            server: "db1:3306".to_owned(),
            why: crate::stream::home::Stranger::OtherServer(uuid::Uuid::from_u128(9)),
            history: Box::new(history),
        };
        assert!(hint_for(stranger).contains("the server 00000000-0000-0000-0000-000000000008,"));
        assert!(hint_for(StreamError::Stopped).contains("same command again"));
    }
}
