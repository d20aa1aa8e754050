//! By what a table can be cut: the columns of its clustered index, as far as they compare exactly.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::mysql::facts::SYSTEM_SCHEMAS;
use crate::mysql::schema::Table;
use crate::mysql::{MysqlError, Session, quote};

/// The clustered index of a table: its primary key, or what InnoDB takes in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableKey {
    /// The index's name.
    pub index: String,
    /// Its leading columns that it holds whole, in its order.
    pub columns: Vec<KeyColumn>,
}

impl TableKey {
    /// The leading columns at whose values the table can be cut.
    pub fn cutting(&self) -> impl Iterator<Item = (&KeyColumn, &KeyKind)> {
        self.columns
            .iter()
            .map_while(|column| Some((column, column.kind.as_ref()?)))
    }

    /// Whether there is such a column.
    #[must_use]
    pub fn can_cut(&self) -> bool {
        self.cutting().next().is_some()
    }
}

/// A column of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Whether the index holds its values in descending order.
    pub descending: bool,
    /// How its values are compared with literals; none if that is not known to be exact.
    pub kind: Option<KeyKind>,
}

/// How a column's value becomes a literal that compares with the column as the value does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// An integer, also one without sign.
    Integer,
    /// BIT and YEAR: compared by the number behind the value.
    Number,
    /// ENUM with so many members: compared by their numbers, one by one.
    Enum(u32),
    /// DECIMAL: a literal with the same digits.
    Decimal,
    /// A date or time: the text in UTC, which the server takes for the column's own type.
    Temporal,
    /// Text: its bytes in its own character set; the collation is the column's.
    Text(String),
    /// BINARY of so many bytes, which is always full.
    Binary(u32),
    /// VARBINARY.
    Varbinary,
}

impl KeyKind {
    fn of(data_type: &str, column_type: &str, character_set: Option<&str>) -> Option<Self> {
        Some(match data_type {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Self::Integer,
            "bit" | "year" => Self::Number,
            "enum" => Self::Enum(members(column_type).filter(|members| *members <= MEMBERS)?),
            "decimal" => Self::Decimal,
            "date" | "datetime" | "timestamp" | "time" => Self::Temporal,
            // A character set is named by an introducer, which takes no quotes.
            "char" | "varchar" => Self::Text(character_set.filter(|set| is_plain(set))?.to_owned()),
            "binary" => Self::Binary(length(column_type)?),
            "varbinary" => Self::Varbinary,
            // FLOAT and DOUBLE print fewer digits than they compare, SET is compared with a number as
            // they are; others are never whole in a key.
            _ => return None,
        })
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "binary"
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// An ENUM of more members makes conditions too long.
const MEMBERS: u32 = 256;

/// The number of members in `enum('a','it''s')`.
fn members(column_type: &str) -> Option<u32> {
    let list = column_type.strip_prefix("enum(")?.strip_suffix(')')?;
    // A quote within a member is doubled, so that members' own quotes come in pairs.
    let (mut members, mut within) = (0, false);
    for byte in list.bytes() {
        if byte == b'\'' {
            within = !within;
        } else if byte == b',' && !within {
            members += 1;
        }
    }
    (!within).then_some(members + 1)
}

/// The number in `binary(16)`.
fn length(column_type: &str) -> Option<u32> {
    let (_, rest) = column_type.split_once('(')?;
    let (digits, _) = rest.split_once(')')?;
    digits.parse().ok()
}

/// A partition with its size; of a table with subpartitions one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its name, which is no other one's in the table.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
}

/// What the server says of a unique index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Index {
    name: String,
    parts: Vec<Part>,
    visible: bool,
}

/// A part of an index; without a column it is an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    column: Option<String>,
    is_prefix: bool,
    nullable: bool,
    descending: bool,
}

type Name = (String, String);

/// The unique indexes and the partitions of all tables.
#[derive(Debug, Default)]
pub(in crate::snapshot) struct TableParts {
    indexes: BTreeMap<Name, Vec<Index>>,
    clustered: BTreeMap<Name, BTreeSet<String>>,
    partitions: BTreeMap<Name, Vec<Partition>>,
}

impl TableParts {
    pub(in crate::snapshot) async fn load(session: &mut Session) -> Result<Self, MysqlError> {
        Ok(Self {
            indexes: indexes(session).await?,
            clustered: clustered(session).await?,
            partitions: partitions(session).await?,
        })
    }

    /// The clustered index of a table.
    pub(in crate::snapshot) fn key(&self, table: &Table) -> Option<TableKey> {
        let name = (table.database.clone(), table.name.clone());
        choose(self.indexes.get(&name)?, self.clustered.get(&name)?, table)
    }

    /// A table's partitions in their order; none if it has none.
    pub(in crate::snapshot) fn partitions(&self, table: &Table) -> Vec<Partition> {
        let name = (table.database.clone(), table.name.clone());
        self.partitions.get(&name).cloned().unwrap_or_default()
    }
}

/// The index with exactly those columns that the server marks as the primary key's: where there is
/// no primary key, these are the columns of the index that is clustered in its place (MySQL manual,
/// "The INFORMATION_SCHEMA COLUMNS Table", COLUMN_KEY).
fn choose(indexes: &[Index], clustered: &BTreeSet<String>, table: &Table) -> Option<TableKey> {
    let is_clustered = |index: &Index| {
        let columns: BTreeSet<&String> = index
            .parts
            .iter()
            .filter_map(|part| part.column.as_ref())
            .collect();
        index.name == "PRIMARY"
            || (index.visible
                && columns.into_iter().eq(clustered)
                && index
                    .parts
                    .iter()
                    .all(|part| part.column.is_some() && !part.is_prefix && !part.nullable))
    };
    let primary = indexes.iter().find(|index| index.name == "PRIMARY");
    let index = primary.or_else(|| indexes.iter().find(|index| is_clustered(index)))?;
    let columns = index.parts.iter().map_while(|part| {
        let name = part.column.as_ref().filter(|_| !part.is_prefix)?;
        let column = table.columns.iter().find(|column| column.name == *name)?;
        Some(KeyColumn {
            name: name.clone(),
            descending: part.descending,
            kind: KeyKind::of(
                &column.data_type,
                &column.column_type,
                column.character_set.as_deref(),
            ),
        })
    });
    Some(TableKey {
        index: index.name.clone(),
        columns: columns.collect(),
    })
}

/// A condition that leaves the server's own schemas out.
fn not_system() -> String {
    format!(
        "LOWER(TABLE_SCHEMA) NOT IN ({})",
        SYSTEM_SCHEMAS.map(quote::string).join(", ")
    )
}

async fn indexes(session: &mut Session) -> Result<BTreeMap<Name, Vec<Index>>, MysqlError> {
    type Row = (
        String,
        String,
        String,
        Option<String>,
        Option<u64>,
        Option<String>,
        Option<String>,
        String,
    );
    let rows: Vec<Row> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE, \
             COLLATION, IS_VISIBLE FROM information_schema.STATISTICS \
             WHERE NON_UNIQUE = 0 AND INDEX_TYPE = 'BTREE' AND {} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
            not_system()
        ))
        .await?;
    let mut indexes: BTreeMap<Name, Vec<Index>> = BTreeMap::new();
    for (database, table, name, column, prefix, nullable, collation, visible) in rows {
        let of_table = indexes.entry((database, table)).or_default();
        if of_table.last().is_none_or(|index| index.name != name) {
            of_table.push(Index {
                name,
                parts: Vec::new(),
                visible: visible == "YES",
            });
        }
        let index = of_table
            .last_mut()
            .expect("one was pushed if none was there");
        index.parts.push(Part {
            column,
            is_prefix: prefix.is_some(),
            nullable: nullable.as_deref() == Some("YES"),
            descending: collation.as_deref() == Some("D"),
        });
    }
    Ok(indexes)
}

async fn clustered(session: &mut Session) -> Result<BTreeMap<Name, BTreeSet<String>>, MysqlError> {
    let rows: Vec<(String, String, String)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS \
             WHERE COLUMN_KEY = 'PRI' AND {}",
            not_system()
        ))
        .await?;
    let mut columns: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
    for (database, table, column) in rows {
        columns.entry((database, table)).or_default().insert(column);
    }
    Ok(columns)
}

async fn partitions(session: &mut Session) -> Result<BTreeMap<Name, Vec<Partition>>, MysqlError> {
    let rows: Vec<(String, String, String, Option<u64>)> = session
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(SUBPARTITION_NAME, PARTITION_NAME), \
             DATA_LENGTH \
             FROM information_schema.PARTITIONS WHERE PARTITION_NAME IS NOT NULL AND {} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, PARTITION_ORDINAL_POSITION, \
             SUBPARTITION_ORDINAL_POSITION",
            not_system()
        ))
        .await?;
    let mut partitions: BTreeMap<Name, Vec<Partition>> = BTreeMap::new();
    for (database, table, name, bytes) in rows {
        let of_table = partitions.entry((database, table)).or_default();
        let bytes = bytes.unwrap_or_default();
        of_table.push(Partition { name, bytes });
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::schema::Column;

    fn table(columns: &[(&str, &str, Option<&str>)]) -> Table {
        let column = |(name, column_type, set): &(&str, &str, Option<&str>)| Column {
            name: (*name).to_owned(),
            data_type: column_type
                .split(['(', ' '])
                .next()
                .expect("a split gives something")
                .to_owned(),
            column_type: (*column_type).to_owned(),
            character_set: set.map(ToOwned::to_owned),
            generated: false,
            invisible: false,
        };
        Table {
            database: "d".to_owned(),
            name: "t".to_owned(),
            engine: "InnoDB".to_owned(),
            columns: columns.iter().map(column).collect(),
            primary_key: Vec::new(),
            create: Vec::new(),
            auto_increment: None,
            auto_increment_moved: false,
            encrypted: false,
            corrected: None,
            created: String::new(),
            estimated_rows: 0,
            data_bytes: 0,
        }
    }

    /// Parts as `column`, with `-` before a descending, `~` before a prefix, `?` before a nullable
    /// one, and nothing for an expression.
    fn index(name: &str, parts: &[&str]) -> Index {
        Index {
            name: name.to_owned(),
            parts: parts
                .iter()
                .map(|part| {
                    let column = part.trim_start_matches(['-', '~', '?']);
                    Part {
                        column: (!column.is_empty()).then(|| column.to_owned()),
                        is_prefix: part.starts_with('~'),
                        nullable: part.starts_with('?'),
                        descending: part.starts_with('-'),
                    }
                })
                .collect(),
            visible: true,
        }
    }

    fn chosen(indexes: &[Index], clustered: &[&str]) -> Option<(String, usize, usize)> {
        let table = table(&[
            ("i", "bigint unsigned", None),
            ("f", "double", None),
            ("s", "varchar(20)", Some("latin2")),
            ("b", "binary(16)", None),
        ]);
        let clustered = clustered.iter().map(|name| (*name).to_owned()).collect();
        let key = choose(indexes, &clustered, &table)?;
        let cutting = key.cutting().count();
        Some((key.index, key.columns.len(), cutting))
    }

    #[test]
    fn only_whole_columns_that_compare_exactly_cut() {
        let primary = |parts: &[&str]| {
            let columns: Vec<&str> = parts
                .iter()
                .map(|part| part.trim_start_matches(['-', '~']))
                .collect();
            chosen(&[index("PRIMARY", parts)], &columns).map(|(_, order, cut)| (order, cut))
        };
        assert_eq!(primary(&["i", "-s", "b"]), Some((3, 3)));
        assert_eq!(primary(&["i", "f", "s"]), Some((3, 1)));
        assert_eq!(primary(&["f", "i"]), Some((2, 0)));
        assert_eq!(primary(&["i", "~s", "b"]), Some((1, 1)));
        assert_eq!(primary(&["~s"]), Some((0, 0)));
    }

    #[test]
    fn without_a_primary_key_the_clustered_index_alone_will_do() {
        let indexes = [
            index("a_other", &["f"]),
            index("expression", &["i", ""]),
            index("nullable", &["?i"]),
            index("z_clustered", &["s", "i"]),
        ];
        assert_eq!(
            chosen(&indexes, &["i", "s"]),
            Some(("z_clustered".to_owned(), 2, 2))
        );
        assert_eq!(chosen(&indexes, &["b"]), None);
        // Nullable, or with an expression: the server would not mark them, and neither is taken.
        assert_eq!(chosen(&indexes, &["i"]), None);
        let mut invisible = indexes;
        invisible[3].visible = false;
        assert_eq!(chosen(&invisible, &["i", "s"]), None);
    }

    #[test]
    fn types_that_do_not_compare_exactly_are_known() {
        let kind = |data_type, column_type, set| KeyKind::of(data_type, column_type, set);
        assert_eq!(
            kind("binary", "binary(16)", None),
            Some(KeyKind::Binary(16))
        );
        assert_eq!(
            kind("varchar", "varchar(9)", Some("utf8mb4")),
            Some(KeyKind::Text("utf8mb4".to_owned()))
        );
        assert_eq!(kind("varchar", "varchar(9)", None), None);
        assert_eq!(kind("varchar", "varchar(9)", Some("x'; --")), None);
        assert_eq!(
            kind("enum", "enum('a','it''s','b,c','')", Some("latin1")),
            Some(KeyKind::Enum(4))
        );
        assert_eq!(kind("set", "set('a','b')", Some("latin1")), None);
        assert_eq!(kind("float", "float", None), None);
        assert_eq!(
            kind("decimal", "decimal(5,2)", None),
            Some(KeyKind::Decimal)
        );
    }
}
