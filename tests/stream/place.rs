//! An archive in a place of its own, and the real program at work on it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chrono::Utc;
use quillback::archive::catalog::Chain;
use quillback::archive::repository::Repository;
use quillback::gtid::GtidSet;
use quillback::storage::{LocalStorage, S3Config, S3Credentials, S3Storage};
use quillback_harness::{Launch, Minio, Process, ROOT_PASSWORD, Scratch, until};
use serde_json::Value;

/// How long a state may take to come; tests run side by side on small machines.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// SIGABRT, by which a run dies at a fail point.
const ABORT: i32 = 6;
/// The exit code of a streamer whose archive another one has.
const FENCED: i32 = 11;
const BUCKET: &str = "archive";

/// An archive, and what the program needs to reach it.
pub(crate) struct Place {
    /// The archive, past any proxy.
    pub(crate) repository: Repository,
    url: String,
    env: Vec<(String, String)>,
    runs: AtomicU32,
    // Behind the rest: what runs in it ends before.
    folder: Scratch,
}

impl Place {
    /// An archive in a folder.
    pub(crate) async fn folder() -> Result<Self> {
        let folder = Scratch::new("a")?;
        let storage = LocalStorage::new(folder.path().join("archive"));
        Ok(Self {
            repository: Repository::init(Arc::new(storage), Utc::now()).await?,
            url: folder.file_url("archive"),
            env: Vec::new(),
            runs: AtomicU32::new(0),
            folder,
        })
    }

    /// An archive in a bucket, which the program reaches by `endpoint`.
    pub(crate) async fn bucket(minio: &Minio, endpoint: &str) -> Result<Self> {
        minio.create_bucket(BUCKET)?;
        let mut env = minio.env();
        let value = |name: &str| {
            let found = env.iter().find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.clone())
                .context("MinIO's environment")
        };
        let storage = S3Storage::connect(S3Config {
            endpoint: Some(minio.endpoint()),
            region: Some(value("AWS_REGION")?),
            credentials: Some(S3Credentials {
                access_key_id: value("AWS_ACCESS_KEY_ID")?,
                secret_access_key: value("AWS_SECRET_ACCESS_KEY")?,
            }),
            ..S3Config::new(BUCKET, "mysql")
        })
        .await?;
        // Healthy is not yet ready: the first requests of a busy start may be refused.
        let storage = Arc::new(storage);
        let repository = until("MinIO to take an archive", LIMIT, async || {
            Ok(Some(Repository::init(storage.clone(), Utc::now()).await?))
        })
        .await?;
        env.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        env.push(("AWS_ENDPOINT_URL".to_owned(), endpoint.to_owned()));
        Ok(Self {
            repository,
            url: format!("s3://{BUCKET}/mysql"),
            env,
            runs: AtomicU32::new(0),
            folder: Scratch::new("a")?,
        })
    }

    /// A path in the place's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `quillback --json stream` on these servers.
    pub(crate) fn stream(&self, servers: &[String], arguments: &[&str]) -> Result<Streamer> {
        self.stream_with(servers, arguments, &[])
    }

    /// The same with more environment.
    pub(crate) fn stream_with(
        &self,
        servers: &[String],
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Streamer> {
        self.start(&[&["--json", "stream"], arguments].concat(), servers, env)
    }

    /// Starts a streamer after another one has died, which may be taken for alive as long as the source has not noticed
    /// its end; returns when it follows a server.
    pub(crate) async fn take_over(
        &self,
        servers: &[String],
        arguments: &[&str],
    ) -> Result<Streamer> {
        until(
            "the dead streamer to be taken for dead",
            LIMIT,
            async || {
                let streamer = self.stream(servers, arguments)?;
                match streamer.following().await {
                    Ok(_) => Ok(Some(streamer)),
                    Err(error) => match streamer.process.exit_status() {
                        Some(status) if status.code() == Some(FENCED) => Ok(None),
                        _ => Err(error),
                    },
                }
            },
        )
        .await
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, servers: &[String], arguments: &[&str]) -> Result<Ended> {
        self.start(arguments, servers, &[])?.ended().await
    }

    fn start(
        &self,
        arguments: &[&str],
        servers: &[String],
        env: &[(&str, &str)],
    ) -> Result<Streamer> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let (out, err) = (
            self.path(&format!("{run}.out")),
            self.path(&format!("{run}.err")),
        );
        let servers = servers
            .iter()
            .map(|url| url.replace(&format!(":{ROOT_PASSWORD}@"), "@"))
            .collect::<Vec<_>>()
            .join(",");
        let mut all = self.env.clone();
        let state = self.path("state").display().to_string();
        for (name, value) in [
            // Where the spool is, unless a flag names another place.
            ("XDG_STATE_HOME", state.as_str()),
            ("QUILLBACK_ARCHIVE", self.url.as_str()),
            ("QUILLBACK_SERVER", &servers),
            ("QUILLBACK_PASSWORD", ROOT_PASSWORD),
        ]
        .iter()
        .chain(env)
        {
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
        let process = Process::start(Launch {
            program: env!("CARGO_BIN_EXE_quillback").into(),
            args: arguments.iter().map(|text| (*text).to_owned()).collect(),
            env: all,
            log: err.clone(),
            stdout: Some(out.clone()),
            supervised: false,
        })?;
        Ok(Streamer {
            process,
            out,
            err,
            seen: AtomicUsize::new(0),
        })
    }

    /// The chain of the newest history.
    pub(crate) async fn chain(&self) -> Result<Chain> {
        let branch = self.repository.newest_branch().await?;
        Ok(self.repository.chain(branch).await?)
    }

    /// Waits until the archive holds a set, while the streamer lives.
    pub(crate) async fn wait_holds(&self, streamer: &Streamer, set: &GtidSet) -> Result<()> {
        until("the archive", LIMIT, async || {
            if let Some(status) = streamer.process.exit_status() {
                return Ok(Some(Err(status)));
            }
            let missing = set.subtract(&self.chain().await?.end().unwrap_or_default());
            ensure!(missing.is_empty(), "{missing:#} is missing");
            Ok(Some(Ok(())))
        })
        .await
        .with_context(|| streamer.stderr())?
        .or_else(|status| {
            bail!(
                "the streamer has ended with {status}:\n{}",
                streamer.stderr()
            )
        })
    }
}

/// The running program. It is killed when this is dropped.
pub(crate) struct Streamer {
    process: Process,
    out: PathBuf,
    err: PathBuf,
    /// How many events have been waited for.
    seen: AtomicUsize,
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Streamer {
    /// Everything that was said on stdout so far, a value a line.
    pub(crate) fn events(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.out)?;
        // What stands behind the last newline is still being written.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}")))
            .collect()
    }

    /// What was said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits for the next event that fits; those before it are passed over.
    pub(crate) async fn until_event(
        &self,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let found = until(what, LIMIT, async || {
            let status = self.process.exit_status();
            let events = self.events()?;
            let seen = self.seen.load(Ordering::Relaxed);
            if let Some(at) = events.iter().skip(seen).position(&fits) {
                self.seen.store(seen + at + 1, Ordering::Relaxed);
                return Ok(Some(Ok(events[seen + at].clone())));
            }
            Ok(status.map(Err))
        })
        .await
        .with_context(|| self.stderr())?;
        found.or_else(|status| {
            bail!(
                "ended with {status} before {what}: {}{}",
                self.stderr(),
                std::fs::read_to_string(&self.out).unwrap_or_default()
            )
        })
    }

    /// Waits until it follows a server, and gives `host:port`.
    pub(crate) async fn following(&self) -> Result<String> {
        let event = self
            .until_event("a server to be followed", |event| {
                event["event"] == "following"
            })
            .await?;
        let server = event["server"].as_str().context("a server")?;
        Ok(server.to_owned())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.process.pid().context("it does not run")
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.process.exit_status().is_none()
    }

    /// Asks it to end in peace, and waits for that.
    pub(crate) async fn stop(&self) -> Result<Ended> {
        let status = self.process.terminate(LIMIT).await?;
        self.said(status)
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.process.kill9().await.map(drop)
    }

    /// Stops it where it stands.
    pub(crate) fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&self) -> Result<Ended> {
        match tokio::time::timeout(LIMIT, self.process.wait()).await {
            Ok(status) => self.said(status),
            Err(_) => bail!("it does not end:\n{}", self.stderr()),
        }
    }

    /// Waits until it dies at a fail point.
    pub(crate) async fn aborted(&self) -> Result<()> {
        let ended = self.ended().await?;
        ensure!(
            ended.status.signal() == Some(ABORT),
            "it ended with {}: {}",
            ended.status,
            ended.err
        );
        Ok(())
    }

    /// The keys of the segments that it has reported as archived.
    pub(crate) fn reported(&self) -> Result<Vec<String>> {
        let events = self.events()?;
        let segments = events.iter().filter(|event| event["event"] == "segment");
        Ok(segments
            .filter_map(|event| event["key"].as_str().map(str::to_owned))
            .collect())
    }

    /// The most memory that it has had at a time, in bytes, while it runs.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let pid = self.pid()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line
            .and_then(|line| line.split_whitespace().next())
            .context("no VmHWM")?;
        Ok(kibibytes.parse::<u64>()? * 1024)
    }

    fn said(&self, status: ExitStatus) -> Result<Ended> {
        Ok(Ended {
            status,
            out: std::fs::read_to_string(&self.out)?,
            err: self.stderr(),
        })
    }
}

impl Ended {
    /// Fails unless the exit code is this one.
    #[track_caller]
    pub(crate) fn is(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{}{}", self.out, self.err);
    }

    /// Fails unless the exit code and the last words on stderr, from `error:` on, are these. The same must stand in the
    /// last line of stdout.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &str) {
        self.is(code);
        let at = self.err.find("error: ").unwrap_or(self.err.len());
        assert_eq!(self.err[at..].trim_end(), words, "{}", self.err);
        let last = self.out.lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last).expect("the last line is JSON");
        assert_eq!(last["error"]["exit_code"], code, "{last}");
        let said = last["error"]["try"].as_str().unwrap_or_default();
        assert!(words.ends_with(&format!("try: {said}")), "{last}");
    }
}
