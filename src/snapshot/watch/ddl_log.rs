//! DDL in the server's own binlog, read beside the snapshot.
//!
//! A schema that is the same before and after tells nothing of what was done and undone between:
//! a column that was dropped and added again, or a table that was swapped and swapped back, would
//! put rows into the snapshot that are of no GTID set. The binlog tells. It is followed from a set
//! that was read before the schema was, so that everything later goes by here.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use crate::gtid::{Gtid, GtidSet};
use crate::mysql::ServerUrl;
use crate::mysql::binlog::{Checksum, EventError, EventKind, Piece, RawEvent, Splitter};
use crate::mysql::ddl::{Ddl, DdlKind};
use crate::mysql::schema::Filter;
use crate::mysql::wire::{
    BinlogDump, DumpOptions, DumpPacket, WireConnection, WireError, WireOptions,
};

/// How often the server says that there is nothing new.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A server that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Events that are looked at before others get their turn.
const BATCH: usize = 1000;

/// Why the binlog cannot be followed (any more).
#[derive(Debug, thiserror::Error)]
pub(in crate::snapshot) enum LogError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("the server ended the stream")]
    Ended,
}

/// What a snapshot is of: which DDL concerns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::snapshot) struct Scope {
    /// What the views hold.
    pub(in crate::snapshot) view: GtidSet,
    /// The tables that are read, as (schema, table).
    pub(in crate::snapshot) tables: BTreeSet<(String, String)>,
    /// What was asked for.
    pub(in crate::snapshot) filter: Filter,
    /// Whether the server does not tell names apart that differ in case.
    pub(in crate::snapshot) fold_case: bool,
    /// The server's numbers of the connections that read.
    pub(in crate::snapshot) connections: Vec<u32>,
}

/// A statement that went by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::snapshot) struct FoundDdl {
    pub(in crate::snapshot) gtid: Gtid,
    pub(in crate::snapshot) ddl: Ddl,
}

impl FoundDdl {
    /// Whether it makes the snapshot other than the state that its GTID set names.
    ///
    /// What is in the view came after the schema began to be read and before the view: the schema
    /// may be the older one. What came later harms only tables that are still to be read; texts
    /// are those of the view already, and a table that was made since is no part of the snapshot.
    pub(in crate::snapshot) fn spoils(&self, scope: &Scope) -> bool {
        let in_view = scope.view.contains(&self.gtid);
        let names = &self.ddl.names;
        match self.ddl.kind {
            DdlKind::Accounts => in_view,
            DdlKind::Other => in_view && !self.ddl.verb.contains("TEMPORARY"),
            DdlKind::Table if names.is_empty() => true,
            DdlKind::Table => names.iter().any(|name| {
                let table = name.table.as_deref().unwrap_or_default();
                match in_view {
                    true => scope.filter.passes(&name.database, table),
                    false => scope.reads(&name.database, Some(table)),
                }
            }),
            DdlKind::Database => names.iter().any(|name| match in_view {
                true => scope.filter.passes_database(&name.database),
                false => self.ddl.verb.starts_with("DROP") && scope.reads(&name.database, None),
            }),
        }
    }

    /// What it changed, for a person.
    pub(in crate::snapshot) fn object(&self) -> String {
        let names: Vec<String> = self.ddl.names.iter().map(ToString::to_string).collect();
        match (names.is_empty(), self.ddl.kind) {
            (false, _) => names.join(", "),
            (true, DdlKind::Accounts) => "an account".to_owned(),
            (true, _) => "something in the schema".to_owned(),
        }
    }
}

impl Scope {
    /// Whether rows of this table (or of any in this schema) are in the snapshot.
    fn reads(&self, database: &str, table: Option<&str>) -> bool {
        let same = |a: &str, b: &str| match self.fold_case {
            true => a.to_lowercase() == b.to_lowercase(),
            false => a == b,
        };
        self.tables.iter().any(|(in_database, name)| {
            same(in_database, database) && table.is_none_or(|table| same(name, table))
        })
    }
}

/// The binlog of a server, as far as it was read.
#[derive(Debug)]
pub(in crate::snapshot) struct DdlLog {
    dump: BinlogDump,
    events: Events,
}

/// What the events tell.
#[derive(Debug)]
struct Events {
    splitter: Splitter,
    checksum: Checksum,
    open: Option<Gtid>,
    /// The set from which it is followed, and every transaction that has gone by since.
    seen: GtidSet,
    found: Vec<FoundDdl>,
}

impl DdlLog {
    /// Follows the binlog from `have` on. Needs REPLICATION SLAVE.
    ///
    /// # Errors
    ///
    /// The server's refusal, or a broken connection.
    pub(in crate::snapshot) async fn start(
        url: &ServerUrl,
        have: GtidSet,
    ) -> Result<Self, LogError> {
        let dump = dump(url, &have).await?;
        let events = Events {
            splitter: Splitter::default(),
            checksum: dump.checksum(),
            open: None,
            seen: have,
            found: Vec::new(),
        };
        Ok(Self { dump, events })
    }

    /// Begins again where it is, after a failure.
    ///
    /// # Errors
    ///
    /// As [`DdlLog::start`].
    pub(in crate::snapshot) async fn restart(&mut self, url: &ServerUrl) -> Result<(), LogError> {
        self.dump = dump(url, &self.events.seen).await?;
        self.events.splitter.reset();
        self.events.checksum = self.dump.checksum();
        self.events.open = None;
        Ok(())
    }

    /// Waits for events and looks at what has come. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`LogError`]; what was found stays.
    pub(in crate::snapshot) async fn advance(&mut self) -> Result<(), LogError> {
        let mut packet = Some(self.dump.next().await?);
        for _ in 0..BATCH {
            match packet {
                Some(DumpPacket::Event { bytes, .. }) => self.events.take(&bytes)?,
                Some(DumpPacket::End) => return Err(LogError::Ended),
                None => break,
            }
            packet = self.dump.received()?;
        }
        // The last of a full batch is not lost.
        if let Some(DumpPacket::Event { bytes, .. }) = packet {
            self.events.take(&bytes)?;
        }
        Ok(())
    }

    /// Whether everything in `set` has gone by.
    pub(in crate::snapshot) fn covers(&self, set: &GtidSet) -> bool {
        set.is_subset(&self.events.seen)
    }

    /// The statements that came since this was asked last.
    pub(in crate::snapshot) fn take_found(&mut self) -> Vec<FoundDdl> {
        std::mem::take(&mut self.events.found)
    }
}

async fn dump(url: &ServerUrl, have: &GtidSet) -> Result<BinlogDump, WireError> {
    let options = WireOptions {
        program_name: "quillback snapshot".to_owned(),
        read_timeout: Some(SILENCE),
        ..WireOptions::default()
    };
    let connection = WireConnection::connect(url, &options).await?;
    let replica_uuid = Uuid::new_v4();
    let options = DumpOptions {
        // Above the ids that people give; what keeps dumps apart is the UUID.
        server_id: 0xF000_0000 | (replica_uuid.as_fields().0 & 0x0FFF_FFFF),
        replica_uuid,
        heartbeat: HEARTBEAT,
        semi_sync: false,
    };
    BinlogDump::start(connection, &options, have).await
}

impl Events {
    fn take(&mut self, bytes: &[u8]) -> Result<(), EventError> {
        let event = RawEvent::new(bytes)?;
        if event.kind() == EventKind::FORMAT_DESCRIPTION {
            self.checksum = event.announced_checksum()?;
        } else if !event.kind().is_file_event() {
            event.verify(self.checksum)?;
        }
        let piece = self.splitter.take(&event, self.checksum)?;
        match &piece {
            Piece::File => return Ok(()),
            Piece::First(first) => self.open = Some(first.gtid.clone()),
            Piece::Inside | Piece::Last if event.kind() == EventKind::QUERY => {
                let (database, text) = event.query(self.checksum)?;
                let database = String::from_utf8_lossy(database);
                let ddl = Ddl::parse(&database, &String::from_utf8_lossy(text));
                if let (Some(ddl), Some(gtid)) = (ddl, &self.open) {
                    let gtid = gtid.clone();
                    self.found.push(FoundDdl { gtid, ddl });
                }
            }
            Piece::Inside | Piece::Last => {}
        }
        if piece == Piece::Last
            && let Some(gtid) = self.open.take()
        {
            self.seen.insert(&gtid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::binlog::testing::{SourceLog, Work};

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        format!("{UUID}:{text}").parse().expect("a set")
    }

    fn scope(view: &str) -> Scope {
        Scope {
            view: set(view),
            tables: [("shop", "item"), ("shop", "page")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .into(),
            filter: Filter {
                include: Vec::new(),
                exclude: vec!["shop.tmp_*".parse().expect("a pattern")],
            },
            fold_case: false,
            connections: Vec::new(),
        }
    }

    fn found(number: u64, text: &str) -> FoundDdl {
        FoundDdl {
            gtid: format!("{UUID}:{number}").parse().expect("a GTID"),
            ddl: Ddl::parse("shop", text).expect("DDL"),
        }
    }

    #[test]
    fn what_concerns_tables_still_to_be_read_spoils_the_snapshot() {
        for (text, in_view, later) in [
            ("ALTER TABLE item ADD c INT", true, true),
            ("ALTER TABLE tmp_1 ADD c INT", false, false),
            ("TRUNCATE item", true, true),
            ("RENAME TABLE new TO item", true, true),
            ("CREATE TABLE new (id INT)", true, false),
            ("DROP TABLE new", true, false),
            ("DROP DATABASE shop", true, true),
            ("DROP DATABASE other", true, false),
            ("ALTER DATABASE shop COLLATE utf8mb4_bin", true, false),
            ("CREATE VIEW v AS SELECT 1", true, false),
            ("GRANT SELECT ON *.* TO a", true, false),
            ("DROP TEMPORARY TABLE x", false, false),
            ("DROP TABLE '?'", true, true),
            ("ALTER TABLE ITEM ADD c INT", true, false),
        ] {
            let ddl = found(5, text);
            assert_eq!(ddl.spoils(&scope("1-5")), in_view, "in the view: {text}");
            assert_eq!(ddl.spoils(&scope("1-4")), later, "later: {text}");
        }
        let mut folded = scope("1-4");
        folded.fold_case = true;
        assert!(found(5, "ALTER TABLE ITEM ADD c INT").spoils(&folded));
    }

    #[test]
    fn statements_and_transactions_are_found_in_events() {
        let checksum = Checksum::Crc32;
        let mut log = SourceLog::new(checksum, 7);
        let mut events = Events {
            splitter: Splitter::default(),
            checksum,
            open: None,
            seen: set("1-3"),
            found: Vec::new(),
        };
        let works = [
            Work::Rows(vec![("shop.item", vec![1])]),
            Work::Statement("shop", "ALTER TABLE item ADD c INT".to_owned()),
            Work::Statement("shop", "INSERT INTO item VALUES (1)".to_owned()),
        ];
        for (work, number) in works.iter().zip(4_u64..) {
            let gtid = format!("{UUID}:{number}").parse().expect("a GTID");
            assert_eq!(events.seen, set(&format!("1-{}", number - 1)));
            for event in log.transaction(&gtid, (number, number), work) {
                events.take(&event).expect("good events");
            }
        }
        assert_eq!(events.seen, set("1-6"));
        let found: Vec<String> = events
            .found
            .iter()
            .map(|found| format!("{} {} {}", found.gtid, found.ddl.verb, found.object()))
            .collect();
        assert_eq!(found, [format!("{UUID}:5 ALTER TABLE shop.item")]);
        assert!(events.take(b"short").is_err());
    }
}
