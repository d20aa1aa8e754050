//! What the log of a cut has to say of some tables, before any of it is run: its statements on
//! tables, and which transactions touched which.
//!
//! The lines of the segments tell which transactions have a statement at all; what it says exactly,
//! with its session, is read from its event, for a line holds only a part of a long one. So the
//! segments that hold statements on tables are read here, and no others.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Cause, PartsError};
use crate::archive::history::{History, Member};
use crate::archive::repository::{ArchiveError, Repository};
use crate::archive::search::{Filter, Kinds, Search};
use crate::archive::segment::IndexedTransaction;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::{
    Checksum, EVENT_LIMIT, EventKind, Inner, Operation, PayloadEvents, RawEvent,
};
use crate::mysql::ddl::statement::{NameCase, Statement, StatementKind, TableName};
use crate::mysql::ddl::{Dialect, Misunderstood};
use crate::mysql::schema::{Filter as Tables, Pattern};
use crate::mysql::version::ServerVersion;
use crate::restore::feed::{Step, Walk};
use crate::restore::replay::sql;

/// A statement of the log.
#[derive(Debug)]
pub(super) struct Logged {
    /// Its transaction.
    pub(super) cause: Cause,
    /// The default schema of its session.
    pub(super) schema: Option<String>,
    /// What it says, or why that is not known.
    pub(super) statement: Result<Statement, (Misunderstood, String)>,
}

/// What the log has in words.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Statements that may bear on tables, views or triggers, in order.
    pub(super) statements: Vec<Logged>,
    /// Those that make routines or change views, with their default schemas.
    pub(super) routines: Vec<(String, Option<String>)>,
    /// Whether there are changes of rows among the others.
    pub(super) rows: bool,
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) repository: &'a Repository,
    pub(super) history: &'a History,
    /// The transactions behind the snapshot.
    pub(super) set: &'a GtidSet,
}

/// Reads a logged statement as one on tables.
pub(super) fn parse(
    logged: &sql::Statement<'_>,
    version: &ServerVersion,
    case: NameCase,
) -> Result<Statement, Misunderstood> {
    let value = |name: &str| {
        let mut variables = logged.variables.iter();
        let (_, value) = variables.find(|(known, _)| *known == name)?;
        value.parse::<u64>().ok()
    };
    let charset = u16::try_from(value("character_set_client").unwrap_or(45)).unwrap_or(45);
    let dialect = Dialect::of_session(value("sql_mode").unwrap_or(0), charset, version.clone());
    let schema = logged.schema.map(String::from_utf8_lossy);
    Statement::parse(logged.text, schema.as_deref(), &dialect, case)
}

impl Log<'_> {
    fn search(&self, filter: Filter) -> Search {
        let filter = Filter {
            gtids: Some(self.set.clone()),
            ..filter
        };
        Search::new(self.repository.clone(), self.history.clone(), filter, None)
    }

    /// The lines of all transactions that have a statement, which are most where rows are logged as
    /// statements.
    pub(super) fn lines_with_statements(&self) -> Search {
        self.search(Filter {
            statements: true,
            ..Filter::default()
        })
    }

    /// What the log says in statements.
    pub(super) async fn statements(
        &self,
        version: &ServerVersion,
        case: NameCase,
    ) -> Result<Said, PartsError> {
        let mut said = Said::default();
        if self.set.is_empty() {
            return Ok(said);
        }
        let dialect = Dialect::of_scripts(version.clone());
        let mut search = self.lines_with_statements();
        let mut wanted = GtidSet::new();
        let mut causes: BTreeMap<Gtid, Cause> = BTreeMap::new();
        while let Some(batch) = search.next().await? {
            for found in batch.found {
                let line = found.transaction;
                if !Kinds::of(&line.summary).ddl {
                    said.rows = true;
                    continue;
                }
                if is_elsewhere(&line, &dialect, case) {
                    let text = line.summary.statement.as_deref().unwrap_or_default();
                    if makes_routine(text) {
                        said.routines
                            .push((text.to_owned(), line.summary.schema.clone()));
                    }
                    continue;
                }
                wanted.insert(&line.gtid);
                causes.insert(line.gtid.clone(), Cause::of(&line));
            }
        }
        undamaged(&mut search)?;
        if wanted.is_empty() {
            return Ok(said);
        }
        let mut walk = Walk::new(self.repository, self.history, wanted);
        let mut cause: Option<Cause> = None;
        while let Some(step) = walk.next().await? {
            match step {
                Step::Begins(first) => cause = causes.remove(&first.gtid),
                Step::Inside(event, checksum) => {
                    let Some(cause) = &cause else {
                        continue;
                    };
                    let mut take = |logged: &sql::Statement<'_>| {
                        let statement = parse(logged, version, case);
                        if matches!(&statement, Ok(found) if found.kind == StatementKind::Frame) {
                            return;
                        }
                        let text = || String::from_utf8_lossy(logged.text).into_owned();
                        said.statements.push(Logged {
                            cause: cause.clone(),
                            schema: logged
                                .schema
                                .map(|schema| String::from_utf8_lossy(schema).into_owned()),
                            statement: statement.map_err(|error| (error, text())),
                        });
                    };
                    if let Err(error) = each_query(&event, checksum, &mut take) {
                        return Err(walk.damaged(error).into());
                    }
                }
            }
        }
        Ok(said)
    }

    /// What the log did to the rows of tables, by every name that they had.
    pub(super) async fn touched(&self, names: &BTreeSet<TableName>) -> Result<Touched, PartsError> {
        let mut touched = Touched::default();
        if names.is_empty() {
            return Ok(touched);
        }
        let pattern = |name: &TableName| {
            let plain = |text: &str| text.replace('.', "?");
            let text = format!("{}.{}", plain(&name.database), plain(&name.table));
            text.parse::<Pattern>().ok()
        };
        let mut search = self.search(Filter {
            tables: Tables {
                include: names.iter().filter_map(pattern).collect(),
                exclude: Vec::new(),
            },
            ..Filter::default()
        });
        let texts: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        while let Some(batch) = search.next().await? {
            for found in batch.found {
                touched.add(&batch.member, &texts, found.transaction);
            }
        }
        undamaged(&mut search)?;
        Ok(touched)
    }
}

/// Whether a statement may make a function or a procedure, or change a view.
fn makes_routine(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    ["FUNCTION", "PROCEDURE", "VIEW"]
        .iter()
        .any(|word| text.contains(word))
}

pub(super) fn undamaged(search: &mut Search) -> Result<(), ArchiveError> {
    search.take_damage().map_or(Ok(()), Err)
}

/// Calls `take` with every statement in an event, also of a compressed one.
pub(super) fn each_query(
    event: &RawEvent<'_>,
    checksum: Checksum,
    take: &mut impl FnMut(&sql::Statement<'_>),
) -> Result<(), crate::mysql::binlog::EventError> {
    match event.kind() {
        EventKind::QUERY => take(&sql::Statement::parse(event, checksum)?),
        EventKind::TRANSACTION_PAYLOAD => {
            let mut payload = PayloadEvents::open(event, checksum, EVENT_LIMIT)?;
            while let Some(inner) = payload.next_event()? {
                if let Inner::Event(inner) = inner
                    && inner.kind() == EventKind::QUERY
                {
                    take(&sql::Statement::parse(&inner, Checksum::None)?);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a line tells for sure that its statement is on no table.
fn is_elsewhere(line: &IndexedTransaction, dialect: &Dialect, case: NameCase) -> bool {
    let summary = &line.summary;
    let Some(text) = summary.statement.as_deref().filter(|_| !summary.incomplete) else {
        return false;
    };
    let read = Statement::parse(text.as_bytes(), summary.schema.as_deref(), dialect, case);
    matches!(
        read.map(|statement| statement.kind),
        Ok(StatementKind::Elsewhere | StatementKind::Frame | StatementKind::Maintain)
    )
}

/// What the log did to the rows of some tables.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// How many transactions changed each, by its name then.
    pub(super) by_table: BTreeMap<String, u64>,
    /// Tables of which rows were updated or deleted, with the first transaction that did.
    pub(super) changed: BTreeMap<String, Cause>,
    /// How many transactions in all.
    pub(super) transactions: u64,
    /// What the history has from the segments that hold any of it.
    pub(super) wanted: GtidSet,
    segments: BTreeSet<String>,
    /// Bytes of those segments in the store.
    pub(super) segment_bytes: u64,
    /// The oldest version of a server that wrote any of it, and the newest.
    pub(super) versions: BTreeSet<String>,
}

impl Touched {
    fn add(&mut self, member: &Member, names: &BTreeSet<String>, line: IndexedTransaction) {
        let tables = &line.summary.tables;
        let mut hits = false;
        for table in tables.iter().filter(|table| names.contains(&table.name)) {
            hits = true;
            *self.by_table.entry(table.name.clone()).or_default() += 1;
            if table.operations.iter().any(|op| *op != Operation::Insert) {
                let changed = self.changed.entry(table.name.clone());
                changed.or_insert_with(|| Cause::of(&line));
            }
        }
        // A line that lacks tables, or a statement, may concern them all the same.
        self.transactions += u64::from(hits || !tables.is_empty());
        if self.segments.insert(member.stored.name.key()) {
            self.wanted.extend_from(&member.added);
            self.segment_bytes += member.stored.size;
            if let Some(source) = &member.stored.index.source {
                self.versions.insert(source.version.clone());
            }
        }
    }

    /// How many segments.
    pub(super) fn segments(&self) -> u64 {
        self.segments.len() as u64
    }
}
