//! Free loopback ports that no other test takes at the same time.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// Below the ephemeral ports, so that no outgoing connection takes one of them.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that is held for this process until the value is dropped.
///
/// The hold is a socket in Linux's abstract namespace: exclusive among all processes of the machine, gone with its owner,
/// and no file. The TCP port itself stays free for the server that is to use it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _hold: UnixListener,
}

impl Port {
    /// Holds a port on which nothing listens now.
    ///
    /// # Errors
    /// All of them are taken.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = u16::try_from(std::process::id() % 997).unwrap_or(0) * 12;
        for _ in 0..COUNT {
            let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % COUNT;
            let number = FIRST + offset;
            let name = format!("quillback-harness-port-{number}");
            let Ok(hold) = SocketAddr::from_abstract_name(name)
                .and_then(|name| UnixListener::bind_addr(&name))
            else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _hold: hold,
                });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_differ_and_are_free() {
        let one = Port::reserve().expect("a port");
        let other = Port::reserve().expect("another port");
        assert_ne!(one.number(), other.number());
        TcpListener::bind((Ipv4Addr::LOCALHOST, one.number())).expect("the port itself is free");
    }
}
