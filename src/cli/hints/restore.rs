//! What to try when a restore fails.

use super::{DAMAGED, of_archive, of_class, of_mysql, of_wire};
use crate::error::Classified as _;
use crate::mysql::grants::Purpose;
use crate::restore::RestoreError;
use crate::restore::checks::Reason;
use crate::restore::load::LoadError;
use crate::restore::parts::PartsError;
use crate::restore::plan::PlanError;
use crate::restore::replay::ReplayError;
use crate::restore::target::nearest::{Nearest, Offer};
use crate::restore::target::{Target, TargetError};

pub(super) fn of_restore(error: &RestoreError) -> Option<String> {
    let hint = match error {
        RestoreError::Archive(error) => return of_archive(error),
        RestoreError::Mysql(error) => return of_mysql(error, Purpose::Restore),
        RestoreError::Wire(error) => return of_wire(error, Purpose::Restore),
        RestoreError::Target { error, nearest } => return of_target(error, nearest),
        RestoreError::Plan { error, nearest } => return Some(of_plan(error, nearest)),
        RestoreError::NoMark { marks, .. } if marks.is_empty() => {
            "another target: the archive has no marks (quillback mark makes one)".to_owned()
        }
        RestoreError::NoMark { marks, .. } => {
            let names: Vec<&str> = marks.iter().map(|name| name.as_str()).collect();
            format!("one of the archive's marks: {}", names.join(", "))
        }
        RestoreError::Damaged { .. } => DAMAGED.to_owned(),
        RestoreError::UnknownBranch(_) => "quillback status, which lists the branches".to_owned(),
        RestoreError::Unfinished { server, source } => {
            let again = format!(
                "the same command with --resume, which goes on from there; or with --wipe {server}, \
                 which begins anew"
            );
            return Some(match of_restore(source) {
                Some(hint) => format!("{hint}; then {again}"),
                None => again,
            });
        }
        RestoreError::Parts(PartsError::Mysql(error)) => {
            return of_mysql(error, Purpose::RestoreTables);
        }
        RestoreError::Parts(PartsError::Archive(error)) => return of_archive(error),
        RestoreError::Parts(error) => {
            let own = match error {
                PartsError::Unfinished { source, .. } => of_restore(source),
                _ => None,
            };
            return match (own, error.hint()) {
                (Some(own), Some(then)) => Some(format!("{own}; then {then}")),
                (own, then) => own.or(then).or_else(|| of_class(error.class())),
            };
        }
        RestoreError::AnotherServer { .. } => {
            "again, with a look at the plan: somebody else may be at work on that server".to_owned()
        }
        RestoreError::Journal(journal) if journal.schema != crate::restore::journal::SCHEMA => {
            format!(
                "DROP DATABASE {} and of each quillback_parts_* there, to begin anew: nobody knows how far it came",
                journal.schema
            )
        }
        RestoreError::Journal(_) => {
            "--wipe with that server, to begin anew: nobody knows how far it came".to_owned()
        }
        RestoreError::Replay(ReplayError::Archive(error)) => return of_archive(error),
        RestoreError::Replay(ReplayError::Mysql(error)) => {
            return of_mysql(error, Purpose::Restore);
        }
        RestoreError::Replay(ReplayError::Listen { .. } | ReplayError::Unreachable { .. }) => {
            "--serve-listen with an address and port of this host that the server's firewall lets \
             through, and --serve-advertise with the address that the server reaches; or --replay \
             sql, which needs no connection from there"
                .to_owned()
        }
        RestoreError::Replay(ReplayError::Filtered { .. } | ReplayError::Certificate { .. }) => {
            "--replay sql, which needs no replication".to_owned()
        }
        RestoreError::Replay(ReplayError::NotInSql { gtid, .. }) => {
            format!("without --replay sql; or --skip-gtid {gtid}, or --before-gtid {gtid}")
        }
        RestoreError::Replay(ReplayError::Applier {
            transaction: Some(transaction),
            ..
        }) => {
            let gtid = &transaction.gtid;
            format!("--before-gtid {gtid}, which stops before it; or --skip-gtid {gtid}")
        }
        RestoreError::Replay(ReplayError::StillApplying { .. }) => {
            "SHOW PROCESSLIST on it, if that takes long: somebody may hold a lock that it waits for"
                .to_owned()
        }
        RestoreError::Replay(ReplayError::Stopped { .. }) => {
            "START REPLICA on it, or nobody who stops it".to_owned()
        }
        RestoreError::Load(LoadError::NoKeyring { .. }) => {
            "a server with a keyring component, such as component_keyring_file".to_owned()
        }
        RestoreError::Load(LoadError::NoTimeZones { .. }) => {
            "mysql_tzinfo_to_sql /usr/share/zoneinfo on that server, into its schema mysql"
                .to_owned()
        }
        RestoreError::WrongEnd { .. }
        | RestoreError::WrongTables { .. }
        | RestoreError::WrongRows { .. } => {
            "a look at who else writes to that server; what is on it is no state of the archive"
                .to_owned()
        }
        other => return of_class(other.class()),
    };
    Some(hint)
}

fn of_plan(error: &PlanError, nearest: &Nearest) -> String {
    let otherwise = match error {
        PlanError::NoSnapshot { .. } => {
            "a later target, or --until latest; quillback status shows the snapshots"
        }
        PlanError::OtherHistory { .. } => {
            "without --snapshot, or --branch with the history that the snapshot is of (quillback \
             status)"
        }
        PlanError::Gap { .. } => {
            "a target before the gap, or one that a snapshot behind the gap reaches (quillback \
             status)"
        }
        PlanError::Empty => "quillback snapshot",
        PlanError::OnlyPartial { .. } => {
            "quillback snapshot without a filter; or --snapshot with one of them (quillback status \
             --snapshots), and --until-gtid with its set"
        }
        PlanError::UnknownSnapshot { .. } => "quillback status --snapshots, which lists them",
        PlanError::Server { reasons, .. } => return of_reasons(reasons),
    };
    offers(nearest, otherwise)
}

/// What to do about each reason, once each.
fn of_reasons(reasons: &[Reason]) -> String {
    let mut remedies: Vec<&str> = Vec::new();
    for reason in reasons {
        if !remedies.contains(&reason.remedy.as_str()) {
            remedies.push(&reason.remedy);
        }
    }
    match remedies.as_slice() {
        [only] => (*only).to_owned(),
        several => {
            let lines = several.iter().map(|remedy| format!("\n    - {remedy}"));
            lines.collect()
        }
    }
}

fn of_target(error: &TargetError, nearest: &Nearest) -> Option<String> {
    Some(match error {
        TargetError::Beyond { .. } => {
            let wait = "--wait, which waits until the archive is complete";
            match &nearest.before {
                Some(offer) if offer.target == Target::Latest => {
                    format!("{}, or {wait}", words(offer))
                }
                Some(offer) => format!("{}, --until latest, or {wait}", words(offer)),
                None => wait.to_owned(),
            }
        }
        TargetError::BeforeFirst { .. } => offers(nearest, "an older archive"),
        TargetError::InGap { .. } | TargetError::Missing { .. } => offers(
            nearest,
            "a moment before or behind the gap (quillback status, quillback log)",
        ),
        TargetError::NoLog { .. } => {
            offers(nearest, "--until latest, which is the newest snapshot")
        }
        TargetError::Empty => "quillback snapshot".to_owned(),
        TargetError::Unknown { .. } => offers(
            nearest,
            "quillback log, which lists what is archived; --wait, if they are on their way",
        ),
        TargetError::Lost { .. } => offers(
            nearest,
            "--branch with the history that still has them (quillback status lists the branches)",
        ),
        TargetError::BeforeLog { .. } | TargetError::MarkTooOld { .. } => offers(
            nearest,
            "--until-gtid with a snapshot's set (quillback status --json)",
        ),
    })
}

/// The nearest targets that can be had, as they are written, and what else can be done.
fn offers(nearest: &Nearest, otherwise: &str) -> String {
    let mut lines = Vec::new();
    if let Some(offer) = &nearest.before {
        lines.push(format!("{}  (the nearest state before)", words(offer)));
    }
    if let Some(offer) = &nearest.after {
        let what = match offer.branch {
            Some(_) => "the same in the history that has it",
            None => "the nearest state behind",
        };
        lines.push(format!("{}  ({what})", words(offer)));
    }
    if lines.is_empty() {
        return otherwise.to_owned();
    }
    lines.push(format!("or {otherwise}"));
    lines.join("\n       ")
}

/// An offer as the command line takes it.
fn words(offer: &Offer) -> String {
    let target = match &offer.target {
        Target::Latest => "--until latest".to_owned(),
        Target::Until { moment } => format!("--until {}", crate::clock::rfc3339(*moment)),
        Target::UntilMark { mark, .. } => format!("--until-mark {mark}"),
        Target::UntilGtid { set } => format!("--until-gtid '{set:#}'"),
        Target::BeforeGtid { gtid } => format!("--before-gtid {gtid}"),
    };
    match offer.branch {
        Some(branch) => format!("--branch {branch} {target}"),
        None => target,
    }
}
