//! DDL scripts: statements that the `mysql` client runs and that we can read back exactly.
//!
//! A script is text for `mysql --binary-mode --comments`: a comment line, a `DELIMITER` line, and
//! then each statement followed by a line that holds the delimiter alone. The delimiter occurs in
//! no statement of the script, so reading needs no knowledge of SQL.

use std::fmt::Write as _;

use memchr::memmem;

/// The first line of every script.
const HEADER: &str = "-- quillback script 1: ";
/// The delimiter that is tried first.
const FIRST_DELIMITER: &str = "$$";

/// Statements to be run in turn over one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    statements: Vec<Vec<u8>>,
}

/// The bytes are no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a script of Quillback: {reason}")]
pub struct ScriptError {
    reason: &'static str,
}

impl Script {
    /// A script without statements.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            statements: Vec::new(),
        }
    }

    /// Appends a statement, given without a delimiter.
    pub fn push(&mut self, statement: impl Into<Vec<u8>>) {
        self.statements.push(statement.into());
    }

    /// The statements in their order.
    #[must_use]
    pub fn statements(&self) -> &[Vec<u8>] {
        &self.statements
    }

    /// Writes the script; `title` says what it makes, in one line.
    #[must_use]
    pub fn encode(&self, title: &str) -> Vec<u8> {
        let delimiter = self.delimiter();
        let mut bytes = format!("{HEADER}{title}\nDELIMITER {delimiter}\n").into_bytes();
        for statement in &self.statements {
            bytes.extend_from_slice(statement);
            bytes.push(b'\n');
            bytes.extend_from_slice(delimiter.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }

    /// Reads what [`Script::encode`] wrote.
    ///
    /// # Errors
    ///
    /// When the header is missing or the last statement is not whole.
    pub fn decode(bytes: &[u8]) -> Result<Self, ScriptError> {
        let error = |reason| ScriptError { reason };
        let (header, rest) = split_line(bytes).ok_or(error("no header"))?;
        if !header.starts_with(HEADER.as_bytes()) {
            return Err(error("another header"));
        }
        let (delimiter, mut rest) = split_line(rest).ok_or(error("no delimiter"))?;
        let delimiter = delimiter
            .strip_prefix(b"DELIMITER ")
            .filter(|delimiter| !delimiter.is_empty())
            .ok_or(error("no delimiter"))?;
        let mut end = Vec::with_capacity(delimiter.len() + 2);
        end.push(b'\n');
        end.extend_from_slice(delimiter);
        end.push(b'\n');
        let finder = memmem::Finder::new(&end);
        let mut statements = Vec::new();
        while !rest.is_empty() {
            let at = finder
                .find(rest)
                .ok_or(error("it ends within a statement"))?;
            statements.push(rest[..at].to_vec());
            rest = &rest[at + end.len()..];
        }
        Ok(Self { statements })
    }

    /// A delimiter that occurs nowhere in the statements.
    fn delimiter(&self) -> String {
        let occurs = |delimiter: &str| {
            let finder = memmem::Finder::new(delimiter.as_bytes());
            self.statements
                .iter()
                .any(|statement| finder.find(statement).is_some())
        };
        let mut delimiter = FIRST_DELIMITER.to_owned();
        let mut n = 0_u64;
        // Finite statements hold finitely many candidates.
        while occurs(&delimiter) {
            delimiter = format!("$qb{n}$");
            n += 1;
        }
        delimiter
    }
}

/// What the statement that makes an object begins with.
const OBJECT: &[u8] = b"-- object ";

/// Marks a statement with the object that it makes: a comment line with the names as a JSON array
/// (schema and name, or the name alone), so that an error can tell which object it was. Only ASCII
/// is in it, whatever the client's character set is by then.
#[must_use]
pub fn of_object(names: &[&str], statement: &[u8]) -> Vec<u8> {
    let names = serde_json::to_string(names).expect("texts are always JSON");
    let mut ascii = String::with_capacity(names.len());
    let mut units = [0; 2];
    for c in names.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    [OBJECT, ascii.as_bytes(), b"\n", statement].concat()
}

/// The object's name for a person, and the statement itself, if the statement is marked.
#[must_use]
pub fn object_of(statement: &[u8]) -> Option<(String, &[u8])> {
    let (names, statement) = names_of(statement)?;
    Some((names.join("."), statement))
}

/// The object's names (schema and name, or the name alone), and the statement itself, if the
/// statement is marked.
#[must_use]
pub fn names_of(statement: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let (names, statement) = split_line(statement.strip_prefix(OBJECT)?)?;
    let names = serde_json::from_slice(names).ok()?;
    Some((names, statement))
}

/// What every statement on an account begins with.
const ACCOUNT: &[u8] = b"-- account ";

/// Marks a statement with the account that it is about: a comment line with user and host as a
/// JSON array, so that no reader has to parse SQL.
#[must_use]
pub fn of_account(user: &str, host: &str, statement: &[u8]) -> Vec<u8> {
    let names = serde_json::to_string(&[user, host]).expect("two texts are always JSON");
    [ACCOUNT, names.as_bytes(), b"\n", statement].concat()
}

/// The user, the host and the statement itself, if the statement is marked.
#[must_use]
pub fn account_of(statement: &[u8]) -> Option<(String, String, &[u8])> {
    let (names, statement) = split_line(statement.strip_prefix(ACCOUNT)?)?;
    let [user, host] = serde_json::from_slice(names).ok()?;
    Some((user, host, statement))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'\n', bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn script(statements: &[&[u8]]) -> Script {
        let mut script = Script::new();
        for statement in statements {
            script.push(*statement);
        }
        script
    }

    #[test]
    fn a_script_is_what_the_client_runs() {
        let script = script(&[b"USE `d`", b"CREATE TABLE `t` (\n  `a` int\n)"]);
        let text = String::from_utf8(script.encode("tables")).expect("ASCII");
        assert_eq!(
            text,
            "-- quillback script 1: tables\nDELIMITER $$\nUSE `d`\n$$\nCREATE TABLE `t` (\n  `a` int\n)\n$$\n"
        );
    }

    #[test]
    fn a_delimiter_within_a_statement_is_avoided() {
        let script = script(&[b"SELECT '\n$$\n'", b"SELECT '$qb0$'", b"SELECT 1;"]);
        let bytes = script.encode("x");
        assert!(bytes.windows(5).any(|window| window == b"$qb1$"));
        assert_eq!(Script::decode(&bytes), Ok(script));
    }

    #[test]
    fn an_object_is_named_in_ascii() {
        let statement = of_object(&["d`\nż", "😀\"'"], b"CREATE VIEW x");
        let line = statement.split(|&b| b == b'\n').next().expect("a line");
        assert_eq!(
            line.escape_ascii().to_string(),
            r#"-- object [\"d`\\n\\u017c\",\"\\ud83d\\ude00\\\"\'\"]"#
        );
        assert_eq!(
            object_of(&statement),
            Some(("d`\nż.😀\"'".to_owned(), &b"CREATE VIEW x"[..]))
        );
        assert_eq!(object_of(b"CREATE VIEW x"), None);
    }

    #[test]
    fn an_account_is_read_back_from_its_statement() {
        let statement = of_account("a\nb`\"", "%", b"GRANT USAGE ON *.* TO x");
        assert_eq!(
            account_of(&statement),
            Some((
                "a\nb`\"".to_owned(),
                "%".to_owned(),
                &b"GRANT USAGE ON *.* TO x"[..]
            ))
        );
        assert_eq!(account_of(b"GRANT USAGE ON *.* TO x"), None);
    }

    #[test]
    fn a_cut_script_is_noticed() {
        let bytes = script(&[b"SELECT 1", b"SELECT 2"]).encode("x");
        for cut in 0..bytes.len() {
            let read = Script::decode(&bytes[..cut]);
            let whole = read.map(|script| script.statements().len());
            // A cut exactly between two statements cannot be told from a shorter script: the
            // object's size and SHA-256 tell.
            assert!(!matches!(whole, Ok(2)), "cut at {cut}");
        }
        assert!(Script::decode(b"CREATE TABLE x").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(
            statements in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(b'$'), Just(b'\n'), any::<u8>()], 1..40),
                0..6,
            )
        ) {
            let mut script = Script::new();
            for statement in statements {
                script.push(statement);
            }
            prop_assert_eq!(Script::decode(&script.encode("any")), Ok(script));
        }
    }
}
