//! What accounts need and what they have.
//!
//! [`mod@needs`] is the one table of privileges, with the reason for each and what is lost without it;
//! [`statements`] makes SQL of it. [`GlobalPrivileges`] is what a session has, with its active
//! roles. Of what a snapshot needs only `ON *.*` counts there, less what was taken back for a schema:
//! with less, the server leaves objects out of its lists without saying so, and a snapshot would be
//! short in silence.

pub mod needs;
pub mod statements;

use std::collections::{BTreeMap, BTreeSet};

use super::error::MysqlError;
use super::session::Session;

pub use needs::{Need, Purpose, Scope, Without, needs};
pub use statements::{AccountName, Statements};

/// The global privileges of an account with its active roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalPrivileges {
    /// The account that the server took the session for, such as `quillback@%`.
    account: String,
    names: BTreeSet<String>,
    /// What there is on schemas, and on tables in them.
    objects: BTreeMap<(String, Option<String>), BTreeSet<String>>,
    /// What was taken back, by schema (partial revokes).
    revoked: BTreeMap<String, BTreeSet<String>>,
    /// Roles that the account has and that are not active.
    asleep: BTreeSet<String>,
    /// Whether it may hand on what it has on all schemas.
    grants: bool,
    /// Whether it may give others the right to stand for anybody.
    grants_proxy: bool,
}

impl GlobalPrivileges {
    /// Asks the server for the session's own privileges.
    ///
    /// Without FOR, SHOW GRANTS tells what the account has and what its active roles add, less
    /// partial revokes (MySQL manual, "SHOW GRANTS Statement").
    ///
    /// # Errors
    ///
    /// What a question fails with.
    pub async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        session
            .execute("SET SESSION sql_quote_show_create = 1")
            .await?;
        let grants: Vec<String> = session.query("SHOW GRANTS").await?;
        let (account, active): (String, String) = session
            .query_one("SELECT CURRENT_USER(), CURRENT_ROLE()")
            .await?;
        let mut privileges = Self::parse(grants.iter().map(String::as_str));
        privileges.account = account;
        for role in names_in(&active) {
            privileges.asleep.remove(&role);
        }
        Ok(privileges)
    }

    /// Reads the lines of SHOW GRANTS; every role that they name is taken for one that is not
    /// active.
    #[must_use]
    pub fn parse<'a>(grants: impl Iterator<Item = &'a str>) -> Self {
        let mut privileges = Self::default();
        for line in grants {
            privileges.read(line);
        }
        privileges
    }

    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("REVOKE ") {
            let schema = find_unquoted(rest, " ON ").and_then(|at| {
                let object = &rest[at + " ON ".len()..];
                let end = find_unquoted(object, " FROM ")?;
                let schema = object[..end].strip_suffix(".*")?;
                Some((&rest[..at], names_in(schema).into_iter().next()?))
            });
            if let Some((list, schema)) = schema {
                let revoked = self.revoked.entry(schema).or_default();
                revoked.extend(privileges_in(list));
            }
            return;
        }
        let Some(rest) = line.strip_prefix("GRANT ") else {
            return;
        };
        if rest.starts_with('`') {
            let end = find_unquoted(rest, " TO ").unwrap_or(rest.len());
            self.asleep.extend(names_in(&rest[..end]));
        } else if rest.starts_with("PROXY ON ``@`` TO ") || rest.starts_with("PROXY ON ''@'' TO ") {
            self.grants_proxy |= rest.ends_with(" WITH GRANT OPTION");
        } else if let Some(at) = find_unquoted(rest, " ON ") {
            let object = &rest[at + " ON ".len()..];
            if object.starts_with("*.* TO ") {
                let names: Vec<String> = privileges_in(&rest[..at]).collect();
                // Each dynamic privilege has a grant option of its own; the one for all others
                // stands with those, whose names have no underscore.
                let is_static = names.iter().any(|name| !name.contains('_'));
                self.grants |= is_static && rest.ends_with(" WITH GRANT OPTION");
                self.names.extend(names);
            } else if object.starts_with('`')
                && let Some(end) = find_unquoted(object, " TO ")
            {
                let mut names = names_in(&object[..end]).into_iter();
                // A schema is a pattern, in which a plain underscore is escaped.
                let schema = names.next().unwrap_or_default().replace('\\', "");
                let held = self.objects.entry((schema, names.next())).or_default();
                held.extend(privileges_in(&rest[..at]));
            }
        }
    }

    /// The account that the server took the session for, such as `quillback@%`.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Whether a privilege is there, by the name that GRANT uses.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.names.contains("ALL PRIVILEGES")
    }

    /// Whether a privilege is there on a table, given as `schema.table`.
    #[must_use]
    pub fn has_on(&self, name: &str, table: &str) -> bool {
        let (schema, table) = table.split_once('.').unwrap_or((table, ""));
        let is_taken_back = self
            .revoked
            .get(schema)
            .is_some_and(|revoked| revoked.contains(name));
        let on = |object: Option<&str>| {
            let held = self
                .objects
                .get(&(schema.to_owned(), object.map(ToOwned::to_owned)));
            held.is_some_and(|held| held.contains(name) || held.contains("ALL PRIVILEGES"))
        };
        (self.has(name) && !is_taken_back) || on(None) || on(Some(table))
    }

    /// Whether what a need asks for is there, by itself or by a broader privilege.
    #[must_use]
    pub fn meets(&self, need: &Need) -> bool {
        let mut names = std::iter::once(&need.privilege).chain(need.broader);
        names.any(|name| match need.on {
            Scope::Table(table) => self.has_on(name, table),
            Scope::Everything | Scope::EveryAccount => self.has(name),
        })
    }

    /// Whether it may hand on what it has on all schemas.
    #[must_use]
    pub const fn may_grant(&self) -> bool {
        self.grants
    }

    /// Whether it may give others the right to stand for anybody (PROXY).
    #[must_use]
    pub const fn may_grant_proxy(&self) -> bool {
        self.grants_proxy
    }

    /// The global privileges by their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The schemas for which a privilege was taken back (`partial_revokes`).
    #[must_use]
    pub fn revoked_on(&self, name: &str) -> Vec<&str> {
        let schemas = self.revoked.iter();
        schemas
            .filter(|(_, names)| names.contains(name))
            .map(|(schema, _)| schema.as_str())
            .collect()
    }

    /// The roles that the account has and that are not active, such as `reader@%`.
    pub fn roles_asleep(&self) -> impl Iterator<Item = &str> {
        self.asleep.iter().map(String::as_str)
    }
}

/// The privileges of a list; those on columns only are none.
fn privileges_in(list: &str) -> impl Iterator<Item = String> {
    let mut depth = 0_u32;
    let mut quoted = false;
    list.split(move |c: char| {
        match c {
            '`' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0 && !quoted
    })
    .map(|name| name.trim().to_ascii_uppercase())
    .filter(|name| !name.contains('('))
}

/// The names between backticks, those of an account joined as `user@host`.
fn names_in(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut joins = false;
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        joins |= rest[..start].contains('@');
        let mut name = String::new();
        let mut at = start + 1;
        loop {
            let Some(end) = rest[at..].find('`') else {
                return names;
            };
            name.push_str(&rest[at..at + end]);
            at += end + 1;
            if !rest[at..].starts_with('`') {
                break;
            }
            name.push('`');
            at += 1;
        }
        match names.last_mut() {
            Some(user) if joins => {
                user.push('@');
                user.push_str(&name);
            }
            _ => names.push(name),
        }
        joins = false;
        rest = &rest[at..];
    }
    names
}

/// Where `needle` first stands outside of backticks.
fn find_unquoted(text: &str, needle: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, c)| {
        if c == '`' {
            quoted = !quoted;
        }
        (!quoted && text[at..].starts_with(needle)).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> GlobalPrivileges {
        GlobalPrivileges::parse(lines.iter().copied())
    }

    #[test]
    fn only_global_privileges_count() {
        let grants = parse(&[
            "GRANT SELECT, SHOW VIEW ON *.* TO `b`@`%`",
            "GRANT BACKUP_ADMIN,XA_RECOVER_ADMIN ON *.* TO `b`@`%` WITH GRANT OPTION",
            "GRANT TRIGGER ON `shop`.* TO `b`@`%`",
            "GRANT EVENT ON ` ON *.* TO `.* TO `b`@`%`",
            "GRANT SELECT (`a, RELOAD`), INSERT (`RELOAD`) ON `d`.`t` TO `b`@`%`",
            "GRANT PROXY ON ``@`` TO `b`@`%` WITH GRANT OPTION",
            "GRANT EXECUTE ON PROCEDURE `d`.`p` TO `b`@`%`",
        ]);
        assert!(grants.has("SELECT") && grants.has("SHOW VIEW") && !grants.has("TRIGGER"));
        assert!(grants.has("BACKUP_ADMIN") && grants.has("XA_RECOVER_ADMIN"));
        assert!(!grants.may_grant() && grants.may_grant_proxy());
        for none in ["EVENT", "RELOAD", "EXECUTE", "INSERT", "PROXY"] {
            assert!(!grants.has(none), "{none}");
        }
        let root = parse(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`%`"]);
        assert!(root.has("RELOAD"));
        assert!(!root.may_grant() && !root.may_grant_proxy());
        let root = parse(&["GRANT SELECT, SUPER ON *.* TO `root`@`%` WITH GRANT OPTION"]);
        assert!(root.may_grant());
    }

    #[test]
    fn what_is_granted_on_a_table_is_known() {
        let table = "performance_schema.replication_group_members";
        for (line, has) in [
            ("SELECT ON *.*", true),
            ("SELECT ON `performance_schema`.*", true),
            ("SELECT ON `performance\\_schema`.*", true),
            (
                "SELECT, INSERT ON `performance_schema`.`replication_group_members`",
                true,
            ),
            ("ALL PRIVILEGES ON `performance_schema`.*", true),
            ("INSERT ON `performance_schema`.*", false),
            ("SELECT ON `performance_schema`.`replication_group`", false),
            (
                "SELECT (`MEMBER_ID`) ON `performance_schema`.`replication_group_members`",
                false,
            ),
            ("SELECT ON `mysql`.*", false),
        ] {
            let grants = parse(&[&format!("GRANT {line} TO `b`@`%`")]);
            assert_eq!(grants.has_on("SELECT", table), has, "{line}");
        }
        let taken_back = [
            "GRANT SELECT ON *.* TO `b`@`%`",
            "REVOKE SELECT ON `performance_schema`.* FROM `b`@`%`",
        ];
        assert!(!parse(&taken_back).has_on("SELECT", table));
        let given_again = format!("GRANT SELECT ON `{}` TO `b`@`%`", table.replace('.', "`.`"));
        let again = parse(&[taken_back[0], taken_back[1], &given_again]);
        assert!(again.has_on("SELECT", table));
    }

    #[test]
    fn what_was_taken_back_is_known_by_schema() {
        let grants = parse(&[
            "GRANT SELECT, EVENT ON *.* TO `b`@`%`",
            "REVOKE SELECT, EVENT ON `hid``den`.* FROM `b`@`%`",
            "REVOKE SELECT ON ` FROM `.* FROM `b`@`%`",
        ]);
        assert!(grants.has("SELECT"));
        assert_eq!(grants.revoked_on("SELECT"), [" FROM ", "hid`den"]);
        assert_eq!(grants.revoked_on("EVENT"), ["hid`den"]);
        assert!(grants.revoked_on("TRIGGER").is_empty());
    }

    #[test]
    fn roles_are_told_from_privileges() {
        let grants = parse(&[
            "GRANT USAGE ON *.* TO `b`@`%`",
            "GRANT `reader`@`%`,`SELECT ON *.* TO `@`10.0.0.%` TO `b`@`%` WITH ADMIN OPTION",
        ]);
        assert!(!grants.has("SELECT"));
        let asleep: Vec<&str> = grants.roles_asleep().collect();
        assert_eq!(asleep, ["SELECT ON *.* TO @10.0.0.%", "reader@%"]);
    }

    #[test]
    fn names_are_read_as_the_server_writes_them() {
        assert_eq!(names_in("NONE"), [""; 0]);
        assert_eq!(names_in("`a`@`%`,`b``c`@`h`"), ["a@%", "b`c@h"]);
        assert_eq!(names_in("`db`"), ["db"]);
        assert_eq!(names_in("`open"), [""; 0]);
    }
}
