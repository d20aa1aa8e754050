//! The cluster as a streamer meets it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::cluster::{Cluster, Server};
use super::world::{Gate, Life, World};
use crate::gtid::GtidSet;
use crate::mysql::binlog::{Checksum, EventBuilder};
use crate::mysql::facts::Pending;
use crate::mysql::wire::{DumpPacket, WireError};
use crate::stream::StreamError;
use crate::stream::cutter::SourcePosition;
use crate::stream::upstream::{
    Answer, Dump, DumpWish, History, Mark, Source, SourceInfo, Upstream,
};

/// How often a dump says that there is nothing new.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The cluster and the way to it.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) world: Arc<World>,
    cluster: Mutex<Cluster>,
    /// Something was written to a binlog.
    pub(super) changed: Notify,
    /// Under which UUIDs dumps are registered, and until when if they have ended.
    registered: Mutex<BTreeMap<Uuid, Option<Instant>>>,
    /// One in so many dumps breaks, one hangs; 0: none.
    pub(super) trouble: Mutex<u64>,
}

impl Network {
    pub(super) fn new(world: Arc<World>, cluster: Cluster) -> Self {
        Self {
            world,
            cluster: Mutex::new(cluster),
            changed: Notify::new(),
            registered: Mutex::default(),
            trouble: Mutex::new(0),
        }
    }

    pub(super) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registered(&self) -> MutexGuard<'_, BTreeMap<Uuid, Option<Instant>>> {
        self.registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> u64 {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A streamer's way to the servers.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) network: Arc<Network>,
    pub(super) gate: Gate,
}

impl Servers {
    fn connect(&self, server: usize, until: Option<GtidSet>) -> Box<dyn Source> {
        let cluster = self.network.cluster();
        let found = &cluster.servers[server];
        Box::new(Connection {
            info: SourceInfo {
                name: found.name(),
                uuid: found.uuid,
                group: cluster.group(),
                version: "8.4.6".to_owned(),
                topology: "simulated".to_owned(),
                may_lag: true,
                warnings: Vec::new(),
                until,
            },
            server,
            generation: found.generation,
            network: Arc::clone(&self.network),
            gate: self.gate.clone(),
        })
    }
}

fn closed(address: &str) -> StreamError {
    WireError::Closed {
        address: address.to_owned(),
    }
    .into()
}

fn nobody() -> StreamError {
    StreamError::NoPrimary {
        reason: "the primary is down".to_owned(),
    }
}

#[async_trait::async_trait]
impl Upstream for Servers {
    async fn find(&mut self) -> Result<Box<dyn Source>, StreamError> {
        self.gate.pass().await;
        self.network.world.wait(1..80).await;
        let primary = {
            let cluster = self.network.cluster();
            cluster.the_primary().up.then_some(cluster.primary)
        };
        self.network.world.wait(1..80).await;
        self.gate.pass().await;
        primary
            .map(|server| self.connect(server, None))
            .ok_or_else(nobody)
    }

    async fn find_that(
        &mut self,
        wanted: &(dyn for<'i> Fn(&'i SourceInfo) -> bool + Sync),
    ) -> Result<Option<Box<dyn Source>>, StreamError> {
        // There is one cluster.
        let found = self.find().await?;
        Ok(wanted(found.info()).then_some(found))
    }

    async fn find_holder(
        &mut self,
        missing: &GtidSet,
        held: &GtidSet,
        source: &mut dyn Source,
    ) -> Result<Option<Box<dyn Source>>, StreamError> {
        let known = source.history().await?.executed;
        self.gate.pass().await;
        self.network.world.wait(1..80).await;
        let holder = {
            let cluster = self.network.cluster();
            cluster.servers.iter().position(|server| {
                server.up
                    && missing.is_subset(&server.executed)
                    && server.purged.is_subset(held)
                    && server.executed.is_subset(&known)
            })
        };
        self.gate.pass().await;
        Ok(holder.map(|server| self.connect(server, Some(missing.clone()))))
    }

    async fn is_registered(&mut self, replica_uuid: Uuid) -> Result<bool, StreamError> {
        self.gate.pass().await;
        self.network.world.wait(1..80).await;
        let any = self.network.cluster().servers.iter().any(|s| s.up);
        let registered = match self.network.registered().get(&replica_uuid) {
            None => false,
            Some(until) => until.is_none_or(|until| until > Instant::now()),
        };
        self.gate.pass().await;
        any.then_some(registered).ok_or_else(nobody)
    }
}

/// A connection for questions.
#[derive(Debug)]
struct Connection {
    info: SourceInfo,
    server: usize,
    generation: u64,
    network: Arc<Network>,
    gate: Gate,
}

impl Connection {
    /// Asks the server, if it is still there.
    async fn ask_server<T>(
        &self,
        question: impl Fn(&Server) -> T + Send,
    ) -> Result<T, StreamError> {
        self.gate.pass().await;
        self.network.world.wait(1..40).await;
        let answer = {
            let cluster = self.network.cluster();
            let server = &cluster.servers[self.server];
            (server.up && server.generation == self.generation).then(|| question(server))
        };
        self.network.world.wait(1..40).await;
        self.gate.pass().await;
        answer.ok_or_else(|| closed(&self.info.name))
    }
}

#[async_trait::async_trait]
impl Source for Connection {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    async fn history(&mut self) -> Result<History, StreamError> {
        let queued = {
            let cluster = self.network.cluster();
            let all = &cluster.lineage[cluster.servers[self.server].applied..];
            all.iter().map(|t| t.gtid.clone()).collect()
        };
        let executed = self.ask_server(|server| server.executed.clone()).await?;
        let purged = self.ask_server(|server| server.purged.clone()).await?;
        Ok(History {
            pending: Pending {
                queued,
                ..Pending::default()
            },
            executed,
            purged,
        })
    }

    async fn dump(&mut self, wish: DumpWish, have: &GtidSet) -> Result<Box<dyn Dump>, StreamError> {
        self.ask_server(|_| ()).await?;
        let refused = |message: &str| {
            StreamError::from(WireError::Server {
                address: self.info.name.clone(),
                code: 1236,
                state: "HY000".to_owned(),
                message: message.to_owned(),
            })
        };
        let world = &self.network.world;
        let mut cluster = self.network.cluster();
        let id = cluster.fresh_dump();
        let server = &mut cluster.servers[self.server];
        if !server.up || server.generation != self.generation {
            return Err(closed(&self.info.name));
        }
        if !server.purged.is_subset(have) {
            return Err(refused("purged required binary logs"));
        }
        let file = server.files.iter().rposition(|f| f.before.is_subset(have));
        let number = server.files[file.unwrap_or(0)].number;
        server.dumps.insert(id, number);
        self.network.registered().insert(wish.replica_uuid, None);
        let trouble = self.network.trouble();
        let breaks = world.once_in(trouble).then(|| world.draw(1..150));
        let hangs = world.once_in(trouble * 3).then(|| world.draw(1..150));
        Ok(Box::new(Stream {
            checksum: server.checksum(),
            network: Arc::clone(&self.network),
            gate: self.gate.clone(),
            info: self.info.clone(),
            server: self.server,
            generation: self.generation,
            id,
            wish,
            have: have.clone(),
            number,
            begun: false,
            next: 0,
            at: 4,
            waiting: VecDeque::new(),
            ready: Instant::now(),
            sent: Instant::now(),
            taken: 0,
            breaks,
            hangs,
        }))
    }

    async fn ask(&mut self, _purge: bool) -> Result<Answer, StreamError> {
        let world = Arc::clone(&self.network.world);
        let time = self.ask_server(|_| world.now()).await?;
        world.wait(1..20).await;
        let end = self.ask_server(Server::position).await?;
        let server = self.server;
        let until = self.info.until.is_some();
        self.ask_server(|_| ()).await?;
        let is_primary = self.network.cluster().primary == server;
        Ok(Answer {
            unfit: (!is_primary && !until).then(|| format!("{} is a secondary", self.info.name)),
            mark: (!until).then_some(Mark {
                end,
                complete_to: Some(time),
                executed: None,
            }),
            warning: None,
            purge: None,
        })
    }
}

/// A running dump.
#[derive(Debug)]
struct Stream {
    checksum: Checksum,
    network: Arc<Network>,
    gate: Gate,
    info: SourceInfo,
    server: usize,
    generation: u64,
    id: u64,
    wish: DumpWish,
    have: GtidSet,
    /// The file that is read, and whether its head was sent.
    number: u64,
    begun: bool,
    /// Its next transaction.
    next: usize,
    /// The position there.
    at: u64,
    waiting: VecDeque<DumpPacket>,
    /// Nothing comes sooner.
    ready: Instant,
    sent: Instant,
    taken: u64,
    breaks: Option<u64>,
    hangs: Option<u64>,
}

impl Stream {
    fn push(&mut self, bytes: Bytes, acknowledge: bool) {
        let acknowledge = acknowledge && self.wish.semi_sync;
        self.waiting
            .push_back(DumpPacket::Event { bytes, acknowledge });
    }

    /// Reads on in the binlog.
    fn fill(&mut self) -> Result<(), StreamError> {
        let network = Arc::clone(&self.network);
        let mut cluster = network.cluster();
        let server = &mut cluster.servers[self.server];
        if !server.up || server.generation != self.generation {
            return Err(closed(&self.info.name));
        }
        while self.waiting.is_empty() {
            server.dumps.insert(self.id, self.number);
            let Some(file) = server.files.iter().find(|f| f.number == self.number) else {
                return Err(closed(&self.info.name));
            };
            if !self.begun {
                let rotate = EventBuilder::new(self.checksum, 1).rotate(&file.name(), 4, 0);
                self.push(Bytes::from(rotate), false);
                for event in &file.head {
                    self.push(event.clone(), false);
                }
                (self.begun, self.next, self.at) = (true, 0, file.head_end());
            } else if let Some(entry) = file.entries.get(self.next) {
                self.next += 1;
                self.at = entry.end;
                if self.have.contains(&entry.transaction.gtid) {
                    continue;
                }
                let last = entry.events.len() - 1;
                for (number, event) in entry.events.iter().enumerate() {
                    self.push(event.clone(), number == last);
                }
            } else if let Some(rotate) = &file.last {
                self.push(rotate.clone(), false);
                self.number += 1;
                self.begun = false;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<DumpPacket>, StreamError> {
        if self.breaks.is_some_and(|at| self.taken >= at) {
            return Err(closed(&self.info.name));
        }
        if self.ready > Instant::now() || self.is_hung() {
            return Ok(None);
        }
        self.fill()?;
        let packet = self.waiting.pop_front();
        if packet.is_some() {
            self.taken += 1;
            self.sent = Instant::now();
        }
        Ok(packet)
    }

    fn is_hung(&self) -> bool {
        self.hangs.is_some_and(|at| self.taken >= at)
    }
}

#[async_trait::async_trait]
impl Dump for Stream {
    fn checksum(&self) -> Checksum {
        self.checksum
    }

    async fn next(&mut self) -> Result<DumpPacket, StreamError> {
        loop {
            self.gate.pass().await;
            if let Some(packet) = self.step()? {
                return Ok(packet);
            }
            if self.is_hung() {
                std::future::pending::<()>().await;
            }
            if self.ready > Instant::now() {
                tokio::time::sleep_until(self.ready).await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.network.changed.notified() => {
                    self.ready = Instant::now() + self.network.world.millis(0..50);
                }
                () = tokio::time::sleep_until(self.sent + HEARTBEAT) => {
                    let builder = EventBuilder::new(self.checksum, 1);
                    let name = format!("binlog.{:06}", self.number);
                    let beat = builder.heartbeat(&name, self.at as u32);
                    self.push(Bytes::from(beat), false);
                }
            }
        }
    }

    fn received(&mut self) -> Result<Option<DumpPacket>, StreamError> {
        if self.gate.life() != Life::Running || self.network.world.once_in(6) {
            return Ok(None);
        }
        self.step()
    }

    async fn acknowledge(&mut self, at: &SourcePosition) -> Result<(), StreamError> {
        self.gate.pass().await;
        let mut cluster = self.network.cluster();
        let server = &cluster.servers[self.server];
        if !server.up || server.generation != self.generation {
            return Err(closed(&self.info.name));
        }
        cluster.acknowledge(self.server, at);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut cluster = self.network.cluster();
        cluster.servers[self.server].dumps.remove(&self.id);
        drop(cluster);
        // The server notices after a while.
        let until = Instant::now() + self.network.world.millis(0..4_000);
        let mut registered = self.network.registered();
        registered.insert(self.wish.replica_uuid, Some(until));
    }
}
