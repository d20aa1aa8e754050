//! How a run ends: exit codes, and errors as a tired person reads them.

use std::process::ExitCode;

use serde_json::json;

use super::hints;
use super::render;
use crate::archive::marks::make::MarkError;
use crate::archive::repository::ArchiveError;
use crate::error::{Class, Classified};
use crate::mysql::error::MysqlError;
use crate::mysql::wire::WireError;
use crate::restore::RestoreError;
use crate::snapshot::SnapshotError;
use crate::storage::StorageError;
use crate::stream::StreamError;

/// A run that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// All is well.
    Fine,
    /// Done, and the exit code tells something (a warning, or an unhealthy archive).
    With(Class),
}

impl Done {
    /// How a run ends that has this to tell.
    pub(super) const fn with_notes(notes: &[String]) -> Self {
        match notes.is_empty() {
            true => Self::Fine,
            false => Self::With(Class::Warnings),
        }
    }
}

/// A command line or configuration that makes no sense, with what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct UsageError {
    message: String,
    hint: String,
}

impl UsageError {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn hint(&self) -> &str {
        &self.hint
    }
}

impl Classified for UsageError {
    fn class(&self) -> Class {
        Class::Usage
    }
}

/// A run that was stopped before it had done what it was asked for; the same call may do it later.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Unfinished {
    message: String,
    hint: String,
}

impl Unfinished {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn hint(&self) -> &str {
        &self.hint
    }
}

impl Classified for Unfinished {
    fn class(&self) -> Class {
        Class::Transient
    }
}

/// The class of an error: that of the outermost part that has one.
pub(super) fn class_of(error: &anyhow::Error) -> Class {
    fn class<E: Classified + Send + Sync + 'static>(
        cause: &(dyn std::error::Error + 'static),
    ) -> Option<Class> {
        cause.downcast_ref::<E>().map(Classified::class)
    }
    error
        .chain()
        .find_map(|cause| {
            class::<UsageError>(cause)
                .or_else(|| class::<Unfinished>(cause))
                .or_else(|| class::<RestoreError>(cause))
                .or_else(|| class::<StreamError>(cause))
                .or_else(|| class::<SnapshotError>(cause))
                .or_else(|| class::<MarkError>(cause))
                .or_else(|| class::<ArchiveError>(cause))
                .or_else(|| class::<StorageError>(cause))
                .or_else(|| class::<MysqlError>(cause))
                .or_else(|| class::<WireError>(cause))
        })
        .unwrap_or(Class::Failure)
}

/// Tells what went wrong, why, and what to try, and gives the exit code.
pub(super) fn report(error: &anyhow::Error, as_json: bool) -> ExitCode {
    let class = class_of(error);
    let causes = causes(error);
    let hint = hints::hint(error);
    if as_json {
        render::data(&json!({
            "error": {
                "message": causes.join(": "),
                "exit_code": class.exit_code(),
                "try": hint,
            }
        }));
    }
    let mut text = format!("error: {}", causes.join("\n  because: "));
    if let Some(hint) = hint {
        text.push_str("\n  try: ");
        text.push_str(&hint);
    }
    render::talk(&text);
    ExitCode::from(class.exit_code())
}

/// The error and its causes, without repetitions.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts
}
