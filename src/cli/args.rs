//! What the command line takes. The words are the contract; their order in help is that of a
//! first day: make, feed, look, restore.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::failure::UsageError;
use super::grants::GrantsArguments;
use super::init::InitArguments;
use super::log::LogArguments;
use super::mark::MarkArguments;
use super::reseed::ReseedArguments;
use super::restore::RestoreArguments;
use super::snapshot::SnapshotArguments;
use super::status::StatusArguments;
use super::stream::StreamArguments;

/// Backup and point-in-time recovery for MySQL and InnoDB Cluster.
#[derive(Debug, Parser)]
#[command(
    name = "quillback",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Passwords come from QUILLBACK_PASSWORD or QUILLBACK_PASSWORD_FILE, never from arguments.\n\
        Exit codes: 0 ok, 1 failure, 2 usage, 3 done with warnings, 10 no archive, 11 fenced,\n\
        12 authentication, 20 target not covered, 21 gap, 22 integrity, 23 refused, 30 try again."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an archive.
    Init(InitArguments),
    /// Print least-privilege SQL for a command's account.
    Grants(GrantsArguments),
    /// Take a consistent snapshot from a secondary.
    Snapshot(SnapshotArguments),
    /// Follow the binlog into the archive.
    Stream(StreamArguments),
    /// Tell what is restorable now; fails if something is wrong.
    Status(StatusArguments),
    /// List transactions: GTID, time, tables, DDL.
    Log(LogArguments),
    /// Name a restore point.
    Mark(MarkArguments),
    /// Restore to a moment or a transaction on an empty server.
    Restore(Box<RestoreArguments>),
    /// Make a cluster from the restored server.
    Reseed(Box<ReseedArguments>),
}

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// The archive: s3://bucket/prefix or file:///folder.
    #[arg(
        long,
        global = true,
        env = "QUILLBACK_ARCHIVE",
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(super) archive: Option<String>,
    /// A server of the cluster, mysql://user@host:port; several may be given, any finds the rest.
    #[arg(
        long = "server",
        global = true,
        env = "QUILLBACK_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub(super) servers: Vec<String>,
    /// Settings in TOML (keys: archive, server, password_file) [default: quillback.toml if there
    /// is one].
    #[arg(
        long,
        global = true,
        env = "QUILLBACK_CONFIG",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(super) config: Option<PathBuf>,
    /// Print one JSON document on stdout (stream and log: one a line).
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// Tell more; twice tells everything.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(super) verbose: u8,
    /// Tell only what went wrong.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Global options"
    )]
    pub(super) quiet: bool,
    /// Whether to show progress on a terminal.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = ProgressMode::Auto,
        value_name = "WHEN",
        help_heading = "Global options"
    )]
    pub(super) progress: ProgressMode,
}

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressMode {
    /// If stderr is a terminal.
    Auto,
    /// Never.
    Never,
}

/// Fails if an argument carries a password, which every user of the machine could read.
pub(super) fn refuse_passwords(arguments: &[OsString]) -> anyhow::Result<()> {
    for argument in arguments {
        let Some(text) = argument.to_str() else {
            continue;
        };
        for piece in text.split(',') {
            let Some((_, rest)) = piece.split_once("mysql://") else {
                continue;
            };
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            let has_password = authority
                .rsplit_once('@')
                .is_some_and(|(login, _)| login.contains(':'));
            if has_password {
                return Err(UsageError::new(
                    "a server URL in the arguments holds a password, which others can read there",
                    "mysql://user@host:port with the password in QUILLBACK_PASSWORD or \
                     QUILLBACK_PASSWORD_FILE (a restore's target: QUILLBACK_TO_PASSWORD)",
                )
                .into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_password_in_an_argument_is_refused_wherever_it_stands() {
        let refused = |text: &str| refuse_passwords(&[OsString::from(text)]).is_err();
        assert!(refused("mysql://root:secret@127.0.0.1:3306"));
        assert!(refused("--server=mysql://root:secret@127.0.0.1"));
        assert!(refused("mysql://a@h:1,mysql://root:s@h:2"));
        assert!(!refused("mysql://root@127.0.0.1:3306"));
        assert!(!refused("mysql://root@[::1]:3306/?ssl-mode=REQUIRED"));
        assert!(!refused("--until=2026-11-20T14:30:00Z"));
    }
}
