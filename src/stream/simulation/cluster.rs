//! The servers: binlogs with real bytes, replication, elections with and without loss.
//!
//! The lineage is the truth that everything is held against: the transactions that the cluster
//! has committed and not lost, in order. Each server has a beginning of it in a binlog of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::gtid::{Gtid, GtidSet, Tag, Tsid};
use crate::mysql::binlog::testing::{SourceLog, Work};
use crate::mysql::binlog::{Checksum, RawEvent};
use crate::stream::cutter::SourcePosition;

/// A transaction of the cluster.
#[derive(Debug)]
pub(super) struct Transaction {
    /// A number that no other has, whatever its GTID.
    pub(super) id: usize,
    pub(super) gtid: Gtid,
    /// When it was committed where it began.
    pub(super) time: u64,
    server_id: u32,
    work: Work,
}

/// A transaction in a server's binlog.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) transaction: Arc<Transaction>,
    pub(super) events: Vec<Bytes>,
    /// The position behind it.
    pub(super) end: u64,
}

/// A binlog file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) number: u64,
    /// FORMAT_DESCRIPTION and PREVIOUS_GTIDS.
    pub(super) head: Vec<Bytes>,
    pub(super) before: GtidSet,
    pub(super) entries: Vec<Entry>,
    /// The ROTATE at its end.
    pub(super) last: Option<Bytes>,
}

impl File {
    pub(super) fn name(&self) -> String {
        format!("binlog.{:06}", self.number)
    }

    pub(super) fn end(&self) -> u64 {
        let last = self.entries.last().map(|entry| entry.end);
        last.unwrap_or_else(|| self.head_end())
    }

    pub(super) fn head_end(&self) -> u64 {
        end_of(self.head.last())
    }
}

fn end_of(event: Option<&Bytes>) -> u64 {
    let event = event.map(|bytes| RawEvent::new(bytes).expect("an event"));
    event.map_or(4, |event| event.header().log_pos.into())
}

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) number: u32,
    pub(super) uuid: Uuid,
    log: SourceLog,
    pub(super) files: Vec<File>,
    pub(super) executed: GtidSet,
    pub(super) purged: GtidSet,
    /// How much of the lineage it has.
    pub(super) applied: usize,
    pub(super) up: bool,
    /// Its binlog does not go back to before the last loss.
    pub(super) is_clone: bool,
    /// Connections of an older number are broken.
    pub(super) generation: u64,
    /// Running dumps, and the file that each is at.
    pub(super) dumps: BTreeMap<u64, u64>,
}

impl Server {
    fn new(number: u32, uuid: Uuid, checksum: Checksum, executed: GtidSet, applied: usize) -> Self {
        let mut server = Self {
            number,
            uuid,
            log: SourceLog::new(checksum, number),
            files: Vec::new(),
            purged: executed.clone(),
            executed,
            applied,
            up: true,
            is_clone: false,
            generation: 0,
            dumps: BTreeMap::new(),
        };
        server.open_file(1);
        server
    }

    pub(super) fn name(&self) -> String {
        format!("db{}:3306", self.number)
    }

    pub(super) const fn checksum(&self) -> Checksum {
        self.log.checksum
    }

    fn open_file(&mut self, number: u64) {
        self.log.server_id = self.number;
        let name = format!("binlog.{number:06}");
        let checksum = self.log.checksum;
        let opened = self.log.open_file(&name, &self.executed, checksum);
        self.files.push(File {
            number,
            head: opened.into_iter().skip(1).map(Bytes::from).collect(),
            before: self.executed.clone(),
            entries: Vec::new(),
            last: None,
        });
    }

    fn file(&mut self) -> &mut File {
        self.files.last_mut().expect("a server has a file")
    }

    pub(super) fn rotate(&mut self) {
        let next = self.file().number + 1;
        self.log.server_id = self.number;
        let last = self.log.close_file(&format!("binlog.{next:06}"));
        self.file().last = Some(Bytes::from(last));
        self.open_file(next);
    }

    /// Drops the oldest `count` files, but for those that a dump may need and the last one.
    pub(super) fn purge(&mut self, count: u64) -> u64 {
        let first = self.files[0].number;
        let last = self.file().number;
        let in_use = self.dumps.values().min().copied().unwrap_or(last);
        let keep = (first + count).min(in_use).min(last);
        for file in self.files.extract_if(.., |file| file.number < keep) {
            self.purged
                .extend(file.entries.iter().map(|e| e.transaction.gtid.clone()));
        }
        keep - first
    }

    /// How many of its files, from the oldest on, hold only what is in `set`.
    pub(super) fn files_within(&self, set: &GtidSet) -> u64 {
        let within = |file: &&File| {
            let mut gtids = file.entries.iter().map(|entry| &entry.transaction.gtid);
            gtids.all(|gtid| set.contains(gtid))
        };
        self.files.iter().take_while(within).count() as u64
    }

    /// The end of its binlog.
    pub(super) fn position(&self) -> SourcePosition {
        let file = self.files.last().expect("a server has a file");
        SourcePosition {
            file: file.name(),
            position: file.end(),
        }
    }

    fn append(&mut self, transaction: &Arc<Transaction>, now: u64) -> Vec<u8> {
        self.log.server_id = transaction.server_id;
        let micros = (now, transaction.time);
        let events = self
            .log
            .transaction(&transaction.gtid, micros, &transaction.work);
        let events: Vec<Bytes> = events.into_iter().map(Bytes::from).collect();
        self.executed.insert(&transaction.gtid);
        self.applied += 1;
        let all = events.concat();
        let end = end_of(events.last());
        self.file().entries.push(Entry {
            transaction: Arc::clone(transaction),
            events,
            end,
        });
        all
    }
}

/// What was written under a GTID on a server: the transaction and its bytes.
type Written = Vec<(usize, Vec<u8>)>;

/// All of them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) servers: Vec<Server>,
    pub(super) primary: usize,
    /// What is committed and not lost.
    pub(super) lineage: Vec<Arc<Transaction>>,
    /// What was the lineage until some of it was lost.
    pub(super) former: Vec<Vec<Arc<Transaction>>>,
    /// The group's name, under which all members commit; none: each under its own UUID.
    group: Option<Uuid>,
    written: BTreeMap<(Uuid, Gtid), Written>,
    /// What a source was told to be safe.
    pub(super) acknowledged: BTreeSet<usize>,
    next_id: usize,
    next_uuid: u128,
    next_dump: u64,
}

impl Cluster {
    pub(super) fn new(checksums: &[Checksum], in_group: bool) -> Self {
        let mut cluster = Self {
            servers: Vec::new(),
            primary: 0,
            lineage: Vec::new(),
            former: Vec::new(),
            group: in_group.then_some(Uuid::from_u128(0xAAAA << 100)),
            written: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            next_id: 0,
            next_uuid: 1 << 100,
            next_dump: 0,
        };
        for (number, checksum) in checksums.iter().enumerate() {
            let uuid = cluster.fresh_uuid();
            let number = number as u32 + 1;
            let server = Server::new(number, uuid, *checksum, GtidSet::new(), 0);
            cluster.servers.push(server);
        }
        cluster
    }

    fn fresh_uuid(&mut self) -> Uuid {
        self.next_uuid += 1;
        Uuid::from_u128(self.next_uuid)
    }

    pub(super) const fn fresh_dump(&mut self) -> u64 {
        self.next_dump += 1;
        self.next_dump
    }

    pub(super) const fn group(&self) -> Option<Uuid> {
        self.group
    }

    pub(super) const fn reuses_gtids(&self) -> bool {
        self.group.is_some()
    }

    pub(super) fn the_primary(&self) -> &Server {
        &self.servers[self.primary]
    }

    /// Whether the primary takes writes.
    pub(super) fn is_writable(&self) -> bool {
        let primary = self.the_primary();
        primary.up && primary.applied == self.lineage.len()
    }

    /// Commits a transaction on the primary.
    pub(super) fn commit(&mut self, now: u64, tagged: bool, work: Work) {
        let server = &self.servers[self.primary];
        let uuid = self.group.unwrap_or(server.uuid);
        let tag = tagged.then(|| Tag::new("job").expect("a tag"));
        let tsid = Tsid::new(uuid, tag);
        let gno = server.executed.last(&tsid).unwrap_or(0) + 1;
        let transaction = Arc::new(Transaction {
            id: self.next_id,
            gtid: Gtid::new(tsid, gno).expect("a GTID"),
            time: now,
            server_id: server.number,
            work,
        });
        self.next_id += 1;
        self.lineage.push(transaction);
        self.apply(self.primary, 1, now);
    }

    /// Lets a server apply the next transactions.
    pub(super) fn apply(&mut self, server: usize, count: usize, now: u64) {
        let server = &mut self.servers[server];
        for _ in 0..count {
            let Some(transaction) = self.lineage.get(server.applied) else {
                return;
            };
            let bytes = server.append(transaction, now);
            let key = (server.uuid, transaction.gtid.clone());
            let written = self.written.entry(key).or_default();
            written.push((transaction.id, bytes));
        }
    }

    /// The transaction that a server has written so.
    pub(super) fn identify(&self, server: Uuid, gtid: &Gtid, bytes: &[u8]) -> Option<usize> {
        let written = self.written.get(&(server, gtid.clone()))?;
        let found = written.iter().find(|(_, own)| own == bytes)?;
        Some(found.0)
    }

    /// Makes another server the primary. What it has not received is lost if `loses`; else it
    /// takes writes when it has applied all of it.
    pub(super) fn elect(&mut self, server: usize, loses: bool) -> usize {
        self.primary = server;
        let kept = self.servers[server].applied;
        let lost = self.lineage.len() - kept;
        if !loses || lost == 0 {
            return 0;
        }
        self.former.push(self.lineage.clone());
        self.lineage.truncate(kept);
        for other in 0..self.servers.len() {
            if self.servers[other].applied > kept {
                self.rebuild(other);
            }
        }
        lost
    }

    /// Makes a server anew as a clone of the lineage: it has no binlog of what was before.
    pub(super) fn rebuild(&mut self, server: usize) {
        let uuid = self.fresh_uuid();
        let all: GtidSet = self.lineage.iter().map(|t| t.gtid.clone()).collect();
        let old = &self.servers[server];
        let mut new = Server::new(old.number, uuid, old.checksum(), all, self.lineage.len());
        new.generation = old.generation + 1;
        new.up = old.up;
        new.is_clone = true;
        self.servers[server] = new;
    }

    /// Goes on from the first `kept` transactions, on servers made anew, under a new group's name.
    /// Gives the GTIDs of what is kept.
    pub(super) fn reseed(&mut self, kept: usize) -> GtidSet {
        self.former.push(self.lineage.clone());
        self.lineage.truncate(kept);
        self.group = Some(self.fresh_uuid());
        for server in 0..self.servers.len() {
            self.rebuild(server);
            // What it gives GTIDs to has not had them before.
            self.servers[server].is_clone = false;
        }
        self.lineage.iter().map(|t| t.gtid.clone()).collect()
    }

    /// Notes that a server was told that all up to a position is safe.
    pub(super) fn acknowledge(&mut self, server: usize, at: &SourcePosition) {
        let mut safe = Vec::new();
        for file in &self.servers[server].files {
            let is_file = file.name() == at.file;
            let entries = file.entries.iter();
            let upto = entries.take_while(|entry| !is_file || entry.end <= at.position);
            safe.extend(upto.map(|entry| entry.transaction.id));
            if is_file {
                break;
            }
        }
        self.acknowledged.extend(safe);
    }
}
