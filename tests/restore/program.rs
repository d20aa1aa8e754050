//! The real program at work on an archive of these tests.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{ROOT_PASSWORD, Server};

use crate::support::Archive;

/// SIGABRT, by which a run dies at a fail point.
const ABORT: i32 = 6;

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    output: Output,
}

impl Said {
    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Fails unless it died at a fail point.
    pub(crate) fn aborted(&self) -> Result<()> {
        ensure!(
            self.output.status.signal() == Some(ABORT),
            "it did not die: {:?} {} {}",
            self.output.status,
            self.out(),
            self.err()
        );
        Ok(())
    }

    /// Fails unless it ended with one of these codes.
    pub(crate) fn ended(&self, codes: &[i32]) -> Result<()> {
        ensure!(
            self.code().is_some_and(|code| codes.contains(&code)),
            "{:?}: {} {}",
            self.output.status,
            self.out(),
            self.err()
        );
        Ok(())
    }
}

/// Runs `quillback restore` on the archive to a server, to its end.
pub(crate) async fn restore(
    archive: &Archive,
    server: &Server,
    arguments: &[&str],
    env: &[(&str, &str)],
) -> Result<Said> {
    run_to(archive, &server.url_without_password(), arguments, env).await
}

/// The same with the server's URL.
pub(crate) async fn run_to(
    archive: &Archive,
    to: &str,
    arguments: &[&str],
    env: &[(&str, &str)],
) -> Result<Said> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
    command
        .args(["restore", "--archive", &archive.url(), "--to", to])
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("QUILLBACK_PASSWORD", ROOT_PASSWORD)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("failed to run quillback")?;
    Ok(Said { output })
}
