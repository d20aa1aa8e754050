//! Tables followed through made-up logs.

use super::*;
use crate::mysql::ddl::Dialect;
use crate::mysql::ddl::staging::{StageError, Staging};
use crate::mysql::ddl::statement::Statement;
use crate::mysql::version::ServerVersion;

fn parse(text: &str) -> Statement {
    let version = ServerVersion::parse("8.4.6").expect("a version");
    let dialect = Dialect::of_session(0, 45, version);
    let read = Statement::parse(text.as_bytes(), Some("a"), &dialect, NameCase::Distinct);
    read.unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn name(text: &str) -> TableName {
    let (database, table) = text.split_once('.').expect("a dot");
    TableName::new(database, table)
}

/// A lineage of the schemas a and b with these tables of the snapshot.
fn lineage(tables: &[&str], statements: &[&str]) -> (Lineage, Vec<Statement>) {
    let start = Start {
        schemas: vec!["a".to_owned(), "b".to_owned()],
        tables: tables.iter().map(|table| name(table)).collect(),
        views: vec![name("a.view")],
    };
    let mut lineage = Lineage::new(start, NameCase::Distinct);
    let statements: Vec<Statement> = statements.iter().map(|text| parse(text)).collect();
    for (number, statement) in statements.iter().enumerate() {
        assert_eq!(lineage.read(statement), number);
    }
    (lineage, statements)
}

fn chosen(lineage: &Lineage, pattern: &str) -> Choice {
    let pattern = pattern.parse().expect("a pattern");
    lineage.choose(&[pattern]).remove(0)
}

/// What is run for each statement, when this pattern is followed.
fn run(tables: &[&str], statements: &[&str], pattern: &str) -> Vec<String> {
    let (mut lineage, statements) = lineage(tables, statements);
    let choice = chosen(&lineage, pattern);
    lineage.follow(choice.tables);
    let staging = staging();
    let mut place = lineage.beginning();
    let mut out = Vec::new();
    for statement in &statements {
        let staged = lineage.stage(&place, statement, &staging);
        out.push(match staged {
            Ok(Some(staged)) => String::from_utf8(staged.text).expect("UTF-8"),
            Ok(None) => String::new(),
            Err(error) => format!("! {error}"),
        });
        place.pass();
    }
    out
}

fn staging() -> Staging {
    let pairs = ["a", "b", "new"].map(|schema| (schema.to_owned(), format!("s_{schema}")));
    Staging::new(pairs, NameCase::Distinct).expect("distinct")
}

/// First names of what is followed: those of which only the structure is needed with `~`, those that
/// are not of the snapshot with `+`.
fn followed(tables: &[&str], statements: &[&str], pattern: &str) -> String {
    let (mut lineage, _) = lineage(tables, statements);
    let choice = chosen(&lineage, pattern);
    lineage.follow(choice.tables);
    let names: Vec<String> = lineage
        .followed()
        .map(|(id, need)| {
            let (origin, name) = lineage.origin(id).expect("known");
            let need = match need {
                Need::Structure => "~",
                Need::Rows => "",
            };
            let origin = match origin {
                Origin::Snapshot => "",
                Origin::Created { .. } => "+",
                Origin::Unseen { .. } => "?",
            };
            format!("{need}{origin}{name}")
        })
        .collect();
    names.join(" ")
}

const GHOST: [&str; 5] = [
    "CREATE TABLE _p_gho LIKE p",
    "ALTER TABLE _p_gho ADD c INT",
    "RENAME TABLE p TO _p_del, _p_gho TO p",
    "DROP TABLE _p_del",
    "ALTER TABLE p ADD d INT",
];

#[test]
fn a_swapped_table_is_followed_under_the_names_that_it_had() {
    assert_eq!(followed(&["a.p", "a.q"], &GHOST, "a.p"), "~a.p +a._p_gho");
    assert_eq!(
        run(&["a.p", "a.q"], &GHOST, "a.p"),
        [
            "CREATE TABLE `s_a`.`_p_gho` LIKE `s_a`.`p`",
            "ALTER TABLE `s_a`.`_p_gho` ADD c INT",
            "RENAME TABLE `s_a`.`p` TO `s_a`.`_p_del`, `s_a`.`_p_gho` TO `s_a`.`p`",
            "DROP TABLE `s_a`.`_p_del`",
            "ALTER TABLE `s_a`.`p` ADD d INT",
        ]
    );
    let (mut lineage, _) = lineage(&["a.p", "a.q"], &GHOST);
    let choice = chosen(&lineage, "a.p");
    lineage.follow(choice.tables);
    let mut place = lineage.beginning();
    assert_eq!(place.need("a", "p"), Some(Need::Structure));
    assert_eq!(place.need("a", "_p_gho"), None);
    place.pass();
    assert_eq!(place.need("a", "_p_gho"), Some(Need::Rows));
    place.pass_to(3);
    assert_eq!(place.need("a", "p"), Some(Need::Rows));
    assert_eq!(place.need("a", "_p_del"), Some(Need::Structure));
    let p = place.table("a", "p").expect("there");
    assert_eq!(place.name_of(p), Some(&name("a.p")));
    assert_eq!(lineage.name_at_cut(p), Some(&name("a.p")));
    place.pass();
    assert_eq!(place.table("a", "_p_del"), None);
    let loaded: Vec<_> = lineage
        .from_snapshot()
        .map(|(_, name, need)| (name.clone(), need))
        .collect();
    assert_eq!(loaded, [(name("a.p"), Need::Structure)]);
}

#[test]
fn swaps_keep_only_the_pairs_of_followed_tables() {
    let swap = ["RENAME TABLE p TO tmp, q TO p, tmp TO q", "DROP TABLE q, p"];
    assert_eq!(
        run(&["a.p", "a.q"], &swap[..1], "a.p"),
        ["RENAME TABLE `s_a`.`q` TO `s_a`.`p`"]
    );
    assert_eq!(
        run(&["a.p", "a.q"], &swap[..1], "a.q"),
        ["RENAME TABLE `s_a`.`p` TO `s_a`.`tmp`, `s_a`.`tmp` TO `s_a`.`q`"]
    );
    assert_eq!(
        run(
            &["a.p", "a.q", "a.r"],
            &["DROP TABLE IF EXISTS p, q"],
            "a.r"
        ),
        [""]
    );
    let (mut lineage, statements) = lineage(&["a.p", "a.q"], &["DROP TABLE p, b.none, q"]);
    lineage.follow([TableId(1)]);
    let staged = lineage.stage(&lineage.beginning(), &statements[0], &staging());
    let staged = staged.expect("good").expect("followed");
    assert_eq!(staged.text, b"DROP TABLE `s_a`.`q`");
    assert_eq!(staged.schema.as_deref(), Some("s_a"));
}

#[test]
fn only_the_last_life_of_a_name_is_followed() {
    let statements = [
        "DROP TABLE p",
        "CREATE TABLE p (a INT, FOREIGN KEY (a) REFERENCES new.q (id))",
        "TRUNCATE p",
        "TRUNCATE q",
    ];
    assert_eq!(followed(&["a.p", "a.q"], &statements, "a.p"), "+a.p");
    assert_eq!(
        run(&["a.p", "a.q"], &statements, "a.p"),
        [
            "",
            "CREATE TABLE `s_a`.`p` (a INT, FOREIGN KEY (a) REFERENCES `s_new`.`q` (id))",
            "TRUNCATE TABLE `s_a`.`p`",
            "",
        ]
    );
    let (mut lineage, _) = lineage(&["a.p", "a.q"], &statements);
    let choice = chosen(&lineage, "a.p");
    lineage.follow(choice.tables);
    let schemas: Vec<_> = lineage
        .schemas()
        .into_iter()
        .map(|s| (s.name, s.from_start))
        .collect();
    assert_eq!(schemas, [("a".to_owned(), true), ("new".to_owned(), false)]);
}

#[test]
fn partners_of_an_exchange_are_followed_with_what_is_needed() {
    let statements = [
        "CREATE TABLE part LIKE whole",
        "ALTER TABLE whole EXCHANGE PARTITION p0 WITH TABLE b.other",
        "ALTER TABLE part RENAME b.part",
    ];
    let tables = ["a.whole", "b.other", "a.x"];
    assert_eq!(followed(&tables, &statements, "a.whole"), "a.whole b.other");
    assert_eq!(
        followed(&tables, &statements, "b.part"),
        "~a.whole ~b.other +a.part"
    );
    assert_eq!(
        run(&tables, &statements, "b.part"),
        [
            "CREATE TABLE `s_a`.`part` LIKE `s_a`.`whole`",
            "ALTER TABLE `s_a`.`whole` EXCHANGE PARTITION p0 WITH TABLE `s_b`.`other`",
            "ALTER TABLE `s_a`.`part` RENAME `s_b`.`part`",
        ]
    );
}

#[test]
fn what_is_not_there_at_the_cut_says_why() {
    let (lineage, _) = lineage(
        &["a.dropped", "a.moved", "b.x", "b.y"],
        &[
            "DROP TABLE dropped",
            "RENAME TABLE moved TO b.moved",
            "DROP DATABASE b",
            "CREATE DATABASE b",
            "CREATE TABLE b.y (id INT)",
            "CREATE VIEW v AS SELECT 1",
            "RENAME TABLE v TO w",
        ],
    );
    let gone = |pattern: &str| -> Vec<(String, Fate, usize)> {
        let choice = chosen(&lineage, pattern);
        assert!(choice.tables.is_empty(), "{pattern}");
        let gone = choice.gone.into_iter();
        gone.map(|gone| (gone.name.to_string(), gone.fate, gone.statement))
            .collect()
    };
    assert_eq!(
        gone("a.dropped"),
        [("a.dropped".to_owned(), Fate::Dropped, 0)]
    );
    assert_eq!(
        gone("a.moved"),
        [("a.moved".to_owned(), Fate::Renamed(name("b.moved")), 1)]
    );
    assert_eq!(gone("b.x"), [("b.x".to_owned(), Fate::SchemaDropped, 2)]);
    assert_eq!(gone("b.moved").len(), 1);
    assert!(gone("a.never").is_empty());
    assert_eq!(chosen(&lineage, "b.y").tables.len(), 1);
    assert!(chosen(&lineage, "b.y").gone.is_empty());
    assert_eq!(chosen(&lineage, "a.*").views, [name("a.view"), name("a.w")]);
}

#[test]
fn schemas_of_followed_tables_come_and_go() {
    let statements = [
        "CREATE DATABASE new COLLATE utf8mb4_bin",
        "CREATE DATABASE IF NOT EXISTS a",
        "CREATE DATABASE elsewhere",
        "ALTER DATABASE COLLATE utf8mb4_bin",
        "CREATE TABLE new.t (id INT)",
        "DROP DATABASE new",
        "CREATE DATABASE IF NOT EXISTS `new`",
        "CREATE TABLE new.t (id INT, n INT)",
        "RENAME TABLE new.t TO a.t",
        "DROP DATABASE IF EXISTS new",
        "DROP DATABASE IF EXISTS new",
    ];
    assert_eq!(
        run(&["a.x"], &statements, "a.t"),
        [
            "CREATE DATABASE `s_new` COLLATE utf8mb4_bin",
            "",
            "",
            "ALTER DATABASE `s_a` COLLATE utf8mb4_bin",
            "",
            "DROP DATABASE `s_new`",
            "CREATE DATABASE IF NOT EXISTS `s_new`",
            "CREATE TABLE `s_new`.`t` (id INT, n INT)",
            "RENAME TABLE `s_new`.`t` TO `s_a`.`t`",
            "DROP DATABASE IF EXISTS `s_new`",
            "",
        ]
    );
}

#[test]
fn the_schema_of_a_parent_alone_is_left_alone() {
    let (mut lineage, statements) = lineage(&["a.p", "b.parent"], &["DROP DATABASE b"]);
    lineage.follow([TableId(0)]);
    let staged = lineage.stage(&lineage.beginning(), &statements[0], &staging());
    assert_eq!(staged, Ok(None));
}

#[test]
fn what_the_snapshot_does_not_hold_is_told() {
    let statements = ["RENAME TABLE hidden TO p", "TRUNCATE p"];
    let (mut lineage, _) = lineage(&["a.q"], &statements);
    let choice = chosen(&lineage, "a.p");
    lineage.follow(choice.tables);
    let unseen: Vec<&TableName> = lineage.unseen().map(|(_, name)| name).collect();
    assert_eq!(unseen, [&name("a.hidden")]);
    let out = run(&["a.q"], &statements, "a.p");
    assert!(out[0].starts_with("! "), "{out:?}");
}

#[test]
fn what_concerns_other_tables_is_let_by_and_what_cannot_be_run_is_not() {
    let out = run(
        &["a.p", "a.q"],
        &[
            "CREATE TABLE c AS SELECT * FROM p",
            "ALTER TABLE q IMPORT TABLESPACE",
            "CREATE TABLE IF NOT EXISTS p AS SELECT * FROM q",
            "CREATE TRIGGER g BEFORE INSERT ON p FOR EACH ROW SET @x = 1",
            "GRANT SELECT ON a.p TO b",
            "OPTIMIZE TABLE p",
            "ANALYZE TABLE p UPDATE HISTOGRAM ON x",
            "ANALYZE TABLE p, q",
            "ALTER TABLE p DISCARD TABLESPACE",
            "CREATE TEMPORARY TABLE q (id INT)",
            "CREATE TEMPORARY TABLE p (id INT)",
            "INSERT INTO q VALUES (1)",
            "COMMIT",
        ],
        "a.p",
    );
    let said: Vec<&str> = out
        .iter()
        .map(|text| text.get(..3).unwrap_or(text))
        .collect();
    assert_eq!(
        said,
        [
            "", "", "", "", "", "", "ANA", "", "! i", "", "! a", "! i", ""
        ],
        "{out:?}"
    );
}

#[test]
fn a_schema_without_staging_is_an_error_and_nothing_else() {
    let statement = parse("CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES far.p (id))");
    assert_eq!(
        statement.staged(&staging()),
        Err(StageError::NoStaging(name("far.p")))
    );
    let pairs = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        Staging::new(pairs.collect::<Vec<_>>(), NameCase::Folded)
    };
    assert!(pairs(&[("a", "s"), ("b", "S")]).is_err());
    assert!(pairs(&[("a", "b"), ("B", "s")]).is_err());
    assert!(pairs(&[("a", "s"), ("A", "s")]).is_ok());
}

#[test]
fn names_are_folded_where_the_server_folds_them() {
    let start = Start {
        schemas: Vec::new(),
        tables: vec![name("a.pages")],
        views: Vec::new(),
    };
    let mut lineage = Lineage::new(start, NameCase::Folded);
    lineage.read(&parse("RENAME TABLE A.Pages TO a.PAGES2"));
    let choice = chosen(&lineage, "A.pages?");
    assert_eq!(choice.tables, [TableId(0)]);
    assert_eq!(chosen(&lineage, "a.PAGES").gone.len(), 1);
}
