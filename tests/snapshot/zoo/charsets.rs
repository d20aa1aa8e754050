//! A column for every character set and a table for every collation that the server has.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use quillback_harness::Server;

use super::compare::assert_same;
use crate::support::{exec_all, load_into, manifest, memory, on_primary, snapshot, url};

/// Texts that are stored as far as a character set can hold them: ASCII with everything that a dump
/// must escape, and letters of many scripts.
const TEXTS: [&str; 5] = [
    "plain",
    "tab\\tnewline\\nreturn\\rback\\\\slash \\\\N quote''s \\0",
    "żółw Ünïcödé ελληνικά Кириллица",
    "中文 日本語 ソ表能 한국어 ไทย עברית ქართული հայ",
    "😀",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_character_set_and_collation_comes_back() -> Result<()> {
    let source = Server::start().await?;
    let sets: Vec<String> = source
        .query("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS ORDER BY 1")
        .await?;
    ensure!(sets.len() >= 40, "only {} character sets", sets.len());
    let collations: Vec<String> = source
        .query("SELECT COLLATION_NAME FROM information_schema.COLLATIONS ORDER BY 1")
        .await?;
    ensure!(
        collations.len() >= 280,
        "only {} collations",
        collations.len()
    );
    let mut statements: Vec<String> = [
        "CREATE DATABASE sets CHARACTER SET utf8mb4",
        "USE sets",
        // What a set cannot hold becomes a question mark, on the source already.
        "SET SESSION sql_mode = ''",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    let mut columns = String::from("id INT AUTO_INCREMENT PRIMARY KEY");
    for set in &sets {
        write!(
            columns,
            ", `c_{set}` CHAR(60) CHARACTER SET {set}, `t_{set}` TEXT CHARACTER SET {set}"
        )?;
    }
    statements.push(format!("CREATE TABLE `all` ({columns})"));
    for text in TEXTS {
        let names: Vec<String> = sets
            .iter()
            .map(|set| format!("`c_{set}`, `t_{set}`"))
            .collect();
        let values = vec![format!("'{text}', '{text}'"); sets.len()];
        statements.push(format!(
            "INSERT IGNORE INTO `all` ({}) VALUES ({})",
            names.join(", "),
            values.join(", ")
        ));
    }
    // One table per set, with names, defaults and members in it, in a schema of that set.
    for set in sets.iter().filter(|set| *set != "binary") {
        statements.extend([
            format!("CREATE DATABASE `in_{set}` CHARACTER SET {set}"),
            format!(
                "CREATE TABLE `in_{set}`.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL DEFAULT 'a''b', e ENUM('x', 'y z', ','), \
                 s SET('one', 'two'), g VARCHAR(30) GENERATED ALWAYS AS (CONCAT(v, v)) VIRTUAL, KEY (v), CHECK (LENGTH(v) < 100))"
            ),
            format!("INSERT INTO `in_{set}`.t (id, v, e, s) VALUES (1, 'x', ',', 'one,two'), (2, '', NULL, '')"),
        ]);
    }
    for collation in collations.iter().filter(|collation| *collation != "binary") {
        statements.extend([
            format!("CREATE TABLE `by_{collation}` (v VARCHAR(20), PRIMARY KEY (v)) COLLATE {collation}"),
            format!("INSERT IGNORE INTO `by_{collation}` VALUES ('a'), ('B'), ('b'), ('ä'), (''), ('\\\\\\t\\n')"),
        ]);
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    exec_all(&source, &statements).await?;

    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let manifest = manifest(&*storage, &report).await?;
    let target = Server::start().await?;
    let loaded = load_into(&target, &storage, &manifest).await?;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let compared = assert_same(&source, &target, &[]).await?;
    assert_eq!(compared.tables, sets.len() + collations.len() - 1);
    Ok(())
}
