//! Tables whose keys are as nasty as the server allows, and rows for them, from a seed.

use std::fmt::Write as _;

use quillback_harness::Random;

/// A table that can be made.
#[derive(Debug, Clone)]
pub(crate) struct NastyTable {
    /// Its name.
    pub(crate) name: String,
    /// `CREATE TABLE ...`.
    pub(crate) create: String,
    /// The columns that an INSERT fills, and what fills them.
    columns: Vec<Column>,
    /// Whether the table must be read in several parts if it has many rows of different keys.
    pub(crate) is_cut: bool,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its SQL type, with the smallest and the largest value.
    Integer(&'static str, i128, i128),
    Decimal(&'static str),
    Float(&'static str),
    Date,
    Datetime(&'static str),
    Timestamp,
    Time,
    Year,
    /// CHAR or VARCHAR, with the collation.
    Text(&'static str, &'static str),
    /// A text of which the key holds only the beginning.
    LongText,
    Binary(&'static str, usize),
    Enum,
    Set,
    BigSet,
    Bit(u32),
}

const INTEGERS: [Kind; 8] = [
    Kind::Integer("TINYINT", -128, 127),
    Kind::Integer("SMALLINT UNSIGNED", 0, 65_535),
    Kind::Integer("MEDIUMINT", -8_388_608, 8_388_607),
    Kind::Integer("INT", -2_147_483_648, 2_147_483_647),
    Kind::Integer("INT(8) UNSIGNED ZEROFILL", 0, 4_294_967_295),
    Kind::Integer(
        "BIGINT",
        -9_223_372_036_854_775_808,
        9_223_372_036_854_775_807,
    ),
    Kind::Integer("BIGINT UNSIGNED", 0, 18_446_744_073_709_551_615),
    Kind::Integer("BOOL", -128, 127),
];

const COLLATIONS: [&str; 34] = [
    "utf8mb4_0900_ai_ci",
    "utf8mb4_0900_as_ci",
    "utf8mb4_0900_as_cs",
    "utf8mb4_0900_bin",
    "utf8mb4_bin",
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb4_unicode_520_ci",
    "utf8mb4_de_pb_0900_ai_ci",
    "utf8mb4_ja_0900_as_cs_ks",
    "utf8mb4_zh_0900_as_cs",
    "utf8mb4_hu_0900_ai_ci",
    "utf8mb4_polish_ci",
    "utf8mb3_general_ci",
    "utf8mb3_bin",
    "utf8mb3_czech_ci",
    "latin1_swedish_ci",
    "latin1_german2_ci",
    "latin1_bin",
    "latin2_general_ci",
    "latin2_czech_cs",
    "cp1250_czech_cs",
    "ascii_general_ci",
    "ucs2_general_ci",
    "ucs2_unicode_ci",
    "utf16_general_ci",
    "utf16_bin",
    "utf16le_general_ci",
    "utf32_unicode_ci",
    "gbk_chinese_ci",
    "gb18030_chinese_ci",
    "sjis_japanese_ci",
    "big5_chinese_ci",
    "tis620_thai_ci",
];

/// Pieces of text that collide, sort strangely or need escaping.
const PIECES: [&str; 44] = [
    " ", "  ", "\t", "\n", "\0", "\u{1}", "\\", "'", "\"", "%", "_", "\\N", "0", "9", "10", "a",
    "A", "b", "Z", "ä", "Ä", "á", "ae", "æ", "ss", "ß", "ż", "ł", "Ł", "ch", "CH", "cs",
    "e\u{301}", "é", "\u{200d}", "ｱ", "ア", "あ", "中", "文", "ก", "😀", "😁", "\u{FFFD}",
];

fn one(random: &mut Random, of: &[&'static str]) -> &'static str {
    let found: &&'static str = random.pick(of);
    found
}

impl Kind {
    fn random(random: &mut Random) -> Self {
        match random.below(15) {
            0..=2 => *random.pick(&INTEGERS),
            3 => Self::Decimal(one(
                random,
                &["DECIMAL(65,30)", "DECIMAL(10,2)", "DECIMAL(20,0) UNSIGNED"],
            )),
            4 => Self::Float(one(random, &["FLOAT", "DOUBLE", "DOUBLE(9,3)"])),
            5 => *random.pick(&[Self::Date, Self::Timestamp, Self::Time, Self::Year]),
            6 => Self::Datetime(one(random, &["DATETIME", "DATETIME(6)", "DATETIME(2)"])),
            7..=9 => Self::Text(
                one(random, &["VARCHAR(20)", "CHAR(10)", "VARCHAR(255)"]),
                one(random, &COLLATIONS),
            ),
            10 => Self::LongText,
            11 => *random.pick(&[
                Self::Binary("BINARY(3)", 3),
                Self::Binary("BINARY(16)", 16),
                Self::Binary("VARBINARY(20)", 20),
            ]),
            12 => *random.pick(&[Self::Enum, Self::Set, Self::BigSet]),
            13 => Self::Bit(*random.pick(&[1, 9, 64])),
            _ => *random.pick(&INTEGERS[5..7]),
        }
    }

    fn sql(self) -> String {
        match self {
            Self::Integer(sql, ..)
            | Self::Decimal(sql)
            | Self::Float(sql)
            | Self::Datetime(sql) => sql.to_owned(),
            Self::Date => "DATE".to_owned(),
            Self::Timestamp => "TIMESTAMP(3)".to_owned(),
            Self::Time => "TIME(6)".to_owned(),
            Self::Year => "YEAR".to_owned(),
            Self::Text(sql, collation) => {
                let (set, _) = collation.split_once('_').expect("collations are named so");
                format!("{sql} CHARACTER SET {set} COLLATE {collation}")
            }
            Self::LongText => "TEXT CHARACTER SET utf8mb4".to_owned(),
            Self::Binary(sql, _) => sql.to_owned(),
            Self::Enum => {
                "ENUM('z', 'a', 'M', 'ä', '2', '1') CHARACTER SET latin2 COLLATE latin2_bin"
                    .to_owned()
            }
            Self::Set => "SET('z', 'a', 'M', '2') CHARACTER SET utf8mb4".to_owned(),
            Self::BigSet => {
                let members: Vec<String> = (0..64).map(|n| format!("'m{n}'")).collect();
                format!("SET({})", members.join(", "))
            }
            Self::Bit(bits) => format!("BIT({bits})"),
        }
    }

    /// Whether a table can be cut at values of this kind.
    fn cuts(self) -> bool {
        !matches!(
            self,
            Self::Float(_) | Self::LongText | Self::Set | Self::BigSet
        )
    }

    /// Whether there are more values than the reader needs to find a cut.
    fn has_many_values(self) -> bool {
        !matches!(
            self,
            Self::Enum | Self::Set | Self::Bit(1) | Self::BigSet | Self::Bit(64)
        )
    }

    /// How a table is partitioned whose key begins with such a column; not every type will do for
    /// every way.
    fn partitions(self, random: &mut Random, column: &str) -> String {
        let by_key = "PARTITION BY KEY () PARTITIONS 3".to_owned();
        let range = match self {
            Self::Integer("TINYINT" | "BOOL", ..) => Some(["-3", "40"]),
            Self::Integer(..) => Some(["20", "90"]),
            Self::Date | Self::Datetime(_) => Some(["'2010-01-01'", "'2024-06-01'"]),
            Self::Text(..) => Some(["'a'", "'z'"]),
            Self::Binary(..) => Some(["X'05'", "X'80'"]),
            _ => None,
        };
        let sub = match random.once_in(3) {
            true => format!(" SUBPARTITION BY KEY ({column}) SUBPARTITIONS 2"),
            false => String::new(),
        };
        let way = match (random.below(4), range, self) {
            (0 | 1, Some([low, high]), _) => format!(
                "PARTITION BY RANGE COLUMNS ({column}){sub} \
                 (PARTITION `p``1` VALUES LESS THAN ({low}), PARTITION p2 VALUES LESS THAN ({high}), \
                 PARTITION `P 3` VALUES LESS THAN (MAXVALUE))"
            ),
            (2, _, Self::Integer("SMALLINT UNSIGNED" | "INT" | "BIGINT", ..)) => {
                format!("PARTITION BY LINEAR HASH ({column}) PARTITIONS 5")
            }
            (3, _, Self::Integer("TINYINT" | "INT" | "BIGINT" | "MEDIUMINT", ..)) => format!(
                "PARTITION BY LIST ({column} % 3) (PARTITION a VALUES IN (0, -1), \
                 PARTITION b VALUES IN (1, -2), PARTITION c VALUES IN (2))"
            ),
            _ => by_key,
        };
        format!(" {way}")
    }

    fn value(self, random: &mut Random) -> String {
        match self {
            Self::Integer(_, least, most) => match random.below(8) {
                0 => least.to_string(),
                1 => most.to_string(),
                2 => "0".to_owned(),
                3 => (i128::from(random.next()) % (most - least) + least).to_string(),
                _ => (i128::from(random.below(200)) - 60)
                    .clamp(least, most)
                    .to_string(),
            },
            Self::Decimal(_) => match random.below(4) {
                0 => "0".to_owned(),
                1 => format!("{}.{}", random.below(1000), random.next()),
                2 => format!("-{}.{:03}", random.below(100), random.below(1000)),
                _ => format!("{}", random.next()),
            },
            Self::Float(_) => match random.below(5) {
                0 => "-0e0".to_owned(),
                1 => "0.1e0".to_owned(),
                2 => format!("{}e-30", random.next()),
                _ => format!("{}.{}e0", random.below(90), random.below(1000)),
            },
            Self::Date => format!("'{}'", date(random)),
            Self::Datetime(_) => match random.below(3) {
                0 => format!("'{}'", date(random)),
                _ => format!("'{} {}'", date(random), clock(random)),
            },
            Self::Timestamp => match random.below(5) {
                0 => "'0000-00-00'".to_owned(),
                1 => "'2038-01-19 03:14:07.499'".to_owned(),
                // Around a change of clocks that UTC does not have.
                2 => format!(
                    "'2024-10-27 0{}:30:00.{:03}'",
                    random.below(4),
                    random.below(1000)
                ),
                _ => format!(
                    "'20{:02}-0{}-11 {}'",
                    random.below(30),
                    1 + random.below(9),
                    clock(random)
                ),
            },
            Self::Time => match random.below(4) {
                0 => "'-838:59:59'".to_owned(),
                1 => "'838:59:59'".to_owned(),
                2 => format!("'-{}'", clock(random)),
                _ => format!("'{}'", clock(random)),
            },
            Self::Year => match random.below(3) {
                0 => "0".to_owned(),
                1 => "2155".to_owned(),
                _ => (1901 + random.below(250)).to_string(),
            },
            Self::Text(..) | Self::LongText => text(random),
            Self::Binary(_, most) => {
                let length = if random.once_in(6) {
                    0
                } else {
                    random.below(most as u64 + 1)
                };
                let mut sql = "X'".to_owned();
                for _ in 0..length {
                    let byte = *random.pick(&[0, 0, 1, 9, 10, 0x20, 0x5C, 0x7F, 0x80, 0xFE, 0xFF]);
                    let _ = write!(sql, "{byte:02X}");
                }
                sql + "'"
            }
            Self::Enum => random.below(7).to_string(),
            Self::Set => random.below(16).to_string(),
            Self::BigSet => match random.below(3) {
                0 => (u64::MAX - random.below(9)).to_string(),
                1 => ((1 << 53) + random.below(9)).to_string(),
                _ => random.below(99).to_string(),
            },
            Self::Bit(bits) => {
                let all = u64::MAX >> (64 - bits);
                match random.below(3) {
                    0 => (all - random.below(9).min(all)).to_string(),
                    1 => (random.next() & all).to_string(),
                    _ => random.below(99).min(all).to_string(),
                }
            }
        }
    }
}

fn date(random: &mut Random) -> String {
    match random.below(9) {
        0 => "0000-00-00".to_owned(),
        1 => "9999-12-31".to_owned(),
        2 => "2024-00-00".to_owned(),
        3 => "2024-05-00".to_owned(),
        // Stored under ALLOW_INVALID_DATES.
        4 => "2024-02-31".to_owned(),
        5 => "0001-01-01".to_owned(),
        _ => format!(
            "20{:02}-{:02}-{:02}",
            random.below(40),
            1 + random.below(12),
            1 + random.below(28)
        ),
    }
}

fn clock(random: &mut Random) -> String {
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        random.below(24),
        random.below(60),
        random.below(60),
        random.below(3) * 499_999
    )
}

fn text(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(6) {
        text.push_str(one(random, &PIECES));
    }
    if random.once_in(4) {
        let _ = write!(text, "{}", random.below(100));
    }
    let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
    format!("_utf8mb4 X'{hex}'")
}

impl NastyTable {
    /// The table of a number.
    pub(crate) fn random(random: &mut Random, number: usize) -> Self {
        let name = format!("t{number}");
        let length = *random.pick(&[1, 1, 1, 2, 2, 3]);
        let kinds: Vec<Kind> = (0..length).map(|_| Kind::random(random)).collect();
        let mut columns = vec![Column {
            name: "v".to_owned(),
            kind: Kind::Text("VARCHAR(40)", "utf8mb4_bin"),
        }];
        let mut parts = Vec::new();
        let mut lines = vec!["`v` VARCHAR(40) COLLATE utf8mb4_bin".to_owned()];
        let mut unique_columns = Vec::new();
        for (n, &kind) in kinds.iter().enumerate() {
            // A name that must be quoted; SELECT * leaves it out if it is invisible.
            let column = format!("k`{n} ż");
            let quoted = format!("`{}`", column.replace('`', "``"));
            let prefix = match kind {
                Kind::LongText => "(3)",
                Kind::Text("VARCHAR(255)", _) if random.once_in(3) => "(2)",
                _ => "",
            };
            let descending = if random.once_in(4) { " DESC" } else { "" };
            let invisible = if random.once_in(8) { " INVISIBLE" } else { "" };
            lines.push(format!("{quoted} {} NOT NULL{invisible}", kind.sql()));
            parts.push(format!("{quoted}{prefix}{descending}"));
            unique_columns.push((kind, prefix.is_empty()));
            columns.push(Column { name: column, kind });
        }
        let mut is_partitioned = false;
        let shape = random.below(10);
        let mut has_key = true;
        match shape {
            // What InnoDB clusters by in the place of a primary key; behind a decoy that may be NULL.
            0 | 1 => {
                lines.push("`n` INT NULL".to_owned());
                lines.push("UNIQUE KEY `a decoy` (`n`)".to_owned());
                lines.push(format!("UNIQUE KEY `its ``key` ({})", parts.join(", ")));
            }
            2 => {
                lines.push(format!("KEY `not unique` ({})", parts.join(", ")));
                has_key = false;
            }
            // A key of a computed column, which no file holds.
            3 => {
                lines
                    .push("`g` BIGINT GENERATED ALWAYS AS (CRC32(`v`)) STORED NOT NULL".to_owned());
                lines.push("`auto` INT NOT NULL AUTO_INCREMENT UNIQUE".to_owned());
                parts.insert(0, "`g`".to_owned());
                unique_columns.insert(0, (INTEGERS[5], true));
                lines.push(format!("PRIMARY KEY ({})", parts.join(", ")));
            }
            _ => {
                lines.push(format!("PRIMARY KEY ({})", parts.join(", ")));
                lines.push(format!("KEY `second` (`v`, {})", parts[0]));
            }
        }
        let whole = unique_columns.iter().all(|(_, whole)| *whole);
        let partitions: String = match random.below(6) {
            0..=2 if shape > 3 && whole && !kinds.contains(&Kind::LongText) => {
                is_partitioned = true;
                kinds[0].partitions(random, "`k``0 ż`")
            }
            _ => String::new(),
        };
        let (first, first_is_whole) = unique_columns[0];
        // A unique index of prefixes takes no primary key's place.
        let has_key = has_key && (shape > 1 || whole);
        let is_cut =
            has_key && !is_partitioned && first_is_whole && first.cuts() && first.has_many_values();
        let create = format!("CREATE TABLE `{name}` ({}){partitions}", lines.join(", "));
        Self {
            name,
            create,
            columns,
            is_cut,
        }
    }

    /// An INSERT of a few rows, some of which the key may refuse.
    pub(crate) fn insert(&self, random: &mut Random) -> String {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("`{}`", column.name.replace('`', "``")))
            .collect();
        let rows: Vec<String> = (0..1 + random.below(40))
            .map(|_| {
                let values = self
                    .columns
                    .iter()
                    .map(|column| match column.name.as_str() {
                        "v" if random.once_in(5) => "NULL".to_owned(),
                        _ => column.kind.value(random),
                    });
                format!("({})", values.collect::<Vec<_>>().join(", "))
            })
            .collect();
        format!(
            "INSERT IGNORE INTO `{}` ({}) VALUES {}",
            self.name,
            names.join(", "),
            rows.join(", ")
        )
    }
}
