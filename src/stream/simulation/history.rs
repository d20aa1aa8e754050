//! One history: what happens, by chance, and how it ends.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::model::Model;
use super::source::Network;
use super::streamer::Host;
use super::world::{Life, World};
use crate::archive::identity::NewBranch;
use crate::archive::repository::{Fencer, Repository};
use crate::mysql::binlog::Checksum;
use crate::mysql::binlog::testing::Work;
use crate::observe::fail_point::FailPoint;
use crate::storage::{MemoryStorage, Storage};

/// After the last fault everything must be in the archive in so long.
const CONVERGES: Duration = Duration::from_secs(420);

/// A history that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(2_000);

/// Where a compaction may be when its streamer is overtaken.
const COMPACTION: [FailPoint; 3] = [FailPoint::Merged, FailPoint::Compacted, FailPoint::Replaced];

/// What a history was.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) failure: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) fingerprint: String,
    pub(super) transactions: usize,
}

/// Runs the history of a seed.
pub(super) fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut history = History::begin(seed).await;
        let world = Arc::clone(&history.world);
        if tokio::time::timeout(LONGEST, history.live()).await.is_err() {
            world.fail("the history does not come to its end");
        }
        let cluster = history.model.network.cluster();
        Outcome {
            failure: world.failure(),
            fingerprint: world.fingerprint(),
            transactions: cluster.lineage.len(),
            trace: world.trace(),
        }
    })
}

struct History {
    world: Arc<World>,
    model: Arc<Model>,
    hosts: Vec<Host>,
    loses: bool,
    purges: bool,
    reseeds: bool,
    /// When servers that are down come back.
    down: Vec<Option<Instant>>,
}

impl History {
    async fn begin(seed: u64) -> Self {
        let world = Arc::new(World::new(seed));
        let all_none = world.once_in(5);
        let checksums: Vec<Checksum> = (0..world.draw(1..5))
            .map(|_| match all_none || world.once_in(8) {
                true => Checksum::None,
                false => Checksum::Crc32,
            })
            .collect();
        let cluster = Cluster::new(&checksums, world.once_in(3));
        let network = Arc::new(Network::new(Arc::clone(&world), cluster));
        let pages = world.pick(&[2, 5, 20, 1000]);
        let storage = MemoryStorage::new().with_page_size(pages);
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        Repository::init(shared, world.now()).await.expect("made");
        let model = Arc::new(Model::new(network, storage));
        let hosts = (1..=world.draw(1..4)).map(|n| Host::new(n, &model));
        Self {
            hosts: hosts.collect(),
            down: vec![None; checksums.len()],
            loses: world.once_in(3),
            purges: world.once_in(2),
            reseeds: world.once_in(3),
            model,
            world,
        }
    }

    fn cluster(&self) -> std::sync::MutexGuard<'_, Cluster> {
        self.model.network.cluster()
    }

    async fn live(&mut self) {
        let world = Arc::clone(&self.world);
        for _ in 0..world.draw(0..8) {
            self.write();
        }
        self.trouble(world.pick(&[0, 3, 8, 30]), world.pick(&[0, 5, 20, 100]));
        let end = Instant::now() + world.millis(20_000..150_000);
        while Instant::now() < end && world.failure().is_none() {
            world.wait(5..900).await;
            self.act().await;
            self.tend();
        }
        if world.failure().is_none() {
            self.converge().await;
        }
    }

    fn trouble(&self, dumps: u64, calls: u64) {
        let network = &self.model.network;
        *network
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = dumps;
        let mut weather = self
            .model
            .weather
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        weather.wrong_one_in = calls;
    }

    /// Something happens.
    async fn act(&mut self) {
        let world = Arc::clone(&self.world);
        match world.draw(0..100) {
            0..=49 => {
                for _ in 0..world.pick(&[1, 1, 2, 5, 20]) {
                    self.write();
                }
            }
            50..=54 => {
                let server = self.some_server();
                let mut cluster = self.cluster();
                if cluster.servers[server].up {
                    cluster.servers[server].rotate();
                }
                self.model.network.changed.notify_waiters();
            }
            55..=57 => self.purge(),
            58..=60 => self.elect(false),
            61 if self.loses => self.elect(true),
            62..=63 => self.crash_server(),
            64..=66 => {
                let server = self.some_server();
                self.cluster().servers[server].generation += 1;
                world.tell(format_args!("db{}: drops its connections", server + 1));
            }
            67..=69 => self.change_weather(),
            70..=73 => {
                let pause = world.millis(1_000..100_000);
                self.some_host().freeze(pause);
            }
            74..=78 => self.some_host().kill(),
            79..=83 => {
                // The streamer has many steps, and compaction the few at which two can meet.
                let point = match world.once_in(3) {
                    true => world.pick(&COMPACTION),
                    false => world.pick(FailPoint::STREAM),
                };
                let after = world.draw(0..6);
                let becomes = world.pick(&[Life::Dead, Life::Dead, Life::Frozen]);
                self.some_host().ends_at = Some((point, after, becomes));
            }
            84..=85 => self.some_host().stop(),
            86..=88 => {
                let model = Arc::clone(&self.model);
                tokio::spawn(model.read());
            }
            89 => {
                self.model.look().await;
            }
            90 if self.reseeds => self.reseed().await,
            _ => {}
        }
    }

    fn some_server(&self) -> usize {
        self.world.draw(0..self.down.len() as u64) as usize
    }

    fn some_host(&mut self) -> &mut Host {
        let host = self.world.draw(0..self.hosts.len() as u64) as usize;
        &mut self.hosts[host]
    }

    /// A client commits something, if it can.
    fn write(&self) {
        let world = &self.world;
        let mut rows = Vec::new();
        let size = world.pick(&[10, 10, 60, 300, 2_000]);
        for _ in 0..world.draw(1..5) {
            let table = world.pick(&["shop.page", "shop.user", "a`b.c d"]);
            let byte = world.draw(0..256) as u8;
            rows.push((table, vec![byte; world.draw(1..size) as usize]));
        }
        let work = match world.draw(0..12) {
            0 => Work::Statement("shop", format!("ALTER TABLE page {}", world.draw(0..99))),
            1 => Work::XaPrepare(rows),
            2 => Work::Payload(rows, world.once_in(2)),
            3 => Work::Empty,
            _ => Work::Rows(rows),
        };
        let tagged = world.once_in(8);
        let mut cluster = self.cluster();
        if !cluster.is_writable() {
            return;
        }
        // Now and then two share a microsecond.
        cluster.commit(world.micros(), tagged, work);
        let last = cluster.lineage.last().expect("just committed");
        world.tell(format_args!("committed {} (number {})", last.gtid, last.id));
        let primary = cluster.primary;
        for server in 0..cluster.servers.len() {
            if server != primary && cluster.servers[server].up && world.once_in(2) {
                cluster.apply(server, 3, world.micros());
            }
        }
        drop(cluster);
        self.model.network.changed.notify_waiters();
    }

    fn purge(&self) {
        let server = self.some_server();
        let count = self.world.draw(1..4);
        // Without it, a server keeps what the archive lacks.
        let careless = self.purges && self.world.once_in(4);
        let promised = self.model.promise();
        let mut cluster = self.cluster();
        if cluster.reuses_gtids() && !cluster.former.is_empty() {
            return;
        }
        let server = &mut cluster.servers[server];
        let safe = match careless {
            true => count,
            false => server.files_within(&promised.promised).min(count),
        };
        let gone = server.purge(safe);
        if gone > 0 {
            let name = server.name();
            self.world
                .tell(format_args!("{name}: purges {gone} files ({safe} allowed)"));
        }
    }

    fn elect(&mut self, loses: bool) {
        let server = self.some_server();
        let mut cluster = self.cluster();
        // One that gives GTIDs again and does not have what it gave them to before cannot be
        // told from the right one by anything.
        let hides = cluster.reuses_gtids() && cluster.servers[server].is_clone;
        if !cluster.servers[server].up || server == cluster.primary || hides {
            return;
        }
        let lost = cluster.elect(server, loses);
        let name = cluster.servers[server].name();
        self.world.tell(format_args!(
            "{name}: elected, {lost} transactions lost of {}",
            cluster.lineage.len()
        ));
    }

    /// A server that was restored from the archive takes the place of the whole cluster.
    async fn reseed(&self) {
        let storage: Arc<dyn Storage> = Arc::new(self.model.storage.clone());
        let repository = Repository::open(storage).await.expect("an archive");
        let parent = repository.newest_branch().await.expect("a branch");
        let history = repository.history(parent).await.expect("a history");
        let Some(end) = history.end() else {
            return;
        };
        let new = {
            let mut cluster = self.cluster();
            // By its GTIDs it could not be told what the archive has of this lineage.
            if cluster.reuses_gtids() && !cluster.former.is_empty() {
                return;
            }
            let archived = cluster.lineage.iter();
            let archived = archived.take_while(|t| end.contains(&t.gtid)).count();
            let cut = self.world.draw(0..6).min(archived as u64) as usize;
            let fork = cluster.reseed(archived - cut);
            NewBranch {
                parent,
                lost: end.subtract(&fork),
                fork,
                reason: "simulated".to_owned(),
                group: cluster.group(),
                server: Some(cluster.the_primary().uuid),
            }
        };
        self.world
            .tell(format_args!("reseed: {:#} is left behind", new.lost));
        let now = self.world.now();
        let branch = repository.new_branch(new, now).await.expect("begun");
        let by = Fencer {
            source: branch.server.expect("a server"),
            address: "db:3306".to_owned(),
            host: "ops".to_owned(),
            now,
        };
        repository.fence_for(&branch, &by).await.expect("fenced");
    }

    fn crash_server(&mut self) {
        let server = self.some_server();
        let back = Instant::now() + self.world.millis(500..30_000);
        let mut cluster = self.cluster();
        let crashed = &mut cluster.servers[server];
        if !crashed.up {
            return;
        }
        crashed.up = false;
        crashed.generation += 1;
        self.world.tell(format_args!("{}: down", crashed.name()));
        drop(cluster);
        self.down[server] = Some(back);
    }

    fn change_weather(&self) {
        let world = &self.world;
        let span = world.millis(1_000..60_000);
        let mut weather = self
            .model
            .weather
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if world.once_in(2) {
            weather.away_until = Instant::now() + span;
            world.tell(format_args!("the store is away for {span:?}"));
        } else {
            weather.slow_until = Instant::now() + span;
            world.tell(format_args!("the store is slow for {span:?}"));
        }
    }

    /// Servers replicate and come back; hosts start and end what they run.
    fn tend(&mut self) {
        let now = Instant::now();
        let mut cluster = self.model.network.cluster();
        for (server, back) in self.down.iter_mut().enumerate() {
            if back.is_some_and(|back| back <= now) {
                *back = None;
                cluster.servers[server].up = true;
                cluster.servers[server].rotate();
                let name = cluster.servers[server].name();
                self.world.tell(format_args!("{name}: up"));
            }
            if cluster.servers[server].up {
                // A new primary is not long in applying what it has.
                let count = match server == cluster.primary {
                    true => cluster.lineage.len() / 10 + 5,
                    false => self.world.draw(0..6) as usize,
                };
                cluster.apply(server, count, self.world.micros());
            }
        }
        drop(cluster);
        self.model.network.changed.notify_waiters();
        for host in &mut self.hosts {
            host.tend();
        }
    }

    /// The faults cease: soon the archive has all that the cluster has.
    async fn converge(&mut self) {
        let world = Arc::clone(&self.world);
        world.tell("the faults cease");
        self.trouble(0, 0);
        {
            let weather = &mut *self
                .model
                .weather
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *weather = super::store::Weather::fine();
        }
        for host in &mut self.hosts {
            host.thaw();
            host.ends_at = None;
        }
        for back in self.down.iter_mut().flatten() {
            *back = Instant::now();
        }
        let end = Instant::now() + CONVERGES;
        loop {
            world.wait(1_000..8_000).await;
            self.tend();
            let Some(picture) = self.model.look().await else {
                return;
            };
            if world.failure().is_some() || self.model.is_stuck() {
                break;
            }
            if self.model.has_all(&picture) && self.cluster().is_writable() {
                break;
            }
            if Instant::now() >= end {
                return world.fail("the archive does not come to hold what the cluster holds");
            }
        }
        self.part().await;
    }

    /// Everybody is asked to stop, and does.
    async fn part(&mut self) {
        for host in &self.hosts {
            host.stop();
        }
        let end = Instant::now() + Duration::from_secs(200);
        while self.hosts.iter().any(Host::is_running) && self.world.failure().is_none() {
            self.world.wait(500..1_000).await;
            for host in &mut self.hosts {
                if host.is_running() {
                    host.tend();
                }
            }
            if Instant::now() >= end {
                return self
                    .world
                    .fail("a streamer does not stop when it is asked to");
            }
        }
        self.model.look().await;
    }
}
