//! Running the scripts: what fails is told by the object's name, and what may fail becomes a
//! warning.

use std::collections::BTreeMap;

use crate::archive::manifest::{ScriptKind, TableEntry};
use crate::archive::script::{Script, names_of, object_of};
use crate::mysql::schema::DATAFILE_LINE;
use crate::mysql::{MysqlError, Session, quote};

use super::error::LoadError;

/// What the server says of an event whose time is over: that it was disabled (1544), or that it is
/// gone at once (1588).
const EVENT_IS_OVER: [u16; 2] = [1544, 1588];

/// What the server says of an object that is there already: a schema (1007), a table or view (1050),
/// a function of a library (1125), a routine or library (1304), a trigger (1359), a foreign server (1476), an
/// event (1537), a tablespace (1813), a resource group (3650), a spatial reference system (3712).
const EXISTS: [u16; 10] = [1007, 1050, 1125, 1304, 1359, 1476, 1537, 1813, 3650, 3712];

/// The statements that make each table, by schema and name, in their order; snapshots of older
/// versions do not name their tables.
pub(super) fn of_tables(
    scripts: &[(ScriptKind, Script)],
) -> BTreeMap<(String, String), Vec<&[u8]>> {
    let mut statements: BTreeMap<(String, String), Vec<&[u8]>> = BTreeMap::new();
    let tables = scripts
        .iter()
        .filter(|(kind, _)| *kind == ScriptKind::Tables);
    for statement in tables.flat_map(|(_, script)| script.statements()) {
        if let Some((names, statement)) = names_of(statement)
            && let Ok([database, table]) = <[String; 2]>::try_from(names)
        {
            let of_table = statements.entry((database, table)).or_default();
            of_table.push(statement);
        }
    }
    statements
}

/// Makes a table anew, without rows.
pub(super) async fn remake(
    session: &mut Session,
    table: &TableEntry,
    statements: &[&[u8]],
) -> Result<(), MysqlError> {
    let name = quote::qualified(&table.database, &table.name);
    session
        .execute(format!("DROP TABLE IF EXISTS {name}"))
        .await?;
    session
        .execute(format!("USE {}", quote::identifier(&table.database)))
        .await?;
    for statement in statements {
        session.execute(statement).await?;
    }
    Ok(())
}

/// Runs scripts over the session that makes the schema.
pub(super) struct ScriptRunner<'a> {
    /// Whether an earlier run may have made what is to be made: the target was empty before it.
    pub(super) again: bool,
    pub(super) session: &'a mut Session,
    pub(super) scripts: &'a [(ScriptKind, Script)],
    pub(super) warnings: &'a mut Vec<String>,
}

impl ScriptRunner<'_> {
    /// Runs these kinds in turn; a kind that the snapshot does not have is no script.
    pub(super) async fn kinds(&mut self, kinds: &[ScriptKind]) -> Result<(), LoadError> {
        for wanted in kinds {
            let scripts = self.scripts.iter().filter(|(kind, _)| kind == wanted);
            for (kind, script) in scripts {
                for statement in script.statements() {
                    self.statement(*kind, statement).await?;
                }
            }
        }
        Ok(())
    }

    async fn statement(&mut self, kind: ScriptKind, marked: &[u8]) -> Result<(), LoadError> {
        // Snapshots of older versions do not name their objects.
        let (name, statement) = match object_of(marked) {
            Some((name, statement)) => (name, statement),
            None if kind.is_secret() => ("a statement".to_owned(), marked),
            None => (start_of(marked), marked),
        };
        let Err(source) = self.execute(kind, &name, statement).await else {
            return Ok(());
        };
        if self.is_there(&source) {
            return Ok(());
        }
        if !source.is_connection_lost() {
            if self.elsewhere(kind, &name, statement, &source).await? {
                return Ok(());
            }
            if kind.may_fail() {
                self.not_made(kind, &name, &source);
                return Ok(());
            }
        }
        Err(LoadError::Statement {
            kind,
            object: name,
            source: if kind.is_secret() {
                source.without_text()
            } else {
                source
            },
        })
    }

    /// Whether a statement was refused since an earlier run has done it.
    pub(super) fn is_there(&self, refused: &MysqlError) -> bool {
        self.again && refused.code().is_some_and(|code| EXISTS.contains(&code))
    }

    /// Tells of what may be missing.
    pub(super) fn not_made(&mut self, kind: ScriptKind, name: &str, source: &MysqlError) {
        self.warnings.push(format!(
            "{name} of the {kind} was not made: {}",
            crate::error::with_causes(source)
        ));
    }

    async fn execute(
        &mut self,
        kind: ScriptKind,
        name: &str,
        statement: &[u8],
    ) -> Result<(), MysqlError> {
        if kind == ScriptKind::Histograms && statement.starts_with(b"ANALYZE ") {
            return self.analyze(statement).await;
        }
        let outcome = self.session.execute(statement).await?;
        let elsewhere = kind == ScriptKind::Tables && has_data_directory(statement);
        if outcome.warnings > 0 && (elsewhere || kind == ScriptKind::Events) {
            let told: Vec<(String, u16, String)> = self.session.query("SHOW WARNINGS").await?;
            // A partitioned table says it once a partition.
            let first = told.into_iter().find_map(|(_, code, message)| {
                if EVENT_IS_OVER.contains(&code) {
                    Some(format!("event {name}: {message}"))
                } else if elsewhere && message.contains("DATA DIRECTORY") {
                    Some(at_home(name, &message))
                } else {
                    None
                }
            });
            self.warnings.extend(first);
        }
        Ok(())
    }

    /// ANALYZE TABLE answers with rows, in which it also tells its errors.
    async fn analyze(&mut self, statement: &[u8]) -> Result<(), MysqlError> {
        let rows: Vec<(String, String, String, String)> = self.session.query(statement).await?;
        match rows
            .into_iter()
            .find(|(_, _, kind, _)| kind.eq_ignore_ascii_case("error"))
        {
            None => Ok(()),
            Some((_, _, _, message)) => Err(MysqlError::protocol(message)),
        }
    }

    /// Tries again without the place for files that the source's host had; `false` if there was
    /// none or it did not help.
    async fn elsewhere(
        &mut self,
        kind: ScriptKind,
        name: &str,
        statement: &[u8],
        refused: &MysqlError,
    ) -> Result<bool, LoadError> {
        let made = match kind {
            ScriptKind::Tablespaces => match without_datafile(statement) {
                Some(statement) => self.session.execute(statement).await.is_ok(),
                None => return Ok(false),
            },
            ScriptKind::Tables if memchr::memmem::find(statement, b" DATA DIRECTORY").is_some() => {
                let mode: String = self.session.query_one("SELECT @@SESSION.sql_mode").await?;
                let set = |mode: &str| format!("SET SESSION sql_mode = {}", quote::string(mode));
                let ignoring = format!("{mode},NO_DIR_IN_CREATE");
                self.session.execute(set(&ignoring)).await?;
                let made = self.session.execute(statement).await.is_ok();
                self.session.execute(set(&mode)).await?;
                made
            }
            _ => return Ok(false),
        };
        if made {
            let why = crate::error::with_causes(refused);
            self.warnings.push(at_home(name, &why));
        }
        Ok(made)
    }
}

/// Whether it may name a place for a table's files; without strict mode the server only warns if
/// it does not take it.
fn has_data_directory(statement: &[u8]) -> bool {
    memchr::memmem::find(statement, b" DATA DIRECTORY").is_some()
}

fn at_home(name: &str, why: &str) -> String {
    format!(
        "the files of {name} are in the data directory, since the server does not take the place \
         that they had: {why}"
    )
}

/// The statement of a tablespace without its file, for which the server then finds a name itself.
fn without_datafile(statement: &[u8]) -> Option<Vec<u8>> {
    let at = memchr::memmem::find(statement, DATAFILE_LINE.as_bytes())?;
    let rest = &statement[at + 1..];
    let end = memchr::memchr(b'\n', rest)?;
    Some([&statement[..at], &rest[end..]].concat())
}

/// The first line or so of a statement.
pub(super) fn start_of(statement: &[u8]) -> String {
    let cut = statement.len().min(160);
    String::from_utf8_lossy(&statement[..cut]).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_can_do_without_its_file() {
        let with = format!("CREATE TABLESPACE `t`{DATAFILE_LINE}'/x/y.ibd'\n  ENGINE = InnoDB");
        assert_eq!(
            without_datafile(with.as_bytes()),
            Some(b"CREATE TABLESPACE `t`\n  ENGINE = InnoDB".to_vec())
        );
        assert_eq!(without_datafile(b"CREATE TABLESPACE `t`"), None);
    }
}
