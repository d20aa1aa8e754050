//! The statements that make metadata match a group, or take it away. Pure.

mod cluster;
mod json;
mod members;

use serde::{Deserialize, Serialize};

use crate::mysql::error::MysqlError;
use crate::mysql::session::Session;

use super::choose;
use super::error::MetadataError;
use super::facts::{Cluster, Metadata};
use super::group::NewGroup;
use super::note::Note;
use super::{SCHEMA, facts};

/// What happened to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was formed anew from a restored server: what followed the old one is not of it.
    Formed,
    /// Members came, went or moved; its history goes on.
    Members,
}

/// What makes the metadata match the group, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The cluster's name.
    pub cluster: String,
    /// Statements for the primary, in this order and in one transaction; none where it matches.
    pub statements: Vec<String>,
    /// What they change, for people.
    pub changes: Vec<String>,
    /// What no statement does.
    pub notes: Vec<Note>,
}

impl Repair {
    /// Compares metadata with the group that there is; `name` is the cluster's, where it has several.
    ///
    /// # Errors
    ///
    /// A layout that is not known, and a cluster that cannot be told.
    pub fn compute(
        metadata: &Metadata,
        group: &NewGroup,
        change: Change,
        name: Option<&str>,
    ) -> Result<Self, MetadataError> {
        metadata.check_layout()?;
        let cluster = choose::cluster(metadata, Some(group), name)?;
        let mut draft = Draft {
            metadata,
            group,
            cluster,
            statements: Vec::new(),
            changes: Vec::new(),
            notes: Vec::new(),
        };
        draft.routers(change);
        if change == Change::Formed {
            draft.leave_cluster_set();
            draft.forget_other_clusters();
        }
        draft.attributes();
        draft.members(change);
        Ok(Self {
            cluster: cluster.name.clone(),
            statements: draft.statements,
            changes: draft.changes,
            notes: draft.notes,
        })
    }

    /// Whether the metadata matches the group already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// The statements within their transaction.
    #[must_use]
    pub fn transaction(&self) -> Vec<&str> {
        if self.is_empty() {
            return Vec::new();
        }
        std::iter::once("START TRANSACTION")
            .chain(self.statements.iter().map(String::as_str))
            .chain(["COMMIT"])
            .collect()
    }

    /// Runs the transaction on the primary. After a failure nothing is changed.
    ///
    /// # Errors
    ///
    /// What a statement or the commit fails with.
    pub async fn run(&self, session: &mut Session) -> Result<(), MysqlError> {
        for statement in self.transaction() {
            if let Err(error) = session.execute(statement).await {
                if let Err(further) = session.execute("ROLLBACK").await {
                    tracing::debug!(error = %further, "the connection that failed does not roll back");
                }
                return Err(error.of(format!("schema {SCHEMA}")));
            }
        }
        Ok(())
    }
}

/// The other way: the metadata is dropped, and MySQL Shell makes it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The statement that drops it, for the primary.
    pub statement: String,
    /// The line of AdminAPI that adopts the group, to be run by MySQL Shell, connected to a member.
    pub adopt: String,
}

impl Removal {
    /// Drops metadata, of whatever version. `name` is what the adopted cluster is called where the
    /// metadata does not tell.
    #[must_use]
    pub fn compute(metadata: &Metadata, group: Option<&NewGroup>, name: Option<&str>) -> Self {
        let known = choose::cluster(metadata, group, None).ok();
        let name = name
            .or(known.map(|cluster| cluster.name.as_str()))
            .unwrap_or("cluster");
        let literal = name.replace('\\', "\\\\").replace('\'', "\\'");
        Self {
            statement: format!("DROP SCHEMA {SCHEMA}"),
            adopt: format!("dba.createCluster('{literal}', {{adoptFromGR: true}})"),
        }
    }
}

/// A repair in the making.
struct Draft<'a> {
    metadata: &'a Metadata,
    group: &'a NewGroup,
    cluster: &'a Cluster,
    statements: Vec<String>,
    changes: Vec<String>,
    notes: Vec<Note>,
}

impl Draft<'_> {
    fn statement(&mut self, text: String) {
        self.statements.push(text);
    }

    fn change(&mut self, text: String) {
        self.changes.push(text);
    }

    /// `UPDATE table SET fields WHERE which`, unless there is nothing to set.
    fn update(&mut self, table: &str, fields: &[String], which: &str) {
        if !fields.is_empty() {
            self.statement(format!(
                "UPDATE {} SET {} WHERE {which}",
                facts::table(table),
                fields.join(", ")
            ));
        }
    }

    fn delete(&mut self, table: &str, which: Option<&str>) {
        let mut text = format!("DELETE FROM {}", facts::table(table));
        if let Some(which) = which {
            text.push_str(" WHERE ");
            text.push_str(which);
        }
        self.statement(text);
    }
}
