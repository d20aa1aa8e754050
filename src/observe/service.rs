//! The service manager's ear: readiness, status and the watchdog of systemd.
//!
//! The protocol is one datagram of `NAME=value` lines a message (sd_notify(3)), so it needs no
//! library. A manager that is not there any more must not stop a run: what cannot be said is dropped.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// Where the service manager listens.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: Address,
}

#[derive(Debug)]
enum Address {
    Path(PathBuf),
    #[cfg(target_os = "linux")]
    Abstract(std::os::unix::net::SocketAddr),
}

impl ServiceManager {
    /// Knows the manager by its address: an absolute path, or `@name` in Linux's abstract space.
    ///
    /// # Errors
    ///
    /// An address of another form, or no socket to be had.
    pub fn at(address: &str) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            #[cfg(target_os = "linux")]
            Some(name) => {
                use std::os::linux::net::SocketAddrExt as _;
                Address::Abstract(std::os::unix::net::SocketAddr::from_abstract_name(name)?)
            }
            None if address.starts_with('/') => Address::Path(PathBuf::from(address)),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither an absolute path nor @name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// The service does its work.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// What it does now, in one line.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// It lives.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// It has begun to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        let sent = match &self.address {
            Address::Path(path) => self.socket.send_to(message.as_bytes(), path),
            #[cfg(target_os = "linux")]
            Address::Abstract(address) => self.socket.send_to_addr(message.as_bytes(), address),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, message, "the service manager does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn messages_reach_a_path_and_nobody_waits_for_one_that_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let manager = ServiceManager::at(path.to_str().expect("text")).expect("an address");
        manager.ready();
        manager.status("one\ntwo");
        assert_eq!(heard(&by_path), "READY=1");
        assert_eq!(heard(&by_path), "STATUS=one two");
        drop(by_path);
        manager.watchdog();
        assert!(ServiceManager::at("relative").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_reached_too() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("quillback-{}", std::process::id());
        let address =
            std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        let manager = ServiceManager::at(&format!("@{name}")).expect("an address");
        manager.stopping();
        assert_eq!(heard(&socket), "STOPPING=1");
    }
}
