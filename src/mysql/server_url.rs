//! The address of a server with the login for it: `mysql://user@host:port?ssl-mode=...`.
//!
//! The invariant: a [`ServerUrl`] never prints its password, and its TLS mode is never weaker
//! than what was asked for. Without `ssl-mode` a loopback host is reached in clear, every other
//! host with a verified certificate; [`SslMode::Preferred`], which a man in the middle can strip,
//! is used only when it was asked for by name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::Secret;

pub use super::host_port::{DEFAULT_PORT, HostPort};

use super::host_port::is_loopback;

/// How a connection is protected, by the names of MySQL's own clients (MySQL manual, "Command
/// Options for Encrypted Connections"). The order is that of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No TLS.
    Disabled,
    /// TLS if the server offers it, else in clear.
    Preferred,
    /// TLS, whoever answers.
    Required,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// TLS with a certificate of a known authority for this very host.
    VerifyIdentity,
}

impl SslMode {
    /// The mode for a host for which none was given.
    #[must_use]
    pub fn default_for(host: &str) -> Self {
        if is_loopback(host) {
            Self::Disabled
        } else {
            Self::VerifyIdentity
        }
    }

    /// The name as it is written in a URL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::VerifyCa => "verify-ca",
            Self::VerifyIdentity => "verify-identity",
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SslMode {
    type Err = ServerUrlError;

    /// Takes `verify-identity`, `VERIFY_IDENTITY` and anything between.
    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disabled" => Ok(Self::Disabled),
            "preferred" => Ok(Self::Preferred),
            "required" => Ok(Self::Required),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-identity" => Ok(Self::VerifyIdentity),
            _ => Err(ServerUrlError::new(format!(
                "ssl-mode is {text:?}, but must be one of disabled, preferred, required, \
                 verify-ca, verify-identity"
            ))),
        }
    }
}

/// One server and the login for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host name or IP address; an IPv6 address stands here without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The account's user name.
    pub user: String,
    /// The password, if one is known.
    pub password: Option<Secret>,
    /// How the connection is protected.
    pub ssl_mode: SslMode,
    /// The authority to trust instead of the system's own list: a PEM file.
    pub ssl_ca: Option<PathBuf>,
    /// Whether `ssl_mode` was asked for rather than taken from the host.
    ssl_mode_given: bool,
}

impl ServerUrl {
    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> HostPort {
        HostPort::new(self.host.clone(), self.port)
    }

    /// The same login at another member.
    ///
    /// A TLS mode that was not asked for follows the new host, but only upwards: a server that is
    /// reached with a verified certificate cannot lead to a fellow that is reached without.
    #[must_use]
    pub fn with_host_port(&self, address: &HostPort) -> Self {
        let ssl_mode = if self.ssl_mode_given {
            self.ssl_mode
        } else {
            self.ssl_mode.max(SslMode::default_for(&address.host))
        };
        Self {
            host: address.host.clone(),
            port: address.port,
            ssl_mode,
            ..self.clone()
        }
    }

    /// The same server with this password, unless the URL brought one.
    #[must_use]
    pub fn or_password(self, password: Option<&Secret>) -> Self {
        let password = self.password.clone().or_else(|| password.cloned());
        Self { password, ..self }
    }

    /// The same server with this user and password.
    #[must_use]
    pub fn with_login(&self, user: impl Into<String>, password: Option<Secret>) -> Self {
        Self {
            user: user.into(),
            password,
            ..self.clone()
        }
    }
}

/// Prints the URL without its password.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mysql://{}@{}",
            percent_encode(&self.user),
            self.address()
        )?;
        let mut separator = '?';
        if self.ssl_mode_given {
            write!(f, "{separator}ssl-mode={}", self.ssl_mode)?;
            separator = '&';
        }
        if let Some(ca) = &self.ssl_ca {
            write!(
                f,
                "{separator}ssl-ca={}",
                percent_encode(&ca.to_string_lossy())
            )?;
        }
        Ok(())
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let rest = text.strip_prefix("mysql://").ok_or_else(|| {
            ServerUrlError::new("it does not start with mysql:// (as in mysql://user@host:3306)")
        })?;
        if rest.contains('#') {
            return Err(ServerUrlError::new("a # must be written as %23"));
        }
        let (before_query, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        let (login, authority) = before_query
            .rsplit_once('@')
            .ok_or_else(|| ServerUrlError::new("it names no user (as in mysql://user@host)"))?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('/') {
            return Err(ServerUrlError::new(
                "it names a database, but a server as a whole is meant (mysql://user@host:port)",
            ));
        }
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(percent_decode(password, "the password")?)),
            None => (login, None),
        };
        let user = percent_decode(user, "the user")?;
        if user.is_empty() {
            return Err(ServerUrlError::new("the user is empty"));
        }
        let HostPort { host, port } = authority.parse()?;
        let mut url = Self {
            ssl_mode: SslMode::default_for(&host),
            host,
            port,
            user,
            password: password.map(Secret::new),
            ssl_ca: None,
            ssl_mode_given: false,
        };
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            url.apply_parameter(pair)?;
        }
        Ok(url)
    }
}

impl ServerUrl {
    fn apply_parameter(&mut self, pair: &str) -> Result<(), ServerUrlError> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(value, "a parameter")?;
        match name {
            "ssl-mode" => {
                self.ssl_mode = value.parse()?;
                self.ssl_mode_given = true;
            }
            "ssl-ca" if value.is_empty() => {
                return Err(ServerUrlError::new("ssl-ca names no file"));
            }
            "ssl-ca" => self.ssl_ca = Some(PathBuf::from(value)),
            _ => {
                return Err(ServerUrlError::new(format!(
                    "parameter {name:?} is unknown (known are ssl-mode and ssl-ca)"
                )));
            }
        }
        Ok(())
    }
}

/// Why a text is no server URL; never holds the text itself, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a server URL: {reason}")]
pub struct ServerUrlError {
    reason: String,
}

impl ServerUrlError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

pub(super) fn percent_decode(text: &str, what: &str) -> Result<String, ServerUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let decoded = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| {
                ServerUrlError::new(format!(
                    "{what} holds a % without two hexadecimal digits (write % as %25)"
                ))
            })?;
        bytes.push(decoded);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| ServerUrlError::new(format!("{what} is not UTF-8")))
}

fn percent_encode(text: &str) -> String {
    use fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ServerUrl {
        text.parse().expect("a good URL")
    }

    #[test]
    fn the_parts_of_a_url_are_found() {
        let url = parse(
            "mysql://app%40x:p%3Aw%40%2F@db1.example:3307/?ssl-mode=VERIFY_CA&ssl-ca=/etc/ca%20x.pem",
        );
        assert_eq!(url.user, "app@x");
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p:w@/"));
        assert_eq!(url.address(), HostPort::new("db1.example", 3307));
        assert_eq!(url.ssl_mode, SslMode::VerifyCa);
        assert_eq!(url.ssl_ca, Some(PathBuf::from("/etc/ca x.pem")));
    }

    #[test]
    fn the_password_is_never_printed_and_the_rest_round_trips() {
        let url = parse("mysql://a%20b:hunter2@[::1]:3307?ssl-mode=required&ssl-ca=/c.pem");
        let shown = url.to_string();
        assert_eq!(
            shown,
            "mysql://a%20b@[::1]:3307?ssl-mode=required&ssl-ca=/c.pem"
        );
        assert!(!format!("{url:?}").contains("hunter2"));
        let again = parse(&shown).or_password(Some(&Secret::from("hunter2")));
        assert_eq!(again, url);
    }

    #[test]
    fn the_default_mode_depends_on_the_host() {
        for (url, mode) in [
            ("mysql://u@localhost", SslMode::Disabled),
            ("mysql://u@127.0.0.9", SslMode::Disabled),
            ("mysql://u@[::1]", SslMode::Disabled),
            ("mysql://u@10.0.0.1", SslMode::VerifyIdentity),
            ("mysql://u@db.example", SslMode::VerifyIdentity),
            (
                "mysql://u@db.example?ssl-mode=preferred",
                SslMode::Preferred,
            ),
        ] {
            let url = parse(url);
            assert_eq!(url.ssl_mode, mode, "{url}");
            assert_eq!(url.port, DEFAULT_PORT);
        }
    }

    #[test]
    fn another_member_is_never_reached_with_less_than_the_first() {
        let remote = HostPort::new("db2.example", 3306);
        let local = HostPort::new("127.0.0.1", 3306);
        let from_local = parse("mysql://u@localhost");
        assert_eq!(
            from_local.with_host_port(&remote).ssl_mode,
            SslMode::VerifyIdentity
        );
        let from_remote = parse("mysql://u@db1.example");
        assert_eq!(
            from_remote.with_host_port(&local).ssl_mode,
            SslMode::VerifyIdentity
        );
        let asked = parse("mysql://u@localhost?ssl-mode=disabled");
        assert_eq!(asked.with_host_port(&remote).ssl_mode, SslMode::Disabled);
    }

    #[test]
    fn what_is_no_server_url_is_refused_with_the_reason() {
        for (text, reason) in [
            ("postgres://u@h", "mysql://"),
            ("mysql://host", "no user"),
            ("mysql://:p@host", "user is empty"),
            ("mysql://u@", "no host"),
            ("mysql://u@host:0", "port"),
            ("mysql://u@host:70000", "port"),
            ("mysql://u@host/db", "database"),
            ("mysql://u@::1:3306", "brackets"),
            ("mysql://u@[::1", "not closed"),
            ("mysql://u@[zz]", "no IPv6"),
            ("mysql://u@h?ssl-mode=yes", "ssl-mode"),
            ("mysql://u@h?sslmode=required", "unknown"),
            ("mysql://u:50%@h", "%25"),
            ("mysql://u:%FF@h", "UTF-8"),
            ("mysql://u:a#b@h", "%23"),
        ] {
            let error = text.parse::<ServerUrl>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_does_not_show_the_password() {
        let error = "mysql://u:hunter2@h:x"
            .parse::<ServerUrl>()
            .expect_err("no port");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
