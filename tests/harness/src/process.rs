//! A child process that can be killed, stopped, continued and started again, and that never outlives its owner.

use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::watch;

use crate::scratch;

/// mysqld's exit code when it wants its supervisor to start it again (`MYSQLD_RESTART_EXIT`, sql/sql_const.h).
const RESTART_EXIT: i32 = 16;

/// How a program is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, at every start.
    pub args: Vec<String>,
    /// Additional environment.
    pub env: Vec<(String, String)>,
    /// Where stderr goes, and stdout if it has no file of its own; appended.
    pub log: PathBuf,
    /// A file of stdout's own, appended.
    pub stdout: Option<PathBuf>,
    /// Start it again when it exits with 16, as mysqld does for RESTART and after a clone.
    pub supervised: bool,
}

/// The process; dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    launch: Launch,
    state: Mutex<State>,
    ended: watch::Sender<Option<ExitStatus>>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    /// Somebody asked for the end, so it is not started again.
    ending: bool,
    starts: u32,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// The program or the log file cannot be opened.
    pub fn start(launch: Launch) -> Result<Self> {
        let shared = Arc::new(Shared {
            launch,
            state: Mutex::default(),
            ended: watch::Sender::new(None),
        });
        let process = Self {
            shared,
            keeper: Mutex::new(None),
        };
        process.start_again(&[])?;
        Ok(process)
    }

    /// Makes the process without starting it.
    pub fn idle(launch: Launch) -> Self {
        let shared = Arc::new(Shared {
            launch,
            state: Mutex::default(),
            ended: watch::Sender::new(None),
        });
        Self {
            shared,
            keeper: Mutex::new(None),
        }
    }

    /// Starts it after it has ended, this once with more arguments (a supervised restart goes without them).
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn start_again(&self, more_args: &[String]) -> Result<()> {
        let mut state = self.shared.state();
        if state.child.is_some() {
            bail!("{} runs already", self.shared.launch.program.display());
        }
        state.child = Some(self.shared.spawn(more_args)?);
        state.ending = false;
        state.starts += 1;
        self.shared.ended.send_replace(None);
        let shared = Arc::clone(&self.shared);
        drop(state);
        let old = self
            .keeper()
            .replace(std::thread::spawn(move || shared.keep()));
        if let Some(old) = old {
            // It has seen the previous end, so it is about to return.
            old.join().ok();
        }
        Ok(())
    }

    /// The process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.shared.state().child.as_ref().map(Child::id)
    }

    /// How often it was started, supervised restarts included.
    pub fn starts(&self) -> u32 {
        self.shared.state().starts
    }

    /// How it ended; None while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.shared.ended.borrow()
    }

    /// Stops the process where it stands (SIGSTOP).
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Ends it at once (SIGKILL), paused or not, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill9(&self) -> Result<ExitStatus> {
        self.end(Signal::KILL, Duration::from_secs(30)).await
    }

    /// Asks it to end (SIGTERM) and waits for at most `limit`.
    ///
    /// # Errors
    /// It does not run, or has not ended by then.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.end(Signal::TERM, limit).await
    }

    /// Waits for its end.
    pub async fn wait(&self) -> ExitStatus {
        let mut ended = self.shared.ended.subscribe();
        let status = ended
            .wait_for(Option::is_some)
            .await
            .expect("the sender lives in self");
        status.expect("waited for Some")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.shared.launch.log, 40)
    }

    async fn end(&self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.shared.state().ending = true;
        self.signal(signal)?;
        let program = self.shared.launch.program.display();
        match tokio::time::timeout(limit, self.wait()).await {
            Ok(status) => Ok(status),
            Err(_) => bail!(
                "{program} has not ended after {} s:\n{}",
                limit.as_secs(),
                self.log_tail()
            ),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let state = self.shared.state();
        // Under the lock the child is not reaped, so the id is still its own.
        match &state.child {
            Some(child) => rustix::process::kill_process(Pid::from_child(child), signal)
                .context("failed to signal"),
            None => bail!("{} does not run", self.shared.launch.program.display()),
        }
    }

    fn keeper(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.ending = true;
            if let Some(child) = &mut state.child {
                child.kill().ok();
            }
        }
        if let Some(keeper) = self.keeper().take() {
            keeper.join().ok();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, more_args: &[String]) -> Result<Child> {
        let launch = &self.launch;
        let log = append_to(&launch.log)?;
        let stdout = match &launch.stdout {
            Some(file) => append_to(file)?,
            None => log.try_clone().context("failed to share the log")?,
        };
        Command::new(&launch.program)
            .args(&launch.args)
            .args(more_args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .env(scratch::MARK, scratch::root()?)
            // mysqld compares it with getppid() to know whether somebody would start it again.
            .env(
                "MYSQLD_PARENT_PID",
                if launch.supervised {
                    std::process::id().to_string()
                } else {
                    String::new()
                },
            )
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {}", launch.program.display()))
    }

    /// Waits for the child's end, starts it again where that is wanted, and returns after the last end.
    fn keep(&self) {
        loop {
            let pid = match &self.state().child {
                Some(child) => Pid::from_child(child),
                None => return,
            };
            // Without reaping, so that no signal can meet a foreign process under the same id.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(
                rustix::process::waitid(WaitId::Pid(pid), options),
                Err(rustix::io::Errno::INTR)
            ) {}
            let mut state = self.state();
            let Some(mut child) = state.child.take() else {
                return;
            };
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
            if status.code() == Some(RESTART_EXIT)
                && self.launch.supervised
                && !state.ending
                && let Ok(child) = self.spawn(&[])
            {
                state.child = Some(child);
                state.starts += 1;
                continue;
            }
            self.ended.send_replace(Some(status));
            return;
        }
    }
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))
}

fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
