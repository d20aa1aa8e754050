//! Objects of every kind with every option that the manual has and this server takes.

use anyhow::Result;
use quillback::archive::manifest::ScriptKind;
use quillback_harness::{Server, ServerOptions};

use super::compare::assert_same;
use crate::support::{exec_all, load_into, manifest, memory, on_primary, raw_rows, snapshot, url};

/// What belongs to no schema.
const INSTANCE: &[&str] = &[
    "CREATE TABLESPACE `gen ``ts` ADD DATAFILE 'gen.ibd' ENGINE = InnoDB",
    "CREATE TABLESPACE small_pages ADD DATAFILE 'small.ibd' FILE_BLOCK_SIZE = 8192 AUTOEXTEND_SIZE = 4M ENGINE = InnoDB",
    "CREATE UNDO TABLESPACE own_undo ADD DATAFILE 'own_undo.ibu'",
    "CREATE SPATIAL REFERENCE SYSTEM 4120123 NAME 'Zoo\\'s own' DEFINITION \
     'GEOGCS[\"Zoo\",DATUM[\"Zoo\",SPHEROID[\"Zoo\",6377397.155,299.1528128]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lon\",EAST],AXIS[\"Lat\",NORTH]]' \
     ORGANIZATION 'zoo' IDENTIFIED BY 4120 DESCRIPTION 'with a back\\\\slash'",
    // Two that every server comes with, changed: with another description, and with another definition.
    "CREATE OR REPLACE SPATIAL REFERENCE SYSTEM 4322 NAME 'WGS 72' DEFINITION \
     'GEOGCS[\"WGS 72\",DATUM[\"Zoo\",SPHEROID[\"Zoo\",6378135,298.26]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lat\",NORTH],AXIS[\"Lon\",EAST],AUTHORITY[\"EPSG\",\"4322\"]]' \
     ORGANIZATION 'EPSG' IDENTIFIED BY 4322 DESCRIPTION 'as we see it'",
    "CREATE OR REPLACE SPATIAL REFERENCE SYSTEM 4120 NAME 'Greek of ours' DEFINITION \
     'GEOGCS[\"Greek\",DATUM[\"Zoo\",SPHEROID[\"Zoo\",6377397.155,299.1528128]],PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lat\",NORTH],AXIS[\"Lon\",EAST]]' \
     ORGANIZATION 'EPSG' IDENTIFIED BY 4120",
    "CREATE SERVER `far ``away` FOREIGN DATA WRAPPER mysql OPTIONS (HOST '10.0.0.1', DATABASE 'd', USER 'it''s', PASSWORD 'a\\\\b''c', PORT 3307)",
    "CREATE SERVER socket_only FOREIGN DATA WRAPPER `odd wrapper` OPTIONS (SOCKET '/tmp/x', OWNER 'somebody')",
    "CREATE RESOURCE GROUP `off duty` TYPE = USER VCPU = 0 THREAD_PRIORITY = 0 DISABLE",
    "CREATE FUNCTION service_get_read_locks RETURNS INT SONAME 'locking_service.so'",
];

const TABLES: &[&str] = &[
    "CREATE DATABASE farm CHARACTER SET latin1 COLLATE latin1_german2_ci",
    "CREATE DATABASE `a``b \"c\" 'd'. e` COLLATE utf8mb4_0900_as_cs",
    "CREATE DATABASE frozen",
    "USE farm",
    // Where and how InnoDB keeps a table.
    "CREATE TABLE in_ts (id INT PRIMARY KEY, b VARCHAR(10)) TABLESPACE `gen ``ts`",
    "CREATE TABLE in_small (id INT PRIMARY KEY) TABLESPACE small_pages ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8",
    "CREATE TABLE in_system (id INT PRIMARY KEY) TABLESPACE innodb_system",
    "CREATE TABLE per_file (id INT PRIMARY KEY) TABLESPACE innodb_file_per_table",
    "CREATE TABLE compressed (id INT PRIMARY KEY, b TEXT) ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 4",
    "CREATE TABLE redundant (id INT PRIMARY KEY, b TEXT, KEY (b(20)) KEY_BLOCK_SIZE = 8) ROW_FORMAT = REDUNDANT",
    "CREATE TABLE compact (id INT PRIMARY KEY, b TEXT) ROW_FORMAT = COMPACT COMPRESSION = 'zlib'",
    "CREATE TABLE options (id INT PRIMARY KEY) ROW_FORMAT = DYNAMIC STATS_PERSISTENT = 0 STATS_AUTO_RECALC = 1 STATS_SAMPLE_PAGES = 33 \
     MIN_ROWS = 5 MAX_ROWS = 5000 AVG_ROW_LENGTH = 100 CHECKSUM = 1 DELAY_KEY_WRITE = 1 PACK_KEYS = 1 AUTOEXTEND_SIZE = 4M \
     COMMENT 'it''s a \\\\ \\n ''comment'' AUTO_INCREMENT=7 ż'",
    "CREATE TABLE secondary (id INT PRIMARY KEY, a INT NOT SECONDARY, b INT SECONDARY_ENGINE_ATTRIBUTE = '{\"c\": 1}', \
     KEY (b) SECONDARY_ENGINE_ATTRIBUTE = '{\"i\": 2}') SECONDARY_ENGINE = mock SECONDARY_ENGINE_ATTRIBUTE = '{\"t\": \"x\"}'",
    "CREATE TABLE storage (a INT COLUMN_FORMAT FIXED STORAGE DISK, b VARCHAR(5) COLUMN_FORMAT DYNAMIC STORAGE MEMORY, c INT COLUMN_FORMAT DEFAULT)",
    // What a stricter server would refuse today.
    "SET SESSION innodb_strict_mode = 0",
    "CREATE TABLE lax (id INT PRIMARY KEY) ROW_FORMAT = FIXED KEY_BLOCK_SIZE = 1",
    "SET SESSION innodb_strict_mode = 1",
    // Partitions of all kinds.
    "CREATE TABLE by_range (a INT NOT NULL, b DATE) PARTITION BY RANGE (YEAR(b)) SUBPARTITION BY HASH (TO_DAYS(b)) SUBPARTITIONS 2 \
     (PARTITION `p ``ż` VALUES LESS THAN (1990) COMMENT = 'it''s', PARTITION p1 VALUES LESS THAN MAXVALUE MAX_ROWS = 10)",
    "INSERT INTO by_range VALUES (1, '1989-05-05'), (2, '2020-01-01'), (3, NULL)",
    "CREATE TABLE by_columns (a VARCHAR(10), b DATETIME, c INT) CHARACTER SET utf8mb4 PARTITION BY RANGE COLUMNS (a, b) \
     SUBPARTITION BY LINEAR KEY ALGORITHM = 2 (c) SUBPARTITIONS 3 \
     (PARTITION p0 VALUES LESS THAN ('ł''', '2020-01-01 00:00:00'), PARTITION p1 VALUES LESS THAN (MAXVALUE, MAXVALUE))",
    "INSERT INTO by_columns VALUES ('a', '2019-01-01', 1), ('ż', NULL, 2)",
    "CREATE TABLE by_list (a INT) PARTITION BY LIST (a DIV 2) (PARTITION p0 VALUES IN (NULL, 0, 1), PARTITION p1 VALUES IN (2, -3))",
    "INSERT INTO by_list VALUES (NULL), (1), (5), (-6)",
    "CREATE TABLE by_list_columns (a VARCHAR(5), b DATE) CHARACTER SET utf8mb4 PARTITION BY LIST COLUMNS (a, b) \
     (PARTITION p0 VALUES IN (('x', '2020-01-01'), (NULL, NULL)), PARTITION p1 VALUES IN (('ż', NULL)))",
    "INSERT INTO by_list_columns VALUES ('x', '2020-01-01'), ('ż', NULL), (NULL, NULL)",
    "CREATE TABLE by_hash (a INT PRIMARY KEY) PARTITION BY HASH (a + 1) PARTITIONS 3",
    "CREATE TABLE by_linear_hash (a INT PRIMARY KEY) PARTITION BY LINEAR HASH (a) PARTITIONS 3",
    "CREATE TABLE by_key (a VARCHAR(10) PRIMARY KEY) PARTITION BY KEY () PARTITIONS 3",
    "CREATE TABLE by_old_key (a INT, b INT) PARTITION BY KEY ALGORITHM = 1 (b, a) PARTITIONS 2",
    "INSERT INTO by_hash VALUES (1), (2), (3), (-7)",
    "INSERT INTO by_key VALUES ('a'), ('b'), (''), ('ß')",
    // Columns and keys.
    "CREATE TABLE computed (id INT PRIMARY KEY, j JSON, d DOUBLE, name VARCHAR(50) CHARACTER SET utf8mb4, \
     v VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin GENERATED ALWAYS AS (CONCAT(name, '\\\\ ''ż''')) VIRTUAL COMMENT 'virtual', \
     s DECIMAL(20,5) GENERATED ALWAYS AS (d * 2) STORED NOT NULL INVISIBLE, \
     w INT GENERATED ALWAYS AS (JSON_LENGTH(j, '$.\"a\\\\\\\\b\"')) VIRTUAL, \
     KEY on_expression ((LOWER(name)), (d + 1) DESC), UNIQUE KEY on_computed (v, id), \
     KEY members ((CAST(j->'$.tags' AS CHAR(10) ARRAY)), id), KEY numbers ((CAST(j->'$.n' AS UNSIGNED ARRAY))), \
     KEY hidden (name(7) DESC, d ASC) INVISIBLE COMMENT 'it''s', FULLTEXT KEY words (name) WITH PARSER ngram, FULLTEXT KEY plain (name))",
    "INSERT INTO computed (id, j, d, name) VALUES (1, '{\"tags\": [\"a\", \"b\"], \"n\": [1, 2]}', 1.5, 'Łódź'), (2, NULL, 0, 'x'), (3, '[]', -1, '')",
    "CREATE TABLE defaults (id BINARY(16) PRIMARY KEY DEFAULT (UUID_TO_BIN(UUID())), j JSON DEFAULT (JSON_ARRAY('ż', 'it''s')), b BLOB DEFAULT ('x'), \
     t TEXT CHARACTER SET latin2 DEFAULT (_latin2'x'), bits BIT(9) DEFAULT b'101', e ENUM('a', 'it''s', 'żółw', ',', '') CHARACTER SET utf8mb4 DEFAULT 'it''s', \
     s SET('a', 'ż', 'c d') CHARACTER SET utf8mb4 DEFAULT 'a,ż', vb VARBINARY(9) DEFAULT x'00ff27', \
     quoted VARCHAR(50) DEFAULT 'it''s \\\\ \\n \\t \\0 %', ts TIMESTAMP(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), \
     dt DATETIME DEFAULT '0000-00-00 00:00:00' ON UPDATE CURRENT_TIMESTAMP, y YEAR DEFAULT 2000, z INT(6) UNSIGNED ZEROFILL DEFAULT 42, \
     f FLOAT UNSIGNED DEFAULT 0.1, n DECIMAL(10,4) NOT NULL DEFAULT '1.5', o VARCHAR(5) NOT NULL, p INT DEFAULT NULL COMMENT 'a\\\\b ''c''\\n')",
    "INSERT INTO defaults (id, o) VALUES (x'00', 'a'), (x'01', '')",
    "CREATE TABLE shapes (id INT PRIMARY KEY, a POINT NOT NULL SRID 4326, b LINESTRING, c POLYGON SRID 0, d MULTIPOINT, e MULTILINESTRING, f MULTIPOLYGON, \
     g GEOMETRYCOLLECTION, h GEOMETRY NOT NULL SRID 3857, i POINT SRID 4120123, SPATIAL KEY (a), SPATIAL KEY on_h (h))",
    "INSERT INTO shapes VALUES (1, ST_GeomFromText('POINT(50 19)', 4326), ST_GeomFromText('LINESTRING(0 0, 1 1)'), \
     ST_GeomFromText('POLYGON((0 0, 0 3, 3 3, 0 0))'), ST_GeomFromText('MULTIPOINT(1 1, 2 2)'), ST_GeomFromText('MULTILINESTRING((0 0, 1 1))'), \
     ST_GeomFromText('MULTIPOLYGON(((0 0, 0 3, 3 3, 0 0)))'), ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'), ST_GeomFromText('POINT(1 2)', 3857), \
     ST_GeomFromText('POINT(1 2)', 4120123))",
    "CREATE TABLE checks (a INT CONSTRAINT positive CHECK (a > 0), b VARCHAR(9) CHARACTER SET utf8mb4 CHECK (b <> 'it''s ż'), \
     CONSTRAINT `odd ``one` CHECK (a < 10 OR b IS NULL) NOT ENFORCED)",
    "INSERT INTO checks VALUES (50, 'x')",
    // Characters beyond U+FFFF, which the server prints as question marks in places.
    "CREATE TABLE faces (id INT PRIMARY KEY, d VARCHAR(20) DEFAULT 'why? 👍', e ENUM('a?', '😀', '?', 'x😀''\\\\') DEFAULT '😀', s SET('😀', 'b?'), \
     g VARCHAR(20) AS (CONCAT(d, '😀?')) VIRTUAL, x VARCHAR(9) DEFAULT (CONCAT('😀', '?')), CHECK (d <> '😀')) CHARACTER SET utf8mb4",
    "INSERT INTO faces (id, e, s) VALUES (1, DEFAULT, '😀'), (2, 'a?', 'b?'), (3, '?', NULL), (4, 'x😀''\\\\', '😀,b?')",
    "CREATE TABLE face_parts (c VARCHAR(9)) CHARACTER SET utf8mb4 PARTITION BY LIST COLUMNS (c) (PARTITION p0 VALUES IN ('😀', '?'), PARTITION p1 VALUES IN ('x'))",
    "INSERT INTO face_parts VALUES ('😀'), ('x')",
    // AUTO_INCREMENT.
    "CREATE TABLE ahead (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT = 18446744073709551000",
    "CREATE TABLE behind (id INT AUTO_INCREMENT, k INT, KEY (k), KEY (id))",
    "INSERT INTO behind (k) VALUES (1), (2), (3), (4)",
    "DELETE FROM behind WHERE id > 1",
    // Foreign keys: to itself, in a circle, to another schema, to nothing.
    "CREATE TABLE tree (id INT PRIMARY KEY, parent INT, CONSTRAINT up FOREIGN KEY (parent) REFERENCES tree (id) ON DELETE SET NULL ON UPDATE CASCADE)",
    "INSERT INTO tree VALUES (2, NULL), (1, 2)",
    "CREATE TABLE egg (id INT PRIMARY KEY, hen INT)",
    "CREATE TABLE hen (id INT PRIMARY KEY, egg INT, CONSTRAINT `from ``egg` FOREIGN KEY (egg) REFERENCES egg (id))",
    "ALTER TABLE egg ADD CONSTRAINT from_hen FOREIGN KEY (hen) REFERENCES hen (id) ON DELETE RESTRICT",
    "INSERT INTO egg VALUES (1, NULL)",
    "INSERT INTO hen VALUES (1, 1)",
    "UPDATE egg SET hen = 1",
    "USE `a``b \"c\" 'd'. e`",
    "CREATE TABLE `z``parent.` (a INT, `b ``b` VARCHAR(9), PRIMARY KEY (a, `b ``b`))",
    "INSERT INTO `z``parent.` VALUES (1, 'ż')",
    "CREATE TABLE `dots.in.it.` (`a.b` INT PRIMARY KEY, `''` INT, `\"` INT, `%` INT, `\\\\` INT, `a\tb` INT)",
    "INSERT INTO `dots.in.it.` VALUES (1, 2, 3, 4, 5, 6)",
    "CREATE TABLE farm.abroad (id INT PRIMARY KEY, a INT, b VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_as_cs, \
     FOREIGN KEY (a, b) REFERENCES `a``b \"c\" 'd'. e`.`z``parent.` (a, `b ``b`) ON UPDATE NO ACTION)",
    "INSERT INTO farm.abroad VALUES (1, 1, 'ż')",
    "SET foreign_key_checks = 0",
    "CREATE TABLE farm.orphan (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES never.was (id))",
    "INSERT INTO farm.orphan VALUES (1, 99)",
    "SET foreign_key_checks = 1",
    "USE farm",
    "ANALYZE TABLE by_hash UPDATE HISTOGRAM ON a WITH 2 BUCKETS",
    "ANALYZE TABLE computed UPDATE HISTOGRAM ON name, d WITH 8 BUCKETS",
    "ANALYZE TABLE defaults UPDATE HISTOGRAM ON quoted, e, dt, vb WITH 8 BUCKETS",
];

const STORED: &[&str] = &[
    "USE farm",
    "CREATE FUNCTION half(x INT) RETURNS INT NO SQL SQL SECURITY INVOKER COMMENT 'it''s \\\\ half' RETURN x DIV 2",
    "CREATE FUNCTION `odd ``f`(`a ``b` VARCHAR(9) CHARACTER SET utf8mb4) RETURNS VARCHAR(9) CHARACTER SET latin2 DETERMINISTIC READS SQL DATA \
     RETURN (SELECT MAX(id) FROM tree WHERE id <> `a ``b`)",
    "CREATE PROCEDURE many(INOUT a DECIMAL(5,2), OUT b JSON, IN c ENUM('x', 'ż') CHARACTER SET utf8mb4) MODIFIES SQL DATA \
     BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION SET a = 1; IF a > 1 THEN INSERT INTO tree VALUES (9, NULL); END IF; -- ; done\n END",
    "CREATE USER 'gone'@'nowhere'",
    "GRANT SELECT ON farm.* TO 'gone'@'nowhere'",
    "CREATE DEFINER = 'gone'@'nowhere' FUNCTION of_nobody() RETURNS INT NO SQL RETURN 7",
    "CREATE ALGORITHM = TEMPTABLE SQL SECURITY INVOKER VIEW z_base AS SELECT id, half(id) AS h FROM tree",
    "CREATE ALGORITHM = MERGE VIEW y_checked AS SELECT id, parent FROM tree WHERE id > 0 WITH LOCAL CHECK OPTION",
    "CREATE VIEW a_top AS SELECT z.id, y.parent FROM z_base z JOIN y_checked y USING (id)",
    "CREATE VIEW `a``b \"c\" 'd'. e`.`v ``w` AS SELECT 'it''s \\\\ ż' AS `c ``d`, t.* FROM farm.a_top t",
    "CREATE VIEW on_catalogue AS SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'farm'",
    "CREATE DEFINER = 'gone'@'nowhere' VIEW m_of_nobody AS SELECT id FROM tree",
    "CREATE VIEW b_on_nobody AS SELECT id FROM m_of_nobody",
    "SET SESSION sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'",
    "CREATE VIEW \"ansi\" AS SELECT 'a\\b' || 'c' AS \"x\"\"y\", (SELECT COUNT(*) FROM \"tree\") AS n",
    "CREATE TRIGGER \"ansi ins\" BEFORE INSERT ON tree FOR EACH ROW SET @x = 'a\\' || \"new\".id",
    "SET SESSION sql_mode = ''",
    "CREATE DEFINER = 'gone'@'nowhere' TRIGGER of_nobody AFTER DELETE ON egg FOR EACH ROW SET @y = 1",
    "CREATE TRIGGER upd BEFORE UPDATE ON egg FOR EACH ROW BEGIN IF NEW.id <> OLD.id THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ż'; END IF; END",
    "CREATE TABLE frozen.ice (id INT PRIMARY KEY AUTO_INCREMENT, t VARCHAR(5))",
    "INSERT INTO frozen.ice VALUES (3, 'x')",
    "CREATE VIEW frozen.v AS SELECT * FROM frozen.ice",
    "CREATE TRIGGER frozen.t BEFORE INSERT ON frozen.ice FOR EACH ROW SET NEW.t = 'y'",
    "DROP USER 'gone'@'nowhere'",
    "ALTER DATABASE frozen COLLATE utf8mb4_bin",
    "ALTER DATABASE frozen READ ONLY = 1",
    "SET PERSIST max_connections = 77",
];

/// What later versions have: the statement, and the catalogue's view that tells of it.
const NEWER: &[(&str, &str)] = &[
    (
        "CREATE LIBRARY farm.`lib ``x` LANGUAGE JAVASCRIPT AS $js$ export function f(n) { return 'ż$$' } $js$",
        "LIBRARIES",
    ),
    (
        "CREATE JSON RELATIONAL DUALITY VIEW farm.dual AS SELECT JSON_DUALITY_OBJECT('_id': id, 'parent': parent) FROM farm.tree",
        "JSON_DUALITY_VIEWS",
    ),
];

/// Puts all of this into a server.
pub(super) async fn fill(server: &Server) -> Result<()> {
    let mut statements = [&["SET SESSION sql_mode = ''"], INSTANCE, TABLES, STORED].concat();
    for (statement, view) in NEWER {
        let known: u64 = server
            .one(&format!(
                "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'information_schema' AND TABLE_NAME = '{view}'"
            ))
            .await?;
        if known > 0 {
            statements.push(statement);
        }
    }
    exec_all(server, &statements).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_and_every_option_comes_back() -> Result<()> {
    let secret = ServerOptions::new().line("report_password=hunter2");
    let source = Server::start_with(secret).await?;
    fill(&source).await?;
    let storage = memory();
    let report = snapshot(&[url(&source)], &on_primary(), &storage).await?;
    let first = manifest(&*storage, &report).await?;
    let kinds: Vec<ScriptKind> = first.schema.iter().map(|script| script.kind).collect();
    assert_eq!(
        kinds,
        [
            ScriptKind::Tablespaces,
            ScriptKind::SpatialReferenceSystems,
            ScriptKind::LoadableFunctions,
            ScriptKind::ResourceGroups,
            ScriptKind::Servers,
            ScriptKind::Databases,
            ScriptKind::Tables,
            ScriptKind::Rows,
            ScriptKind::Histograms,
            ScriptKind::Routines,
            ScriptKind::Views,
            ScriptKind::InvalidViews,
            ScriptKind::Triggers,
            ScriptKind::ReadOnly,
            ScriptKind::Gtids,
        ]
    );
    // A view on a view whose definer is gone is broken; the other one only cannot be read.
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert!(report.warnings[0].contains("farm.b_on_nobody"));

    let target = Server::start().await?;
    let loaded = load_into(&target, &storage, &first).await?;
    assert_eq!(loaded.rows, first.totals.rows);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("farm.b_on_nobody of the invalid views was not made"));
    assert_eq!(target.gtid_executed().await?, source.gtid_executed().await?);
    let compared = assert_same(&source, &target, &["b_on_nobody"]).await?;
    assert!(compared.objects >= 60, "{compared:?}");
    assert_eq!(compared.tables, first.tables.len());
    // What was frozen is frozen.
    let refused = target.exec("INSERT INTO frozen.ice VALUES (4, 'x')").await;
    assert!(format!("{:?}", refused.expect_err("read only")).contains("3989"));

    // What is told and not made again.
    let information = serde_json::to_string(&first.information)?;
    for told in ["own_undo", "max_connections", "report_password"] {
        assert!(information.contains(told), "{told}: {information}");
    }
    assert!(!information.contains("hunter2"), "{information}");

    // The same objects give the same checksums again, and each statement the same text.
    let again = snapshot(&[url(&target)], &on_primary(), &storage).await?;
    let second = manifest(&*storage, &again).await?;
    for (a, b) in first.tables.iter().zip(&second.tables) {
        assert_eq!(
            (a.display_name(), a.rows, a.row_checksum),
            (b.display_name(), b.rows, b.row_checksum)
        );
    }
    let next = raw_rows(&target, "SHOW CREATE TABLE farm.behind").await?;
    assert!(
        String::from_utf8_lossy(&next[0][1]).contains("AUTO_INCREMENT=5"),
        "the next value is beyond the greatest one"
    );
    Ok(())
}
