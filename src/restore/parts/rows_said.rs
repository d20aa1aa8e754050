//! Rows that the log has as statements, not as rows: whether any may be of the tables.
//!
//! Such a statement can only be repeated where everything is that it reads, so a restore of tables
//! refuses what may concern them, before the first write. What it may concern is told by names alone
//! ([`Reach`]).

use super::choose::{Chosen, Held, late_parents};
use super::error::{Cause, PartsError};
use super::reach::{Lead, Reach};
use super::scan::{Log, Said, undamaged};
use super::triggers::name_behind;
use crate::archive::manifest::ScriptKind;
use crate::archive::search::Kinds;
use crate::clock::from_micros;
use crate::gtid::GtidSet;
use crate::mysql::binlog::{
    Checksum, EVENT_LIMIT, EventError, EventKind, GtidEvent, Inner, PayloadEvents, RawEvent,
    Summary, is_frame,
};
use crate::mysql::ddl::Dialect;
use crate::mysql::ddl::statement::{Role, Statement, StatementKind, TableName};
use crate::mysql::quote;
use crate::restore::feed::{Step, Walk};

impl Log<'_> {
    /// Fails if rows of the tables may have been changed by a statement that was logged as such.
    pub(super) async fn no_rows_as_statements(
        &self,
        held: &Held<'_>,
        chosen: &Chosen,
        said: &Said,
    ) -> Result<(), PartsError> {
        let is_of_rows = |statement: &Statement| statement.kind == StatementKind::Rows;
        let among_ddl = said.statements.iter();
        let mut among_ddl = among_ddl.filter_map(|found| found.statement.as_ref().ok());
        if !said.rows && !among_ddl.any(is_of_rows) {
            return Ok(());
        }
        let reach = Reach::new(&chosen.names, &leads(held, said));
        for found in &said.statements {
            let text = match &found.statement {
                Ok(statement) if is_of_rows(statement) => {
                    String::from_utf8_lossy(statement.text()).into_owned()
                }
                Ok(_) => continue,
                // What nobody can read may make anything.
                Err((_, text)) => text.clone(),
            };
            let schema = found.schema.as_deref();
            refuse(&reach, &text, schema, || found.cause.clone())?;
        }
        let mut closer = GtidSet::new();
        let mut search = self.lines_with_statements();
        while let Some(batch) = search.next().await? {
            for found in batch.found {
                let line = found.transaction;
                let summary = &line.summary;
                let text = summary.statement.as_deref().unwrap_or_default();
                if Kinds::of(summary).ddl {
                    continue;
                }
                refuse(&reach, text, summary.schema.as_deref(), || Cause::of(&line))?;
                // A line holds the first statement of a transaction, and not all of a long one.
                if summary.incomplete {
                    closer.insert(&line.gtid);
                }
            }
        }
        undamaged(&mut search)?;
        self.look_closer(&reach, closer).await
    }

    /// The same for every statement of some transactions.
    async fn look_closer(&self, reach: &Reach, wanted: GtidSet) -> Result<(), PartsError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut walk = Walk::new(self.repository, self.history, wanted);
        let mut open: Option<GtidEvent> = None;
        while let Some(step) = walk.next().await? {
            match step {
                Step::Begins(first) => open = Some(first),
                Step::Inside(event, checksum) => {
                    let mut found = Ok(());
                    let mut take = |schema: &[u8], text: &[u8]| {
                        if is_frame(text) || found.is_err() {
                            return;
                        }
                        let schema = String::from_utf8_lossy(schema);
                        let text = String::from_utf8_lossy(text);
                        if let Some(first) = &open {
                            found = refuse(reach, &text, Some(&schema), || cause(first, &text));
                        }
                    };
                    if let Err(error) = each_statement(&event, checksum, &mut take) {
                        return Err(walk.damaged(error).into());
                    }
                    found?;
                }
            }
        }
        Ok(())
    }
}

/// A transaction, told of by one of its statements.
fn cause(first: &GtidEvent, text: &str) -> Cause {
    let summary = Summary {
        statement: Some(text.to_owned()),
        ..Summary::default()
    };
    Cause {
        gtid: first.gtid.clone(),
        time: from_micros(first.immediate_commit_micros).unwrap_or_default(),
        what: summary.brief(),
    }
}

fn refuse(
    reach: &Reach,
    text: &str,
    schema: Option<&str>,
    cause: impl FnOnce() -> Cause,
) -> Result<(), PartsError> {
    let Some((name, way)) = reach.of(text, schema) else {
        return Ok(());
    };
    let way = way.map_or_else(String::new, |way| format!("; {way}"));
    Err(PartsError::NotUnderstood {
        cause: Box::new(cause()),
        tables: name.to_string(),
        reason: format!(
            "it changes rows and was logged as a statement (the source's binlog_format was not \
             ROW){way}"
        ),
    })
}

/// Calls `take` with schema and text of every statement in an event, also of a compressed one.
fn each_statement(
    event: &RawEvent<'_>,
    checksum: Checksum,
    take: &mut impl FnMut(&[u8], &[u8]),
) -> Result<(), EventError> {
    match event.kind() {
        EventKind::QUERY | EventKind::EXECUTE_LOAD_QUERY => {
            let (schema, text) = event.query(checksum)?;
            take(schema, text);
        }
        EventKind::TRANSACTION_PAYLOAD => {
            let mut payload = PayloadEvents::open(event, checksum, EVENT_LIMIT)?;
            while let Some(inner) = payload.next_event()? {
                if let Inner::Event(inner) = inner
                    && matches!(
                        inner.kind(),
                        EventKind::QUERY | EventKind::EXECUTE_LOAD_QUERY
                    )
                {
                    let (schema, text) = inner.query(Checksum::None)?;
                    take(schema, text);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Everything in the snapshot and in the log by which a statement comes to other tables than those
/// that it names. What the log removes counts as well: it was there for a time.
fn leads(held: &Held<'_>, said: &Said) -> Vec<Lead> {
    let mut leads = of_snapshot(held);
    for found in &said.statements {
        if let Ok(statement) = &found.statement {
            of_statement(statement, found.schema.as_deref(), &mut leads);
        }
    }
    for (text, schema) in &said.routines {
        leads.extend(of_routine(text, schema.as_deref()));
    }
    leads
}

fn of_snapshot(held: &Held<'_>) -> Vec<Lead> {
    let dialect = Dialect::of_scripts(held.version.clone());
    let mut leads = Vec::new();
    let mut add = |from: TableName, what: String, statement: &[u8], schema: &str| {
        leads.push(Lead {
            from,
            what,
            text: String::from_utf8_lossy(statement).into_owned(),
            schema: Some(schema.to_owned()),
        });
    };
    for kind in [ScriptKind::Views, ScriptKind::InvalidViews] {
        for (name, statement) in held.objects(kind) {
            add(
                name.clone(),
                format!("the view {name}"),
                statement,
                &name.database,
            );
        }
    }
    for (name, statement) in held.objects(ScriptKind::Routines) {
        add(
            name.clone(),
            format!("the routine {name}"),
            statement,
            &name.database,
        );
    }
    for (name, statement) in held.objects(ScriptKind::Triggers) {
        let read = Statement::parse(statement, Some(&name.database), &dialect, held.case);
        if let Some(on) = read.ok().and_then(|read| read.subject().cloned()) {
            let what = format!("the trigger {name} on {on}");
            add(on, what, statement, &name.database);
        }
    }
    for (child, keys) in held.foreign_keys() {
        for key in keys {
            if key.on_delete.changes_rows() || key.on_update.changes_rows() {
                let what = format!("the foreign key {} of {child}", key.name);
                let text = quote::qualified(&child.database, &child.table);
                add(key.parent, what, text.as_bytes(), &child.database);
            }
        }
    }
    leads
}

fn of_statement(statement: &Statement, schema: Option<&str>, leads: &mut Vec<Lead>) {
    let text = || String::from_utf8_lossy(statement.text()).into_owned();
    let leading = |from: &TableName, what: String, to: &TableName| Lead {
        from: from.clone(),
        what,
        text: quote::qualified(&to.database, &to.table),
        schema: None,
    };
    match (statement.kind, statement.subject()) {
        (StatementKind::CreateTrigger, Some(on)) => leads.push(Lead {
            from: on.clone(),
            what: format!("a trigger on {on}"),
            text: text(),
            schema: Some(on.database.clone()),
        }),
        (StatementKind::CreateView, Some(view)) => leads.push(Lead {
            from: view.clone(),
            what: format!("the view {view}"),
            text: text(),
            schema: schema.map(ToOwned::to_owned),
        }),
        (StatementKind::Elsewhere, _) => leads.extend(of_routine(&text(), schema)),
        _ => {}
    }
    for (child, parent) in late_parents(statement) {
        leads.push(leading(
            &parent,
            format!("a foreign key of {child}"),
            &child,
        ));
    }
    // Under a new name a table has its triggers still, and a view may be given its name.
    let new: Vec<&TableName> = statement.of_role(Role::NewName).collect();
    for old in statement.of_role(Role::Subject).filter(|_| !new.is_empty()) {
        for new in &new {
            leads.push(leading(new, format!("{new}, once {old},"), old));
            leads.push(leading(old, format!("{old}, later {new},"), new));
        }
    }
}

/// A routine or a view that the log makes.
fn of_routine(text: &str, schema: Option<&str>) -> Option<Lead> {
    let (database, name) = name_behind(text, &["FUNCTION", "PROCEDURE", "VIEW"])?;
    let database = database.or_else(|| schema.map(ToOwned::to_owned))?;
    // Names in a routine are of its own schema, those of a view of its session's: either may be meant.
    Some(Lead {
        what: format!("{database}.{name}"),
        from: TableName::new(database, name),
        text: text.to_owned(),
        schema: None,
    })
}
