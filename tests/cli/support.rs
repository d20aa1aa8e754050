//! Running the program, and comparing what it said.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};
use quillback_harness::{ROOT_PASSWORD, Scratch, Server};

/// A folder to run in, an environment, and the words that differ at each run.
#[derive(Debug)]
pub(crate) struct Shell {
    folder: Scratch,
    env: Vec<(String, String)>,
    words: Vec<(String, String)>,
}

/// What a run said, with placeholders where it differs at each run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shell {
    pub(crate) fn new() -> Result<Self> {
        let folder = Scratch::new("c")?;
        let words = vec![
            (folder.path().display().to_string(), "<folder>".to_owned()),
            (env!("CARGO_PKG_VERSION").to_owned(), "<version>".to_owned()),
        ];
        Ok(Self {
            folder,
            env: Vec::new(),
            words,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of a folder below it.
    pub(crate) fn folder_url(&self, name: &str) -> String {
        self.folder.file_url(name)
    }

    /// The URL of an archive in the folder.
    pub(crate) fn archive(&self) -> String {
        self.folder.file_url("archive")
    }

    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Shows a text that differs at each run as a placeholder.
    #[must_use]
    pub(crate) fn word(mut self, text: impl Into<String>, placeholder: &str) -> Self {
        self.words.insert(0, (text.into(), placeholder.to_owned()));
        self
    }

    /// Knows a server, and root's password.
    pub(crate) async fn with_server(self, server: &Server, name: &str) -> Result<Self> {
        let version: String = server.one("SELECT @@GLOBAL.version").await?;
        Ok(self
            .env("QUILLBACK_PASSWORD", ROOT_PASSWORD)
            .word(server.address(), &format!("<{name}>"))
            .word(server.uuid().await?, &format!("<{name} uuid>"))
            .word(
                format!("server {}  ", server.server_id()),
                &format!("server <{name} id>  "),
            )
            .word(version, "<mysql>"))
    }

    /// The program with arguments, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quillback"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Times for people are the same on every machine, unless a test says otherwise.
            .env("TZ", "UTC")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await?
            .context("failed to run quillback")?;
        Ok(self.said(&output))
    }

    /// Runs it with `--json` and gives the one document on stdout.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Result<(i32, serde_json::Value)> {
        let mut command = self.command(&[&["--json"], arguments].concat());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        self.said(&output);
        let text = String::from_utf8(output.stdout)?;
        let value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text:?}"))?;
        assert_eq!(text.lines().count(), 1, "one document on one line: {text}");
        Ok((output.status.code().unwrap_or(-1), value))
    }

    /// What a run said; fails if a secret is in it.
    pub(crate) fn said(&self, output: &Output) -> Said {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
            assert!(!text.contains(ROOT_PASSWORD), "a password: {text}");
            assert!(!text.contains('\x1b'), "colours without a terminal: {text}");
            self.normalise(&text)
        };
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    fn normalise(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, placeholder) in &self.words {
            text = text.replace(word, placeholder);
        }
        for (pattern, placeholder) in [
            ("DDDD-DD-DDTDD:DD:DD.DDDDDDZ", "<time>"),
            ("DDDD-DD-DD DD:DD:DDZ", "<time>"),
            ("DDDDDDDDTDDDDDDZ-HHHHHHHH", "<snapshot>"),
            ("HHHHHHHH-HHHH-HHHH-HHHH-HHHHHHHHHHHH", "<uuid>"),
            ("N.N MiB", "<size>"),
            ("N.N KiB", "<size>"),
            ("N B", "<size>"),
            // Where the clock strikes between two of a few transactions is chance.
            ("N segments", "<segments>"),
            ("N segment", "<segments>"),
            ("N.N s", "<span>"),
        ] {
            text = mask(&text, pattern, placeholder);
        }
        // Columns are as wide as what stands in them.
        let lines: Vec<String> = text
            .lines()
            .map(|line| {
                let indent = &line[..line.len() - line.trim_start().len()];
                let words: Vec<&str> = line.split_whitespace().collect();
                format!("{indent}{}", words.join(" "))
            })
            .collect();
        lines.join("\n")
    }
}

impl Said {
    /// Fails unless the run ended and spoke as expected.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, out: &str, err: &str) {
        assert_eq!(self.out, out.trim_end(), "stdout; stderr: {}", self.err);
        assert_eq!(self.err, err.trim_end(), "stderr");
        assert_eq!(self.code, code, "{self:?}");
    }
}

/// Replaces what looks like the pattern: D is a digit, H a hexadecimal one, N one or more digits.
fn mask(text: &str, pattern: &str, placeholder: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let is_start = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        match match_at(&bytes[at..], pattern.as_bytes()) {
            Some(length) if is_start => {
                out.extend_from_slice(placeholder.as_bytes());
                at += length;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).expect("only ASCII was replaced")
}

fn match_at(text: &[u8], pattern: &[u8]) -> Option<usize> {
    let mut at = 0;
    for wanted in pattern {
        let found = *text.get(at)?;
        let fits = match wanted {
            b'D' | b'N' => found.is_ascii_digit(),
            b'H' => found.is_ascii_hexdigit(),
            literal => found == *literal,
        };
        if !fits {
            return None;
        }
        at += 1;
        if *wanted == b'N' {
            at += text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        }
    }
    Some(at)
}
