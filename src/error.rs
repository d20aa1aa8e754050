//! What a failure means to the caller: the classes behind the exit codes.
//!
//! Each room has its own error type and says its [`Class`] through [`Classified`]; the command
//! line turns the class into the process's exit code. The class is the contract with cron jobs,
//! Kubernetes' `podFailurePolicy` and runbooks, so a new kind of failure takes the class that
//! tells such a caller what to do, not the one that sounds alike.

/// The class of a failure, one for each exit code of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something failed for a reason that no other class tells (exit code 1).
    Failure,
    /// The command line or the configuration asks for something that makes no sense (2).
    Usage,
    /// Done, with warnings that a person should read (3).
    Warnings,
    /// There is no archive at the given place, or none that this version reads (10).
    NoArchive,
    /// Another streamer owns the archive now (11).
    Fenced,
    /// A server or a store refused the credentials or the privileges (12).
    Authentication,
    /// The archive does not cover the asked target (20).
    NotCovered,
    /// Transactions are missing between what the archive holds and what is needed (21).
    Gap,
    /// Bytes are not what they were when they were written (22).
    Integrity,
    /// Refused because going on could destroy or fork data (23).
    Refused,
    /// The network, the server or the store failed for now; the same call may work later (30).
    Transient,
}

impl Class {
    /// The exit code of the process for this class.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Warnings => 3,
            Self::NoArchive => 10,
            Self::Fenced => 11,
            Self::Authentication => 12,
            Self::NotCovered => 20,
            Self::Gap => 21,
            Self::Integrity => 22,
            Self::Refused => 23,
            Self::Transient => 30,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Transient)
    }
}

/// An error that knows its [`Class`].
pub trait Classified: std::error::Error {
    /// The class of this failure.
    fn class(&self) -> Class;
}

/// An error with its causes on one line, for a note or an event that can carry no more.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
