//! Statements of the log on followed tables, run on the staged ones in the session that they were
//! made in.
//!
//! DDL commits by itself. So before it is run it is written down that it is about to be, with a
//! digest of what the staged tables look like; whoever goes on after a kill runs it if they still
//! look so, and otherwise takes it for done. Where a statement can leave all definitions as they are
//! and still not be repeated (rows are exchanged), the rows are part of the digest.
//!
//! Foreign keys are not checked for statements: the table that one refers to may be none of those
//! that are restored. Rows of such a table go unchecked as well (`rewrite`).

use std::collections::BTreeSet;

use super::error::PartsError;
use super::journal::{Doing, about_to, applied};
use super::player::Player;
use super::scan;
use crate::archive::hash::Sha256Writer;
use crate::mysql::ddl::staging::StagedStatement;
use crate::mysql::ddl::statement::{Role, Statement, StatementKind, TableName};
use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;
use crate::observe::fail_point::FailPoint;
use crate::restore::replay::sql;

/// Settings of a logged session that are our own matter here.
const OWN: [&str; 3] = ["autocommit", "foreign_key_checks", "pseudo_thread_id"];

impl Player<'_> {
    /// A statement of the log, in its session.
    pub(super) async fn statement(
        &mut self,
        logged: &sql::Statement<'_>,
    ) -> Result<(), PartsError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let Some(number) = self
            .chosen
            .statements
            .get(&open.gtid)
            .and_then(|n| n.first())
        else {
            return Ok(());
        };
        let gtid = open.gtid.to_string();
        let read = scan::parse(logged, &self.facts.version, self.case);
        let read = read.map_err(|error| self.not_here(&error.to_string()))?;
        self.place.pass_to(*number);
        let staged = self
            .chosen
            .lineage
            .stage(&self.place, &read, &self.chosen.staging);
        let staged = staged.map_err(|error| self.not_here(&error.to_string()))?;
        let Some(staged) = staged else {
            return Ok(());
        };
        let number = self.keep();
        if let Some(number) = number {
            self.run(logged, &read, staged, (number, &gtid)).await?;
        }
        self.place.pass();
        Ok(())
    }

    async fn run(
        &mut self,
        logged: &sql::Statement<'_>,
        read: &Statement,
        staged: StagedStatement,
        (number, gtid): (u64, &str),
    ) -> Result<(), PartsError> {
        let part = 0;
        let (compared, schemas) = (self.compared(read), self.chosen.schemas.values());
        let shape = shape(&mut self.session, schemas, &compared).await?;
        let before = self
            .doing
            .take()
            .filter(|doing| (doing.number, doing.part) == (number, part));
        let is_done = before.as_ref().is_some_and(|doing| doing.shape != shape);
        if !is_done {
            let doing = Doing {
                number,
                part,
                shape,
            };
            self.own(&about_to(&doing)).await?;
            self.fail_points.pass(FailPoint::PartsStatement);
            self.execute(logged, &staged).await?;
            self.fail_points.pass(FailPoint::PartsStatementDone);
        }
        // The rows of a CREATE TABLE ... SELECT follow, and end with the same number.
        if !staged.starts_transaction {
            self.own(&applied(number, gtid)).await?;
        }
        self.look_at_parents().await
    }

    /// Runs a statement of the journal, in a transaction of its own.
    async fn own(&mut self, statement: &str) -> Result<(), PartsError> {
        for statement in ["BEGIN", statement, "COMMIT"] {
            self.gather(statement.as_bytes()).await?;
        }
        self.send().await
    }

    async fn execute(
        &mut self,
        logged: &sql::Statement<'_>,
        staged: &StagedStatement,
    ) -> Result<(), PartsError> {
        if let Some(schema) = &staged.schema
            && self.schema.as_ref() != Some(schema)
        {
            let set = self.settings.change_to_utf8();
            self.set(set).await?;
            self.send().await?;
            let change = format!("USE {}", quote::identifier(schema));
            match self.session.execute(change).await {
                Ok(_) => self.schema = Some(schema.clone()),
                Err(error) => return Err(self.failed(error).await),
            }
            self.settings.schema_changed();
        }
        let wanted: Vec<(&'static str, String)> = logged
            .variables
            .iter()
            .filter(|(name, _)| !OWN.contains(name))
            .cloned()
            .chain([("foreign_key_checks", "0".to_owned())])
            .collect();
        let set = self.settings.change(&wanted);
        self.set(set).await?;
        self.send().await?;
        let text = match staged.starts_transaction {
            true => without_start(&staged.text),
            false => &staged.text,
        };
        match self.session.execute(text).await {
            Ok(_) => {}
            // Where it was first run it failed with the same error, and what it did counts.
            Err(error) if logged.error != 0 && error.code() == Some(logged.error) => {}
            Err(error) => return Err(self.failed(error).await),
        }
        self.schema = None;
        Ok(())
    }

    /// Gathers a change of the session's settings, if there is one to make.
    async fn set(&mut self, change: Option<String>) -> Result<(), PartsError> {
        match change {
            Some(statement) => self.gather(statement.as_bytes()).await,
            None => Ok(()),
        }
    }

    /// The staged tables whose rows tell whether a statement was run.
    fn compared(&self, statement: &Statement) -> Vec<TableName> {
        let names: Vec<&TableName> = match statement.kind {
            StatementKind::AlterTable => statement.of_role(Role::ExchangePartner).collect(),
            // Names that only change places.
            StatementKind::RenameTable => {
                let old: BTreeSet<&TableName> = statement.of_role(Role::Subject).collect();
                let new: BTreeSet<&TableName> = statement.of_role(Role::NewName).collect();
                match old == new {
                    true => old.into_iter().collect(),
                    false => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        let staged = names
            .into_iter()
            .filter_map(|name| self.chosen.staging.table(name));
        staged.collect()
    }

    /// Looks which staged tables refer to tables that are not there.
    pub(super) async fn look_at_parents(&mut self) -> Result<(), PartsError> {
        let schemas = list(self.chosen.schemas.values());
        let found: Vec<(String, String)> = self
            .session
            .query(format!(
                "SELECT DISTINCT k.TABLE_SCHEMA, k.TABLE_NAME \
                 FROM information_schema.KEY_COLUMN_USAGE k \
                 LEFT JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = k.REFERENCED_TABLE_SCHEMA \
                 AND t.TABLE_NAME = k.REFERENCED_TABLE_NAME \
                 WHERE k.TABLE_SCHEMA IN ({schemas}) AND k.REFERENCED_TABLE_NAME IS NOT NULL \
                 AND t.TABLE_NAME IS NULL"
            ))
            .await?;
        let names = found
            .into_iter()
            .map(|(schema, table)| TableName::new(schema, table));
        self.unchecked = names.collect();
        Ok(())
    }
}

/// Names as a list of SQL; one that no schema has if there is none.
pub(super) fn list<'s>(names: impl Iterator<Item = &'s String>) -> String {
    let names: Vec<String> = names.map(|name| quote::string(name)).collect();
    match names.is_empty() {
        true => "''".to_owned(),
        false => names.join(", "),
    }
}

/// What the tables of some schemas look like, as a digest; with the rows of those in `compared`.
async fn shape(
    session: &mut Session,
    schemas: impl Iterator<Item = &String>,
    compared: &[TableName],
) -> Result<String, MysqlError> {
    let tables: Vec<(String, String)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA IN ({}) ORDER BY TABLE_SCHEMA, TABLE_NAME",
            list(schemas)
        ))
        .await?;
    let mut digest = Sha256Writer::default();
    for (schema, table) in tables {
        let name = quote::qualified(&schema, &table);
        let shown: (String, Vec<u8>) = session
            .query_one(format!("SHOW CREATE TABLE {name}"))
            .await?;
        digest.update(name.as_bytes());
        digest.update(&shown.1);
    }
    for table in compared {
        let name = quote::qualified(&table.database, &table.table);
        let sum: (String, Option<u64>) =
            session.query_one(format!("CHECKSUM TABLE {name}")).await?;
        digest.update(format!("{name} {:?}", sum.1).as_bytes());
    }
    Ok(digest.finish().to_string())
}

/// A CREATE TABLE without the START TRANSACTION at its end: it commits by itself then, and the rows
/// that follow are a transaction of their own.
fn without_start(text: &[u8]) -> &[u8] {
    let trimmed = text.trim_ascii_end();
    let lower = trimmed.to_ascii_lowercase();
    match memchr::memmem::rfind(&lower, b"start") {
        Some(at) if lower[at..].ends_with(b"transaction") => &trimmed[..at],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_ends_by_itself() {
        assert_eq!(
            without_start(b"CREATE TABLE `s`.`t` (`a` int) START TRANSACTION"),
            b"CREATE TABLE `s`.`t` (`a` int) "
        );
        assert_eq!(
            without_start(b"CREATE TABLE start (a int)"),
            b"CREATE TABLE start (a int)"
        );
    }
}
