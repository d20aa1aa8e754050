//! The archive as a replication source.
//!
//! A server that replicates from us gets exactly the transactions of the plan, in the archive's
//! order, byte for byte, and then heartbeats until we are told to stop. What its IO thread asks
//! is in `sql/rpl_replica.cc`; a source's side of the dump in `sql/rpl_binlog_sender.cc`.
//!
//! The invariant: nothing outside the plan's set is ever sent, and a transaction that the replica
//! says it has is not sent again, so it may come back after any break.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::feed::{Fed, Feed};
use crate::archive::history::Member;
use crate::archive::layout::BranchNumber;
use crate::archive::repository::{ArchiveError, Repository};
use crate::config::Secret;
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Checksum, EventBuilder};
use crate::mysql::wire::WireError;
use crate::mysql::wire::serve::{Command, ServedConnection};

/// Events are sent when so many bytes wait.
const SEND_BYTES: usize = 1 << 20;
/// The replica waits this long for a sign of life unless it says otherwise.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// `BINLOG_DUMP` flag of the replica: it understands heartbeats of the second version.
const HEARTBEAT_V2: u16 = 2;

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
}

/// What has been sent.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes of events, by the newest connection.
    pub bytes: u64,
    /// Whether all has been sent.
    pub complete: bool,
    /// The archive's failure that ended a connection.
    pub failure: Option<Arc<ArchiveError>>,
}

/// A running source. Dropping it ends it; [`Server::stop`] waits for that.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    progress: Arc<Mutex<Progress>>,
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
    cancel: CancellationToken,
}

impl Server {
    /// Starts to serve `wanted` out of members of the history of a branch.
    #[must_use]
    pub fn start(
        listener: TcpListener,
        address: SocketAddr,
        repository: Repository,
        (branch, members): (BranchNumber, Vec<Member>),
        wanted: GtidSet,
        options: ServeOptions,
    ) -> Self {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            repository,
            branch,
            members,
            wanted,
            options,
            progress: Arc::clone(&progress),
            cancel: cancel.clone(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared));
        Self {
            address,
            progress,
            cancel,
            tasks,
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has been sent so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Ends all connections and waits for them.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    number += 1;
                    connections.spawn(converse(socket, number, Arc::clone(&shared)));
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

async fn converse(socket: TcpStream, number: u32, shared: Arc<Shared>) {
    let cancel = shared.cancel.clone();
    let conversation = async {
        let options = &shared.options;
        let connection = ServedConnection::accept(
            socket,
            &options.version,
            number,
            &options.user,
            &options.password,
        )
        .await?;
        Conversation {
            connection,
            heartbeat: DEFAULT_HEARTBEAT,
            shared: &shared,
        }
        .run()
        .await
    };
    tokio::select! {
        ended = conversation => match ended {
            Ok(()) => {}
            Err(error) => tracing::info!(error = %error, "a replica's connection ended"),
        },
        () = cancel.cancelled() => {}
    }
}

struct Conversation<'s> {
    connection: ServedConnection,
    heartbeat: Duration,
    shared: &'s Shared,
}

impl Conversation<'_> {
    async fn run(mut self) -> Result<(), WireError> {
        loop {
            match self.connection.next_command().await? {
                Command::Quit => return Ok(()),
                Command::Ping | Command::RegisterReplica(_) => self.connection.send_ok().await?,
                Command::Query(text) => self.answer(text.trim()).await?,
                Command::DumpGtid {
                    flags,
                    server_id,
                    set,
                } => return self.dump(flags, server_id, &set).await,
                Command::Other(number) => {
                    let text = format!("command {number} is not served here");
                    self.connection.send_error(1047, "08S01", &text).await?;
                }
            }
        }
    }

    async fn answer(&mut self, query: &str) -> Result<(), WireError> {
        let upper = query.to_ascii_uppercase();
        let options = &self.shared.options;
        let value = if let Some(assignments) = upper.strip_prefix("SET ") {
            if let Some(period) = heartbeat_period(assignments) {
                self.heartbeat = period;
            }
            return self.connection.send_ok().await;
        } else if upper.contains("UNIX_TIMESTAMP") {
            chrono::Utc::now().timestamp().to_string()
        } else if upper.contains("@@GLOBAL.SERVER_ID") {
            options.server_id.to_string()
        } else if upper.contains("@@GLOBAL.SERVER_UUID") {
            options.server_uuid.to_string()
        } else if upper.contains("@@GLOBAL.GTID_MODE") {
            "ON".to_owned()
        } else if upper.contains("BINLOG_CHECKSUM") {
            match self.first_checksum() {
                Checksum::None => "NONE".to_owned(),
                Checksum::Crc32 => "CRC32".to_owned(),
            }
        } else if upper.contains("VERSION()") {
            options.version.clone()
        } else if upper.contains("RPL_SEMI_SYNC") {
            return self
                .connection
                .send_error(1193, "HY000", "Unknown system variable")
                .await;
        } else {
            tracing::warn!(query, "the replica asks something unknown");
            return self
                .connection
                .send_error(1064, "42000", "Quillback does not serve this query")
                .await;
        };
        self.connection.send_value(query, &value).await
    }

    fn first_checksum(&self) -> Checksum {
        self.shared
            .members
            .first()
            .map_or(Checksum::Crc32, |member| member.stored.index.checksum)
    }

    async fn dump(&mut self, flags: u16, replica: u32, set: &[u8]) -> Result<(), WireError> {
        let have = match GtidSet::decode(set) {
            Ok(have) => have,
            Err(error) => {
                let text = format!("the replica's GTID set is malformed: {error}");
                return self.connection.send_error(1236, "HY000", &text).await;
            }
        };
        if replica == self.shared.options.server_id {
            let text = "the replica has the source's server_id";
            return self.connection.send_error(1236, "HY000", text).await;
        }
        let wanted = self.shared.wanted.subtract(&have);
        let mut feed = Feed::new(
            self.shared.repository.clone(),
            self.shared.branch,
            self.shared.members.clone(),
            wanted,
        );
        let mut file = ServedFile {
            number: 0,
            position: 4,
            builder: EventBuilder::new(feed.first_checksum(), self.shared.options.server_id),
            v2: flags & HEARTBEAT_V2 != 0,
        };
        *lock(&self.shared.progress) = Progress::default();
        // Something must be sent before the first heartbeat: the name of a file.
        file.open(&mut self.connection);
        let mut bytes = Vec::new();
        loop {
            let next = tokio::time::timeout(self.heartbeat, feed.next(&mut bytes));
            match next.await {
                // Nothing is lost: the feed keeps what it was waiting for.
                Err(_) => file.heartbeat(&mut self.connection),
                Ok(Ok(Fed::File(checksum))) => {
                    if file.position > 4 {
                        file.open(&mut self.connection);
                    }
                    file.builder = EventBuilder::new(checksum, self.shared.options.server_id);
                    file.send(&mut self.connection, &bytes);
                    continue;
                }
                Ok(Ok(Fed::Event)) => {
                    file.send(&mut self.connection, &bytes);
                    lock(&self.shared.progress).bytes += bytes.len() as u64;
                    if self.connection.queued() < SEND_BYTES {
                        continue;
                    }
                }
                Ok(Ok(Fed::End)) => {
                    self.connection.flush().await?;
                    lock(&self.shared.progress).complete = true;
                    return self.beat(&file).await;
                }
                Ok(Err(error)) => {
                    let text = format!("the archive cannot be read: {error}");
                    lock(&self.shared.progress).failure = Some(Arc::new(error));
                    self.connection.flush().await?;
                    return self.connection.send_error(1236, "HY000", &text).await;
                }
            }
            self.connection.flush().await?;
        }
    }

    /// Heartbeats until the replica leaves.
    async fn beat(&mut self, file: &ServedFile) -> Result<(), WireError> {
        loop {
            file.heartbeat(&mut self.connection);
            self.connection.flush().await?;
            let pause = tokio::time::sleep(self.heartbeat);
            tokio::select! {
                () = pause => {}
                ended = self.connection.wait_for_end() => return ended,
            }
        }
    }
}

/// The file that the replica believes to read.
struct ServedFile {
    number: u32,
    /// The position that the replica computes from the events' lengths.
    position: u64,
    builder: EventBuilder,
    v2: bool,
}

impl ServedFile {
    fn name(&self) -> String {
        format!("quillback.{:06}", self.number)
    }

    /// Tells the replica of the next file, as a source does before each.
    fn open(&mut self, connection: &mut ServedConnection) {
        self.number += 1;
        self.position = 4;
        let rotate = self.builder.rotate(&self.name(), self.position, 0);
        connection.queue_event(&rotate);
    }

    fn send(&mut self, connection: &mut ServedConnection, event: &[u8]) {
        self.position += event.len() as u64;
        connection.queue_event(event);
    }

    fn heartbeat(&self, connection: &mut ServedConnection) {
        let event = match u32::try_from(self.position) {
            Ok(position) if !self.v2 => self.builder.heartbeat(&self.name(), position),
            _ => self.builder.heartbeat_v2(&self.name(), self.position),
        };
        connection.queue_event(&event);
    }
}

/// Half the period that the replica asks for, from `@SOURCE_HEARTBEAT_PERIOD = <nanoseconds>`.
fn heartbeat_period(assignments: &str) -> Option<Duration> {
    let value = assignments.split_once("HEARTBEAT_PERIOD")?.1;
    let digits: String = value
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    let period = Duration::from_nanos(digits.parse().ok()?);
    // A period of 0 switches heartbeats off; we keep ours.
    (!period.is_zero()).then(|| (period / 2).max(Duration::from_millis(200)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heartbeat_is_half_of_what_the_replica_waits() {
        let text = "@MASTER_HEARTBEAT_PERIOD = 30000000000, @SOURCE_HEARTBEAT_PERIOD = 30000000000";
        assert_eq!(heartbeat_period(text), Some(Duration::from_secs(15)));
        assert_eq!(heartbeat_period("@SOURCE_HEARTBEAT_PERIOD = 0"), None);
        assert_eq!(heartbeat_period("@SLAVE_UUID = 'x'"), None);
    }
}
