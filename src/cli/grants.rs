//! `quillback grants`: least-privilege SQL for each command.

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::failure::{Done, UsageError};
use super::render;
use crate::mysql::ServerVersion;
use crate::mysql::grants::{AccountName, Purpose, Scope, Statements};

/// The options of `grants`.
#[derive(Debug, Args)]
pub(super) struct GrantsArguments {
    /// The command that shall log in with the account (may be repeated).
    #[arg(long = "for", value_enum, required = true, value_name = "COMMAND")]
    purposes: Vec<For>,
    /// The account, user@host; without a host it may come from any.
    #[arg(long, default_value = "quillback@%", value_name = "NAME")]
    user: String,
    /// The servers' version, if it is older than 8.0.23.
    #[arg(long, default_value = "8.4.0", value_name = "VERSION")]
    mysql_version: String,
}

/// The commands that log in to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum For {
    /// A consistent snapshot from a secondary.
    Snapshot,
    /// Following the binlog.
    Stream,
    /// Restoring, on the new server.
    Restore,
    /// Restoring some tables (restore --tables), on any server.
    RestoreTables,
    /// Making a cluster, on each of its servers.
    Reseed,
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct GrantLine<'a> {
    statement: &'a str,
    required: bool,
    needs: Vec<NeedLine>,
}

#[derive(Debug, Serialize)]
struct NeedLine {
    r#for: Purpose,
    privilege: &'static str,
    on: Scope,
    required: bool,
    why: &'static str,
    /// What is lost without it; null if the command ends.
    without: Option<&'static str>,
    /// Privileges that serve as well.
    or: &'static [&'static str],
}

pub(super) fn run(context: &Context, arguments: &GrantsArguments) -> anyhow::Result<Done> {
    let account: AccountName = arguments
        .user
        .parse()
        .map_err(|error| UsageError::new(format!("{error}"), "--user backup@10.0.0.%"))?;
    let version = ServerVersion::parse(&arguments.mysql_version)
        .map_err(|error| UsageError::new(format!("{error}"), "--mysql-version 8.0.22"))?;
    let mut purposes: Vec<Purpose> = arguments
        .purposes
        .iter()
        .map(|wanted| match wanted {
            For::Snapshot => Purpose::Snapshot,
            For::Stream => Purpose::Stream,
            For::Restore => Purpose::Restore,
            For::RestoreTables => Purpose::RestoreTables,
            For::Reseed => Purpose::Reseed,
        })
        .collect();
    purposes.sort();
    purposes.dedup();
    let restores = purposes.contains(&Purpose::Restore);
    if restores && purposes.len() > 1 {
        return Err(UsageError::new(
            "restore needs an account on another server, with far more than the others",
            "--for restore alone",
        )
        .into());
    }
    let statements = Statements::compute(&account, &purposes, &version);
    let reseeds = purposes == [Purpose::Reseed];
    let before: &[&str] = if restores || reseeds {
        &[UNLOGGED]
    } else {
        &[]
    };
    if context.json {
        let all: Vec<&str> = before.iter().copied().chain(statements.sql()).collect();
        let grants: Vec<GrantLine<'_>> = lines(&statements);
        render::data(&json!({ "statements": all, "grants": grants }));
    } else {
        render::say(&describe(&statements, &purposes, before));
    }
    Ok(Done::Fine)
}

/// What is made on a new server must not give it transactions of its own.
const UNLOGGED: &str = "SET SESSION sql_log_bin = OFF";

fn lines(statements: &Statements) -> Vec<GrantLine<'_>> {
    let line = |(purpose, need): &(Purpose, crate::mysql::grants::Need)| NeedLine {
        r#for: *purpose,
        privilege: need.privilege,
        on: need.on,
        required: need.is_required(),
        why: need.why,
        without: need.loss(),
        or: need.broader,
    };
    statements
        .grants
        .iter()
        .map(|grant| GrantLine {
            statement: &grant.sql,
            required: grant.is_required(),
            needs: grant.needs.iter().map(line).collect(),
        })
        .collect()
}

/// SQL with comments.
fn describe(statements: &Statements, purposes: &[Purpose], before: &[&str]) -> String {
    let commands: Vec<String> = purposes
        .iter()
        .map(|purpose| format!("quillback {purpose}"))
        .collect();
    let mut lines = vec![format!("-- An account for {}.", commands.join(" and "))];
    lines.push(
        if before.is_empty() {
            "-- Run this on the primary: the other members get it by replication."
        } else if purposes == [Purpose::Reseed] {
            "-- Run this on each of the servers, then ALTER USER for one password on all of them; DROP USER \
             once the group runs."
        } else {
            "-- Run this on the new server, not in the cluster; DROP USER once the restore is done."
        }
        .to_owned(),
    );
    lines.extend(before.iter().map(|sql| format!("{sql};")));
    lines.push("-- The server invents the password and shows it, once.".to_owned());
    lines.push(format!("{};", statements.create));
    let many = purposes.len() > 1;
    for grant in &statements.grants {
        for (purpose, need) in &grant.needs {
            let of = if many {
                format!("{purpose}, ")
            } else {
                String::new()
            };
            lines.push(match need.loss() {
                None => format!("-- {of}required: {}.", need.why),
                Some(loss) => format!("-- {of}optional: {}. Without it {loss}.", need.why),
            });
        }
        lines.push(format!("{};", grant.sql));
    }
    lines.join("\n")
}
