//! Where the server finds us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use super::{ReplayError, ReplayJob};

/// A listener, and the address under which the server finds it.
pub(super) async fn listen(job: &ReplayJob<'_>) -> Result<(TcpListener, SocketAddr), ReplayError> {
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
    let ip = job.advertise.unwrap_or(if wanted.ip().is_unspecified() {
        ours
    } else {
        wanted.ip()
    });
    Ok((listener, SocketAddr::new(ip, port)))
}
