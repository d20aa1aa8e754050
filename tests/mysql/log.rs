//! A server's whole binlog as the dump gives it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quillback::gtid::{Gtid, GtidSet};
use quillback::mysql::binlog::{
    Checksum, EventKind, GtidEvent, MAGIC, Piece, RawEvent, Splitter, Summary, SummaryBuilder,
};
use quillback::mysql::wire::{BinlogDump, DumpOptions, DumpPacket};
use quillback_harness::Server;
use uuid::Uuid;

use crate::support::{connect, url};

const LIMIT: Duration = Duration::from_secs(60);

/// What was read.
#[derive(Default)]
pub(crate) struct Log {
    /// The files, put together from the events.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The transactions in their order.
    pub(crate) transactions: Vec<Transaction>,
    /// How often each kind of event came.
    pub(crate) kinds: BTreeMap<EventKind, usize>,
}

/// One transaction.
pub(crate) struct Transaction {
    pub(crate) event: GtidEvent,
    pub(crate) server_id: u32,
    pub(crate) summary: Summary,
}

impl Log {
    /// Reads all that a server has; every checksum and every border of a transaction is checked.
    pub(crate) async fn of(server: &Server) -> Result<Self> {
        let executed: GtidSet = server.gtid_executed().await?.parse()?;
        let purged: String = server
            .one("SELECT REPLACE(@@GLOBAL.gtid_purged, '\\n', '')")
            .await?;
        let purged: GtidSet = purged.parse()?;
        let options = DumpOptions {
            server_id: 0xF000_0001,
            replica_uuid: Uuid::new_v4(),
            heartbeat: Duration::from_millis(500),
            semi_sync: false,
        };
        let mut dump = BinlogDump::start(connect(&url(server)).await?, &options, &purged).await?;
        let mut log = Self::default();
        let mut splitter = Splitter::default();
        let mut open: Option<(GtidEvent, u32, SummaryBuilder)> = None;
        let mut file = String::new();
        loop {
            let DumpPacket::Event { bytes, .. } =
                tokio::time::timeout(LIMIT, dump.next()).await??
            else {
                anyhow::bail!("the server ended the stream");
            };
            let event = RawEvent::new(&bytes)?;
            let kind = event.kind();
            let checksum = match kind {
                // It has a checksum always.
                EventKind::FORMAT_DESCRIPTION => Checksum::Crc32,
                _ => dump.checksum(),
            };
            event.verify(checksum)?;
            *log.kinds.entry(kind).or_default() += 1;
            if kind.is_heartbeat() {
                if log.gtids().union(&purged).is_superset(&executed) {
                    return Ok(log);
                }
                continue;
            }
            if kind == EventKind::ROTATE && event.header().timestamp == 0 {
                file = event.rotate_target(checksum)?.1;
                log.files.entry(file.clone()).or_insert(MAGIC.to_vec());
                continue;
            }
            let written = log.files.get_mut(&file).context("no file was named")?;
            written.extend_from_slice(&bytes);
            let piece = splitter.take(&event, checksum)?;
            if let Piece::First(first) = &piece {
                let summary = SummaryBuilder::begin(first);
                open = Some((first.clone(), event.header().server_id, summary));
            }
            if let Some((_, _, summary)) = &mut open {
                summary.take(&event, checksum)?;
            }
            if piece == Piece::Last {
                let (event, server_id, summary) = open.take().context("no first event")?;
                log.transactions.push(Transaction {
                    event,
                    server_id,
                    summary: summary.finish(),
                });
            }
        }
    }

    /// The GTIDs of all transactions.
    pub(crate) fn gtids(&self) -> GtidSet {
        let mut set = GtidSet::new();
        for transaction in &self.transactions {
            set.insert(&transaction.event.gtid);
        }
        set
    }

    /// The transaction with this GTID.
    pub(crate) fn transaction(&self, gtid: &Gtid) -> Option<&Transaction> {
        self.transactions.iter().find(|one| one.event.gtid == *gtid)
    }
}

/// Writes of every kind that a binlog can hold.
pub(crate) const WRITES: [&str; 40] = [
    "CREATE DATABASE d",
    "CREATE TABLE d.t (id INT PRIMARY KEY, pad LONGBLOB, j JSON)",
    "CREATE TABLE d.u (id INT PRIMARY KEY, at TIMESTAMP(6) NULL)",
    "INSERT INTO d.t VALUES (1, 'a', NULL), (2, 'b', '{\"a\": 1}')",
    "BEGIN",
    "UPDATE d.t SET pad = REPEAT('p', 5000) WHERE id = 1",
    "SAVEPOINT s",
    "INSERT INTO d.u VALUES (1, NOW(6))",
    "ROLLBACK TO s",
    "INSERT INTO d.u VALUES (2, NOW(6))",
    "DELETE FROM d.t WHERE id = 2",
    "COMMIT",
    // Two phases, committed and rolled back.
    "XA START 'two'",
    "INSERT INTO d.u VALUES (3, NULL)",
    "XA END 'two'",
    "XA PREPARE 'two'",
    "XA COMMIT 'two'",
    "XA START 'back', 'b', 7",
    "INSERT INTO d.u VALUES (4, NULL)",
    "XA END 'back', 'b', 7",
    "XA PREPARE 'back', 'b', 7",
    "XA ROLLBACK 'back', 'b', 7",
    // One phase.
    "XA START 'one'",
    "INSERT INTO d.u VALUES (5, NULL)",
    "XA END 'one'",
    "XA COMMIT 'one' ONE PHASE",
    "FLUSH BINARY LOGS",
    "SET GTID_NEXT = 'AUTOMATIC:blue'",
    "INSERT INTO d.t VALUES (3, 'tagged', NULL)",
    "CREATE TABLE d.blue (id INT PRIMARY KEY)",
    "SET GTID_NEXT = 'AUTOMATIC'",
    "CREATE USER u@localhost IDENTIFIED BY 'not-a-secret-0'",
    "DROP TABLE d.blue",
    "CREATE TABLE d.copy (PRIMARY KEY (id)) AS SELECT id FROM d.u",
    "UPDATE d.t SET j = JSON_SET('{\"a\": 1}', '$.b', REPEAT('x', 300))",
    // One event of more than a frame of the protocol.
    "INSERT INTO d.t VALUES (4, REPEAT('x', 20000000), NULL)",
    "TRUNCATE TABLE d.copy",
    "DROP USER u@localhost",
    "ALTER TABLE d.u ADD COLUMN more INT",
    "INSERT INTO d.u VALUES (9, NULL, 9)",
];

/// Runs [`WRITES`] in one session.
pub(crate) async fn write_all(server: &Server) -> Result<()> {
    use mysql_async::prelude::Queryable as _;
    let mut conn = server.conn().await?;
    for statement in WRITES {
        conn.query_drop(statement)
            .await
            .with_context(|| statement.to_owned())?;
    }
    conn.disconnect().await?;
    Ok(())
}
