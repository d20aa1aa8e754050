//! Holds the sources against the table of rooms: who may import whom, and what only one room
//! may know.
//!
//! The table is that of docs/ARCHITECTURE.md. The checker works on text (comments and strings
//! set apart), so that it needs no compiler; its own tests feed it made-up violations.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, highest tier first. Imports go down only.
const TIERS: [&[&str]; 5] = [
    &["cli"],
    &[
        "snapshot",
        "stream",
        "restore",
        "reseed",
        "verify",
        "retention",
        "timeline",
        "migrate",
    ],
    &["archive"],
    &["mysql", "storage"],
    &["gtid", "clock", "retry", "error", "config", "observe"],
];
/// Imports between rooms of one tier.
const EXCEPTIONS: [(&str, &str); 2] = [("reseed", "restore"), ("verify", "restore")];
/// The starts of the archive's keys.
const KEYS: [&str; 9] = [
    "log/",
    "snapshots/",
    "epochs/",
    "branches/",
    "marks/",
    "holds/",
    "drills/",
    "tombstones/",
    "quillback.json",
];
/// A longer file says why in its module's doc.
const LONGEST: usize = 500;
const EXCUSE: &str = "Longer than 500 lines because";

/// A source file with what the rules look at.
struct Source {
    /// Relative to `src`, with `/`.
    path: String,
    text: String,
    /// The text without comments and with empty strings.
    code: String,
    /// String literals outside of tests.
    strings: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let is_test =
            path.ends_with("tests.rs") || path.ends_with("testing.rs") || path.contains("/tests/");
        let (code, all) = split(text);
        let own = if is_test {
            0
        } else {
            code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len())
        };
        let strings = all.into_iter().filter(|(at, _)| *at < own);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            strings: strings.map(|(_, string)| string).collect(),
            code,
        }
    }

    /// The room that the file belongs to.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The code without that of an inline `mod tests`.
    fn own_code(&self) -> &str {
        if self.path.ends_with("tests.rs") || self.path.contains("/tests/") {
            return "";
        }
        let end = self.code.find("#[cfg(test)]\nmod tests {");
        &self.code[..end.unwrap_or(self.code.len())]
    }

    /// The file's place in the tree of modules.
    fn module(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let mut parts: Vec<&str> = path.split('/').collect();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        parts
    }
}

/// Code without comments and without what is inside strings, and the strings with their places
/// in that code.
fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = String::new();
    let mut strings = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else if let Some((length, string)) = raw_string(rest) {
            // Not in the middle of a word such as `for"`.
            strings.push((code.len(), string));
            code.push_str("\"\"");
            at += length;
        } else if byte == b'"' {
            let (length, string) = plain_string(rest);
            strings.push((code.len(), string));
            code.push_str("\"\"");
            at += length;
        } else if byte == b'\'' {
            let length = character(rest);
            if length > 1 {
                code.push_str("' '");
            } else {
                code.push('\'');
            }
            at += length;
        } else {
            let character = rest.chars().next().expect("inside the text");
            code.push(character);
            at += character.len_utf8();
        }
    }
    (code, strings)
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length and content of `r"..."` or `r#"..."#`.
fn raw_string(text: &str) -> Option<(usize, String)> {
    let hashes = text.strip_prefix('r')?;
    let body = hashes.trim_start_matches('#');
    let count = hashes.len() - body.len();
    let body = body.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let length = body.find(&end)?;
    let whole = 1 + count + 1 + length + end.len();
    Some((whole, body[..length].to_owned()))
}

fn plain_string(text: &str) -> (usize, String) {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return (at + 1, text[1..at].to_owned()),
            _ => {}
        }
    }
    (text.len(), text[1..].to_owned())
}

/// The length of a character literal; 1 for the tick of a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            // What is escaped may be a tick itself.
            characters.next();
            characters
                .find(|(_, c)| *c == '\'')
                .map_or(1, |(at, _)| at + 1)
        }
        _ => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
    }
}

/// The rooms that a file names in its code, by `crate::` or by enough `super::`.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let module = source.module();
    for (at, _) in source.code.match_indices("crate::") {
        let before = source.code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            rooms.extend(heads(&source.code[at + "crate::".len()..]));
        }
    }
    for (at, _) in source.code.match_indices("super::") {
        if source.code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &source.code[at..];
        let mut depth = module.len();
        while let Some(deeper) = rest.strip_prefix("super::") {
            rest = deeper;
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            rooms.extend(heads(rest));
        }
    }
    let known: BTreeSet<&str> = TIERS.iter().flat_map(|tier| tier.iter().copied()).collect();
    rooms.retain(|room| known.contains(room.as_str()));
    rooms
}

/// The first names of a path or of each path in a group: `a::b` or `{a::b, c}`.
fn heads(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = text.strip_prefix('{') else {
        return vec![name(text)];
    };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn tier(room: &str) -> Option<usize> {
    TIERS.iter().position(|tier| tier.contains(&room))
}

fn may_import(from: &str, to: &str) -> bool {
    if from == to || matches!(from, "lib" | "main") || EXCEPTIONS.contains(&(from, to)) {
        return true;
    }
    match (tier(from), tier(to)) {
        (Some(from), Some(to)) => from < to,
        _ => false,
    }
}

/// What is wrong with a file.
fn violations(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let room = source.room();
    let mut report = |what: String| found.push(format!("src/{}: {what}", source.path));
    if tier(room).is_none() && !matches!(room, "lib" | "main") {
        report(format!("the table of rooms has no {room}"));
    }
    for import in imports(source) {
        if !may_import(room, &import) {
            report(format!("{room} must not import {import}"));
        }
    }
    let in_s3 = source.path.starts_with("storage/s3");
    for sdk in ["aws_sdk_s3", "aws_config", "aws_smithy"] {
        if !in_s3 && source.code.contains(sdk) {
            report(format!("only storage/s3 may know {sdk}"));
        }
    }
    // The simulation is a test, which is told its seed.
    let is_simulation = source.path == "stream/simulation/mod.rs";
    if !matches!(room, "cli" | "main") && !is_simulation {
        for border in [
            "std::env",
            "println!",
            "print!",
            "eprint!",
            "dbg!",
            "process::exit",
        ] {
            if source.own_code().contains(border) {
                report(format!("only cli and main may use {border}"));
            }
        }
    }
    if source.path != "archive/layout.rs" {
        for string in &source.strings {
            if KEYS.iter().any(|key| string.starts_with(key)) {
                report(format!(
                    "only archive/layout.rs may name the key {string:?}"
                ));
            }
        }
    }
    let doc: Vec<&str> = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .collect();
    if doc.is_empty() {
        report("the module has no doc".to_owned());
    }
    let lines = source.text.lines().count().min(
        // Tests beside the code do not count.
        source
            .text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .map_or(0, |own| own.lines().count()),
    );
    if lines > LONGEST && !doc.join(" ").replace("//! ", "").contains(EXCUSE) {
        report(format!("{lines} lines and no \"{EXCUSE} ...\" in its doc"));
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn the_sources_keep_to_the_table_of_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 50, "only {} files found", files.len());
    let mut edges = BTreeSet::new();
    let mut found = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&root).expect("below src");
        let path = path.to_str().expect("UTF-8").replace('\\', "/");
        let source = Source::new(&path, &fs::read_to_string(file).expect("readable"));
        for import in imports(&source) {
            edges.insert((source.room().to_owned(), import));
        }
        found.extend(violations(&source));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    // The checker sees the imports that are surely there.
    for (from, to) in [
        ("stream", "archive"),
        ("archive", "gtid"),
        ("mysql", "gtid"),
    ] {
        assert!(
            edges.contains(&(from.to_owned(), to.to_owned())),
            "{from} -> {to}"
        );
    }
}

#[test]
fn imports_that_go_up_or_across_are_found() {
    for (path, code, wrong) in [
        ("gtid/set.rs", "use crate::mysql::Session;", "mysql"),
        (
            "mysql/wire/rows.rs",
            "use crate::storage::Storage;",
            "storage",
        ),
        (
            "archive/mod.rs",
            "fn f() { crate::stream::run(); }",
            "stream",
        ),
        (
            "storage/mod.rs",
            "use crate::{error::Class, archive::layout};",
            "archive",
        ),
        (
            "storage/mod.rs",
            "use crate::{\n    error::{A, B},\n    cli::x,\n};",
            "cli",
        ),
        ("stream/follow.rs", "use crate::restore::plan;", "restore"),
        ("restore/plan.rs", "use crate::verify::drill;", "verify"),
        ("clock.rs", "use super::cli::x;", "cli"),
        (
            "mysql/wire/rows.rs",
            "use super::super::super::archive::hash;",
            "archive",
        ),
        ("clock.rs", "use crate::error::Class;", "error"),
    ] {
        let source = Source::new(path, &format!("//! Doc.\n{code}\n"));
        let room = source.room();
        assert_eq!(
            violations(&source),
            [format!("src/{path}: {room} must not import {wrong}")]
        );
    }
}

#[test]
fn imports_that_go_down_are_let_pass() {
    for (path, code) in [
        ("cli/mod.rs", "use crate::{gtid::GtidSet, stream::run};"),
        ("verify/drill.rs", "use crate::restore::plan;"),
        ("reseed/mod.rs", "use crate::restore::plan;"),
        (
            "stream/cutter/tests.rs",
            "use super::*; use crate::archive::x;",
        ),
        ("mysql/wire/rows.rs", "use super::super::binlog::x;"),
        ("storage/mod.rs", "/// See [`crate::archive`].\nfn f() {}"),
        ("storage/mod.rs", "const A: &str = \"use crate::archive;\";"),
        (
            "storage/mod.rs",
            "/* crate::cli /* crate::cli */ crate::cli */",
        ),
        (
            "storage/mod.rs",
            "const A: char = '\"'; // crate::cli \"\nfn f<'a>(_: &'a str) {}",
        ),
        ("storage/mod.rs", "const A: &str = r#\"\" crate::cli\"#;"),
    ] {
        let source = Source::new(path, &format!("//! Doc.\n{code}\n"));
        assert_eq!(violations(&source), [""; 0], "{path}: {code}");
    }
}

#[test]
fn what_only_one_room_may_know_is_found_elsewhere() {
    let long = format!("//! Doc.\n{}", "fn f() {}\n".repeat(LONGEST));
    let excused = format!("//! Doc.\n//! Longer than\n//! 500 lines because.\n{long}");
    for (path, text, count) in [
        ("storage/local.rs", "//! D.\nuse aws_sdk_s3::Client;", 1),
        ("storage/s3/mod.rs", "//! D.\nuse aws_sdk_s3::Client;", 0),
        (
            "stream/mod.rs",
            "//! D.\nfn f() { std::env::var(\"A\"); }",
            1,
        ),
        (
            "cli/mod.rs",
            "//! D.\nfn f() { std::env::var(\"A\"); println!(); }",
            0,
        ),
        ("stream/mod.rs", "//! D.\nfn f() { eprintln!(\"A\"); }", 1),
        (
            "stream/mod.rs",
            "//! D.\nfn f() { std::process::exit(1); }",
            1,
        ),
        ("stream/mod.rs", "//! D.\nfn f() { g(\"log/0001/\"); }", 1),
        (
            "stream/mod.rs",
            "//! D.\nfn f() { g(\"the log/0001/\"); }",
            0,
        ),
        (
            "archive/layout.rs",
            "//! D.\nfn f() { g(\"log/0001/\"); }",
            0,
        ),
        (
            "stream/mod.rs",
            "//! D.\n#[cfg(test)]\nmod tests {\n fn f() { g(\"log/0001/\"); }\n}",
            0,
        ),
        ("stream/tests.rs", "//! D.\nfn f() { g(\"log/0001/\"); }", 0),
        ("stream/mod.rs", "fn f() {}", 1),
        ("attic/mod.rs", "//! D.", 1),
        ("stream/mod.rs", &long, 1),
        ("stream/mod.rs", &excused, 0),
    ] {
        let found = violations(&Source::new(path, text));
        assert_eq!(found.len(), count, "{path}: {found:?}");
    }
}

/// Whether the module that a file belongs to names it: one that nobody names is not compiled.
fn is_named(file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    if matches!(&*name, "main" | "lib" | "mod") {
        return true;
    }
    let folder = file.parent().expect("it is in a folder");
    let parents = ["mod.rs", "main.rs", "lib.rs"].map(|parent| folder.join(parent));
    let own = folder.with_extension("rs");
    parents.iter().chain([&own]).any(|parent| {
        let code = fs::read_to_string(parent).map(|text| split(&text).0);
        code.is_ok_and(|code| code.contains(&format!("mod {name};")))
    })
}

#[test]
fn every_file_is_part_of_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Cargo finds these by their places.
    let programs = ["tests/architecture.rs", "tests/harness/src/bin"];
    let all: Vec<PathBuf> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .filter(|file| !programs.iter().any(|own| file.starts_with(root.join(own))))
        .collect();
    assert!(all.len() > 200, "only {} files were looked at", all.len());
    let left_out: Vec<&PathBuf> = all.iter().filter(|file| !is_named(file)).collect();
    assert!(left_out.is_empty(), "no module names them: {left_out:?}");
}
