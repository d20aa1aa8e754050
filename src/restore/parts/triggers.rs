//! The triggers of chosen tables, as they are at the cut.
//!
//! Rows of the log are what triggers have made of them, so none is there while it is replayed. They
//! are made at the end, on the tables under their own names: those of the snapshot, and those that
//! the log made, in its own session.

use std::collections::BTreeSet;

use super::choose::Held;
use super::error::{Cause, PartsError};
use super::prepare::PreparedParts;
use super::scan::each_query;
use crate::archive::manifest::ScriptKind;
use crate::archive::script::names_of;
use crate::error::with_causes;
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::ddl::Dialect;
use crate::mysql::ddl::lineage::{Place, TableId};
use crate::mysql::ddl::statement::{Statement, StatementKind, TableName};
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::restore::feed::{Step, Walk};
use crate::restore::replay::sql;

/// `ER_BINLOG_CREATE_ROUTINE_NEED_SUPER`.
const NEEDS_SUPER: u16 = 1419;
/// `ER_TRG_ALREADY_EXISTS`.
const EXISTS: u16 = 1359;

/// Where a trigger's statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// In the snapshot, with what its session needs before it.
    Snapshot(Vec<Vec<u8>>),
    /// In a transaction of the log.
    Log(Gtid),
}

/// A trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    /// Its name.
    pub(super) name: TableName,
    /// What its table was called when it was made.
    pub(super) on: TableName,
    id: TableId,
    /// What makes it.
    pub(super) source: Source,
    /// Whether its table has another name at the cut.
    pub(super) renamed: bool,
}

/// Those of the snapshot on chosen tables.
pub(super) fn of_snapshot(
    held: &Held<'_>,
    place: &Place<'_>,
    ids: &BTreeSet<TableId>,
) -> Vec<Trigger> {
    let dialect = Dialect::of_scripts(held.version.clone());
    let mut found = Vec::new();
    let scripts = held.scripts.iter();
    for (_, script) in scripts.filter(|(kind, _)| *kind == ScriptKind::Triggers) {
        let mut before: Vec<Vec<u8>> = Vec::new();
        for marked in script.statements() {
            let Some((names, statement)) = names_of(marked) else {
                // A schema that is live keeps its collation, whatever a trigger remembers.
                if !marked.starts_with(b"ALTER ") {
                    before.push(marked.clone());
                }
                continue;
            };
            let mut unit = std::mem::take(&mut before);
            unit.push(statement.to_vec());
            let Ok([database, name]) = <[String; 2]>::try_from(names) else {
                continue;
            };
            let read = Statement::parse(statement, Some(&database), &dialect, held.case);
            let Some(on) = read.ok().and_then(|read| read.subject().cloned()) else {
                continue;
            };
            if let Some(id) = place.table(&on.database, &on.table)
                && ids.contains(&id)
            {
                found.push(Trigger {
                    name: TableName::new(database, name),
                    on,
                    id,
                    source: Source::Snapshot(unit),
                    renamed: false,
                });
            }
        }
    }
    found
}

/// Takes the next statement of the log.
pub(super) fn follow(
    known: &mut Vec<Trigger>,
    statement: &Statement,
    cause: &Cause,
    place: &Place<'_>,
    ids: &BTreeSet<TableId>,
) {
    let Some(subject) = statement.subject() else {
        return;
    };
    let same = |a: &TableName, b: &TableName| {
        a.database.eq_ignore_ascii_case(&b.database)
            && a.table.to_lowercase() == b.table.to_lowercase()
    };
    match statement.kind {
        StatementKind::DropTrigger => known.retain(|trigger| !same(&trigger.name, subject)),
        StatementKind::CreateTrigger => {
            let Some(id) = place.table(&subject.database, &subject.table) else {
                return;
            };
            if !ids.contains(&id) {
                return;
            }
            let text = String::from_utf8_lossy(statement.text()).into_owned();
            let (_, name) = name_behind(&text, &["TRIGGER"]).unwrap_or_default();
            let name = TableName::new(&subject.database, name);
            if known.iter().any(|trigger| same(&trigger.name, &name)) {
                return;
            }
            known.push(Trigger {
                name,
                on: subject.clone(),
                id,
                source: Source::Log(cause.gtid.clone()),
                renamed: false,
            });
        }
        _ => {}
    }
}

/// Those that are there at the cut.
pub(super) fn at_the_end(
    known: Vec<Trigger>,
    place: &Place<'_>,
    ids: &BTreeSet<TableId>,
) -> Vec<Trigger> {
    let mut left = Vec::new();
    for mut trigger in known {
        let name = place.name_of(trigger.id);
        let Some(name) = name.filter(|_| ids.contains(&trigger.id)) else {
            continue;
        };
        trigger.renamed = *name != trigger.on;
        left.push(trigger);
    }
    left
}

/// Makes the triggers of the restored tables, and tells of those that cannot be made: the tables are
/// there without them.
pub(super) async fn make(
    session: &mut Session,
    prepared: &PreparedParts,
) -> Result<Vec<String>, PartsError> {
    let mut told = Vec::new();
    for trigger in &prepared.chosen.triggers {
        let name = &trigger.name;
        if trigger.renamed {
            told.push(format!(
                "the trigger {name} is not made: it was made when its table was called {}",
                trigger.on
            ));
            continue;
        }
        let made = match &trigger.source {
            Source::Snapshot(statements) => run(session, statements).await,
            Source::Log(gtid) => match from_log(prepared, gtid).await? {
                Some(statements) => run(session, &statements).await,
                None => continue,
            },
        };
        match made {
            Ok(()) => {}
            // The plan has told.
            Err(error) if error.code() == Some(NEEDS_SUPER) && prepared.triggers_told => {}
            // By a run that was killed.
            Err(error) if error.code() == Some(EXISTS) => {}
            Err(error) if error.is_connection_lost() => return Err(error.into()),
            Err(error) => told.push(format!(
                "the trigger {name} could not be made: {}",
                with_causes(&error)
            )),
        }
    }
    for statement in [
        "SET NAMES utf8mb4",
        "SET SESSION sql_mode = '', timestamp = DEFAULT",
    ] {
        session.execute(statement).await?;
    }
    Ok(told)
}

async fn run(session: &mut Session, statements: &[Vec<u8>]) -> Result<(), MysqlError> {
    for statement in statements {
        session.execute(statement).await?;
    }
    Ok(())
}

/// The statement that made a trigger, behind what its session needs.
async fn from_log(
    prepared: &PreparedParts,
    gtid: &Gtid,
) -> Result<Option<Vec<Vec<u8>>>, PartsError> {
    const NEEDED: [&str; 5] = [
        "sql_mode",
        "character_set_client",
        "collation_connection",
        "time_zone",
        "timestamp",
    ];
    let wanted = GtidSet::from(gtid.clone());
    let mut walk = Walk::new(&prepared.repository, &prepared.history, wanted);
    let mut found = None;
    while let Some(step) = walk.next().await? {
        let Step::Inside(event, checksum) = step else {
            continue;
        };
        let take = &mut |logged: &sql::Statement<'_>| {
            let schema = logged.schema.map(String::from_utf8_lossy);
            let mut statements: Vec<Vec<u8>> = vec![b"SET NAMES utf8mb4".to_vec()];
            if let Some(schema) = schema {
                statements.push(format!("USE {}", quote::identifier(&schema)).into_bytes());
            }
            let variables = logged.variables.iter();
            let variables: Vec<String> = variables
                .filter(|(name, _)| NEEDED.contains(name))
                .map(|(name, value)| format!("@@SESSION.{name} = {value}"))
                .collect();
            statements.push(format!("SET {}", variables.join(", ")).into_bytes());
            statements.push(logged.text.to_vec());
            found = Some(statements);
        };
        if let Err(error) = each_query(&event, checksum, take) {
            return Err(walk.damaged(error).into());
        }
    }
    Ok(found)
}

/// The name that stands behind one of these words, with its schema if that is said.
pub(super) fn name_behind(text: &str, kinds: &[&str]) -> Option<(Option<String>, String)> {
    let mut words = words(text).into_iter();
    // A name in quotes is never the word, whatever it is.
    words.find(|(word, is_plain)| {
        *is_plain && kinds.iter().any(|kind| word.eq_ignore_ascii_case(kind))
    })?;
    let mut rest: Vec<String> = words.map(|(word, _)| word).take(8).collect();
    let is_conditional = rest
        .first()
        .is_some_and(|word| word.eq_ignore_ascii_case("IF"))
        && rest
            .get(1)
            .is_some_and(|word| word.eq_ignore_ascii_case("NOT"));
    if is_conditional {
        rest.drain(..3.min(rest.len()));
    }
    match rest.get(1).map(String::as_str) {
        Some(".") => Some((rest.first().cloned(), rest.get(2).cloned()?)),
        _ => Some((None, rest.first().cloned()?)),
    }
}

/// Words, quoted names and dots, and whether each stands without quotes.
fn words(text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if matches!(c, '`' | '"' | '\'') {
            let mut word = String::new();
            while let Some(next) = chars.next() {
                if next == c && chars.peek() != Some(&c) {
                    break;
                }
                if next == c {
                    chars.next();
                }
                word.push(next);
            }
            found.push((word, false));
        } else if c == '.' {
            found.push((".".to_owned(), true));
        } else if c.is_alphanumeric() || c == '_' || c == '$' {
            let mut word = c.to_string();
            while let Some(next) = chars
                .peek()
                .filter(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
            {
                word.push(*next);
                chars.next();
            }
            found.push((word, true));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_what_is_made_is_found() {
        for (text, schema, name) in [
            (
                "CREATE DEFINER=`trigger`@`%` TRIGGER `a``b` BEFORE INSERT ON t FOR EACH ROW SET @x=1",
                None,
                "a`b",
            ),
            (
                "create trigger shop.t1 after update on t for each row begin end",
                Some("shop"),
                "t1",
            ),
            (
                "CREATE TRIGGER IF NOT EXISTS `s`.`x` AFTER DELETE ON `t` FOR EACH ROW SET @a=1",
                Some("s"),
                "x",
            ),
        ] {
            let found = name_behind(text, &["TRIGGER"]);
            let expected = (schema.map(str::to_owned), name.to_owned());
            assert_eq!(found, Some(expected), "{text}");
        }
    }
}
