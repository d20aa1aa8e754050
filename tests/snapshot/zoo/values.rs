//! Values of every type, names that need quoting, and objects that depend on each other.

use anyhow::Result;
use quillback::snapshot::SnapshotOptions;
use quillback_harness::{Server, ServerOptions};

use super::compare::assert_same;
use crate::support::{exec_all, load_into, manifest, memory, on_primary, snapshot, url};

const ZOO: &[&str] = &[
    "CREATE DATABASE zoo CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE DATABASE `odd ``name\nwith ż` CHARACTER SET latin2",
    "CREATE DATABASE empty_one",
    "USE zoo",
    "SET SESSION sql_mode = ''",
    "CREATE TABLE numbers (id BIGINT PRIMARY KEY, t TINYINT, u BIGINT UNSIGNED, d DECIMAL(65,30), \
     f FLOAT, f2 FLOAT(7,2), g DOUBLE, g2 DOUBLE(12,3), b1 BIT(1), b9 BIT(9), b64 BIT(64), bo BOOL)",
    "INSERT INTO numbers VALUES \
     (-9223372036854775808, -128, 18446744073709551615, 99999999999999999999999999999999999.999999999999999999999999999999, \
      1.17549435e-38, 12345.67, 1.7976931348623157e308, 123456789.123, b'1', b'101010101', b'1111111111111111111111111111111111111111111111111111111111111111', true), \
     (0, 0, 0, 0, -0e0, -0.01, -0e0, 0.001, b'0', b'0', b'1011100', false), \
     (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
     (2, 1, 9, 0.1, 16777217, 0.1, 0.1, 0.1, b'1', 9, 10, true), \
     (3, 1, 92, 0.1, 3.4028234663852886e38, 0.1, 4.9406564584124654e-324, 0.1, b'1', 92, 2314, true)",
    "CREATE TABLE texts (id INT PRIMARY KEY, l1 VARCHAR(20) CHARACTER SET latin1, l2 CHAR(10) CHARACTER SET latin2, \
     u8 VARCHAR(20) CHARACTER SET utf8mb3, u4 LONGTEXT, u16 VARCHAR(20) CHARACTER SET utf16, \
     u32 VARCHAR(20) CHARACTER SET utf32, u2 VARCHAR(20) CHARACTER SET ucs2, le VARCHAR(20) CHARACTER SET utf16le, gb VARCHAR(20) CHARACTER SET gbk, \
     g18 VARCHAR(20) CHARACTER SET gb18030, sj VARCHAR(20) CHARACTER SET sjis, big VARCHAR(20) CHARACTER SET big5, \
     e ENUM('a','żółć','2','1') CHARACTER SET latin2, s SET('x','y','ż') CHARACTER SET ucs2, \
     bi BINARY(4), vb VARBINARY(300), bl LONGBLOB, tt TINYTEXT) CHARACTER SET utf8mb4",
    "INSERT INTO texts VALUES (1, 'é\\\\N', 'żółć ', 'ż', 'tab\\tnewline\\ncr\\r nul\\0 back\\\\slash emoji 😀 \\\\N', 'żółw😀', '😀', 'ż', '😀', '中文', \
     '中文😀', 'ソ表能', '功能', 'żółć', 'x,ż', x'01', x'00090a5c0d1a27225c4e', REPEAT(x'5c090a00', 3000), ''), \
     (2, '', '', '', '', '', '', '', '', '', '', '', '', '2', '', '', '', '', ''), \
     (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
     (4, '\\\\', '\\\\N', '\\t', '\\n', '\\\\', '\\n', '\\t', '\\n', '\\\\', '\\n', '\\\\', '\\\\', '1', 'x,y,ż', '\\n', '\\\\', '\\\\', '\\\\N')",
    "CREATE TABLE times (id INT PRIMARY KEY, d DATE, dt DATETIME(6), ts TIMESTAMP(6) NULL, t TIME(3), y YEAR, \
     ts0 TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
    "SET time_zone = '+05:30'",
    "INSERT INTO times VALUES (1, '0000-00-00', '0000-00-00', '0000-00-00', '-838:59:59.000', 0, '2038-01-01 00:00:00'), \
     (2, '2024-02-30'+0, '9999-12-31 23:59:59.999999', '2024-10-27 02:30:00.123456', '838:59:58.999', 2155, '1970-01-02 00:00:00'), \
     (3, '2024-00-00', '2024-01-00', NULL, '00:00:00.001', 1901, '2024-03-31 02:30:00')",
    "SET time_zone = '+00:00'",
    "CREATE TABLE documents (id INT AUTO_INCREMENT PRIMARY KEY, j JSON, n JSON NOT NULL, \
     g POINT NOT NULL SRID 4326, any_g GEOMETRY, \
     v INT GENERATED ALWAYS AS (hidden * 2) VIRTUAL, st VARCHAR(40) GENERATED ALWAYS AS (j->>'$.a') STORED, \
     hidden INT INVISIBLE DEFAULT 7, tags JSON, \
     SPATIAL INDEX (g), INDEX ((CAST(tags AS UNSIGNED ARRAY))), INDEX ((hidden + 1)), CHECK (hidden > 0)) AUTO_INCREMENT = 500",
    "INSERT INTO documents (j, n, g, any_g, hidden, tags) VALUES \
     ('{\"a\": \"b\\\\n\\\\t\\\\\\\\ 😀\", \"f\": 1.5, \"n\": null, \"big\": 18446744073709551615}', '[]', ST_GeomFromText('POINT(1 2)', 4326), \
      ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 9 9))'), 8, '[1, 2]'), \
     (NULL, 'null', ST_GeomFromText('POINT(-90 180)', 4326), NULL, 9, NULL), \
     ('\"\\\\\\\\N\"', '\"x\"', ST_GeomFromText('POINT(0 0)', 4326), ST_GeomFromText('POLYGON((0 0, 0 1, 1 1, 0 0))', 3857), 10, '[]')",
    "CREATE TABLE parts (a INT, b VARCHAR(10), PRIMARY KEY (a, b)) PARTITION BY RANGE (a) \
     (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)",
    "INSERT INTO parts VALUES (1, 'x'), (11, 'y'), (5, 'z'), (10, '')",
    "CREATE TABLE without_key (a VARCHAR(10), b INT)",
    "INSERT INTO without_key VALUES ('same', 1), ('same', 1), (NULL, NULL), ('', NULL)",
    "CREATE TABLE one_column (a VARCHAR(10))",
    "INSERT INTO one_column VALUES (''), (NULL), (''), ('\\\\N'), ('\\n')",
    "CREATE TABLE only_computed (a INT GENERATED ALWAYS AS (1) VIRTUAL)",
    "INSERT INTO only_computed VALUES (), (), ()",
    "CREATE TABLE `weird ``table\nż` (`col ``um\nn ż` INT PRIMARY KEY, `select` VARCHAR(9) DEFAULT 'it''s' COMMENT 'a ''comment'' AUTO_INCREMENT=5')",
    "INSERT INTO `weird ``table\nż` VALUES (1, 'x'), (2, '`')",
    "SET foreign_key_checks = 0",
    "CREATE TABLE child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES zparent (id) ON DELETE CASCADE)",
    "INSERT INTO child VALUES (1, 1), (2, 77)",
    "SET foreign_key_checks = 1",
    "CREATE TABLE zparent (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(10), FULLTEXT (name))",
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    "INSERT INTO zparent VALUES (0, 'zero'), (1, 'one')",
    "SET SESSION sql_mode = ''",
    "CREATE TABLE empty_table (id INT PRIMARY KEY)",
    "SET SESSION sql_generate_invisible_primary_key = 1",
    "CREATE TABLE hidden_key (a INT)",
    "SET SESSION sql_generate_invisible_primary_key = 0",
    "INSERT INTO hidden_key VALUES (3), (1), (2)",
    // An ENUM's error value, which is neither NULL nor a member.
    "CREATE TABLE enum_error (e ENUM('a', 'b'))",
    "INSERT INTO enum_error VALUES ('a'), ('nonsense')",
    "USE `odd ``name\nwith ż`",
    "CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(5))",
    "INSERT INTO t VALUES (1, 'łó')",
    "CREATE TRIGGER first_one BEFORE INSERT ON t FOR EACH ROW SET NEW.b = CONCAT(NEW.b, 'ż')",
    "USE zoo",
    "CREATE FUNCTION twice(x INT) RETURNS INT DETERMINISTIC RETURN x * 2 /* $$ ;; DELIMITER */",
    "SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "CREATE PROCEDURE \"pro`c\"(IN a VARCHAR(10), OUT b INT) COMMENT 'ż' BEGIN SELECT \"a\" || 'x'; SET b = 1; END",
    "SET SESSION sql_mode = ''",
    "CREATE TRIGGER t1 AFTER INSERT ON zparent FOR EACH ROW SET @a = 1",
    "CREATE TRIGGER t2 AFTER INSERT ON zparent FOR EACH ROW FOLLOWS t1 SET @a = 2",
    "CREATE TRIGGER t0 AFTER INSERT ON zparent FOR EACH ROW PRECEDES t1 SET @a = 'ż\n'",
    "SET time_zone = '+02:00'",
    "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 03:00:00' DO BEGIN DELETE FROM empty_table; END",
    "CREATE DEFINER = 'nobody'@'nowhere' EVENT off_one ON SCHEDULE AT '2035-01-01 00:00:00' DISABLE DO SET @x = 1",
    "SET time_zone = '+00:00'",
    "CREATE VIEW c_first AS SELECT * FROM b_second WHERE twice(id) > 0",
    "CREATE VIEW a_broken AS SELECT * FROM to_be_dropped",
];

/// Puts all of this into a server.
pub(super) async fn fill(source: &Server) -> Result<()> {
    let views = [
        "CREATE VIEW b_second AS SELECT id, name FROM zparent WITH CASCADED CHECK OPTION",
        "CREATE TABLE to_be_dropped (id INT)",
    ];
    let at = ZOO
        .iter()
        .position(|sql| sql.starts_with("CREATE VIEW c_first"))
        .expect("there");
    let statements = [
        &ZOO[..at],
        &views[..],
        &ZOO[at..],
        &["DROP TABLE to_be_dropped"],
    ]
    .concat();
    exec_all(source, &statements).await?;
    // Another client's character set is part of what an object means.
    exec_all(
        source,
        &[
            "USE zoo",
            "SET NAMES latin1",
            "CREATE VIEW latin AS SELECT 'x' = 'X' AS same, CHARSET('x') AS cs",
        ],
    )
    .await?;
    vectors_if_known(source).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_object_and_every_value_comes_back() -> Result<()> {
    let source = Server::start().await?;
    fill(&source).await?;
    let storage = memory();
    let options = SnapshotOptions {
        file_bytes: 1 << 20,
        count_rows: true,
        ..on_primary()
    };
    let report = snapshot(&[url(&source)], &options, &storage).await?;
    assert!(
        report.warnings.iter().any(|w| w.contains("a_broken")),
        "{:?}",
        report.warnings
    );
    let first = manifest(&*storage, &report).await?;
    assert_eq!(
        first.gtid_executed.to_string(),
        source.gtid_executed().await?.replace('\n', "")
    );

    let target = Server::start_with(ServerOptions::new().line("local_infile=OFF")).await?;
    let loaded = load_into(&target, &storage, &first).await?;
    assert_eq!(loaded.rows, first.totals.rows);
    assert_eq!(target.gtid_executed().await?, source.gtid_executed().await?);
    assert_eq!(target.one::<u8>("SELECT @@GLOBAL.local_infile").await?, 0);
    assert_eq!(
        target
            .one::<String>("SELECT @@GLOBAL.event_scheduler")
            .await?,
        "OFF"
    );

    // What is broken on the source cannot be made.
    let compared = assert_same(&source, &target, &["a_broken"]).await?;
    assert!(compared.objects >= 34, "{compared:?}");
    assert_eq!(compared.tables, first.tables.len());
    assert!(
        loaded
            .warnings
            .iter()
            .any(|w| w.contains("zoo.a_broken of the invalid views was not made")),
        "{:?}",
        loaded.warnings
    );

    // The checksums of a second snapshot, of the other server, are the first one's.
    let again = snapshot(&[url(&target)], &on_primary(), &storage).await?;
    let second = manifest(&*storage, &again).await?;
    assert_eq!(first.gtid_executed, second.gtid_executed);
    for (a, b) in first.tables.iter().zip(&second.tables) {
        assert_eq!(
            (a.display_name(), a.rows, a.row_checksum),
            (b.display_name(), b.rows, b.row_checksum)
        );
    }
    Ok(())
}

/// VECTOR came with 9.0.
async fn vectors_if_known(source: &Server) -> Result<()> {
    let version: String = source.one("SELECT VERSION()").await?;
    if version.starts_with("8.") {
        return Ok(());
    }
    exec_all(
        source,
        &[
            "CREATE TABLE zoo.vectors (id INT PRIMARY KEY, v VECTOR(3))",
            "INSERT INTO zoo.vectors VALUES (1, TO_VECTOR('[1e-30, -2, 3.4e38]')), (2, NULL)",
        ],
    )
    .await
}
