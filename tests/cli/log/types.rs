//! A table of every type, against what mysqlbinlog makes of the same events.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use chrono::DateTime;
use quillback_harness::{Server, ServerOptions, programs};

use super::{exec_all, shell, stream};

/// How a column's two texts compare.
#[derive(Debug, Clone, Copy)]
enum Type {
    /// The same text.
    Same,
    /// mysqlbinlog does not know the sign and shows both.
    Integer,
    /// Digits differ, the number does not.
    Real,
    /// mysqlbinlog has colons between year, month and day.
    Date,
    /// mysqlbinlog shows seconds since the epoch.
    Timestamp,
    /// mysqlbinlog takes the year 0000 for 1900.
    Year,
    /// Bytes, in quotes or in hexadecimal digits.
    Bytes,
}

use Type::*;

const COLUMNS: &[(&str, &str, Type)] = &[
    ("id", "INT PRIMARY KEY", Integer),
    ("t", "TINYINT", Integer),
    ("tu", "TINYINT UNSIGNED", Integer),
    ("y", "YEAR", Year),
    ("s", "SMALLINT", Integer),
    ("su", "SMALLINT UNSIGNED", Integer),
    ("m", "MEDIUMINT", Integer),
    ("mu", "MEDIUMINT UNSIGNED", Integer),
    ("iu", "INT UNSIGNED", Integer),
    ("b", "BIGINT", Integer),
    ("bu", "BIGINT UNSIGNED", Integer),
    ("d", "DECIMAL(65,30)", Same),
    ("du", "DECIMAL(9,0) UNSIGNED", Same),
    ("d2", "DECIMAL(12,4)", Same),
    ("f", "FLOAT", Real),
    ("g", "DOUBLE", Real),
    ("b1", "BIT(1)", Same),
    ("b9", "BIT(9)", Same),
    ("b64", "BIT(64)", Same),
    ("da", "DATE", Date),
    ("ti", "TIME", Same),
    ("ti3", "TIME(3)", Same),
    ("ti6", "TIME(6)", Same),
    ("dt", "DATETIME", Same),
    ("dt1", "DATETIME(1)", Same),
    ("dt6", "DATETIME(6)", Same),
    ("ts", "TIMESTAMP NULL", Timestamp),
    ("ts4", "TIMESTAMP(4) NULL", Timestamp),
    ("c", "CHAR(10)", Same),
    ("c255", "CHAR(255)", Same),
    ("v", "VARCHAR(20)", Same),
    ("v2", "VARCHAR(2000)", Same),
    ("l1", "VARCHAR(20) CHARACTER SET latin1", Same),
    ("bi", "BINARY(4)", Bytes),
    ("vb", "VARBINARY(300)", Bytes),
    ("tt", "TINYTEXT", Same),
    ("tx", "LONGTEXT", Same),
    ("bl", "BLOB", Bytes),
    ("lb", "LONGBLOB", Bytes),
    ("e", "ENUM('a','b')", Same),
    ("st", "SET('x','y','z')", Same),
    ("j", "JSON", Same),
    ("j2", "JSON", Same),
];

const ROWS: &[&str] = &[
    "(1, -128, 255, 2155, -32768, 65535, -8388608, 16777215, 4294967295, -9223372036854775808, 18446744073709551615, \
     99999999999999999999999999999999999.999999999999999999999999999999, 999999999, -12345678.0001, 1.5, -2.25e100, b'1', b'101010101', \
     b'1000000000000000000000000000000000000000000000000000000000000001', '9999-12-31', '-838:59:59', '-00:00:00.001', '838:59:58.999999', \
     '2026-11-20 14:30:05', '2026-11-20 14:30:05.1', '9999-12-31 23:59:59.999999', '2026-11-20 14:30:05', '2026-11-20 14:30:05.1234', \
     'char', REPEAT('ż', 200), 'it''s ż 😀', REPEAT('long ', 40), 'plain', x'00ff10', x'00090a5c0d27225c4e', 'tab\\tnewline\\n', \
     'back\\\\slash', x'00ff', REPEAT(x'61', 50), 'b', 'x,z', \
     '{\"a\": \"b\\\\n\\\\t\\\\\\\\ 😀\", \"f\": 1.5, \"n\": null, \"big\": 18446744073709551615, \"l\": [1, -2, 70000, -70000, 5000000000, true, false, {}, []]}', \
     JSON_OBJECT('dec', CAST(1.50 AS DECIMAL(5,2)), 'date', CAST('2026-11-20' AS DATE), 'dt', CAST('2026-11-20 14:30:05.25' AS DATETIME(6)), \
     'time', CAST('-12:34:56.5' AS TIME(6)), 'big', REPEAT('x', 70000)))",
    "(2, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0.5, -0.0, 0.1, b'0', 1, 255, '1000-01-01', '00:00:00', '12:34:56.789', '-12:34:56.5', \
     '1000-01-01 00:00:00', '2000-02-29 23:59:59.9', '1970-01-01 00:00:00.000001', '1970-01-01 00:00:01', '2038-01-19 03:14:07.9999', \
     '', '', '', '', '', '', '', '', '', '', '', 'a', '', '\"text\"', '[]')",
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
];

/// Changes with each kind of image, compressed and not.
const CHANGES: &[&str] = &[
    "UPDATE zoo.t SET t = 5, v = 'changed' WHERE id = 1",
    "SET SESSION binlog_row_image = MINIMAL",
    "UPDATE zoo.t SET tx = 'minimal', bu = 17 WHERE id = 2",
    "INSERT INTO zoo.t (id, e) VALUES (4, 'a')",
    "DELETE FROM zoo.t WHERE id = 4",
    "SET SESSION binlog_row_image = NOBLOB",
    "UPDATE zoo.t SET s = 3 WHERE id = 1",
    "SET SESSION binlog_row_image = FULL, SESSION binlog_row_value_options = PARTIAL_JSON",
    "UPDATE zoo.t SET j = JSON_SET(j, '$.f', 2.5, '$.new', 'it''s') WHERE id = 1",
    "UPDATE zoo.t SET j2 = JSON_REMOVE(JSON_REPLACE(j2, '$.dec', 7), '$.time'), j = JSON_ARRAY_INSERT(j, '$.l[1]', CAST('{\"x\": 1}' AS JSON)) WHERE id = 1",
    "SET SESSION binlog_row_image = MINIMAL",
    "UPDATE zoo.t SET j2 = JSON_REMOVE(j2, '$.date') WHERE id = 1",
    "SET SESSION binlog_row_image = FULL, SESSION binlog_row_value_options = ''",
    "SET SESSION binlog_transaction_compression = ON",
    "UPDATE zoo.t SET m = m - 1",
    "SET SESSION binlog_transaction_compression = OFF",
    // The index of a JSON array.
    "INSERT INTO zoo.tags (tags, w) VALUES ('[1, 2]', '[\"a\"]')",
    "UPDATE zoo.tags SET tags = '[7]'",
    "DELETE FROM zoo.t",
];

async fn fill(source: &Server) -> Result<()> {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, kind, _)| format!("{name} {kind}"))
        .collect();
    let create = format!(
        "CREATE TABLE zoo.t ({}) CHARACTER SET utf8mb4",
        columns.join(", ")
    );
    let inserts: Vec<String> = ROWS
        .iter()
        .map(|row| format!("INSERT INTO zoo.t VALUES {row}"))
        .collect();
    let mut statements = vec![
        "SET NAMES utf8mb4",
        "SET SESSION sql_mode = '', SESSION time_zone = '+00:00'",
        "CREATE DATABASE zoo",
        &create,
        "CREATE TABLE zoo.tags (id INT AUTO_INCREMENT PRIMARY KEY, tags JSON, w JSON, n INT UNSIGNED DEFAULT 4294967295, \
         INDEX ((CAST(tags AS UNSIGNED ARRAY))), INDEX ((CAST(w AS CHAR(9) ARRAY))))",
    ];
    statements.extend(inserts.iter().map(String::as_str));
    statements.extend_from_slice(CHANGES);
    exec_all(source, &statements).await
}

/// The lines of rows that mysqlbinlog makes of the server's files.
fn by_mysqlbinlog(source: &Server) -> Result<Vec<Vec<u8>>> {
    let mut files: Vec<_> = std::fs::read_dir(source.data_dir())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| {
            let number = name.rsplit('.').next().unwrap_or_default();
            name.contains("bin") && number.len() == 6 && number.parse::<u32>().is_ok()
        })
    });
    files.sort();
    ensure!(
        !files.is_empty(),
        "no binlog in {}",
        source.data_dir().display()
    );
    let output = Command::new(programs::find("mysqlbinlog")?)
        .args(["-v", "--base64-output=decode-rows"])
        .args(&files)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(row_lines(&output.stdout))
}

fn row_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        // The call of a JSON function may go on.
        match (line.strip_prefix(b"###     "), lines.last_mut()) {
            (Some(more), Some(last)) => last.extend_from_slice(more),
            _ if line.starts_with(b"### ") => lines.push(line.to_vec()),
            _ => {}
        }
    }
    lines
}

/// A literal of either as bytes: `x'..'`, or quoted with `\xNN` in it.
fn bytes_of(literal: &str) -> Result<Vec<u8>> {
    if let Some(digits) = literal
        .strip_prefix("x'")
        .and_then(|l| l.strip_suffix('\''))
    {
        return (0..digits.len() / 2)
            .map(|at| Ok(u8::from_str_radix(&digits[2 * at..2 * at + 2], 16)?))
            .collect();
    }
    unquoted(literal.as_bytes())
}

fn unquoted(literal: &[u8]) -> Result<Vec<u8>> {
    let inner = literal
        .strip_prefix(b"'")
        .and_then(|rest| rest.strip_suffix(b"'"))
        .with_context(|| String::from_utf8_lossy(literal).into_owned())?;
    let mut out = Vec::new();
    let mut at = 0;
    while at < inner.len() {
        if inner[at] == b'\\' {
            let escape = *inner.get(at + 1).context("a lone backslash")?;
            at += 2;
            out.push(match escape {
                b'x' => {
                    let digits = std::str::from_utf8(&inner[at..at + 2])?;
                    at += 2;
                    u8::from_str_radix(digits, 16)?
                }
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                other => other,
            });
        } else {
            out.push(inner[at]);
            at += 1;
        }
    }
    Ok(out)
}

/// Whether ours says what theirs says.
fn agrees(kind: Type, ours: &str, theirs: &[u8]) -> Result<bool> {
    let their_text = String::from_utf8_lossy(theirs).into_owned();
    let theirs_trimmed = their_text.trim_end();
    if ours == theirs_trimmed || ours == "NULL" {
        return Ok(ours == theirs_trimmed);
    }
    Ok(match kind {
        // One call inside the other, each on its line; and a JSON string without its quotes.
        Same => {
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            let is_call = ours.starts_with("JSON_") && squeezed(ours) == squeezed(theirs_trimmed);
            is_call || ours.replace('"', "") == theirs_trimmed
        }
        Integer => {
            let (signed, unsigned) = theirs_trimmed
                .split_once(" (")
                .with_context(|| their_text.clone())?;
            ours == signed || ours == unsigned.trim_end_matches(')')
        }
        Real => {
            let (ours, theirs): (f64, f64) = (ours.parse()?, theirs_trimmed.parse()?);
            (ours - theirs).abs() <= ours.abs() * 1e-6
        }
        Date => {
            let theirs = theirs_trimmed.replace(':', "-");
            ours == theirs
        }
        Timestamp => {
            let number = theirs_trimmed;
            let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
            let moment = DateTime::from_timestamp(seconds.parse()?, 0).context("a time")?;
            let dot = if fraction.is_empty() { "" } else { "." };
            ours == format!(
                "'{}{dot}{fraction}+00:00'",
                moment.format("%Y-%m-%d %H:%M:%S")
            )
        }
        Year => (ours, theirs_trimmed) == ("0000", "1900"),
        Bytes => bytes_of(ours)? == unquoted(theirs)?,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_read_as_mysqlbinlog_reads_it() -> Result<()> {
    let options = ServerOptions::new().line("binlog_row_metadata=MINIMAL");
    let source = Server::start_with(options).await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    fill(&source).await?;
    stream(&shell, &[]).await?;
    let arguments = [
        "log",
        "--kind",
        "dml",
        "--rows",
        "--full",
        "--max-transactions",
        "1000",
    ];
    let mut command = shell.command(&arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ours = row_lines(&output.stdout);
    let theirs = by_mysqlbinlog(&source)?;
    let mut wrong = Vec::new();
    let mut values = 0;
    let mut is_zoo = false;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let text = String::from_utf8(ours.clone())?;
        let value = text
            .strip_prefix("###   @")
            .and_then(|rest| rest.split_once('='));
        let Some((number, value)) = value else {
            is_zoo = text.contains("`zoo`.`t`") || is_zoo && !text.contains('`');
            if ours != theirs {
                wrong.push(format!("{text} / {}", String::from_utf8_lossy(theirs)));
                break;
            }
            continue;
        };
        values += 1;
        let at: usize = number.parse()?;
        let kind = match is_zoo {
            true => COLUMNS[at - 1].2,
            false => Integer,
        };
        let prefix = format!("###   @{number}=");
        let Some(other) = theirs.strip_prefix(prefix.as_bytes()) else {
            wrong.push(format!("{text} / {}", String::from_utf8_lossy(theirs)));
            break;
        };
        if !agrees(kind, value, other).unwrap_or(false) {
            let name = if is_zoo { COLUMNS[at - 1].0 } else { "tags" };
            let cut = |text: &str| text.chars().take(300).collect::<String>();
            wrong.push(format!(
                "{name}: {} / {}",
                cut(value),
                cut(&String::from_utf8_lossy(other))
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(ours.len(), theirs.len(), "mysqlbinlog has other rows");
    ensure!(values > 300, "{values}");

    // A number without a sign, which mysqlbinlog cannot tell, and a character set of one byte.
    let text = String::from_utf8(output.stdout)?;
    for line in [
        "###   @3=255",
        "###   @11=18446744073709551615",
        "###   @27='2026-11-20 14:30:05+00:00'",
        "###   @4=4294967295",
    ] {
        ensure!(text.lines().any(|found| found == line), "no {line}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_words_are_shown_where_the_binlog_has_them() -> Result<()> {
    let options = ServerOptions::new().line("binlog_row_metadata=FULL");
    let source = Server::start_with(options).await?;
    let shell = shell(&source).await?;
    stream(&shell, &[]).await?;
    exec_all(
        &source,
        &[
            "SET NAMES utf8mb4",
            "CREATE DATABASE zoo",
            "CREATE TABLE zoo.t (id INT UNSIGNED PRIMARY KEY, `odd name` VARCHAR(9) CHARACTER SET latin1, \
             e ENUM('a','żółć') CHARACTER SET utf8mb4, e2 ENUM('a','żółć') CHARACTER SET latin2, s SET('x','y','ż') CHARACTER SET ucs2, \
             w VARCHAR(9) CHARACTER SET utf16, gb VARCHAR(9) CHARACTER SET gbk, tu TINYINT UNSIGNED, vb VARBINARY(9))",
            "INSERT INTO zoo.t VALUES (4294967295, 'é€', 2, 2, 'x,ż', '😀', '中文', 200, x'00ff')",
        ],
    )
    .await?;
    stream(&shell, &[]).await?;
    let said = shell.run(&["log", "--kind", "dml", "--rows"]).await?;
    let rows: Vec<&str> = said
        .out
        .lines()
        .filter(|line| line.starts_with("###"))
        .collect();
    assert_eq!(
        rows,
        [
            "### INSERT INTO `zoo`.`t`",
            "### SET",
            "### id=4294967295",
            "### `odd name`='é€'",
            "### e='żółć'",
            // Of such character sets only ASCII is read.
            "### e2=2",
            "### s='x,ż'",
            "### w='😀'",
            "### gb=_gbk x'd6d0cec4'",
            "### tu=200",
            "### vb=x'00ff'",
        ]
    );
    // mysqlbinlog knows no geometries; the server tells the bytes that it stores.
    exec_all(
        &source,
        &[
            "CREATE TABLE zoo.g (id INT PRIMARY KEY, p POINT SRID 4326, g GEOMETRY)",
            "INSERT INTO zoo.g VALUES (1, ST_GeomFromText('POINT(1 2)', 4326), ST_GeomFromText('LINESTRING(0 0, 9 9)')), (2, NULL, NULL)",
        ],
    )
    .await?;
    stream(&shell, &[]).await?;
    let said = shell
        .run(&["log", "--table", "zoo.g", "--kind", "dml", "--rows"])
        .await?;
    let (p, g): (String, String) = source
        .one("SELECT LOWER(HEX(CAST(p AS BINARY))), LOWER(HEX(CAST(g AS BINARY))) FROM zoo.g WHERE id = 1")
        .await?;
    for line in [
        format!("### p=x'{p}'"),
        format!("### g=x'{g}'"),
        "### g=NULL".to_owned(),
    ] {
        ensure!(
            said.out.lines().any(|found| found == line),
            "{line}: {}",
            said.out
        );
    }
    if source
        .exec("CREATE TABLE zoo.v (id INT PRIMARY KEY, v VECTOR(4))")
        .await
        .is_ok()
    {
        exec_all(
            &source,
            &["INSERT INTO zoo.v VALUES (1, STRING_TO_VECTOR('[1, -2.5, 1e-3]'))"],
        )
        .await?;
        stream(&shell, &[]).await?;
        let said = shell
            .run(&["log", "--table", "zoo.v", "--kind", "dml", "--rows"])
            .await?;
        ensure!(
            said.out.contains("### v=TO_VECTOR('[1,-2.5,0.001]')"),
            "{}",
            said.out
        );
    }
    Ok(())
}
