//! Views, triggers, routines and events: objects whose text means what it means only under the
//! session settings of its creation.

use std::collections::{BTreeMap, BTreeSet};

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::order::topological;
use super::{Filter, not_system, shown};

/// The kinds of stored objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A view.
    View,
    /// A trigger.
    Trigger,
    /// A stored procedure.
    Procedure,
    /// A stored function.
    Function,
    /// A scheduled event.
    Event,
}

/// The session settings under which an object was created and must be created again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// `sql_mode`; views have none of their own.
    pub sql_mode: Option<String>,
    /// `character_set_client`, in which the text's bytes are.
    pub character_set_client: String,
    /// `collation_connection`.
    pub collation_connection: String,
    /// The schema's default collation at the time; views have none of their own.
    pub database_collation: Option<String>,
    /// `time_zone`; only events have one.
    pub time_zone: Option<String>,
}

/// A view, trigger, routine or event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Its schema.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The statement that creates it, with its definer, in `character_set_client`.
    pub create: Vec<u8>,
    /// The settings that the statement needs.
    pub context: Context,
}

type Key = (String, String);

/// The views that work, in the order of their needs, and those that are broken already.
pub(super) async fn views(
    session: &mut Session,
    filter: &Filter,
) -> Result<(Vec<StoredObject>, Vec<StoredObject>), MysqlError> {
    // The server says in the comment of a view that what it reads is gone.
    let rows: Vec<(String, String, String)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_COMMENT FROM information_schema.TABLES \
             WHERE TABLE_TYPE = 'VIEW' AND {} ORDER BY BINARY TABLE_SCHEMA, BINARY TABLE_NAME",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let mut views = Vec::new();
    let mut broken = Vec::new();
    for (database, name, comment) in rows {
        if !filter.passes(&database, &name) {
            continue;
        }
        let quoted = quote::qualified(&database, &name);
        let (_, create, client, collation): (Vec<u8>, Option<Vec<u8>>, String, String) = session
            .query_one(format!("SHOW CREATE VIEW {quoted}"))
            .await?;
        let view = StoredObject {
            kind: ObjectKind::View,
            create: shown(create, "view", &quoted)?,
            database,
            name,
            context: Context {
                character_set_client: client,
                collation_connection: collation,
                ..Context::default()
            },
        };
        if comment.contains("references invalid table(s) or column(s)") {
            broken.push(view);
        } else {
            views.push(view);
        }
    }
    let needs = view_needs(session).await?;
    let key = |view: &StoredObject| (view.database.clone(), view.name.clone());
    Ok((topological(views, key, &needs), broken))
}

async fn view_needs(session: &mut Session) -> Result<BTreeMap<Key, BTreeSet<Key>>, MysqlError> {
    let rows: Vec<(String, String, String, String)> = session
        .query(
            "SELECT VIEW_SCHEMA, VIEW_NAME, TABLE_SCHEMA, TABLE_NAME \
             FROM information_schema.VIEW_TABLE_USAGE",
        )
        .await?;
    let mut needs: BTreeMap<Key, BTreeSet<Key>> = BTreeMap::new();
    for (view_database, view, database, table) in rows {
        needs
            .entry((view_database, view))
            .or_default()
            .insert((database, table));
    }
    Ok(needs)
}

/// Triggers in the order in which the server fires them, which creating them in turn keeps.
pub(super) async fn triggers(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    let rows: Vec<(String, String, String)> = session
        .query(format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE \
             FROM information_schema.TRIGGERS WHERE {} \
             ORDER BY BINARY TRIGGER_SCHEMA, BINARY EVENT_OBJECT_TABLE, EVENT_MANIPULATION, \
             ACTION_TIMING, ACTION_ORDER",
            not_system("TRIGGER_SCHEMA")
        ))
        .await?;
    let mut triggers = Vec::new();
    for (database, name, table) in rows {
        if !filter.passes(&database, &table) {
            continue;
        }
        let quoted = quote::qualified(&database, &name);
        type Row = (
            Vec<u8>,
            String,
            Option<Vec<u8>>,
            String,
            String,
            String,
            Option<Vec<u8>>,
        );
        let (_, mode, create, client, collation, of_database, _): Row = session
            .query_one(format!("SHOW CREATE TRIGGER {quoted}"))
            .await?;
        triggers.push(StoredObject {
            kind: ObjectKind::Trigger,
            create: shown(create, "trigger", &quoted)?,
            database,
            name,
            context: context(mode, client, collation, of_database, None),
        });
    }
    Ok(triggers)
}

pub(super) async fn routines(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    let rows: Vec<(String, String, String)> = session
        .query(format!(
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES \
             WHERE {} ORDER BY BINARY ROUTINE_SCHEMA, ROUTINE_TYPE, BINARY ROUTINE_NAME",
            not_system("ROUTINE_SCHEMA")
        ))
        .await?;
    let mut routines = Vec::new();
    for (database, name, routine_type) in rows {
        if !filter.passes(&database, &name) {
            continue;
        }
        let quoted = quote::qualified(&database, &name);
        let kind = match routine_type.as_str() {
            "PROCEDURE" => ObjectKind::Procedure,
            "FUNCTION" => ObjectKind::Function,
            other => {
                return Err(MysqlError::Unsupported {
                    reason: format!("routine {quoted} is a {other}, which is not dumped yet"),
                });
            }
        };
        type Row = (Vec<u8>, String, Option<Vec<u8>>, String, String, String);
        let (_, mode, create, client, collation, of_database): Row = session
            .query_one(format!("SHOW CREATE {routine_type} {quoted}"))
            .await?;
        routines.push(StoredObject {
            kind,
            create: shown(create, "routine", &quoted)?,
            database,
            name,
            context: context(mode, client, collation, of_database, None),
        });
    }
    Ok(routines)
}

pub(super) async fn events(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    let rows: Vec<(String, String)> = session
        .query(format!(
            "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE {} \
             ORDER BY BINARY EVENT_SCHEMA, BINARY EVENT_NAME",
            not_system("EVENT_SCHEMA")
        ))
        .await?;
    let mut events = Vec::new();
    for (database, name) in rows {
        if !filter.passes(&database, &name) {
            continue;
        }
        let quoted = quote::qualified(&database, &name);
        type Row = (
            Vec<u8>,
            String,
            String,
            Option<Vec<u8>>,
            String,
            String,
            String,
        );
        let (_, mode, zone, create, client, collation, of_database): Row = session
            .query_one(format!("SHOW CREATE EVENT {quoted}"))
            .await?;
        events.push(StoredObject {
            kind: ObjectKind::Event,
            create: shown(create, "event", &quoted)?,
            database,
            name,
            context: context(mode, client, collation, of_database, Some(zone)),
        });
    }
    Ok(events)
}

fn context(
    sql_mode: String,
    client: String,
    collation: String,
    of_database: String,
    time_zone: Option<String>,
) -> Context {
    Context {
        sql_mode: Some(sql_mode),
        character_set_client: client,
        collation_connection: collation,
        database_collation: Some(of_database),
        time_zone,
    }
}
