//! Accounts, roles and grants.
//!
//! New accounts are made before the objects whose definers they are; grants come after the
//! objects that they name. An account that the target has already, such as `root@localhost`, is
//! dropped and made anew at the very end, so that it is exactly the snapshot's. Two are left
//! alone, each with a warning where it differs: the account of this very connection, for the
//! restore must be able to go on, and accounts that the snapshot does not have.

use std::collections::BTreeSet;

use crate::archive::script::{Script, account_of};
use crate::mysql::{MysqlError, Session, quote};

use super::error::LoadError;

/// What a grant says that names a table (1146), a schema (1049) or a routine (1305) which is gone:
/// the server keeps such grants, but does not take them.
const GONE: [u16; 3] = [1049, 1146, 1305];

type Name = (String, String);

/// The accounts of a snapshot and what becomes of each.
pub(super) struct Accounts {
    statements: Vec<(Name, Vec<u8>)>,
    existing: BTreeSet<Name>,
    current: Name,
    pub(super) warnings: Vec<String>,
}

impl Accounts {
    /// Compares the script with the target.
    pub(super) async fn plan(session: &mut Session, script: &Script) -> Result<Self, LoadError> {
        let statements: Vec<(Name, Vec<u8>)> = script
            .statements()
            .iter()
            .filter_map(|statement| account_of(statement))
            .map(|(user, host, statement)| ((user, host), statement.to_vec()))
            .collect();
        let rows: Vec<Name> = session
            .query(
                "SELECT User, Host FROM mysql.user \
                 WHERE User NOT IN ('mysql.sys', 'mysql.session', 'mysql.infoschema')",
            )
            .await?;
        let existing: BTreeSet<Name> = rows.into_iter().collect();
        let current: String = session.query_one("SELECT CURRENT_USER()").await?;
        let (user, host) = current.rsplit_once('@').unwrap_or((&current, ""));
        let known: BTreeSet<&Name> = statements.iter().map(|(name, _)| name).collect();
        let warnings = existing
            .iter()
            .filter(|name| !known.contains(name))
            .map(|name| format!("account {} is not the snapshot's and stays", display(name)))
            .collect();
        Ok(Self {
            current: (user.to_owned(), host.to_owned()),
            existing,
            warnings,
            statements,
        })
    }

    /// Makes the accounts that the target does not have.
    pub(super) async fn create_new(&self, session: &mut Session) -> Result<(), LoadError> {
        for (name, statement) in &self.statements {
            if is_create(statement) && !self.existing.contains(name) {
                execute(session, name, statement).await?;
            }
        }
        Ok(())
    }

    /// Makes the others anew and grants what is granted.
    pub(super) async fn finish(&mut self, session: &mut Session) -> Result<(), LoadError> {
        if self
            .statements
            .iter()
            .any(|(name, _)| *name == self.current)
        {
            let differs = self.differs(session).await?;
            if differs {
                self.warnings.push(format!(
                    "account {} differs from the snapshot's, but stays as it is, for this restore \
                     uses it",
                    display(&self.current)
                ));
            }
        }
        for (name, statement) in &self.statements {
            let again = self.existing.contains(name) && *name != self.current;
            if is_create(statement) && again {
                let drop = format!("DROP USER {}", quote::account(&name.0, &name.1));
                execute(session, name, drop.as_bytes()).await?;
                execute(session, name, statement).await?;
            }
        }
        let mut gone = Vec::new();
        for (name, statement) in &self.statements {
            if is_create(statement) || *name == self.current {
                continue;
            }
            match execute(session, name, statement).await {
                Err(LoadError::Account { source, .. })
                    if source.code().is_some_and(|code| GONE.contains(&code)) =>
                {
                    gone.push(format!(
                        "a grant of {} names what is gone and was left out: {}",
                        display(name),
                        String::from_utf8_lossy(statement)
                    ));
                }
                other => other?,
            }
        }
        self.warnings.extend(gone);
        Ok(())
    }

    /// Whether the account of this connection is another one than the snapshot's of its name.
    async fn differs(&self, session: &mut Session) -> Result<bool, MysqlError> {
        let quoted = quote::account(&self.current.0, &self.current.1);
        match session
            .execute("SET SESSION print_identified_with_as_hex = 1")
            .await
        {
            // Servers before 8.0.17 print hashes as they are, and so did the snapshot's.
            Err(error) if error.code() == Some(1193) => {}
            other => {
                other?;
            }
        }
        let mut here: Vec<Vec<u8>> = session.query(format!("SHOW CREATE USER {quoted}")).await?;
        here.extend(
            session
                .query::<Vec<u8>>(format!("SHOW GRANTS FOR {quoted}"))
                .await?,
        );
        let there = self
            .statements
            .iter()
            .filter(|(name, _)| *name == self.current);
        Ok(!there.map(|(_, statement)| statement).eq(here.iter()))
    }
}

fn is_create(statement: &[u8]) -> bool {
    statement.starts_with(b"CREATE USER ")
}

fn display(name: &Name) -> String {
    format!("{}@{}", name.0, name.1)
}

async fn execute(session: &mut Session, name: &Name, statement: &[u8]) -> Result<(), LoadError> {
    match session.execute(statement).await {
        Ok(_) => Ok(()),
        Err(source) => Err(LoadError::Account {
            account: display(name),
            source,
        }),
    }
}
