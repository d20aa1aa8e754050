//! Settings from a file: what neither flags nor the environment say.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::failure::UsageError;

/// The file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "quillback.toml";

/// `quillback.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The archive's URL.
    pub(super) archive: Option<String>,
    /// The servers' URLs: one, or a list.
    pub(super) server: Option<OneOrMany>,
    /// A file that holds the password.
    pub(super) password_file: Option<PathBuf>,
}

/// A text or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl Settings {
    /// Reads the named file, or the default one if it is there.
    pub(super) fn load(named: Option<&Path>) -> anyhow::Result<Self> {
        let path = named.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(UsageError::new(
                    format!("cannot read {}: {error}", path.display()),
                    "--config with a file that is there",
                )
                .into());
            }
        };
        toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            UsageError::new(
                format!("{}, line {line}: {}", path.display(), error.message()),
                "the keys archive, server and password_file",
            )
            .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Settings> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("q.toml");
        std::fs::write(&path, text).expect("a file");
        Settings::load(Some(&path))
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = load("archive = \"file:///a\"\narchiv = \"x\"\n").expect_err("unknown key");
        assert!(error.to_string().contains("line 2"), "{error}");
        let settings = load("server = [\"mysql://a@b\"]\n").expect("valid");
        assert_eq!(
            settings.server.expect("given").into_vec(),
            ["mysql://a@b".to_owned()]
        );
    }
}
