//! Binlog dumps: heartbeats, events larger than a packet, and servers that go away.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::error::{Class, Classified as _};
use quillback::gtid::GtidSet;
use quillback::mysql::binlog::{EventKind, RawEvent};
use quillback::mysql::wire::{BinlogDump, DumpOptions, DumpPacket, WireError};
use quillback_harness::{Server, ServerOptions};
use uuid::Uuid;

use crate::support::{connect, url};

const LIMIT: Duration = Duration::from_secs(60);

async fn dump(server: &Server, have: &GtidSet) -> Result<BinlogDump, WireError> {
    let options = DumpOptions {
        server_id: 0xF000_0001,
        replica_uuid: Uuid::new_v4(),
        heartbeat: Duration::from_millis(200),
        semi_sync: false,
    };
    BinlogDump::start(connect(&url(server)).await?, &options, have).await
}

/// The kind and the length of the next event.
async fn next(dump: &mut BinlogDump) -> Result<(EventKind, usize)> {
    let checksum = dump.checksum();
    match tokio::time::timeout(LIMIT, dump.next()).await?? {
        DumpPacket::Event { bytes, .. } => {
            let event = RawEvent::new(&bytes)?;
            if event.kind() != EventKind::FORMAT_DESCRIPTION {
                event.verify(checksum)?;
            }
            Ok((event.kind(), bytes.len()))
        }
        DumpPacket::End => anyhow::bail!("the server ended the stream"),
    }
}

/// Reads on to an event of this kind and gives its length.
async fn next_of(dump: &mut BinlogDump, kind: EventKind) -> Result<usize> {
    loop {
        let (found, length) = next(dump).await?;
        if found == kind {
            return Ok(length);
        }
    }
}

/// Reads on to a heartbeat.
async fn heartbeat(dump: &mut BinlogDump) -> Result<()> {
    while !next(dump).await?.0.is_heartbeat() {}
    Ok(())
}

async fn executed(server: &Server) -> Result<GtidSet> {
    Ok(server.gtid_executed().await?.parse()?)
}

#[tokio::test]
async fn an_idle_server_gives_signs_of_life() -> Result<()> {
    let server = Server::start().await?;
    server.exec("CREATE DATABASE d").await?;
    let have = executed(&server).await?;
    let mut dump = dump(&server, &have).await?;
    assert_eq!(next(&mut dump).await?.0, EventKind::ROTATE);
    assert_eq!(next(&mut dump).await?.0, EventKind::FORMAT_DESCRIPTION);
    for _ in 0..3 {
        heartbeat(&mut dump).await?;
    }
    // It names its place in full.
    let (file, position, ..): (String, u64, String, String, String) =
        server.one("SHOW BINARY LOG STATUS").await?;
    loop {
        let DumpPacket::Event { bytes, .. } = dump.next().await? else {
            anyhow::bail!("the server ended the stream")
        };
        let event = RawEvent::new(&bytes)?;
        if event.kind().is_heartbeat() {
            let place = event.heartbeat_v2_place(dump.checksum())?;
            assert_eq!(place, (file, position));
            break;
        }
    }
    // What is there already does not come again; what is new comes.
    server.exec("CREATE DATABASE e").await?;
    loop {
        match next(&mut dump).await?.0 {
            kind if kind.is_heartbeat() => {}
            kind => {
                assert!(kind.is_gtid(), "{kind}");
                break;
            }
        }
    }
    assert_eq!(next(&mut dump).await?.0, EventKind::QUERY);
    // Whoever comes anew is told where what was left out ends, before it goes on there.
    let mut dump = self::dump(&server, &have).await?;
    let mut told = None;
    loop {
        let DumpPacket::Event { bytes, .. } = dump.next().await? else {
            anyhow::bail!("the server ended the stream")
        };
        let event = RawEvent::new(&bytes)?;
        if event.kind().is_heartbeat() {
            told = Some(event.heartbeat_v2_place(dump.checksum())?.1);
        } else if event.kind().is_gtid() {
            let header = event.header();
            let start = u64::from(header.log_pos) - u64::from(header.length);
            assert_eq!(told, Some(start));
            return Ok(());
        }
    }
}

#[tokio::test]
async fn events_larger_than_a_packet_are_whole() -> Result<()> {
    let server = Server::start_with(ServerOptions::new().line("max_allowed_packet=1G")).await?;
    server.exec("CREATE DATABASE d").await?;
    server
        .exec("CREATE TABLE d.t (id INT PRIMARY KEY, pad LONGBLOB)")
        .await?;
    let have = executed(&server).await?;
    let sizes = [0xFF_FFFF_usize - 100, 0xFF_FFFF, 0x100_0000, 36_000_000];
    for (id, size) in sizes.iter().enumerate() {
        server
            .exec(&format!(
                "INSERT INTO d.t VALUES ({id}, REPEAT('x', {size}))"
            ))
            .await?;
    }
    let mut dump = dump(&server, &have).await?;
    for size in sizes {
        let length = next_of(&mut dump, EventKind::WRITE_ROWS).await?;
        assert!((size..size + 200).contains(&length), "{size}: {length}");
        next_of(&mut dump, EventKind::XID).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_goes_away_is_noticed() -> Result<()> {
    let server = Server::start().await?;
    server.exec("CREATE DATABASE d").await?;
    for cleanly in [true, false] {
        let mut dump = dump(&server, &GtidSet::new()).await?;
        heartbeat(&mut dump).await?;
        if cleanly {
            server.stop().await?;
        } else {
            server.kill9().await?;
        }
        let outcome = loop {
            match tokio::time::timeout(LIMIT, dump.next()).await? {
                Ok(DumpPacket::Event { .. }) => {}
                other => break other,
            }
        };
        match outcome {
            Ok(DumpPacket::End) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.class(), Class::Transient, "{error}"),
        }
        server.start_again().await?;
        let mut again = self::dump(&server, &GtidSet::new()).await?;
        next_of(&mut again, EventKind::QUERY).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_was_purged_is_refused() -> Result<()> {
    let server = Server::start().await?;
    server.exec("CREATE DATABASE d").await?;
    server.exec("FLUSH BINARY LOGS").await?;
    let file: String = server
        .one::<(String, u64, String, String, String)>("SHOW BINARY LOG STATUS")
        .await?
        .0;
    server
        .exec(&format!("PURGE BINARY LOGS TO '{file}'"))
        .await?;
    let mut dump = dump(&server, &GtidSet::new()).await?;
    let error = loop {
        match tokio::time::timeout(LIMIT, dump.next()).await? {
            Ok(DumpPacket::Event { .. }) => {}
            Ok(DumpPacket::End) => panic!("the stream just ended"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.server_code(), Some(1236), "{error}");
    // A second dump of the same replica ends the first one.
    let options = DumpOptions {
        server_id: 0xF000_0002,
        replica_uuid: Uuid::new_v4(),
        heartbeat: Duration::from_millis(200),
        semi_sync: false,
    };
    let have = executed(&server).await?;
    let mut first = BinlogDump::start(connect(&url(&server)).await?, &options, &have).await?;
    heartbeat(&mut first).await?;
    let mut second = BinlogDump::start(connect(&url(&server)).await?, &options, &have).await?;
    heartbeat(&mut second).await?;
    let error = loop {
        match tokio::time::timeout(LIMIT, first.next()).await? {
            Ok(DumpPacket::Event { .. }) => {}
            Ok(DumpPacket::End) => break None,
            Err(error) => break Some(error),
        }
    };
    let text = error.context("the first one just ended")?.to_string();
    assert!(text.contains("same server_uuid"), "{text}");
    Ok(())
}
