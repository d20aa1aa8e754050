//! Statements without the secrets in them.

/// A statement without the password hashes (`IDENTIFIED WITH ... AS '...'`) and passwords
/// (`PASSWORD '...'` of CREATE SERVER) in it: an index is shown and logged where data is not.
#[must_use]
pub fn without_secrets(mut statement: String) -> String {
    for word in ["AS", "BY", "PASSWORD"] {
        let mut from = 0;
        while let Some((start, end)) = literal_behind(&statement, word, from) {
            statement.replace_range(start..end, "***");
            from = start + 3;
        }
    }
    statement
}

/// Where the content of the next string literal behind a keyword is, in a statement on accounts
/// or servers.
fn literal_behind(statement: &str, word: &str, from: usize) -> Option<(usize, usize)> {
    let upper = statement.to_ascii_uppercase();
    if !upper.contains("IDENTIFIED") && !upper.contains("SERVER") && !upper.contains("PASSWORD") {
        return None;
    }
    let bytes = statement.as_bytes();
    let mut at = from;
    while let Some(found) = upper.get(at..)?.find(word) {
        let start = at + found;
        at = start + word.len();
        let is_word = start > 0 && b" \t\r\n,(".contains(&bytes[start - 1]);
        let rest = &statement[at..];
        let open = at + (rest.len() - rest.trim_start().len());
        let Some(quote @ (b'\'' | b'"')) = bytes.get(open).copied() else {
            continue;
        };
        if !is_word {
            continue;
        }
        let mut end = open + 1;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'\\' => end += 2,
                byte if *byte == quote && bytes.get(end + 1) == Some(&quote) => end += 2,
                byte if *byte == quote => return Some((open + 1, end)),
                _ => end += 1,
            }
        }
        // Never closed: all of the rest may be the secret.
        return Some((open + 1, statement.len()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_hashes_and_passwords_are_left_out() {
        for (statement, expected) in [
            (
                r"CREATE USER 'ann'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$it''s \' secret' REQUIRE NONE",
                r"CREATE USER 'ann'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '***' REQUIRE NONE",
            ),
            (
                "ALTER USER a IDENTIFIED WITH 'x' as 'one' , b IDENTIFIED BY \"two\"",
                "ALTER USER a IDENTIFIED WITH 'x' as '***' , b IDENTIFIED BY \"***\"",
            ),
            (
                "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'ż', HOST 'h')",
                "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD '***', HOST 'h')",
            ),
            (
                "SET PASSWORD FOR a IDENTIFIED BY 'cut sho",
                "SET PASSWORD FOR a IDENTIFIED BY '***",
            ),
            (
                "CREATE TABLE t AS SELECT 'x' AS 'y'",
                "CREATE TABLE t AS SELECT 'x' AS 'y'",
            ),
            ("ALTER TABLE ż COMMENT 'as'", "ALTER TABLE ż COMMENT 'as'"),
        ] {
            assert_eq!(without_secrets(statement.to_owned()), expected);
        }
    }
}
