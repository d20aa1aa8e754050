//! The error value of an ENUM, index 0: its text is empty, and loading it gives that value again
//! with the same warning (1265) that a value gives which the ENUM does not have. Only the file tells
//! the two apart: the rows that the server warns of are looked at again.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::archive::layout::SnapshotId;
use crate::archive::manifest::{DataFile, TableEntry};
use crate::storage::Storage;

use super::error::LoadError;
use super::fetch;

/// `WARN_DATA_TRUNCATED`.
const DATA_TRUNCATED: &str = "1265";
/// Such a file is rare, so that few are looked at beside those that are loaded.
const BESIDE: usize = 16;

/// A row, counted from 1, and the number of the field that the server warns of.
type Place = (u64, usize);

/// Whether a warning is about what a file holds, and not about a column that the server computes,
/// which is none of the entry's.
pub(super) fn is_about_a_file(message: &str, table: &TableEntry) -> bool {
    let named = message
        .split_once(" for column '")
        .and_then(|(_, rest)| rest.rsplit_once("' at row "));
    named.is_none_or(|(column, _)| table.columns.iter().any(|loaded| loaded.name == column))
}

/// The places that warnings (code and message) name, if all of them are about ENUM columns.
pub(super) fn places(told: &[(String, String)], table: &TableEntry) -> Option<BTreeSet<Place>> {
    told.iter()
        .map(|(code, message)| {
            let (column, row) = message
                .strip_prefix("Data truncated for column '")
                .filter(|_| code == DATA_TRUNCATED)?
                .rsplit_once("' at row ")?;
            let field = table
                .columns
                .iter()
                .position(|wanted| wanted.name == column && wanted.data_type == "enum")?;
            Some((row.parse().ok()?, field))
        })
        .collect()
}

/// The first of the places whose field is not empty.
pub(super) async fn first_lost(
    storage: &Arc<dyn Storage>,
    id: &SnapshotId,
    file: &DataFile,
    places: &BTreeSet<Place>,
) -> Result<Option<Place>, LoadError> {
    let key = file.file.key.in_snapshot(id);
    let room = fetch::Room::of_one_in(BESIDE);
    let (sender, mut pieces) = mpsc::channel(room.pieces);
    let mut fetching = JoinSet::new();
    fetching.spawn(fetch::content(
        Arc::clone(storage),
        key,
        file.file.clone(),
        room,
        sender,
    ));
    let mut look = Look {
        places,
        row: 1,
        field: 0,
        lost: None,
    };
    while let Some(piece) = pieces.recv().await {
        look.at(&piece);
    }
    match fetching.join_next().await {
        Some(joined) => joined.map_err(|error| LoadError::Task(error.to_string()))??,
        None => return Err(LoadError::Task("the download is gone".to_owned())),
    }
    Ok(look.lost)
}

/// Goes over a file in pieces; tabs and newlines within fields are escaped, so those that are seen
/// end fields and rows.
struct Look<'a> {
    places: &'a BTreeSet<Place>,
    row: u64,
    field: usize,
    lost: Option<Place>,
}

impl Look<'_> {
    fn at(&mut self, piece: &[u8]) {
        for &byte in piece {
            match byte {
                b'\t' => self.field += 1,
                b'\n' => {
                    self.row += 1;
                    self.field = 0;
                }
                _ => {
                    let here = (self.row, self.field);
                    if self.lost.is_none() && self.places.contains(&here) {
                        self.lost = Some(here);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::hash::sha256;
    use crate::archive::manifest::{LoadColumn, RowChecksum};

    fn table() -> TableEntry {
        let column = |name: &str, data_type: &str| LoadColumn {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
        };
        TableEntry {
            database: "d".to_owned(),
            name: "t".to_owned(),
            columns: vec![column("id", "int"), column("it's", "enum")],
            files: Vec::new(),
            rows: 0,
            row_checksum: RowChecksum::default(),
            create_sha256: sha256(b""),
            engine: None,
        }
    }

    #[test]
    fn only_warnings_about_enums_are_looked_into() {
        let told = |code: &str, message: &str| vec![(code.to_owned(), message.to_owned())];
        let of_enum = told("1265", "Data truncated for column 'it's' at row 7");
        assert_eq!(places(&of_enum, &table()), Some(BTreeSet::from([(7, 1)])));
        for other in [
            told("1265", "Data truncated for column 'id' at row 7"),
            told("1366", "Data truncated for column 'it's' at row 7"),
            told("1265", "Something else"),
        ] {
            assert_eq!(places(&other, &table()), None, "{other:?}");
        }
    }

    #[test]
    fn computed_columns_are_none_of_a_file() {
        for (message, expected) in [
            ("Data truncated for column 'computed' at row 4", false),
            ("Out of range value for column 'computed' at row 4", false),
            ("Data truncated for column 'id' at row 4", true),
            ("Out of range value for column 'it's' at row 4", true),
            ("Something else", true),
        ] {
            assert_eq!(is_about_a_file(message, &table()), expected, "{message}");
        }
    }

    #[test]
    fn a_value_that_the_enum_does_not_have_is_found_whatever_the_pieces() {
        let file = b"1\t\n2\ta\\tb\n3\t\n";
        for (places, lost) in [
            (BTreeSet::from([(1, 1), (3, 1)]), None),
            (BTreeSet::from([(1, 1), (2, 1)]), Some((2, 1))),
        ] {
            for size in 1..file.len() {
                let mut look = Look {
                    places: &places,
                    row: 1,
                    field: 0,
                    lost: None,
                };
                for piece in file.chunks(size) {
                    look.at(piece);
                }
                assert_eq!(look.lost, lost, "{size}");
            }
        }
    }
}
