//! What can go wrong between two ends of a MySQL connection.

use crate::error::{Class, Classified};

/// A failure of the packet layer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The TCP connection could not be made.
    #[error("cannot connect to {address}")]
    Connect {
        /// `host:port`.
        address: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Io {
        /// `host:port`.
        address: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The peer closed the connection in the middle of a conversation.
    #[error("{address} closed the connection")]
    Closed {
        /// `host:port`.
        address: String,
    },
    /// Nothing arrived for longer than the limit.
    #[error("{address} was silent for {seconds} s")]
    Silent {
        /// `host:port`.
        address: String,
        /// The limit in seconds.
        seconds: u64,
    },
    /// TLS was asked for and could not be had.
    #[error("TLS with {address} failed: {reason}")]
    Tls {
        /// `host:port`.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The server wants a way of authentication that is not known, or not safe here.
    #[error("cannot authenticate at {address}: {reason}")]
    Authentication {
        /// `host:port`.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{address} answered error {code} ({state}): {message}")]
    Server {
        /// `host:port`.
        address: String,
        /// MySQL's error number.
        code: u16,
        /// The SQLSTATE.
        state: String,
        /// The server's text.
        message: String,
    },
    /// Semi-synchronous replication was asked for and cannot be had.
    #[error("{address} takes no semi-synchronous acknowledgements: {reason}")]
    SemiSync {
        /// `host:port`.
        address: String,
        /// Why, with the statement that would change it.
        reason: String,
    },
    /// The peer sent bytes that are no MySQL protocol.
    #[error("malformed packet from {address}: {reason}")]
    Malformed {
        /// `host:port`.
        address: String,
        /// What was wrong.
        reason: String,
    },
}

impl WireError {
    /// The server's error number, if the server answered at all.
    #[must_use]
    pub const fn server_code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl Classified for WireError {
    fn class(&self) -> Class {
        match self {
            Self::Connect { .. } | Self::Io { .. } | Self::Closed { .. } | Self::Silent { .. } => {
                Class::Transient
            }
            Self::Tls { .. } | Self::Authentication { .. } => Class::Authentication,
            Self::Server { code, .. } => class_of_server_code(*code),
            // Acknowledging is a promise of durability: without it the run must not begin.
            Self::SemiSync { .. } => Class::Refused,
            Self::Malformed { .. } => Class::Integrity,
        }
    }
}

/// The class of an error that a server answered with, by its number (MySQL's "Server Error
/// Message Reference").
#[must_use]
pub const fn class_of_server_code(code: u16) -> Class {
    match code {
        // Access denied (account, database, table, column, privilege, TLS required).
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1410 | 1698 | 1820 | 3118 | 3159 => {
            Class::Authentication
        }
        // Too many connections, shutdown in progress, lock waits, deadlock, killed, read-only, offline.
        1040 | 1053 | 1077 | 1205 | 1213 | 1290 | 1317 | 1792 | 1836 | 3024 | 3032 | 3168
        | 3170 => Class::Transient,
        _ => Class::Failure,
    }
}
