//! Triggers, routines and events, and what they share with views: objects whose text means what it
//! means only under the session settings of its creation.

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::{Filter, not_system, optional, shown};

/// The kinds of stored objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A view.
    View,
    /// A library of code that routines use (9.2).
    Library,
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
    /// When it was created, in seconds since 1970, as text; views have none. The server refuses an
    /// event whose time is over, so it must be made at its own time.
    pub created: Option<String>,
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

/// Triggers in the order in which the server fires them, which creating them in turn keeps.
pub(super) async fn triggers(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    // The session's time zone is UTC.
    let rows: Vec<(String, String, String, Option<String>)> = session
        .query(format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE, \
             CAST(UNIX_TIMESTAMP(CREATED) AS CHAR) FROM information_schema.TRIGGERS WHERE {} \
             ORDER BY BINARY TRIGGER_SCHEMA, BINARY EVENT_OBJECT_TABLE, EVENT_MANIPULATION, \
             ACTION_TIMING, ACTION_ORDER",
            not_system("TRIGGER_SCHEMA")
        ))
        .await?;
    let mut triggers = Vec::new();
    for (database, name, table, created) in rows {
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
            .await
            .map_err(|error| error.of(format!("trigger {quoted}")))?;
        triggers.push(StoredObject {
            kind: ObjectKind::Trigger,
            create: shown(create, "trigger", &quoted)?,
            database,
            name,
            context: Context {
                created,
                ..context(mode, client, collation, of_database)
            },
        });
    }
    Ok(triggers)
}

/// Libraries, which came with 9.2.
pub(super) async fn libraries(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    let rows = session
        .query::<(String, String)>(format!(
            "SELECT LIBRARY_SCHEMA, LIBRARY_NAME FROM information_schema.LIBRARIES WHERE {} \
             ORDER BY BINARY LIBRARY_SCHEMA, BINARY LIBRARY_NAME",
            not_system("LIBRARY_SCHEMA")
        ))
        .await;
    let mut libraries = Vec::new();
    for (database, name) in optional(rows)?.unwrap_or_default() {
        if !filter.passes(&database, &name) {
            continue;
        }
        let quoted = quote::qualified(&database, &name);
        let (_, mode, create): (Vec<u8>, String, Option<Vec<u8>>) = session
            .query_one(format!("SHOW CREATE LIBRARY {quoted}"))
            .await
            .map_err(|error| error.of(format!("library {quoted}")))?;
        libraries.push(StoredObject {
            kind: ObjectKind::Library,
            create: shown(create, "library", &quoted)?,
            database,
            name,
            context: Context {
                sql_mode: Some(mode),
                character_set_client: "utf8mb4".to_owned(),
                collation_connection: "utf8mb4_0900_ai_ci".to_owned(),
                ..Context::default()
            },
        });
    }
    Ok(libraries)
}

pub(super) async fn routines(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    let rows: Vec<(String, String, String, Option<String>)> = session
        .query(format!(
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, \
             CAST(UNIX_TIMESTAMP(CREATED) AS CHAR) FROM information_schema.ROUTINES WHERE {} ORDER BY BINARY ROUTINE_SCHEMA, ROUTINE_TYPE, BINARY ROUTINE_NAME",
            not_system("ROUTINE_SCHEMA")
        ))
        .await?;
    let mut routines = Vec::new();
    for (database, name, routine_type, created) in rows {
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
            .await
            .map_err(|error| error.of(format!("routine {quoted}")))?;
        routines.push(StoredObject {
            kind,
            create: shown(create, "routine", &quoted)?,
            database,
            name,
            context: Context {
                created,
                ..context(mode, client, collation, of_database)
            },
        });
    }
    Ok(routines)
}

pub(super) async fn events(
    session: &mut Session,
    filter: &Filter,
) -> Result<Vec<StoredObject>, MysqlError> {
    let rows: Vec<(String, String, Option<String>)> = session
        .query(format!(
            "SELECT EVENT_SCHEMA, EVENT_NAME, CAST(UNIX_TIMESTAMP(CREATED) AS CHAR) \
             FROM information_schema.EVENTS WHERE {} \
             ORDER BY BINARY EVENT_SCHEMA, BINARY EVENT_NAME",
            not_system("EVENT_SCHEMA")
        ))
        .await?;
    let mut events = Vec::new();
    for (database, name, created) in rows {
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
            .await
            .map_err(|error| error.of(format!("event {quoted}")))?;
        events.push(StoredObject {
            kind: ObjectKind::Event,
            create: shown(create, "event", &quoted)?,
            database,
            name,
            context: Context {
                time_zone: Some(zone),
                created,
                ..context(mode, client, collation, of_database)
            },
        });
    }
    Ok(events)
}

fn context(sql_mode: String, client: String, collation: String, of_database: String) -> Context {
    Context {
        sql_mode: Some(sql_mode),
        character_set_client: client,
        collation_connection: collation,
        database_collation: Some(of_database),
        ..Context::default()
    }
}
