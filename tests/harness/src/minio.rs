//! A real MinIO server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::port::Port;
use crate::process::{Launch, Process};
use crate::scratch::Scratch;
use crate::{programs, wait};

const START_LIMIT: Duration = Duration::from_secs(60);
const REGION: &str = "us-east-1";

/// MinIO on one folder, with credentials of its own; gone when dropped.
#[derive(Debug)]
pub struct Minio {
    process: Process,
    folder: Scratch,
    port: Port,
    user: String,
    password: String,
}

impl Minio {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// There is no minio, or it does not come up; with the end of its log.
    pub async fn start() -> Result<Self> {
        let folder = Scratch::new("m")?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).context("failed to make MinIO's folder")?;
        let port = Port::reserve()?;
        let user = format!("user-{}", &Uuid::new_v4().simple().to_string()[..12]);
        let password = Uuid::new_v4().simple().to_string();
        let program = tokio::task::spawn_blocking(|| programs::find("minio"))
            .await
            .context("a panic at the start")??;
        let address = format!("127.0.0.1:{}", port.number());
        let process = Process::idle(Launch {
            program,
            args: [
                "server",
                "--quiet",
                "--address",
                &address,
                &data.display().to_string(),
            ]
            .map(str::to_owned)
            .to_vec(),
            env: [
                ("MINIO_ROOT_USER", user.as_str()),
                ("MINIO_ROOT_PASSWORD", password.as_str()),
                ("MINIO_BROWSER", "off"),
                ("MINIO_UPDATE", "off"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            log: folder.path().join("minio.log"),
            stdout: None,
            supervised: false,
        });
        process.start_again(&[])?;
        let minio = Self {
            process,
            folder,
            port,
            user,
            password,
        };
        minio.wait_ready().await?;
        Ok(minio)
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The environment that the AWS SDK reads: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
    pub fn env(&self) -> Vec<(String, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), self.user.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.password.clone()),
            ("AWS_ENDPOINT_URL".to_owned(), self.endpoint()),
            ("AWS_REGION".to_owned(), REGION.to_owned()),
        ]
    }

    /// Makes a bucket. On a single drive MinIO takes every folder for one, so no signed request is needed.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let path = self.folder.path().join("data").join(name);
        std::fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill9(&self) -> Result<()> {
        self.process.kill9().await.map(drop)
    }

    /// Stops it where it stands: connections stay open and hang.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Starts it again after a kill.
    ///
    /// # Errors
    /// It runs, or does not come up.
    pub async fn start_again(&self) -> Result<()> {
        self.process.start_again(&[])?;
        self.wait_ready().await
    }

    async fn wait_ready(&self) -> Result<()> {
        wait::until("minio to be ready", START_LIMIT, async || {
            if let Some(status) = self.process.exit_status() {
                return Ok(Some(Err(status)));
            }
            let status = self.status_of("/minio/health/ready").await?;
            if status != 200 {
                bail!("HTTP status {status}");
            }
            Ok(Some(Ok(())))
        })
        .await
        .with_context(|| self.process.log_tail())?
        .or_else(|status| bail!("minio ended with {status}:\n{}", self.process.log_tail()))
    }

    /// The HTTP status of an unsigned GET.
    ///
    /// # Errors
    /// No answer, or not HTTP.
    pub async fn status_of(&self, path: &str) -> Result<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number())).await?;
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n",
            self.port.number()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not HTTP: {answer:?}"))
    }
}
