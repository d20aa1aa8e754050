//! The dump as a semi-synchronous replica: a commit returns only after our acknowledgement.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::mysql::binlog::{EventKind, RawEvent};
use quillback::mysql::semi_sync::SemiSyncStatus;
use quillback::mysql::wire::{BinlogDump, DumpOptions, DumpPacket, WireError};
use quillback::mysql::{ServerUrl, Session};
use quillback_harness::{Server, ServerOptions, until};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{connect, url, url_with};

const LIMIT: Duration = Duration::from_secs(60);
/// How long a commit must hang before it counts as waiting.
const HANGS: Duration = Duration::from_millis(1_500);

async fn source() -> Result<Server> {
    // A timeout that no test lives to see: whoever returns was acknowledged.
    let options = ServerOptions::new()
        .line("plugin_load_add=semisync_source.so")
        .line("rpl_semi_sync_source_enabled=ON")
        .line("rpl_semi_sync_source_timeout=3600000")
        .line("rpl_semi_sync_source_wait_for_replica_count=1")
        .line("rpl_semi_sync_source_wait_no_replica=OFF");
    let server = Server::start_with(options).await?;
    server.exec("CREATE DATABASE d").await?;
    server
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY, pad LONGBLOB)")
        .await?;
    Ok(server)
}

async fn status(server: &Server) -> Result<SemiSyncStatus> {
    let mut session = Session::connect(&url(server)).await?;
    let status = SemiSyncStatus::load(&mut session).await?;
    session.close().await;
    status.context("the plugin is there")
}

/// A dump that keeps the place of what it reads.
struct Replica {
    dump: BinlogDump,
    file: String,
    position: u64,
}

impl Replica {
    async fn start(url: &ServerUrl, server: &Server, semi_sync: bool) -> Result<Self, WireError> {
        let have: GtidSet = server
            .gtid_executed()
            .await
            .expect("the server answers")
            .parse()
            .expect("a set");
        let options = DumpOptions {
            server_id: 0xF000_0001,
            replica_uuid: Uuid::new_v4(),
            heartbeat: Duration::from_millis(300),
            semi_sync,
        };
        Ok(Self {
            dump: BinlogDump::start(connect(url).await?, &options, &have).await?,
            file: String::new(),
            position: 0,
        })
    }

    /// The next event: its kind, and whether the source waits for it.
    async fn next(&mut self) -> Result<(EventKind, bool)> {
        let checksum = self.dump.checksum();
        match tokio::time::timeout(LIMIT, self.dump.next()).await?? {
            DumpPacket::Event { bytes, acknowledge } => {
                let event = RawEvent::new(&bytes)?;
                match event.kind() {
                    EventKind::ROTATE => {
                        let (position, file) = event.rotate_target(checksum)?;
                        (self.file, self.position) = (file, position);
                    }
                    EventKind::FORMAT_DESCRIPTION => {}
                    // Everything before its place was sent, or is ours already.
                    EventKind::HEARTBEAT_V2 => {
                        (self.file, self.position) = event.heartbeat_v2_place(checksum)?;
                    }
                    _ => {
                        event.verify(checksum)?;
                        self.position = u64::from(event.header().log_pos);
                    }
                }
                Ok((event.kind(), acknowledge))
            }
            DumpPacket::End => anyhow::bail!("the server ended the stream"),
        }
    }

    /// Reads what is there, and says that all of it is safe: so the source counts on us from the
    /// next commit on.
    async fn catch_up(&mut self, server: &Server) -> Result<()> {
        while !self.next().await?.0.is_heartbeat() {}
        self.acknowledge().await?;
        until("semi-synchronous replication", LIMIT, async || {
            let status = status(server).await?;
            assert_eq!(status.clients, 1);
            Ok(status.operational.then_some(()))
        })
        .await
    }

    /// Reads on to an event that the source waits for.
    async fn next_wanted(&mut self) -> Result<EventKind> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let (kind, true) = self.next().await? {
                return Ok(kind);
            }
        }
        anyhow::bail!("the source waits for nothing")
    }

    async fn acknowledge(&mut self) -> Result<()> {
        Ok(self.dump.acknowledge(&self.file, self.position).await?)
    }
}

fn commit(server: &Server, id: u32, pad: usize) -> JoinHandle<Result<Duration>> {
    let url = server.url();
    tokio::spawn(async move {
        let mut session = Session::connect(&url.parse()?).await?;
        let began = Instant::now();
        session
            .execute(format!("INSERT INTO d.t VALUES ({id}, REPEAT('x', {pad}))"))
            .await
            .with_context(|| format!("row {id}"))?;
        Ok(began.elapsed())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_the_acknowledgement() -> Result<()> {
    let server = source().await?;
    assert_eq!(status(&server).await?.clients, 0);
    for query in ["", "ssl-mode=required"] {
        let url = url_with(&server.url(), query);
        let mut replica = Replica::start(&url, &server, true).await?;
        replica.catch_up(&server).await.context(query)?;
        let before = status(&server).await?;
        let base = if query.is_empty() { 0 } else { 1_000 };

        // One, and one whose event is larger than a frame of the protocol.
        for (id, pad) in [(1, 10), (2, 36_000_000), (3, 10)] {
            let mut commit = commit(&server, base + id, pad);
            let kind = replica.next_wanted().await?;
            assert_eq!(kind, EventKind::XID);
            assert!(
                tokio::time::timeout(HANGS, &mut commit).await.is_err(),
                "it returned before it was acknowledged"
            );
            replica.acknowledge().await?;
            let took = tokio::time::timeout(LIMIT, commit).await???;
            assert!(took >= HANGS, "{took:?}");
        }

        // Several commit at once. The source marks the last event of each group of commits, may wait
        // for several groups together, and takes one position for all before it.
        let waiting: Vec<_> = (10..18).map(|id| commit(&server, base + id, 10)).collect();
        let mut marked = 0_u64;
        let done = || waiting.iter().filter(|commit| commit.is_finished()).count();
        while done() < waiting.len() {
            let before = done();
            replica.next_wanted().await?;
            marked += 1;
            loop {
                let (kind, wanted) = replica.next().await?;
                marked += u64::from(wanted);
                if kind.is_heartbeat() {
                    break;
                }
            }
            assert_eq!(done(), before, "one returned before it was acknowledged");
            replica.acknowledge().await?;
            until("a commit", LIMIT, async || {
                Ok((done() > before).then_some(()))
            })
            .await?;
            // The others that waited come at the same time.
            tokio::time::sleep(HANGS / 3).await;
        }
        for commit in waiting {
            commit.await??;
        }
        assert!((1..=8).contains(&marked), "{marked}");
        let after = status(&server).await?;
        let acknowledged = after.acknowledged - before.acknowledged;
        assert!((4..=11).contains(&acknowledged), "{after:?}");
        assert_eq!(after.unacknowledged, before.unacknowledged);
        drop(replica);
        // Once the source notices that nobody is left to wait for, it goes on by itself.
        until("the source to miss us", LIMIT, async || {
            let status = status(&server).await?;
            Ok((status.clients == 0 && !status.operational).then_some(()))
        })
        .await?;
        tokio::time::timeout(LIMIT, commit(&server, base + 100, 10)).await???;
    }
    Ok(())
}

/// Gives up reading and acknowledging at every moment, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_a_wait_loses_neither_events_nor_acknowledgements() -> Result<()> {
    let server = source().await?;
    let mut replica = Replica::start(&url(&server), &server, true).await?;
    replica.catch_up(&server).await?;
    let before = status(&server).await?;
    let writer = {
        let url = server.url();
        tokio::spawn(async move {
            let mut session = Session::connect(&url.parse()?).await?;
            for id in 0..200 {
                let pad = 10 + id % 7 * 40_000;
                let sql = format!("INSERT INTO d.t VALUES ({id}, REPEAT('x', {pad}))");
                session.execute(sql).await?;
            }
            anyhow::Ok(())
        })
    };
    let mut seen = 0;
    let mut micros = 1;
    let deadline = Instant::now() + LIMIT;
    while seen < 200 && Instant::now() < deadline {
        micros = micros * 3 % 1_009;
        let limit = Duration::from_micros(micros);
        let Ok(packet) = tokio::time::timeout(limit, replica.dump.next()).await else {
            continue;
        };
        let DumpPacket::Event { bytes, acknowledge } = packet? else {
            anyhow::bail!("the server ended the stream");
        };
        let event = RawEvent::new(&bytes)?;
        replica.position = u64::from(event.header().log_pos);
        if acknowledge {
            seen += 1;
            // Even a future that was polled only once leaves a whole packet behind.
            let sending = replica.dump.acknowledge(&replica.file, replica.position);
            let _ = tokio::time::timeout(Duration::ZERO, sending).await;
        }
    }
    assert_eq!(seen, 200);
    tokio::time::timeout(LIMIT, writer).await???;
    let after = status(&server).await?;
    assert_eq!(after.unacknowledged, before.unacknowledged);
    assert_eq!(after.acknowledged, before.acknowledged + 200);
    Ok(())
}

#[tokio::test]
async fn a_source_that_is_not_set_up_for_it_is_refused() -> Result<()> {
    let server = Server::start().await?;
    let refusal = async || {
        let refused = Replica::start(&url(&server), &server, true).await;
        let error = refused.err().context("it was taken")?;
        assert_eq!(error.class(), Class::Refused, "{error}");
        anyhow::Ok(error.to_string())
    };
    let text = refusal().await?;
    assert!(
        text.contains("INSTALL PLUGIN rpl_semi_sync_source"),
        "{text}"
    );
    let mut session = Session::connect(&url(&server)).await?;
    assert_eq!(SemiSyncStatus::load(&mut session).await?, None);
    session.close().await;

    server
        .exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
        .await?;
    let text = refusal().await?;
    assert!(
        text.contains("SET PERSIST rpl_semi_sync_source_enabled = ON"),
        "{text}"
    );
    assert!(!status(&server).await?.enabled);

    // An ordinary dump of a source that has it on is not asked for anything.
    server
        .exec("SET GLOBAL rpl_semi_sync_source_enabled = ON")
        .await?;
    let mut replica = Replica::start(&url(&server), &server, false).await?;
    server.exec("CREATE DATABASE d").await?;
    loop {
        let (kind, wanted) = replica.next().await?;
        assert!(!wanted);
        if kind == EventKind::QUERY {
            break;
        }
    }
    let error = replica.dump.acknowledge("binlog.000001", 4).await;
    assert!(
        matches!(error, Err(WireError::SemiSync { .. })),
        "{error:?}"
    );
    assert_eq!(status(&server).await?.clients, 0);
    Ok(())
}
