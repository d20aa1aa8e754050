//! The quillback that was built for this, as an operator would start it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use quillback_harness::{Minio, ROOT_PASSWORD, Scratch, Server, scratch};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

const BUCKET: &str = "bench";

/// Where an archive lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Store {
    Folder,
    Minio,
}

impl Store {
    pub(crate) const ALL: [Self; 2] = [Self::Folder, Self::Minio];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Minio => "MinIO",
        }
    }
}

/// A folder and a MinIO, for archives.
#[derive(Debug)]
pub(crate) struct Stores {
    folder: Scratch,
    minio: Minio,
}

impl Stores {
    pub(crate) async fn start() -> Result<Self> {
        let minio = Minio::start().await?;
        minio.create_bucket(BUCKET)?;
        Ok(Self {
            folder: Scratch::new("b")?,
            minio,
        })
    }

    /// A place for an archive, where nothing is yet.
    pub(crate) fn place(&self, store: Store) -> Place {
        let name = Uuid::new_v4().simple().to_string();
        match store {
            Store::Folder => Place {
                url: self.folder.file_url(&name),
                env: Vec::new(),
            },
            Store::Minio => Place {
                url: format!("s3://{BUCKET}/{name}"),
                env: self.minio.env(),
            },
        }
    }
}

/// An archive's URL and the environment that it wants.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    env: Vec<(String, String)>,
}

impl Place {
    /// The environment in which a command works on this archive and this server.
    pub(crate) fn environment(&self, server: &Server) -> Result<Vec<(String, String)>> {
        let mut env = self.env.clone();
        for (name, value) in [
            ("QUILLBACK_ARCHIVE", self.url.clone()),
            ("QUILLBACK_SERVER", server.url_without_password()),
            ("QUILLBACK_PASSWORD", ROOT_PASSWORD.to_owned()),
            // With the mark the watchdog ends it, should this process be killed.
            (scratch::MARK, scratch::root()?.display().to_string()),
        ] {
            env.push((name.to_owned(), value));
        }
        Ok(env)
    }

    /// A command, not started yet.
    pub(crate) fn command(&self, server: &Server, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
        command
            .args(arguments)
            .envs(self.environment(server)?)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command and returns what it printed.
    pub(crate) async fn run(&self, server: &Server, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::from(self.command(server, arguments)?);
        let output = command.kill_on_drop(true).output().await?;
        // 3: done, with warnings.
        ensure!(
            output.status.success() || output.status.code() == Some(3),
            "quillback {} ended with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("quillback prints no text")
    }
}

/// The documents of a text that has one a line.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}
