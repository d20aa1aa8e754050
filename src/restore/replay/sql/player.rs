//! One connection to which the log is said.
//!
//! Statements of our own are gathered and sent together, up to the next `BINLOG` statement: behind
//! that the server forgets to say that more answers follow. Those of the log go alone, as the
//! bytes that they are, behind what their session needs.

use mysql_common::binlog::BinlogCtx;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{FormatDescriptionEvent, GtidEvent as Layout};
use mysql_common::io::ParseBuf;

use super::context::Statement;
use super::rows::{self, Rows};
use super::settings::SessionSettings;
use super::variables::{self, Collations};
use crate::archive::repository::ArchiveError;
use crate::archive::segment::SegmentError;
use crate::gtid::Gtid;
use crate::mysql::binlog::{
    Checksum, EVENT_LIMIT, EventError, EventKind, GtidEvent, PayloadEvents, RawEvent,
};
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::mysql::wire::packet::Fields;
use crate::restore::replay::{ReplayError, ReplayJob, blame};

/// What is gathered is sent when it has so many bytes.
const GATHERED: usize = 4 << 20;
const ROWS_QUERY: EventKind = EventKind(29);
/// `LOG_EVENT_IGNORABLE_F`: a reader that does not know the event passes it over.
const IGNORABLE: u16 = 0x80;

/// Says transactions to a server.
pub(super) struct Player<'a> {
    session: Session,
    job: &'a ReplayJob<'a>,
    /// Statements of ours that wait, in ASCII.
    gathered: Vec<u8>,
    settings: SessionSettings,
    schema: Option<Vec<u8>>,
    collations: Collations,
    checksum: Checksum,
    /// The transaction that is being said, and whether anything of it was.
    open: Option<(Gtid, bool)>,
    rows: Rows,
}

impl<'a> Player<'a> {
    /// Makes a session one that replays.
    pub(super) async fn new(
        mut session: Session,
        job: &'a ReplayJob<'a>,
    ) -> Result<Self, ReplayError> {
        let mode = if job.facts.version.at_least(8, 0, 26) {
            "pseudo_replica_mode"
        } else {
            "pseudo_slave_mode"
        };
        session.execute(format!("SET @@SESSION.{mode} = 1")).await?;
        let collations: Vec<(u64, String, String)> = session
            .query(
                "SELECT ID, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLLATIONS",
            )
            .await?;
        Ok(Self {
            session,
            job,
            gathered: Vec::new(),
            settings: SessionSettings::new(&job.facts.version),
            schema: None,
            collations: collations
                .into_iter()
                .map(|(id, set, collation)| (id, (set, collation)))
                .collect(),
            checksum: Checksum::None,
            open: None,
            rows: Rows::default(),
        })
    }

    /// Takes the FORMAT_DESCRIPTION of a new file of the source.
    pub(super) async fn file(
        &mut self,
        event: &[u8],
        checksum: Checksum,
    ) -> Result<(), ReplayError> {
        self.checksum = checksum;
        let plain = rows::format_without_checksums(event)
            .ok_or_else(|| self.broken(EventError::Truncated))?;
        self.gather("SET @@SESSION.gtid_next = 'AUTOMATIC'").await?;
        for statement in rows::statements(&plain, usize::MAX) {
            self.gather(&statement).await?;
        }
        self.send().await
    }

    /// Takes an event of a transaction.
    pub(super) async fn event(&mut self, bytes: &[u8]) -> Result<(), ReplayError> {
        let checksum = self.checksum;
        let event = RawEvent::new(bytes).map_err(|error| self.broken(error))?;
        if event.kind().is_gtid() {
            return self.begin(&event).await;
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

    /// Ends what has come of a transaction: all of it has.
    pub(super) async fn end(&mut self) -> Result<(), ReplayError> {
        if !self.rows.is_empty() {
            self.send_rows().await?;
        }
        if self.open.as_ref().is_some_and(|(_, said)| !said) {
            // It holds nothing that a server does; its identity is used up all the same.
            self.say("BEGIN").await?;
            self.say("COMMIT").await?;
        }
        self.send().await?;
        self.open = None;
        Ok(())
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        let _ = self
            .session
            .execute("SET @@SESSION.gtid_next = 'AUTOMATIC'")
            .await;
        self.session.close().await;
    }

    async fn begin(&mut self, event: &RawEvent<'_>) -> Result<(), ReplayError> {
        let first = GtidEvent::parse(event, self.checksum).map_err(|error| self.broken(error))?;
        let body = event.body(self.checksum);
        let body = body.map_err(|error| self.broken(error))?;
        let format = FormatDescriptionEvent::new(BinlogVersion::Version4);
        let layout: Layout = ParseBuf(body)
            .parse(BinlogCtx::new(body.len(), &format, event.kind().0))
            .map_err(|error| {
                self.broken(EventError::Malformed {
                    kind: event.kind(),
                    reason: error.to_string(),
                })
            })?;
        // As a replica would keep them: when and under which version it was first committed.
        let statement = format!(
            "SET @@SESSION.original_commit_timestamp = {}, @@SESSION.original_server_version = {}, \
             @@SESSION.immediate_server_version = {}, @@SESSION.gtid_next = '{}'",
            first.original_commit_micros,
            layout.original_server_version(),
            layout.immediate_server_version(),
            first.gtid
        );
        self.open = Some((first.gtid, false));
        self.gather(statement).await
    }

    async fn inner(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), ReplayError> {
        let body = event.body(checksum).map_err(|error| self.broken(error))?;
        match event.kind() {
            EventKind::QUERY => self.query(event, checksum).await,
            EventKind::XID => self.say("COMMIT").await,
            EventKind::XA_PREPARE => {
                let statement = xa_prepare(body).map_err(|error| self.broken(error))?;
                self.say(&statement).await
            }
            ROWS_QUERY => {
                self.rows.query(event, checksum);
                Ok(())
            }
            EventKind::TABLE_MAP => {
                self.rows.map(event, checksum);
                Ok(())
            }
            kind if rows::is_rows(kind) => {
                if self.rows.rows(event, checksum) {
                    self.send_rows().await?;
                }
                Ok(())
            }
            variables::INTVAR => {
                let statement = variables::intvar(body).map_err(|error| self.broken(error))?;
                self.gather(statement).await
            }
            variables::RAND => {
                let statement = variables::rand(body).map_err(|error| self.broken(error))?;
                self.gather(statement).await
            }
            variables::USER_VAR => {
                let statement = variables::user_variable(body, &self.collations)
                    .map_err(|error| self.broken(error))?;
                self.in_utf8(&statement).await
            }
            EventKind::VIEW_CHANGE => Ok(()),
            _ if event.header().flags & IGNORABLE != 0 => Ok(()),
            EventKind::INCIDENT => Err(self.not_in_sql(
                "the source reports an incident there: transactions may be missing".to_owned(),
            )),
            EventKind(9 | 17 | 18) => Err(self.not_in_sql(
                "it is a LOAD DATA in statement format, with its file in the binlog".to_owned(),
            )),
            kind => Err(self.not_in_sql(format!("it holds {kind}"))),
        }
    }

    /// A statement of the log, in its session.
    async fn query(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), ReplayError> {
        let statement = Statement::parse(event, checksum).map_err(|error| self.broken(error))?;
        if statement.means_invoker() {
            return Err(self.not_in_sql(
                "it means the account that ran it (CURRENT_USER), which is not ours".to_owned(),
            ));
        }
        if let Some(unknown) = statement.unknown {
            return Err(self.not_in_sql(format!(
                "its session has a part of a later version of MySQL (status variable {unknown})"
            )));
        }
        let text = statement.text;
        if !self.rows.is_empty() {
            self.send_rows().await?;
        }
        // Nothing of these leans on a session.
        for frame in ["BEGIN", "COMMIT", "ROLLBACK"] {
            if text.eq_ignore_ascii_case(frame.as_bytes()) {
                return self.say(frame).await;
            }
        }
        if let Some(schema) = statement.schema
            && self.schema.as_deref() != Some(schema)
        {
            let name = String::from_utf8_lossy(schema).into_owned();
            let change = format!("USE {}", quote::identifier(&name));
            self.in_utf8(&change).await?;
            self.schema = Some(schema.to_vec());
            self.settings.schema_changed();
        }
        if let Some(set) = self.settings.change(&statement.variables) {
            self.gather(set).await?;
        }
        self.send().await?;
        if let Some((_, said)) = &mut self.open {
            *said = true;
        }
        match self.session.execute(text).await {
            Ok(_) => {}
            // Where it was first run it failed with the same error, and what it did counts.
            Err(error) if statement.error != 0 && error.code() == Some(statement.error) => {}
            Err(error) => return Err(self.failed(error).await),
        }
        // The default schema may be gone, or have another collation.
        let upper = text.to_ascii_uppercase();
        if memchr::memmem::find(&upper, b"DATABASE").is_some()
            || memchr::memmem::find(&upper, b"SCHEMA").is_some()
        {
            self.schema = None;
        }
        Ok(())
    }

    /// Says something that need not be ASCII.
    async fn in_utf8(&mut self, statement: &str) -> Result<(), ReplayError> {
        if statement.is_ascii() {
            return self.gather(statement).await;
        }
        if let Some(set) = self.settings.change_to_utf8() {
            self.gather(set).await?;
        }
        self.send().await?;
        self.execute(statement.as_bytes()).await
    }

    async fn send_rows(&mut self) -> Result<(), ReplayError> {
        if let Some((_, said)) = &mut self.open {
            *said = true;
        }
        for statement in self.rows.take() {
            self.gather(&statement).await?;
        }
        self.send().await
    }

    /// Gathers a statement that belongs to the transaction.
    async fn say(&mut self, statement: &str) -> Result<(), ReplayError> {
        if !self.rows.is_empty() {
            self.send_rows().await?;
        }
        if let Some((_, said)) = &mut self.open {
            *said = true;
        }
        self.gather(statement).await
    }

    async fn gather(&mut self, statement: impl AsRef<[u8]>) -> Result<(), ReplayError> {
        let statement = statement.as_ref();
        if self.gathered.len() + statement.len() > GATHERED {
            self.send().await?;
        }
        if !self.gathered.is_empty() {
            self.gathered.extend_from_slice(b";\n");
        }
        self.gathered.extend_from_slice(statement);
        Ok(())
    }

    /// Sends what was gathered.
    async fn send(&mut self) -> Result<(), ReplayError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut statements = std::mem::take(&mut self.gathered);
        let sent = self.execute(&statements).await;
        statements.clear();
        statements.shrink_to(GATHERED);
        self.gathered = statements;
        sent
    }

    async fn execute(&mut self, statements: &[u8]) -> Result<(), ReplayError> {
        match self.session.execute(statements).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// What the server refused, with the transaction that it belongs to.
    async fn failed(&self, error: MysqlError) -> ReplayError {
        let (Some(code), Some((gtid, _))) = (error.code(), &self.open) else {
            return error.into();
        };
        let job = self.job;
        let transaction = blame::look_up(job.repository, job.members, gtid.clone()).await;
        ReplayError::Applier {
            thread: "replay".to_owned(),
            server: self.session.address().to_string(),
            code: code.into(),
            message: words(&error),
            transaction: Some(Box::new(transaction)),
        }
    }

    fn not_in_sql(&self, reason: String) -> ReplayError {
        match &self.open {
            Some((gtid, _)) => ReplayError::NotInSql {
                gtid: gtid.clone(),
                reason,
            },
            None => self.broken(EventError::Order(reason)),
        }
    }

    fn broken(&self, source: EventError) -> ReplayError {
        let key = match &self.open {
            Some((gtid, _)) => format!("transaction {gtid}"),
            None => "the log".to_owned(),
        };
        let source = SegmentError::Event { offset: 0, source };
        ArchiveError::Segment { key, source }.into()
    }
}

/// The server's own words.
pub(in crate::restore) fn words(error: &MysqlError) -> String {
    match error {
        MysqlError::Server { message, .. } => message.clone(),
        MysqlError::At { source, .. } | MysqlError::Of { source, .. } => words(source),
        other => other.to_string(),
    }
}

/// The statement of an XA_PREPARE event: the first half of a transaction in two, or one in one.
pub(in crate::restore) fn xa_prepare(body: &[u8]) -> Result<String, EventError> {
    let mut fields = Fields::new(body);
    let one_phase = fields.uint::<1>()? != 0;
    let narrow = |value: u64| usize::try_from(value).map_err(|_| EventError::Truncated);
    let format = fields.uint::<4>()?;
    let global = narrow(fields.uint::<4>()?)?;
    let branch = narrow(fields.uint::<4>()?)?;
    let hex = |bytes: &[u8]| {
        let text = quote::bytes(bytes);
        format!("X'{}'", text.strip_prefix("0x").unwrap_or_default())
    };
    let (global, branch) = (hex(fields.bytes(global)?), hex(fields.bytes(branch)?));
    Ok(if one_phase {
        format!("XA COMMIT {global},{branch},{format} ONE PHASE")
    } else {
        format!("XA PREPARE {global},{branch},{format}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_an_xa_transaction_are_said() {
        let mut body = vec![0];
        for number in [7_u32, 3, 1] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(b"twos");
        assert_eq!(
            xa_prepare(&body).expect("good"),
            "XA PREPARE X'74776F',X'73',7"
        );
        body[0] = 1;
        assert_eq!(
            xa_prepare(&body).expect("good"),
            "XA COMMIT X'74776F',X'73',7 ONE PHASE"
        );
        body.pop();
        assert!(xa_prepare(&body).is_err());
    }
}
