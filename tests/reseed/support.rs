//! What these tests share: an archive, the real program, and what a group must look like.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use quillback_harness::checksum;
use quillback_harness::{ROOT_PASSWORD, Scratch, Server, until};

/// How long anything may take here before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// An archive in a folder, and the program that works on it.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: Scratch,
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Fails unless it ended with this code.
    pub(crate) fn ended(self, code: i32) -> Result<Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        bail!(
            "{:?} and not {code}:\n{}\n{}",
            self.code,
            self.out,
            self.err
        )
    }

    /// Fails unless all of these were told.
    pub(crate) fn tells(self, texts: &[&str]) -> Result<Self> {
        for text in texts {
            ensure!(
                self.out.contains(text) || self.err.contains(text),
                "{text:?} is not told:\n{}\n{}",
                self.out,
                self.err
            );
        }
        Ok(self)
    }
}

impl Archive {
    /// A new one.
    pub(crate) async fn new() -> Result<Self> {
        let archive = Self {
            folder: Scratch::new("a")?,
        };
        archive.run(&["init"]).await?.ended(0)?;
        Ok(archive)
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        self.folder.file_url("archive")
    }

    /// The file of an object.
    pub(crate) fn file(&self, key: &str) -> std::path::PathBuf {
        self.folder.path().join("archive").join(key)
    }

    /// The program with arguments, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TZ", "UTC")
            .env("QUILLBACK_ARCHIVE", self.url())
            .env("QUILLBACK_PASSWORD", ROOT_PASSWORD)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Said> {
        self.run_with(arguments, &[]).await
    }

    /// The same with more in its environment.
    pub(crate) async fn run_with(&self, arguments: &[&str], env: &[(&str, &str)]) -> Result<Said> {
        let mut command = self.command(arguments);
        command.envs(env.iter().copied());
        let output: Output = tokio::task::spawn_blocking(move || command.output())
            .await?
            .context("failed to run quillback")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        for text in [&said.out, &said.err] {
            ensure!(!text.contains(ROOT_PASSWORD), "a password: {text}");
        }
        Ok(said)
    }
}

/// The URL of a server as an argument.
pub(crate) fn arg(server: &Server) -> String {
    server.url_without_password()
}

/// The arguments of `reseed` for these servers.
pub(crate) fn reseed<'a>(primary: &'a str, members: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["reseed", "--primary", primary];
    for member in members {
        arguments.extend(["--member", member]);
    }
    arguments.extend(more);
    arguments
}

/// Fails unless the group has just these members, all ONLINE, the first one its primary, and all have
/// the same transactions, schemas and rows.
pub(crate) async fn assert_group(primary: &Server, others: &[&Server]) -> Result<()> {
    let mut expected = vec![(primary.port(), "ONLINE".to_owned(), "PRIMARY".to_owned())];
    for other in others {
        expected.push((other.port(), "ONLINE".to_owned(), "SECONDARY".to_owned()));
    }
    expected.sort();
    let set = primary.gtid_executed().await?;
    let mut conn = primary.conn().await?;
    let (sums, schema) = (
        checksum::all(&mut conn).await?,
        checksum::schema_fingerprint(&mut conn).await?,
    );
    for server in std::iter::once(primary).chain(others.iter().copied()) {
        let seen: Vec<(u16, String, String)> = server
            .query(
                "SELECT MEMBER_PORT, MEMBER_STATE, MEMBER_ROLE \
                 FROM performance_schema.replication_group_members ORDER BY MEMBER_PORT",
            )
            .await?;
        assert_eq!(seen, expected, "as {} sees it", server.address());
        server.wait_for_gtids(&set, LIMIT).await?;
        let mut conn = server.conn().await?;
        let here = checksum::all(&mut conn).await?;
        let differences = checksum::differences(&sums, &here);
        ensure!(
            differences.is_empty(),
            "{}: {differences:?}",
            server.address()
        );
        assert_eq!(
            checksum::schema_fingerprint(&mut conn).await?,
            schema,
            "{}",
            server.address()
        );
        let (read_only, boots): (bool, bool) = server
            .one("SELECT @@GLOBAL.super_read_only, @@GLOBAL.group_replication_start_on_boot")
            .await?;
        assert_eq!(
            read_only,
            server.port() != primary.port(),
            "{}",
            server.address()
        );
        assert!(boots, "{} would not come back by itself", server.address());
    }
    Ok(())
}

/// Fails unless an ordinary account can write to the primary and reads it everywhere.
pub(crate) async fn assert_open(primary: &Server, others: &[&Server]) -> Result<()> {
    primary.exec("CREATE DATABASE opened").await?;
    primary
        .exec("CREATE TABLE opened.t (id INT PRIMARY KEY)")
        .await?;
    primary.exec("INSERT INTO opened.t VALUES (1)").await?;
    for other in others {
        until("the row to arrive", LIMIT, async || {
            let there = other.query::<u32>("SELECT id FROM opened.t").await;
            Ok(there.ok().filter(|rows| rows == &[1]).map(|_| ()))
        })
        .await?;
    }
    Ok(())
}
