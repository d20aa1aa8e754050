//! The statements: default schema (none: as before) and text. Those with the mark [`ANSI`] are run
//! with `ANSI_QUOTES`.

/// In a statement that is to be read with double quotes around names.
pub(super) const ANSI: &str = "/*ansi*/";

type Statements = &'static [(&'static str, &'static str)];

/// What there is before.
pub(super) const START: Statements = &[
    (
        "",
        "CREATE DATABASE a CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    ),
    ("", "CREATE DATABASE b CHARACTER SET latin1"),
    (
        "a",
        "CREATE TABLE pages (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, title VARCHAR(90), parent BIGINT UNSIGNED, \
         made DATETIME, FOREIGN KEY (parent) REFERENCES pages (id), CHECK (title <> ''))",
    ),
    (
        "",
        "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(30))",
    ),
    (
        "",
        "CREATE TABLE comments (id INT PRIMARY KEY, page BIGINT UNSIGNED, user INT, FOREIGN KEY (page) REFERENCES pages (id) ON DELETE CASCADE, \
         FOREIGN KEY (user) REFERENCES users (id) ON UPDATE SET NULL)",
    ),
    (
        "",
        "CREATE TABLE parted (id INT NOT NULL, y INT, PRIMARY KEY (id)) PARTITION BY RANGE (id) \
         (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN MAXVALUE)",
    ),
    ("", "CREATE TABLE `odd.na``me` (id INT PRIMARY KEY)"),
    ("", "CREATE TABLE gone (id INT)"),
    ("", "CREATE TABLE old_life (first INT)"),
    ("", "CREATE VIEW v AS SELECT id FROM pages"),
    (
        "b",
        "CREATE TABLE far (id INT PRIMARY KEY, page BIGINT UNSIGNED, CONSTRAINT far_page FOREIGN KEY (page) REFERENCES a.pages (id))",
    ),
    ("", "CREATE TABLE swap1 (one INT)"),
    ("", "CREATE TABLE swap2 (two INT)"),
    ("", "INSERT INTO a.pages (title) VALUES ('x'), ('y')"),
    ("", "INSERT INTO a.users VALUES (1, 'u')"),
    ("", "INSERT INTO a.comments VALUES (1, 1, 1)"),
    ("", "INSERT INTO a.parted VALUES (1, 1), (500, 2)"),
    ("", "INSERT INTO b.swap1 VALUES (1)"),
    ("", "INSERT INTO b.swap2 VALUES (2), (3)"),
];

/// Live tables that have names that the log's tables have later.
pub(super) const BYSTANDERS: Statements = &[
    ("a", "CREATE TABLE t01 (live INT)"),
    ("", "INSERT INTO t01 VALUES (1)"),
    ("", "CREATE TABLE _pages_gho (live INT)"),
    ("", "CREATE TABLE taken (live INT)"),
    ("b", "CREATE TABLE moved (live INT)"),
    ("", "CREATE DATABASE c COLLATE utf8mb4_unicode_ci"),
    ("c", "CREATE TABLE in_c (live INT)"),
    ("", "INSERT INTO in_c VALUES (7)"),
    (
        "a",
        "CREATE TRIGGER live BEFORE INSERT ON t01 FOR EACH ROW SET NEW.live = 1",
    ),
];

/// What happens.
pub(super) const ZOO: Statements = &[
    // Tables in all ways of writing them.
    (
        "a",
        "CREATE TABLE t01 (id INT PRIMARY KEY, n VARCHAR(40) COMMENT 'b.swap1 `b`.`swap1` REFERENCES b.swap1 -- x')",
    ),
    (
        "b",
        "create  table/**/if not exists`a` . `t02`(`select` int, `a.b` int, n varchar(9), key k (n(3)))",
    ),
    ("", "CREATE TABLE IF NOT EXISTS a.t02 (never INT)"),
    (
        "a",
        "CREATE TABLE t03 (a INT, b INT GENERATED ALWAYS AS (a + 1.5) VIRTUAL, c INT AS (a * .5e1) STORED, d JSON DEFAULT (JSON_OBJECT('a.b', \"c.d\")), \
         e VARCHAR(99) DEFAULT (CONCAT('it''s \\'', \"x\\\"y\")), CHECK (a > 0), CONSTRAINT named CHECK (b < 1000000), KEY fk ((a + b)), KEY j ((CAST(d->>'$.x' AS CHAR(10)))))",
    ),
    (
        "b",
        "CREATE TABLE a.t04 (a INT, CHECK (a.t04.a > 0), CONSTRAINT three CHECK (`a`.`t04`.`a` < 9), CHECK (t04.a <> 5))",
    ),
    (
        "a",
        "CREATE TABLE t05 (id INT PRIMARY KEY, up INT, CONSTRAINT FOREIGN KEY (up) REFERENCES t05 (id) ON DELETE SET NULL)",
    ),
    (
        "b",
        "CREATE TABLE a.t06 (id INT PRIMARY KEY, u INT, FOREIGN KEY (u) REFERENCES users (id))",
    ),
    (
        "a",
        "CREATE TABLE b.t07 (id INT PRIMARY KEY, p BIGINT UNSIGNED, FOREIGN KEY (p) REFERENCES a.pages (id) ON UPDATE CASCADE, FOREIGN KEY (id) REFERENCES far (id))",
    ),
    (
        "",
        "CREATE TABLE t08 /*!80016 (id INT, CHECK (id > 3) NOT ENFORCED) */ /*!50100 ENGINE=InnoDB /* x.y */ COMMENT='it' */",
    ),
    (
        "",
        "CREATE TABLE t09 (id INT) /*! COMMENT='always' */ # the end b.c",
    ),
    ("", "CREATE TABLE t10 LIKE b.far"),
    ("", "CREATE TABLE b.t11 (LIKE t03)"),
    (
        "",
        "CREATE TABLE t12 (a INT) SELECT id AS b, title FROM pages",
    ),
    ("b", "CREATE TABLE a.t13 AS SELECT * FROM swap1"),
    (
        "a",
        "CREATE TABLE t14 (id INT, y INT, KEY (id)) PARTITION BY RANGE (id + 1) SUBPARTITION BY HASH (y) SUBPARTITIONS 2 \
         (PARTITION a VALUES LESS THAN (10) COMMENT 'b.x', PARTITION b VALUES LESS THAN MAXVALUE)",
    ),
    (
        "",
        "CREATE TABLE t15 (id INT, s VARCHAR(5)) PARTITION BY LIST COLUMNS (s) (PARTITION p VALUES IN ('a.b', 'c'), PARTITION q VALUES IN ('d'))",
    ),
    (
        "",
        "CREATE TABLE `żółw ж` (`größe` INT, KEY `größe.k` (`größe`)) COMMENT 'ż'",
    ),
    (
        "",
        "/*ansi*/ CREATE TABLE \"a\".\"quo\"\"ted\" (\"id\" INT, \"b.swap1\" INT, CHECK (\"a\".\"quo\"\"ted\".\"id\" > 0))",
    ),
    (
        "",
        "/*ansi*/ ALTER TABLE \"quo\"\"ted\" ADD COLUMN \"c\" VARCHAR(9) DEFAULT 'a\\'.b' COMMENT '\"b\".\"c\"'",
    ),
    (
        "",
        "CREATE TABLE t16 (t VARCHAR(50), g POINT NOT NULL SRID 4326, FULLTEXT KEY ft (t) WITH PARSER ngram) ENGINE = 'InnoDB' DEFAULT CHARSET latin1",
    ),
    ("", "CREATE TABLE t17 (id INT) ENGINE=MyISAM"),
    ("", "CREATE TEMPORARY TABLE t18 (id INT)"),
    ("", "CREATE TABLE 2024_logs (id INT)"),
    // Alterations.
    (
        "",
        "ALTER TABLE t01 ADD c INT AFTER id, ADD INDEX (c), MODIFY n VARCHAR(50), ALGORITHM=INPLACE, LOCK=NONE",
    ),
    (
        "b",
        "ALTER TABLE a.t01 ADD CONSTRAINT FOREIGN KEY (c) REFERENCES users (id), ADD CHECK (a.t01.c > 0), ORDER BY a.t01.c, t01.n",
    ),
    (
        "a",
        "ALTER TABLE t01 DROP CHECK t01_chk_1, RENAME COLUMN c TO rename_c, RENAME INDEX c TO ix, COMMENT 'RENAME TO b.x'",
    ),
    (
        "",
        "ALTER TABLE t01 ALTER INDEX ix INVISIBLE, ALTER rename_c SET DEFAULT 4",
    ),
    (
        "",
        "ALTER TABLE pages DROP FOREIGN KEY pages_ibfk_1, DROP CHECK pages_chk_1",
    ),
    (
        "",
        "ALTER TABLE pages ADD FOREIGN KEY (parent) REFERENCES pages (id) ON DELETE CASCADE, ADD CHECK (title <> 'b.c')",
    ),
    (
        "",
        "ALTER TABLE comments DROP FOREIGN KEY comments_ibfk_2, DROP KEY user",
    ),
    (
        "",
        "ALTER TABLE t14 REORGANIZE PARTITION a INTO (PARTITION a1 VALUES LESS THAN (5), PARTITION a2 VALUES LESS THAN (10))",
    ),
    ("", "ALTER TABLE t14 DROP PARTITION a1, a2"),
    ("", "ALTER TABLE t14 TRUNCATE PARTITION b"),
    ("", "ALTER TABLE t15 REMOVE PARTITIONING"),
    (
        "",
        "ALTER TABLE t05 DROP FOREIGN KEY t05_ibfk_1 PARTITION BY KEY (id) PARTITIONS 3",
    ),
    (
        "",
        "ALTER TABLE t09 CONVERT TO CHARACTER SET latin1 COLLATE latin1_bin",
    ),
    (
        "",
        "alter /*!80000 table */ `odd.na``me` add (x int, y int default '5'), alter id set default (1 + 1), ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
    ),
    ("", "ALTER TABLE `odd.na``me` RENAME `taken`"),
    (
        "",
        "ALTER TABLE t06 DROP FOREIGN KEY t06_ibfk_1, RENAME TO b.`t06.b`",
    ),
    // To the default schema, though the table is in another one.
    ("a", "ALTER TABLE b.t11 RENAME AS t11"),
    (
        "",
        "CREATE UNIQUE INDEX u1 USING BTREE ON t02 (`select`) COMMENT 'on b.swap1 (x)'",
    ),
    (
        "b",
        "CREATE INDEX i1 ON a.t02 ((`select` + 1), n(2) DESC) INVISIBLE ALGORITHM = INPLACE",
    ),
    (
        "a",
        "CREATE FULLTEXT INDEX f1 ON t02 (n) /*!50100 WITH PARSER ngram */",
    ),
    ("", "CREATE SPATIAL INDEX sp ON t16 (g)"),
    ("", "DROP INDEX k ON t02 ALGORITHM=INPLACE LOCK=NONE"),
    // Partitions and tables that change places.
    ("", "CREATE TABLE part LIKE parted"),
    ("", "ALTER TABLE part REMOVE PARTITIONING"),
    (
        "b",
        "ALTER TABLE a.parted EXCHANGE PARTITION p0 WITH TABLE a.part WITHOUT VALIDATION",
    ),
    ("a", "RENAME TABLE part TO b.moved"),
    // As gh-ost does it: a table that others refer to, and its like.
    ("", "CREATE TABLE `a`.`_pages_gho` LIKE `a`.`pages`"),
    (
        "",
        "ALTER /* gh-ost */ TABLE `a`.`_pages_gho` ADD COLUMN ghost INT, ADD CONSTRAINT ghost_key CHECK (ghost < 100)",
    ),
    (
        "",
        "CREATE TABLE a._pages_del (magic INT) COMMENT='ghost-cut-over-sentry'",
    ),
    ("", "DROP TABLE IF EXISTS a._pages_del"),
    (
        "",
        "RENAME TABLE `a`.`pages` TO `a`.`_pages_del`, `a`.`_pages_gho` TO `a`.`pages`",
    ),
    ("", "DROP TABLE IF EXISTS `a`.`_missing`, b.missing"),
    (
        "b",
        "RENAME TABLE swap1 TO tmp, swap2 TO swap1, tmp TO swap2",
    ),
    ("", "RENAME TABLES swap1 TO a.swap1"),
    ("", "RENAME TABLE a.swap1 TO swap1"),
    ("a", "ALTER TABLE pages ADD after_ghost INT"),
    // What goes.
    ("", "CREATE TABLE brief (id INT)"),
    ("", "DROP TABLE gone, brief"),
    ("", "DROP TABLE old_life"),
    ("", "CREATE TABLE old_life (second INT)"),
    ("", "TRUNCATE old_life"),
    ("b", "TRUNCATE TABLE a.t03"),
    ("a", "DROP TEMPORARY TABLE t18"),
    ("", "OPTIMIZE TABLE t01, b.far"),
    ("", "ANALYZE TABLE t01 UPDATE HISTOGRAM ON n WITH 8 BUCKETS"),
    ("", "REPAIR TABLE t17"),
    // Schemas.
    (
        "",
        "CREATE DATABASE IF NOT EXISTS a COLLATE utf8mb4_unicode_ci",
    ),
    ("", "CREATE SCHEMA c DEFAULT CHARACTER SET latin2"),
    ("", "CREATE TABLE c.in_c (v VARCHAR(5))"),
    ("c", "CREATE TABLE away (v VARCHAR(6))"),
    ("", "ALTER DATABASE COLLATE latin1_german2_ci"),
    ("", "CREATE TABLE after_alter (v VARCHAR(7))"),
    (
        "",
        "RENAME TABLE away TO a.away, after_alter TO a.after_alter",
    ),
    ("a", "DROP DATABASE c"),
    ("", "CREATE DATABASE `c`"),
    ("", "CREATE TABLE c.in_c (w VARCHAR(8))"),
    ("", "ALTER DATABASE b CHARACTER SET cp1250"),
    ("b", "CREATE TABLE by_default (v VARCHAR(7))"),
    // What is no table.
    (
        "a",
        "CREATE TRIGGER g BEFORE INSERT ON t01 FOR EACH ROW SET NEW.n = CONCAT('b.x', NEW.n)",
    ),
    ("", "DROP TRIGGER a.g"),
    (
        "",
        "CREATE OR REPLACE DEFINER='root'@'localhost' SQL SECURITY INVOKER VIEW v AS SELECT id, title FROM pages",
    ),
    ("", "RENAME TABLE v TO vv"),
    ("", "DROP VIEW IF EXISTS vv"),
    ("", "CREATE PROCEDURE p() DELETE FROM pages"),
    ("", "CREATE USER u"),
    ("", "GRANT ALL ON a.* TO u"),
];
