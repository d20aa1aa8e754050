//! Where a server listens.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::server_url::{ServerUrlError, percent_decode};

/// The port on which MySQL listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 3306;

/// Where a server listens; also the name by which reports call a member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// Host name or IP address; an IPv6 address stands here without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// Joins a host and a port.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = ServerUrlError;

    /// Takes `host`, `host:port` and `[IPv6 address]:port`.
    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        parse_authority(text)
    }
}

impl TryFrom<String> for HostPort {
    type Error = ServerUrlError;

    fn try_from(text: String) -> Result<Self, ServerUrlError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

/// Whether a host is this very machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| match address {
            IpAddr::V4(v4) => v4.is_loopback(),
            IpAddr::V6(v6) => {
                v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
            }
        })
}

fn parse_authority(text: &str) -> Result<HostPort, ServerUrlError> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed
            .split_once(']')
            .ok_or_else(|| ServerUrlError::new("the [ before an IPv6 address is not closed"))?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| ServerUrlError::new(format!("{host:?} is no IPv6 address")))?;
        match rest.strip_prefix(':') {
            Some(port) => (host.to_owned(), Some(port)),
            None if rest.is_empty() => (host.to_owned(), None),
            None => return Err(ServerUrlError::new(format!("{rest:?} follows the ]"))),
        }
    } else {
        if text.matches(':').count() > 1 {
            return Err(ServerUrlError::new(
                "an IPv6 address must stand in brackets (as in mysql://user@[::1]:3306)",
            ));
        }
        match text.split_once(':') {
            Some((host, port)) => (percent_decode(host, "the host")?, Some(port)),
            None => (percent_decode(text, "the host")?, None),
        }
    };
    if host.is_empty() {
        return Err(ServerUrlError::new("it names no host"));
    }
    if host
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?'))
    {
        return Err(ServerUrlError::new(
            "the host holds a character that no host name has",
        ));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or_else(|| {
            ServerUrlError::new(format!("port {port:?} is no number from 1 to 65535"))
        })?,
    };
    Ok(HostPort { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_port_round_trip_through_text() {
        for text in ["db:3307", "[::1]:3306", "10.0.0.1:1"] {
            let address: HostPort = text.parse().expect("good");
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("db".parse(), Ok(HostPort::new("db", DEFAULT_PORT)));
    }
}
