//! How finely a table is cut, from the server's estimates.

use serde::{Deserialize, Serialize};

use crate::archive::hash::Sha256;
use crate::mysql::schema::{Table, has_rows, is_innodb};
use crate::snapshot::changes;
use crate::snapshot::plan::TableFacts;

use super::key::{Partition, TableKey, TableParts};

/// Smaller parts of a table are not worth a query and a file of their own.
const SMALLEST: u64 = 16 << 20;
/// Parts of the whole for each reader, so that none waits long for the last one. More of them cost:
/// a server looks at the condition of a part for each of its rows.
const PARTS_A_READER: u64 = 2;
/// A row takes at least so many bytes; the size is older than the number of rows when a table grows.
const SMALLEST_ROW: u64 = 20;

/// A table with the way in which its rows are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTable {
    /// Its schema.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The server's estimate.
    pub estimated_rows: u64,
    /// The clustered index's size in bytes.
    pub estimated_bytes: u64,
    /// In how many parts it will probably be read; where the cuts fall is found while reading.
    pub chunks: u64,
    /// About how many rows a part shall have; none if the table is not cut by its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_rows: Option<u64>,
    /// Its clustered index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<TableKey>,
    /// Its partitions in the groups in which they are read, of which those of one partition may be cut
    /// by the key; none if it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Vec<String>>,
    /// The SHA-256 of its CREATE TABLE statement: a table that has another one by now is read in
    /// one go.
    pub create_sha256: Sha256,
}

/// What the sizes of parts depend on.
#[derive(Debug, Clone, Copy)]
pub(in crate::snapshot) struct Sizes {
    pub(in crate::snapshot) threads: usize,
    /// Bytes of all tables together.
    pub(in crate::snapshot) total_bytes: u64,
    /// Raw bytes of a file; no part shall have more.
    pub(in crate::snapshot) file_bytes: u64,
    /// Rows of a part, whatever the estimates say.
    pub(in crate::snapshot) chunk_rows: Option<u64>,
}

impl TableFacts {
    pub(in crate::snapshot) fn of(table: Table, parts: &TableParts) -> Self {
        Self {
            create_sha256: changes::create_digest(&table),
            key: parts.key(&table),
            partitions: parts.partitions(&table),
            database: table.database,
            name: table.name,
            engine: table.engine,
            estimated_rows: table.estimated_rows,
            data_bytes: table.data_bytes,
        }
    }
}

impl PlannedTable {
    pub(in crate::snapshot) fn compute(table: &TableFacts, sizes: Sizes) -> Self {
        let bytes = table_bytes(table);
        let part = part_bytes(bytes.max(sizes.total_bytes), sizes);
        let mut planned = Self {
            database: table.database.clone(),
            name: table.name.clone(),
            estimated_rows: table.estimated_rows,
            estimated_bytes: table.data_bytes,
            chunks: 1,
            chunk_rows: None,
            key: table.key.clone(),
            partitions: Vec::new(),
            create_sha256: table.create_sha256,
        };
        if !is_innodb(&table.engine) {
            // Its rows may move between two parts, and are in no order that matters.
            planned.key = None;
            planned.chunks = u64::from(has_rows(&table.engine));
        } else if !table.partitions.is_empty() {
            planned.partition(table, sizes, (bytes, part));
        } else if table.key.as_ref().is_some_and(TableKey::can_cut) {
            let chunks = bytes.div_ceil(part).max(1);
            let rows = match sizes.chunk_rows {
                Some(rows) => Some(rows.max(1)),
                None => (chunks > 1).then(|| table.estimated_rows.div_ceil(chunks).max(1)),
            };
            planned.chunks = rows.map_or(1, |rows| table.estimated_rows.div_ceil(rows).max(1));
            planned.chunk_rows = rows;
        }
        planned
    }

    /// Partitions are read in groups; one that is too large for a part is a group of its own, and cut
    /// by its key.
    fn partition(&mut self, table: &TableFacts, sizes: Sizes, (bytes, part): (u64, u64)) {
        let limit = if sizes.chunk_rows.is_some() { 0 } else { part };
        let can_cut = table.key.as_ref().is_some_and(TableKey::can_cut);
        let size = |names: &[String]| -> u64 {
            let of_group = table.partitions.iter();
            let of_group = of_group.filter(|partition| names.contains(&partition.name));
            of_group.map(|partition| partition.bytes).sum()
        };
        self.partitions = groups(&table.partitions, limit);
        let cut: Vec<u64> = self
            .partitions
            .iter()
            .filter(|group| can_cut && group.len() == 1)
            .map(|group| size(group).div_ceil(part))
            .filter(|parts| *parts > 1)
            .collect();
        self.chunk_rows = match sizes.chunk_rows {
            Some(rows) => can_cut.then_some(rows.max(1)),
            None if cut.is_empty() => None,
            // As many rows of the table as fill a part.
            None => Some(
                table
                    .estimated_rows
                    .div_ceil(bytes.div_ceil(part).max(1))
                    .max(1),
            ),
        };
        self.chunks = (self.partitions.len() - cut.len()) as u64 + cut.iter().sum::<u64>();
    }
}

fn table_bytes(table: &TableFacts) -> u64 {
    let rows = table.estimated_rows.saturating_mul(SMALLEST_ROW);
    table.data_bytes.max(rows)
}

/// All bytes that are to be read.
pub(in crate::snapshot) fn total_bytes(tables: &[TableFacts]) -> u64 {
    let bytes = tables.iter().map(table_bytes);
    bytes.fold(0, u64::saturating_add)
}

fn part_bytes(bytes: u64, sizes: Sizes) -> u64 {
    if sizes.threads < 2 {
        // Nobody waits for a part; the files are cut in any case.
        return u64::MAX;
    }
    let most = sizes.file_bytes.max(1);
    (bytes / (sizes.threads as u64 * PARTS_A_READER)).clamp(SMALLEST.min(most), most)
}

/// Neighbours together until they reach the limit.
fn groups(partitions: &[Partition], limit: u64) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut bytes = u64::MAX;
    for partition in partitions {
        match groups.last_mut() {
            Some(group) if bytes.saturating_add(partition.bytes) <= limit => {
                group.push(partition.name.clone());
                bytes += partition.bytes;
            }
            _ => {
                groups.push(vec![partition.name.clone()]);
                bytes = partition.bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::hash::sha256;
    use crate::snapshot::chunks::{KeyColumn, KeyKind};

    fn facts(rows: u64, bytes: u64, kind: Option<KeyKind>) -> TableFacts {
        TableFacts {
            database: "d".to_owned(),
            name: "t".to_owned(),
            engine: "InnoDB".to_owned(),
            estimated_rows: rows,
            data_bytes: bytes,
            key: Some(TableKey {
                index: "PRIMARY".to_owned(),
                columns: vec![KeyColumn {
                    name: "id".to_owned(),
                    descending: false,
                    kind,
                }],
            }),
            partitions: Vec::new(),
            create_sha256: sha256(b""),
        }
    }

    const SIZES: Sizes = Sizes {
        threads: 4,
        total_bytes: 0,
        file_bytes: 64 << 20,
        chunk_rows: None,
    };

    #[test]
    fn big_tables_are_cut_and_small_ones_are_not() {
        let planned = |rows, bytes| {
            let facts = facts(rows, bytes, Some(KeyKind::Integer));
            let planned = PlannedTable::compute(&facts, SIZES);
            (planned.chunks, planned.chunk_rows)
        };
        assert_eq!(planned(0, 0), (1, None));
        assert_eq!(planned(100_000, 16 << 20), (1, None));
        assert_eq!(planned(250_000, 48 << 20), (3, Some(83_334)));
        assert_eq!(planned(1_000_000, 256 << 20), (8, Some(125_000)));
        assert_eq!(planned(64_000_000, 64 << 30), (1024, Some(62_500)));
        // Sizes of before the table was filled.
        assert_eq!(planned(10_000_000, 16_384).0, 8);
    }

    #[test]
    fn a_small_share_of_the_whole_is_not_cut() {
        let table = facts(250_000, 48 << 20, Some(KeyKind::Integer));
        let chunks = |total_bytes| {
            let sizes = Sizes {
                total_bytes,
                ..SIZES
            };
            PlannedTable::compute(&table, sizes).chunks
        };
        assert_eq!(chunks(total_bytes(std::slice::from_ref(&table))), 3);
        assert_eq!(chunks(192 << 20), 2);
        assert_eq!(chunks(384 << 20), 1);
    }

    #[test]
    fn what_cannot_be_cut_is_read_in_one_go() {
        let unfit = facts(64_000_000, 64 << 30, None);
        let planned = PlannedTable::compute(&unfit, SIZES);
        assert_eq!((planned.chunks, planned.chunk_rows), (1, None));
        let alone = Sizes {
            threads: 1,
            ..SIZES
        };
        let fit = facts(64_000_000, 64 << 30, Some(KeyKind::Integer));
        assert_eq!(PlannedTable::compute(&fit, alone).chunks, 1);
        let forced = Sizes {
            chunk_rows: Some(10),
            ..SIZES
        };
        let small = facts(95, 16_384, Some(KeyKind::Integer));
        let planned = PlannedTable::compute(&small, forced);
        assert_eq!((planned.chunks, planned.chunk_rows), (10, Some(10)));
    }

    #[test]
    fn small_partitions_are_read_together() {
        let mut table = facts(1_000_000, 256 << 20, Some(KeyKind::Integer));
        table.partitions = [8, 8, 20, 300, 1, 1]
            .iter()
            .enumerate()
            .map(|(n, megabytes)| Partition {
                name: format!("p{n}"),
                bytes: megabytes << 20,
            })
            .collect();
        let planned = PlannedTable::compute(&table, SIZES);
        assert_eq!(
            planned.partitions,
            [vec!["p0", "p1"], vec!["p2"], vec!["p3"], vec!["p4", "p5"]]
        );
        // The large one alone is cut.
        assert_eq!((planned.chunks, planned.chunk_rows), (13, Some(125_000)));
        table.key = None;
        let planned = PlannedTable::compute(&table, SIZES);
        assert_eq!((planned.chunks, planned.chunk_rows), (4, None));
        table.partitions[3].bytes = 32 << 20;
        table.key = facts(1, 1, Some(KeyKind::Integer)).key;
        let planned = PlannedTable::compute(&table, SIZES);
        assert_eq!((planned.chunks, planned.chunk_rows), (4, None));
    }
}
