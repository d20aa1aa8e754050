//! Which later transactions touched the very rows that one left out had changed.
//!
//! A binlog names no keys, so rows are told by their images: what the transaction left out had
//! before and made is remembered, and a later row with one of these images is the same row; what it
//! becomes is remembered, too. With `binlog_row_image=MINIMAL` an image has a few columns only and
//! compares with its like alone. Memory holds a digest of 16 bytes an image, up to a bound.

use std::collections::{BTreeMap, HashSet};

use crate::archive::hash::sha256;
use crate::archive::history::History;
use crate::archive::repository::{ArchiveError, Repository};
use crate::gtid::{Gtid, GtidSet};
use crate::mysql::binlog::rows::{Image, RowsEvent, TableMap};
use crate::mysql::binlog::{Checksum, EventError, EventKind, PayloadEvents, RawEvent};
use crate::restore::feed::{Step, Walk};

/// So many images are remembered.
const IMAGES: usize = 2_000_000;

/// Transactions that touched the same rows.
#[derive(Debug, Default)]
pub(super) struct SameRows {
    /// In the order of the log.
    pub(super) transactions: Vec<Gtid>,
    /// Whether there were more images than can be remembered, so that some may be missed.
    pub(super) incomplete: bool,
}

/// Goes through the rows of what is left out and of the later transactions `among` which to look.
pub(super) async fn same_rows(
    repository: &Repository,
    history: &History,
    left_out: &GtidSet,
    among: &GtidSet,
) -> Result<SameRows, ArchiveError> {
    let mut walk = Walk::new(repository, history, left_out.union(among));
    let mut trace = Trace::default();
    while let Some(step) = walk.next().await? {
        match step {
            Step::Begins(begun) => {
                let is_out = left_out.contains(&begun.gtid);
                trace.begin(begun.gtid, is_out);
            }
            Step::Inside(event, checksum) => {
                let traced = trace.event(&event, checksum);
                traced.map_err(|source| walk.damaged(source))?;
            }
        }
    }
    Ok(trace.found)
}

#[derive(Default)]
struct Trace {
    images: HashSet<[u8; 16]>,
    tables: BTreeMap<u64, TableMap>,
    gtid: Option<Gtid>,
    is_left_out: bool,
    found: SameRows,
}

impl Trace {
    fn begin(&mut self, gtid: Gtid, is_left_out: bool) {
        self.tables.clear();
        self.gtid = Some(gtid);
        self.is_left_out = is_left_out;
    }

    fn event(&mut self, event: &RawEvent<'_>, checksum: Checksum) -> Result<(), EventError> {
        match event.kind() {
            EventKind::TRANSACTION_PAYLOAD => {
                let mut events = PayloadEvents::open(event, checksum, usize::MAX)?;
                while let Some(inner) = events.next_whole()? {
                    self.event(&inner, Checksum::None)?;
                }
            }
            EventKind::TABLE_MAP => {
                let map = TableMap::parse(event, checksum)?;
                self.tables.insert(map.id, map);
            }
            _ => {
                if let Some(rows) = RowsEvent::parse(event, checksum)? {
                    self.rows(&rows)?;
                }
            }
        }
        Ok(())
    }

    fn rows(&mut self, event: &RowsEvent<'_>) -> Result<(), EventError> {
        let Some(table) = self.tables.get(&event.table_id) else {
            return Ok(());
        };
        let name = table.name();
        let mut touches = false;
        for row in event.rows(table) {
            let row = row?;
            let images = [row.before.as_ref(), row.after.as_ref()];
            let digests: Vec<[u8; 16]> = images
                .into_iter()
                .flatten()
                .map(|image| digest(&name, image))
                .collect();
            let is_same = digests.iter().any(|digest| self.images.contains(digest));
            touches |= is_same && !self.is_left_out;
            if !is_same && !self.is_left_out {
                continue;
            }
            if self.images.len() < IMAGES {
                self.images.extend(digests);
            } else {
                self.found.incomplete = true;
            }
        }
        if let Some(gtid) = self.gtid.as_ref().filter(|_| touches)
            && self.found.transactions.last() != Some(gtid)
        {
            self.found.transactions.push(gtid.clone());
        }
        Ok(())
    }
}

fn digest(table: &str, image: &Image<'_>) -> [u8; 16] {
    let text = format!("{table}\0{image:?}");
    let digest = sha256(text.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&digest.as_bytes()[..16]);
    short
}
