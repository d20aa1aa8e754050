//! What is said to one connection: the answers to what an IO thread asks, then the dump.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Shared, lock};
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Checksum, EventBuilder};
use crate::mysql::wire::WireError;
use crate::mysql::wire::serve::{Command, Door, ServedConnection};
use crate::restore::feed::{Fed, Feed};

/// Events are sent when so many bytes wait.
const SEND_BYTES: usize = 1 << 20;
/// A client that has not logged in by then is sent away.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The replica waits this long for a sign of life unless it says otherwise.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
/// `BINLOG_DUMP` flag of the replica: it understands heartbeats of the second version.
const HEARTBEAT_V2: u16 = 2;

/// Lets a client in and answers it until it goes or the run ends.
pub(super) async fn converse(socket: TcpStream, number: u32, shared: Arc<Shared>) {
    let cancel = shared.cancel.clone();
    let conversation = async {
        let options = &shared.options;
        let door = Door {
            version: &options.version,
            user: &options.user,
            password: &options.password,
            identity: options.identity.as_ref(),
        };
        let accepting = ServedConnection::accept(socket, number, &door);
        let accepted = match tokio::time::timeout(LOGIN_TIMEOUT, accepting).await {
            Ok(accepted) => accepted,
            Err(_) => Err(WireError::Silent {
                address: "a client".to_owned(),
                seconds: LOGIN_TIMEOUT.as_secs(),
            }),
        };
        let connection = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                lock(&shared.progress).refused = Some(crate::error::with_causes(&error));
                return Err(error);
            }
        };
        lock(&shared.progress).connections += 1;
        Conversation {
            connection,
            heartbeat: DEFAULT_HEARTBEAT,
            checksum: None,
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
    /// What we said of the checksums; it holds up to the first FORMAT_DESCRIPTION.
    checksum: Option<Checksum>,
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
                } => {
                    let ours = self.shared.cancel.child_token();
                    std::mem::replace(&mut *lock(&self.shared.newest), ours.clone()).cancel();
                    return tokio::select! {
                        ended = self.dump(flags, server_id, &set) => ended,
                        () = ours.cancelled() => Ok(()),
                    };
                }
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
            match *self.checksum.insert(self.first_checksum()) {
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
            builder: EventBuilder::new(
                self.checksum.unwrap_or(feed.first_checksum()),
                self.shared.options.server_id,
            ),
            v2: flags & HEARTBEAT_V2 != 0,
        };
        {
            let mut progress = lock(&self.shared.progress);
            (progress.bytes, progress.complete) = (0, false);
        }
        // Something must be sent before the first heartbeat: the name of a file.
        file.open(&mut self.connection).await?;
        let mut held = self.shared.hold.clone();
        let mut bytes = Vec::new();
        let mut counted = 0;
        loop {
            if *held.borrow_and_update() && feed.is_between() {
                self.connection.flush().await?;
                lock(&self.shared.progress).bytes += std::mem::take(&mut counted);
                let changed = tokio::time::timeout(self.heartbeat, held.changed());
                if changed.await.is_err() {
                    file.heartbeat(&mut self.connection).await?;
                    self.connection.flush().await?;
                }
                continue;
            }
            let next = tokio::time::timeout(self.heartbeat, feed.next(&mut bytes));
            match next.await {
                // Nothing is lost: the feed keeps what it was waiting for.
                Err(_) => file.heartbeat(&mut self.connection).await?,
                Ok(Ok(Fed::File(checksum))) => {
                    if file.position > 4 {
                        file.open(&mut self.connection).await?;
                    }
                    file.builder = EventBuilder::new(checksum, self.shared.options.server_id);
                    file.send(&mut self.connection, &bytes).await?;
                    continue;
                }
                Ok(Ok(Fed::Event)) => {
                    file.send(&mut self.connection, &bytes).await?;
                    counted += bytes.len() as u64;
                    if bytes.len() > SEND_BYTES {
                        // One huge event must not keep its memory for the rest of the restore.
                        bytes = Vec::new();
                    }
                    if self.connection.queued() < SEND_BYTES {
                        continue;
                    }
                }
                Ok(Ok(Fed::End)) => {
                    self.connection.flush().await?;
                    self.sent_all(counted);
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
            lock(&self.shared.progress).bytes += std::mem::take(&mut counted);
        }
    }

    fn sent_all(&self, bytes: u64) {
        let mut progress = lock(&self.shared.progress);
        progress.bytes += bytes;
        progress.complete = true;
    }

    /// Heartbeats until the replica leaves.
    async fn beat(&mut self, file: &ServedFile) -> Result<(), WireError> {
        loop {
            file.heartbeat(&mut self.connection).await?;
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
    async fn open(&mut self, connection: &mut ServedConnection) -> Result<(), WireError> {
        self.number += 1;
        self.position = 4;
        let rotate = self.builder.rotate(&self.name(), self.position, 0);
        connection.send_event(&rotate).await
    }

    async fn send(
        &mut self,
        connection: &mut ServedConnection,
        event: &[u8],
    ) -> Result<(), WireError> {
        self.position += event.len() as u64;
        connection.send_event(event).await
    }

    async fn heartbeat(&self, connection: &mut ServedConnection) -> Result<(), WireError> {
        let event = match u32::try_from(self.position) {
            Ok(position) if !self.v2 => self.builder.heartbeat(&self.name(), position),
            _ => self.builder.heartbeat_v2(&self.name(), self.position),
        };
        connection.send_event(&event).await
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
