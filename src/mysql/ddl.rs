//! What a logged statement does to the schema: enough to say whether it concerns a table.
//!
//! A binlog holds DDL as the text that somebody wrote, with comments and in any style. The text
//! is cut into words and names; its first words say what it is, and the names that follow them what
//! it changes. Nothing else of SQL is understood. The invariant: a statement that changes tables
//! in a way that is not known here has no names, and whoever asks must take it for any table.
//!
//! That is [`Ddl`], for looking at statements. To run them elsewhere, under other names, `statement` reads
//! them strictly, `lineage` follows tables through them, and `staging` writes them anew;
//! `definition` and `view` do the like for what a server prints.

pub mod definition;
mod lexer;
pub mod lineage;
pub mod staging;
pub mod statement;
mod tokens;
pub mod view;

pub use lexer::{Dialect, Misunderstood};

use tokens::{Token, tokens};

/// What kind of thing a statement changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlKind {
    /// Tables, with their columns, indexes and partitions.
    Table,
    /// A schema as a whole.
    Database,
    /// Accounts, roles and what they may do.
    Accounts,
    /// Something without rows: a view, a routine, a trigger, an event, a tablespace.
    Other,
}

/// The name of a table (or of a schema, without a table).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdlName {
    /// The schema: that of the name, else the statement's default.
    pub database: String,
    /// The table; `None` for a schema.
    pub table: Option<String>,
}

impl std::fmt::Display for DdlName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.database)?;
        match &self.table {
            Some(table) => write!(f, ".{table}"),
            None => Ok(()),
        }
    }
}

/// A statement that changes the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ddl {
    /// What it changes.
    pub kind: DdlKind,
    /// Its first words, such as `ALTER TABLE`.
    pub verb: String,
    /// The tables or the schema that it changes. Empty for other kinds, and for a statement on
    /// tables that is not understood.
    pub names: Vec<DdlName>,
}

impl Ddl {
    /// Reads a statement whose default schema is `database`; `None` if it changes no schema.
    #[must_use]
    pub fn parse(database: &str, text: &str) -> Option<Self> {
        let tokens = tokens(text);
        Reader {
            tokens: &tokens,
            at: 0,
            database,
        }
        .statement()
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    database: &'a str,
}

impl Reader<'_> {
    fn statement(mut self) -> Option<Ddl> {
        if self.eat(&["CREATE"]) {
            return Some(self.create());
        }
        if self.eat(&["ALTER"]) {
            return Some(self.alter());
        }
        if self.eat(&["DROP"]) {
            return Some(self.drop());
        }
        if self.eat(&["RENAME"]) {
            if self.eat(&["TABLE"]) || self.eat(&["TABLES"]) {
                let names = self.renamed();
                return Some(of_tables("RENAME TABLE", names));
            }
            return Some(accounts("RENAME USER"));
        }
        if self.eat(&["TRUNCATE"]) {
            self.eat(&["TABLE"]);
            let name = self.table();
            return Some(of_tables("TRUNCATE TABLE", name.into_iter().collect()));
        }
        if self.eat(&["OPTIMIZE"]) || self.eat(&["REPAIR"]) {
            let _ = self.eat(&["NO_WRITE_TO_BINLOG"]) || self.eat(&["LOCAL"]);
            let verb = "OPTIMIZE TABLE";
            return (self.eat(&["TABLE"]) || self.eat(&["TABLES"]))
                .then(|| of_tables(verb, self.list()));
        }
        if self.eat(&["GRANT"]) {
            return Some(accounts("GRANT"));
        }
        if self.eat(&["REVOKE"]) {
            return Some(accounts("REVOKE"));
        }
        if self.eat(&["SET", "PASSWORD"]) {
            return Some(accounts("SET PASSWORD"));
        }
        if self.eat(&["SET", "DEFAULT", "ROLE"]) {
            return Some(accounts("SET DEFAULT ROLE"));
        }
        None
    }

    fn create(mut self) -> Ddl {
        self.eat(&["OR", "REPLACE"]);
        for word in ["UNIQUE", "FULLTEXT", "SPATIAL"] {
            self.eat(&[word]);
        }
        if self.eat(&["TEMPORARY"]) {
            return other("CREATE TEMPORARY TABLE");
        }
        if self.eat(&["TABLE"]) {
            self.eat(&["IF", "NOT", "EXISTS"]);
            return of_tables("CREATE TABLE", self.table().into_iter().collect());
        }
        if self.eat(&["INDEX"]) {
            return of_tables("CREATE INDEX", self.behind_on());
        }
        if self.is_database() {
            self.eat(&["IF", "NOT", "EXISTS"]);
            return self.schema("CREATE DATABASE");
        }
        if self.eat(&["USER"]) || self.eat(&["ROLE"]) {
            return accounts("CREATE USER");
        }
        other(&self.what("CREATE"))
    }

    fn alter(mut self) -> Ddl {
        if self.eat(&["TABLE"]) {
            let mut names: Vec<DdlName> = self.table().into_iter().collect();
            // EXCHANGE PARTITION p WITH TABLE t takes rows from one to the other.
            while self.at < self.tokens.len() {
                if self.eat(&["WITH", "TABLE"]) {
                    names.extend(self.table());
                } else {
                    self.at += 1;
                }
            }
            return of_tables("ALTER TABLE", names);
        }
        if self.is_database() {
            return self.schema("ALTER DATABASE");
        }
        if self.eat(&["USER"]) {
            return accounts("ALTER USER");
        }
        other(&self.what("ALTER"))
    }

    fn drop(mut self) -> Ddl {
        if self.eat(&["TEMPORARY"]) {
            return other("DROP TEMPORARY TABLE");
        }
        if self.eat(&["TABLE"]) || self.eat(&["TABLES"]) {
            self.eat(&["IF", "EXISTS"]);
            return of_tables("DROP TABLE", self.list());
        }
        if self.eat(&["INDEX"]) {
            return of_tables("DROP INDEX", self.behind_on());
        }
        if self.is_database() {
            self.eat(&["IF", "EXISTS"]);
            return self.schema("DROP DATABASE");
        }
        if self.eat(&["USER"]) || self.eat(&["ROLE"]) {
            return accounts("DROP USER");
        }
        other(&self.what("DROP"))
    }

    /// Passes the words if they are next.
    fn eat(&mut self, words: &[&str]) -> bool {
        let next = self.tokens.get(self.at..).unwrap_or_default();
        let fits = next.len() >= words.len()
            && words.iter().zip(next).all(|(word, token)| {
                matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word))
            });
        if fits {
            self.at += words.len();
        }
        fits
    }

    fn is_database(&mut self) -> bool {
        self.eat(&["DATABASE"]) || self.eat(&["SCHEMA"])
    }

    fn sign(&mut self, sign: char) -> bool {
        let fits = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(fits);
        fits
    }

    fn name(&mut self) -> Option<String> {
        match self.tokens.get(self.at)? {
            Token::Word(name) | Token::Quoted(name) => {
                self.at += 1;
                Some(name.clone())
            }
            _ => None,
        }
    }

    /// `table` or `schema.table`.
    fn table(&mut self) -> Option<DdlName> {
        let first = self.name()?;
        let (database, table) = if self.sign('.') {
            (first, self.name()?)
        } else {
            (self.database.to_owned(), first)
        };
        Some(DdlName {
            database,
            table: Some(table),
        })
    }

    /// Names with commas between them.
    fn list(&mut self) -> Vec<DdlName> {
        let mut names: Vec<DdlName> = self.table().into_iter().collect();
        while self.sign(',') {
            names.extend(self.table());
        }
        names
    }

    /// `a TO b, c TO d`.
    fn renamed(&mut self) -> Vec<DdlName> {
        let mut names = Vec::new();
        loop {
            names.extend(self.table());
            if !(self.eat(&["TO"]) || self.sign(',')) {
                return names;
            }
        }
    }

    /// The table behind the first ON, of a statement on an index.
    fn behind_on(&mut self) -> Vec<DdlName> {
        while self.at < self.tokens.len() {
            if self.eat(&["ON"]) {
                return self.table().into_iter().collect();
            }
            self.at += 1;
        }
        Vec::new()
    }

    fn schema(mut self, verb: &str) -> Ddl {
        // ALTER DATABASE without a name means the default one.
        let named = match self.tokens.get(self.at) {
            Some(Token::Word(word)) if is_option(word) => None,
            _ => self.name(),
        };
        Ddl {
            kind: DdlKind::Database,
            verb: verb.to_owned(),
            names: vec![DdlName {
                database: named.unwrap_or_else(|| self.database.to_owned()),
                table: None,
            }],
        }
    }

    /// The verb with what it is done to, as far as the first words say it.
    fn what(&mut self, verb: &str) -> String {
        const OBJECTS: [&str; 16] = [
            "VIEW",
            "PROCEDURE",
            "FUNCTION",
            "TRIGGER",
            "EVENT",
            "TABLESPACE",
            "UNDO",
            "LOGFILE",
            "SERVER",
            "RESOURCE",
            "SPATIAL",
            "LIBRARY",
            "INSTANCE",
            "MATERIALIZED",
            "JSON",
            "MASKING",
        ];
        let found = self.tokens[self.at..].iter().find_map(|token| match token {
            Token::Word(word) => OBJECTS
                .iter()
                .find(|object| word.eq_ignore_ascii_case(object)),
            _ => None,
        });
        match found {
            Some(object) => format!("{verb} {object}"),
            None => verb.to_owned(),
        }
    }
}

fn is_option(word: &str) -> bool {
    [
        "DEFAULT",
        "CHARACTER",
        "CHARSET",
        "COLLATE",
        "ENCRYPTION",
        "READ",
    ]
    .iter()
    .any(|option| word.eq_ignore_ascii_case(option))
}

fn of_tables(verb: &str, names: Vec<DdlName>) -> Ddl {
    Ddl {
        kind: DdlKind::Table,
        verb: verb.to_owned(),
        names,
    }
}

fn accounts(verb: &str) -> Ddl {
    Ddl {
        kind: DdlKind::Accounts,
        verb: verb.to_owned(),
        names: Vec::new(),
    }
}

fn other(verb: &str) -> Ddl {
    Ddl {
        kind: DdlKind::Other,
        verb: verb.to_owned(),
        names: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `KIND VERB: names`, or nothing.
    fn said(text: &str) -> String {
        Ddl::parse("shop", text).map_or_else(String::new, |ddl| {
            let names: Vec<String> = ddl.names.iter().map(ToString::to_string).collect();
            format!("{:?} {}: {}", ddl.kind, ddl.verb, names.join(" "))
        })
    }

    #[test]
    fn statements_on_tables_name_them() {
        for (text, expected) in [
            ("ALTER TABLE t ADD c INT", "ALTER TABLE: shop.t"),
            (
                "alter table `a``b`.`c.d` drop column x",
                "ALTER TABLE: a`b.c.d",
            ),
            (
                "/* note */ ALTER /*!80000 TABLE */ t -- end\n ENGINE=InnoDB",
                "ALTER TABLE: shop.t",
            ),
            (
                "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE x.u WITHOUT VALIDATION",
                "ALTER TABLE: shop.t x.u",
            ),
            (
                "ALTER TABLE t COMMENT 'with table u'",
                "ALTER TABLE: shop.t",
            ),
            (
                "DROP TABLE IF EXISTS a, b.c /* generated by server */",
                "DROP TABLE: shop.a b.c",
            ),
            (
                "RENAME TABLE a TO b.c, `d` TO e",
                "RENAME TABLE: shop.a b.c shop.d shop.e",
            ),
            ("TRUNCATE t", "TRUNCATE TABLE: shop.t"),
            ("TRUNCATE TABLE x.t", "TRUNCATE TABLE: x.t"),
            (
                "CREATE TABLE IF NOT EXISTS n (id INT)",
                "CREATE TABLE: shop.n",
            ),
            ("CREATE UNIQUE INDEX i ON x.t (a)", "CREATE INDEX: x.t"),
            ("DROP INDEX i ON t", "DROP INDEX: shop.t"),
            (
                "OPTIMIZE NO_WRITE_TO_BINLOG TABLE a, b",
                "OPTIMIZE TABLE: shop.a shop.b",
            ),
            ("ALTER TABLE \"t\" ADD c INT", "ALTER TABLE: shop.t"),
            ("#c\nALTER TABLE ж ADD c INT", "ALTER TABLE: shop.ж"),
        ] {
            assert_eq!(said(text), format!("Table {expected}"), "{text}");
        }
    }

    #[test]
    fn other_statements_tell_their_kind() {
        for (text, expected) in [
            ("DROP DATABASE IF EXISTS x", "Database DROP DATABASE: x"),
            (
                "ALTER SCHEMA COLLATE utf8mb4_bin",
                "Database ALTER DATABASE: shop",
            ),
            ("CREATE SCHEMA `x`", "Database CREATE DATABASE: x"),
            ("GRANT SELECT ON *.* TO a", "Accounts GRANT: "),
            (
                "CREATE USER 'a'@'%' IDENTIFIED WITH 'x' AS 'y'",
                "Accounts CREATE USER: ",
            ),
            (
                "CREATE DEFINER=`a`@`%` VIEW v AS SELECT 1",
                "Other CREATE VIEW: ",
            ),
            (
                "CREATE DEFINER=`a`@`%` TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @x=1",
                "Other CREATE TRIGGER: ",
            ),
            (
                "CREATE TEMPORARY TABLE t (id INT)",
                "Other CREATE TEMPORARY TABLE: ",
            ),
            (
                "DROP TEMPORARY TABLE IF EXISTS t",
                "Other DROP TEMPORARY TABLE: ",
            ),
            ("DROP VIEW v", "Other DROP VIEW: "),
            ("BEGIN", ""),
            ("INSERT INTO t VALUES ('ALTER TABLE')", ""),
            ("ANALYZE TABLE t", ""),
            ("FLUSH TABLES", ""),
            ("XA START X'61',X'',1", ""),
            ("SET GLOBAL x = 1", ""),
            ("", ""),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_has_no_names() {
        for text in [
            "ALTER TABLE",
            "DROP TABLE 'x'",
            "CREATE INDEX i",
            "TRUNCATE .",
        ] {
            let ddl = Ddl::parse("shop", text).expect("DDL");
            assert_eq!(
                (ddl.kind, ddl.names),
                (DdlKind::Table, Vec::new()),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", head in 0..6_usize) {
            let heads = ["", "ALTER TABLE ", "DROP TABLE ", "RENAME TABLE ", "CREATE ", "/*!"];
            let _ = Ddl::parse("d", &format!("{}{text}", heads[head]));
        }

        #[test]
        fn any_quoted_name_is_read_back(name in "[^\\x00]{1,40}") {
            let text = format!("ALTER TABLE {} ENGINE=InnoDB", super::super::quote::identifier(&name));
            let ddl = Ddl::parse("d", &text).expect("DDL");
            prop_assert_eq!(ddl.names[0].table.as_deref(), Some(name.as_str()));
        }
    }
}
