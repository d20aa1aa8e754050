//! The archive as a replication source.
//!
//! A server that replicates from us gets exactly the transactions of the plan, in the archive's
//! order, byte for byte, and then heartbeats until we are told to stop. What its IO thread asks
//! is in `sql/rpl_replica.cc`; a source's side of the dump in `sql/rpl_binlog_sender.cc`.
//!
//! The invariant: nothing outside the plan's set is ever sent, and a transaction that the replica
//! says it has is not sent again, so it may come back after any break. When it comes back, what is
//! left of its earlier connection is ended.

mod conversation;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::archive::history::Member;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::config::Secret;
use crate::gtid::GtidSet;
use crate::mysql::wire::tls::ServerIdentity;

/// What is served, and to whom.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The account that the replica uses.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The version to show; a replica adapts to it.
    pub version: String,
    /// Our `server_id`: not the replica's and not in the archive.
    pub server_id: u32,
    /// Our `server_uuid`.
    pub server_uuid: Uuid,
    /// The certificate of the run; without one all is sent in the clear.
    pub identity: Option<ServerIdentity>,
}

/// What has been sent.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes of events, by the newest connection.
    pub bytes: u64,
    /// Whether all has been sent.
    pub complete: bool,
    /// How many connections proved the password.
    pub connections: u64,
    /// Why the last connection that was not let in was not.
    pub refused: Option<String>,
    /// The archive's failure that ended a connection.
    pub failure: Option<Arc<ArchiveError>>,
}

/// A running source. Dropping it ends it; [`Server::stop`] waits for that.
#[derive(Debug)]
pub struct Server {
    address: String,
    progress: Arc<Mutex<Progress>>,
    hold: watch::Sender<bool>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// What every connection needs.
#[derive(Debug)]
struct Shared {
    repository: Repository,
    branch: BranchNumber,
    members: Vec<Member>,
    wanted: GtidSet,
    options: ServeOptions,
    progress: Arc<Mutex<Progress>>,
    hold: watch::Receiver<bool>,
    cancel: CancellationToken,
    /// Ends the newest dump when another one begins.
    newest: Mutex<CancellationToken>,
}

impl Server {
    /// Starts to serve, at a listener that the replica knows by `address`, `wanted` out of members of the history of a branch.
    #[must_use]
    pub fn start(
        listener: TcpListener,
        address: String,
        repository: Repository,
        (branch, members): (BranchNumber, Vec<Member>),
        wanted: GtidSet,
        options: ServeOptions,
    ) -> Self {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let cancel = CancellationToken::new();
        let (hold, held) = watch::channel(false);
        let shared = Arc::new(Shared {
            repository,
            branch,
            members,
            wanted,
            options,
            progress: Arc::clone(&progress),
            hold: held,
            cancel: cancel.clone(),
            newest: Mutex::new(cancel.child_token()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared));
        Self {
            address,
            progress,
            hold,
            cancel,
            tasks,
        }
    }

    /// Where the replica is told to find it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What has been sent so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Stops sending behind the transaction that is on its way, or goes on: so the replica's disk
    /// need not hold all of the log at once.
    pub fn hold(&self, hold: bool) {
        self.hold
            .send_if_modified(|held| std::mem::replace(held, hold) != hold);
    }

    /// Ends all connections and waits for them.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    number += 1;
                    connections.spawn(conversation::converse(socket, number, Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the replica");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = shared.cancel.cancelled() => break,
        }
    }
    while connections.join_next().await.is_some() {}
}
