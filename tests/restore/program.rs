//! The real program at work on an archive of these tests.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{ROOT_PASSWORD, Server, until};

use crate::support::{Archive, LIMIT};

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
    let mut command = command(&archive.url(), to, arguments, env);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("failed to run quillback")?;
    Ok(Said { output })
}

fn command(archive: &str, to: &str, arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
    command
        .args(["restore", "--archive", archive, "--to", to])
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("QUILLBACK_PASSWORD", ROOT_PASSWORD)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A run that is under way.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Begins to restore.
    pub(crate) fn start(archive: &Archive, server: &Server, arguments: &[&str]) -> Result<Self> {
        let to = server.url_without_password();
        let child = command(&archive.url(), &to, arguments, &[]).spawn();
        Ok(Self(child.context("failed to run quillback")?))
    }

    /// Ends it at once, whatever it is at.
    pub(crate) async fn killed(mut self) -> Result<()> {
        self.0.kill()?;
        tokio::task::spawn_blocking(move || self.0.wait()).await??;
        Ok(())
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> Result<Said> {
        let output = tokio::task::spawn_blocking(move || self.0.wait_with_output()).await??;
        Ok(Said { output })
    }

    /// Presses Ctrl-C, and waits for the end; a run that goes on all the same is killed.
    pub(crate) async fn interrupted(mut self) -> Result<Said> {
        let status = Command::new("kill")
            .args(["-INT", &self.0.id().to_string()])
            .status()?;
        ensure!(status.success(), "kill failed");
        let ended = until("the run to end", LIMIT, || {
            let ended = self.0.try_wait();
            async move { Ok(ended?.map(drop)) }
        })
        .await;
        if ended.is_err() {
            self.0.kill()?;
        }
        let output = tokio::task::spawn_blocking(move || self.0.wait_with_output()).await??;
        ended.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(Said { output })
    }
}
