//! The command line: parse, plan, show, run.
//!
//! Each command has a file of its own. Only this room prints, reads the environment and decides
//! the exit code. What a command has to say as data goes to stdout, everything else to stderr;
//! with `--json` stdout holds one document a run (`stream` and `log`: one a line).

mod args;
mod context;
mod failure;
mod grants;
mod hints;
mod init;
mod log;
mod mark;
mod render;
mod reseed;
mod restore;
mod settings;
mod sizes;
mod snapshot;
mod status;
mod stream;
mod times;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};
use context::Context;
use failure::Done;

/// Runs the program with the process's arguments and environment.
#[must_use]
pub fn main() -> ExitCode {
    let raw: Vec<OsString> = std::env::args_os().collect();
    // Before the parser, which repeats what it does not understand.
    if let Err(error) = args::refuse_passwords(&raw) {
        return failure::report(&error, false);
    }
    let arguments = match Arguments::try_parse_from(&raw) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let json = arguments.common.json;
    let outcome =
        Context::new(&arguments.common).and_then(|context| run(context, arguments.command));
    match outcome {
        Ok(Done::Fine) => ExitCode::SUCCESS,
        Ok(Done::With(class)) => ExitCode::from(class.exit_code()),
        Err(error) => failure::report(&error, json),
    }
}

fn run(context: Context, command: Command) -> anyhow::Result<Done> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Init(options) => init::run(&context, options).await,
            Command::Grants(options) => grants::run(&context, &options),
            Command::Snapshot(options) => snapshot::run(&context, options).await,
            Command::Stream(options) => stream::run(&context, options).await,
            Command::Status(options) => status::run(&context, options).await,
            Command::Restore(options) => restore::run(&context, *options).await,
            Command::Reseed(options) => reseed::run(&context, *options).await,
            Command::Log(options) => log::run(&context, options).await,
            Command::Mark(options) => mark::run(&context, options).await,
        }
    });
    // Blocking reads that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// Prints clap's own words; help and version are no failures.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing more can be told if the terminal is gone.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(crate::error::Class::Usage.exit_code())
    } else {
        ExitCode::SUCCESS
    }
}
