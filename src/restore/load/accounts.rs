//! Accounts, roles and grants.
//!
//! New accounts are made before the objects whose definers they are. An account that the target has
//! already, such as `root@localhost`, is dropped and made anew, so that it is exactly the snapshot's.
//! Grants come once tables and routines are there, and those that name what is still missing are
//! tried again after each round of views ([`super::views`]). Two kinds of accounts are left
//! alone, each with a warning where it differs: the account of this very connection, for the
//! restore must be able to go on, and accounts that the snapshot does not have.

use std::collections::BTreeSet;

use crate::archive::script::{Script, account_of};
use crate::mysql::{MysqlError, Session, quote};

use super::error::LoadError;

/// What a grant says that names a table (1146), a column (1054), a schema (1049) or a routine (1305)
/// which is gone, or a view that is broken (1356): the server keeps such grants, but does not take
/// them.
const GONE: [u16; 5] = [1049, 1054, 1146, 1305, 1356];
/// `ER_PLUGIN_IS_NOT_LOADED`.
const NO_PLUGIN: u16 = 1524;
/// `ER_DYNAMIC_PRIVILEGE_NOT_REGISTERED`, and `ER_SYNTAX_ERROR`, which 9.x says instead.
const UNKNOWN_PRIVILEGE: [u16; 2] = [3929, 1149];
/// What became of a privilege that 8.4 no longer has (MySQL manual, "Privileges Provided by
/// MySQL", SET_ANY_DEFINER).
const SUCCESSORS: [(&str, &[&str]); 1] = [(
    "SET_USER_ID",
    &["SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER"],
)];

/// The settings of a new session, which scripts change: SHOW CREATE USER and SHOW GRANTS were asked
/// under them.
const AS_CONNECTED: &str = "SET NAMES utf8mb4, SESSION sql_mode = ''";

type Name = (String, String);

/// The accounts of a snapshot and what becomes of each.
pub(super) struct Accounts {
    statements: Vec<(Name, Vec<u8>)>,
    existing: BTreeSet<Name>,
    current: Name,
    /// Those that were made locked, since the server does not know their plugin.
    locked: BTreeSet<Name>,
    /// Grants that name what is not there, or not yet.
    waiting: Vec<(Name, Vec<u8>)>,
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
        let mut warnings = Vec::new();
        let revokes = |(_, statement): &(Name, Vec<u8>)| statement.starts_with(b"REVOKE ");
        if statements.iter().any(revokes)
            && !session
                .query_one::<bool>("SELECT @@GLOBAL.partial_revokes")
                .await?
        {
            session.execute("SET GLOBAL partial_revokes = ON").await?;
            warnings.push(
                "accounts have partial revokes: partial_revokes was switched on, and must be ON in \
                 the server's configuration too"
                    .to_owned(),
            );
        }
        let known: BTreeSet<&Name> = statements.iter().map(|(name, _)| name).collect();
        let strangers = existing.iter().filter(|name| !known.contains(name));
        warnings.extend(
            strangers
                .map(|name| format!("account {} is not the snapshot's and stays", display(name))),
        );
        Ok(Self {
            locked: BTreeSet::new(),
            waiting: Vec::new(),
            current: (user.to_owned(), host.to_owned()),
            existing,
            warnings,
            statements,
        })
    }

    /// Makes the accounts that the target does not have.
    pub(super) async fn create_new(&mut self, session: &mut Session) -> Result<(), LoadError> {
        session.execute(AS_CONNECTED).await?;
        for (name, statement) in self.statements.clone() {
            if is_create(&statement) && !self.existing.contains(&name) {
                self.create(session, &name, &statement).await?;
            }
        }
        Ok(())
    }

    /// Makes an account; one whose plugin the server does not have is made locked, so that its
    /// grants and what it defines are there all the same.
    async fn create(
        &mut self,
        session: &mut Session,
        name: &Name,
        statement: &[u8],
    ) -> Result<(), LoadError> {
        match execute(session, name, statement).await {
            Err(LoadError::Account { source, .. }) if source.code() == Some(NO_PLUGIN) => {
                let sql = format!(
                    "CREATE USER {} IDENTIFIED BY RANDOM PASSWORD ACCOUNT LOCK",
                    quote::account(&name.0, &name.1)
                );
                execute(session, name, sql.as_bytes()).await?;
                self.warnings.push(format!(
                    "account {} was made locked and without its options, for the server cannot \
                     authenticate it as before: {}",
                    display(name),
                    crate::error::with_causes(&source)
                ));
                self.locked.insert(name.clone());
                Ok(())
            }
            other => other,
        }
    }

    /// Makes the others anew and grants what can be granted by now.
    pub(super) async fn grant(&mut self, session: &mut Session) -> Result<(), LoadError> {
        session.execute(AS_CONNECTED).await?;
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
        let statements = self.statements.clone();
        for (name, statement) in &statements {
            let again = self.existing.contains(name) && *name != self.current;
            if is_create(statement) && again {
                let drop = format!("DROP USER {}", quote::account(&name.0, &name.1));
                execute(session, name, drop.as_bytes()).await?;
                self.create(session, name, statement).await?;
            }
        }
        for (name, statement) in &statements {
            let is_last = is_create(statement) || is_password_history(statement);
            if !is_last && *name != self.current {
                self.follow(session, name, statement).await?;
            }
        }
        Ok(())
    }

    /// Tries the grants again that wait, and tells how many there are no more.
    pub(super) async fn again(&mut self, session: &mut Session) -> Result<usize, LoadError> {
        if self.waiting.is_empty() {
            return Ok(0);
        }
        session.execute(AS_CONNECTED).await?;
        let waiting = std::mem::take(&mut self.waiting);
        let before = waiting.len();
        for (name, statement) in waiting {
            self.follow(session, &name, &statement).await?;
        }
        Ok(before - self.waiting.len())
    }

    /// Ends with what passwords were, and tells which grants are still waiting.
    pub(super) async fn finish(&mut self, session: &mut Session) -> Result<(), LoadError> {
        session.execute(AS_CONNECTED).await?;
        self.again(session).await?;
        for (name, statement) in std::mem::take(&mut self.waiting) {
            self.warnings.push(format!(
                "a grant of {} names what is gone and was left out: {}",
                display(&name),
                String::from_utf8_lossy(&statement)
            ));
        }
        for (name, statement) in self.statements.clone() {
            if is_password_history(&statement) && name != self.current {
                self.follow(session, &name, &statement).await?;
            }
        }
        Ok(())
    }

    /// Runs what comes after the account was made.
    async fn follow(
        &mut self,
        session: &mut Session,
        name: &Name,
        statement: &[u8],
    ) -> Result<(), LoadError> {
        let is_grant = statement.starts_with(b"GRANT ") || statement.starts_with(b"REVOKE ");
        if !is_grant && self.locked.contains(name) {
            return Ok(());
        }
        let source = match execute(session, name, statement).await {
            Err(LoadError::Account { source, .. }) if !source.is_connection_lost() => source,
            other => return other,
        };
        match source.code() {
            Some(code) if is_grant && GONE.contains(&code) => {
                self.waiting.push((name.clone(), statement.to_vec()));
                Ok(())
            }
            Some(code) if is_grant && UNKNOWN_PRIVILEGE.contains(&code) => {
                self.grant_one_by_one(session, name, statement).await
            }
            // A server may forbid everybody to write to its own tables.
            _ if is_password_history(statement) => {
                self.warnings.push(format!(
                    "the passwords that {} had are not known to the server: {}",
                    display(name),
                    crate::error::with_causes(&source.without_text())
                ));
                Ok(())
            }
            _ => Err(LoadError::Account {
                account: display(name),
                source,
            }),
        }
    }

    /// Grants what the server knows of a list of privileges.
    async fn grant_one_by_one(
        &mut self,
        session: &mut Session,
        name: &Name,
        statement: &[u8],
    ) -> Result<(), LoadError> {
        let text = String::from_utf8_lossy(statement);
        let parts = text
            .strip_prefix("GRANT ")
            .and_then(|rest| rest.split_once(" ON *.* TO "));
        let Some((privileges, to)) = parts else {
            return execute(session, name, statement).await;
        };
        for privilege in privileges.split(',').map(str::trim) {
            let successors = SUCCESSORS
                .iter()
                .find(|(old, _)| *old == privilege)
                .map_or(&[][..], |(_, new)| *new);
            for privilege in std::iter::once(&privilege).chain(successors) {
                let sql = format!("GRANT {privilege} ON *.* TO {to}");
                match execute(session, name, sql.as_bytes()).await {
                    Err(LoadError::Account { source, .. })
                        if source
                            .code()
                            .is_some_and(|code| UNKNOWN_PRIVILEGE.contains(&code)) =>
                    {
                        self.warnings.push(format!(
                            "the server does not know {privilege}, which {} has",
                            display(name)
                        ));
                    }
                    other => other?,
                }
            }
        }
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
        let there = self.statements.iter().filter(|(name, statement)| {
            *name == self.current
                && [&b"CREATE USER "[..], b"GRANT ", b"REVOKE "]
                    .iter()
                    .any(|start| statement.starts_with(start))
        });
        Ok(!there.map(|(_, statement)| statement).eq(here.iter()))
    }
}

fn is_create(statement: &[u8]) -> bool {
    statement.starts_with(b"CREATE USER ")
}

fn is_password_history(statement: &[u8]) -> bool {
    [
        &b"DELETE FROM mysql.password_history "[..],
        b"INSERT INTO mysql.password_history ",
    ]
    .iter()
    .any(|start| statement.starts_with(start))
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
