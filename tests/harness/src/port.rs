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
        for _ in 0..COUNT {
            if let Some(port) = Self::hold(next(1)) {
                return Ok(port);
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    /// Holds several ports in a row.
    ///
    /// # Errors
    /// There are no such ports.
    pub fn reserve_row(count: u16) -> Result<Vec<Self>> {
        for _ in 0..COUNT {
            let first = next(count);
            let row: Vec<Self> = (first..first + count).map_while(Self::hold).collect();
            if row.len() == usize::from(count) && first + count <= FIRST + COUNT {
                return Ok(row);
            }
        }
        bail!(
            "no {count} free ports in a row between {FIRST} and {}",
            FIRST + COUNT
        )
    }

    /// Holds this port, unless somebody has it or listens on it.
    fn hold(number: u16) -> Option<Self> {
        let name = format!("quillback-harness-port-{number}");
        let hold = SocketAddr::from_abstract_name(name)
            .and_then(|name| UnixListener::bind_addr(&name))
            .ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self {
            number,
            _hold: hold,
        })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The next candidate, with the `count - 1` behind it left to the caller; each process begins elsewhere.
fn next(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 997).unwrap_or(0) * 12;
    FIRST + NEXT.fetch_add(count, Ordering::Relaxed).wrapping_add(start) % COUNT
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

    #[test]
    fn a_row_has_no_gap() {
        let row = Port::reserve_row(5).expect("five ports");
        let numbers: Vec<u16> = row.iter().map(Port::number).collect();
        let first = numbers[0];
        assert_eq!(numbers, (first..first + 5).collect::<Vec<_>>());
    }
}
