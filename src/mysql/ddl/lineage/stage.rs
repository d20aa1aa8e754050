//! What is to be run in the staging schemas for a statement of the log.

use std::collections::BTreeMap;

use super::super::staging::{StageError, StagedStatement, Staging};
use super::super::statement::{Role, Statement, StatementKind, TableName};
use super::place::Change;
use super::{Lineage, Origin, Place, TableId};

impl Lineage {
    /// What is to be run for a statement, which must be the next one of the place; `None` if it concerns
    /// no followed table.
    ///
    /// Views and triggers are never made in staging schemas, OPTIMIZE and REPAIR TABLE are left out,
    /// and the frames of transactions are the caller's own matter.
    ///
    /// # Errors
    ///
    /// [`StageError`] if the statement concerns a followed table and cannot be run, or if it cannot be
    /// known whether it does.
    pub fn stage(
        &self,
        place: &Place<'_>,
        statement: &Statement,
        staging: &Staging,
    ) -> Result<Option<StagedStatement>, StageError> {
        self.check_unseen(place)?;
        let is_followed = |name: &TableName| place.need(&name.database, &name.table).is_some();
        let subject = statement.subject();
        let concerns = match statement.kind {
            StatementKind::CreateTable { .. } => self.makes_followed(place, subject),
            StatementKind::AlterTable
            | StatementKind::TruncateTable
            | StatementKind::CreateIndex
            | StatementKind::DropIndex => subject.is_some_and(is_followed),
            StatementKind::Analyze => statement.of_role(Role::Subject).all(is_followed),
            StatementKind::DropTable => {
                let kept = self.kept(statement, is_followed);
                return self.of_list(statement, staging, &kept);
            }
            StatementKind::RenameTable => {
                let kept = self.kept_renames(place, statement);
                return self.of_list(statement, staging, &kept);
            }
            StatementKind::CreateTemporary => {
                return match subject.filter(|name| is_followed(name)) {
                    Some(name) => Err(StageError::Hidden(name.clone())),
                    None => Ok(None),
                };
            }
            StatementKind::CreateDatabase { .. } => {
                let is_made = |change: &Change| matches!(change, Change::MadeSchema(_));
                place.changes().iter().any(is_made) && self.is_staged(statement, staging)
            }
            StatementKind::AlterDatabase | StatementKind::DropDatabase => {
                let schema = statement.database.as_deref().unwrap_or_default();
                place.has_schema(schema) && self.is_staged(statement, staging)
            }
            StatementKind::Rows => return Err(StageError::Rows),
            StatementKind::DropTemporary
            | StatementKind::Maintain
            | StatementKind::CreateTrigger
            | StatementKind::DropTrigger
            | StatementKind::CreateView
            | StatementKind::DropView
            | StatementKind::Elsewhere
            | StatementKind::Frame => false,
        };
        if !concerns {
            return Ok(None);
        }
        // What it takes rows or a definition from must be in the staging schemas too.
        for found in &statement.names {
            let is_source = matches!(found.role, Role::LikeSource | Role::ExchangePartner);
            if is_source && !is_followed(&found.name) {
                let table = subject.cloned().unwrap_or_else(|| found.name.clone());
                let other = found.name.clone();
                return Err(StageError::NotFollowed { table, other });
            }
        }
        statement.staged(staging).map(Some)
    }

    /// A followed table that was there before and not in the snapshot cannot be gone on with.
    fn check_unseen(&self, place: &Place<'_>) -> Result<(), StageError> {
        for change in place.changes() {
            if let Change::Made(name, id) = change
                && self.need(*id).is_some()
                && let Some((Origin::Unseen { .. }, first)) = self.origin(*id)
            {
                return Err(StageError::NotFollowed {
                    table: name.clone(),
                    other: first.clone(),
                });
            }
        }
        Ok(())
    }

    fn makes_followed(&self, place: &Place<'_>, subject: Option<&TableName>) -> bool {
        place.changes().iter().any(|change| match change {
            Change::Made(name, id) => Some(name) == subject && self.need(*id).is_some(),
            _ => false,
        })
    }

    fn kept(&self, statement: &Statement, is_followed: impl Fn(&TableName) -> bool) -> Vec<bool> {
        let names = statement.names.iter();
        names.map(|found| is_followed(&found.name)).collect()
    }

    /// Which pairs rename a followed table, each behind those before it.
    fn kept_renames(&self, place: &Place<'_>, statement: &Statement) -> Vec<bool> {
        let mut moved: BTreeMap<TableName, Option<TableId>> = BTreeMap::new();
        let mut kept = Vec::new();
        for pair in statement.names.chunks_exact(2) {
            let (old, new) = (&pair[0].name, &pair[1].name);
            let id = match moved.get(&self.case.key(old)) {
                Some(id) => *id,
                None => place.table(&old.database, &old.table),
            };
            moved.insert(self.case.key(old), None);
            moved.insert(self.case.key(new), id);
            let is_followed = id.is_some_and(|id| self.need(id).is_some());
            kept.extend([is_followed; 2]);
        }
        kept
    }

    fn of_list(
        &self,
        statement: &Statement,
        staging: &Staging,
        kept: &[bool],
    ) -> Result<Option<StagedStatement>, StageError> {
        if !kept.contains(&true) {
            return Ok(None);
        }
        let keeps = |at: usize| kept.get(at) == Some(&true);
        statement.staged_with(staging, keeps).map(Some)
    }

    /// Whether followed tables are ever in the schema. That of a parent alone may have a staging
    /// schema to be named, and need not be there.
    fn is_staged(&self, statement: &Statement, staging: &Staging) -> bool {
        let schema = statement.database.as_deref().unwrap_or_default();
        let schemas = self.schemas();
        let mut schemas = schemas.iter();
        staging.schema(schema).is_some() && schemas.any(|known| self.case.same(&known.name, schema))
    }
}
