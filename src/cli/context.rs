//! What every command needs: where the archive is, which servers, how to talk.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use super::args::{Common, ProgressMode};
use super::failure::UsageError;
use super::render::{self, Progress};
use super::settings::Settings;
use crate::archive::repository::Repository;
use crate::clock::{Clock, SystemClock};
use crate::config::Secret;
use crate::mysql::server_url::ServerUrl;
use crate::observe::fail_point::{FailPoint, FailPoints};
use crate::storage::{self, Storage};

/// The settings of a run, from flags, environment and file, in this order.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) json: bool,
    pub(super) quiet: bool,
    /// Whether a person wants all that there is to tell.
    pub(super) verbose: bool,
    progress: ProgressMode,
    archive: Option<String>,
    servers: Vec<String>,
    password: Option<Secret>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Context {
    pub(super) fn new(common: &Common) -> anyhow::Result<Self> {
        start_logging(common);
        let settings = Settings::load(common.config.as_deref())?;
        let password = match secret("QUILLBACK_PASSWORD")? {
            Some(password) => Some(password),
            None => settings
                .password_file
                .as_deref()
                .map(read_secret)
                .transpose()?,
        };
        let servers = if common.servers.is_empty() {
            settings.server.map_or_else(Vec::new, |s| s.into_vec())
        } else {
            common.servers.clone()
        };
        Ok(Self {
            json: common.json,
            quiet: common.quiet,
            verbose: common.verbose > 0,
            progress: common.progress,
            archive: common.archive.clone().or(settings.archive),
            servers,
            password,
            clock: Arc::new(SystemClock),
        })
    }

    /// The archive's store.
    pub(super) async fn storage(&self) -> anyhow::Result<Arc<dyn Storage>> {
        let url = self.archive.as_deref().ok_or_else(|| {
            UsageError::new(
                "no archive is named",
                "--archive file:///var/backups/mysql or QUILLBACK_ARCHIVE=s3://bucket/prefix",
            )
        })?;
        Ok(storage::open(url).await?)
    }

    /// The archive.
    pub(super) async fn repository(&self) -> anyhow::Result<Repository> {
        Ok(Repository::open(self.storage().await?).await?)
    }

    /// Whether a server was named.
    pub(super) const fn has_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The servers that were named, with their password.
    pub(super) fn servers(&self) -> anyhow::Result<Vec<ServerUrl>> {
        if self.servers.is_empty() {
            return Err(UsageError::new(
                "no server is named",
                "--server mysql://user@host:3306 or QUILLBACK_SERVER (several: comma-separated)",
            )
            .into());
        }
        self.servers
            .iter()
            .map(|text| parse_server(text, self.password.as_ref()))
            .collect()
    }

    /// A server that was named for another part than the source.
    pub(super) fn server(&self, text: &str, password: &str) -> anyhow::Result<ServerUrl> {
        let own = secret(password)?;
        parse_server(text, own.as_ref().or(self.password.as_ref()))
    }

    /// Progress on the terminal.
    pub(super) fn progress(&self) -> Progress {
        Progress::new(self.progress, self.quiet)
    }

    /// Tells a person what goes on, unless `--quiet`.
    pub(super) fn talk(&self, text: &str) {
        if !self.quiet {
            render::talk(text);
        }
    }

    /// A token that Ctrl-C and SIGTERM cancel; the second one ends the process at once.
    pub(super) fn cancel_on_signal(&self) -> anyhow::Result<CancellationToken> {
        let token = CancellationToken::new();
        let cancel = token.clone();
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        // Lives as long as the process: there is no later moment to join it.
        tokio::spawn(async move {
            let mut signals = 0;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                signals += 1;
                if signals > 1 {
                    std::process::exit(130);
                }
                render::talk_over("stopping; once more to stop at once");
                cancel.cancel();
            }
        });
        Ok(token)
    }
}

fn parse_server(text: &str, password: Option<&Secret>) -> anyhow::Result<ServerUrl> {
    let url: ServerUrl = text.parse().map_err(|error| {
        UsageError::new(
            format!("{error}"),
            "mysql://user@host:3306, with ?ssl-mode=REQUIRED where the certificate is self-signed",
        )
    })?;
    Ok(url.or_password(password))
}

/// This host's name, for the claim; a person reads it, nothing depends on it.
pub(super) fn host() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// A secret from the variable, or from the file that the variable with `_FILE` names.
pub(super) fn secret(variable: &str) -> anyhow::Result<Option<Secret>> {
    if let Some(path) = std::env::var_os(format!("{variable}_FILE")) {
        return read_secret(Path::new(&path)).map(Some);
    }
    Ok(std::env::var(variable).ok().map(Secret::new))
}

fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        UsageError::new(
            format!("cannot read the password file {}: {error}", path.display()),
            "a file that this user can read and that holds only the password",
        )
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(Secret::from(line))
}

/// Where a test makes the process die: the name of a point, and how often it may be passed.
pub(super) fn fail_points() -> anyhow::Result<FailPoints> {
    let Ok(wish) = std::env::var("QUILLBACK_FAIL_POINT") else {
        return Ok(FailPoints::default());
    };
    let (name, count) = wish.split_once(':').unwrap_or((&wish, "1"));
    let (Some(wanted), Ok(count)) = (FailPoint::named(name), count.parse::<u32>()) else {
        return Err(UsageError::new(
            format!("QUILLBACK_FAIL_POINT={wish} names no point where a test may end the run"),
            "to unset it: only Quillback's own tests use it",
        )
        .into());
    };
    let left = AtomicU32::new(count);
    Ok(FailPoints::new(move |point| {
        if point == wanted && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }))
}

fn start_logging(common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let filter = tracing_subscriber::filter::EnvFilter::builder()
        .with_default_directive(LevelFilter::ERROR.into())
        .parse_lossy(format!("error,quillback={level}"));
    // Started twice only in tests, where the first one serves.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .try_init();
}
