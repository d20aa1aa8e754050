//! What goes wrong between us and a server, and what that means to the caller.
//!
//! A [`MysqlError`] carries the server's own code and text and never a password: the one place
//! where a server echoes a statement is its syntax error, and whoever sends a secret in a
//! statement takes [`MysqlError::without_text`]. Codes are those of the MySQL manual, "Server
//! Error Message Reference".

use std::io;
use std::time::Duration;

use crate::error::{Class, Classified};

use super::server_url::HostPort;
use super::wire::error::class_of_server_code;

/// A failure of a connection or a statement.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    /// The server answered with an error.
    #[error("server error {code} ({state}): {message}")]
    Server {
        /// The error's number, as in `ER_ACCESS_DENIED_ERROR` = 1045.
        code: u16,
        /// The five characters of SQLSTATE.
        state: String,
        /// The server's own words.
        message: String,
    },
    /// The connection could not be made or broke.
    #[error("{action} failed")]
    Network {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("{action} took longer than {} s", limit.as_secs_f64())]
    TimedOut {
        /// What was being done.
        action: String,
        /// The time that was allowed.
        limit: Duration,
    },
    /// The login cannot be made in the way that the server asks for.
    #[error("cannot log in: {reason}")]
    Login {
        /// Why.
        reason: String,
    },
    /// The connection could not be protected as asked.
    #[error("TLS failed: {reason}")]
    Tls {
        /// What the TLS library or the handshake says.
        reason: String,
    },
    /// The server sent what the protocol does not allow, or what this program does not expect.
    #[error("unexpected answer: {reason}")]
    Protocol {
        /// What was wrong with it.
        reason: String,
    },
    /// The server is none that Quillback works with.
    #[error("unsupported server: {reason}")]
    Unsupported {
        /// Why, with the version.
        reason: String,
    },
    /// A failure with the object that was asked for.
    #[error("asking for {object} failed")]
    Of {
        /// What it is, with its name.
        object: String,
        /// What happened.
        #[source]
        source: Box<Self>,
    },
    /// Any of the above, with the server that it concerns.
    #[error("request to {server} failed")]
    At {
        /// The server's address.
        server: HostPort,
        /// What happened there.
        #[source]
        source: Box<Self>,
    },
}

impl MysqlError {
    /// The server's error number, if it was the server that failed the call.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            Self::At { source, .. } | Self::Of { source, .. } => source.code(),
            _ => None,
        }
    }

    /// The same failure with the server's address, unless it has one.
    #[must_use]
    pub fn at(self, server: &HostPort) -> Self {
        match self {
            Self::At { .. } => self,
            other => Self::At {
                server: server.clone(),
                source: Box::new(other),
            },
        }
    }

    /// The same failure with the object that was asked for, such as `table shop.item`.
    #[must_use]
    pub fn of(self, object: impl Into<String>) -> Self {
        Self::Of {
            object: object.into(),
            source: Box::new(self),
        }
    }

    /// The same failure without the server's text, for statements that hold a secret.
    #[must_use]
    pub fn without_text(self) -> Self {
        match self {
            Self::Server { code, state, .. } => Self::Server {
                code,
                state,
                message: "(the text is withheld, since the statement holds a secret)".to_owned(),
            },
            Self::At { server, source } => Self::At {
                server,
                source: Box::new(source.without_text()),
            },
            Self::Of { object, source } => Self::Of {
                object,
                source: Box::new(source.without_text()),
            },
            other => other,
        }
    }

    /// Whether the connection itself is lost, rather than a statement refused.
    #[must_use]
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Network { .. } | Self::TimedOut { .. } => true,
            Self::At { source, .. } | Self::Of { source, .. } => source.is_connection_lost(),
            _ => false,
        }
    }

    /// An answer that the protocol does not allow.
    pub fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol {
            reason: reason.into(),
        }
    }
}

impl From<mysql_async::Error> for MysqlError {
    fn from(error: mysql_async::Error) -> Self {
        use mysql_async::{DriverError, Error, IoError};
        match error {
            Error::Server(server) => Self::Server {
                code: server.code,
                state: server.state,
                message: server.message,
            },
            // A certificate that was refused comes in an io::Error; trying again does not help.
            Error::Io(IoError::Io(source)) if is_tls(&source) => Self::Tls {
                reason: source.to_string(),
            },
            Error::Io(IoError::Io(source)) => Self::Network {
                action: "the connection",
                source,
            },
            Error::Io(IoError::Tls(tls)) => Self::Tls {
                reason: tls.to_string(),
            },
            Error::Driver(DriverError::ConnectionClosed) => Self::Network {
                action: "the connection",
                source: io::Error::from(io::ErrorKind::ConnectionReset),
            },
            Error::Driver(DriverError::NoClientSslFlagFromServer) => Self::Tls {
                reason: "the server offers no TLS".to_owned(),
            },
            // A server answers to the names of accounts that it does not have with a plugin by
            // chance, so that nobody learns which ones it has.
            Error::Driver(DriverError::UnknownAuthPlugin { name }) => Self::Login {
                reason: format!(
                    "the account uses {name}, which is not supported, or there is no such account"
                ),
            },
            Error::Driver(
                other @ (DriverError::MysqlOldPasswordDisabled
                | DriverError::CleartextPluginDisabled),
            ) => Self::Login {
                reason: other.to_string(),
            },
            // The values of a row or a packet may be a user's data: only the kind is told.
            Error::Driver(DriverError::FromRow { .. } | DriverError::FromValue { .. }) => {
                Self::protocol("a row is not of the expected shape")
            }
            Error::Driver(DriverError::UnexpectedPacket { .. }) => {
                Self::protocol("a packet that does not belong here")
            }
            Error::Driver(other) => Self::protocol(other.to_string()),
            Error::Other(other) => Self::protocol(other.to_string()),
            Error::Url(url) => Self::protocol(url.to_string()),
        }
    }
}

impl Classified for MysqlError {
    fn class(&self) -> Class {
        match self {
            Self::Server { code, .. } => class_of(*code),
            Self::Network { .. } | Self::TimedOut { .. } => Class::Transient,
            // As of the packet layer: the URL, its ssl-mode or the account must change.
            Self::Login { .. } | Self::Tls { .. } => Class::Authentication,
            Self::Protocol { .. } => Class::Failure,
            Self::Unsupported { .. } => Class::Refused,
            Self::At { source, .. } | Self::Of { source, .. } => source.class(),
        }
    }
}

fn is_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

fn class_of(code: u16) -> Class {
    match code {
        // The host is not allowed (1130), the plugin is refused (1251), XA RECOVER (1401), the
        // password has expired (1862).
        1130 | 1251 | 1401 | 1862 => Class::Authentication,
        // Connection limits of the server and of the account (1203, 1226), network errors as the
        // server sees them (1152, 1158 to 1161), and the client library's own numbers (2xxx),
        // which proxies pass on.
        1152 | 1158..=1161 | 1203 | 1226 | 2000..=2999 => Class::Transient,
        other => class_of_server_code(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> MysqlError {
        MysqlError::Server {
            code,
            state: "HY000".to_owned(),
            message: "near 'hunter2'".to_owned(),
        }
    }

    #[test]
    fn classes_follow_the_code_through_the_address() {
        let at = HostPort::new("db", 3306);
        for (code, class) in [
            (1045, Class::Authentication),
            (1227, Class::Authentication),
            (1040, Class::Transient),
            (2013, Class::Transient),
            (3032, Class::Transient),
            (1146, Class::Failure),
        ] {
            let error = server(code).at(&at);
            assert_eq!(error.class(), class, "{code}");
            assert_eq!(error.code(), Some(code));
        }
    }

    #[test]
    fn text_is_withheld_on_demand() {
        let error = server(1064).at(&HostPort::new("db", 3306)).without_text();
        assert!(!format!("{error:?}").contains("hunter2"));
        assert_eq!(error.code(), Some(1064));
    }
}
