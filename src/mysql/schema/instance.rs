//! What belongs to no schema and yet must be there first: general tablespaces, spatial reference
//! systems, loadable functions, foreign servers, resource groups.
//!
//! The server has no `SHOW CREATE` for these, so the statements are made here, from its own
//! tables. Texts stand in plain quotes, for the grammar takes nothing else in these places: such a
//! statement needs a session without `NO_BACKSLASH_ESCAPES`.

use std::fmt;

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::optional;

/// An object of the instance.
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceObject {
    /// Its name.
    pub name: String,
    /// The statement that creates it; that of a foreign server holds a password.
    pub create: Vec<u8>,
    /// Whether it is encrypted on disk, so that its server has a keyring.
    pub encrypted: bool,
}

impl fmt::Debug for InstanceObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceObject")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// All of them, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// General tablespaces of InnoDB.
    pub tablespaces: Vec<InstanceObject>,
    /// Spatial reference systems that users made.
    pub spatial_reference_systems: Vec<InstanceObject>,
    /// Functions in libraries.
    pub loadable_functions: Vec<InstanceObject>,
    /// Resource groups that users made.
    pub resource_groups: Vec<InstanceObject>,
    /// Foreign servers.
    pub servers: Vec<InstanceObject>,
}

/// Reads them all. Tablespaces need PROCESS; without RESOURCE_GROUP_USER or RESOURCE_GROUP_ADMIN the
/// server shows no resource groups, of which the plan warns.
pub(super) async fn load(session: &mut Session) -> Result<Instance, MysqlError> {
    Ok(Instance {
        tablespaces: tablespaces(session).await?,
        spatial_reference_systems: spatial_reference_systems(session).await?,
        loadable_functions: loadable_functions(session).await?,
        resource_groups: resource_groups(session).await?,
        servers: servers(session).await?,
    })
}

fn object(name: String, create: String) -> InstanceObject {
    InstanceObject {
        name,
        create: create.into_bytes(),
        encrypted: false,
    }
}

/// What stands before the file in [`tablespace`]'s statement, on a line of its own, so that it can
/// be left out where the file cannot be.
pub const DATAFILE_LINE: &str = "\n  ADD DATAFILE ";

/// A row about a general tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tablespace {
    name: String,
    file: String,
    /// The page size of compressed tables in it; 0 if it takes none.
    zip_page_bytes: u64,
    autoextend_bytes: u64,
    encrypted: bool,
}

fn tablespace(found: Tablespace) -> InstanceObject {
    let file = found.file.strip_prefix("./").unwrap_or(&found.file);
    let mut sql = format!(
        "CREATE TABLESPACE {}{DATAFILE_LINE}{}\n",
        quote::identifier(&found.name),
        quote::escaped(file)
    );
    if found.zip_page_bytes > 0 {
        sql.push_str(&format!("  FILE_BLOCK_SIZE = {}\n", found.zip_page_bytes));
    }
    if found.autoextend_bytes > 0 {
        sql.push_str(&format!("  AUTOEXTEND_SIZE = {}\n", found.autoextend_bytes));
    }
    if found.encrypted {
        sql.push_str("  ENCRYPTION = 'Y'\n");
    }
    sql.push_str("  ENGINE = InnoDB");
    InstanceObject {
        encrypted: found.encrypted,
        ..object(found.name, sql)
    }
}

async fn tablespaces(session: &mut Session) -> Result<Vec<InstanceObject>, MysqlError> {
    type Row = (String, String, u64, String, u64);
    let question = |autoextend: &str| {
        format!(
            "SELECT t.NAME, f.FILE_NAME, t.ZIP_PAGE_SIZE, t.ENCRYPTION, {autoextend} \
             FROM information_schema.INNODB_TABLESPACES t \
             JOIN information_schema.FILES f ON f.FILE_ID = t.SPACE \
             WHERE t.SPACE_TYPE = 'General' AND t.NAME <> 'mysql' ORDER BY BINARY t.NAME"
        )
    };
    // AUTOEXTEND_SIZE came with 8.0.23.
    let rows = match optional(session.query::<Row>(question("t.AUTOEXTEND_SIZE")).await)? {
        Some(rows) => rows,
        None => session.query::<Row>(question("0")).await?,
    };
    Ok(rows
        .into_iter()
        .map(
            |(name, file, zip_page_bytes, encryption, autoextend_bytes)| {
                tablespace(Tablespace {
                    name,
                    file,
                    zip_page_bytes,
                    autoextend_bytes,
                    encrypted: encryption == "Y",
                })
            },
        )
        .collect())
}

/// The ranges that the manual reserves, from and up to these numbers: there stands what servers come
/// with (MySQL manual, "CREATE SPATIAL REFERENCE SYSTEM Statement").
const RESERVED: [(u32, u32); 2] = [(1, 32_767), (60_000_000, 69_999_999)];

fn is_reserved(id: u32) -> bool {
    RESERVED
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&id))
}

/// Those outside the ranges that the manual reserves, and those within that do not look as servers
/// come with them: EPSG's, under EPSG's own number, which the definition names, and not described but as deprecated.
/// Somebody who replaced one by another that looks so too goes unnoticed.
async fn spatial_reference_systems(
    session: &mut Session,
) -> Result<Vec<InstanceObject>, MysqlError> {
    type Row = (
        u32,
        String,
        String,
        Option<String>,
        Option<u32>,
        Option<String>,
    );
    let rows: Vec<Row> = session
        .query(
            "SELECT SRS_ID, SRS_NAME, DEFINITION, ORGANIZATION, ORGANIZATION_COORDSYS_ID, DESCRIPTION \
             FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS WHERE SRS_ID <> 0 AND NOT \
             ((SRS_ID < 32768 OR SRS_ID BETWEEN 60000000 AND 69999999) \
             AND COALESCE(ORGANIZATION, '') = 'EPSG' AND ORGANIZATION_COORDSYS_ID = SRS_ID \
             AND COALESCE(DESCRIPTION, 'Deprecated since EPSG') LIKE 'Deprecated since EPSG%' \
             AND RIGHT(CAST(DEFINITION AS BINARY), 22 + LENGTH(SRS_ID)) \
             = CONCAT(',AUTHORITY[\"EPSG\",\"', SRS_ID, '\"]]')) ORDER BY SRS_ID",
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(
            |(id, name, definition, organization, number, description)| {
                // Another server comes with the one that was replaced here.
                let mut sql = match is_reserved(id) {
                    true => format!("CREATE OR REPLACE SPATIAL REFERENCE SYSTEM {id}"),
                    false => format!("CREATE SPATIAL REFERENCE SYSTEM IF NOT EXISTS {id}"),
                };
                sql.push_str(&format!(
                    " NAME {} DEFINITION {}",
                    quote::escaped(&name),
                    quote::escaped(&definition)
                ));
                if let (Some(organization), Some(number)) = (organization, number) {
                    sql.push_str(&format!(
                        " ORGANIZATION {} IDENTIFIED BY {number}",
                        quote::escaped(&organization)
                    ));
                }
                if let Some(description) = description {
                    sql.push_str(&format!(" DESCRIPTION {}", quote::escaped(&description)));
                }
                object(id.to_string(), sql)
            },
        )
        .collect())
}

/// The numbers are those of the server's `Item_result` (MySQL manual, "The mysql System Schema").
const fn returned(number: i64) -> Option<&'static str> {
    match number {
        0 => Some("STRING"),
        1 => Some("REAL"),
        2 => Some("INTEGER"),
        4 => Some("DECIMAL"),
        _ => None,
    }
}

async fn loadable_functions(session: &mut Session) -> Result<Vec<InstanceObject>, MysqlError> {
    let rows: Vec<(String, i64, String, String)> = session
        .query("SELECT name, ret, dl, type FROM mysql.func ORDER BY BINARY name")
        .await?;
    rows.into_iter()
        .map(|(name, number, library, kind)| {
            let returns = returned(number).ok_or_else(|| {
                MysqlError::protocol(format!("loadable function {name} returns {number}"))
            })?;
            let aggregate = match kind.as_str() {
                "aggregate" => "AGGREGATE ",
                _ => "",
            };
            let sql = format!(
                "CREATE {aggregate}FUNCTION {} RETURNS {returns} SONAME {}",
                quote::identifier(&name),
                quote::escaped(&library)
            );
            Ok(object(name, sql))
        })
        .collect()
}

async fn resource_groups(session: &mut Session) -> Result<Vec<InstanceObject>, MysqlError> {
    type Row = (String, String, i64, Option<String>, i64);
    let rows: Vec<Row> = session
        .query(
            "SELECT RESOURCE_GROUP_NAME, RESOURCE_GROUP_TYPE, RESOURCE_GROUP_ENABLED, \
             CONVERT(VCPU_IDS USING utf8mb4), THREAD_PRIORITY \
             FROM information_schema.RESOURCE_GROUPS ORDER BY BINARY RESOURCE_GROUP_NAME",
        )
        .await?;
    Ok(rows
        .into_iter()
        .filter(|(name, ..)| !["USR_default", "SYS_default"].contains(&name.as_str()))
        .map(|(name, kind, enabled, cpus, priority)| {
            let mut sql = format!(
                "CREATE RESOURCE GROUP {} TYPE = {kind}",
                quote::identifier(&name)
            );
            if let Some(cpus) = cpus.filter(|cpus| !cpus.is_empty()) {
                sql.push_str(&format!(" VCPU = {cpus}"));
            }
            sql.push_str(&format!(
                " THREAD_PRIORITY = {priority} {}",
                if enabled == 0 { "DISABLE" } else { "ENABLE" }
            ));
            object(name, sql)
        })
        .collect())
}

async fn servers(session: &mut Session) -> Result<Vec<InstanceObject>, MysqlError> {
    type Row = (
        String,
        String,
        String,
        String,
        String,
        String,
        i64,
        String,
        String,
    );
    let rows: Vec<Row> = session
        .query(
            "SELECT Server_name, Wrapper, Host, Db, Username, Password, Port, Socket, Owner \
             FROM mysql.servers ORDER BY BINARY Server_name",
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(
            |(name, wrapper, host, database, user, password, port, socket, owner)| {
                let mut options: Vec<String> = [
                    ("HOST", &host),
                    ("DATABASE", &database),
                    ("USER", &user),
                    ("PASSWORD", &password),
                    ("SOCKET", &socket),
                    ("OWNER", &owner),
                ]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(option, value)| format!("{option} {}", quote::escaped(value)))
                .collect();
                if port > 0 || options.is_empty() {
                    options.push(format!("PORT {port}"));
                }
                let sql = format!(
                    "CREATE SERVER {} FOREIGN DATA WRAPPER {} OPTIONS ({})",
                    quote::identifier(&name),
                    quote::identifier(&wrapper),
                    options.join(", ")
                );
                object(name, sql)
            },
        )
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_is_made_with_what_it_has() {
        let plain = Tablespace {
            name: "t`s".to_owned(),
            file: "./it's.ibd".to_owned(),
            zip_page_bytes: 0,
            autoextend_bytes: 0,
            encrypted: false,
        };
        let text = |found| String::from_utf8(tablespace(found).create).expect("ASCII");
        assert_eq!(
            text(plain.clone()),
            "CREATE TABLESPACE `t``s`\n  ADD DATAFILE 'it''s.ibd'\n  ENGINE = InnoDB"
        );
        let full = Tablespace {
            file: "/data/x.ibd".to_owned(),
            zip_page_bytes: 8192,
            autoextend_bytes: 4 << 20,
            encrypted: true,
            ..plain
        };
        assert_eq!(
            text(full),
            "CREATE TABLESPACE `t``s`\n  ADD DATAFILE '/data/x.ibd'\n  FILE_BLOCK_SIZE = 8192\n  \
             AUTOEXTEND_SIZE = 4194304\n  ENCRYPTION = 'Y'\n  ENGINE = InnoDB"
        );
    }

    #[test]
    fn debug_output_holds_no_password() {
        let server = object("s".to_owned(), "PASSWORD 'hunter2'".to_owned());
        assert!(!format!("{server:?}").contains("hunter2"));
    }
}
