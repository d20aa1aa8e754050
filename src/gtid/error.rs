//! What is wrong with a text or with bytes that should have been GTIDs.

/// A failure to read or to write GTIDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// The text is none that MySQL would take.
    #[error("expected {expected} at character {position} of GTID text {text:?}")]
    Text {
        /// What should have come.
        expected: &'static str,
        /// Where it should have come, in characters from 1.
        position: usize,
        /// The text, from a little before the position where it is long.
        text: String,
    },
    /// The tag is not `[a-z_][a-z0-9_]{0,31}`.
    #[error("{tag:?} is not a GTID tag (a letter or _, then at most 31 letters, digits or _)")]
    Tag {
        /// The offending text.
        tag: String,
    },
    /// The transaction's number is outside of what MySQL allows.
    #[error("{gno} is not a transaction number (1 to 9223372036854775806)")]
    Gno {
        /// The offending number.
        gno: u64,
    },
    /// The format of servers before 8.3 has no place for a tag.
    #[error("the set has the tag {tag}, which the format without tags cannot hold")]
    Tagged {
        /// The first tag of the set.
        tag: String,
    },
    /// The bytes are no encoded GTID set.
    #[error("malformed GTID set at byte {offset}: {reason}")]
    Binary {
        /// Where, in bytes from 0.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}
