//! What the server itself prints wrong: characters beyond U+FFFF as question marks, in the members
//! of ENUM and SET (all versions so far) and in defaults (before 9.x; MySQL bug 110291).
//!
//! A member or default with a question mark is suspicious. What it really is can be asked in other
//! ways: `DEFAULT(column)` tells a default even of an empty table, and a row tells the member that it
//! holds. What no row holds stays in doubt, and is named.

use crate::mysql::error::MysqlError;
use crate::mysql::quote;
use crate::mysql::session::Session;

use super::{Table, not_system};

/// How long a row with a member is looked for, in milliseconds: there may be no index.
const LOOK_MILLISECONDS: u64 = 10_000;
/// `ER_QUERY_TIMEOUT`.
const QUERY_TIMEOUT: u16 = 3024;

/// A column whose text holds a question mark.
struct Suspect {
    name: String,
    data_type: String,
    column_type: String,
    default: Option<String>,
}

/// Corrects the statements of tables where it can; a sentence for each member that stays in doubt.
pub(super) async fn correct(
    session: &mut Session,
    tables: &mut [Table],
) -> Result<Vec<String>, MysqlError> {
    type Row = (String, String, String, String, String, Option<String>);
    let rows: Vec<Row> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE), COLUMN_TYPE, COLUMN_DEFAULT \
             FROM information_schema.COLUMNS \
             WHERE CHARACTER_SET_NAME IN ('utf8mb4', 'utf16', 'utf16le', 'utf32', 'gb18030') \
             AND EXTRA NOT LIKE '%GENERATED%' AND (COLUMN_DEFAULT LIKE '%?%' \
             OR (DATA_TYPE IN ('enum', 'set') AND COLUMN_TYPE LIKE '%?%')) AND {}",
            not_system("TABLE_SCHEMA")
        ))
        .await?;
    let mut doubts = Vec::new();
    for (database, table, name, data_type, column_type, default) in rows {
        let found = tables
            .iter_mut()
            .find(|found| found.database == database && found.name == table);
        let Some(table) = found else { continue };
        let suspect = Suspect {
            name,
            data_type,
            column_type,
            default,
        };
        let members = real_members(session, table, &suspect, &mut doubts).await?;
        let default = real_default(session, table, &suspect).await?;
        let printed = table.corrected.as_ref().unwrap_or(&table.create);
        if let Some(corrected) = edit(printed, &suspect, &members, default.as_deref()) {
            table.corrected = Some(corrected);
        }
    }
    Ok(doubts)
}

/// The members that are other than printed, by their index from 0.
async fn real_members(
    session: &mut Session,
    table: &Table,
    suspect: &Suspect,
    doubts: &mut Vec<String>,
) -> Result<Vec<(usize, String)>, MysqlError> {
    let mut real = Vec::new();
    for (n, printed) in members(suspect) {
        if !printed.contains('?') {
            continue;
        }
        let value = match suspect.data_type.as_str() {
            "set" => 1_u64 << n.min(63),
            _ => n as u64 + 1,
        };
        let found = session
            .query_first::<String>(format!(
                "SELECT /*+ MAX_EXECUTION_TIME({LOOK_MILLISECONDS}) */ \
                 CONVERT({column} USING utf8mb4) FROM {table} WHERE {column} = {value} LIMIT 1",
                column = quote::identifier(&suspect.name),
                table = quote::qualified(&table.database, &table.name),
            ))
            .await;
        let found = match found {
            Err(error) if error.code() == Some(QUERY_TIMEOUT) => None,
            found => found?,
        };
        match found {
            Some(found) if found != printed => real.push((n, found)),
            Some(_) => {}
            None => doubts.push(format!(
                "member {} of column {} of table {} is printed as {printed:?}: a ? in it may be another \
                 character, which the server does not print, and no row was found that has it",
                n + 1,
                suspect.name,
                table.display_name()
            )),
        }
    }
    Ok(real)
}

/// The default, if it has a question mark in print.
async fn real_default(
    session: &mut Session,
    table: &Table,
    suspect: &Suspect,
) -> Result<Option<String>, MysqlError> {
    if !suspect
        .default
        .as_ref()
        .is_some_and(|text| text.contains('?'))
    {
        return Ok(None);
    }
    session
        .query_one(format!(
            "SELECT CONVERT(DEFAULT(t.{}) USING utf8mb4) FROM (SELECT 1) AS one \
             LEFT JOIN {} AS t ON FALSE",
            quote::identifier(&suspect.name),
            quote::qualified(&table.database, &table.name),
        ))
        .await
}

/// The members of an ENUM or SET as printed, with their index from 0.
fn members(suspect: &Suspect) -> Vec<(usize, String)> {
    let list = ["enum(", "set("]
        .iter()
        .find_map(|start| suspect.column_type.strip_prefix(start)?.strip_suffix(')'));
    let Some(list) = list else { return Vec::new() };
    let mut members = Vec::new();
    let mut member: Option<String> = None;
    let mut characters = list.chars().peekable();
    while let Some(c) = characters.next() {
        match (&mut member, c) {
            (None, '\'') => member = Some(String::new()),
            (None, _) => {}
            (Some(text), '\'') if characters.peek() == Some(&'\'') => {
                characters.next();
                text.push('\'');
            }
            (Some(_), '\'') => members.extend(member.take()),
            (Some(text), '\\') => text.push(match characters.next() {
                Some('0') => '\0',
                Some('n') => '\n',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            }),
            (Some(text), other) => text.push(other),
        }
    }
    members.into_iter().enumerate().collect()
}

/// As the server prints a text in a table's statement.
fn printed(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}

/// The statement with the column's line put right; `None` if there is nothing to put right.
fn edit(
    create: &[u8],
    suspect: &Suspect,
    real: &[(usize, String)],
    default: Option<&str>,
) -> Option<Vec<u8>> {
    let start = format!(
        "\n  {} {}",
        quote::identifier(&suspect.name),
        suspect.column_type
    );
    let at = memchr::memmem::find(create, start.as_bytes())?;
    let rest = &create[at + start.len()..];
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let mut line = start.clone().into_bytes();
    if !real.is_empty() {
        let list: Vec<String> = members(suspect)
            .into_iter()
            .map(|(n, text)| {
                let real = real.iter().find(|(other, _)| *other == n);
                printed(real.map_or(&text, |(_, text)| text))
            })
            .collect();
        line = format!(
            "\n  {} {}({})",
            quote::identifier(&suspect.name),
            suspect.data_type,
            list.join(",")
        )
        .into_bytes();
    }
    let mut options = rest[..end].to_vec();
    if let (Some(real), Some(wrong)) = (default, &suspect.default) {
        let wrong = format!(" DEFAULT {}", printed(wrong));
        // Where the server prints the bytes of a default, it is right.
        if let Some(at) = memchr::memmem::find(&options, wrong.as_bytes()) {
            let right = format!(" DEFAULT {}", printed(real));
            options.splice(at..at + wrong.len(), right.into_bytes());
        }
    }
    let corrected = [&create[..at], &line, &options, &rest[end..]].concat();
    (corrected != create).then_some(corrected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(data_type: &str, column_type: &str, default: Option<&str>) -> Suspect {
        Suspect {
            name: "c`d".to_owned(),
            data_type: data_type.to_owned(),
            column_type: column_type.to_owned(),
            default: default.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn members_are_read_as_they_are_printed() {
        let of = suspect("enum", r"enum('a','it''s','?',',','b\\c','')", None);
        let texts: Vec<String> = members(&of).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a", "it's", "?", ",", "b\\c", ""]);
        assert!(members(&suspect("varchar", "varchar(9)", None)).is_empty());
    }

    #[test]
    fn only_the_columns_own_line_is_put_right() {
        let create = "CREATE TABLE `t` (\n  `x` varchar(9) DEFAULT '?',\n  `c``d` enum('a','?','?') \
                      NOT NULL DEFAULT '?' COMMENT ' DEFAULT ''?''',\n  PRIMARY KEY (`x`)\n) ENGINE=InnoDB";
        let of = suspect("enum", "enum('a','?','?')", Some("?"));
        let real = [(1, "😀".to_owned())];
        let edited = edit(create.as_bytes(), &of, &real, Some("😀")).expect("a change");
        assert_eq!(
            String::from_utf8(edited).expect("text"),
            create
                .replace("enum('a','?','?')", "enum('a','😀','?')")
                .replace("NOT NULL DEFAULT '?'", "NOT NULL DEFAULT '😀'")
        );
        assert_eq!(edit(create.as_bytes(), &of, &[], Some("?")), None);
        let text = suspect("varchar", "varchar(20)", Some("? it's"));
        let create = "CREATE TABLE `t` (\n  `c``d` varchar(20) DEFAULT '? it''s'\n)";
        let edited = edit(create.as_bytes(), &text, &[], Some("👍 it's")).expect("a change");
        assert_eq!(edited, create.replace('?', "👍").into_bytes());
        // A later server prints the bytes.
        let create = "CREATE TABLE `t` (\n  `c``d` varchar(20) DEFAULT 0xF09F918D\n)";
        assert_eq!(edit(create.as_bytes(), &text, &[], Some("👍 it's")), None);
    }
}
