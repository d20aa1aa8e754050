//! Who takes the writes, asked of all servers again and again while one of them is followed.
//!
//! A server tells only of itself: one that was given up by the others, and does not know it, says
//! that it is the primary still.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::mysql::discover::login_for;
use crate::mysql::host_port::HostPort;
use crate::mysql::primary::{FoundPrimary, PrimaryError, find_settled_primary};
use crate::mysql::server_url::ServerUrl;

/// How often all servers are asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);

/// Looks for the primary from time to time.
#[derive(Debug)]
pub(super) struct Lookout {
    servers: Vec<ServerUrl>,
    due: Instant,
    aside: Option<JoinHandle<Result<FoundPrimary, PrimaryError>>>,
}

impl Lookout {
    /// Looks at `servers`, and those that it meets, first after `wait`.
    pub(super) fn new(servers: Vec<ServerUrl>, wait: Duration) -> Self {
        Self {
            servers,
            due: Instant::now() + wait,
            aside: None,
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Looks sooner.
    pub(super) fn hurry(&mut self, wait: Duration) {
        self.due = self.due.min(Instant::now() + wait);
    }

    /// How to log in at a server.
    pub(super) fn login(&self, address: &HostPort) -> ServerUrl {
        login_for(address, &self.servers[0], &self.servers)
    }

    /// Looks now.
    pub(super) async fn look(&mut self) -> Result<FoundPrimary, PrimaryError> {
        let seen = find_settled_primary(&self.servers).await;
        self.note(seen)
    }

    /// Looks beside everything else when it is time, and gives what a look has shown that has
    /// ended since.
    pub(super) async fn look_aside(&mut self) -> Option<Result<FoundPrimary, PrimaryError>> {
        if let Some(looking) = self.aside.take_if(|looking| looking.is_finished()) {
            // One that died is repeated.
            let seen = looking.await.ok()?;
            return Some(self.note(seen));
        }
        if self.aside.is_none() && self.is_due() {
            let servers = self.servers.clone();
            self.aside = Some(tokio::spawn(
                async move { find_settled_primary(&servers).await },
            ));
        }
        None
    }

    fn note(
        &mut self,
        seen: Result<FoundPrimary, PrimaryError>,
    ) -> Result<FoundPrimary, PrimaryError> {
        self.due = Instant::now() + INTERVAL;
        if let Ok(found) = &seen {
            for address in found.met() {
                if !self.servers.iter().any(|url| url.address() == *address) {
                    self.servers.push(self.login(address));
                }
            }
        }
        seen
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        if let Some(looking) = &self.aside {
            looking.abort();
        }
    }
}
