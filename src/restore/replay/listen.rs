//! Where the server finds us.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::net::{TcpListener, TcpStream};

use super::{ReplayError, ReplayJob};

/// An address under which others find us: a name or an IP address, and a port if it is another
/// than the one that we listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// The name or the IP address.
    pub host: String,
    /// The port; none is that of the listener.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = String;

    /// Reads `host`, `host:port`, an IP address, or `[v6]:port`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self {
                host: ip.to_string(),
                port: None,
            });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                host: address.ip().to_string(),
                port: Some(address.port()),
            });
        }
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (host, Some(port.ok_or(format!("{text:?} has no port"))?))
            }
        };
        let is_name = !host.is_empty()
            && host.len() <= 255
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if !is_name {
            return Err(format!("{text:?} is neither a name nor an address"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Where the server is told that we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A listener, and the place under which the server finds it.
pub(super) async fn listen(job: &ReplayJob<'_>) -> Result<(TcpListener, Place), ReplayError> {
    let failed = |address: String| move |source| ReplayError::Listen { address, source };
    // The address that packets to the server leave from is one that it can answer to.
    let name = job.server.address().to_string();
    let ours = TcpStream::connect((job.server.host.as_str(), job.server.port))
        .await
        .and_then(|probe| probe.local_addr())
        .map_err(failed(name))?
        .ip();
    let wanted = job.listen.unwrap_or_else(|| {
        let ip = match ours {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(ip, 0)
    });
    let listener = TcpListener::bind(wanted)
        .await
        .map_err(failed(wanted.to_string()))?;
    let port = listener
        .local_addr()
        .map_err(failed(wanted.to_string()))?
        .port();
    let own = if wanted.ip().is_unspecified() {
        ours
    } else {
        wanted.ip()
    };
    let place = match job.advertise {
        None => Place {
            host: own.to_string(),
            port,
        },
        Some(advertise) => Place {
            host: advertise.host.clone(),
            port: advertise.port.unwrap_or(port),
        },
    };
    Ok((listener, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        for (text, host, port) in [
            ("db-backup", "db-backup", None),
            (
                "restore.example.org:4406",
                "restore.example.org",
                Some(4406),
            ),
            ("10.0.0.7", "10.0.0.7", None),
            ("10.0.0.7:3307", "10.0.0.7", Some(3307)),
            ("fd00::7", "fd00::7", None),
            ("[fd00::7]:3307", "fd00::7", Some(3307)),
        ] {
            let read: Advertise = text.parse().expect(text);
            assert_eq!((read.host.as_str(), read.port), (host, port), "{text}");
        }
        for text in [
            "",
            ":3307",
            "host:",
            "host:0",
            "host:70000",
            "a b",
            "x'y",
            "[fd00::7",
        ] {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
        let place = |host: &str| {
            let host = host.to_owned();
            Place { host, port: 9 }.to_string()
        };
        assert_eq!((place("a"), place("::1")), ("a:9".into(), "[::1]:9".into()));
    }
}
