//! One connection to which what concerns some tables is said, under other names.
//!
//! A transaction of the log becomes one of the server's own: its rows on followed tables, and with
//! them, in the same transaction, how far the replay is. Nothing is begun before there is something to
//! say. Statements of the log go alone, in the session that they were made in (`statements`).

use std::collections::BTreeSet;

use super::choose::{Chosen, rows_of};
use super::error::PartsError;
use super::journal::{Doing, PartsJournal, applied, note};
use super::reach::Reach;
use super::rewrite::{KeptRows, Staged, Taken};
use super::xa::{self, Outcome};
use crate::archive::repository::ArchiveError;
use crate::archive::segment::SegmentError;
use crate::gtid::Gtid;
use crate::mysql::binlog::{
    Checksum, EVENT_LIMIT, EventError, EventKind, GtidEvent, PayloadEvents, RawEvent,
};
use crate::mysql::ddl::lineage::Place;
use crate::mysql::ddl::statement::{NameCase, TableName};
use crate::mysql::error::MysqlError;
use crate::mysql::facts::ServerFacts;
use crate::mysql::session::Session;
use crate::observe::fail_point::FailPoints;
use crate::restore::replay::sql::{
    SessionSettings, Statement, format_without_checksums, is_rows, statements, words, xa_prepare,
};

/// What is gathered is sent when it has so many bytes, or a quarter of what the server takes.
const GATHERED: usize = 4 << 20;
/// `LOG_EVENT_IGNORABLE_F`: a reader that does not know the event passes it over.
const IGNORABLE: u16 = 0x80;

/// A transaction of the log.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) gtid: Gtid,
    /// Its number among those that concern the tables, once it is known to.
    pub(super) number: Option<u64>,
    /// Whether it is applied already, or is not to be.
    passed: bool,
    /// Whether something of it was said.
    begun: bool,
    /// Savepoints of it before anything was said.
    savepoints: Vec<Vec<u8>>,
    /// The statement that began it, if it is one in two halves.
    xa: Option<Vec<u8>>,
}

/// Says transactions to a server.
pub(super) struct Player<'a> {
    pub(super) session: Session,
    pub(super) chosen: &'a Chosen,
    pub(super) case: NameCase,
    /// What names mean where the replay is.
    pub(super) place: Place<'a>,
    pub(super) facts: &'a ServerFacts,
    pub(super) log: &'a xa::Log<'a>,
    pub(super) fail_points: &'a FailPoints,
    gathered: Vec<u8>,
    limit: usize,
    pub(super) settings: SessionSettings,
    pub(super) schema: Option<String>,
    /// Staged tables that refer to tables that are not there.
    pub(super) unchecked: BTreeSet<TableName>,
    checksum: Checksum,
    pub(super) open: Option<Open>,
    rows: KeptRows,
    /// How many transactions were met that concern the tables.
    pub(super) met: u64,
    /// How many of them an earlier run has applied.
    applied_before: u64,
    pub(super) doing: Option<Doing>,
}

impl<'a> Player<'a> {
    /// Makes a session one that replays.
    pub(super) async fn new(
        mut session: Session,
        chosen: &'a Chosen,
        case: NameCase,
        facts: &'a ServerFacts,
        log: &'a xa::Log<'a>,
        journal: &PartsJournal,
        fail_points: &'a FailPoints,
    ) -> Result<Self, PartsError> {
        let mode = match facts.version.at_least(8, 0, 26) {
            true => "pseudo_replica_mode",
            false => "pseudo_slave_mode",
        };
        session.set_timeout(None);
        session.execute(format!("SET @@SESSION.{mode} = 1")).await?;
        // What the log has made was legal there, and nothing may be added to it here.
        for (since, setting) in [
            ((8, 0, 0), "innodb_strict_mode"),
            ((8, 0, 13), "sql_require_primary_key"),
            ((8, 0, 30), "sql_generate_invisible_primary_key"),
            ((8, 4, 0), "restrict_fk_on_non_standard_key"),
        ] {
            if facts.version.at_least(since.0, since.1, since.2) {
                session
                    .execute(format!("SET @@SESSION.{setting} = 0"))
                    .await?;
            }
        }
        let packet = usize::try_from(facts.max_allowed_packet).unwrap_or(GATHERED);
        let mut player = Self {
            session,
            place: chosen.lineage.beginning(),
            chosen,
            case,
            facts,
            log,
            fail_points,
            gathered: Vec::new(),
            limit: GATHERED.min(packet / 4),
            settings: SessionSettings::new(&facts.version),
            schema: None,
            unchecked: BTreeSet::new(),
            checksum: Checksum::None,
            open: None,
            rows: KeptRows::default(),
            met: 0,
            applied_before: journal.position,
            doing: journal.doing.clone(),
        };
        player.look_at_parents().await?;
        Ok(player)
    }

    /// Takes the FORMAT_DESCRIPTION of a new file of the source.
    pub(super) async fn file(
        &mut self,
        event: &[u8],
        checksum: Checksum,
    ) -> Result<(), PartsError> {
        self.checksum = checksum;
        let plain =
            format_without_checksums(event).ok_or_else(|| self.broken(EventError::Truncated))?;
        self.gather(b"SET @@SESSION.gtid_next = 'AUTOMATIC'")
            .await?;
        for statement in statements(&plain, usize::MAX) {
            self.gather(&statement).await?;
        }
        self.send().await?;
        // The event leaves it to the next one whether it has a GTID.
        self.gather(b"SET @@SESSION.gtid_next = 'AUTOMATIC'")
            .await?;
        self.send().await
    }

    /// Takes an event of a transaction.
    pub(super) async fn event(&mut self, bytes: &[u8]) -> Result<(), PartsError> {
        let checksum = self.checksum;
        let event = RawEvent::new(bytes).map_err(|error| self.broken(error))?;
        if event.kind().is_gtid() {
            let first = GtidEvent::parse(&event, checksum).map_err(|error| self.broken(error))?;
            self.rows.clear();
            self.open = Some(Open {
                gtid: first.gtid,
                number: None,
                passed: false,
                begun: false,
                savepoints: Vec::new(),
                xa: None,
            });
            return Ok(());
        }
        if event.kind() != EventKind::TRANSACTION_PAYLOAD {
            return self.inner(&event, checksum).await;
        }
        let opened = PayloadEvents::open(&event, checksum, EVENT_LIMIT);
        let mut payload = opened.map_err(|error| self.broken(error))?;
        while let Some(inner) = payload.next_whole().map_err(|error| self.broken(error))? {
            self.inner(&inner, Checksum::None).await?;
        }
        Ok(())
    }

    /// Ends a transaction: all of it has come. How many concerned the tables so far, and which this
    /// is if it did.
    pub(super) async fn ended(&mut self) -> Result<(u64, Option<Gtid>), PartsError> {
        self.commit().await?;
        let open = self.open.take().filter(|open| open.number.is_some());
        Ok((self.met, open.map(|open| open.gtid)))
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        self.session.close().await;
    }

    async fn inner(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), PartsError> {
        match event.kind() {
            EventKind::QUERY => self.query(event, checksum).await,
            EventKind::XID => self.commit().await,
            EventKind::XA_PREPARE => {
                let body = event.body(checksum).map_err(|error| self.broken(error))?;
                let said = xa_prepare(body).map_err(|error| self.broken(error))?;
                self.prepared(said.ends_with("ONE PHASE")).await
            }
            EventKind::TABLE_MAP => {
                let (here, staging) = (&self.place, &self.chosen.staging);
                let unchecked = &self.unchecked;
                let staged = |schema: &str, table: &str| {
                    let name = TableName::new(schema, table);
                    let staged = staging
                        .table(&name)
                        .filter(|_| rows_of(here, schema, table))?;
                    Some(Staged {
                        unchecked: unchecked.contains(&staged),
                        schema: staged.database,
                        table: staged.table,
                    })
                };
                let taken = self.rows.map(event, checksum, staged);
                taken.map_err(|error| self.broken(error))
            }
            kind if is_rows(kind) => self.take_rows(event, checksum).await,
            EventKind(23..=25) => Err(self.not_here("it has rows in the format of MySQL 5.5")),
            EventKind::INCIDENT => {
                Err(self
                    .not_here("the source reports an incident there: transactions may be missing"))
            }
            EventKind::EXECUTE_LOAD_QUERY => self.load_data(event, checksum),
            // The file of one, which stands before it.
            EventKind(9 | 17) => Ok(()),
            // What stands before statements on rows, which are refused themselves; the words of
            // those who made rows; what a group says to itself.
            _ if event.header().flags & IGNORABLE != 0 => Ok(()),
            EventKind(5 | 13 | 14) | EventKind::ROWS_QUERY | EventKind::VIEW_CHANGE => Ok(()),
            kind => Err(self.not_here(&format!("it holds {kind}"))),
        }
    }

    /// A LOAD DATA in statement format. The plan has refused those that concern the tables
    /// (`rows_said`), unless whoever archived it did not write down what it says.
    fn load_data(&self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), PartsError> {
        let (schema, text) = event.query(checksum).map_err(|error| self.broken(error))?;
        let (schema, text) = (
            String::from_utf8_lossy(schema),
            String::from_utf8_lossy(text),
        );
        match Reach::new(&self.chosen.names, &[]).of(&text, Some(&schema)) {
            Some(_) => {
                Err(self
                    .not_here("it is a LOAD DATA in statement format, with its file in the binlog"))
            }
            None => Ok(()),
        }
    }

    async fn take_rows(
        &mut self,
        event: &RawEvent<'_>,
        checksum: Checksum,
    ) -> Result<(), PartsError> {
        let is_kept = self.rows.keeps(event, checksum);
        if is_kept.map_err(|error| self.broken(error))? {
            self.begin().await?;
        }
        let taken = self.rows.rows(event, checksum);
        if taken.map_err(|error| self.broken(error))? == Taken::Say {
            self.send_rows().await?;
        }
        Ok(())
    }

    /// The transaction concerns the tables: its number, unless it is not to be applied.
    pub(super) fn keep(&mut self) -> Option<u64> {
        let open = self.open.as_mut()?;
        if open.number.is_none() && !open.passed {
            self.met += 1;
            open.number = Some(self.met);
            open.passed = self.met <= self.applied_before;
        }
        open.number.filter(|_| !open.passed)
    }

    /// Begins the transaction on the server, if it is to be applied and not begun.
    async fn begin(&mut self) -> Result<(), PartsError> {
        if self.open.as_ref().is_none_or(|open| open.begun) {
            return Ok(());
        }
        let Some(number) = self.keep() else {
            return Ok(());
        };
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.begun = true;
        let gtid = open.gtid.clone();
        let savepoints = std::mem::take(&mut open.savepoints);
        self.gather(b"BEGIN").await?;
        for savepoint in savepoints {
            self.gather(&savepoint).await?;
        }
        self.gather(applied(number, &gtid.to_string()).as_bytes())
            .await
    }

    async fn send_rows(&mut self) -> Result<(), PartsError> {
        let statements = self.rows.take();
        if self.open.as_ref().is_none_or(|open| open.passed) {
            return Ok(());
        }
        for statement in statements {
            self.gather(&statement).await?;
        }
        self.send().await
    }

    async fn commit(&mut self) -> Result<(), PartsError> {
        if !self.rows.is_empty() {
            self.send_rows().await?;
        }
        if let Some(open) = &mut self.open
            && open.begun
        {
            open.begun = false;
            self.gather(b"COMMIT").await?;
            self.send().await?;
        }
        Ok(())
    }

    /// Ends the first half of a transaction in two. Its rows were locked until its second half, so
    /// they can be made good here as well as there; if the log has no second half, they never were.
    async fn prepared(&mut self, one_phase: bool) -> Result<(), PartsError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let (gtid, start) = (open.gtid.clone(), open.xa.clone().unwrap_or_default());
        let concerns = open.number.is_some();
        if one_phase || !concerns {
            return self.commit().await;
        }
        let outcome = self.log.outcome(&gtid, &start).await?;
        if outcome == Outcome::Committed {
            return self.commit().await;
        }
        self.rows.clear();
        if let Some(open) = &mut self.open
            && open.begun
            && let Some(number) = open.number
        {
            open.begun = false;
            let mut statements = vec![
                "ROLLBACK".to_owned(),
                "BEGIN".to_owned(),
                applied(number, &gtid.to_string()),
            ];
            if outcome == Outcome::InDoubt {
                statements.push(note(&format!(
                    "{gtid} prepared an XA transaction on these tables that the cut leaves in \
                     doubt: nothing of it is in them"
                )));
            }
            statements.push("COMMIT".to_owned());
            for statement in statements {
                self.gather(statement.as_bytes()).await?;
            }
            self.send().await?;
        }
        Ok(())
    }

    async fn query(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), PartsError> {
        let statement = Statement::parse(event, checksum).map_err(|error| self.broken(error))?;
        let text = statement.text;
        if text.eq_ignore_ascii_case(b"BEGIN") {
            return Ok(());
        }
        if text.eq_ignore_ascii_case(b"COMMIT") {
            return self.commit().await;
        }
        let starts = |words: &str| {
            text.get(..words.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(words.as_bytes()))
        };
        if starts("XA ") {
            if starts("XA START")
                && let Some(open) = &mut self.open
            {
                open.xa = Some(text.to_vec());
            }
            return Ok(());
        }
        let takes_back = starts("ROLLBACK");
        if takes_back || starts("SAVEPOINT ") || starts("RELEASE SAVEPOINT ") {
            return self.savepoint(text, takes_back).await;
        }
        self.statement(&statement).await
    }

    /// What takes back a part of a transaction, or says to where.
    async fn savepoint(&mut self, text: &[u8], takes_back: bool) -> Result<(), PartsError> {
        if !self.rows.is_empty() {
            self.send_rows().await?;
        }
        match &mut self.open {
            Some(open) if open.begun => {
                if text.eq_ignore_ascii_case(b"ROLLBACK") {
                    open.begun = false;
                }
                self.gather(text).await
            }
            Some(open) if !takes_back => {
                open.savepoints.push(text.to_vec());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn gather(&mut self, statement: &[u8]) -> Result<(), PartsError> {
        if self.gathered.len() + statement.len() > self.limit {
            self.send().await?;
        }
        if !self.gathered.is_empty() {
            self.gathered.extend_from_slice(b";\n");
        }
        self.gathered.extend_from_slice(statement);
        Ok(())
    }

    /// Sends what was gathered.
    pub(super) async fn send(&mut self) -> Result<(), PartsError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut statements = std::mem::take(&mut self.gathered);
        let sent = self.session.execute(&statements).await;
        statements.clear();
        statements.shrink_to(GATHERED);
        self.gathered = statements;
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// What the server refused, with the transaction that it belongs to.
    pub(super) async fn failed(&self, error: MysqlError) -> PartsError {
        let (Some(code), Some(open)) = (error.code(), &self.open) else {
            return error.into();
        };
        PartsError::Transaction {
            server: self.session.address().to_string(),
            code,
            message: words(&error),
            transaction: Box::new(self.log.look_up(&open.gtid).await),
        }
    }

    pub(super) fn not_here(&self, reason: &str) -> PartsError {
        match &self.open {
            Some(open) => PartsError::NotInParts {
                gtid: open.gtid.clone(),
                reason: reason.to_owned(),
            },
            None => self.broken(EventError::Order(reason.to_owned())),
        }
    }

    pub(super) fn broken(&self, source: EventError) -> PartsError {
        let key = match &self.open {
            Some(open) => format!("transaction {}", open.gtid),
            None => "the log".to_owned(),
        };
        let source = SegmentError::Event { offset: 0, source };
        ArchiveError::Segment { key, source }.into()
    }
}
