//! The only place where a name or a text is put into SQL.
//!
//! Identifiers and texts are safe whatever the session's `sql_mode` is: an identifier stands in
//! backticks, which no mode changes, and a text that a backslash could change is written as a
//! hexadecimal literal with its character set. Only [`escaped`] needs a mode not to be set, and says so.

/// Writes an identifier: `` `a``b` ``.
///
/// A server takes no identifier with NUL in it, so one that comes in leads to the server's own
/// syntax error and never to another statement (MySQL manual, "Schema Object Names").
#[must_use]
pub fn identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('`');
    for c in name.chars() {
        if c == '`' {
            quoted.push('`');
        }
        quoted.push(c);
    }
    quoted.push('`');
    quoted
}

/// Writes a qualified name: `` `db`.`table` ``.
#[must_use]
pub fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", identifier(database), identifier(name))
}

/// Writes a text as a literal that means the same under every `sql_mode`.
///
/// Plain texts stand in single quotes with `'` doubled. A text with a backslash (an escape
/// unless NO_BACKSLASH_ESCAPES is set) or a control character is written as `_utf8mb4 X'...'`.
#[must_use]
pub fn string(text: &str) -> String {
    if text.chars().any(|c| c == '\\' || c.is_control()) {
        return format!("_utf8mb4 X'{}'", hex(text.as_bytes()));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Writes a text in single quotes and nothing else, for the places in DDL that take no other
/// literal. It means what it says in a session without `NO_BACKSLASH_ESCAPES`.
#[must_use]
pub fn escaped(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Writes bytes as a hexadecimal literal: `0x0A`.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "''".to_owned();
    }
    format!("0x{}", hex(bytes))
}

/// Writes an account name: `'user'@'host'`.
#[must_use]
pub fn account(user: &str, host: &str) -> String {
    format!("{}@{}", identifier(user), identifier(host))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02X}").expect("writing to a String cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_cannot_end_early() {
        for (name, quoted) in [
            ("plain", "`plain`"),
            ("a`b", "`a``b`"),
            ("`; DROP TABLE x; --", "```; DROP TABLE x; --`"),
            ("new\nline", "`new\nline`"),
            ("nul\0", "`nul\0`"),
            ("back\\slash", "`back\\slash`"),
            ("quote'\"", "`quote'\"`"),
            ("", "``"),
        ] {
            assert_eq!(identifier(name), quoted);
        }
        assert_eq!(qualified("d`", "t"), "`d```.`t`");
        assert_eq!(account("o'neil", "%"), "`o'neil`@`%`");
    }

    #[test]
    fn texts_mean_the_same_with_and_without_backslash_escapes() {
        for (text, quoted) in [
            ("plain", "'plain'"),
            ("", "''"),
            ("it's", "'it''s'"),
            ("a\\", "_utf8mb4 X'615C'"),
            ("\\' OR 1=1 --", "_utf8mb4 X'5C27204F5220313D31202D2D'"),
            ("line\n", "_utf8mb4 X'6C696E650A'"),
            ("nul\0", "_utf8mb4 X'6E756C00'"),
            ("back`tick", "'back`tick'"),
            ("żółw", "'żółw'"),
        ] {
            assert_eq!(string(text), quoted);
        }
        assert_eq!(escaped("it's a \\"), "'it''s a \\\\'");
    }
}
